import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { deceptiveCharacters } from '../src/text.js';
import { temporaryFolder } from './support/cleanup.js';
import { missing } from './support/parts.js';
import { rowName } from './support/rows.js';
import { databaseRecord, domainXml } from './support/samples.js';
import { startSite } from './support/site.js';

// Names that are text of another language, too. Whoever may upload a domain chooses its name, so it
// must not become a line of a guest's cloud-config, of dnsmasq's files, of the log or of a terminal.

const host = '127.143.0.1';
const program = fileURLToPath(new URL('../src/ctl/main.js', import.meta.url));

/** Names of an old database, and the host names that guests get for them. */
const oldNames = [
  ['guest3\u2028bootcmd: [[sh, -c, "id > pwned"]] #', 'guest3-bootcmd-sh--c-id-pwned'],
  ['guest3\u0085bootcmd: [[reboot]] #', 'guest3-bootcmd-reboot'],
  ['guest3\nbootcmd: [[halt]] #', 'guest3-bootcmd-halt'],
  ['a\r\n10.0.0.1 github.com', 'a-10-0-0-1-github-com'],
  ['\x1b]0;title\x07\x1b[2J', '0-title-2J'],
  ['web1\u202egpj.exe', 'web1-gpj-exe'],
  ['web1\u200b', 'web1'],
  ['\u{e0077}', 'instance'],
  ['web1\ufdd0', 'web1'],
] as const;

const addressOf = (index: number) => `127.143.1.${index + 1}`;

const oldRecords = oldNames.map(([name], index) =>
  databaseRecord(index + 1, { domain_name: name, mds_ipv4: addressOf(index) }),
);

test("an upload in a known guest's name, with a line end of YAML, changes nothing", async (t) => {
  const known = databaseRecord(3, { domain_name: 'guest3', mds_ipv4: addressOf(0) });
  const { daemon, database } = await startSite(t, host, { records: [known] });
  const from = addressOf(0);
  const before = [
    readFileSync(database, 'utf8'),
    (await daemon.ask('/latest/user-data', { from })).text,
  ];
  for (const [name] of oldNames) {
    // XML 1.0 has no ESC, as itself or as a reference.
    const xml = domainXml(3, { name: name.replaceAll('\x1b', '\x9b').replaceAll('\x07', '\x9c') });
    const { status, text } = await daemon.upload(xml.replace(/\r/g, '&#13;'));
    assert.equal(status, 400, rowName(name));
    assert.match(
      text,
      /^the <name> of the domain is .* are not allowed: rename it \(virsh domrename\)\n?$/,
    );
    assert.doesNotMatch(text.trimEnd(), deceptiveCharacters);
  }
  assert.deepEqual(
    [readFileSync(database, 'utf8'), (await daemon.ask('/latest/user-data', { from })).text],
    before,
  );
});

test('blanks at the ends of a name are kept', async (t) => {
  const { daemon, json } = await startSite(t, host);
  assert.equal((await daemon.upload(domainXml(1, { name: ' web 1 ' }))).status, 200);
  const { body } = await json('/instances');
  assert.equal((body as { name: string }[])[0]?.name, ' web 1 ');
});

test('old records with such names are loaded, and break nothing that is served', async (t) => {
  const { daemon, folder, json } = await startSite(t, host, {
    records: oldRecords,
    dnsmasq: 'domain = example.org\nentry_order = base,domain',
    sections: '[public-keys]\ndefault = ssh-ed25519 AAAA me\n[template-data]\nyaml = text',
    userdata: { 'bare.yaml': 'hostname: {{hostname}}\nname: {{instance.name}}\n' },
  });
  const { body } = await json('/instances');
  assert.deepEqual(
    (body as { name: string }[]).map(({ name }) => name),
    oldNames.map(([name]) => name),
  );
  for (const [index, [name, hostName]] of oldNames.entries()) {
    const get = async (path: string) => (await daemon.ask(path, { from: addressOf(index) })).text;
    assert.equal(
      await get('/latest/user-data'),
      '#cloud-config\nmanage_etc_hosts: true\n',
      rowName(name),
    );
    // Of two names that become the same, the second is told apart in DNS.
    const own = index === 8 ? 'web1-00000000' : hostName;
    assert.equal(await get('/latest/meta-data/hostname'), own);
    assert.match(await get('/latest/meta-data/local-hostname'), /^[\w.-]+$/);
    assert.equal(JSON.parse(await get('/openstack/latest/meta_data.json')).name, hostName);
    assert.deepEqual(Object.keys(parse(await get('/nocloud/meta-data'))), [
      'instance-id',
      'local-hostname',
      'hostname',
      'public-keys',
    ]);
    assert.equal((await get('/latest/meta-data/')).includes('bootcmd'), false);
  }
  for (const [file, line] of [
    ['dhcp/mds.dhcp-hosts', /^[0-9a-f:]{17},id:\*,127\.143\.1\.\d,[A-Za-z0-9-]+,86400$/],
    ['dns/mds.dns-hosts', /^127\.143\.1\.\d [A-Za-z0-9.-]+ [A-Za-z0-9.-]+$/],
  ] as const) {
    const lines = readFileSync(join(folder, 'dnsmasq', file), 'utf8')
      .trimEnd()
      .split('\n');
    assert.equal(lines.length, oldNames.length);
    for (const text of lines) assert.match(text, line);
  }
  // The log names them in each line about their requests, or with their removal.
  await daemon.ask('/latest/none', { from: addressOf(0) });
  for (const text of daemon.output().split('\n')) assert.doesNotMatch(text, deceptiveCharacters);
});

test('mdserverctl shows such names escaped, and finds, explains and removes them', async (t) => {
  const { daemon, folder } = await startSite(t, host, { records: oldRecords });
  const ctl = (...args: string[]) =>
    spawnSync(process.execPath, [program, '--config', join(folder, 'mdserver.conf'), ...args], {
      encoding: 'utf8',
    });
  const listed = ctl('list').stdout.trimEnd().split('\n');
  assert.equal(listed.length, oldNames.length);
  for (const line of listed) assert.doesNotMatch(line.replaceAll('\t', ' '), deceptiveCharacters);
  const json = ctl('list', '--json').stdout;
  assert.doesNotMatch(json.replaceAll('\n', ''), deceptiveCharacters);
  assert.deepEqual(
    (JSON.parse(json) as { name: string }[]).map(({ name }) => name),
    oldNames.map(([name]) => name),
  );
  for (const [name] of oldNames) {
    for (const command of ['show', 'explain', 'known-hosts', 'render'] as const) {
      const { status, stdout, stderr } = ctl(command, name);
      assert.equal(status, command === 'known-hosts' ? 1 : 0, stderr);
      const lines = (stdout + stderr).replace(/[\n\t]/g, ' ');
      assert.doesNotMatch(lines, deceptiveCharacters);
    }
    const { status, stdout } = ctl('remove', '--yes', name);
    assert.equal(status, 0);
    assert.doesNotMatch(stdout.trimEnd().replaceAll('\t', ' '), deceptiveCharacters);
  }
  for (const text of daemon.output().split('\n')) assert.doesNotMatch(text, deceptiveCharacters);
});

test('on a terminal, render escapes what a template or metadata has; elsewhere it prints the bytes', {
  skip: missing('script'),
}, async (t) => {
  const note = 'a\u202eb\u2028c\u009bd';
  const record = {
    ...databaseRecord(1, { domain_name: 'web1', mds_ipv4: addressOf(0) }),
    domain_metadata: { note },
  };
  const { folder } = await startSite(t, host, {
    records: [record],
    userdata: { web1: '#cloud-config\n\x1b[31mnote: {{instance.metadata.note}}\tx\n' },
  });
  const line = `${process.execPath} ${program} --config ${join(folder, 'mdserver.conf')}`;
  const onTerminal = (command: string) =>
    spawnSync('script', ['-qec', `${line} ${command}`, '/dev/null'], {
      encoding: 'utf8',
      env: { ...process.env, NO_COLOR: '1' },
    }).stdout.replaceAll('\r\n', '\n');
  assert.match(
    onTerminal('render web1'),
    /#cloud-config\n\\u001b\[31mnote: a\\u202eb\\u2028c\\u009bd\tx\n$/,
  );
  for (const command of [
    'show web1 --json',
    'show web1',
    'render web1 --json',
    'render web1 tree',
  ]) {
    assert.doesNotMatch(onTerminal(command).replace(/[\n\t]/g, ' '), deceptiveCharacters, command);
  }
  const [node = '', ...args] = `${line} render web1`.split(' ');
  assert.equal(
    spawnSync(node, args, { encoding: 'utf8' }).stdout,
    `#cloud-config\n\x1b[31mnote: ${note}\tx\n`,
  );
});

test('check warns of a template that prints bare what YAML reads otherwise, for some instance', async (t) => {
  const notes = ['fine', '1e3', 'x #y', 'fine'];
  const records = notes.map((note, index) => ({
    ...databaseRecord(index + 1, { mds_ipv4: addressOf(index) }),
    domain_metadata: { note, userdata_prefix: 'base' },
  }));
  const { folder } = await startSite(t, host, {
    records,
    // check renders as the user of the daemon, who must be able to read the folder.
    dnsmasq: 'user = root',
    userdata: {
      'base.yaml':
        '#cloud-config\nhostname: {{yaml(hostname)}}\n\nbyobu_by_default: {{instance.metadata.note}}\n',
    },
  });
  const { stdout } = spawnSync(
    process.execPath,
    [program, '--config', join(folder, 'mdserver.conf'), 'check'],
    { encoding: 'utf8' },
  );
  const file = join(folder, 'userdata/base.yaml');
  assert.deepEqual(
    stdout.split('\n').filter((line) => line.includes('bare')),
    [
      `warning\tuser-data\t${file}:4: {{instance.metadata.note}} prints a value bare that YAML reads as something else: quote it with yaml() (2 instances, such as vm2)\tmdserverctl render vm2 shows it`,
    ],
  );
});

test('bash completes names with blanks, quotes and metacharacters as one word', async (t) => {
  const names = ['web 1', "it's", '$(touch pwned)', '`id`', 'a;b', '"q"', 'a\\b', '--help'];
  const { folder } = await startSite(t, host, {
    records: names.map((name, index) =>
      databaseRecord(index + 1, { domain_name: name, mds_ipv4: addressOf(index) }),
    ),
  });
  const bin = temporaryFolder(t, {
    mdserverctl: `#!/bin/sh\nexec ${process.execPath} ${program} --config ${folder}/mdserver.conf "$@"\n`,
  });
  const completion = fileURLToPath(
    new URL('../../etc/bash-completion/mdserverctl', import.meta.url),
  );
  const { stdout } = spawnSync(
    'bash',
    [
      '-c',
      `chmod +x mdserverctl; . ${completion}; COMP_WORDS=(mdserverctl show ''); COMP_CWORD=2; _mdserverctl; for word in "\${COMPREPLY[@]}"; do eval "printf '%s\\n' $word"; done`,
    ],
    { cwd: bin, encoding: 'utf8', env: { ...process.env, PATH: `${bin}:${process.env['PATH']}` } },
  );
  assert.deepEqual(stdout.trimEnd().split('\n'), names);
  assert.equal(existsSync(join(bin, 'pwned')), false);
});

test('the built-in user-data is cloud-config that this cloud-init accepts', {
  skip: missing('cloud-init'),
}, async (t) => {
  const { daemon } = await startSite(t, host, {
    records: [
      ...oldRecords.slice(0, 3),
      databaseRecord(9, { domain_name: '1e3', mds_ipv4: addressOf(8) }),
    ],
    sections: '[public-keys]\ndefault = ssh-ed25519 AAAA "a": b #c',
  });
  for (const index of [0, 1, 2, 8]) {
    const { text } = await daemon.ask('/latest/user-data', { from: addressOf(index) });
    const file = join(temporaryFolder(t, { 'user-data': text }), 'user-data');
    const { status, stdout, stderr } = spawnSync('cloud-init', ['schema', '--config-file', file], {
      encoding: 'utf8',
    });
    assert.equal(status, 0, stdout + stderr);
    assert.doesNotMatch(stdout + stderr, /deprecat|unexpected|additional/i);
  }
});

test('a lone surrogate in a name of the database is replaced, so that the name can be asked for', async (t) => {
  const record = databaseRecord(1, { domain_name: 'a\ud800b', mds_ipv4: addressOf(0) });
  const { json } = await startSite(t, host, { records: [record] });
  const { status } = await json(`/instances/${encodeURIComponent('a\ufffdb')}`);
  assert.equal(status, 200);
});
