import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { keysOf, settingProblems } from '../src/instances/settings.js';
import { addressOf, findings, hostOf, linesOf } from './support/ctl.js';
import { rowName } from './support/rows.js';
import { databaseRecord, domainXml } from './support/samples.js';
import { startSite } from './support/site.js';

// What the metadata of a domain sets for its instance alone.

const keys = ['default', 'adam', 'eve', 'zoe'].map((name) => ({ name, key: `ssh-rsa ${name}` }));

const unknown = (names: string, gets: string) =>
  `in the metadata of its domain, public_keys names ${names}, which [public-keys] does not have, so it gets ${gets}: add the key, or correct the name`;
const namesNone =
  'in the metadata of its domain, public_keys names no key, so it gets none: write none if that is meant, else remove the element';

/** The value of public_keys, the keys that it chooses, and what is said about it. */
const choices: readonly [
  text: string | undefined,
  chosen: readonly string[],
  problems: readonly string[],
][] = [
  [undefined, ['default', 'adam', 'eve', 'zoe'], []],
  ['adam eve', ['adam', 'eve'], []],
  ['eve,adam', ['eve', 'adam'], []],
  [' zoe ,\n\tdefault, zoe', ['zoe', 'default'], []],
  // Names are in lower case in the configuration, whatever its file has.
  ['Adam', ['adam'], []],
  ['none', [], []],
  ['None', [], []],
  ['bob', [], [unknown('"bob"', 'no key')]],
  ['bob eve "x"', ['eve'], [unknown('"bob", "\\"x\\""', 'the other keys alone')]],
  [
    `a b c d e ${'f'.repeat(70)} eve`,
    ['eve'],
    [unknown('"a", "b", "c", "d", "e", 1 more', 'the other keys alone')],
  ],
  ['none adam', ['adam'], [unknown('"none"', 'the other keys alone')]],
  ['__proto__ 0 1', [], [unknown('"__proto__", "0", "1"', 'no key')]],
  ['', [], [namesNone]],
  [' , ', [], [namesNone]],
];

for (const [text, chosen, problems] of choices) {
  test(`public_keys = ${rowName(text)} gives an instance ${chosen.join(', ') || 'no key'}, and never another one`, () => {
    const metadata: Record<string, string> = text === undefined ? {} : { public_keys: text };
    assert.deepEqual(
      keysOf({ metadata }, keys).map(({ name }) => name),
      chosen,
    );
    assert.deepEqual(settingProblems({ metadata }, keys), problems);
  });
}

test('another word for imds_tokens counts as required, and is said', () => {
  const metadata = { imds_tokens: 'require' };
  assert.deepEqual(settingProblems({ metadata }, []), [
    'in the metadata of its domain, imds_tokens is "require", which counts as required: it can only be optional or required',
  ]);
  for (const word of ['required', 'optional']) {
    assert.deepEqual(settingProblems({ metadata: { imds_tokens: word } }, []), []);
  }
});

test('public-keys is the same name, and one that has a value counts before an empty one', () => {
  for (const metadata of [{ 'public-keys': 'eve' }, { Public_Keys: '', 'public-keys': 'eve' }]) {
    assert.deepEqual(keysOf({ metadata }, keys), [{ name: 'eve', key: 'ssh-rsa eve' }]);
  }
});

test('all that serves keys serves those that the domain chooses, in its order', async (t) => {
  const sections = `[public-keys]\n${keys.map(({ name, key }) => `${name} = ${key}`).join('\n')}`;
  const template = `#cloud-config
ssh_authorized_keys: {{yaml(Object.values(public_keys))}}
others: [{{yaml(public_key_adam ?? '')}}, {{yaml(public_keys['zoe'] ?? '')}}]
`;
  const { daemon } = await startSite(t, '127.151.1.1', {
    records: choices.map(([text], index) =>
      databaseRecord(index, {
        mds_ipv4: `127.151.2.${index}`,
        domain_metadata: text === undefined ? {} : { public_keys: text },
      }),
    ),
    sections,
    userdata: { template },
    mdserver: 'default_template = @DIR@/userdata/template',
  });
  for (const [index, [text, chosen]] of choices.entries()) {
    await t.test(rowName(text), async () => {
      const get = (path: string) => daemon.ask(path, { from: `127.151.2.${index}` });
      const texts = chosen.map((name) => `ssh-rsa ${name}`);
      const listing = await get('/latest/meta-data/public-keys/');
      assert.deepEqual(
        [listing.status, listing.text],
        chosen.length === 0
          ? [404, 'not found\n']
          : [200, chosen.map((name, number) => `${number}=${name}`).join('\n')],
      );
      for (const [number, { name, key }] of keys.entries()) {
        const byName = await get(`/latest/meta-data/public-keys/${name}/openssh-key`);
        assert.equal(byName.text, chosen.includes(name) ? key : 'not found\n');
        const byIndex = await get(`/latest/meta-data/public-keys/${number}/openssh-key`);
        assert.equal(byIndex.text, texts[number] ?? 'not found\n');
        const byLine = await get(`/latest/meta-data/public-keys/${number}=${name}/openssh-key`);
        assert.equal(byLine.text, chosen[number] === name ? key : 'not found\n');
      }
      const nocloud = parse((await get('/nocloud/meta-data')).text) as Record<string, unknown>;
      assert.deepEqual(nocloud['public-keys'] ?? [], texts);
      const document = JSON.parse((await get('/openstack/latest/meta_data.json')).text) as Record<
        string,
        unknown
      >;
      assert.deepEqual(
        [document['public_keys'], document['keys'], document['meta']],
        [
          Object.fromEntries(chosen.map((name) => [name, `ssh-rsa ${name}`])),
          chosen.map((name) => ({ name, type: 'ssh', data: `ssh-rsa ${name}` })),
          {},
        ],
      );
      const has = (name: string) => (chosen.includes(name) ? `ssh-rsa ${name}` : '');
      assert.deepEqual(parse((await get('/latest/user-data')).text), {
        ssh_authorized_keys: texts,
        others: [has('adam'), has('zoe')],
      });
    });
  }
});

test('a template that prints a key which the domain does not choose is refused, an earlier version as well', async (t) => {
  const { daemon, ask } = await startSite(t, '127.151.3.1', {
    sections: '[public-keys]\nadam = ssh-rsa adam\neve = ssh-rsa eve',
    userdata: { vm1: '{{public_key_eve}}' },
  });
  const uploaded = async (metadata: Record<string, string>) => {
    const { text } = await ask('/instance-upload', {
      method: 'POST',
      body: domainXml(1, { metadata }),
      headers: { accept: 'application/json' },
    });
    return (JSON.parse(text) as { mds_ipv4: string }).mds_ipv4;
  };
  const from = await uploaded({});
  assert.equal((await daemon.ask('/latest/user-data', { from })).text, 'ssh-rsa eve');
  await uploaded({ public_keys: 'adam' });
  const { status, text } = await daemon.ask('/latest/user-data', { from });
  assert.deepEqual([status, text], [500, 'internal error, see the log\n']);
  await daemon.printed(
    "userdata/vm1:1: {{public_key_eve}} has no value here: write {{… ?? ''}} to print nothing instead",
  );
});

test('mdserverctl says which keys an instance gets, and which name is none', async (t) => {
  const host = hostOf(t);
  const daemon = await host.start();
  const warning = unknown('"bob"', 'the other keys alone');
  const xml = host.write('x.xml', domainXml(1, { metadata: { public_keys: 'bob default' } }));
  const uploaded = await host.ctl('upload', xml);
  assert.ok(uploaded.stderr.includes(`mdserverctl: vm1: ${warning}\n`), uploaded.stderr);
  await daemon.printed(`vm1: ${warning}`);
  const { stdout } = await host.ctl('show', 'vm1');
  assert.match(stdout, /^public keys\tdefault$/m);
  assert.ok(stdout.includes(`\nwarning\t${warning}\n`), stdout);
  const { stdout: explained } = await host.ctl('explain', 'vm1');
  assert.ok(explained.includes(`\nI${warning.slice(1)}.\n`), explained);
  const json = JSON.parse((await host.ctl('show', 'vm1', '--json')).stdout) as object;
  assert.deepEqual(
    [Reflect.get(json, 'public_keys'), Reflect.get(json, 'warnings')],
    [['default'], [warning]],
  );
  assert.ok(
    linesOf(await findings(host), 'user-data').includes(
      `warning: ${warning} (vm1): mdserverctl show vm1 shows it`,
    ),
  );
  const from = await addressOf(host, 'vm1');
  assert.equal((await daemon.ask('/latest/meta-data/public-keys/', { from })).text, '0=default');
});

// ---- no user-data, said on purpose ----

const said = 'userdata in the metadata of its domain is none';
const nothingElse =
  'mdserver.userdata_dir has no file for its name or MAC address, mdserver.default_template is not set, and mdserver.builtin_template is no';

test('userdata = none: 404 by EC2 and OpenStack, an empty 200 by NoCloud, whatever files there are', async (t) => {
  const none = (number: number, metadata: Record<string, string>) =>
    databaseRecord(number, { mds_ipv4: `127.151.4.1${number}`, domain_metadata: metadata });
  const { daemon } = await startSite(t, '127.151.4.1', {
    records: [
      none(1, { userdata: 'none' }),
      none(2, { userdata: 'NONE', userdata_prefix: 'db' }),
      none(3, { userdata: 'db' }),
      none(4, { userdata: '' }),
    ],
    userdata: { vm1: 'own', vm2: 'own', db: 'of the prefix', base: 'base' },
    mdserver: 'default_template = @DIR@/userdata/base\nvendor_data = @DIR@/userdata/base',
  });
  const paths = ['/latest/user-data', '/openstack/latest/user_data', '/nocloud/user-data'];
  const answers = async (number: number) => {
    const from = `127.151.4.1${number}`;
    const all = await Promise.all(paths.map((path) => daemon.ask(path, { from })));
    return all.map(({ status, text }) => [status, text]);
  };
  for (const number of [1, 2]) {
    assert.deepEqual(await answers(number), [
      [404, 'not found\n'],
      [404, 'not found\n'],
      [200, ''],
    ]);
    const get = async (path: string) =>
      (await daemon.ask(path, { from: `127.151.4.1${number}` })).text;
    assert.equal(await get('/latest/'), 'meta-data/\ndynamic/');
    assert.equal((await get('/openstack/latest/')).includes('user_data'), false);
    assert.equal(await get('/nocloud/vendor-data'), 'base');
    assert.equal((await get('/latest/meta-data/')).includes('tags'), false);
  }
  for (const number of [3, 4]) {
    assert.deepEqual(
      await answers(number),
      paths.map(() => [200, 'base']),
    );
  }
});

test('builtin_template = no: what has a file keeps it, the others have no user-data', async (t) => {
  const { daemon, folder } = await startSite(t, '127.151.6.1', {
    records: [1, 2].map((number) => databaseRecord(number, { mds_ipv4: `127.151.6.1${number}` })),
    userdata: { vm1: 'own' },
    mdserver: 'builtin_template = no',
  });
  const get = async (path: string, number: number) => {
    const { status, text } = await daemon.ask(path, { from: `127.151.6.1${number}` });
    return [status, text];
  };
  assert.deepEqual(await get('/latest/user-data', 1), [200, 'own']);
  assert.deepEqual(await get('/latest/user-data', 2), [404, 'not found\n']);
  assert.deepEqual(await get('/openstack/latest/user_data', 2), [404, 'not found\n']);
  assert.deepEqual(await get('/nocloud/user-data', 2), [200, '']);
  // A file that comes later counts at once.
  writeFileSync(join(folder, 'userdata', 'vm2.yaml'), 'new');
  assert.deepEqual(await get('/latest/user-data', 2), [200, 'new']);
  assert.deepEqual(await get('/nocloud/user-data', 2), [200, 'new']);
});

test('mdserverctl says why there is no user-data, and check counts it as meant', async (t) => {
  const host = hostOf(t, 'builtin_template = no');
  const daemon = await host.start();
  const wrong =
    'in the metadata of its domain, userdata is "web", which counts for nothing: it can only be none (userdata_prefix names a file)';
  host.write('userdata/vm1', 'own');
  for (const [number, metadata] of [
    [1, { userdata: 'none' }],
    [2, {}],
    [3, { userdata: 'web' }],
  ] as const) {
    await host.ctl('upload', host.write('x.xml', domainXml(number, { metadata })));
  }
  await daemon.printed(`vm3: ${wrong}`);
  for (const [name, reason] of [
    ['vm1', said],
    ['vm2', nothingElse],
  ] as const) {
    assert.deepEqual(await host.ctl('render', name), {
      status: 1,
      stdout: '',
      stderr: `mdserverctl: ${name} has no user-data: it would get a 404 (${reason})\n`,
    });
    const { stdout: shown } = await host.ctl('show', name);
    assert.ok(shown.includes(`\nuser-data\tnone: ${reason}\n`), shown);
    const from = await addressOf(host, name);
    await daemon.ask('/latest/user-data', { from });
    const { stdout: explained } = await host.ctl('explain', name);
    assert.ok(explained.endsWith(`  - There is no user-data for it: ${reason}.\n`), explained);
  }
  assert.deepEqual(linesOf(await findings(host), 'user-data'), [
    `ok: no user-data (404): ${said} (vm1): mdserverctl show vm1 shows it`,
    `ok: no user-data (404): ${nothingElse} (2 instances, such as vm2): mdserverctl show vm2 shows it`,
    `warning: ${wrong} (vm3): mdserverctl show vm3 shows it`,
    'ok: 3 instances rendered from 0 templates',
  ]);
});
