import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { configFrom } from '../src/config/load.js';
import { freeIpv4, ipv4Pool } from '../src/instances/addresses.js';
import {
  DatabaseError,
  databasePieces,
  instanceFromRecord,
  parseDatabase,
} from '../src/instances/database-file.js';
import { detailsPieces, parseDetails } from '../src/instances/details-file.js';
import type { Domain } from '../src/instances/domain.js';
import { namingOf } from '../src/instances/host-names.js';
import type { Instance } from '../src/instances/instance.js';
import {
  type AddressPlan,
  applyDraft,
  type Draft,
  draftOf,
  drop,
  emptyDraft,
  endUse,
  instancesFrom,
  leaveNetwork,
  NoAddressError,
  OutdatedError,
  PortConflictError,
  register,
  registerPort,
} from '../src/instances/instances.js';
import { parseUuid, type Uuid } from '../src/instances/uuid.js';
import type { MetadataContext } from '../src/metadata/context.js';
import { instanceId } from '../src/metadata/values.js';
import {
  type IpAddress,
  type Ipv4,
  type Ipv6,
  ipv4Network,
  ipv6Network,
  type Mac,
  numberToIpv4,
} from '../src/network.js';
import { rowName } from './support/rows.js';
import { domain, uuid } from './support/samples.js';

const network = ipv4Network('10.122.0.0' as Ipv4, 16);
const plan: AddressPlan = {
  network,
  network6: undefined,
  reserved: new Set(['10.122.0.1' as Ipv4]),
  restTime: 600,
};
const about = { location: 'lab', now: 1000 };
const parse = (text: string) => parseDatabase(Buffer.from(text)).instances;
const naming = namingOf(configFrom('').config);

function names(draft: Draft): string[] {
  return [...draft.byName.keys()];
}

test('an address is in the network, not one of its ends, and free', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 20, max: 30 }),
      fc.array(fc.nat(5000), { maxLength: 60 }),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      (prefix, offsets, random) => {
        const small = ipv4Network('10.9.0.0' as Ipv4, prefix);
        const taken = new Set(offsets.map((n) => `10.9.${Math.floor(n / 256)}.${n % 256}`));
        const address = freeIpv4(
          ipv4Pool(small, []),
          (candidate) => taken.has(numberToIpv4(candidate)),
          () => random,
        );
        const hosts = Array.from({ length: small.last - small.first - 1 }, (_, index) => {
          const n = index + 1;
          return `10.9.${Math.floor(n / 256)}.${n % 256}`;
        });
        const free = hosts.filter((host) => !taken.has(host));
        if (free.length === 0) assert.equal(address, undefined);
        else assert.ok(address !== undefined && free.includes(address), `${address}`);
      },
    ),
  );
});

test('the last free address of a full /16 is found, and then there is none', () => {
  const last = '10.122.200.7';
  const all = (candidate: number) => numberToIpv4(candidate) !== last;
  const pool = ipv4Pool(network, []);
  assert.equal(freeIpv4(pool, all), last);
  assert.equal(
    freeIpv4(pool, () => true),
    undefined,
  );
});

test('every address of a small network is given out once, the reserved ones never', () => {
  const draft = emptyDraft(naming);
  const small: AddressPlan = {
    network: ipv4Network('10.9.0.0' as Ipv4, 29),
    network6: undefined,
    reserved: new Set(['10.9.0.1' as Ipv4]),
    restTime: 600,
  };
  for (const number of [1, 2, 3, 4, 5]) register(draft, domain(number), small, about);
  assert.deepEqual([...draft.byAddress.keys()].sort(), [
    '10.9.0.2',
    '10.9.0.3',
    '10.9.0.4',
    '10.9.0.5',
    '10.9.0.6',
  ]);
  assert.throws(() => register(draft, domain(6), small, about), NoAddressError);
  assert.deepEqual(names(draft), ['vm1', 'vm2', 'vm3', 'vm4', 'vm5']);
});

// ---- addresses that were given up ----

/** Five addresses of each kind; .1 is the host's. */
const smallPlan: AddressPlan = {
  network: ipv4Network('10.9.0.0' as Ipv4, 29),
  network6: ipv6Network('fd00::' as Ipv6, 125),
  reserved: new Set(['10.9.0.1' as Ipv4]),
  restTime: 600,
};

/** A draft in which domains are registered and removed at times of its own. */
function smallSite() {
  const draft = emptyDraft(naming);
  return {
    draft,
    register: (now: number, given: Domain) =>
      register(draft, given, smallPlan, { location: 'lab', now }).instance,
    /** Removes one whose machine is gone, as far as libvirt has said. */
    remove: (now: number, name: string, isGone = true) => {
      const instance = draft.byName.get(name);
      if (instance !== undefined) drop(draft, instance, { now, isGone: () => isGone });
    },
  };
}

function bothOf({ ipv4, ipv6 }: Instance) {
  return [ipv4, ipv6];
}

test('the address of a removed machine rests while others are free, for the time of a lease', () => {
  for (let round = 0; round < 20; round++) {
    const site = smallSite();
    const [first] = [1, 2, 3].map((number) => site.register(0, domain(number)));
    site.remove(0, 'vm1');
    const others = [4, 5].map((number) => site.register(599, domain(number)));
    for (const other of others) {
      assert.notEqual(other.ipv4, first?.ipv4);
      assert.notEqual(other.ipv6, first?.ipv6);
    }
    // Nothing else is left.
    assert.deepEqual(bothOf(site.register(599, domain(6))), bothOf(first as Instance));
    assert.equal(site.draft.resting.size, 0);
  }
});

test('when all others are taken, the address that has rested longest is given first', () => {
  const site = smallSite();
  const known = [1, 2, 3, 4, 5].map((number) => site.register(0, domain(number)));
  for (const [now, number] of [3, 1, 5].entries()) site.remove(now, `vm${number}`);
  const given = [6, 7, 8].map((number) => bothOf(site.register(10, domain(number))));
  assert.deepEqual(
    given,
    [known[2], known[0], known[4]].map((one) => bothOf(one as Instance)),
  );
  assert.throws(() => site.register(10, domain(9)), NoAddressError);
});

test('after its rest, an address is as free as any other', () => {
  const site = smallSite();
  site.register(0, domain(1));
  site.remove(0, 'vm1');
  site.register(599, domain(2));
  assert.equal(site.draft.resting.size, 2);
  site.register(600, domain(3));
  assert.equal(site.draft.resting.size, 0);
});

test('the address of a machine that may still run goes to no other, and there is none then', () => {
  const site = smallSite();
  const known = [1, 2, 3, 4, 5].map((number) => site.register(0, domain(number)));
  for (const number of [1, 2, 3]) site.remove(number, `vm${number}`, number === 2);
  assert.deepEqual(bothOf(site.register(4, domain(6))), bothOf(known[1] as Instance));
  assert.throws(() => site.register(599, domain(7)), {
    message:
      'no address left in 10.9.0.0/29 for vm7 (4 rest until libvirt says that the machines that had them are gone, for 600 seconds at most): remove instances or widen dnsmasq.net_prefix',
  });
  assert.deepEqual(bothOf(site.register(599, domain(3))), bothOf(known[2] as Instance), 'its own');
  assert.throws(() => site.register(600, domain(7)), NoAddressError);
  assert.deepEqual(bothOf(site.register(601, domain(7))), bothOf(known[0] as Instance));
});

test('when libvirt says that a machine is gone, another may have its addresses', async (t) => {
  for (const [what, machine, isIts] of [
    ['by its uuid', { name: 'renamed', uuid: uuid(1) }, true],
    ['by its name, of an older hook', { name: 'vm1', uuid: undefined }, true],
    ['another machine of its name', { name: 'vm1', uuid: uuid(9) }, false],
    ['another machine', { name: 'other', uuid: undefined }, false],
  ] as const) {
    await t.test(what, () => {
      const site = smallSite();
      const known = [1, 2, 3, 4, 5].map((number) => site.register(0, domain(number)));
      site.remove(1, 'vm1', false);
      endUse(site.draft, machine);
      if (!isIts) assert.throws(() => site.register(2, domain(6)), NoAddressError);
      else assert.deepEqual(bothOf(site.register(2, domain(6))), bothOf(known[0] as Instance));
    });
  }
});

test('what else gives an address up holds it as well: another of its MAC or name, a new network', async (t) => {
  const held = (draft: Draft) =>
    [...draft.resting.values()].map(({ name, isGone }) => [name, isGone]);
  const cases: readonly [string, (draft: Draft, isGone: () => boolean) => unknown, string][] = [
    [
      'its MAC',
      (draft, isGone) =>
        register(draft, domain(2, { mac: domain(1).mac }), smallPlan, { ...about, isGone }),
      'vm1',
    ],
    [
      'its name',
      (draft, isGone) =>
        register(draft, domain(2, { name: 'vm1' }), smallPlan, { ...about, isGone }),
      'vm1',
    ],
    [
      'an address of the host’s',
      (draft, isGone) => {
        const own = bothOf(draft.byName.get('vm1') as Instance) as IpAddress[];
        const moved = { ...smallPlan, reserved: new Set(own) };
        register(draft, domain(1), moved, { ...about, isGone });
      },
      'vm1',
    ],
  ];
  for (const [what, change, name] of cases) {
    for (const isGone of [false, true]) {
      await t.test(`${what}, ${isGone ? 'gone' : 'may still run'}`, () => {
        const site = smallSite();
        site.register(0, domain(1));
        site.register(0, domain(2));
        change(site.draft, () => isGone);
        assert.deepEqual(held(site.draft), [
          [name, isGone],
          [name, isGone],
        ]);
      });
    }
  }
});

test('whatever comes and goes: another machine’s address is given only if it has rested or none is free', () => {
  const hosts = [2, 3, 4, 5, 6].map((number) => `10.9.0.${number}`);
  const step = fc.record({ number: fc.nat(9), comes: fc.boolean(), wait: fc.nat(400) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const site = smallSite();
      /** The machine that had each address last, and until when. */
      const left = new Map<string, { number: number; at: number }>();
      let now = 0;
      for (const { number, comes, wait } of steps) {
        now += wait;
        const known = site.draft.byName.get(`vm${number}`);
        if (!comes || known !== undefined || site.draft.byName.size === hosts.length) {
          if (known?.ipv4 !== undefined) left.set(known.ipv4, { number, at: now });
          site.remove(now, `vm${number}`);
          continue;
        }
        const taken = new Set<string>(site.draft.byAddress.keys());
        const untaken = hosts.filter((host) => !taken.has(host));
        const restsSince = (host: string) => left.get(host)?.at ?? Number.NEGATIVE_INFINITY;
        const ipv4 = site.register(now, domain(number)).ipv4 ?? '';
        assert.ok(untaken.includes(ipv4));
        if (left.get(ipv4)?.number === number || now - restsSince(ipv4) >= 600) continue;
        assert.equal(restsSince(ipv4), Math.min(...untaken.map(restsSince)));
      }
    }),
  );
});

test('a machine that comes back, by its uuid or its name, has its own addresses at once', () => {
  const site = smallSite();
  const [first, second] = [1, 2].map((number) => bothOf(site.register(0, domain(number))));
  site.remove(1, 'vm1');
  site.remove(1, 'vm2');
  assert.deepEqual(bothOf(site.register(2, domain(1, { name: 'renamed' }))), first);
  assert.deepEqual(bothOf(site.register(2, domain(7, { name: 'vm2' }))), second);
});

test('the addresses of a replaced machine rest, as do those that an instance gives up', () => {
  const site = smallSite();
  const [first, second] = [1, 2].map((number) => site.register(0, domain(number)));
  site.register(5, domain(2, { mac: domain(1).mac }));
  assert.deepEqual(
    [...site.draft.resting],
    bothOf(first as Instance).map((address) => [
      address,
      { since: 5, name: 'vm1', uuid: uuid(1), isGone: false },
    ]),
  );
  const moved = { ...smallPlan, reserved: new Set(bothOf(second as Instance)) as Set<IpAddress> };
  register(site.draft, domain(2), moved, { location: 'lab', now: 7 });
  assert.deepEqual(
    [...site.draft.resting.values()].map(({ since, name }) => [since, name]),
    [
      [5, 'vm1'],
      [5, 'vm1'],
      [7, 'vm2'],
      [7, 'vm2'],
    ],
  );
});

test('of very many addresses that rest, those that have rested longest are forgotten', () => {
  const draft = emptyDraft(naming);
  for (let number = 1; number <= 5000; number++) {
    drop(draft, register(draft, domain(number), plan, about).instance, about);
  }
  const names = [...draft.resting.values()].map(({ name }) => name);
  assert.deepEqual([names.length, names[0], names.at(-1)], [4096, 'vm905', 'vm5000']);
});

test('of those, the ones whose machine is gone are forgotten first', () => {
  const draft = emptyDraft(naming);
  for (let number = 1; number <= 4100; number++) {
    const { instance } = register(draft, domain(number), plan, about);
    drop(draft, instance, { ...about, isGone: () => number % 1000 === 0 });
  }
  const names = new Set([...draft.resting.values()].map(({ name }) => name));
  assert.deepEqual(
    [1, 1000, 2000, 3000, 4000, 4100].filter((number) => !names.has(`vm${number}`)),
    [1000, 2000, 3000, 4000],
  );
});

// ---- what comes late, and what tells less ----

test('what libvirt told earlier does not replace what it told later', () => {
  const draft = emptyDraft(naming);
  register(draft, domain(1), plan, { ...about, now: 2000 });
  const before = stateOf(draft);
  const late = { ...about, now: 3000 };
  for (const changes of [{}, { uuid: uuid(8) }, { uuid: uuid(8), name: 'other' }]) {
    assert.throws(
      () => register(draft, domain(1, changes), plan, { ...late, at: 1999 }),
      OutdatedError,
    );
    assert.deepEqual(stateOf(draft), before);
  }
  const { instance } = register(draft, domain(1), plan, { ...late, at: 2000 });
  assert.deepEqual([instance.firstSeen, instance.lastUpdate], [2000, 2000]);
  // The clock was set back: an upload of now counts.
  assert.equal(register(draft, domain(1), plan, about).instance.lastUpdate, 1000);
});

const port = { name: 'vm1', uuid: uuid(1), mac: domain(1).mac };

test('a port makes a record for an unknown uuid only, and an upload completes it', () => {
  const draft = emptyDraft(naming);
  const made = registerPort(draft, port, plan, { ...about, now: 2000 });
  assert.deepEqual(
    { ...made, ipv4: undefined },
    {
      ...port,
      ipv4: undefined,
      ipv6: undefined,
      metadata: {},
      location: 'lab',
      firstSeen: 2000,
      lastUpdate: undefined,
      details: {
        hardware: { vcpus: undefined, memoryKib: undefined, architecture: undefined },
        hostKeys: [],
        fullId: true,
      },
      otherFields: {},
    },
  );
  assert.equal(draft.byName.get('vm1'), made);
  const before = stateOf(draft);
  const other = { ...port, name: 'renamed', mac: domain(7).mac };
  for (const known of [port, other]) {
    assert.equal(registerPort(draft, known, plan, { ...about, now: 2500 }), undefined);
    assert.deepEqual(stateOf(draft), before);
  }
  // The upload of the same start, which the hook could not deliver at once.
  const whole = domain(1, { metadata: { role: 'web' } });
  const { instance } = register(draft, whole, plan, { ...about, now: 3000, at: 1999 });
  assert.deepEqual(
    [instance.ipv4, instance.metadata, instance.firstSeen, instance.lastUpdate],
    [made?.ipv4, { role: 'web' }, 1999, 1999],
  );
});

test('a port takes neither the name nor the MAC of another record', async (t) => {
  const { name, mac } = domain(2);
  for (const [what, taken] of [
    ['name', { name }],
    ['MAC', { mac }],
  ] as const) {
    await t.test(what, () => {
      const draft = emptyDraft(naming);
      register(draft, domain(2), plan, about);
      const before = stateOf(draft);
      assert.throws(
        () => registerPort(draft, { ...port, ...taken }, plan, about),
        (error) =>
          error instanceof PortConflictError &&
          /has its name or MAC: upload the domain \(mdserverctl sync\)$/.test(error.message),
      );
      assert.deepEqual(stateOf(draft), before);
    });
  }
});

test('that a domain left the network is known since the first upload that said so, until a good one', () => {
  const draft = emptyDraft(naming);
  const { instance: before } = register(draft, domain(1), plan, { ...about, now: 2000 });
  assert.equal(leaveNetwork(draft, uuid(2), { now: 3000 }), undefined, 'an unknown one');
  assert.equal(leaveNetwork(draft, uuid(1), { now: 3000, at: 1999 }), undefined, 'out of date');
  const left = leaveNetwork(draft, uuid(1), { now: 3000, at: 2500 });
  assert.deepEqual(left, { ...before, details: { ...before.details, leftNetwork: 2500 } });
  assert.equal(draft.byUuid.get(uuid(1)), left);
  assert.equal(leaveNetwork(draft, uuid(1), { now: 4000 }), undefined, 'known');
  assert.throws(
    () => register(draft, domain(1), plan, { ...about, now: 4000, at: 2400 }),
    OutdatedError,
  );
  const [read] = instancesFrom(
    parseDatabase(Buffer.concat([...databasePieces(draft.pages)]), (id) =>
      parseDetails(Buffer.concat([...detailsPieces(draft)]).toString()).details.get(id),
    ).instances,
    naming,
  ).draft.byName.values();
  assert.equal(read?.details.leftNetwork, 2500, 'read again');
  const { instance } = register(draft, domain(1), plan, { ...about, now: 5000 });
  assert.deepEqual(instance, { ...before, lastUpdate: 5000 });
});

test('the same uuid is the same instance: address and first sight stay, all else is new', () => {
  const draft = emptyDraft(naming);
  const { instance: before } = register(draft, domain(1), plan, about);
  const renamed = domain(1, {
    name: 'other',
    mac: '52:54:00:00:00:99' as Mac,
    metadata: { userdata_prefix: 'p' },
  });
  const { instance, superseded } = register(draft, renamed, plan, { location: 'new', now: 2000 });
  assert.deepEqual(superseded, []);
  assert.deepEqual(instance, {
    ...before,
    name: 'other',
    mac: '52:54:00:00:00:99',
    metadata: { userdata_prefix: 'p' },
    location: 'new',
    lastUpdate: 2000,
  });
  assert.deepEqual(names(draft), ['other']);
  assert.equal(draft.byMac.get('52:54:00:00:00:01' as Mac), undefined);
});

test('a domain recreated under its name keeps the address', () => {
  const draft = emptyDraft(naming);
  const { instance: before } = register(draft, domain(1), plan, about);
  const anew = domain(1, { uuid: parseUuid('ffffffff-0000-0000-0000-000000000001') as Uuid });
  const { instance, superseded } = register(draft, anew, plan, { location: 'lab', now: 2000 });
  assert.deepEqual(superseded, []);
  assert.equal(instance.ipv4, before.ipv4);
  assert.equal(draft.byUuid.get(domain(1).uuid), undefined);
  assert.equal(draft.byUuid.get(anew.uuid), instance);
});

test('the newest upload has the MAC; the record that had it goes', () => {
  const draft = emptyDraft(naming);
  const { instance: first } = register(draft, domain(1), plan, about);
  const { superseded } = register(draft, domain(2, { mac: domain(1).mac }), plan, about);
  assert.deepEqual(superseded, [first]);
  assert.deepEqual(names(draft), ['vm2']);
  assert.equal(draft.byAddress.get(first.ipv4 as Ipv4), undefined);
});

test('a domain renamed to a name that another record has takes it over', () => {
  const draft = emptyDraft(naming);
  const { instance: first } = register(draft, domain(1), plan, about);
  const { instance: second } = register(draft, domain(2), plan, about);
  const { instance, superseded } = register(draft, domain(2, { name: 'vm1' }), plan, about);
  assert.deepEqual(superseded, [first]);
  assert.equal(instance.ipv4, second.ipv4);
  assert.deepEqual(names(draft), ['vm1']);
});

test('an address that the network no longer has, or that is the host’s own now, is replaced', async (t) => {
  for (const ipv4 of ['192.168.0.5', '10.122.0.1', '10.122.0.0', '10.122.255.255']) {
    await t.test(ipv4, () => {
      const { draft } = instancesFrom(
        [instanceFromRecord({ domain_name: 'vm1', mds_ipv4: ipv4, domain_uuid: domain(1).uuid })],
        naming,
      );
      const { instance } = register(draft, domain(1), plan, about);
      assert.notEqual(instance.ipv4, ipv4);
      assert.equal(draft.byAddress.get(ipv4 as Ipv4), undefined);
    });
  }
});

test('whatever is registered, no two instances share a name, uuid, MAC or address', () => {
  const some = fc.record({
    name: fc.constantFrom('a', 'b', 'c', 'd'),
    uuid: fc.integer({ min: 10, max: 14 }).map((n) => domain(n).uuid),
    mac: fc.integer({ min: 10, max: 14 }).map((n) => domain(n).mac),
  });
  fc.assert(
    fc.property(fc.array(some, { maxLength: 30 }), (uploads) => {
      const draft = emptyDraft(naming);
      for (const upload of uploads) {
        const { instance } = register(draft, domain(1, upload), plan, about);
        assert.equal(draft.byName.get(upload.name), instance);
        const all = [...draft.byName.values()];
        const index = (map: ReadonlyMap<string, Instance>) => new Set(map.values());
        for (const map of [draft.byUuid, draft.byMac, draft.byAddress]) {
          assert.equal(map.size, all.length);
          assert.deepEqual(index(map), new Set(all));
        }
      }
    }),
  );
});

/** Everything that a draft has, as it does not depend on the way to it. */
function stateOf(draft: Draft) {
  const sorted = (map: ReadonlyMap<string | number, unknown>) =>
    [...map].sort(([a], [b]) => String(a).localeCompare(String(b)));
  return {
    byName: [...draft.byName],
    indexes: [draft.byUuid, draft.byMac, draft.byAddress].map(sorted),
    resting: [...draft.resting],
    takenIpv4: sorted(draft.takenIpv4),
    hostNames: sorted(draft.hostNames),
    nameHolders: sorted(draft.nameHolders),
    displaced: sorted(draft.displaced),
    entries: [...draft.pages.values()].flat(),
    pageNumbers: sorted(draft.pageNumbers).map(([name]) => name),
  };
}

test('whatever is changed and whatever of it is discarded: all indexes are as if made from the records', () => {
  const tail = uuid(11).slice(0, 8);
  const name = fc.constantFrom('a', 'A', 'a b', 'a-b', 'a_b', `a-${tail}`, `a-b-${tail}`, 'wpad');
  const step = fc.record({
    name,
    uuid: fc.integer({ min: 10, max: 14 }).map((n) => domain(n).uuid),
    mac: fc.integer({ min: 10, max: 14 }).map((n) => domain(n).mac),
    isRemoval: fc.integer({ min: 0, max: 2 }).map((n) => n === 0),
    isGone: fc.boolean(),
  });
  const round = fc.record({
    steps: fc.array(step, { maxLength: 5 }),
    isStored: fc.integer({ min: 0, max: 3 }).map((n) => n > 0),
  });
  fc.assert(
    fc.property(fc.array(round, { maxLength: 12 }), (rounds) => {
      const base = emptyDraft(naming);
      let now = 0;
      for (const { steps, isStored } of rounds) {
        const before = stateOf(base);
        const draft = draftOf(base);
        for (const { isRemoval, isGone, ...upload } of steps) {
          now += 100;
          const known = draft.byName.get(upload.name);
          const givingUp = { now, isGone: () => isGone };
          if (isRemoval) {
            if (known !== undefined) drop(draft, known, givingUp);
            continue;
          }
          const unchanged = [...draft.byName];
          try {
            register(draft, domain(1, upload), smallPlan, { location: 'lab', ...givingUp });
          } catch (error) {
            // All others may still be used by their machines.
            assert.ok(error instanceof NoAddressError);
            assert.deepEqual([...draft.byName], unchanged);
          }
        }
        const after = stateOf(draft);
        assert.deepEqual(stateOf(base), before, 'a draft changes nothing below it');
        if (!isStored) continue;
        applyDraft(draft, base);
        assert.deepEqual(stateOf(base), after);
        const records = [...base.byName.values()];
        const made = instancesFrom(records, naming, new Map(base.resting)).draft;
        assert.deepEqual(after, stateOf(made));
      }
    }),
    { numRuns: 500 },
  );
});

test('pages hold all instances in their order, few on each, and only those that change are new', () => {
  const base = emptyDraft(naming);
  const numbers = Array.from({ length: 300 }, (_, index) => index + 1);
  for (const number of numbers) register(base, domain(number), plan, about);
  const pages = [...base.pages.values()];
  assert.deepEqual(
    pages.map((page) => page.length),
    [64, 64, 64, 64, 44],
  );
  assert.deepEqual(
    pages.flat().map(({ instance, hostName }) => [instance.name, hostName]),
    numbers.map((number) => [`vm${number}`, `vm${number}`]),
  );
  const draft = draftOf(base);
  register(draft, domain(70), plan, { ...about, now: 2000 });
  drop(draft, draft.byName.get('vm200') as Instance, { now: 2000 });
  register(draft, domain(301), plan, { ...about, now: 2000 });
  assert.deepEqual(
    [...draft.pages].map(([number, page]) => [page.length, page === base.pages.get(number)]),
    [
      [64, true],
      [64, false],
      [64, true],
      [63, false],
      [45, false],
    ],
  );
});

test('the database of Python is read in both of its forms, old records with missing fields too', () => {
  const records = [
    { domain_name: 'old' },
    {
      domain_name: 'full',
      domain_uuid: 'AECB25C7B5814ECDB60EA9942AD18879',
      domain_metadata: { userdata_prefix: 'p', ['__proto__']: 'x' },
      mds_mac: '52:54:0:AB:cd:1',
      mds_ipv4: '10.122.0.9',
      mds_ipv6: null,
      first_seen: 1.5,
      last_update: 2.5,
      location: 'lab',
      later_field: [1],
    },
  ];
  const text = JSON.stringify(records);
  const [old, full] = parse(text);
  assert.deepEqual(parse(`{"metadata": {"version": 2}, "entries": ${text}}`), [old, full]);
  assert.deepEqual(parse(JSON.stringify(records, null, 4)), [old, full]);
  assert.equal(old?.name, 'old');
  assert.equal(old?.ipv4, undefined);
  assert.equal(full?.uuid, 'aecb25c7-b581-4ecd-b60e-a9942ad18879');
  assert.equal(full?.mac, '52:54:00:ab:cd:01');
  assert.deepEqual(Object.entries(full?.metadata ?? {}), [
    ['userdata_prefix', 'p'],
    ['__proto__', 'x'],
  ]);
  assert.deepEqual(full?.otherFields, { later_field: [1] });
});

test('the database is written as Python writes it', () => {
  const [instance] = parse('[{"domain_name": "bücher", "mds_ipv4": "10.122.0.9"}]');
  const { draft } = instancesFrom([instance as Instance], naming);
  assert.equal(
    Buffer.concat([...databasePieces(draft.pages)]).toString(),
    `[
    {
        "domain_name": "b\\u00fccher",
        "domain_uuid": null,
        "domain_metadata": {},
        "mds_mac": null,
        "mds_ipv4": "10.122.0.9",
        "mds_ipv6": null,
        "first_seen": null,
        "last_update": null,
        "location": null
    }
]`,
  );
});

test('an invalid database is refused with what is wrong and where', async (t) => {
  const refused: [string, RegExp][] = [
    ['', /^not JSON: /],
    ['[{"domain_name": "a"}', /^not JSON: /],
    ['{}', /^expected an array of records, or an object with "entries"$/],
  ];
  for (const [text, message] of refused) {
    await t.test(rowName(text), () => {
      assert.throws(
        () => parse(text),
        (error) => error instanceof DatabaseError && message.test(error.message),
        text,
      );
    });
  }
});

test('an empty field of a record is one without a value', () => {
  const names = ['domain_uuid', 'domain_metadata', 'mds_mac', 'mds_ipv4', 'mds_ipv6'];
  const empty = (value: unknown) =>
    Object.fromEntries([...names, 'first_seen', 'last_update'].map((name) => [name, value]));
  const texts = ['', null].map((value) => JSON.stringify([{ domain_name: 'a', ...empty(value) }]));
  const [written, missing] = texts.map(parse);
  assert.equal(written?.length, 1);
  assert.deepEqual(written, missing);
});

test('a record that is no instance is left out, with what is wrong and where', async (t) => {
  for (const [record, problem] of [
    [3, 'a record is not a JSON object'],
    [{}, 'domain_name is missing'],
    [{ domain_name: null }, 'domain_name is missing'],
    [
      { domain_name: 'b', mds_ipv4: '10.0.0.300' },
      'mds_ipv4 is "10.0.0.300", expected an IPv4 address',
    ],
    [{ domain_name: 'b', mds_mac: 7 }, 'mds_mac is 7, expected a MAC address'],
    [{ domain_name: 'b', domain_uuid: 'x' }, 'domain_uuid is "x", expected a uuid'],
    [{ domain_name: 'b', domain_metadata: [] }, 'domain_metadata is [], expected an object'],
  ] as const) {
    await t.test(problem, () => {
      const text = JSON.stringify([{ domain_name: 'a' }, record, { domain_name: 'c' }]);
      const { instances, odd } = parseDatabase(Buffer.from(text));
      assert.deepEqual(
        instances.map(({ name }) => name),
        ['a', 'c'],
      );
      assert.deepEqual(odd, [{ record, problem: `record 2: ${problem}` }]);
    });
  }
});

test('metadata that the Python server stored is read as that of the domain would be', () => {
  const attribute = { '@xmlns:mdserver': 'urn:md_server:domain_metadata' };
  for (const [stored, expected] of [
    [{ userdata_prefix: 'p' }, { userdata_prefix: 'p' }],
    [{ userdata_prefix: { ...attribute, '#text': 'p' } }, { userdata_prefix: 'p' }],
    [
      { userdata_prefix: null, role: attribute },
      { userdata_prefix: '', role: '' },
    ],
    [{ role: ['a', { ...attribute, '#text': 'b' }] }, { role: 'a' }],
    [{ role: [{ ...attribute, '#text': 'a' }, null] }, { role: 'a' }],
    [
      {
        instance: {
          ...attribute,
          'mdserver:userdata_prefix': 'web',
          role: { '@a': '1', '#text': 'x' },
          'other:role': 'y',
        },
      },
      { userdata_prefix: 'web', role: 'x' },
    ],
    [{ role: 'first', instance: { role: 'second' } }, { role: 'first' }],
    [{ count: 7 }, { count: '7' }],
  ]) {
    const [instance] = parse(JSON.stringify([{ domain_name: 'a', domain_metadata: stored }]));
    assert.deepEqual({ ...instance?.metadata }, expected);
  }
});

test('of two records with one MAC address, the last in the file is kept, which Python has dnsmasq serve', () => {
  const record = (name: string, last_update: number, mds_ipv4: string) =>
    instanceFromRecord({ domain_name: name, mds_mac: '52:54:00:00:00:01', last_update, mds_ipv4 });
  const one = record('one', 2, '10.122.0.5');
  const other = record('other', 1, '10.122.0.6');
  for (const order of [
    [one, other],
    [other, one],
  ] as const) {
    const { draft, superseded } = instancesFrom(order, naming);
    assert.deepEqual([...draft.byName.values()], [order[1]]);
    assert.deepEqual(superseded, [order[0]]);
  }
});

test('of two records of one machine, the one updated last is kept', () => {
  const record = (name: string, last_update: number, mds_ipv4: string) =>
    instanceFromRecord({ domain_name: name, domain_uuid: domain(1).uuid, last_update, mds_ipv4 });
  const older = record('before', 1, '10.122.0.5');
  const newer = record('after', 2, '10.122.0.6');
  for (const order of [
    [older, newer],
    [newer, older],
  ]) {
    const { draft, superseded } = instancesFrom(order, naming);
    assert.deepEqual([...draft.byName.values()], [newer]);
    assert.deepEqual(superseded, [older]);
  }
});

test('no two instances share an id that is made from the uuid, and each keeps the one that it has', () => {
  // Whoever counts uuids up gives many domains the same first 17 digits.
  const uuids = ['1', '2', '3'].map((end) => `8f1b3b52-6a0e-4c57-9d0c-00000000000${end}` as Uuid);
  const ids = (draft: Draft) => {
    const { config } = configFrom('[mdserver]\ninstance_id = uuid\n');
    return Array.from(draft.byName.values(), (instance) =>
      instanceId({ instance, config } as MetadataContext),
    );
  };
  const databaseOf = (draft: Draft) => {
    const { details } = parseDetails(Buffer.concat([...detailsPieces(draft)]).toString());
    const database = Buffer.concat([...databasePieces(draft.pages)]);
    return instancesFrom(parseDatabase(database, (uuid) => details.get(uuid)).instances, naming)
      .draft;
  };

  const before = uuids
    .slice(0, 2)
    .map((uuid, index) => instanceFromRecord({ domain_name: `old${index}`, domain_uuid: uuid }));
  const { draft } = instancesFrom(before, naming);
  const [short, full] = ['i-8f1b3b526a0e4c579', 'i-8f1b3b526a0e4c579d0c000000000002'];
  assert.deepEqual(ids(draft), [short, full], 'those of version 1.0.0');

  const third = { ...domain(3), uuid: uuids[2] as Uuid };
  register(draft, third, plan, about);
  const all = [short, full, 'i-8f1b3b526a0e4c579d0c000000000003'];
  assert.deepEqual(ids(draft), all, 'a new one');
  for (const index of [0, 1]) {
    const again = { ...domain(index + 1), name: `old${index}`, uuid: uuids[index] as Uuid };
    register(draft, again, plan, about);
  }
  register(draft, third, plan, about);
  assert.deepEqual(ids(draft), all, 'uploaded again');
  assert.deepEqual(ids(databaseOf(draft)), all, 'read again');
  drop(draft, draft.byName.get('old0') as Instance, { now: 0 });
  assert.deepEqual(ids(databaseOf(draft)), all.slice(1), 'when the first is gone');
});
