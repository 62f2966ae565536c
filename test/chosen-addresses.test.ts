import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { ConfigError } from '../src/config/dialect.js';
import { configFrom } from '../src/config/load.js';
import { freeIpv4, inPool, ipv4Pool, poolSize } from '../src/instances/addresses.js';
import { namingOf } from '../src/instances/host-names.js';
import {
  type AddressPlan,
  ChosenAddressError,
  drop,
  emptyDraft,
  NoAddressError,
  register,
} from '../src/instances/instances.js';
import {
  type Ipv4,
  type Ipv6,
  ipv4Network,
  ipv4ToNumber,
  ipv6Network,
  numberToIpv4,
  parseIpv4Range,
} from '../src/network.js';
import { rowName } from './support/rows.js';
import { domain, domainXml, mac, uuid } from './support/samples.js';
import { type Site, startSite } from './support/site.js';

const plan: AddressPlan = {
  network: ipv4Network('10.9.0.0' as Ipv4, 24),
  network6: ipv6Network('fd00:9::' as Ipv6, 64),
  reserved: new Set(['10.9.0.1' as Ipv4, 'fd00:9::53' as Ipv6]),
  restTime: 600,
};

/** A draft in which domains of these numbers are registered with this metadata. */
function site() {
  const draft = emptyDraft(namingOf(configFrom('').config));
  const isGone = () => false;
  return {
    draft,
    register: (
      number: number,
      metadata: Record<string, string> = {},
      changes: Parameters<typeof domain>[1] = {},
    ) =>
      register(draft, domain(number, { metadata, ...changes }), plan, {
        location: 'lab',
        now: 1000,
        isGone,
      }).instance,
    remove: (name: string, isGoneNow: boolean) => {
      const instance = draft.byName.get(name);
      if (instance !== undefined) drop(draft, instance, { now: 1000, isGone: () => isGoneNow });
    },
  };
}

/** The message with which a call is refused. */
function refusal(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    assert.ok(error instanceof ChosenAddressError, String(error));
    return error.message;
  }
  throw new Error('it is not refused');
}

// ---- a chosen address ----

test('a domain has the addresses that it chooses, of each kind, from the next upload on', () => {
  const { draft, register: upload } = site();
  const first = upload(1, { ipv4: '10.9.0.50', IPv6: 'FD00:9:0::50' });
  assert.deepEqual([first.ipv4, first.ipv6], ['10.9.0.50', 'fd00:9::50']);

  const before = upload(2);
  const after = upload(2, { ipv4: '10.9.0.51' });
  assert.deepEqual([after.ipv4, after.ipv6], ['10.9.0.51', before.ipv6]);
  assert.equal(draft.byAddress.get(before.ipv4 as Ipv4), undefined);
  // Its guest may use the old one until it renews its lease.
  assert.deepEqual(draft.resting.get(before.ipv4 as Ipv4), {
    since: 1000,
    name: 'vm2',
    uuid: uuid(2),
    isGone: false,
  });
  // It may have that back at once: nobody else had it.
  assert.equal(upload(2, { ipv4: before.ipv4 ?? '' }).ipv4, before.ipv4);
});

test('without the element, or with an empty one, the instance keeps its address', () => {
  const { register: upload } = site();
  upload(1, { ipv4: '10.9.0.50' });
  assert.equal(upload(1).ipv4, '10.9.0.50');
  assert.equal(upload(1, { ipv4: '' }).ipv4, '10.9.0.50');
});

test('an address that is taken, held or none for an instance is refused in one line, and nothing changes', async (t) => {
  const where = 'in the metadata of the domain "vm9" is';
  const network4 =
    'which no instance can have: choose an address of 10.9.0.0/24, but not its first or last, or remove the element';
  const network6 =
    'which no instance can have: choose an address of fd00:9::/64, but not its first two or its last, or remove the element';
  const host =
    'an address of the host itself (dnsmasq.gateway, or a listen_address): choose another one';
  for (const [element, address, reason] of [
    [
      'ipv4',
      '10.9.0.50',
      `the address of vm1 (uuid ${uuid(1)}, MAC ${mac(1)}, address 10.9.0.50): choose another one, or remove that instance (mdserverctl remove)`,
    ],
    [
      'ipv6',
      'fd00:9::50',
      `the address of vm1 (uuid ${uuid(1)}, MAC ${mac(1)}, address 10.9.0.50): choose another one, or remove that instance (mdserverctl remove)`,
    ],
    [
      'ipv4',
      '10.9.0.60',
      `which "vm2" (uuid ${uuid(2)}) had and may still use: stop that guest, choose another one, or wait for 600 seconds (dnsmasq.lease_len)`,
    ],
    ['ipv4', '10.9.0.0', network4],
    ['ipv4', '10.9.0.255', network4],
    ['ipv4', '10.10.0.5', network4],
    ['ipv4', '10.9.0.050', network4],
    ['ipv4', '10.9.0.70/24', network4],
    ['ipv4', 'fd00:9::70', network4],
    ['ipv4', '10.9.0.1', host],
    ['ipv6', 'fd00:9::53', host],
    ['ipv6', 'fd00:9::', network6],
    ['ipv6', 'fd00:9::1', network6],
    ['ipv6', 'fd00:9::ffff:ffff:ffff:ffff', network6],
    ['ipv6', 'fd00:a::5', network6],
    ['ipv6', '10.9.0.70', network6],
  ] as const) {
    for (const isKnown of [false, true]) {
      await t.test(rowName(`${address} of ${isKnown ? 'a known' : 'a new'} instance`), () => {
        const { draft, register: upload, remove } = site();
        upload(1, { ipv4: '10.9.0.50', ipv6: 'fd00:9::50' });
        upload(2, { ipv4: '10.9.0.60' });
        remove('vm2', false);
        if (isKnown) upload(9);
        const before = [...draft.byName.values()];
        assert.equal(
          refusal(() => upload(9, { [element]: address })),
          `${element} ${where} "${address}", ${reason}`,
        );
        assert.deepEqual([...draft.byName.values()], before);
      });
    }
  }
});

test('an IPv6 address is none while instances have none', () => {
  const draft = emptyDraft(namingOf(configFrom('').config));
  const upload = () =>
    register(
      draft,
      domain(1, { metadata: { ipv6: 'fd00:9::50' } }),
      { ...plan, network6: undefined },
      { location: 'lab', now: 1000 },
    );
  assert.equal(
    refusal(upload),
    'ipv6 in the metadata of the domain "vm1" is "fd00:9::50", which no instance can have: choose none while dnsmasq.net_address6 is not set, or remove the element',
  );
});

test('the address of a machine that is gone, or of the record that the upload replaces, can be chosen', () => {
  const { draft, register: upload, remove } = site();
  upload(1, { ipv4: '10.9.0.50' });
  remove('vm1', true);
  assert.equal(upload(2, { ipv4: '10.9.0.50' }).ipv4, '10.9.0.50');
  // Made anew with the same MAC address, under another name.
  assert.equal(upload(3, { ipv4: '10.9.0.50' }, { mac: mac(2) }).ipv4, '10.9.0.50');
  // Made anew under the same name, after its record was removed while it ran.
  remove('vm3', false);
  const again = upload(4, { ipv4: '10.9.0.50' }, { name: 'vm3' });
  assert.equal(again.ipv4, '10.9.0.50');
  assert.deepEqual([...draft.byName.keys()], ['vm3']);
  assert.equal(draft.resting.get('10.9.0.50' as Ipv4), undefined);
});

test('whatever domains choose: no two have an address, and each that is taken has the one it chose', () => {
  const smallPlan = { ...plan, network: ipv4Network('10.9.0.0' as Ipv4, 29) };
  const step = fc.record({
    number: fc.integer({ min: 1, max: 8 }),
    choice: fc.option(fc.integer({ min: 0, max: 8 })),
    remove: fc.boolean(),
    isGone: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const draft = emptyDraft(namingOf(configFrom('').config));
      for (const [now, { number, choice, remove, isGone }] of steps.entries()) {
        const known = draft.byName.get(`vm${number}`);
        if (remove && known !== undefined) drop(draft, known, { now, isGone: () => isGone });
        if (remove) continue;
        const address = choice === null ? undefined : `10.9.0.${choice}`;
        const held = [...draft.resting].filter(([, about]) => !about.isGone);
        const metadata: Record<string, string> = address === undefined ? {} : { ipv4: address };
        try {
          const about = { location: 'lab', now, isGone: () => isGone };
          const { instance } = register(draft, domain(number, { metadata }), smallPlan, about);
          assert.equal(instance.ipv4, address ?? instance.ipv4);
          for (const [other, { uuid: whose }] of held) {
            if (other === instance.ipv4) assert.equal(whose, instance.uuid);
          }
        } catch (error) {
          assert.ok(error instanceof ChosenAddressError || error instanceof NoAddressError);
          assert.equal(draft.byName.get(`vm${number}`), known);
        }
        const all = [...draft.byName.values()].map(({ ipv4 }) => ipv4);
        assert.equal(new Set(all).size, all.length);
      }
    }),
  );
});

// ---- what is kept free of instances ----

test('a range is an address, two of them or a network', async (t) => {
  const range = (first: string, last: string) => ({
    first: ipv4ToNumber(first as Ipv4),
    last: ipv4ToNumber(last as Ipv4),
  });
  for (const [text, expected] of [
    ['10.9.0.7', range('10.9.0.7', '10.9.0.7')],
    ['10.9.0.2-10.9.0.9', range('10.9.0.2', '10.9.0.9')],
    ['10.9.0.2 - 10.9.0.9', range('10.9.0.2', '10.9.0.9')],
    ['10.9.0.16/28', range('10.9.0.16', '10.9.0.31')],
    ['10.9.0.17/28', undefined],
    ['10.9.0.16/33', undefined],
    ['10.9.0.9-10.9.0.2', undefined],
    ['10.9.0.2-9', undefined],
    ['10.9.0.2-', undefined],
    ['10.9.0', undefined],
    ['fd00::1', undefined],
    ['', undefined],
  ] as const) {
    await t.test(rowName(text), () => assert.deepEqual(parseIpv4Range(text), expected));
  }
});

test('a pool is the network but its ends and what is kept free, however that overlaps', () => {
  const network = ipv4Network('10.9.0.0' as Ipv4, 28);
  const offsets = fc.tuple(fc.integer({ min: -20, max: 40 }), fc.nat(20));
  fc.assert(
    fc.property(
      fc.array(offsets, { maxLength: 5 }),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      fc.array(fc.nat(15)),
      (ranges, random, takenOffsets) => {
        const keptFree = ranges.map(([start, length]) => ({
          first: network.first + start,
          last: network.first + start + length,
        }));
        const isKept = (value: number) =>
          keptFree.some(({ first, last }) => value >= first && value <= last);
        const hosts = Array.from({ length: 14 }, (_, index) => network.first + 1 + index);
        const open = hosts.filter((value) => !isKept(value));
        const pool = ipv4Pool(network, keptFree);
        assert.deepEqual(
          hosts.filter((value) => inPool(pool, value)),
          open,
        );
        assert.equal(poolSize(pool), open.length);
        const taken = new Set(takenOffsets.map((offset) => network.first + offset));
        const free = open.filter((value) => !taken.has(value)).map(numberToIpv4);
        const given = freeIpv4(
          pool,
          (value) => taken.has(value),
          () => random,
        );
        if (free.length === 0) assert.equal(given, undefined);
        else assert.ok(given !== undefined && free.includes(given), String(given));
      },
    ),
  );
});

test('what is kept free goes to no instance but to one that chooses it, or that has it', () => {
  const keptFree = [parseIpv4Range('10.9.0.2-10.9.0.252')].filter((range) => range !== undefined);
  const narrow = { ...plan, network6: undefined, keptFree };
  const draft = emptyDraft(namingOf(configFrom('').config));
  const about = { location: 'lab', now: 1000, isGone: () => true };
  const upload = (number: number, metadata = {}, used: AddressPlan = narrow) =>
    register(draft, domain(number, { metadata }), used, about).instance.ipv4;
  // From before the range was kept free.
  const early = upload(1, { ipv4: '10.9.0.77' }, plan);
  assert.equal(upload(1), early);
  assert.equal(upload(2, { ipv4: '10.9.0.78' }), '10.9.0.78');
  assert.deepEqual(new Set([upload(3), upload(4)]), new Set(['10.9.0.253', '10.9.0.254']));
  // The address of a machine that is gone does not leave the range either.
  const gone = draft.byName.get('vm2');
  assert.ok(gone);
  drop(draft, gone, about);
  assert.throws(() => upload(5), {
    message:
      'no address left in 10.9.0.0/24 (without dnsmasq.reserved) for vm5: remove instances or widen dnsmasq.net_prefix',
  });
  assert.equal(upload(2), '10.9.0.78');
});

test('dnsmasq.reserved is checked when the configuration is read', async (t) => {
  const network = 'addresses in 10.122.0.0/16 (dnsmasq.net_address and net_prefix), which';
  const expected =
    'IPv4 addresses, ranges (10.122.0.2-10.122.0.99) and networks (10.122.1.0/24), separated by commas';
  for (const [value, reason] of [
    ['10.122.0.2-10.123.0.1', `${network} 10.122.0.2-10.123.0.1 is not`],
    ['10.122.0.5, 10.9.0.1', `${network} 10.9.0.1-10.9.0.1 is not`],
    ['10.0.0.0/8', `${network} 10.0.0.0-10.255.255.255 is not`],
    ['10.122.0.9-10.122.0.2', expected],
    ['10.122.0.2-99', expected],
    ['10.122.0.1/24', expected],
  ] as const) {
    await t.test(rowName(value), () => {
      assert.throws(
        () => configFrom(`[dnsmasq]\nreserved = ${value}\n`),
        new ConfigError(`test.conf:2: dnsmasq.reserved = "${value}": expected ${reason}`),
      );
    });
  }
  assert.deepEqual(
    configFrom('[dnsmasq]\nreserved = 10.122.0.2-10.122.0.99,\n  10.122.1.0/24, 10.122.0.200')
      .config.dnsmasq.reserved,
    ['10.122.0.2-10.122.0.99', '10.122.1.0/24', '10.122.0.200'].map(parseIpv4Range),
  );
  assert.equal(configFrom('').config.dnsmasq.reserved, undefined);
});

// ---- in a daemon ----

const upload = (server: Site, number: number, metadata: Record<string, string> = {}) =>
  server.ask('/instance-upload', {
    method: 'POST',
    headers: { 'content-type': 'application/xml' },
    body: domainXml(number, { metadata }),
  });

/** What libvirt tells its network hook when it makes the port of a domain. */
const port = (number: number) => `<hookData>
  <network><name>mds</name></network>
  <networkport>
    <uuid>${uuid(900 + number)}</uuid>
    <owner><name>vm${number}</name><uuid>${uuid(number)}</uuid></owner>
    <mac address='${mac(number)}'/>
  </networkport>
</hookData>`;

function records(server: Site): Record<string, unknown>[] {
  return JSON.parse(readFileSync(server.database, 'utf8'));
}

test('a refused upload answers 400 with the reason, changes nothing, and its port makes no record', async (t) => {
  const server = await startSite(t, '127.31.1.1', { dnsmasq: 'reserved = 127.31.1.2-127.31.1.99' });
  assert.equal((await upload(server, 1, { ipv4: '127.31.1.50' })).status, 200);
  const before = records(server);

  const refused = await upload(server, 2, { ipv4: '127.31.1.50' });
  const line = `ipv4 in the metadata of the domain "vm2" is "127.31.1.50", the address of vm1 (uuid ${uuid(1)}, MAC ${mac(1)}, address 127.31.1.50): choose another one, or remove that instance (mdserverctl remove)\n`;
  assert.deepEqual({ status: refused.status, text: refused.text }, { status: 400, text: line });
  const ofPort = await server.ask('/ports', { method: 'POST', body: port(2) });
  assert.deepEqual({ status: ofPort.status, text: ofPort.text }, { status: 400, text: line });
  assert.deepEqual(records(server), before);
  const log = readFileSync(join(server.folder, 'mdserver.log'), 'utf8');
  assert.match(log, /refused an upload: ipv4 in the metadata of the domain/);

  // Once it is right, the domain is an instance, and its address is the chosen one after a restart, too.
  assert.equal((await upload(server, 2, { ipv4: '127.31.1.51' })).status, 200);
  const again = await server.restart();
  assert.equal((await upload(again, 2)).status, 200);
  assert.deepEqual(
    records(again).map(({ domain_name, mds_ipv4 }) => [domain_name, mds_ipv4]),
    [
      ['vm1', '127.31.1.50'],
      ['vm2', '127.31.1.51'],
    ],
  );
});

test('a known guest that starts with a refused upload runs: nobody else may have its address', async (t) => {
  const server = await startSite(t, '127.31.1.4');
  const own = JSON.parse(
    (
      await server.ask('/instance-upload', {
        method: 'POST',
        headers: { accept: 'application/json', 'x-libvirt-operation': 'prepare' },
        body: domainXml(1),
      })
    ).text,
  ).mds_ipv4;
  const released = JSON.stringify({ kind: 'released', name: 'vm1', uuid: uuid(1) });
  const event = await server.ask('/events', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: released,
  });
  assert.equal(event.status, 200, event.text);
  const refused = await server.ask('/instance-upload', {
    method: 'POST',
    headers: { 'x-libvirt-operation': 'prepare' },
    body: domainXml(1, { metadata: { ipv4: '127.31.1.4' } }),
  });
  assert.equal(refused.status, 400);
  const { body } = await server.json('/instances/vm1');
  const { last_boot, ipv4 } = body as { last_boot: { ended: number | null }; ipv4: string };
  assert.deepEqual([last_boot.ended, ipv4], [null, own]);
  // Moved while it runs: the old address is held.
  assert.equal((await upload(server, 1, { ipv4: '127.31.9.77' })).status, 200);
  assert.equal((await upload(server, 2, { ipv4: own })).status, 400);
});

test('an upload completes what a port registered, and moves it to the address that it chooses', async (t) => {
  const server = await startSite(t, '127.31.1.2');
  assert.equal((await server.ask('/ports', { method: 'POST', body: port(1) })).status, 200);
  assert.equal((await upload(server, 1, { ipv4: '127.31.1.60' })).status, 200);
  assert.deepEqual(
    records(server).map(({ domain_name, mds_ipv4, domain_metadata }) => [
      domain_name,
      mds_ipv4,
      domain_metadata,
    ]),
    [['vm1', '127.31.1.60', { ipv4: '127.31.1.60' }]],
  );
});

test('the chosen address is no tag of the instance', async (t) => {
  const server = await startSite(t, '127.31.1.3');
  await upload(server, 1, { ipv4: '127.31.1.60', role: 'web' });
  const { body } = await server.json('/instances/vm1/tree');
  const tree = (body as { body: string }).body;
  assert.match(tree, /^meta-data\/tags\/instance\/role: web$/m);
  assert.doesNotMatch(tree, /tags\/instance\/ipv4/);
});
