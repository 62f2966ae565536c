import assert from 'node:assert/strict';
import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { pino } from 'pino';
import { configFrom } from '../src/config/load.js';
import { DatabaseError, parseDatabase } from '../src/instances/database-file.js';
import { namingOf } from '../src/instances/host-names.js';
import { type Instances, NoAddressError } from '../src/instances/instances.js';
import { jsonFile } from '../src/instances/json-file.js';
import {
  openRegistry,
  type Registry,
  StoreError,
  type Subscriber,
} from '../src/instances/registry.js';
import { type Ipv4, ipv4Network } from '../src/network.js';
import { temporaryFolder } from './support/cleanup.js';
import { rowName } from './support/rows.js';
import { databaseRecord, domain, mac, uuid } from './support/samples.js';

const silent = pino({ level: 'silent' });

function open(
  file: string,
  prefix = 24,
  log = silent,
  backend = jsonFile(file),
  settings = () => '',
  isGone = () => false,
): Promise<Registry> {
  const network = ipv4Network('10.9.0.0' as Ipv4, prefix);
  const reserved = new Set(['10.9.0.1' as Ipv4]);
  const plan = { network, network6: undefined, reserved, restTime: 600 };
  const naming = () => namingOf(configFrom(`[mdserver]\n${settings()}`).config);
  return openRegistry({ backend, plan, naming, location: () => 'lab', isGone, log });
}

function names({ byName }: Instances): string[] {
  return [...byName.keys()];
}

function namesInFile(file: string): string[] {
  return parseDatabase(readFileSync(file)).instances.map(({ name }) => name);
}

/** One line an instance, as the hosts files of dnsmasq. */
function hostsFile(path: string): Subscriber['files'] {
  return (instances) => [{ path, content: names(instances).join('\n') }];
}

/** Every name below the folder, hidden ones too. */
function tree(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();
}

const isStoreError = (reason: RegExp) => (error: unknown) => {
  assert.ok(error instanceof StoreError, String(error));
  assert.match(error.message, /^nothing was stored: [^\n]+$/);
  assert.match(error.message, reason);
  return true;
};

test('changes that arrive together share one round, those during a round the next', async (t) => {
  const folder = temporaryFolder(t);
  const registry = await open(join(folder, 'db.json'));
  const told: number[] = [];
  registry.subscribe({
    files: () => [],
    changed: ({ instances }) => told.push(instances.byName.size),
  });

  await Promise.all([1, 2, 3, 4, 5].map((number) => registry.register(domain(number))));
  assert.deepEqual(told, [5]);

  const first = registry.register(domain(6));
  await turn();
  const rest = [7, 8, 9].map((number) => registry.register(domain(number)));
  await Promise.all([first, ...rest]);
  assert.deepEqual(told, [5, 6, 9]);
  assert.equal(namesInFile(join(folder, 'db.json')).length, 9);
});

test('when a change is answered, the database and the files that follow from it hold it', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'db.json');
  const hosts = join(folder, 'hosts');
  const registry = await open(file);
  const told: string[][] = [];
  registry.subscribe({
    files: hostsFile(hosts),
    changed: ({ instances }) => told.push([...names(instances), readFileSync(hosts, 'utf8')]),
  });
  const seen = await Promise.all(
    [1, 2].map((number) =>
      registry.register(domain(number)).then(({ ipv4 }) => ({
        ipv4,
        record: parseDatabase(readFileSync(file)).instances[number - 1],
        hosts: readFileSync(hosts, 'utf8'),
        held: registry.instances.byName.get(`vm${number}`)?.ipv4,
      })),
    ),
  );
  for (const { ipv4, record, hosts, held } of seen) {
    assert.equal(record?.ipv4, ipv4);
    assert.equal(held, ipv4);
    assert.equal(hosts, 'vm1\nvm2');
  }
  assert.deepEqual(told, [['vm1', 'vm2', 'vm1\nvm2']], 'told once, with its files in place');
  const gone = await registry
    .remove('vm1')
    .then(() => [namesInFile(file), names(registry.instances)]);
  assert.deepEqual(gone, [['vm2'], ['vm2']]);
  assert.deepEqual(tree(folder), ['db.details.json', 'db.json', 'hosts']);
});

const obstacles = [
  {
    name: 'a folder that is missing',
    path: 'sub/hosts',
    reason: /ENOENT.*sub/,
    put: () => {},
    mend: (folder: string) => mkdirSync(join(folder, 'sub')),
  },
  {
    name: 'a folder that is a file',
    path: 'sub/hosts',
    reason: /ENOTDIR.*sub/,
    put: (folder: string) => writeFileSync(join(folder, 'sub'), ''),
    mend: (folder: string) => {
      rmSync(join(folder, 'sub'));
      mkdirSync(join(folder, 'sub'));
    },
  },
  {
    name: 'a folder in place of the file',
    path: 'hosts',
    reason: /EISDIR.*hosts/,
    put: (folder: string) => mkdirSync(join(folder, 'hosts')),
    mend: (folder: string) => rmdirSync(join(folder, 'hosts')),
  },
  {
    name: 'a folder in place of the temporary file',
    path: 'hosts',
    reason: /EISDIR.*hosts/,
    put: (folder: string) => mkdirSync(join(folder, '.hosts.new')),
    mend: (folder: string) => rmdirSync(join(folder, '.hosts.new')),
  },
];

for (const { name, path, reason, put, mend } of obstacles) {
  test(`one file that cannot be written (${name}) stops the whole round, until it is mended`, async (t) => {
    const folder = temporaryFolder(t);
    const file = join(folder, 'db.json');
    const registry = await open(file);
    await registry.register(domain(1));
    const before = readFileSync(file, 'utf8');
    let told = 0;
    registry.subscribe({ files: hostsFile(join(folder, path)), changed: () => told++ });
    put(folder);
    const names1 = tree(folder);

    const round = [2, 3].map((number) => registry.register(domain(number)));
    for (const change of [...round, registry.remove('vm1'), registry.refresh()]) {
      await assert.rejects(change, isStoreError(reason));
    }
    await assert.rejects(registry.register(domain(4)), isStoreError(reason));
    assert.equal(readFileSync(file, 'utf8'), before);
    assert.deepEqual(tree(folder), names1, 'no temporary files');
    assert.deepEqual(names(registry.instances), ['vm1']);
    assert.equal(told, 0);

    mend(folder);
    await registry.register(domain(5));
    assert.deepEqual(namesInFile(file), ['vm1', 'vm5']);
    assert.equal(readFileSync(join(folder, path), 'utf8'), 'vm1\nvm5');
    assert.equal(told, 1);
  });
}

test('a folder that nobody may write to stops the round', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'db.json');
  const registry = await open(file);
  await registry.register(domain(1));
  // Not even root makes files there.
  registry.subscribe({ files: hostsFile('/sys/mdserver-test'), changed: () => {} });
  await assert.rejects(registry.register(domain(2)), isStoreError(/\/sys\//));
  assert.deepEqual(namesInFile(file), ['vm1']);
  assert.deepEqual(tree(folder), ['db.details.json', 'db.json']);
});

test('a database whose folder is gone refuses changes until the folder is back', async (t) => {
  const folder = temporaryFolder(t);
  mkdirSync(join(folder, 'var'));
  const file = join(folder, 'var/db.json');
  const registry = await open(file);
  rmdirSync(join(folder, 'var'));
  await assert.rejects(registry.register(domain(1)), isStoreError(/ENOENT.*var/));
  mkdirSync(join(folder, 'var'));
  await registry.register(domain(1));
  assert.deepEqual(namesInFile(file), ['vm1']);
});

test('an instance that gets no address does not fail the others in the round', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'db.json');
  const registry = await open(file, 29);
  await Promise.all([1, 2, 3, 4].map((number) => registry.register(domain(number))));
  const outcomes = await Promise.allSettled([
    registry.register(domain(5)),
    registry.register(domain(6)),
    registry.register(domain(1)),
    registry.register(domain(7)),
  ]);
  const shown = outcomes.map((outcome) =>
    outcome.status === 'fulfilled' ? outcome.value.name : outcome.reason.constructor,
  );
  assert.deepEqual(shown, ['vm5', NoAddressError, 'vm1', NoAddressError]);
  assert.deepEqual(namesInFile(file).sort(), ['vm1', 'vm2', 'vm3', 'vm4', 'vm5']);
});

test('a round in which all are refused writes nothing', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'db.json');
  const registry = await open(file, 30);
  await registry.register(domain(1));
  const before = lstatSync(file);
  await assert.rejects(registry.register(domain(2)), NoAddressError);
  assert.equal(lstatSync(file).ino, before.ino);
});

test('a database that is edited while the server runs is read again', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'db.json');
  const hosts = join(folder, 'hosts');
  const registry = await open(file);
  registry.subscribe({ files: hostsFile(hosts), changed: () => {} });
  await Promise.all([1, 2].map((number) => registry.register(domain(number))));

  const records: Record<string, unknown>[] = JSON.parse(readFileSync(file, 'utf8'));
  const edited = [{ ...records[0], domain_name: 'renamed', mds_ipv4: '10.9.0.77', note: 'mine' }];
  writeFileSync(file, JSON.stringify(edited));
  await registry.refresh();
  assert.deepEqual(names(registry.instances), ['renamed']);
  assert.equal(registry.instances.byAddress.get('10.9.0.77' as Ipv4)?.name, 'renamed');
  assert.equal(readFileSync(hosts, 'utf8'), 'renamed');

  writeFileSync(file, JSON.stringify([{ ...edited[0], domain_name: 'again' }]));
  await registry.register(domain(3));
  const [kept, added]: Record<string, unknown>[] = JSON.parse(readFileSync(file, 'utf8'));
  assert.deepEqual(kept, { ...edited[0], domain_name: 'again' });
  assert.equal(added?.['domain_name'], 'vm3');
  assert.equal(readFileSync(hosts, 'utf8'), 'again\nvm3');
});

test('an edit that cannot be read refuses every change and is never written over', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'db.json');
  const registry = await open(file);
  await Promise.all([1, 2].map((number) => registry.register(domain(number))));
  const good = readFileSync(file, 'utf8');
  for (const bad of [good.slice(0, -3), '', '{}']) {
    await t.test(rowName(bad), async () => {
      writeFileSync(file, bad);
      // More than once: the first refusal must not make the file count as read.
      for (const change of [
        () => registry.register(domain(3)),
        registry.refresh,
        registry.refresh,
      ]) {
        await assert.rejects(change(), isStoreError(/db\.json: .*; repair it/));
        assert.equal(readFileSync(file, 'utf8'), bad);
      }
      assert.deepEqual(names(registry.instances), ['vm1', 'vm2'], 'guests are served as before');
    });
  }
  writeFileSync(file, good.replace('vm2', 'mended'));
  await registry.register(domain(3));
  assert.deepEqual(namesInFile(file), ['vm1', 'mended', 'vm3']);
});

test('an edit is not lost when the round that reads it fails', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'db.json');
  const registry = await open(file);
  await registry.register(domain(1));
  registry.subscribe({ files: hostsFile(join(folder, 'sub/hosts')), changed: () => {} });
  const edited = readFileSync(file, 'utf8').replace('vm1', 'edited');
  writeFileSync(file, edited);
  await assert.rejects(registry.register(domain(2)), isStoreError(/ENOENT/));
  assert.equal(readFileSync(file, 'utf8'), edited);
  mkdirSync(join(folder, 'sub'));
  await registry.register(domain(2));
  assert.deepEqual(namesInFile(file), ['edited', 'vm2']);
});

test('a database that is not there is an empty one, and is made by the first change', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'db.json');
  const registry = await open(file);
  assert.deepEqual(names(registry.instances), []);
  assert.deepEqual(tree(folder), [], 'opening writes nothing');
  await registry.refresh();
  assert.equal(readFileSync(file, 'utf8'), '[]');
  await registry.register(domain(1));
  assert.deepEqual(namesInFile(file), ['vm1']);
  assert.deepEqual(names((await open(file)).instances), ['vm1']);
});

test('a database that cannot be used is not opened and stays as it is', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'db.json');
  for (const bad of ['', '{', 'null']) {
    await t.test(rowName(bad), async () => {
      writeFileSync(file, bad);
      await assert.rejects(
        open(file),
        (error) =>
          error instanceof DatabaseError &&
          error.message.startsWith(`${file}: `) &&
          !error.message.includes('\n'),
        bad,
      );
      assert.equal(readFileSync(file, 'utf8'), bad);
    });
  }
  rmSync(file);
  mkdirSync(file);
  await assert.rejects(open(file), { constructor: DatabaseError, message: /db\.json.*EISDIR/ });
});

test('a database behind a symbolic link stays behind it', async (t) => {
  const folder = temporaryFolder(t);
  for (const name of ['etc', 'disk']) mkdirSync(join(folder, name));
  const [link, real] = [join(folder, 'etc/db.json'), join(folder, 'disk/real.json')];
  writeFileSync(real, '[]');
  symlinkSync('../disk/real.json', link);
  const registry = await open(link);
  await registry.register(domain(1));
  assert.ok(lstatSync(link).isSymbolicLink());
  assert.ok(lstatSync(real).isFile());
  assert.deepEqual(namesInFile(real), ['vm1']);
  assert.deepEqual(tree(join(folder, 'etc')), ['db.json']);
  assert.deepEqual(tree(join(folder, 'disk')), ['real.details.json', 'real.json']);
});

test('an instance that is removed frees its address and its name', async (t) => {
  const folder = temporaryFolder(t);
  const registry = await open(join(folder, 'db.json'), 30);
  const { ipv4 } = await registry.register(domain(1));
  await assert.rejects(registry.register(domain(2)), NoAddressError);
  assert.equal((await registry.remove('vm1'))?.ipv4, ipv4);
  assert.equal(await registry.remove('vm1'), undefined);
  assert.equal((await registry.register(domain(2, { name: 'vm1' }))).ipv4, ipv4);
  const { byName, byUuid, byMac, byAddress } = registry.instances;
  assert.deepEqual(
    [byName, byUuid, byMac, byAddress].map((map) => [...map.keys()]),
    [['vm1'], [uuid(2)], [mac(2)], [ipv4]],
  );
});

test('an address that rests does so after a restart, too, and after a record was deleted by hand', async (t) => {
  const file = join(temporaryFolder(t), 'db.json');
  const openSmall = (isGone?: () => boolean) =>
    open(file, 29, silent, undefined, undefined, isGone);
  const registry = await openSmall(() => true);
  const [removed, deleted, ...others] = await Promise.all(
    [1, 2, 3, 4].map((number) => registry.register(domain(number))),
  );
  await registry.remove('vm1');
  const records: { domain_name: string }[] = JSON.parse(readFileSync(file, 'utf8'));
  writeFileSync(file, JSON.stringify(records.filter(({ domain_name }) => domain_name !== 'vm2')));
  const free = await registry.register(domain(5));
  assert.equal(new Set([removed, deleted, ...others, free].map((one) => one?.ipv4)).size, 5);
  await registry.close();

  const resting: unknown = JSON.parse(readFileSync(file.replace('.json', '.details.json'), 'utf8'))[
    'resting'
  ];
  assert.deepEqual(
    (resting as { since: number }[]).map(({ since, ...rest }) => rest),
    [removed, deleted].map((one) => ({
      address: one?.ipv4,
      name: one?.name,
      uuid: one?.uuid,
      isGone: true,
    })),
  );
  const again = await openSmall();
  assert.equal((await again.register(domain(2))).ipv4, deleted?.ipv4, 'its own');
  assert.equal((await again.register(domain(6))).ipv4, removed?.ipv4, 'the last one');
});

test('resting addresses that are no addresses are ignored', async (t) => {
  const folder = temporaryFolder(t, {
    'db.json': '[]',
    'db.details.json': JSON.stringify({
      resting: [
        7,
        {},
        { address: 'x' },
        { address: '10.9.0.9' },
        { address: '10.9.0.8', since: 5, name: 'a', uuid: 'b' },
      ],
    }),
  });
  assert.deepEqual(
    [...(await open(join(folder, 'db.json'))).instances.resting],
    [
      ['10.9.0.9', { since: 0, name: '', uuid: undefined, isGone: false }],
      ['10.9.0.8', { since: 5, name: 'a', uuid: undefined, isGone: false }],
    ],
  );
});

test('an address that a machine may still use is held over a restart, until libvirt says that it is gone', async (t) => {
  const file = join(temporaryFolder(t), 'db.json');
  const first = await open(file, 30);
  const { ipv4 } = await first.register(domain(1));
  await first.remove('vm1');
  await first.close();
  const second = await open(file, 30);
  await assert.rejects(second.register(domain(2)), NoAddressError);
  await second.machineGone({ name: 'vm1', uuid: uuid(1) });
  await second.close();
  const third = await open(file, 30);
  assert.equal((await third.register(domain(2))).ipv4, ipv4);
  // The caller knows it.
  await third.remove('vm2', true);
  assert.equal((await third.register(domain(3))).ipv4, ipv4);
});

test('that a machine is gone counts for a removal that is being stored', async (t) => {
  const registry = await open(join(temporaryFolder(t), 'db.json'), 30);
  const { ipv4 } = await registry.register(domain(1));
  const removal = registry.remove('vm1');
  await registry.machineGone({ name: 'vm1', uuid: uuid(1) });
  await removal;
  assert.equal((await registry.register(domain(2))).ipv4, ipv4);
});

test('what changes nothing writes nothing: a known port, a domain that left, a guest that stops', async (t) => {
  const file = join(temporaryFolder(t), 'db.json');
  let commits = 0;
  const registry = await openWith(file, (commit) => {
    commits += 1;
    return commit();
  });
  await registry.register(domain(1));
  const left = await registry.leaveNetwork(uuid(1));
  assert.equal(commits, 2);
  assert.ok((left?.details.leftNetwork ?? 0) > 1_600_000_000);
  assert.equal(await registry.leaveNetwork(uuid(1)), undefined);
  assert.equal(await registry.leaveNetwork(uuid(2)), undefined);
  assert.equal(await registry.registerPort({ ...domain(1), name: 'x' }), undefined);
  await registry.machineGone({ name: 'vm1', uuid: uuid(1) });
  assert.equal(commits, 2);
});

test('a time in the future is now', async (t) => {
  const registry = await open(join(temporaryFolder(t), 'db.json'));
  const before = Date.now() / 1000;
  const { lastUpdate = 0 } = await registry.register(domain(1), before + 1000);
  assert.ok(lastUpdate >= before && lastUpdate <= Date.now() / 1000);
});

test('a change is in force when it is stored, not before', async (t) => {
  const folder = temporaryFolder(t);
  const registry = await open(join(folder, 'db.json'));
  await registry.register(domain(1));
  const seen: [asked: string[], inForce: string[]][] = [];
  registry.subscribe({
    files: (draft) => {
      seen.push([names(draft), names(registry.instances)]);
      return [];
    },
    changed: ({ instances }) => seen.push([names(instances), names(registry.instances)]),
  });
  await Promise.all([registry.register(domain(2)), registry.remove('vm1')]);
  assert.deepEqual(seen, [
    [['vm2'], ['vm1']],
    [['vm2'], ['vm2']],
  ]);
  assert.deepEqual(names(registry.draft()), ['vm2']);
});

/** A registry whose backend does something else as well when it stores a change. */
function openWith(file: string, around: (commit: () => Promise<unknown>) => Promise<unknown>) {
  const backend = jsonFile(file);
  return open(file, 24, silent, {
    ...backend,
    commit: (...args) => around(() => backend.commit(...args)) as ReturnType<typeof backend.commit>,
  });
}

test('a backend that fails leaves the files that follow from the instances as they were', async (t) => {
  const folder = temporaryFolder(t);
  let fails = false;
  const registry = await openWith(join(folder, 'db.json'), (commit) => {
    return fails ? Promise.reject(new Error('the backend is away')) : commit();
  });
  registry.subscribe({ files: hostsFile(join(folder, 'hosts')), changed: () => {} });
  await registry.register(domain(1));
  const before = tree(folder);
  fails = true;
  await assert.rejects(registry.register(domain(2)), isStoreError(/the backend is away/));
  assert.deepEqual(tree(folder), before);
  assert.equal(readFileSync(join(folder, 'hosts'), 'utf8'), 'vm1');
  assert.deepEqual(names(registry.instances), ['vm1']);
  fails = false;
  await registry.register(domain(3));
  assert.equal(readFileSync(join(folder, 'hosts'), 'utf8'), 'vm1\nvm3');
});

test('if only the files that follow cannot be replaced, the change counts, and the answer says so', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'db.json');
  const hosts = join(folder, 'sub', 'hosts');
  mkdirSync(join(folder, 'sub'));
  let isGone = false;
  const registry = await openWith(file, async (commit) => {
    const version = await commit();
    if (isGone) rmSync(join(folder, 'sub'), { recursive: true });
    return version;
  });
  registry.subscribe({ files: hostsFile(hosts), changed: () => {} });
  await registry.register(domain(1));
  isGone = true;
  await assert.rejects(registry.register(domain(2)), {
    constructor: StoreError,
    message: /^stored, but files that depend on it were not: ENOENT[^\n]*sub[^\n]*$/,
  });
  assert.match(registry.problem ?? '', /^stored, but/);
  for (const held of [names(registry.instances), namesInFile(file)]) {
    assert.deepEqual(held, ['vm1', 'vm2']);
  }
  isGone = false;
  mkdirSync(join(folder, 'sub'));
  await registry.register(domain(2));
  assert.equal(readFileSync(hosts, 'utf8'), 'vm1\nvm2');
  assert.equal(registry.problem, undefined);
});

test('a refresh names all instances anew if the configuration has other names of this host', async (t) => {
  const folder = temporaryFolder(t);
  let hostNames = '';
  const registry = await open(join(folder, 'db.json'), 24, silent, undefined, () => hostNames);
  registry.subscribe({
    files: ({ hostNames }) => [{ path: join(folder, 'hosts'), content: [...hostNames].join('\n') }],
    changed: () => {},
  });
  await Promise.all([1, 2].map((number) => registry.register(domain(number))));
  const before = await registry.refresh().then(() => readFileSync(join(folder, 'hosts'), 'utf8'));
  assert.equal(before, 'vm1,vm1\nvm2,vm2');
  hostNames = 'host_names = VM2';
  await registry.register(domain(3));
  assert.equal(registry.instances.hostNames.get('vm2'), 'vm2', 'only a reload counts');
  await registry.refresh();
  const tail = uuid(2).slice(0, 8);
  const after = `vm1,vm1\nvm2,vm2-${tail}\nvm3,vm3`;
  assert.equal(readFileSync(join(folder, 'hosts'), 'utf8'), after);
  assert.deepEqual(namesInFile(join(folder, 'db.json')), ['vm1', 'vm2', 'vm3']);
});

test('closing waits for all that was asked for before', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'db.json');
  const registry = await open(file);
  await registry.close();
  let answered = 0;
  const count = () => answered++;
  void registry.register(domain(1)).then(count);
  await turn();
  void registry.register(domain(2)).then(count);
  await registry.close();
  assert.equal(answered, 2);
  assert.deepEqual(namesInFile(file), ['vm1', 'vm2']);
});

test('records that grew before metadata had a limit are served, and one line says how many they are', async (t) => {
  const file = join(temporaryFolder(t), 'db.json');
  const large = { value: 'x'.repeat(20_000) };
  const records = [
    databaseRecord(1, { domain_metadata: large, mds_ipv4: '10.9.0.11' }),
    databaseRecord(2, { history: large, mds_ipv4: '10.9.0.12' }),
    databaseRecord(3, { domain_metadata: { value: 'x' }, mds_ipv4: '10.9.0.13' }),
  ];
  writeFileSync(file, JSON.stringify(records));
  const lines: string[] = [];
  const write = (line: string) => lines.push(JSON.parse(line).msg);
  const registry = await open(file, 24, pino({ level: 'warn' }, { write }));
  assert.deepEqual(names(registry.instances), ['vm1', 'vm2', 'vm3']);
  assert.deepEqual(lines, [
    `${file} has 2 records with more than 16384 bytes of metadata, 40029 bytes in all, which make each upload slow, the largest are those of "vm2", "vm1": upload these domains again with less metadata, or remove them (mdserverctl remove NAME)`,
  ]);
});
