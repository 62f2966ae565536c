import assert from 'node:assert/strict';
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { hostOf } from './support/ctl.js';
import { missing } from './support/parts.js';

const template = '#cloud-config\n% if hostname:\nfqdn: {{hostname.replace("-", "_")}}\n% end\n';
const converted =
  "{{% language javascript }}\n#cloud-config\n{{% if (hostname) { }}\nfqdn: {{hostname.replaceAll('-', '_')}}\n{{% } }}\n";

function versionless(text: string): string {
  return text.replace(/Bottle [0-9.]+/, 'Bottle');
}

/** The line of a file that was converted. */
function sameText(file: string): string {
  return `converted\t${file}.new\tthe same text as Bottle for 1 instance\n`;
}

test('convert writes FILE.new, with the permissions of FILE, and compares both with Bottle', {
  skip: missing('bottle'),
}, async (t) => {
  const host = hostOf(t);
  const file = host.write('userdata/web1.yaml', template);
  chmodSync(file, 0o640);
  const { status, stdout, stderr } = await host.ctl('convert', file);
  assert.deepEqual([status, versionless(stdout), stderr], [0, sameText(file), '']);
  assert.equal(readFileSync(file, 'utf8'), template);
  assert.equal(readFileSync(`${file}.new`, 'utf8'), converted);
  assert.equal(statSync(`${file}.new`).mode & 0o777, 0o640);
});

test('convert --write puts the template in place and keeps the old one, which it never overwrites', async (t) => {
  const host = hostOf(t);
  const file = host.write('userdata/web1.yaml', template);
  assert.equal((await host.ctl('convert', '--write', file)).status, 0);
  assert.equal(readFileSync(file, 'utf8'), converted);
  assert.equal(readFileSync(`${file}.bottle`, 'utf8'), template);

  host.write('userdata/web1.yaml', template);
  const again = await host.ctl('convert', '--write', file);
  assert.equal(again.status, 1);
  assert.match(again.stderr, /web1\.yaml\.bottle is there from an earlier conversion: remove it/);
  assert.equal(readFileSync(file, 'utf8'), template);
});

test('convert leaves out what an earlier conversion has left there', async (t) => {
  const host = hostOf(t);
  const file = host.write('userdata/web1.yaml', template);
  const others = ['new', 'bottle'].map((ending) =>
    host.write(`userdata/web1.yaml.${ending}`, template),
  );
  const { status, stdout, stderr } = await host.ctl('convert', '--json', file, ...others);
  assert.equal(status, 0);
  assert.deepEqual(
    JSON.parse(stdout).map((report: { file: string }) => report.file),
    [file],
  );
  for (const other of others) {
    assert.ok(
      stderr.includes(`left out ${other}: it is from an earlier conversion, or a backup\n`),
    );
  }
});

test('convert names each line that it refuses, writes nothing for that file, and leaves what needs nothing', async (t) => {
  const host = hostOf(t);
  const refused = host.write('userdata/web1', 'a\n% import subprocess\n{{nosuch}}\n');
  const plain = host.write('userdata/web2', 'hostname: {{hostname}}\n');
  const { status, stdout } = await host.ctl('convert', '--json', refused, plain);
  assert.equal(status, 1);
  const [first, second] = JSON.parse(stdout);
  assert.deepEqual(
    [first.result, first.written, first.problems.map(({ line }: { line: number }) => line)],
    ['refused', null, [2, 3]],
  );
  assert.deepEqual([second.result, second.written], ['unchanged', null]);
  for (const file of [refused, plain]) {
    for (const ending of ['new', 'bottle']) assert.ok(!existsSync(`${file}.${ending}`));
  }
});

test('convert shows the lines that differ from Bottle, and does not write the file', {
  skip: missing('bottle'),
}, async (t) => {
  const host = hostOf(t);
  // The name of one instance is not that of a host, which no conversion can know.
  const names = ['web1', '\u00dfeta'];
  const records = names.map((domain_name, index) => ({
    domain_name,
    domain_uuid: `00000000-0000-4000-8000-00000000000${index}`,
    mds_mac: `52:54:00:00:00:0${index}`,
    mds_ipv4: `127.77.0.${index + 2}`,
  }));
  host.write('data/db_file.json', JSON.stringify(records));
  const file = host.write('userdata/default', 'a\nname: {{hostname.capitalize()}}\n');
  const { status, stdout } = await host.ctl('convert', file);
  assert.equal(
    versionless(stdout),
    `different\t${file}\tthe text differs from Bottle for 1 of 2 instances

--- ${file} for \u00dfeta, from Bottle
+++ here
@@ line 2 @@
-name: Sseta
+name: \u00dfeta
`,
  );
  assert.equal(status, 1);
  assert.ok(!existsSync(`${file}.new`));
});

test('root compares as the user of mdserver, since templates are code', {
  skip: missing('bottle', 'root'),
}, async (t) => {
  const host = hostOf(t);
  const file = host.write('userdata/web1.yaml', template);
  const configuration = readFileSync(host.file, 'utf8');
  writeFileSync(host.file, configuration.replace('user = root', 'user = nobody'));
  // That user cannot even read the configuration.
  const denied = await host.ctl('convert', file);
  assert.match(denied.stderr, /^mdserverctl: not compared: as user \d+: /);
  chmodSync(host.folder, 0o755);
  const compared = await host.ctl('convert', file);
  assert.deepEqual([versionless(compared.stdout), compared.stderr], [sameText(file), '']);
});
