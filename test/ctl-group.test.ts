import assert from 'node:assert/strict';
import { chmodSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Finding } from '../src/ctl/checks/finding.js';
import { layPackage } from './fixtures/hook/installed.js';
import { temporaryFolder } from './support/cleanup.js';
import { eventually } from './support/daemon.js';
import { startDomain, startLibvirt } from './support/libvirt.js';
import { missing } from './support/parts.js';
import { mac, uuid } from './support/samples.js';

test('a member of the group mdserver checks a real installation: what only root may look at is said as that', {
  skip: missing('root', 'libvirtd', 'qemu', 'virsh', 'unshare', 'dnsmasq', 'setpriv'),
}, async (t) => {
  const folder = temporaryFolder(t);
  // Other users run the program from there.
  chmodSync(folder, 0o755);
  const packageRoot = layPackage(folder);
  const libvirt = await startLibvirt(t);
  const { start, virsh } = libvirt;
  const must = async (line: string) => {
    const { status, stdout, stderr } = await libvirt.run('sh', ['-ec', line]);
    assert.equal(status, 0, `${line}: ${stdout}${stderr}`);
  };
  await must(`${packageRoot}/system-integration.sh
    useradd --home-dir ${folder} --groups mdserver alice
    sed -i 's/^.public-keys./&\\ndefault = ssh-ed25519 AAAA me/' /etc/mdserver/mdserver.conf
    install --directory --owner mdserver --group mdserver /run/mdserver`);
  await virsh('net-autostart', 'mds');
  const interfaces = `<interface type='network'><mac address='${mac(1)}'/><source network='mds'/></interface>`;
  await startDomain(libvirt, folder, { name: 'web1', uuid: uuid(1), interfaces });
  // As the units do.
  const service = (capabilities: string, line: string) =>
    start('setpriv', [
      ...['--reuid=mdserver', '--regid=mdserver', '--init-groups'],
      ...['inh', 'ambient', 'bounding'].map(
        (kind) => `--${kind}-${kind === 'bounding' ? 'set' : 'caps'}=-all,${capabilities}`,
      ),
      ...['sh', '-c', `umask 0027; exec ${line}`],
    ]);
  const main = (name: string) => `${process.execPath} ${join(packageRoot, 'dist/bundle', name)}`;
  const ctl = main('mdserverctl.js');
  service('+net_bind_service', main('mdserver.js'));
  await must(`${ctl} wait`);
  await must(`${ctl} sync`);
  service(
    '+net_bind_service,+net_admin,+net_raw',
    'dnsmasq --keep-in-foreground --conf-file=/var/lib/mdserver/dnsmasq/mds.conf --log-facility=/var/log/mdserver/mdserver-dnsmasq.log',
  );
  await eventually(
    'dnsmasq runs',
    async () => (await libvirt.run('test', ['-e', '/run/mdserver/mds.pid'])).status === 0,
  );

  /** The exit status of `check`, and its lines that are not ok. */
  async function checked(user: string) {
    const { status, stdout } = await libvirt.run('setpriv', [
      ...[`--reuid=${user}`, `--regid=${user}`, '--init-groups', 'env', `HOME=${folder}`],
      ...['sh', '-c', `${ctl} check --json`],
    ]);
    const lines = (JSON.parse(stdout) as Finding[])
      .filter(({ level }) => level !== 'ok')
      .map(({ level, check, text, mend }) => `${level}: ${check}: ${text}: ${mend}`);
    return { status, lines };
  }
  assert.deepEqual(await checked('root'), { status: 0, lines: [] });
  const ports =
    'warning: ports: not checked: which program has port 53 of 169.254.169.254 (udp, tcp), port 53 of 10.122.0.1 (udp, tcp), port 67 of 0.0.0.0 (udp): run this with sudo';
  assert.deepEqual(await checked('alice'), { status: 0, lines: [ports] });

  // What firewalld 1.3.3 says where polkit lets only root ask it.
  await must(`cat > /usr/local/bin/firewall-cmd <<'END'
#!/bin/sh
[ "$(id -u)" != 0 ] || exit 252
printf 'Authorization failed.\\n    Make sure polkit agent is running or run the application as superuser.\\n' >&2
exit 253
END
    chmod 0755 /usr/local/bin/firewall-cmd`);
  const firewall =
    'warning: firewall: not checked: firewalld (Authorization failed.): run this with sudo';
  assert.deepEqual(await checked('alice'), { status: 0, lines: [ports, firewall] });

  // Where an operator keeps more from others, and processes are hidden.
  await must(`printf '#cloud-config\\nfqdn: a\\n' > /etc/mdserver/userdata/web1
    chown mdserver /etc/mdserver/userdata/web1
    chmod 0600 /etc/mdserver/userdata/web1
    chmod 0700 /etc/libvirt/hooks /var/log/mdserver /run/libvirt
    mount -o remount,hidepid=invisible /proc`);
  const sudo = 'run this with sudo';
  const denied = 'EACCES: permission denied,';
  const libvirtSocket =
    "virsh (qemu:///system): failed to connect to the hypervisor: Failed to connect socket to '/var/run/libvirt/libvirt-sock-ro': Permission denied";
  const hidden = (what: string, mend = sudo) => `warning: ${what}: ${mend}`;
  const outside = [
    hidden(`hook: not checked: ${denied} stat '/etc/libvirt/hooks/qemu.d'`),
    hidden(`network: not checked: ${libvirtSocket}`),
    ports,
    firewall,
    hidden(
      `domains: cannot compare the records with libvirt (what runs): ${libvirtSocket}`,
      'undefined',
    ),
    hidden(
      `domains: cannot read dnsmasq's log: ${denied} open '/var/log/mdserver/mdserver-dnsmasq.log'`,
    ),
  ];
  const logs = '/var/log/mdserver/mdserver.log, /var/log/mdserver/mdserver-dnsmasq.log';
  const { status, lines } = await checked('alice');
  const pid = (await libvirt.run('cat', ['/run/mdserver/mds.pid'])).stdout.trim();
  assert.equal(status, 0);
  assert.deepEqual(lines, [
    hidden(
      'user-data: not checked: this user may not read /etc/mdserver/userdata/web1 (web1)',
      'mdserverctl render web1 shows it',
    ),
    hidden(
      `dnsmasq: not checked: process ${pid} (from /var/run/mdserver/mds.pid) cannot be seen, and belongs to another user`,
    ),
    ...outside,
    hidden(`permissions: not checked: ${logs}`),
  ]);

  await must('chmod 0700 /var/lib/mdserver');
  const data = '/var/lib/mdserver';
  const files = ['token.key', 'last-good-config.json', 'debug-userdata', 'templates'];
  assert.deepEqual(await checked('alice'), {
    status: 0,
    lines: [
      hidden(`database: not checked: ${denied} stat '${data}/db_file.json'`),
      hidden(`dnsmasq: not checked: ${denied} stat '${data}/dnsmasq/mds.conf'`),
      ...outside,
      hidden(
        `permissions: not checked: ${[...files, 'db_file.json'].map((file) => `${data}/${file}`).join(', ')} and 4 more`,
      ),
    ],
  });
  assert.deepEqual(await checked('root'), { status: 0, lines: [] });
});
