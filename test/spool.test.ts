import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import type { Health, InstanceDetails } from '../src/control/api.js';
import { temporaryFolder } from './support/cleanup.js';
import { startWithControl } from './support/control-socket.js';
import { ask, type Daemon, eventually } from './support/daemon.js';
import { rowName } from './support/rows.js';
import { domainXml, loopbackConfiguration, mac, uuid } from './support/samples.js';
import { type Setup, type Site, startSite } from './support/site.js';

const address = '127.148.0.1';

/** A time before this test, in Unix seconds. */
const early = 1_700_000_000.25;

/** The name that the hook gives the file of a domain. */
function fileOf(name: string, kind = 'domain'): string {
  return `${createHash('sha256').update(name).digest('hex').slice(0, 32)}.${kind}`;
}

/** What the hook writes into the file. */
function spooled(name: string, xml: string, about: object = {}): string {
  return `${JSON.stringify({ operation: 'prepare', name, at: early, ...about })}\n${xml}`;
}

function portXml(number: number): string {
  return `<hookData><network><name>mds</name></network><networkport><owner><name>vm${number}</name>
    <uuid>${uuid(number)}</uuid></owner><mac address='${mac(number)}'/></networkport></hookData>`;
}

/** Starts mdserver where the spool has these files. */
async function startWith(
  scope: Parameters<typeof startSite>[0],
  files: Readonly<Record<string, string>>,
  setup: Setup = {},
): Promise<Site & { spool: string }> {
  const folder = temporaryFolder(scope, { 'userdata/': '', 'spool/': '' });
  const spool = join(folder, 'spool');
  for (const [name, content] of Object.entries(files)) writeFileSync(join(spool, name), content);
  const site = await startSite(scope, address, { ...setup, folder });
  return { ...site, spool };
}

async function recordOf({ json }: Pick<Site, 'json'>, name: string) {
  const { status, body } = await json(`/instances/${name}`);
  return status === 200 ? (body as InstanceDetails) : undefined;
}

async function problemsOf({ json }: Pick<Site, 'json'>): Promise<string[]> {
  const { problems } = (await json('/health')).body as Health;
  return problems.filter((line) => line.includes('/spool'));
}

const hook = (path: string, body: string, operation?: string) =>
  [
    path,
    { method: 'POST', body, headers: operation ? { 'x-libvirt-operation': operation } : {} },
  ] as const;

/** Waits until the folder has just these files. */
function emptied(spool: string, rest: readonly string[] = []): Promise<void> {
  return eventually('the spool is taken in', () => {
    return JSON.stringify(readdirSync(spool).sort()) === JSON.stringify([...rest].sort());
  });
}

test('what the hook kept is taken in at the start: the record, its boot and its times are those of then', async (t) => {
  const site = await startWith(t, {
    [fileOf('vm1')]: spooled('vm1', domainXml(1, { metadata: { role: 'web' } })),
    [fileOf('vm2')]: spooled('vm2', domainXml(2), { operation: 'restore', at: early + 1 }),
    [fileOf('vm3', 'port')]: spooled('vm3', portXml(3), { operation: 'port-created' }),
    '.unfinished.new': 'what a hook that was killed left',
  });
  await emptied(site.spool, ['.unfinished.new']);
  const first = await recordOf(site, 'vm1');
  assert.deepEqual(
    [first?.metadata, first?.first_seen, first?.last_update, first?.last_boot],
    [{ role: 'web' }, early, early, { started: early, ended: null, outcome: 'started' }],
  );
  const second = await recordOf(site, 'vm2');
  assert.deepEqual(
    second?.boots.map(({ by, started }) => [by, started]),
    [['restore', early + 1]],
  );
  const third = await recordOf(site, 'vm3');
  assert.deepEqual(
    [third?.mac, third?.first_seen, third?.last_update, third?.boots],
    [mac(3), early, null, []],
  );
  assert.deepEqual(await problemsOf(site), []);
  // The prepare of a restored guest, which arrives, is the same boot.
  await site.ask(...hook('/instance-upload', domainXml(2), 'prepare'));
  assert.deepEqual((await recordOf(site, 'vm2'))?.boots.length, 1);
});

test('the folder is made, for mdserver’s user alone, and one that is open to others is closed', async (t) => {
  const site = await startSite(t, address);
  const spool = join(site.folder, 'spool');
  const mode = () => (statSync(spool).mode & 0o7777).toString(8);
  assert.equal(mode(), '700');
  chmodSync(spool, 0o777);
  await (await site.restart()).ask(...hook('/events', '{}'));
  await eventually('the folder is closed', () => mode() === '700');
});

test('what the hook keeps while mdserver runs is taken in when the hook next speaks', async (t) => {
  const site = await startWith(t, {});
  const events = { method: 'POST', headers: { 'content-type': 'application/json' } };
  const others: readonly (() => Promise<unknown>)[] = [
    () => site.ask(...hook('/instance-upload', domainXml(91), 'prepare')),
    () => site.ask(...hook('/instance-upload', domainXml(92, { network: 'x' }), 'prepare')),
    () => site.ask(...hook('/ports', portXml(93))),
    () => site.ask('/events', { ...events, body: '{"kind": "released", "name": "other"}' }),
  ];
  for (const [index, speak] of others.entries()) {
    const number = index + 1;
    writeFileSync(
      join(site.spool, fileOf(`vm${number}`)),
      spooled(`vm${number}`, domainXml(number)),
    );
    await speak();
    await emptied(site.spool);
    assert.ok(await recordOf(site, `vm${number}`));
  }
});

test('a guest’s end is told after its start, which waits: its start failed, and no record stays', async (t) => {
  const site = await startWith(t, {});
  writeFileSync(join(site.spool, fileOf('vm1')), spooled('vm1', domainXml(1)));
  const body = { kind: 'released', name: 'vm1', uuid: uuid(1), failed: true };
  await site.ask('/events', {
    method: 'POST',
    body: JSON.stringify(body),
    headers: { 'content-type': 'application/json' },
  });
  assert.deepEqual(readdirSync(site.spool), []);
  assert.deepEqual(await site.json('/instances'), { status: 200, body: [] });
});

test('the newest counts, whether it was kept or arrived', async (t) => {
  const site = await startWith(t, {});
  const put = (role: string) => domainXml(1, { metadata: { role } });
  await site.ask(...hook('/instance-upload', put('arrived'), 'prepare'));
  writeFileSync(join(site.spool, fileOf('vm1')), spooled('vm1', put('older')));
  await site.ask(...hook('/ports', ''));
  await emptied(site.spool);
  const record = await recordOf(site, 'vm1');
  assert.deepEqual([record?.metadata, record?.boots.length], [{ role: 'arrived' }, 1]);

  // Two that were kept: one was being taken in when mdserver was killed.
  writeFileSync(
    join(site.spool, `${fileOf('vm2')}.taking`),
    spooled('vm2', domainXml(2, { metadata: { role: 'first' } }), { at: early + 1 }),
  );
  writeFileSync(
    join(site.spool, fileOf('vm2')),
    spooled('vm2', domainXml(2, { metadata: { role: 'second' } }), { at: early + 2 }),
  );
  await site.ask(...hook('/ports', ''));
  await emptied(site.spool);
  const second = await recordOf(site, 'vm2');
  assert.deepEqual([second?.metadata, second?.last_update], [{ role: 'second' }, early + 2]);
});

test('an upload that the hook kept although it arrived begins one boot', async (t) => {
  const site = await startWith(t, {});
  await site.ask(...hook('/instance-upload', domainXml(1), 'prepare'));
  // The hook waited four seconds for the answer.
  const at = Date.now() / 1000 + 0.01;
  await pause(20);
  writeFileSync(join(site.spool, fileOf('vm1')), spooled('vm1', domainXml(1), { at }));
  await site.ask(...hook('/ports', ''));
  await emptied(site.spool);
  const record = await recordOf(site, 'vm1');
  assert.deepEqual([record?.last_update, record?.boots.length], [at, 1]);
});

test('a kept domain whose chosen address is taken is dropped with its port, and the log says why', async (t) => {
  const chosen = { metadata: { ipv4: '127.148.0.50' } };
  const site = await startWith(t, {
    [fileOf('vm1')]: spooled('vm1', domainXml(1, chosen)),
    [fileOf('vm2')]: spooled('vm2', domainXml(2, chosen), { at: early + 1 }),
    [fileOf('vm2', 'port')]: spooled('vm2', portXml(2), { operation: 'port-created' }),
  });
  await emptied(site.spool);
  assert.equal((await recordOf(site, 'vm1'))?.ipv4, '127.148.0.50');
  assert.equal(await recordOf(site, 'vm2'), undefined);
  const said = readFileSync(join(site.folder, 'mdserver.log'), 'utf8');
  for (const operation of ['prepare', 'port-created']) {
    assert.ok(
      said.includes(
        `dropped what the hook had kept of "vm2" (${operation}): ipv4 in the metadata of the domain "vm2" is "127.148.0.50", the address of vm1 `,
      ),
      said,
    );
  }
});

test('what is refused is dropped, and what cannot be stored now waits and is named', async (t) => {
  const site = await startWith(
    t,
    {
      [fileOf('vm1')]: spooled('vm1', domainXml(1)),
      [fileOf('vm2')]: spooled('vm2', domainXml(2), { at: early + 1 }),
      [fileOf('elsewhere')]: spooled('elsewhere', domainXml(3, { network: 'x' })),
      [fileOf('broken')]: spooled('broken', '<domain>'),
      [fileOf('vm4', 'port')]: spooled('vm4', portXml(4), { operation: 'port-created' }),
    },
    { prefix: 30 },
  );
  const waits = [fileOf('vm2'), fileOf('vm4', 'port')];
  await emptied(site.spool, waits);
  const { daemon, json, spool } = site;
  await eventually('both are named', async () => (await problemsOf(site)).length === 2);
  const problems = (await problemsOf(site)).sort();
  assert.match(
    problems[0] ?? '',
    /spool: "vm2" waits: no address left in 127\.148\.0\.0\/30 for vm2/,
  );
  assert.match(problems[1] ?? '', /spool: "vm4" waits: no address left/);
  assert.equal(((await json('/health')).body as Health).status, 'degraded');
  // Once in the log, however often it is tried.
  for (const _ of [1, 2, 3]) {
    await site.ask('/events', {
      method: 'POST',
      body: '{"kind": "released", "name": "other"}',
      headers: { 'content-type': 'application/json' },
    });
  }
  assert.equal(daemon.output().split('"vm2" waits').length, 2);
  assert.match(daemon.output(), /dropped what the hook had kept of "broken" \(prepare\): /);
  assert.doesNotMatch(daemon.output(), /kept of "elsewhere"/);
  assert.deepEqual(readdirSync(spool).sort(), waits.sort());

  await json('/instances/vm1?guest=gone', { method: 'DELETE' });
  await site.ask(...hook('/ports', ''));
  await emptied(spool, [fileOf('vm4', 'port')]);
  assert.ok(await recordOf(site, 'vm2'));
});

test('when nothing can be stored, all of it waits, and is taken in when the disk is well again', async (t) => {
  const site = await startWith(t, {});
  const { folder, spool } = site;
  rmSync(join(folder, 'dnsmasq', 'dns'), { recursive: true });
  writeFileSync(join(folder, 'dnsmasq', 'dns'), 'in the way');
  const numbers = Array.from({ length: 40 }, (_, index) => index + 1);
  for (const number of numbers) {
    writeFileSync(join(spool, fileOf(`vm${number}`)), spooled(`vm${number}`, domainXml(number)));
  }
  const names = readdirSync(spool);
  await site.ask(...hook('/ports', ''));
  await eventually('it is named', async () => {
    const { problems } = (await site.json('/health')).body as Health;
    return problems.some((line) =>
      /^what the hook kept is not taken in: nothing was stored: ENOTDIR/.test(line),
    );
  });
  assert.deepEqual(readdirSync(spool).sort(), names.sort());
  rmSync(join(folder, 'dnsmasq', 'dns'));
  mkdirSync(join(folder, 'dnsmasq', 'dns'));
  await site.ask(...hook('/ports', ''));
  await emptied(spool);
  const { body } = await site.json('/instances');
  assert.equal((body as object[]).length, 40);
  await eventually('nothing is wrong', async () => (await problemsOf(site)).length === 0);
});

// ---- what somebody else put there ----

test('what is no file of the hook is left alone, named, and logged once; the rest is taken in', async (t) => {
  const site = await startWith(t, {});
  const { spool, folder, daemon } = site;
  const secret = join(folder, 'secret');
  writeFileSync(secret, spooled('secret', domainXml(66)));
  const place = (name: string) => join(spool, fileOf(name));
  symlinkSync(secret, place('link'));
  spawnSync('mkfifo', [place('fifo')]);
  mkdirSync(place('folder'));
  writeFileSync(join(spool, 'README'), spooled('x', domainXml(5)));
  const bad = {
    'no-json': `prepare\n${domainXml(5)}`,
    'no-line': '{"operation": "prepare", "name": "no-line", "at": 1}',
    'no-object': `null\n${domainXml(5)}`,
    empty: '',
    'no-operation': spooled('x', domainXml(5), { operation: 'start' }),
    'port-in-domain': spooled('x', portXml(5), { operation: 'port-created' }),
    'no-time': spooled('x', domainXml(5), { at: '1' }),
    'no-name': spooled('x', domainXml(5), { name: 7 }),
    'long-line': spooled('x'.repeat(5000), domainXml(5)),
  };
  for (const [name, content] of Object.entries(bad)) writeFileSync(place(name), content);
  // 8 GB that are not there.
  writeFileSync(place('huge'), '');
  truncateSync(place('huge'), 8 * 1024 ** 3);
  writeFileSync(place('too-large'), spooled('x', domainXml(5) + ' '.repeat(1024 * 1024 + 4096)));
  // A hard link to what the hook wrote is a file like any other.
  writeFileSync(join(folder, 'outside'), spooled('vm2', domainXml(2)));
  linkSync(join(folder, 'outside'), place('vm2'));
  writeFileSync(place('vm1'), spooled('vm1', domainXml(1)));
  const left = readdirSync(spool).filter((name) => ![fileOf('vm1'), fileOf('vm2')].includes(name));

  for (const _ of [1, 2]) await site.ask(...hook('/ports', ''));
  await emptied(spool, left);
  const names = ((await site.json('/instances')).body as InstanceDetails[]).map(({ name }) => name);
  assert.deepEqual(names.sort(), ['vm1', 'vm2']);
  assert.ok(existsSync(secret) && existsSync(join(folder, 'outside')));
  await eventually('they are named', async () => (await problemsOf(site)).length === 4);
  assert.match(
    (await problemsOf(site)).at(-1) ?? '',
    new RegExp(`spool: ${left.length - 3} more$`),
  );
  const logged = daemon
    .output()
    .split('\n')
    .filter((line) => line.includes('spool: '));
  assert.equal(logged.length, 4);

  // Each by itself, for its reason.
  for (const name of left) rmSync(join(spool, name), { recursive: true });
  await site.ask(...hook('/ports', ''));
  await eventually('nothing is left', async () => (await problemsOf(site)).length === 0);
  const reasons: readonly [string, () => void, RegExp][] = [
    ['link', () => symlinkSync(secret, place('link')), /it is no regular file$/],
    ['folder', () => mkdirSync(place('folder')), /it is no regular file$/],
    ['fifo', () => spawnSync('mkfifo', [place('fifo')]), /it is no regular file$/],
    ['empty', () => writeFileSync(place('empty'), ''), /its first line is not JSON$/],
    [
      'no-time',
      () => writeFileSync(place('no-time'), bad['no-time']),
      /its first line is not one of the hook$/,
    ],
    ['huge', () => writeFileSync(place('huge'), 'x'.repeat(2 ** 21)), /it is too large$/],
  ];
  for (const [name, make, reason] of reasons) {
    await t.test(rowName(name), async () => {
      make();
      await site.ask(...hook('/ports', ''));
      await eventually('it is named', async () => (await problemsOf(site)).length === 1);
      const [line = ''] = await problemsOf(site);
      assert.match(line, /^\/.*\/spool: ignored [0-9a-f]{32}\.domain: /);
      assert.match(line, reason);
      rmSync(place(name), { recursive: true });
      await site.ask(...hook('/ports', ''));
      await eventually('it is gone', async () => (await problemsOf(site)).length === 0);
    });
  }
});

test('a folder that is a link, a file or not there is named, and guests are served', async (t) => {
  const kinds: readonly [string, (spool: string) => void, RegExp][] = [
    [
      'a link',
      (spool) => {
        mkdirSync(`${spool}-elsewhere`);
        writeFileSync(join(`${spool}-elsewhere`, fileOf('vm1')), spooled('vm1', domainXml(1)));
        symlinkSync(`${spool}-elsewhere`, spool);
      },
      /spool is no folder$/,
    ],
    ['a file', (spool) => writeFileSync(spool, 'x'), /spool is no folder$/],
  ];
  for (const [what, make, reason] of kinds) {
    await t.test(what, async (t) => {
      const folder = temporaryFolder(t, { 'userdata/': '' });
      make(join(folder, 'spool'));
      const site = await startSite(t, address, { folder });
      await eventually('it is named', async () => (await problemsOf(site)).length === 1);
      assert.match((await problemsOf(site))[0] ?? '', reason);
      assert.deepEqual(await site.json('/instances'), { status: 200, body: [] });
      assert.equal((await site.daemon.upload(domainXml(2))).status, 200);
    });
  }
});

test('a file that another replaces while it is read: the newest counts, and none is lost', async (t) => {
  const site = await startWith(t, {});
  const place = join(site.spool, fileOf('vm1'));
  const rounds = 100;
  for (let round = 1; round <= rounds; round++) {
    const xml = domainXml(1, { metadata: { round: String(round) } });
    writeFileSync(`${site.spool}/.new`, spooled('vm1', xml, { at: early + round }));
    spawnSync('mv', ['-f', `${site.spool}/.new`, place]);
    void site.ask(...hook('/ports', ''));
    if (round % 3 === 0) await pause(2);
  }
  await site.ask(...hook('/ports', ''));
  await emptied(site.spool);
  await eventually('the last one is in force', async () => {
    return (await recordOf(site, 'vm1'))?.metadata['round'] === String(rounds);
  });
});

// ---- many, and in the middle of it ----

const many = 4096;

test('4,096 files are taken in, and guests are answered meanwhile', async (t) => {
  const files = Object.fromEntries(
    Array.from({ length: many }, (_, index) => [
      fileOf(`vm${index + 1}`),
      spooled(`vm${index + 1}`, domainXml(index + 1), { at: early + index }),
    ]),
  );
  const site = await startWith(t, files);
  let answered = 0;
  while (readdirSync(site.spool).length > 0) {
    assert.equal((await site.daemon.ask('/service/name')).status, 200);
    answered += 1;
  }
  assert.ok(answered > 20, `${answered} answers`);
  const { body } = await site.json('/instances');
  assert.equal((body as object[]).length, many);
  assert.deepEqual(await problemsOf(site), []);
});

test('mdserver that is killed in the middle of it loses nothing', async (t) => {
  const folder = temporaryFolder(t, { 'userdata/': '', 'spool/': '' });
  const spool = join(folder, 'spool');
  const numbers = Array.from({ length: 400 }, (_, index) => index + 1);
  for (const number of numbers) {
    const name = `vm${number}`;
    writeFileSync(
      join(spool, fileOf(name)),
      spooled(name, domainXml(number), { at: early + number }),
    );
  }
  const start = (): Promise<Daemon> =>
    startWithControl(t, folder, loopbackConfiguration(address, folder), address);
  let killed = 0;
  for (let round = 0; round < 20 && readdirSync(spool).length > 0; round++) {
    const before = readdirSync(spool).length;
    const daemon = await start();
    await eventually(
      'some are taken in',
      () => readdirSync(spool).length <= before - 20 || readdirSync(spool).length === 0,
    );
    daemon.process.kill('SIGKILL');
    await once(daemon.process, 'exit');
    killed += 1;
  }
  assert.ok(killed >= 2, `killed ${killed} times`);
  const last = await start();
  await emptied(spool);
  const records: { domain_name: string; last_update: number }[] = JSON.parse(
    readFileSync(join(folder, 'db.json'), 'utf8'),
  );
  assert.deepEqual(
    records.map(({ domain_name, last_update }) => [domain_name, last_update]).sort(),
    numbers.map((number) => [`vm${number}`, early + number]).sort(),
  );
  const socketPath = join(folder, 'run', 'control.sock');
  assert.equal(((await ask({ socketPath }, '/instances')).json().body as object[]).length, 400);
  assert.equal(await last.stop(), 0);
});
