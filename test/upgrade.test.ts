import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { temporaryFolder } from './support/cleanup.js';
import { eventually, repository } from './support/daemon.js';
import { addHost } from './support/netns.js';
import { missing } from './support/parts.js';

const skip = missing('netns', 'setpriv', 'curl');

const configuration = `[mdserver]
# from the days of 0.4
loglevel=info
password=$6$salt$hash/with.chars
default_template=/etc/mdserver/userdata/base.yaml

[public-keys]
default = ssh-ed25519 AAAAC3Nza ops@lab
adam = ecdsa-sha2-nistp256 AAAAE2Vj adam@lab

[dnsmasq]
interface=br-mds
prefix=vm-
domain=example.com
entry_order=prefix,domain,base

[template-data]
proxy = http://10.0.0.1:3128/?a=b
_config_items_ = dnsmasq.prefix,dnsmasq.domain

[service]
ec2_versions = 2009-04-04, latest
`;

const userdata = {
  'base.yaml': '#cloud-config\nhostname: {{hostname}}\npassword: {{mdserver_password}}\n',
  'db-01.yaml':
    "#cloud-config\nproxy: {{proxy}}\nfqdn: {{prefix}}{{hostname}}.{{domain}}\nkeys: [{{public_keys['adam']}}]\n",
  'testing.yaml': 't {{hostname}}\n',
};

/** Records of older releases, which lack some of the fields. */
const records = [
  {
    domain_name: 'web1',
    domain_uuid: '00000002-b581-4ecd-b60e-a9942ad18879',
    mds_mac: '52:54:00:3a:cf:02',
    mds_ipv4: '10.122.17.2',
    mds_ipv6: null,
    first_seen: 1594545538.672943,
    last_update: 1594545616.2650845,
  },
  {
    domain_name: 'db-01',
    domain_uuid: '00000003-b581-4ecd-b60e-a9942ad18879',
    domain_metadata: {},
    mds_mac: '52:54:00:3a:cf:03',
    mds_ipv4: '10.122.17.3',
    mds_ipv6: null,
    first_seen: 1594545538.672943,
    last_update: 1594545616.2650845,
    location: 'lab',
  },
  {
    domain_name: 'pref',
    domain_uuid: '00000004-b581-4ecd-b60e-a9942ad18879',
    domain_metadata: { userdata_prefix: 'testing' },
    mds_mac: '52:54:00:3a:cf:04',
    mds_ipv4: '10.122.17.4',
    mds_ipv6: null,
    first_seen: 1594545538.672943,
    last_update: 1594545616.2650845,
    location: 'lab',
  },
];

const pythonHook = `#!/bin/bash
. /etc/default/mdserver
if [ "$2" = "prepare" ]; then
        logger -t 'qemu-hook' "Processing instance $1"
        curl -s -d "@-" "http://$LISTEN_ADDRESS/instance-upload"
fi
exit 0
`;

const pythonUnit = `[Unit]
Description=Simple metadata server

[Service]
TimeoutStartSec=0
ExecStart=/usr/local/bin/mdserver /etc/mdserver/mdserver.conf
Restart=on-failure

[Install]
WantedBy=multi-user.target
`;

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

test('over an installed Python md_server, every guest keeps address, names, instance-id and user-data', {
  skip,
}, async (t) => {
  const folder = temporaryFolder(t);
  const python: Record<string, string> = {
    'etc/mdserver/mdserver.conf': configuration,
    'var/lib/mdserver/db_file.json': JSON.stringify(records, null, 4),
    'etc/libvirt/hooks/qemu': pythonHook,
    'etc/default/mdserver': 'LISTEN_ADDRESS=169.254.169.254\n',
    'etc/systemd/system/mdserver.service': pythonUnit,
  };
  for (const [name, text] of Object.entries(userdata))
    python[`etc/mdserver/userdata/${name}`] = text;
  for (const [path, text] of Object.entries(python)) {
    const file = join(folder, 'python', path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
  mkdirSync(join(folder, 'layers'));

  const host = addHost(t);
  const script = join(repository, 'test/fixtures/upgrade/upgrade.sh');
  const daemon = host.start('unshare', ['-m', script, folder, repository]);
  let output = '';
  daemon.stdout?.on('data', (chunk) => (output += chunk));
  daemon.stderr?.on('data', (chunk) => (output += chunk));
  await eventually('the upgraded daemon serves', () => {
    assert.equal(daemon.exitCode, null, output);
    return output.includes('serving on http://169.254.169.254');
  });

  // The operator's files are unchanged; those of the old program are replaced.
  assert.match(output, new RegExp(`^${sha256(configuration)} mdserver.conf$`, 'm'));
  for (const [name, text] of Object.entries(userdata)) {
    assert.match(output, new RegExp(`^${sha256(text)} ${name}$`, 'm'));
  }
  assert.match(output, /^\/var\/lib\/mdserver\/db_file\.json mdserver 644$/m);
  assert.match(output, /^Type=exec$/m);
  assert.match(output, /^#!\/bin\/sh$/m);
  assert.doesNotMatch(output, / (ERROR|FATAL) /);

  async function answer(from: number, path: string): Promise<string> {
    const guest = host.addGuest(records[from]?.mds_mac ?? '');
    try {
      guest.ip(`address add ${records[from]?.mds_ipv4}/16 dev eth0`);
      guest.ip('route add 169.254.169.254/32 via 10.122.0.1');
      const url = `http://169.254.169.254/${path}`;
      const { status, stdout } = await guest.run('curl', ['-sf', '--max-time', '20', url]);
      return status === 0 ? stdout : `curl ended with ${status}`;
    } finally {
      guest.remove();
    }
  }
  assert.equal(await answer(0, '2009-04-04/meta-data/instance-id'), 'i-10.122.17.2');
  assert.equal(await answer(1, '2009-04-04/meta-data/instance-id'), 'i-10.122.17.3');
  assert.equal(await answer(0, '2009-04-04/meta-data/hostname'), 'web1');
  assert.equal(await answer(0, '2009-04-04/meta-data/public-keys/'), '0=default\n1=adam');
  assert.equal(
    await answer(0, '2009-04-04/user-data'),
    '#cloud-config\nhostname: web1\npassword: $6$salt$hash/with.chars\n',
  );
  assert.equal(
    await answer(1, '2009-04-04/user-data'),
    '#cloud-config\nproxy: http://10.0.0.1:3128/?a=b\nfqdn: vm-db-01.example.com\nkeys: [ecdsa-sha2-nistp256 AAAAE2Vj adam@lab]\n',
  );
  assert.equal(await answer(2, 'latest/user-data'), 't pref\n');

  // The files exist only in the daemon's mount namespace, which /proc gives access to.
  const root = `/proc/${daemon.pid}/root/var/lib/mdserver/dnsmasq`;
  const { stdout: dhcp } = await host.run('cat', [`${root}/dhcp/mds.dhcp-hosts`]);
  assert.equal(
    dhcp,
    `52:54:00:3a:cf:02,id:*,10.122.17.2,web1,86400
52:54:00:3a:cf:03,id:*,10.122.17.3,db-01,86400
52:54:00:3a:cf:04,id:*,10.122.17.4,pref,86400
`,
  );
  const { stdout: dns } = await host.run('cat', [`${root}/dns/mds.dns-hosts`]);
  assert.equal(
    dns,
    `10.122.17.2 vm-web1 vm-web1.example.com web1
10.122.17.3 vm-db-01 vm-db-01.example.com db-01
10.122.17.4 vm-pref vm-pref.example.com pref
`,
  );
  daemon.kill('SIGTERM');
  const [code] = await once(daemon, 'exit');
  assert.equal(code, 0);
});
