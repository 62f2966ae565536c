import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { integrate, layPackage } from './fixtures/hook/installed.js';
import { temporaryFolder } from './support/cleanup.js';
import { repository } from './support/daemon.js';
import { labHost, layHost, leaveHost, migrated } from './support/python-host.js';

/** The commands of the section in docs/migration.md. */
function backCommands(): string {
  const page = readFileSync(join(repository, 'docs/migration.md'), 'utf8');
  const commands = /\n## Back to Python\n[\s\S]*?\n```\n([\s\S]*?)```\n/.exec(page)?.[1];
  assert.ok(commands);
  return commands;
}

test('the commands in "Back to Python" put each file back as Python had it', async (t) => {
  const bottle = '#cloud-config\n% if hostname:\nx: {{hostname.upper()}}\n% end\n';
  const files = { ...labHost, 'etc/mdserver/userdata/web2': bottle };
  const prefix = layHost(t, files);
  chmodSync(join(prefix, 'etc/libvirt/hooks/qemu'), 0o755);
  const { status } = await migrated(prefix, '--write');
  assert.equal(status, 0);
  integrate(layPackage(temporaryFolder(t)), prefix);
  assert.notEqual(readFileSync(join(prefix, 'etc/mdserver/userdata/web2'), 'utf8'), bottle);

  const bin = join(prefix, 'bin');
  mkdirSync(bin);
  writeFileSync(join(bin, 'systemctl'), '#!/bin/sh\n', { mode: 0o755 });
  const commands = backCommands().replaceAll(' /etc/', ` ${prefix}/etc/`);
  const env = { PATH: `${bin}:${process.env['PATH']}` };
  const shell = spawnSync('bash', ['-ec', commands], {
    encoding: 'utf8',
    env,
    // Bash would read start-up files if its standard input were a socket.
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  assert.deepEqual([shell.status, shell.stdout, shell.stderr], [0, '', '']);

  for (const [path, text] of Object.entries(files)) {
    assert.equal(readFileSync(join(prefix, path), 'utf8'), text, path);
  }
  assert.equal(statSync(join(prefix, 'etc/libvirt/hooks/qemu')).mode & 0o777, 0o755);
  const inEtc = (folder: string) => readdirSync(join(prefix, 'etc', folder)).sort();
  assert.deepEqual(inEtc('systemd/system'), [
    'lab-dhcp.path',
    'lab-dhcp.service',
    'mdserver.service',
    'other-dhcp.service',
  ]);
  assert.deepEqual(inEtc('libvirt/hooks'), ['qemu']);
  assert.deepEqual(inEtc('mdserver/userdata'), ['web1', 'web2']);
});

/** The fields of a record that Python indexes and writes into dnsmasq's files, and what it takes in them. */
const pythonFields: Readonly<Record<string, (value: unknown) => boolean>> = {
  domain_name: isText,
  domain_uuid: isText,
  domain_metadata: (value) => Object.values(value as object).every(isText),
  mds_mac: isText,
  mds_ipv4: isText,
  mds_ipv6: (value) => value === null || isText(value),
  first_seen: isNumber,
  last_update: isNumber,
  location: isText,
};

function isText(value: unknown): boolean {
  return typeof value === 'string';
}

function isNumber(value: unknown): boolean {
  return typeof value === 'number';
}

test('the database that mdserver leaves has what Python needs, in each record and for each guest', async (t) => {
  const { folder, database } = await leaveHost(t);
  const text = readFileSync(database, 'latin1');
  // Python opens it with the encoding of its locale, which is ASCII under systemd.
  assert.match(text, /^[\n\x20-\x7e]*$/);
  const parsed: unknown = JSON.parse(text);
  const records = (Array.isArray(parsed) ? parsed : []) as Record<string, unknown>[];
  assert.deepEqual(
    records.map(({ domain_name }) => domain_name),
    ['old', 'n\u00e4w'],
  );
  for (const record of records) {
    for (const [field, takes] of Object.entries(pythonFields)) {
      assert.ok(takes(record[field]), `${record['domain_name']}: ${field} is ${record[field]}`);
    }
  }
  // Python's dnsmasq reads all that is in these folders, and Python writes the files of these names anew.
  assert.deepEqual(readdirSync(join(folder, 'dnsmasq/dhcp')), ['mds.dhcp-hosts']);
  assert.deepEqual(readdirSync(join(folder, 'dnsmasq/dns')), ['mds.dns-hosts']);
});
