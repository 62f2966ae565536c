import assert from 'node:assert/strict';
import { test } from 'node:test';
import { outcomeOf } from '../src/boots/boots.js';
import type { BootRecord, InstanceDetails } from '../src/control/api.js';
import { explainAddress, explainInstance } from '../src/ctl/explain.js';
import { blankBoot } from './support/samples.js';

const start = 1_700_000_000;
const explaining = {
  style: { terminal: false, colour: false },
  now: start + 3600,
  network: 'mds',
  bridge: 'br-mds',
  dhcpLog: true,
};

function boot(seen: Partial<BootRecord> = {}): BootRecord {
  const record = { ...blankBoot, started: start, ...seen };
  return { ...record, outcome: outcomeOf(record) };
}

function instance(...boots: BootRecord[]): InstanceDetails {
  return {
    name: 'web1',
    uuid: '00000000-0000-4000-8000-000000000001',
    mac: '52:54:00:00:00:01',
    ipv4: '10.122.0.2',
    ipv6: null,
    location: 'rack1',
    hostname: 'web1',
    first_seen: start,
    last_update: start,
    last_boot: null,
    metadata: {},
    hardware: { vcpus: null, memory_kib: null, architecture: null },
    instance_id: 'i-10.122.0.2',
    dns_names: ['web1'],
    boots,
    host_keys: [],
  };
}

const lease = { at: start + 2, action: 'DHCPACK', address: '10.122.0.2' };
const asked = {
  requests: 12,
  first_request: start + 3,
  last_request: start + 9,
  kinds: ['ec2'],
  user_agents: ['Cloud-Init/22.4.2'],
};

function words(...boots: BootRecord[]): string[] {
  return explainInstance(instance(...boots), explaining);
}

/** The lines under "What to look at:". */
function notes(...boots: BootRecord[]): string[] {
  return words(...boots)
    .filter((line) => line.startsWith('  - '))
    .map((line) => line.slice(4));
}

test('a boot that went well is told in order, with nothing to look at', () => {
  const well = boot({
    ...asked,
    dhcp: [lease],
    tokens: { given: 1, used: 11, refused: 0 },
    userdata: { at: start + 5, status: 200, file: '/u/web1.yaml', bytes: 812 },
    phone_home: start + 30,
    errors: ['404 /latest/meta-data/iam/'],
  });
  const before = boot({ started: start - 86_400, ended: start - 10 });
  assert.deepEqual(words(well, before), [
    'web1 (10.122.0.2, 52:54:00:00:00:01): its last boot phoned home.',
    '  2023-11-14T22:13:20Z  libvirt started it',
    '  2023-11-14T22:13:22Z  got the address 10.122.0.2 by DHCP',
    '  2023-11-14T22:13:23Z  first request; until now 12 requests; looked where ec2 clients look; tokens: 1 given, 11 used, 0 refused; by Cloud-Init/22.4.2',
    '  2023-11-14T22:13:25Z  got 812 bytes of user-data from /u/web1.yaml',
    '  2023-11-14T22:13:29Z  last request',
    '  2023-11-14T22:13:50Z  phoned home',
    '  errors it got: 404 /latest/meta-data/iam/',
    'Boots before that:',
    '  2023-11-13T22:13:20Z  ended',
  ]);
});

test('no boot at all: says that boots are kept in memory, and where to look', () => {
  assert.deepEqual(words(), [
    'web1 (10.122.0.2, 52:54:00:00:00:01): no boot of it was seen since mdserver was started.',
    "Its domain was last uploaded 1 hour ago. Boots are kept in memory. If it was started since then, libvirt's hook did not tell of it: see mdserverctl check.",
  ]);
});

test('nothing seen of a boot: asks for the network, dnsmasq and the guest', () => {
  const note =
    'No DHCP request seen: is its first interface on network mds (virsh domiflist web1), does mdserver-dnsmasq run (systemctl status mdserver-dnsmasq), does the guest bring that interface up?';
  assert.deepEqual(notes(boot()), [note]);
  assert.deepEqual(notes(boot({ started: start + 3590 })), [
    `${note} It started 10 seconds ago: it may be on its way still.`,
  ]);
  assert.deepEqual(notes(boot({ started: start + 3590, ended: start + 3595 })), [note]);
  assert.deepEqual(notes(boot({ by: 'reconnect' })), [
    'Nothing seen of it since libvirtd was started: a guest that runs on asks seldom.',
  ]);
});

test('an address and then nothing: cloud-init, its datasource, a firewall', () => {
  assert.match(notes(boot({ dhcp: [lease] }))[0] ?? '', /^It asked for its address and then for /);
});

test('a lease for another address than the record has is pointed out', () => {
  const other = { ...lease, address: '10.122.0.99' };
  assert.match(
    notes(boot({ dhcp: [lease, other] }))[0] ?? '',
    /^Its lease is for 10\.122\.0\.99, its record says 10\.122\.0\.2: /,
  );
  // What it was refused, or only asked for, is no lease.
  for (const action of ['DHCPNAK', 'DHCPDISCOVER']) {
    assert.equal(notes(boot({ dhcp: [lease, { ...other, action }] })).length, 1, action);
  }
});

test('a token and then nothing is told from metadata without user-data', () => {
  const tokens = { given: 2, used: 0, refused: 0 };
  assert.match(
    notes(boot({ ...asked, requests: 2, tokens })).join(),
    /^It asked for a token and then nothing: /,
  );
  assert.match(
    notes(boot({ ...asked, tokens })).join(),
    /^It asked for metadata and not for user-data: /,
  );
});

test('a template that fails names the command that shows its line', () => {
  const userdata = { at: start + 5, status: 500, file: '/u/web1.yaml', bytes: 0 };
  assert.deepEqual(notes(boot({ ...asked, userdata })), [
    'Its user-data cannot be made: "mdserverctl render web1" shows the error at its line.',
  ]);
});

test('user-data that is missing, or the built-in one, is explained', () => {
  const missing = { at: start + 5, status: 404, file: null, bytes: 0 };
  assert.deepEqual(notes(boot({ ...asked, userdata: missing })), [
    'There is no user-data for it: the userdata_prefix in the metadata of its domain names no file in mdserver.userdata_dir.',
  ]);
  const builtIn = { at: start + 5, status: 200, file: null, bytes: 96 };
  assert.match(
    notes(boot({ ...asked, userdata: builtIn }))[0] ?? '',
    /^Its user-data is the built-in /,
  );
});

test('requests without a good token are told from a token that was refused', () => {
  assert.match(
    notes(boot({ ...asked, errors: ['401 /latest/meta-data/'] })).at(-1) ?? '',
    /imds_tokens = required/,
  );
  const tokens = { given: 1, used: 0, refused: 3 };
  assert.match(notes(boot({ ...asked, tokens })).at(-1) ?? '', /^A token of its was refused/);
});

test('changed host keys are part of the story', () => {
  const said = (at: number, key: string) => ({ at, hostname: null, fqdn: null, keys: [key] });
  const lines = explainInstance(
    {
      ...instance(boot({ phone_home: start + 30 })),
      host_keys: [said(start + 30, 'b'), said(1, 'a')],
    },
    explaining,
  );
  assert.equal(
    lines.at(-1),
    'Its ssh host keys changed 2023-11-14T22:13:50Z: that is right after a new installation only.',
  );
});

test('what a guest sent cannot control the terminal', () => {
  const evil = boot({ ...asked, user_agents: ['\x1b]0;x\x07'], errors: ['404 /\x1b[2J'] });
  assert.doesNotMatch(words(evil).join(''), /[\x00-\x1f]/);
});

test("an address that is nobody's: each thing that can be known of it", () => {
  const report = {
    address: '10.122.9.9',
    instance: null,
    mac: null,
    mac_instance: null,
    last_refused: null,
  };
  const mac = '52:54:00:00:00:09';
  assert.deepEqual(explainAddress({ ...report, last_refused: start }, undefined, explaining), [
    "10.122.9.9 is no instance's address.",
    'It asked for something, last 2023-11-14T22:13:20Z, and got a 404.',
    "Nobody answers for it in the kernel's neighbour table (ip neighbour show dev br-mds): ping it and ask again.",
  ]);
  const second = (mac_instance: string | null, domain?: string) =>
    explainAddress({ ...report, mac, mac_instance }, domain, explaining)[1] ?? '';
  assert.match(second('web1'), /^52:54:00:00:00:09 answers for it, which is web1's: /);
  assert.match(second(null, 'db1'), /which is the domain db1's, .*mdserverctl sync/);
  assert.match(second(null), /which no instance and no domain that runs has/);
});
