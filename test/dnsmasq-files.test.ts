import assert from 'node:assert/strict';
import { hostname } from 'node:os';
import { test } from 'node:test';
import fc from 'fast-check';
import { configFrom } from '../src/config/load.js';
import { dnsmasqConfiguration, dnsmasqOptions, hostsFiles } from '../src/dnsmasq/files.js';
import { type FileContent, fileText } from '../src/files.js';
import { instanceFromRecord } from '../src/instances/database-file.js';
import { dhcpName, dnsNames, namingOf, toHostName } from '../src/instances/host-names.js';
import { type Instances, instancesFrom } from '../src/instances/instances.js';
import { rowName } from './support/rows.js';

function config(dnsmasq: string, mdserver = '') {
  return configFrom(`[mdserver]\n${mdserver}\n[dnsmasq]\n${dnsmasq}`).config;
}

type Settings = ReturnType<typeof config>;

/** Instances of these names; their number is in MAC, uuid and address. */
function instances(settings: Settings, ...names: string[]): Instances {
  const records = names.map((domain_name, index) =>
    instanceFromRecord({
      domain_name,
      domain_uuid: `0000000${index}-0000-0000-0000-000000000000`,
      mds_mac: `52:54:00:00:00:0${index}`,
      mds_ipv4: `10.122.0.${index + 10}`,
    }),
  );
  return instancesFrom(records, namingOf(settings)).draft;
}

/** The texts of the files about the instances of these names. */
function hostsOf(settings: Settings, ...names: string[]): { dhcp: string; dns: string } {
  const { dhcp, dns } = hostsFiles(settings)(instances(settings, ...names));
  return { dhcp: fileText(dhcp), dns: fileText(dns) };
}

/** The zones of each line for reverse look-ups, but for that of the metadata address. */
function localLines(settings: string): string[] {
  const lines = fileText(dnsmasqConfiguration(config(settings))).split('\n');
  return lines
    .flatMap((line) => /^local=\/(.*\.arpa)\/$/.exec(line)?.[1] ?? [])
    .filter((zones) => zones !== '254.169.254.169.in-addr.arpa');
}

test('use_dns and domain reach the client: DNS server, domain, and a lease for every address', () => {
  const settings = config('use_dns = yes\ndomain = example.com\nnet_prefix = 24');
  assert.equal(
    dnsmasqConfiguration(settings).content,
    `# Written by mdserver at each start: changes belong in mdserver.conf.
user=mdserver
leasefile-ro
strict-order
expand-hosts
domain=example.com
domain-needed
local=//
local=/example.com/
local=/0.122.10.in-addr.arpa/
local=/254.169.254.169.in-addr.arpa/
no-hosts
stop-dns-rebind
pid-file=/var/run/mdserver/mds.pid
except-interface=lo
bind-dynamic
interface=br-mds
dhcp-range=10.122.0.1,static
dhcp-authoritative
dhcp-ignore-names
dhcp-no-override
dhcp-lease-max=254
dhcp-hostsfile=/var/lib/mdserver/dnsmasq/dhcp/mds.dhcp-hosts
dhcp-optsfile=/var/lib/mdserver/dnsmasq/mds.opts
addn-hosts=/var/lib/mdserver/dnsmasq/dns/mds.dns-hosts
`,
  );
  assert.equal(
    dnsmasqOptions(settings).content,
    `option:classless-static-route,169.254.169.254/32,10.122.0.1,0.0.0.0/0,10.122.0.1
249,169.254.169.254/32,10.122.0.1,0.0.0.0/0,10.122.0.1
option:router,10.122.0.1
option:dns-server,10.122.0.1
`,
  );
});

test('what is the network’s is looked up in the zones of the network and no others, in few lines', async (t) => {
  for (const [settings, zones] of [
    ['net_address = 10.0.0.0\nnet_prefix = 8\ngateway = 10.0.0.1', '10.in-addr.arpa'],
    ['net_prefix = 15', '122.10.in-addr.arpa/123.10.in-addr.arpa'],
    ['', '122.10.in-addr.arpa'],
    [
      'net_address = 10.122.4.0\nnet_prefix = 22\ngateway = 10.122.4.1',
      '4.122.10.in-addr.arpa/5.122.10.in-addr.arpa/6.122.10.in-addr.arpa/7.122.10.in-addr.arpa',
    ],
    [
      'net_address = 10.122.0.4\nnet_prefix = 30\ngateway = 10.122.0.5',
      [4, 5, 6, 7].map((last) => `${last}.0.122.10.in-addr.arpa`).join('/'),
    ],
  ] as const) {
    await t.test(rowName(settings), () => {
      assert.deepEqual(localLines(settings), [zones]);
    });
  }
  await t.test('IPv6', () => {
    const network = `${'0.'.repeat(8)}5.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa`.replace(/^(0\.){4}/, '');
    const ipv6 = (prefix: number) =>
      localLines(`net_address6 = fd00:0:5::\nnet_prefix6 = ${prefix}`)[1];
    assert.equal(ipv6(64), network);
    assert.equal(ipv6(66), ['0', '1', '2', '3'].map((first) => `${first}.${network}`).join('/'));
  });
  await t.test('128 zones', () => {
    const lines = localLines('net_address = 10.122.128.0\nnet_prefix = 17\ngateway = 10.122.128.1');
    assert.equal(lines.length, 4);
    assert.ok(lines.every((line) => line.length < 1000));
    assert.deepEqual(
      lines.flatMap((line) => line.split('/')),
      Array.from({ length: 128 }, (_, index) => `${index + 128}.122.10.in-addr.arpa`),
    );
  });
});

test('dnsmasq leaves the loopback interface alone, unless an address of it is asked for', () => {
  const listening = (settings: string) =>
    fileText(dnsmasqConfiguration(config(settings)))
      .split('\n')
      .filter((line) => /interface|listen|^bind/.test(line));
  const always = ['bind-dynamic', 'interface=br-mds'];
  assert.deepEqual(listening(''), ['except-interface=lo', ...always]);
  assert.deepEqual(listening('listen_address = 10.122.0.1, fd00::1'), [
    'except-interface=lo',
    'listen-address=10.122.0.1',
    'listen-address=fd00::1',
    ...always,
  ]);
  for (const address of ['127.0.0.1', '::1']) {
    assert.deepEqual(listening(`listen_address = 10.122.0.1, ${address}`), [
      'listen-address=10.122.0.1',
      `listen-address=${address}`,
      ...always,
    ]);
  }
});

test('the host’s /etc/hosts and domains with private addresses are served where they are asked for', () => {
  const lines = (file: FileContent) =>
    fileText(file)
      .split('\n')
      .filter((line) => /^no-hosts|rebind/.test(line));
  assert.deepEqual(lines(dnsmasqConfiguration(config(''))), ['no-hosts', 'stop-dns-rebind']);
  const asked = 'use_etc_hosts = yes\nprivate_domains = office.example, dnsbl.example.net';
  assert.deepEqual(lines(dnsmasqConfiguration(config(asked))), [
    'stop-dns-rebind',
    'rebind-domain-ok=/office.example/dnsbl.example.net/',
  ]);
});

test('the lease time is the configured one', () => {
  const { dhcp } = hostsOf(config('lease_len = 600'), 'web1');
  assert.equal(dhcp, '52:54:00:00:00:00,id:*,10.122.0.10,web1,600\n');
});

/** The host names of domains, in their order. */
function hostNamesOf(settings: string, ...names: string[]): string[] {
  const { hostNames } = instances(config(settings), ...names);
  return names.map((name) => hostNames.get(name) ?? '');
}

/** The names with a part of the uuid that the instance with this number has. */
function changed(name: string, number: number): string {
  return `${name}-0000000${number}`;
}

test('a name that is not a host name becomes one, and the first of two that collide keeps it', () => {
  assert.deepEqual(
    hostNamesOf(
      '',
      'web server 1',
      'web-server-1',
      'web_server_1',
      '_x',
      'Web1',
      'web1',
      '日本',
      'a-',
    ),
    [
      'web-server-1',
      changed('web-server-1', 1),
      'web_server_1',
      'x',
      'Web1',
      changed('web1', 5),
      'instance',
      'a',
    ],
  );
});

test('a name with dots is one of its own below the domain only, else it becomes a label', async (t) => {
  for (const [domain, name, hostName] of [
    ['no', 'github.com', 'github-com'],
    ['no', 'www.google.com.', 'www-google-com'],
    ['no', '10.0.0.1', '10-0-0-1'],
    ['example.com', 'github.com', 'github-com'],
    ['example.com', 'example.com', 'example-com'],
    ['example.com', 'notexample.com', 'notexample-com'],
    ['example.com', '.example.com', 'example-com'],
    ['example.com', '_.example.com', 'example-com'],
    ['example.com', 'guest1.Example.COM', 'guest1.Example.COM'],
    ['example.com', 'db.lab.example.com', 'db.lab.example.com'],
    ['example.com', 'a b.c..example.com', 'a-b.c.example.com'],
    ['lab.example.com', 'db.lab.example.com', 'db.lab.example.com'],
    ['lab.example.com', 'db.example.com', 'db-example-com'],
    ['0.1', '10.0.0.1', '10-0-0-1'],
  ] as const) {
    await t.test(rowName(`${name} in ${domain}`), () => {
      assert.equal(toHostName(name, domain === 'no' ? false : domain), hostName);
    });
  }
});

test('the later of two instances whose names in DNS meet in any form gets a name of its own', async (t) => {
  const prefixed = 'prefix = vm\nentry_order = base, prefix';
  for (const [settings, first, second, hostName] of [
    ['domain = example.com', 'guest1', 'guest1.example.com', 'guest1-00000001.example.com'],
    ['domain = Example.com', 'guest1.EXAMPLE.com', 'Guest1', 'Guest1-00000001'],
    ['domain = example.com\nentry_order = domain', 'a', 'a.example.com', 'a-00000001.example.com'],
    [prefixed, 'foo', 'vmfoo', 'vmfoo-00000001'],
    [prefixed, 'vmfoo', 'FOO', 'FOO-00000001'],
    [`${prefixed}\ndomain = example.com`, 'vmfoo.example.com', 'foo', 'foo-00000001'],
    // This form is not published.
    ['prefix = vm', 'foo', 'vmfoo', 'vmfoo'],
    ['domain = example.com', 'a', 'a.b.example.com', 'a.b.example.com'],
  ] as const) {
    await t.test(rowName(`${second} after ${first}`), () => {
      assert.deepEqual(hostNamesOf(settings, first, second), [first, hostName]);
    });
  }
});

test('a name that programs trust, or the host’s own, is given to no instance', () => {
  const own = hostname().split('.')[0] ?? '';
  const reserved = [
    'localhost',
    'WPAD',
    'isatap',
    'instance-data',
    'broadcasthost',
    'ip6-allnodes',
  ];
  const names = [...reserved, own, 'test'];
  assert.deepEqual(hostNamesOf('domain = example.com', ...names), [
    ...[...reserved, own].map(changed),
    'test',
  ]);
  const asked = config('domain = example.com', 'host_names = seed, mds.example.com');
  assert.deepEqual(
    [...instances(asked, 'seed', 'mds').hostNames.values()],
    [changed('seed', 0), changed('mds', 1)],
  );
  const withPrefix = 'prefix = local\nentry_order = prefix\ndomain = example.com';
  assert.deepEqual(hostNamesOf(withPrefix, 'host', 'localhost.example.com'), [
    changed('host', 0),
    'localhost-00000001.example.com',
  ]);
});

/** Names that dnsmasq serves for an instance, in lower case: those of its two files, with and without the domain. */
function served(settings: Settings, hostName: string): string[] {
  const { domain } = settings.dnsmasq;
  const leased = dhcpName(settings.dnsmasq, hostName);
  const names = [
    ...dnsNames(settings.dnsmasq, hostName),
    ...(leased === undefined ? [] : [leased]),
  ];
  const expanded = names.filter((name) => !name.includes('.')).map((name) => `${name}.${domain}`);
  return [...names, ...(domain === false ? [] : expanded)].map((name) => name.toLowerCase());
}

test('whatever domains are called: names are valid, none is served for two, and a new one changes none', () => {
  const label = /^[a-z0-9]([a-z0-9_-]{0,62})$/i;
  const name = fc.oneof(
    fc.string({ minLength: 1, unit: 'binary' }),
    fc.string({ minLength: 1, unit: fc.constantFrom('a', 'A', '-', '_', '.', ' ', '1') }),
    fc
      .tuple(
        fc.constantFrom('', 'a', 'a1', 'a-'),
        fc.constantFrom('a', '1', 'b.a', 'localhost', 'wpad', 'host', '12h'),
        fc.constantFrom('', '.a', '.b.a', '.com', '-00000001'),
      )
      .map((parts) => parts.join('')),
    fc.constant('x'.repeat(300)),
    fc.constant(`${'x.'.repeat(130)}a`),
  );
  const settings = fc.record({
    prefix: fc.constantFrom('no', 'a', 'a1', 'local', 'p'.repeat(63)),
    domain: fc.constantFrom(
      'no',
      'a',
      'A',
      'b.a',
      'com',
      `${'d'.repeat(63)}.`.repeat(2) + 'd'.repeat(61),
    ),
    entry_order: fc.constantFrom(
      'base',
      'prefix',
      'domain',
      'prefix, domain',
      'domain, base, prefix',
    ),
  });
  fc.assert(
    fc.property(settings, fc.uniqueArray(name, { maxLength: 9 }), (options, domains) => {
      const text = Object.entries(options).map((pair) => pair.join(' = '));
      const used = config(text.join('\n'));
      const given = hostNamesOf(text.join('\n'), ...domains);
      const all = given.map((one) => [...new Set(served(used, one))]);
      for (const one of all.flat()) {
        assert.ok(one.length <= 253 && one.split('.').every((part) => label.test(part)), one);
      }
      assert.equal(new Set(all.flat()).size, all.flat().length, String(all));
      for (const [index, one] of given.entries()) {
        assert.deepEqual(hostNamesOf(text.join('\n'), ...domains.slice(0, index + 1)).at(-1), one);
      }
    }),
    { numRuns: 1000 },
  );
});

test('dnsmasq gets names in lower case: it would refuse some of those with capital letters', () => {
  assert.deepEqual(hostsOf(config(''), 'Ab--cd'), {
    dhcp: '52:54:00:00:00:00,id:*,10.122.0.10,ab--cd,86400\n',
    dns: '10.122.0.10 ab--cd\n',
  });
});

test('a name that dnsmasq would take for a lease time, a keyword or a name in a subdomain is left to DNS', () => {
  const { dhcp, dns } = hostsOf(config(''), '0123', '12h', 'infinite', 'ignore', '12a');
  assert.equal(
    dhcp,
    `52:54:00:00:00:00,id:*,10.122.0.10,86400
52:54:00:00:00:01,id:*,10.122.0.11,86400
52:54:00:00:00:02,id:*,10.122.0.12,86400
52:54:00:00:00:03,id:*,10.122.0.13,86400
52:54:00:00:00:04,id:*,10.122.0.14,12a,86400
`,
  );
  assert.equal(
    dns,
    `10.122.0.10 0123
10.122.0.11 12h
10.122.0.12 infinite
10.122.0.13 ignore
10.122.0.14 12a
`,
  );
});

test('records without a MAC or an address break no file', () => {
  const records = [
    instanceFromRecord({ domain_name: 'a' }),
    instanceFromRecord({ domain_name: 'b', mds_mac: '52:54:00:00:00:01' }),
    instanceFromRecord({ domain_name: 'c', mds_ipv4: '10.122.0.9' }),
  ];
  const { draft } = instancesFrom(records, namingOf(config('')));
  const { dhcp, dns } = hostsFiles(config(''))(draft);
  assert.deepEqual([dhcp, dns].map(fileText), ['', '10.122.0.9 c\n']);
});
