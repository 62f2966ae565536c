import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { DhcpOptionError, dhcpOption } from '../src/config/dhcp-options.js';
import { ConfigError } from '../src/config/dialect.js';
import { configFrom, loadConfig } from '../src/config/load.js';
import { runProgram } from '../src/ctl/programs.js';
import { dnsmasqOptions, hostsFiles } from '../src/dnsmasq/files.js';
import { fileText } from '../src/files.js';
import { instanceFromRecord } from '../src/instances/database-file.js';
import { namingOf } from '../src/instances/host-names.js';
import { instancesFrom } from '../src/instances/instances.js';
import { dhcpSettings, settingProblems } from '../src/instances/settings.js';
import { temporaryFolder } from './support/cleanup.js';
import { missing } from './support/parts.js';
import { rowName } from './support/rows.js';
import { databaseRecord } from './support/samples.js';

const gateway = '10.122.0.1';

/** dnsmasq's file of options, and its line of each instance, for domains with this metadata. */
function filesFor(configuration: string, ...metadata: Record<string, string>[]) {
  const { config } = configFrom(configuration);
  const records = metadata.map((domain_metadata, index) =>
    instanceFromRecord({
      ...databaseRecord(index + 1, { mds_ipv4: `10.122.0.${index + 10}` }),
      domain_metadata,
    }),
  );
  const { options, dhcp } = hostsFiles(config)(instancesFrom(records, namingOf(config)).draft);
  return { options: fileText(options), hosts: fileText(dhcp).trimEnd().split('\n') };
}

const usual = `option:classless-static-route,169.254.169.254/32,${gateway},0.0.0.0/0,${gateway}
249,169.254.169.254/32,${gateway},0.0.0.0/0,${gateway}
option:router,${gateway}
`;
const metadataOnly = `option:classless-static-route,169.254.169.254/32,${gateway}
249,169.254.169.254/32,${gateway}
option:router
`;

/** The lines with the tag of the first instance. */
const tagged = (lines: string) => lines.replace(/^(?=.)/gm, 'tag:i525400000001,');

// ---- one option ----

test('an option is known by its name or its number, and its value is written as dnsmasq reads it', async (t) => {
  for (const [name, value, line] of [
    ['ntp-server', '10.122.0.1', 'option:ntp-server,10.122.0.1'],
    ['NTP_Server', '10.122.0.1, 10.122.0.2', 'option:ntp-server,10.122.0.1,10.122.0.2'],
    ['42', '10.122.0.1', 'option:ntp-server,10.122.0.1'],
    ['mtu', '1450', 'option:mtu,1450'],
    ['time-offset', '-3600', 'option:time-offset,-3600'],
    ['domain-search', 'A.example, b.example', 'option:domain-search,a.example,b.example'],
    [
      'posix-timezone',
      'CET-1CEST,M3.5.0,M10.5.0/3',
      'option:posix-timezone,CET-1CEST,M3.5.0,M10.5.0/3',
    ],
    ['nis+-server', '10.122.0.1', 'option:nis+-server,10.122.0.1'],
    ['bootfile-name', 'pxe/linux.0', 'option:bootfile-name,pxe/linux.0'],
    // By the bytes: what stands in the text means nothing to dnsmasq.
    ['252', 'http://w/"#\\,', '252,68:74:74:70:3a:2f:2f:77:2f:22:23:5c:2c'],
    ['252', 'x', '252,120'],
    ['224', '01:FF', '224,01:ff'],
    ['224', '300', '224,300'],
    ['224', '10.0.0.1,10.0.0.2', '224,10.0.0.1,10.0.0.2'],
  ] as const) {
    await t.test(rowName(`${name}=${value}`), () => {
      assert.equal(dhcpOption(name, value).line, line);
    });
  }
});

test('an option that dnsmasq has no such value for, or that is not the operator’s to set, is refused', async (t) => {
  const routes =
    'mdserver sets the routes of guests: to leave the default route out, use default_route';
  const own = 'mdserver, dnsmasq or the guest sets this one: it cannot be changed';
  const none =
    'no option of DHCP: expected a number from 1 to 254, or a name as "dnsmasq --help dhcp" lists them';
  const text = 'letters, digits and .,:/_+=@<>-, with a letter or a digit at its ends';
  for (const [name, value, reason] of [
    ...['router', '3', 'static-route', 'classless-static-route', '121', '249'].map(
      (one) => [one, '10.122.0.1', routes] as const,
    ),
    ...[
      'netmask',
      '1',
      'hostname',
      '12',
      'lease-time',
      '51',
      '53',
      '54',
      'T1',
      '58',
      '61',
      '82',
    ].map((one) => [one, '7', own] as const),
    ...[
      'ntp',
      'option:ntp-server',
      '0',
      '255',
      '256',
      '-1',
      '042',
      '',
      'tag:x',
      'mtu,1',
      '__proto__',
    ].map((one) => [one, '1', none] as const),
    ['mtu', '67', '"67": expected a whole number from 68 to 65535'],
    ['mtu', '1e3', '"1e3": expected a whole number from 68 to 65535'],
    ['mtu', '', '"": expected a whole number from 68 to 65535'],
    [
      'ntp-server',
      'time.example',
      '"time.example": expected IPv4 addresses separated by commas, 32 at most',
    ],
    [
      'ntp-server',
      '10.0.0.1,',
      '"10.0.0.1,": expected IPv4 addresses separated by commas, 32 at most',
    ],
    ['domain-name', 'a b', '"a b": expected a DNS domain name'],
    ['domain-search', 'a,,b', '"a,,b": expected DNS domain names separated by commas'],
    ['root-path', 'a"b', `"a\\"b": expected ${text}`],
    ['root-path', 'a #b', `"a #b": expected ${text}`],
    ['root-path', 'a\nb', `"a\\nb": expected ${text}`],
    [
      '252',
      'a\nb',
      '"a\\nb": expected IPv4 addresses, a whole number, bytes (01:ff), or a text in ASCII of 255 characters at most',
    ],
  ] as const) {
    await t.test(rowName(`${name}=${value}`), () => {
      assert.throws(() => dhcpOption(name, value), new DhcpOptionError(reason));
    });
  }
});

// ---- in the files of dnsmasq ----

test('a site that sets none of it has the options that it had', () => {
  assert.deepEqual(filesFor('', {}, { role: 'web', default_user: 'adam', dhcp_options: '' }), {
    options: usual,
    hosts: [
      '52:54:00:00:00:01,id:*,10.122.0.10,vm1,86400',
      '52:54:00:00:00:02,id:*,10.122.0.11,vm2,86400',
    ],
  });
});

test('[dhcp-options] is for all guests, and dhcp_options for the instance of one domain', () => {
  assert.deepEqual(
    filesFor(
      '[dhcp-options]\nntp-server = 10.122.0.1\nMTU = 1450',
      { dhcp_options: 'ntp-server=10.122.0.9, 10.122.0.8;\n 252 = http://w/' },
      {},
    ),
    {
      options: `${usual}option:ntp-server,10.122.0.1
option:mtu,1450
tag:i525400000001,option:ntp-server,10.122.0.9,10.122.0.8
tag:i525400000001,252,68:74:74:70:3a:2f:2f:77:2f
`,
      hosts: [
        '52:54:00:00:00:01,id:*,set:i525400000001,10.122.0.10,vm1,86400',
        '52:54:00:00:00:02,id:*,10.122.0.11,vm2,86400',
      ],
    },
  );
});

test('the default route is left out for all or for one, and never the route to the metadata', () => {
  const none = '[dnsmasq]\ndefault_route = no';
  assert.equal(dnsmasqOptions(configFrom(none).config).content, metadataOnly);
  assert.equal(filesFor('', { default_route: 'no' }).options, usual + tagged(metadataOnly));
  assert.equal(filesFor(none, { 'default-route': 'yes' }).options, metadataOnly + tagged(usual));
  const ipv6 = '[mdserver]\nlisten_address = fd00:ec2::254\n';
  const own = '10.122.0.0/16,0.0.0.0';
  assert.equal(
    filesFor(ipv6, { default_route: 'no' }).options,
    `option:classless-static-route,0.0.0.0/0,${gateway}
249,0.0.0.0/0,${gateway}
option:router,${gateway}
${tagged(`option:classless-static-route,${own}\n249,${own}\noption:router\n`)}`,
  );
});

test('options for all follow a reload, those of an instance its upload', () => {
  const { config } = configFrom('');
  const files = hostsFiles(config);
  const { draft } = instancesFrom([], namingOf(config));
  const next = configFrom('[dhcp-options]\nmtu = 1450\n[dnsmasq]\ndefault_route = no').config;
  assert.equal(fileText(files(draft).options), usual);
  assert.equal(fileText(files(draft, next).options), `${metadataOnly}option:mtu,1450\n`);
});

test('a bad setting of a domain counts for nothing, a line says so, and the others count', () => {
  const metadata = {
    dhcp_options: 'mtu=1450; router=10.122.0.9; ntp-server; mtu=1400; =5; nonsense=1',
    default_route: 'never',
  };
  assert.deepEqual(
    dhcpSettings({ metadata })?.options.map(({ line }) => line),
    ['option:mtu,1450'],
  );
  const where = 'in the metadata of its domain,';
  const nothing = 'which counts for nothing:';
  assert.deepEqual(settingProblems({ metadata }, []), [
    `${where} dhcp_options has "router", ${nothing} mdserver sets the routes of guests: to leave the default route out, use default_route`,
    `${where} dhcp_options has "ntp-server", ${nothing} expected NAME=VALUE, separated by semicolons`,
    `${where} dhcp_options has "mtu", ${nothing} it is set twice`,
    `${where} dhcp_options has "=5", ${nothing} expected NAME=VALUE, separated by semicolons`,
    `${where} dhcp_options has "nonsense", ${nothing} no option of DHCP: expected a number from 1 to 254, or a name as "dnsmasq --help dhcp" lists them`,
    `${where} default_route is "never", ${nothing} expected yes or no`,
  ]);
  const many = { metadata: { dhcp_options: 'x=1;'.repeat(4000) } };
  const problems = settingProblems(many, []);
  assert.equal(problems.length, 6);
  assert.equal(problems[5], `${where} dhcp_options has 3995 more items that count for nothing`);
});

test('[dhcp-options] is checked when the configuration is read', async (t) => {
  for (const [lines, reason] of [
    ['mtu = 9', 'dhcp-options.mtu: "9": expected a whole number from 68 to 65535'],
    [
      'router = 10.122.0.9',
      'dhcp-options.router: mdserver sets the routes of guests: to leave the default route out, use default_route',
    ],
    [
      'ntp-server = 10.0.0.1\n42 = 10.0.0.2',
      'dhcp-options.42: the same option as dhcp-options.ntp-server: remove one of the two',
    ],
    [
      'dns-server = 10.0.0.1\n[dnsmasq]\nuse_dns = yes',
      'dhcp-options.dns-server: dnsmasq.use_dns names the DNS server of guests, too: remove one of the two',
    ],
  ] as const) {
    await t.test(rowName(lines), () => {
      const line = lines.startsWith('ntp') ? 3 : 2;
      assert.throws(
        () => configFrom(`[dhcp-options]\n${lines}\n`),
        new ConfigError(`test.conf:${line}: ${reason}`),
      );
    });
  }
  const folder = temporaryFolder(t, { 'a.conf': '[dhcp-options]\nmtu = 1450\n' });
  assert.deepEqual(
    loadConfig(join(folder, 'a.conf')).config.dhcpOptions.map(({ code }) => code),
    [26],
  );
});

// ---- whatever it is ----

/** Texts that mean something in dnsmasq's files, beside any others. */
const hostile = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.string({ unit: fc.constantFrom(...'a1.,:;/="\'\\# \n\t\0[]{}*<>+-') }),
  fc.constantFrom(
    '10.0.0.1',
    '10.0.0.1,10.0.0.2',
    '01:02:03',
    'a\ndhcp-script=/bin/sh',
    'x\r\nserver=1.2.3.4',
    'tag:other,option:router,1.1.1.1',
    'option:router,1.1.1.1',
    'encap:43,1',
    'vi-encap:9,1',
    '"',
    'Ab--cd.example',
    'xn--a.example',
    '[fd00::1]',
    '0x10',
    '1w',
    '-1',
    '4294967295',
    'a'.repeat(300),
    `${'a.'.repeat(120)}b`,
  ),
);
const names = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 0, max: 256 }).map(String) },
  { weight: 1, arbitrary: hostile },
);

test('whatever a domain sets: each option is a line of its own with its tag, and dnsmasq takes them all', {
  skip: missing('dnsmasq'),
}, async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'test.conf');
  const lines = new Set<string>();
  fc.assert(
    fc.property(fc.array(fc.tuple(names, hostile), { maxLength: 5 }), (pairs) => {
      const text = pairs.map(([name, value]) => `${name}=${value}`).join(';');
      const { options } = filesFor('', { dhcp_options: text });
      const own = options.slice(usual.length).split('\n').slice(0, -1);
      assert.ok(options.startsWith(usual));
      for (const line of own) {
        // Neither another tag, nor another option, nor a comment, nor more than dnsmasq reads of a line.
        assert.match(line, /^tag:i525400000001,(option:[a-z0-9+-]+|\d+),[\w.,:/+=@<>-]+$/);
        assert.ok(line.length < 1000, line);
        const [, code] = /,(\d+|option:[a-z0-9+-]+),/.exec(line) ?? [];
        assert.ok(!['3', '121', '249', 'option:router'].includes(code ?? ''), line);
        lines.add(line);
      }
    }),
    { numRuns: 3000 },
  );
  // Each option that there is, with its longest and its shortest values, too.
  for (let code = 1; code < 255; code++) {
    for (const value of [
      ...['1', '255', '65535', 'a', 'a.example', 'a:b', 'z'.repeat(255), '7f'.padEnd(764, ':ff')],
      Array.from({ length: 32 }, () => '100.100.100.100').join(','),
    ]) {
      try {
        lines.add(dhcpOption(String(code), value).line);
      } catch (error) {
        assert.ok(error instanceof DhcpOptionError);
      }
    }
  }
  assert.ok(lines.size > 1000, String(lines.size));
  writeFileSync(file, [...lines].map((line) => `dhcp-option=${line}\n`).join(''));
  const result = await runProgram('dnsmasq', ['--test', `--conf-file=${file}`]);
  assert.deepEqual(result, { status: 0, stdout: '', stderr: 'dnsmasq: syntax check OK.\n' });
});
