import assert from 'node:assert/strict';
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, it, test } from 'node:test';
import { integrate, layPackage } from './fixtures/hook/installed.js';
import { suiteScope, temporaryFolder } from './support/cleanup.js';
import { labHost, layHost, migrated } from './support/python-host.js';

const scope = suiteScope();
const packageFolder = temporaryFolder(scope);
const packageRoot = layPackage(packageFolder);

const hostWith = (files: Readonly<Record<string, string>>) => layHost(scope, files);

function allFiles(prefix: string): string[] {
  return readdirSync(prefix, { recursive: true, encoding: 'utf8' }).sort();
}

describe('units, hooks and programs of the Python md_server', () => {
  it('are found by what they run, whatever their names are', async () => {
    const prefix = hostWith(labHost);
    assert.deepEqual(await migrated(prefix), {
      status: 0,
      lines: [
        'stays\t/etc/mdserver/mdserver.conf\tis read as it is',
        'stays\t/etc/mdserver/userdata/web1\tgives the same text',
        "replaced\t/etc/systemd/system/lab-dhcp.path\twaits for dnsmasq's configuration: kept as lab-dhcp.path.md_server",
        'replaced\t/etc/systemd/system/lab-dhcp.service\truns dnsmasq with /var/lib/mdserver/dnsmasq/lab.conf: kept as lab-dhcp.service.md_server',
        'replaced\t/etc/systemd/system/mdserver.service\truns the Python md_server: kept as mdserver.service.md_server',
        'replaced\t/etc/libvirt/hooks/qemu\tuploads guests to the Python md_server: kept as qemu.md_server',
        'differs\t/usr/local/bin/mdserver\tis the Python md_server, and is in the way of ours in /usr/local/bin: /usr/bin/python3 -m pip uninstall mdserver. The unit starts ours by its own path',
      ],
    });
  });

  it('are taken away, kept and no longer enabled: they would do the same as ours, beside them', () => {
    const prefix = hostWith(labHost);
    const units = join(prefix, 'etc/systemd/system');
    mkdirSync(join(units, 'multi-user.target.wants'));
    symlinkSync(
      '/etc/systemd/system/lab-dhcp.service',
      join(units, 'multi-user.target.wants/lab-dhcp.service'),
    );
    const said = integrate(packageRoot, prefix);
    assert.deepEqual(allFiles(units), [
      'lab-dhcp.path.md_server',
      'lab-dhcp.service.md_server',
      'mdserver-dnsmasq.service',
      'mdserver-dnsmasq.service.d',
      'mdserver-dnsmasq.service.d/integrate.conf',
      'mdserver-dnsmasq.target',
      'mdserver.service',
      'mdserver.service.d',
      'mdserver.service.d/integrate.conf',
      'mdserver.service.md_server',
      'multi-user.target.wants',
      'other-dhcp.service',
    ]);
    assert.match(said, /systemctl stop mdserver mdserver-dnsmasq .*lab-dhcp\.service/);
    assert.equal(
      readFileSync(join(units, 'lab-dhcp.service.md_server'), 'utf8'),
      labHost['etc/systemd/system/lab-dhcp.service'],
    );
  });

  it('that another program or a second start would come of have to be decided first', async () => {
    const prefix = hostWith({
      ...labHost,
      'etc/systemd/system/mdserver.service.d/venv.conf':
        '[Service]\nExecStart=\nExecStart=/opt/venv/bin/mdserver /etc/mdserver/mdserver.conf\n',
      'usr/lib/systemd/system/packaged.service':
        '[Service]\nExecStart=/usr/bin/python3 -m mdserver.server /etc/mdserver/mdserver.conf\n',
      'etc/libvirt/hooks/qemu.d/upload': labHost['etc/libvirt/hooks/qemu'],
    });
    const { status, lines } = await migrated(prefix);
    assert.equal(status, 1);
    assert.deepEqual(
      lines.filter((line) => line.startsWith('decide')),
      [
        'decide\t/usr/lib/systemd/system/packaged.service\tdoes what our units do: systemctl disable --now packaged.service && systemctl mask packaged.service',
        'decide\t/etc/systemd/system/mdserver.service.d/venv.conf:3\tstarts /opt/venv/bin/mdserver in place of what our mdserver.service starts: remove the setting',
        'decide\t/etc/libvirt/hooks/qemu.d/upload\tuploads every guest a second time, and what it prints can stop a migration: remove it',
      ],
    );
  });
});

test('every value of the configuration that cannot stay is named, with file and line', async () => {
  const configuration =
    '[mdserver]\nport = http\n\n[dnsmasq]\nnet_address = 10.122\nlease_len = day\n';
  const prefix = hostWith({ 'etc/mdserver/mdserver.conf': configuration });
  const { status, lines } = await migrated(prefix);
  assert.equal(status, 1);
  assert.deepEqual(
    lines.map((line) => line.split(': expected')[0]),
    [
      'decide\t/etc/mdserver/mdserver.conf:2\tmdserver.port = "http"',
      'decide\t/etc/mdserver/mdserver.conf:5\tdnsmasq.net_address = "10.122"',
      'decide\t/etc/mdserver/mdserver.conf:6\tdnsmasq.lease_len = "day"',
    ],
  );
});

test('the database: who gets another name, who is left out, and what cannot be read', async () => {
  const record = (name: string, address: string, mac: string) => ({
    domain_name: name,
    domain_uuid: null,
    domain_metadata: {},
    mds_mac: mac,
    mds_ipv4: address,
    mds_ipv6: null,
  });
  const records = [
    record('old name', '10.122.0.2', '52:54:00:00:00:01'),
    record('web 1', '10.122.0.3', '52:54:00:00:00:02'),
    record('twin', '10.122.0.4', '52:54:00:00:00:02'),
  ];
  const prefix = hostWith({
    'etc/mdserver/mdserver.conf': '',
    'var/lib/mdserver/db_file.json': JSON.stringify(records),
  });
  const file = '/var/lib/mdserver/db_file.json';
  assert.deepEqual(await migrated(prefix), {
    status: 0,
    lines: [
      'stays\t/etc/mdserver/mdserver.conf\tis read as it is',
      `differs\t${file}\tthe record of "web 1" (52:54:00:00:00:02) is left out: another one has its MAC address, name, uuid or address`,
      `differs\t${file}\t"old name" is old-name in DHCP and DNS`,
      `stays\t${file}\t2 instances: Python can read it later, too`,
    ],
  });
  writeFileSync(join(prefix, file), '[{');
  const broken = await migrated(prefix);
  assert.equal(broken.status, 1);
  assert.match(broken.lines[1] ?? '', /^decide\t\/var\/lib\/mdserver\/db_file\.json\tnot JSON: /);
});

test('templates: what is converted, what is kept, and what an earlier conversion has left', async () => {
  const bottle = '#cloud-config\n% if hostname:\nname: {{hostname.upper()}}\n% end\n';
  const prefix = hostWith({
    'etc/mdserver/mdserver.conf': '[dnsmasq]\nuser = root\n',
    'etc/mdserver/userdata/web1': bottle,
    'etc/mdserver/userdata/web2.yaml': bottle,
    'etc/mdserver/userdata/web2.yaml.bottle': 'old\n',
  });
  const folder = join(prefix, 'etc/mdserver/userdata');
  const before = await migrated(prefix);
  assert.equal(before.status, 1);
  assert.deepEqual(
    before.lines.filter((line) => line.startsWith('convert')).map((line) => line.split('\t')[1]),
    ['/etc/mdserver/userdata/web1', '/etc/mdserver/userdata/web2.yaml'],
  );
  assert.equal(readFileSync(join(folder, 'web1'), 'utf8'), bottle);

  const { status, lines } = await migrated(prefix, '--write');
  assert.equal(status, 1);
  assert.match(
    lines[1] ?? '',
    /^converted\t\/etc\/mdserver\/userdata\/web1\tthe old one is web1\.bottle/,
  );
  assert.equal(
    lines[2],
    'decide\t/etc/mdserver/userdata/web2.yaml\tweb2.yaml.bottle is there from an earlier conversion: remove it, or move it away',
  );
  assert.equal(readFileSync(join(folder, 'web1.bottle'), 'utf8'), bottle);
  assert.match(readFileSync(join(folder, 'web1'), 'utf8'), /^\{\{% language javascript \}\}\n/);
  assert.equal(readFileSync(join(folder, 'web2.yaml'), 'utf8'), bottle);

  // What a template includes is converted with it.
  writeFileSync(join(folder, 'web3'), 'a\n% include("web2.yaml")\n');
  rmSync(join(folder, 'web2.yaml.bottle'));
  const { lines: more } = await migrated(prefix, '--write');
  assert.deepEqual(
    more.filter((line) => line.startsWith('converted')).map((line) => line.split('\t')[1]),
    ['/etc/mdserver/userdata/web2.yaml', '/etc/mdserver/userdata/web3'],
  );

  // What is converted already is ours.
  const again = await migrated(prefix);
  assert.equal(again.lines[1], 'stays\t/etc/mdserver/userdata/web1\tgives the same text');
});

test('a template that is a link: into the folder it stays, out of it it has to be decided', async () => {
  const bottle = '% if hostname:\nname: {{hostname.upper()}}\n% end\n';
  const prefix = hostWith({
    'etc/mdserver/mdserver.conf': '[dnsmasq]\nuser = root\n',
    'etc/mdserver/userdata/web1': bottle,
    'srv/shared.yaml': 'name: x\n',
  });
  const folder = join(prefix, 'etc/mdserver/userdata');
  symlinkSync('web1', join(folder, 'web2'));
  symlinkSync('../../../srv/shared.yaml', join(folder, 'web3'));
  const { lines } = await migrated(prefix, '--write');
  assert.deepEqual(
    lines.map((line) => line.split(':')[0]),
    [
      'stays\t/etc/mdserver/mdserver.conf\tis read as it is',
      'decide\t/etc/mdserver/userdata/web3\tthe link points to /srv/shared.yaml, outside /etc/mdserver/userdata',
      'converted\t/etc/mdserver/userdata/web1\tthe old one is web1.bottle',
    ],
  );
  assert.equal(readlinkSync(join(folder, 'web2')), 'web1');
  assert.equal(readFileSync(join(folder, 'web1.bottle'), 'utf8'), bottle);
});

describe('system-integration.sh over the Python md_server', () => {
  it('replaces nothing where a template would break, and says which line', () => {
    const prefix = hostWith({
      ...labHost,
      'etc/mdserver/userdata/web2': 'a\n% import subprocess\nb\n',
    });
    const before = allFiles(prefix);
    assert.throws(
      () => integrate(packageRoot, prefix),
      ({ stdout }: { stdout: string }) => {
        assert.match(stdout, /^decide\t\S+\/userdata\/web2:2\t/m);
        assert.match(stdout, /nothing is replaced/);
        return true;
      },
    );
    assert.deepEqual(allFiles(prefix), before);
  });

  it("starts our program by its own path: the one in /usr/local/bin is Python's", () => {
    const prefix = hostWith(labHost);
    const installed = layPackage(join(prefix, 'usr'));
    integrate(installed, prefix);
    const unit = readFileSync(join(prefix, 'etc/systemd/system/mdserver.service'), 'utf8');
    const main = '/usr/lib/node_modules/mdserver/dist/bundle';
    assert.deepEqual(
      unit.split('\n').filter((line) => /^Exec\w+=/.test(line)),
      [
        `ExecStart=${main}/mdserver.js /etc/mdserver/mdserver.conf`,
        `ExecStartPost=-${main}/mdserverctl.js wait --config /etc/mdserver/mdserver.conf`,

        'ExecReload=/bin/kill -HUP $MAINPID',
        `ExecReload=${main}/mdserver.js --check /etc/mdserver/mdserver.conf`,
      ],
    );
  });
});

test('a program that pip could name only behind a shell is Python, ours and others are not', async () => {
  const script = "#!/bin/sh\n'''exec' \"/opt/a long folder/bin/python3.11\" \"$0\" \"$@\"\n' '''\n";
  const prefix = hostWith({
    'etc/mdserver/mdserver.conf': '',
    'usr/local/bin/mdserver': script,
    'usr/bin/mdserver': '#!/usr/bin/env node\n',
  });
  const { lines } = await migrated(prefix);
  assert.deepEqual(lines.slice(1), [
    `differs\t/usr/local/bin/mdserver\tis the Python md_server, and is in the way of ours in /usr/local/bin: '/opt/a long folder/bin/python3.11' -m pip uninstall mdserver. The unit starts ours by its own path`,
  ]);
});
