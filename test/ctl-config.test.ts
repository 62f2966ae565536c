import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { configFrom, readableConfig } from '../src/config/load.js';
import { temporaryFolder } from './support/cleanup.js';

const program = fileURLToPath(new URL('../src/ctl/main.js', import.meta.url));

/** `mdserverctl config` on these files, of which mdserver.conf is the configuration. */
function configCommand(t: TestContext, files: Record<string, string>) {
  const folder = temporaryFolder(t);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  const file = join(folder, 'mdserver.conf');
  const run = (...args: string[]) => {
    const line = [program, 'config', '--config', file, ...args];
    const env = { ...process.env, PREFIX: folder };
    const { status, stdout, stderr } = spawnSync(process.execPath, line, { encoding: 'utf8', env });
    return { status, stdout, stderr };
  };
  return { file, folder, run };
}

test('config prints the lines of /service/configuration, with the control socket in use', (t) => {
  const text = '[mdserver]\npassword = secret\nport = 81\n[dnsmasq]\nrun_dir = /run/mds\n';
  const { run } = configCommand(t, { 'mdserver.conf': text });
  const lines = readableConfig(configFrom(text).config).map((line) =>
    line === 'mdserver.control_socket=' ? `${line}/run/mds/control.sock` : line,
  );
  assert.deepEqual(run(), { status: 0, stdout: `${lines.join('\n')}\n`, stderr: '' });
  assert.ok(lines.includes('mdserver.port=81'));
});

test('config prints the named values in the order given, an empty line for none, a list on one line', (t) => {
  const { run } = configCommand(t, {
    'mdserver.conf': '[mdserver]\nlisten_address = 10.0.0.1,\n  10.0.0.2\ncontrol_socket = /s\n',
  });
  assert.deepEqual(
    run(
      'mdserver.control_socket',
      'mdserver.vendor_data',
      'mdserver.listen_address',
      'dnsmasq.user',
    ),
    { status: 0, stdout: '/s\n\n10.0.0.1, 10.0.0.2\nmdserver\n', stderr: '' },
  );
});

test('config prints a netmask as the prefix length, which units take', (t) => {
  const { run } = configCommand(t, { 'mdserver.conf': '[dnsmasq]\nnet_prefix = 255.255.0.0\n' });
  assert.deepEqual(run('dnsmasq.net_prefix'), { status: 0, stdout: '16\n', stderr: '' });
});

test('config reads [DEFAULT] and the included files, those under PREFIX, as mdserver does', (t) => {
  const { run } = configCommand(t, {
    'mdserver.conf':
      '[DEFAULT]\nrun_dir = /srv/run\n[mdserver]\nport = 1\n[dnsmasq]\n[_include_]\ndirectories = /etc/conf.d\nfiles = /etc/last\n',
    'etc/conf.d/10.conf': '[mdserver]\nport = 2\nmetrics = yes\n',
    'etc/last': '[mdserver]\nport = 3\n',
  });
  assert.deepEqual(
    run('mdserver.port', 'mdserver.metrics', 'dnsmasq.run_dir', 'mdserver.control_socket'),
    { status: 0, stdout: '3\nyes\n/srv/run\n/srv/run/control.sock\n', stderr: '' },
  );
});

test('config --json prints an object, null for a value that is not set', (t) => {
  const { run } = configCommand(t, { 'mdserver.conf': '[service]\nlocation =\n' });
  const all = JSON.parse(run('--json').stdout);
  assert.equal(all['mdserver.port'], '80');
  assert.equal(all['mdserver.vendor_data'], null);
  assert.equal(all['service.location'], '');
  assert.ok(!('mdserver.password' in all));
  assert.deepEqual(JSON.parse(run('--json', 'mdserver.port', 'mdserver.vendor_data').stdout), {
    'mdserver.port': '80',
    'mdserver.vendor_data': null,
  });
});

test('config prints the password only if it is named', (t) => {
  const { run } = configCommand(t, { 'mdserver.conf': '[mdserver]\npassword = secret\n' });
  assert.ok(!run().stdout.includes('secret'));
  assert.ok(!run('--json').stdout.includes('secret'));
  assert.equal(run('mdserver.password').stdout, 'secret\n');
});

const unknownNames: [name: string, hint: string][] = [
  ['mdserver.prot', ', did you mean mdserver.port?'],
  ['dnsmasq.db_file', ', did you mean mdserver.db_file?'],
  ['lease_len', ', did you mean dnsmasq.lease_len?'],
  ['template-data.proxy', '; see mdserver.conf(5)'],
  ['constructor', '; see mdserver.conf(5)'],
];
for (const [name, hint] of unknownNames) {
  test(`config reports an unknown name: ${name}`, (t) => {
    const { run } = configCommand(t, { 'mdserver.conf': '' });
    assert.deepEqual(run('mdserver.port', name), {
      status: 2,
      stdout: '',
      stderr: `mdserverctl: unknown option "${name}"${hint}\n`,
    });
  });
}

test('config reports an error of the configuration, and shows warnings beside the values', (t) => {
  const bad = configCommand(t, { 'mdserver.conf': '[mdserver]\nport = many\n' });
  assert.deepEqual(bad.run(), {
    status: 1,
    stdout: '',
    stderr: `mdserverctl: ${bad.file}:2: mdserver.port = "many": expected a whole number from 1 to 65535\n`,
  });
  const odd = configCommand(t, { 'mdserver.conf': '[mdserver]\nprot = 81\n' });
  assert.deepEqual(odd.run('mdserver.port'), {
    status: 0,
    stdout: '80\n',
    stderr: `mdserverctl: ${odd.file}:2: unknown option mdserver.prot, did you mean mdserver.port?\n`,
  });
});
