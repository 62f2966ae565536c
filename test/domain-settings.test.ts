import assert from 'node:assert/strict';
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
