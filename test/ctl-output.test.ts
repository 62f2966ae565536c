import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { HostKeys, InstanceDetails, InstanceSummary } from '../src/control/api.js';
import { keysChangedAt, knownHostsLines } from '../src/ctl/commands/known-hosts.js';
import { instanceTable } from '../src/ctl/commands/list.js';
import { detailsTable } from '../src/ctl/commands/show.js';
import { instancesWithoutDomain } from '../src/ctl/commands/sync.js';
import { durationText, table, timeText } from '../src/ctl/output.js';
import { printable } from '../src/text.js';

const plain = { terminal: false, colour: false };
const columns = { terminal: true, colour: false };
const colours = { terminal: true, colour: true };

const web1: InstanceSummary = {
  name: 'web1',
  uuid: '00000000-0000-4000-8000-000000000001',
  mac: '52:54:00:00:00:01',
  ipv4: '10.122.0.2',
  ipv6: null,
  location: 'rack1',
  hostname: 'web1.example.org',
  metadata: {},
  first_seen: 1_700_000_000,
  last_update: 1_700_000_000.75,
  last_boot: { started: 1_700_000_000, ended: null, outcome: 'failed' },
  left_network: null,
  datasource: null,
};
const bare: InstanceSummary = {
  ...web1,
  name: 'old one',
  uuid: null,
  mac: null,
  ipv4: null,
  location: null,
  last_update: null,
  last_boot: null,
};

test('list: tabs without heading or colours for a script, columns under a heading on a terminal', async () => {
  const now = 1_700_000_000 + 3 * 86_400;
  assert.equal(
    await instanceTable(plain, [web1, bare], now),
    'web1\t10.122.0.2\t52:54:00:00:00:01\track1\t2023-11-14T22:13:20Z\tfailed\t-\n' +
      'old one\t-\t-\t-\t-\t-\t-\n',
  );
  assert.equal(
    await instanceTable(columns, [web1, bare], now),
    'NAME     ADDRESS     MAC                LOCATION  LAST SEEN   LAST BOOT  DATASOURCE\n' +
      'web1     10.122.0.2  52:54:00:00:00:01  rack1     2 days ago  failed     -\n' +
      'old one  -           -                  -         -           -          -\n',
  );
  const coloured = await instanceTable(colours, [web1], now);
  assert.ok(coloured.startsWith('\x1b[1mNAME\x1b[0m  '));
  assert.ok(coloured.endsWith('  \x1b[31mfailed\x1b[0m     -\n'));
  assert.equal(
    await table(
      columns,
      [],
      [
        ['removed', 'a', null],
        ['x', 'bcd', '1'],
      ],
    ),
    'removed  a    -\nx        bcd  1\n',
  );
  const none = { ...web1, datasource: 'none' } as const;
  const asks = { ...none, last_boot: { started: 1, ended: null, outcome: 'asking' } } as const;
  const silent = { ...none, last_boot: { started: 1, ended: null, outcome: 'address' } } as const;
  const lasts = (await instanceTable(plain, [{ ...web1, datasource: 'ec2' }, asks, silent], now))
    .split('\n')
    .map((line) => line.split('\t')[6]);
  assert.deepEqual(lasts, ['ec2', '-', 'none', undefined]);
  assert.match(await instanceTable(colours, [silent], now), / {2}\x1b\[33mnone\x1b\[0m\n$/);
  const left = { ...web1, left_network: 1_700_000_000 };
  assert.match(
    await instanceTable(colours, [left], now),
    / {2}\x1b\[33mleft network\x1b\[0m {2}-\n$/,
  );
  assert.equal(await instanceTable(plain, [], now), '');
  assert.equal(await instanceTable(columns, [], now), '');
});

test('show: a line for each item, "-" if there is no value', async () => {
  const instance: InstanceDetails = {
    ...web1,
    metadata: { role: 'front', userdata_prefix: 'web' },
    public_keys: ['adam', 'eve'],
    warnings: ['public_keys is odd'],
    no_userdata: null,
    hardware: { vcpus: 2, memory_kib: 2_097_152, architecture: null },
    smbios: { serial: 'ds=nocloud;s=http://a/', kernel: 'a\tb' },
    instance_id: 'i-10.122.0.2',
    dns_names: ['web1', 'web1.example.org'],
    boots: [],
    host_keys: [],
    password: null,
  };
  assert.equal(
    await detailsTable(plain, instance),
    `name\tweb1
uuid\t00000000-0000-4000-8000-000000000001
instance-id\ti-10.122.0.2
IPv4 address\t10.122.0.2
IPv6 address\t-
MAC address\t52:54:00:00:00:01
host name\tweb1.example.org
names in DNS\tweb1 web1.example.org
location\track1
first seen\t2023-11-14T22:13:20Z
last seen\t2023-11-14T22:13:20Z
vcpus\t2
memory\t2048 MiB
architecture\t-
SMBIOS serial\tds=nocloud;s=http://a/
SMBIOS kernel\ta\\u0009b
datasource\t-
metadata role\tfront
metadata userdata_prefix\tweb
public keys\tadam eve
warning\tpublic_keys is odd
`,
  );
  assert.match(
    await detailsTable(plain, { ...instance, left_network: 1_700_000_000 }),
    /^left the network\t2023-11-14T22:13:20Z\nvcpus\t2$/m,
  );
});

test('text from a guest cannot control a terminal or add a line or a column', async () => {
  assert.equal(
    printable('a\x1b[31m\n\t\x9bb\u2028\u202e'),
    'a\\u001b[31m\\n\\u0009\\u009bb\\u2028\\u202e',
  );
  assert.equal(await table(plain, [], [['a\tb', 'c\nd']]), 'a\\u0009b\tc\\nd\n');
  assert.equal(printable('wörld 日本'), 'wörld 日本');
});

test('columns line up under wide, combining and emoji characters', async () => {
  const rows = [
    ['日本', 'x'],
    ['e\u0301t\u00e9', 'x'],
    ['🦆🧑🏽', 'x'],
    ['ascii', 'x'],
  ];
  assert.equal(
    await table(columns, ['NAME', 'B'], rows),
    'NAME   B\n日本   x\ne\u0301t\u00e9    x\n🦆🧑🏽   x\nascii  x\n',
  );
});

test('the widths of columns are found for hundreds of thousands of rows', async () => {
  const rows = Array.from({ length: 200_000 }, (_, index) => [`n${index}`, 'x']);
  assert.equal((await table(columns, ['A', 'B'], rows)).split('\n')[1], 'n0       x');
});

test('times are UTC for a script, durations are in their largest unit', () => {
  assert.equal(timeText(plain, 0), '1970-01-01T00:00:00Z');
  assert.match(timeText(columns, 0), /^19(69|70)-\d\d-\d\d \d\d:\d\d:\d\d$/);
  assert.deepEqual([-5, 0, 1, 59, 60, 3600, 86_399, 86_400, 900_000].map(durationText), [
    '0 seconds',
    '0 seconds',
    '1 second',
    '59 seconds',
    '1 minute',
    '1 hour',
    '23 hours',
    '1 day',
    '10 days',
  ]);
});

const key = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHost1';
const otherKey = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHost2';

function withKeys(...host_keys: HostKeys[]): InstanceDetails {
  return {
    ...web1,
    ipv6: 'fd00::2',
    metadata: {},
    public_keys: [],
    warnings: [],
    no_userdata: null,
    hardware: { vcpus: null, memory_kib: null, architecture: null },
    smbios: null,
    instance_id: 'i-10.122.0.2',
    dns_names: ['web1', 'vm-web1.example.org'],
    boots: [],
    host_keys,
    password: null,
  };
}

test('known-hosts: the newest keys under DNS names and addresses, not under names the guest claims', () => {
  const now = { at: 200, hostname: 'bank.example.com', fqdn: 'bank.example.com', keys: [key] };
  const before = { at: 100, hostname: null, fqdn: null, keys: [otherKey] };
  assert.deepEqual(knownHostsLines(withKeys(now, before)), [
    `web1,vm-web1.example.org,web1.example.org,10.122.0.2,fd00::2 ${key}`,
  ]);
  assert.deepEqual(knownHostsLines(withKeys()), []);
});

test('known-hosts: what is not a key, or would add a line of its own, is left out', () => {
  const keys = [
    key,
    `${key}\n* ${otherKey}`,
    '* ssh-rsa AAAA',
    'ssh-rsa',
    '@cert-authority * x',
    `${key} c`,
  ];
  const said = { at: 1, hostname: null, fqdn: null, keys };
  assert.equal(knownHostsLines(withKeys(said)).length, 1);
});

test('changed keys are distinguished from a changed name, and dated by the change', () => {
  const said = (at: number, keys: string[], hostname: string | null = null) => ({
    at,
    hostname,
    fqdn: null,
    keys,
  });
  assert.equal(keysChangedAt(withKeys()), undefined);
  assert.equal(keysChangedAt(withKeys(said(1, [key]))), undefined);
  assert.equal(keysChangedAt(withKeys(said(2, [key], 'new'), said(1, [key], 'old'))), undefined);
  assert.equal(keysChangedAt(withKeys(said(2, [key]), said(1, [otherKey]))), 2);
  const renamed = [said(3, [key], 'new'), said(2, [key], 'old'), said(1, [otherKey])];
  assert.equal(keysChangedAt(withKeys(...renamed)), 2);
});

test('sync: a record has no domain if libvirt does not know its uuid or, without one, its name', () => {
  const domains = [
    { uuid: web1.uuid ?? '', name: 'web1', running: true },
    { uuid: '00000000-0000-4000-8000-000000000002', name: 'old one', running: false },
  ];
  const gone = { ...web1, name: 'gone', uuid: '00000000-0000-4000-8000-000000000009' };
  const reused = { ...gone, name: 'web1' };
  const elsewhere = { ...gone, name: 'elsewhere', location: 'rack2' };
  const unplaced = { ...gone, name: 'unplaced', location: null };
  const all = [web1, bare, gone, reused, elsewhere, unplaced];
  assert.deepEqual(instancesWithoutDomain(all, domains, 'rack1'), [gone, reused, unplaced]);
  // Of a record with a location, nobody can say then whether its domain is on this host.
  assert.deepEqual(instancesWithoutDomain(all, domains, undefined), [unplaced]);
});
