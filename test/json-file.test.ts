import assert from 'node:assert/strict';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { pino } from 'pino';
import { configFrom } from '../src/config/load.js';
import { DatabaseError, parseDatabase } from '../src/instances/database-file.js';
import { type HostKeys, withHostKeys } from '../src/instances/details.js';
import { parseDomain } from '../src/instances/domain-xml.js';
import { namingOf } from '../src/instances/host-names.js';
import { jsonFile } from '../src/instances/json-file.js';
import { openRegistry, type Subscriber } from '../src/instances/registry.js';
import { type Ipv4, ipv4Network } from '../src/network.js';
import { temporaryFolder } from './support/cleanup.js';
import { eventually } from './support/daemon.js';
import { domain, domainXml, uuid } from './support/samples.js';

/** A registry with its files in a folder, and a file of all names that follows from it. */
async function openIn(t: TestContext, folder = temporaryFolder(t)) {
  const file = join(folder, 'db.json');
  const lines: string[] = [];
  const write = (line: string) => lines.push(JSON.parse(line).msg);
  const registry = await openRegistry({
    backend: jsonFile(file),
    plan: {
      network: ipv4Network('10.9.0.0' as Ipv4, 24),
      reserved: new Set(),
      restTime: 600,
    },
    naming: () => namingOf(configFrom('').config),
    location: () => 'lab',
    isGone: () => false,
    log: pino({ level: 'info' }, { write }),
  });
  const written: string[][] = [];
  const subscriber: Subscriber = {
    files: ({ byName }) => [{ path: join(folder, 'hosts'), content: [...byName.keys()].join() }],
    changed: (change) => written.push([...change.written]),
  };
  registry.subscribe(subscriber);
  await registry.refresh();
  t.after(() => registry.close());
  return { folder, file, registry, lines, written };
}

/** Which of the files a change wrote anew. */
async function writtenBy(folder: string, change: () => Promise<unknown>): Promise<string[]> {
  const names = ['db.json', 'db.details.json', 'hosts'];
  const inodes = () => names.map((name) => statSync(join(folder, name)).ino);
  const before = inodes();
  await change();
  const after = inodes();
  return names.filter((_, index) => before[index] !== after[index]);
}

test('a change writes the files whose content it changes, and no other', async (t) => {
  const { folder, registry, written } = await openIn(t);
  const reportKeys = (at: number) => {
    const reported: HostKeys = { at, hostname: 'vm1', fqdn: null, keys: ['a b'] };
    return registry.changeDetails('vm1', (details) => withHostKeys(details, reported));
  };
  const all = ['db.json', 'db.details.json', 'hosts'];
  for (const [what, change, expected] of [
    ['a new machine', () => registry.register(domain(1)), all],
    ['the same one again', () => registry.register(domain(1)), ['db.json']],
    ['with more memory', () => registry.register(domain(1, { memoryKib: 7 })), all.slice(0, 2)],
    ['its host keys', () => reportKeys(1), ['db.details.json']],
    ['the same host keys', () => reportKeys(2), []],
    ['none of that name', () => registry.remove('vm7'), []],
    ['its removal', () => registry.remove('vm1'), all],
    ['a refresh', () => registry.refresh(), ['hosts']],
  ] as const) {
    assert.deepEqual(await writtenBy(folder, change), expected, what);
  }
  const hosts = [join(folder, 'hosts')];
  assert.deepEqual(written, [hosts, hosts, [], [], [], [], [], hosts, hosts]);
});

test('a domain that is the same after a restart leaves the details file as it is', async (t) => {
  const { folder, registry: first } = await openIn(t);
  // With entries in another order than that of the details file.
  const sysinfo = `<sysinfo type='smbios'><chassis><entry name='asset'>a</entry></chassis>
    <system><entry name='product'>b</entry><entry name='serial'>c</entry></system></sysinfo>`;
  const xml = (number: number) =>
    domainXml(number).replace('</os>', `<smbios mode='sysinfo'/></os>${sysinfo}`);
  const upload = async (registry: typeof first, number: number) =>
    registry.register(parseDomain(xml(number), configFrom('').config.dnsmasq));
  for (const number of [1, 2]) await upload(first, number);
  await first.close();
  // As 1.0.0 left it. Their short ids are the same, so the second one gets a full one when it is read.
  const details = join(folder, 'db.details.json');
  const text = readFileSync(details, 'utf8');
  assert.equal(text.match(/"fullId":true/g)?.length, 2);
  writeFileSync(details, text.replaceAll('"fullId":true,', ''));
  const { registry } = await openIn(t, folder);
  for (const number of [1, 2]) {
    const written = await writtenBy(folder, () => upload(registry, number));
    assert.deepEqual(written, ['db.json'], `vm${number}`);
  }
});

test('an edit of the database is in force a moment later, without an upload', async (t) => {
  const { folder, file, registry, lines } = await openIn(t);
  const names = () => [...registry.instances.byName.keys()].join();
  await registry.register(domain(1));
  const text = readFileSync(file, 'utf8');
  writeFileSync(file, text.replace('vm1', 'edited'));
  await eventually('the edit', () => readFileSync(join(folder, 'hosts'), 'utf8') === 'edited');
  assert.equal(names(), 'edited');

  writeFileSync(file, text.slice(0, -9));
  await eventually('the bad edit', () => registry.problem !== undefined);
  assert.match(registry.problem ?? '', /db\.json: not JSON: .*; repair it/);
  assert.equal(names(), 'edited', 'guests are served as before');
  writeFileSync(file, text);
  await eventually('the mended file', () => registry.problem === undefined);
  assert.equal(names(), 'vm1');
  assert.equal(
    lines.filter((line) => line.includes('reading it again')).length,
    3,
    'once for each edit, and not for its own changes',
  );
});

const text = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom('\n    },\n    {\n', '\n    }\n]', '[\n    {\n', '"', '\\', ''),
);
const record = fc.record(
  {
    domain_name: text.filter((name) => name !== ''),
    domain_uuid: fc.constantFrom(null, uuid(1), uuid(2)),
    domain_metadata: fc.dictionary(text, text),
    last_update: fc.double({ noNaN: true, noDefaultInfinity: true }),
    later: fc.jsonValue(),
  },
  { requiredKeys: ['domain_name'] },
);

test('a database is read the same record by record and as a whole', () => {
  fc.assert(
    fc.property(fc.array(record), fc.constantFrom('', '\n', ' \n\n'), (records, end) => {
      // Only one that is indented by 4 is read record by record.
      const read = [4, 2, 0].map((indent) =>
        parseDatabase(Buffer.from(JSON.stringify(records, null, indent) + end)),
      );
      assert.equal(read[0]?.instances.length, records.length);
      assert.deepEqual(read[0], read[1]);
      assert.deepEqual(read[0], read[2]);
    }),
    { numRuns: 500 },
  );
});

test('what is wrong with a database is found the same whichever way it is read', () => {
  const records = Array.from({ length: 5 }, (_, index) => ({ domain_name: `vm${index}` }));
  const good = JSON.stringify(records, null, 4);
  const problem = (content: string) => {
    try {
      const { instances, odd } = parseDatabase(Buffer.from(content));
      return odd[0]?.problem ?? instances.length;
    } catch (error) {
      return error instanceof DatabaseError ? error.message.replace(/ \(.*| at .*/, '') : error;
    }
  };
  for (const [from, to, expected] of [
    ['"vm3"', '7', 'record 4: domain_name is 7, expected a name'],
    ['"vm3"', 'vm3', 'not JSON: Unexpected token'],
    ['    },\n', '    }\n', "not JSON: Expected ',' or ']' after array element in JSON"],
    ['    },\n', '    },,\n', 'not JSON: Unexpected token'],
    ['\n]', '\n] x', 'not JSON: Unexpected non-whitespace character after JSON'],
    ['{\n        "domain_name": "vm3"\n    }', '[7]', 'record 4: a record is not a JSON object'],
  ] as const) {
    const found = String(problem(good.replace(from, to)));
    assert.equal(found.slice(0, expected.length), expected, to);
  }
  assert.equal(problem(`${good}\n`), 5);
});

test('an odd record is left out and said, stays in the file, and keeps its address for its guest', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'db.json');
  const good = { domain_name: 'vm1', domain_uuid: uuid(1), mds_ipv4: '10.9.0.5' };
  const odd = [
    { domain_name: 'vm2', domain_uuid: uuid(2), mds_mac: 'x', mds_ipv4: '10.9.0.6' },
    { mds_mac: '52:54:00:00:00:03' },
    [7],
    'vm4',
    null,
  ];
  writeFileSync(file, JSON.stringify([...odd.slice(0, 2), good, ...odd.slice(2)]));
  const { registry, lines } = await openIn(t, folder);
  const toDo =
    'left out, so this guest is not served; it stays in the file: repair it there, or remove it';
  assert.deepEqual(lines, [
    `${file}: record 1: mds_mac is "x", expected a MAC address ("vm2"): ${toDo}`,
    `${file}: record 2: domain_name is missing: ${toDo}`,
    ...[4, 5, 6].map(
      (number) => `${file}: record ${number}: a record is not a JSON object: ${toDo}`,
    ),
  ]);
  assert.deepEqual([...registry.instances.byName.keys()], ['vm1']);
  assert.deepEqual([...registry.instances.resting.keys()], ['10.9.0.6']);

  const uploaded = await registry.register(domain(3));
  const recordsOf = () => JSON.parse(readFileSync(file, 'utf8'));
  assert.deepEqual(recordsOf().slice(0, 5), odd);
  assert.deepEqual(
    recordsOf()
      .slice(5)
      .map((record: typeof good) => record.mds_ipv4),
    ['10.9.0.5', uploaded.ipv4],
  );
  // Uploaded again, the guest is served with the address that it had.
  assert.equal((await registry.register(domain(2))).ipv4, '10.9.0.6');
  assert.deepEqual(recordsOf().slice(0, 5), odd);
});

test('of very many odd records, the first ten are named', async (t) => {
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, 'db.json'), JSON.stringify(Array(25).fill({})));
  const { lines } = await openIn(t, folder);
  assert.equal(lines.length, 11);
  assert.equal(lines.at(-1), `${join(folder, 'db.json')}: left out 15 more such records`);
});
