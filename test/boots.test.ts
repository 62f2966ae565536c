import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { createBoots, type MetadataRequest } from '../src/boots/boots.js';
import type { BootOutcome, BootRecord } from '../src/control/api.js';
import { instanceFromRecord } from '../src/instances/database-file.js';
import { type Instance, machineKey } from '../src/instances/instance.js';
import { blankBoot } from './support/samples.js';

function instance(name: string, uuid?: string): Instance {
  return instanceFromRecord({ domain_name: name, domain_uuid: uuid ?? null });
}

const web = instance('web', '00000000-0000-4000-8000-000000000001');
const other = instance('other', '00000000-0000-4000-8000-000000000002');

/** Boots whose clock goes on by one second at each look. */
function ticking() {
  let time = 1000;
  return createBoots({ now: () => ++time });
}

/** What dnsmasq logs of an address that it has given. */
const ack = (address: string) => ({ action: 'DHCPACK', address, refusal: '' }) as const;
/** A DHCP message that came once. */
const seen = (at: number) => ({ at, last: at, times: 1 });

const plain: MetadataRequest = {
  path: '/latest/meta-data/',
  status: 200,
  userAgent: undefined,
  datasource: 'ec2',
  token: undefined,
  userdata: undefined,
};
const userdata: MetadataRequest = {
  ...plain,
  path: '/latest/user-data',
  userdata: { status: 200, file: '/templates/web', bytes: 14 },
};
const noUserdata: MetadataRequest = {
  ...userdata,
  status: 404,
  userdata: { status: 404, file: null, bytes: 0 },
};
const failedUserdata: MetadataRequest = {
  ...userdata,
  status: 500,
  userdata: { status: 500, file: '/templates/web', bytes: 0 },
};

const fresh: BootRecord = { ...blankBoot, started: 1001 };

test('an instance without activity has no boots', () => {
  const boots = ticking();
  assert.deepEqual(boots.of(web), []);
  boots.release(web);
  assert.deepEqual(boots.of(web), []);
});

test('a boot record has the whole boot: start, address, token, user-data, phone home, end', () => {
  const boots = ticking();
  boots.begin(web, 'prepare');
  boots.dhcp(web, { ...ack(''), action: 'DHCPDISCOVER' });
  boots.dhcp(web, ack('10.122.7.8'));
  boots.request(web, {
    ...plain,
    path: '/latest/api/token',
    token: 'given',
    userAgent: 'Cloud-Init/22.4.2',
  });
  boots.request(web, { ...plain, status: 404, token: 'used', userAgent: 'Cloud-Init/22.4.2' });
  boots.request(web, { ...userdata, token: 'used', userAgent: 'curl/8' });
  boots.phonedHome(web);
  boots.release(web);
  assert.deepEqual(boots.of(web), [
    {
      started: 1001,
      by: 'prepare',
      ended: 1008,
      outcome: 'home',
      requests: 3,
      first_request: 1004,
      last_request: 1006,
      errors: ['404 /latest/meta-data/'],
      user_agents: ['Cloud-Init/22.4.2', 'curl/8'],
      kinds: ['ec2'],
      tokens: { given: 1, used: 2, refused: 0 },
      userdata: { at: 1006, status: 200, file: '/templates/web', bytes: 14 },
      dhcp: [
        { ...seen(1002), action: 'DHCPDISCOVER', address: '', refusal: '' },
        { ...seen(1003), action: 'DHCPACK', address: '10.122.7.8', refusal: '' },
      ],
      phone_home: 1007,
    },
  ]);
  assert.deepEqual(boots.of(other), []);
});

type Boots = ReturnType<typeof createBoots>;

const outcomes: readonly [what: string, expected: BootOutcome, events: (boots: Boots) => void][] = [
  ['only started', 'started', () => undefined],
  ['released at once', 'ended', (boots) => boots.release(web)],
  ['got an address', 'address', (boots) => boots.dhcp(web, ack('10.1.1.1'))],
  [
    'asked for an address and was refused',
    'no-address',
    (boots) =>
      boots.dhcp(web, { action: 'DHCPDISCOVER', address: '', refusal: 'no address available' }),
  ],
  [
    'declined its address, and took it in the end',
    'address',
    (boots) => {
      boots.dhcp(web, ack('10.1.1.1'));
      boots.dhcp(web, { ...ack('10.1.1.1'), action: 'DHCPDECLINE' });
      boots.dhcp(web, ack('10.1.1.1'));
    },
  ],
  [
    'declined its address',
    'no-address',
    (boots) => {
      boots.dhcp(web, ack('10.1.1.1'));
      boots.dhcp(web, { ...ack('10.1.1.1'), action: 'DHCPDECLINE' });
    },
  ],
  [
    'got an IPv6 address only',
    'address',
    (boots) => boots.dhcp(web, { ...ack('fd00::5'), action: 'DHCPv6-REPLY' }),
  ],
  [
    'got an address and was released',
    'ended',
    (boots) => {
      boots.dhcp(web, ack('10.1.1.1'));
      boots.release(web);
    },
  ],
  ['asked for metadata', 'asking', (boots) => boots.request(web, plain)],
  [
    'asked for metadata and was released',
    'asking',
    (boots) => {
      boots.request(web, plain);
      boots.release(web);
    },
  ],
  [
    'got a token and nothing else',
    'asking',
    (boots) => boots.request(web, { ...plain, token: 'given' }),
  ],
  ['got its user-data', 'configured', (boots) => boots.request(web, userdata)],
  [
    'got the built-in user-data',
    'configured',
    (boots) =>
      boots.request(web, { ...userdata, userdata: { status: 200, file: null, bytes: 96 } }),
  ],
  ['was told that it has no user-data', 'configured', (boots) => boots.request(web, noUserdata)],
  [
    'was told so as NoCloud guests are, with an empty answer',
    'configured',
    (boots) =>
      boots.request(web, {
        ...noUserdata,
        path: '/nocloud//user-data',
        status: 200,
        datasource: 'nocloud',
      }),
  ],
  ['got a 500 for its user-data', 'failed', (boots) => boots.request(web, failedUserdata)],
  [
    'got its user-data after the template was mended',
    'configured',
    (boots) => {
      boots.request(web, failedUserdata);
      boots.request(web, userdata);
    },
  ],
  [
    'had its token refused',
    'failed',
    (boots) => boots.request(web, { ...plain, status: 401, token: 'refused' }),
  ],
  [
    'had its token refused when it asked for user-data',
    'failed',
    (boots) =>
      boots.request(web, { ...plain, path: '/latest/user-data', status: 401, token: 'refused' }),
  ],
  [
    'had its token refused and then got its user-data',
    'configured',
    (boots) => {
      boots.request(web, { ...plain, status: 401, token: 'refused' });
      boots.request(web, { ...userdata, token: 'used' });
    },
  ],
  ['phoned home', 'home', (boots) => boots.phonedHome(web)],
  [
    'phoned home in spite of a failure',
    'home',
    (boots) => {
      boots.request(web, failedUserdata);
      boots.phonedHome(web);
      boots.release(web);
    },
  ],
];
for (const [what, expected, events] of outcomes) {
  test(`the outcome of a boot that ${what} is "${expected}"`, () => {
    const boots = ticking();
    boots.begin(web, 'prepare');
    events(boots);
    assert.deepEqual(
      boots.of(web).map(({ outcome }) => outcome),
      [expected],
    );
  });
}

test('a request for user-data that does not exist is recorded: 404, no file', () => {
  const boots = ticking();
  boots.request(web, noUserdata);
  assert.deepEqual(boots.of(web)[0]?.userdata, { at: 1002, status: 404, file: null, bytes: 0 });
});

test('each start is a boot of its own, the newest first', () => {
  const boots = ticking();
  boots.begin(web, 'prepare');
  boots.begin(web, 'reconnect');
  boots.request(web, plain);
  const [newest, before, ...rest] = boots.of(web);
  assert.deepEqual(rest, []);
  assert.deepEqual(before, fresh);
  assert.deepEqual([newest?.started, newest?.by, newest?.requests], [1002, 'reconnect', 1]);
});

test('without a hook, and after a release, a boot begins at the first sign of the guest', () => {
  const boots = ticking();
  boots.dhcp(web, ack('10.1.1.1'));
  boots.request(web, plain);
  boots.release(web);
  boots.request(web, plain);
  boots.release(web);
  boots.phonedHome(web);
  assert.deepEqual(
    boots.of(web).map(({ by, requests, ended }) => [by, requests, ended !== null]),
    [
      ['request', 0, false],
      ['request', 1, true],
      ['dhcp', 1, true],
    ],
  );
});

test('libvirt restores a guest, or takes it from another host, and then prepares it: one boot', async (t) => {
  for (const by of ['restore', 'migrate'] as const) {
    await t.test(by, () => {
      const boots = ticking();
      boots.begin(web, by);
      boots.begin(web, 'prepare');
      assert.deepEqual(boots.of(web), [{ ...fresh, by }]);
      boots.release(web);
      // The next start is another boot.
      boots.begin(web, 'prepare');
      assert.deepEqual(
        boots.of(web).map((boot) => boot.by),
        ['prepare', by],
      );
    });
  }
  const boots = ticking();
  boots.begin(web, 'prepare');
  boots.begin(web, 'prepare');
  assert.equal(boots.of(web).length, 2, 'libvirt did not tell that the first one ended');
});

test('a start that failed is told as that, whatever came before', () => {
  const boots = ticking();
  boots.begin(web, 'prepare');
  boots.release(web);
  boots.begin(web, 'prepare');
  boots.dhcp(web, ack('10.1.1.1'));
  assert.equal(boots.release(web, true), 1003);
  // Not what has ended already.
  assert.equal(boots.release(web, true), undefined);
  assert.equal(boots.release(other, true), undefined);
  assert.deepEqual(
    boots.of(web).map(({ outcome, ended }) => [outcome, ended]),
    [
      ['start-failed', 1005],
      ['ended', 1002],
    ],
  );
  assert.deepEqual([...boots.outcomes()], [['start-failed', 1]]);
  assert.deepEqual(Object.keys(boots.of(web)[0] ?? {}).sort(), Object.keys(fresh).sort());
});

test('a guest is gone when libvirt says so, until something is seen of it', () => {
  const boots = ticking();
  assert.equal(boots.isGone(web), false);
  boots.begin(web, 'prepare');
  assert.equal(boots.isGone(web), false);
  boots.release(web);
  assert.equal(boots.isGone(web), true);
  boots.request(web, plain);
  assert.equal(boots.isGone(web), false);
});

test('a report that comes late begins the boot whose guest was seen before it', () => {
  const boots = ticking();
  boots.dhcp(web, ack('10.1.1.1'));
  boots.begin(web, 'prepare', 990);
  const [first] = boots.of(web);
  assert.deepEqual([first?.started, first?.by, first?.dhcp.length], [990, 'prepare', 1]);
  assert.equal(boots.of(web).length, 1);
  // One of a later time is another boot.
  boots.begin(other, 'prepare', 995);
  boots.request(other, plain);
  boots.release(other);
  boots.request(other, plain);
  boots.begin(other, 'prepare', 2000);
  assert.deepEqual(
    boots.of(other).map(({ by, started }) => [by, started > 999]),
    [
      ['prepare', true],
      ['request', true],
      ['prepare', false],
    ],
  );
});

test('a boot that ended does not end again', () => {
  const boots = ticking();
  boots.begin(web, 'prepare');
  boots.release(web);
  boots.release(web);
  assert.deepEqual(boots.of(web), [{ ...fresh, ended: 1002, outcome: 'ended' }]);
});

test('records given out earlier do not change when more happens', () => {
  const boots = ticking();
  boots.begin(web, 'prepare');
  const before = boots.of(web);
  const text = JSON.stringify(before);
  boots.begin(web, 'prepare');
  assert.equal(JSON.stringify(before), text);
});

test('a renamed instance keeps its boots, and a recreated one starts without any', () => {
  const boots = ticking();
  boots.begin(web, 'prepare');
  assert.equal(boots.of({ ...web, name: 'web2' }).length, 1);
  assert.equal(boots.of({ ...other, name: 'web' }).length, 0);
  // A record of old Python has no uuid.
  const old = instance('old');
  boots.begin(old, 'prepare');
  assert.deepEqual([boots.of(old).length, machineKey(old), machineKey(web)], [1, 'old', web.uuid]);
});

// ---- bounds ----

test('each list keeps its newest entries only', () => {
  const boots = ticking();
  for (let number = 0; number < 100; number++) {
    boots.begin(web, 'prepare');
    for (let request = 0; request < 30; request++) {
      boots.request(web, {
        ...plain,
        path: `/latest/${number}/${request}`,
        status: 404,
        userAgent: `agent ${request}`,
      });
      boots.dhcp(web, ack(`10.1.1.${request}`));
    }
  }
  const all = boots.of(web);
  assert.equal(all.length, 5);
  const numbers = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, index) => from + index);
  for (const [index, boot] of all.entries()) {
    assert.equal(boot.requests, 30);
    assert.deepEqual(
      boot.errors,
      numbers(20, 30).map((request) => `404 /latest/${99 - index}/${request}`),
    );
    assert.deepEqual(
      boot.user_agents,
      numbers(25, 30).map((request) => `agent ${request}`),
    );
    assert.deepEqual(
      boot.dhcp.map(({ address }) => address),
      numbers(10, 30).map((request) => `10.1.1.${request}`),
    );
  }
});

test('a flood of one DHCP message, or of many addresses, leaves the others in the record', () => {
  const boots = ticking();
  boots.dhcp(web, { ...ack(''), action: 'DHCPDISCOVER' });
  boots.dhcp(web, ack('10.1.1.1'));
  for (let number = 0; number < 1000; number++) {
    boots.dhcp(web, { ...ack(`10.1.${number % 256}.9`), action: 'DHCPDECLINE' });
    boots.dhcp(web, { ...ack('10.1.1.1'), action: 'DHCPNAK', refusal: 'wrong address' });
  }
  const dhcp = boots.of(web)[0]?.dhcp ?? [];
  assert.equal(dhcp.length, 20);
  assert.deepEqual(
    dhcp.filter(({ action }) => action !== 'DHCPDECLINE'),
    [
      { ...seen(1002), action: 'DHCPDISCOVER', address: '', refusal: '' },
      { ...seen(1003), action: 'DHCPACK', address: '10.1.1.1', refusal: '' },
      {
        ...{ at: 1005, last: 3003, times: 1000 },
        ...{ action: 'DHCPNAK', address: '10.1.1.1', refusal: 'wrong address' },
      },
    ],
  );
  assert.equal(dhcp.findLast(({ action }) => action === 'DHCPDECLINE')?.address, '10.1.231.9');
});

test('an address that comes back after libvirt said that the guest is gone begins no boot', () => {
  for (const action of ['DHCPRELEASE', 'DHCPv6-RELEASE'] as const) {
    const boots = ticking();
    boots.dhcp(web, { ...ack('10.1.1.1'), action });
    assert.deepEqual(boots.of(web), []);
    boots.begin(web, 'prepare');
    boots.dhcp(web, ack('10.1.1.1'));
    boots.release(web);
    boots.dhcp(web, { ...ack('10.1.1.1'), action });
    const [boot, ...others] = boots.of(web);
    assert.deepEqual([boot?.dhcp.length, others, boots.isGone(web)], [1, [], true]);
  }
});

test('an agent and a datasource are named once', () => {
  const boots = ticking();
  for (const datasource of ['ec2', 'nocloud', 'ec2', 'openstack']) {
    boots.request(web, { ...plain, datasource, userAgent: 'curl' });
  }
  const [boot] = boots.of(web);
  assert.deepEqual([boot?.kinds, boot?.user_agents], [['ec2', 'nocloud', 'openstack'], ['curl']]);
  // Not told apart beyond what is kept of them.
  const long = (end: string) => 'x'.repeat(300) + end;
  boots.request(web, { ...plain, userAgent: long('a') });
  boots.request(web, { ...plain, userAgent: long('b') });
  assert.deepEqual(boots.of(web)[0]?.user_agents, ['curl', 'x'.repeat(200)]);
});

test('no guest can fill the memory, whatever it sends', () => {
  const text = fc.string({ unit: 'binary', maxLength: 5000 });
  const request = fc.record({
    path: text,
    status: fc.constantFrom(200, 401, 404, 500),
    userAgent: fc.option(text, { nil: undefined }),
    datasource: fc.constantFrom('ec2', 'nocloud', 'openstack'),
    token: fc.constantFrom('given' as const, 'used' as const, 'refused' as const, undefined),
    userdata: fc.option(
      fc.record({
        status: fc.constantFrom(200, 404, 500),
        file: fc.constantFrom(null, '/templates/web'),
        bytes: fc.nat(),
      }),
      { nil: undefined },
    ),
  });
  fc.assert(
    fc.property(
      fc.array(request, { maxLength: 100 }),
      fc.array(fc.nat(3), { maxLength: 100 }),
      (requests, others) => {
        const boots = ticking();
        for (const [index, seen] of requests.entries()) {
          boots.request(web, seen);
          const what = others[index];
          if (what === 0) boots.begin(web, 'prepare');
          if (what === 1) boots.release(web);
          if (what === 2) boots.dhcp(web, ack('10.1.1.1'));
          if (what === 3) boots.phonedHome(web);
        }
        const all = boots.of(web);
        assert.ok(all.length <= 5);
        for (const boot of all) {
          const strings = [...boot.errors, ...boot.user_agents, ...boot.kinds];
          assert.ok(strings.every((item) => item.length <= 204));
          assert.ok(strings.length <= 10 + 5 + 3);
          assert.ok(boot.dhcp.length <= 20);
        }
      },
    ),
    { numRuns: 100 },
  );
});

test('the newest 1000 refused addresses are remembered', () => {
  const boots = ticking();
  const address = (number: number) => `10.1.${Math.floor(number / 250)}.${number % 250}`;
  boots.refused(address(0));
  for (let number = 1; number < 1000; number++) boots.refused(address(number));
  assert.equal(boots.lastRefused(address(0)), 1001);
  // Asked again: the one after it is the oldest now.
  boots.refused(address(0));
  boots.refused(address(1000));
  assert.equal(boots.lastRefused(address(0)), 2001);
  assert.equal(boots.lastRefused(address(1)), undefined);
  assert.equal(boots.lastRefused(address(2)), 1003);
  assert.equal(boots.lastRefused('10.9.9.9'), undefined);
});

test('a removed instance is forgotten, and nobody else', () => {
  const boots = ticking();
  boots.begin(web, 'prepare');
  boots.begin(other, 'prepare');
  boots.forget(web);
  assert.deepEqual([boots.of(web).length, boots.of(other).length], [0, 1]);
  // One that comes back begins anew.
  boots.begin(web, 'restore');
  assert.deepEqual(
    boots.of(web).map(({ by }) => by),
    ['restore'],
  );
});

test('of a long path or agent, only the recorded part stays in memory', () => {
  // What the heap holds can be asked for only in a process that may collect it.
  const program = `
    import { createBoots } from ${JSON.stringify(new URL('../src/boots/boots.js', import.meta.url).href)};
    const boots = createBoots();
    const long = (start) => start + Buffer.alloc(15000, 'x').toString('latin1');
    gc();
    const before = process.memoryUsage().heapUsed;
    for (let number = 0; number < 100; number++) {
      const instance = { name: 'vm' + number };
      boots.begin(instance, 'prepare');
      for (let index = 0; index < 10; index++) {
        boots.request(instance, { path: long('/' + index), status: 404, userAgent: long('a' + index), bytes: 0 });
      }
    }
    gc();
    console.log(process.memoryUsage().heapUsed - before, boots.of({ name: 'vm1' }).length);
  `;
  const { stdout, stderr } = spawnSync(
    process.execPath,
    ['--expose-gc', '--input-type=module', '--eval', program],
    { encoding: 'utf8' },
  );
  const [bytes = Number.NaN, kept] = stdout.split(' ').map(Number);
  assert.equal(kept, 1, stderr);
  // 15 texts of 200 bytes each for an instance; held whole, they were 22 MB in all.
  assert.ok(bytes < 3_000_000, stdout);
});
