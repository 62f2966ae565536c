import assert from 'node:assert/strict';
import { symlinkSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join, relative } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { ConfigError } from '../src/config/dialect.js';
import {
  changesNeedingRestart,
  configFrom,
  loadConfig,
  readableConfig,
  reloadedConfig,
} from '../src/config/load.js';
import {
  type Config,
  type Option,
  options,
  ownVersion,
  publishedVersions,
  releaseDate,
} from '../src/config/options.js';
import { temporaryFolder } from './support/cleanup.js';
import { rowName } from './support/rows.js';

const fixtures = fileURLToPath(new URL('../../test/fixtures/config/', import.meta.url));

function refusal(read: () => unknown): string {
  try {
    read();
  } catch (error) {
    assert.ok(error instanceof ConfigError, `not a ConfigError: ${error}`);
    assert.doesNotMatch(error.message, /\n/);
    return error.message;
  }
  return assert.fail('not refused');
}

function configOf(text: string): Config {
  const { config, warnings } = configFrom(text);
  assert.deepEqual(warnings, []);
  return config;
}

/** The options that the Python mdserver has, too. */
function values(config: Config): typeof defaults {
  const known = Object.entries(defaults).map(([section, ofSection]) => {
    const all: Record<string, unknown> = config[section as keyof typeof defaults];
    return [section, Object.fromEntries(Object.keys(ofSection).map((key) => [key, all[key]]))];
  });
  return Object.fromEntries(known);
}

const defaults = {
  mdserver: {
    listen_address: ['169.254.169.254'],
    port: 80,
    logfile: '/var/log/mdserver/mdserver.log',
    debug: false,
    debug_userdata: false,
    userdata_dir: '/etc/mdserver/userdata',
    userdata_suffixes: ['', '.yaml'],
    default_template: undefined,
    password: undefined,
    hostname_prefix: 'vm',
    db_file: '/var/lib/mdserver/db_file.json',
  },
  loglevels: { base: 'info', stream: 'info', file: 'debug' },
  dnsmasq: {
    user: 'mdserver',
    base_dir: '/var/lib/mdserver/dnsmasq',
    run_dir: '/var/run/mdserver',
    net_name: 'mds',
    interface: 'br-mds',
    net_address: '10.122.0.0',
    net_prefix: 16,
    gateway: '10.122.0.1',
    listen_address: undefined,
    use_dns: false,
    lease_len: 86400,
    prefix: false,
    domain: false,
    entry_order: ['base'],
  },
  service: {
    name: 'mdserver',
    type: 'mdserver',
    location: hostname().split('.')[0],
    version: ownVersion,
    release_date: releaseDate,
    hostname: hostname(),
    ec2_versions: [...publishedVersions, 'latest'],
  },
  _include_: { directories: undefined, files: undefined },
};

test('an empty file gives the defaults', () => {
  const config = configOf('');
  assert.deepEqual(values(config), defaults);
  assert.deepEqual(config.publicKeys, []);
  assert.deepEqual(config.templateData, new Map());
});

test("an operator's file is read as the Python mdserver reads it", () => {
  const file = join(fixtures, 'operator.conf');
  const { config, files, warnings } = loadConfig(file);
  assert.deepEqual(values(config), {
    mdserver: {
      ...defaults.mdserver,
      port: 8001,
      listen_address: ['127.1.0.1'],
      password: '$6$salt$hash/with.chars#and;more',
      userdata_suffixes: ['.cfg', '', '.yaml'],
      default_template: '/etc/mdserver/userdata/base.yaml',
    },
    loglevels: { base: 'warn', stream: 'info', file: 'debug' },
    dnsmasq: {
      ...defaults.dnsmasq,
      base_dir: '/srv/dnsmasq',
      net_address: '127.1.0.0',
      gateway: '127.1.0.1',
      listen_address: ['127.1.0.1', 'fd00:ec2::254'],
      use_dns: true,
      lease_len: 3600,
      prefix: 'vm-',
      domain: 'example.com',
      entry_order: ['prefix', 'domain', 'base'],
    },
    service: {
      ...defaults.service,
      name: 'lab',
      location: 'testing_123',
      ec2_versions: ['2009-04-04', 'latest'],
    },
    _include_: defaults._include_,
  });
  assert.deepEqual(config.publicKeys, [
    { name: 'default', key: 'command="a; b" ssh-ed25519 AAAAC3Nza ops@lab # not a comment' },
    { name: 'zoe', key: 'ssh-rsa AAAAB3NzaC1yc2E zoe@lab' },
    { name: 'adam', key: 'ecdsa-sha2-nistp256 AAAAE2Vj adam@lab' },
  ]);
  assert.deepEqual(
    [...config.templateData],
    [
      ['foo', 'bar'],
      ['proxy', 'http://10.0.0.1:3128/?a=b%20c'],
      ['motd', 'one\ntwo\n\nthree'],
      ['prefix', 'vm-'],
      ['domain', 'example.com'],
    ],
  );
  assert.deepEqual(files, [file]);
  assert.deepEqual(warnings, [
    `${file}:6: mdserver.loglevel is the old name of loglevels.base and overrides it: rename it`,
  ]);
});

test('an empty value unsets an option without a default, and prefix and domain', () => {
  const config = configOf(
    '[mdserver]\npassword =\ndefault_template =\n[dnsmasq]\nlisten_address =\nprefix =\ndomain =\n[_include_]\nfiles =',
  );
  assert.deepEqual(values(config), defaults);
  assert.equal(config.texts.has('mdserver.password'), false);
});

test("default_template = None is Python's way to say that there is none", () => {
  const config = configOf('[mdserver]\ndefault_template = None');
  assert.deepEqual(values(config), defaults);
  assert.equal(config.texts.has('mdserver.default_template'), false);
  assert.equal(configOf('[mdserver]\nvendor_data = None').mdserver.vendor_data, 'None');
});

test('host_names are compared in lower case, and addresses in their short form', () => {
  const { mdserver } = configOf(
    '[mdserver]\nhost_names = Metadata.Example.com, [FD00:0::1],192.0.2.7',
  );
  assert.deepEqual(mdserver.host_names, ['metadata.example.com', 'fd00::1', '192.0.2.7']);
});

test('yes and no words', async (t) => {
  for (const [word, meaning] of [
    ['yes', true],
    ['y', true],
    ['TRUE', true],
    ['t', true],
    ['On', true],
    ['1', true],
    ['no', false],
    ['N', false],
    ['False', false],
    ['f', false],
    ['OFF', false],
    ['0', false],
  ] as const) {
    await t.test(word, () => {
      assert.equal(configOf(`[mdserver]\ndebug = ${word}`).mdserver.debug, meaning);
    });
  }
  for (const [prefix, domain] of [
    ['False', 'off'],
    ['n', 'f'],
  ]) {
    const config = configOf(`[dnsmasq]\nprefix = ${prefix}\ndomain = ${domain}`);
    assert.deepEqual([config.dnsmasq.prefix, config.dnsmasq.domain], [false, false]);
  }
});

test('values that the Python mdserver takes mean the same', async (t) => {
  for (const [section, key, text, value] of [
    ['dnsmasq', 'net_prefix', '255.255.0.0', 16],
    ['dnsmasq', 'net_prefix', '0.0.255.255', 16],
    ['dnsmasq', 'net_prefix', '016', 16],
    ['dnsmasq', 'prefix', 'vm_', 'vm_'],
    ['dnsmasq', 'domain', 'lab_1.example', 'lab_1.example'],
    ['dnsmasq', 'domain', 'lab.example.', 'lab.example'],
    ['dnsmasq', 'entry_order', 'basename', ['base']],
    ['dnsmasq', 'entry_order', 'FQDN,Prefixed, base', ['domain', 'prefix', 'base']],
    ['loglevels', 'stream', 'fatal', 'fatal'],
    ['loglevels', 'stream', 'NotSet', 'debug'],
    ['loglevels', 'base', 'notset', 'warn'],
    ['service', 'ec2_versions', '/latest, 2009-04-04', ['latest', '2009-04-04']],
    ['service', 'release_date', '2020-02-02', '2020-02-02'],
    ['service', 'hostname', 'here.example.com', 'here.example.com'],
  ] as const) {
    await t.test(`${section}.${key} = ${text}`, () => {
      const config: Config = configOf(`[${section}]\n${key} = ${text}`);
      const ofSection: Readonly<Record<string, unknown>> = config[section];
      assert.deepEqual(ofSection[key], value);
    });
  }
});

test('a bad value is refused with file, line, name, value and what was expected', async (t) => {
  for (const [text, message] of [
    [
      '[mdserver]\nport = 0',
      'test.conf:2: mdserver.port = "0": expected a whole number from 1 to 65535',
    ],
    [
      '[mdserver]\n\nport = 80 # web',
      'test.conf:3: mdserver.port = "80 # web": expected a whole number from 1 to 65535',
    ],
    [
      '[mdserver]\nport =',
      'test.conf:2: mdserver.port = "": expected a whole number from 1 to 65535',
    ],
    ['[mdserver]\ndebug = maybe', 'test.conf:2: mdserver.debug = "maybe": expected yes or no'],
    [
      '[mdserver]\nlisten_address = 300.1.1.1',
      'test.conf:2: mdserver.listen_address = "300.1.1.1": expected an IP address, or several separated by commas',
    ],
    [
      '[mdserver]\nhost_names = metadata:80',
      'test.conf:2: mdserver.host_names = "metadata:80": expected a host name or an IP address, or several separated by commas',
    ],
    [
      '[mdserver]\nupload_from = nobody',
      'test.conf:2: mdserver.upload_from = "nobody": expected root or host',
    ],
    [
      '[mdserver]\nloglevel = loud',
      'test.conf:2: loglevels.base = "loud": expected one of debug, info, warning, warn, error, critical, fatal',
    ],
    [
      '[loglevels]\nbase = constructor',
      'test.conf:2: loglevels.base = "constructor": expected one of debug, info, warning, warn, error, critical, fatal',
    ],
    [
      '[dnsmasq]\ndomain = a._b.example',
      'test.conf:2: dnsmasq.domain = "a._b.example": expected a DNS domain name, or "no"',
    ],
    [
      '[dnsmasq]\nentry_order = base, mac',
      'test.conf:2: dnsmasq.entry_order = "base, mac": expected base, prefix and domain (or fqdn), separated by commas',
    ],
    [
      '[service]\nec2_versions = ,',
      'test.conf:2: service.ec2_versions = ",": expected EC2 versions separated by commas, such as "2009-04-04, latest"',
    ],
    [
      '[_include_]\ndirectories = /a:\n  /b',
      'test.conf:2: _include_.directories = "/a:\\n/b": expected paths separated by colons',
    ],
    [
      `[mdserver]\nlogfile = ${'x'.repeat(100)}\0`,
      `test.conf:2: mdserver.logfile = "${'x'.repeat(80)}…": expected a path`,
    ],
  ] as const) {
    await t.test(rowName(text), () => {
      assert.equal(
        refusal(() => configFrom(text)),
        message,
      );
    });
  }
});

test('an error never shows a secret', () => {
  assert.equal(
    refusal(() => configFrom('[mdserver]\npassword = hunter2\n  hunter3')),
    'test.conf:2: mdserver.password: expected one line of text',
  );
  assert.doesNotMatch(
    refusal(() => configFrom('[mdserver]\npassword = hunter%2')),
    /hunter/,
  );
});

test("dnsmasq's network is checked as a whole", async (t) => {
  for (const [text, message] of [
    [
      'net_address = 10.122.0.5',
      'test.conf:2: dnsmasq.net_address = "10.122.0.5": expected a network address for dnsmasq.net_prefix 16, such as 10.122.0.0',
    ],
    [
      'net_prefix = 8',
      'test.conf:2: dnsmasq.net_address = "10.122.0.0" (the default): expected a network address for dnsmasq.net_prefix 8, such as 10.0.0.0',
    ],
    [
      'gateway = 10.122.0.0',
      'test.conf:2: dnsmasq.gateway = "10.122.0.0": expected an address that is not the first or last of 10.122.0.0/16 (dnsmasq.net_address and net_prefix)',
    ],
    [
      'gateway = 10.122.255.255',
      'test.conf:2: dnsmasq.gateway = "10.122.255.255": expected an address that is not the first or last of 10.122.0.0/16 (dnsmasq.net_address and net_prefix)',
    ],
    [
      'net_prefix = 31',
      'test.conf:2: dnsmasq.net_prefix = "31": expected a whole number from 1 to 30, or a netmask such as 255.255.0.0',
    ],
    [
      'net_prefix = 255.0.255.0',
      'test.conf:2: dnsmasq.net_prefix = "255.0.255.0": expected a whole number from 1 to 30, or a netmask such as 255.255.0.0',
    ],
  ] as const) {
    await t.test(rowName(text), () => {
      assert.equal(
        refusal(() => configFrom(`[dnsmasq]\n${text}`)),
        message,
      );
    });
  }
  const small = configOf(
    '[dnsmasq]\nnet_address = 192.0.2.252\nnet_prefix = 30\ngateway = 192.0.2.254',
  );
  assert.equal(small.dnsmasq.gateway, '192.0.2.254');
});

test('the gateway may be outside of the range that addresses are given from, with a warning', () => {
  const part = '[dnsmasq]\nnet_address = 10.122.128.0\nnet_prefix = 17';
  for (const [text, described] of [
    [`${part}\ngateway = 10.122.0.1`, 'test.conf:4: dnsmasq.gateway = "10.122.0.1"'],
    [part, 'test.conf:2: dnsmasq.gateway = "10.122.0.1" (the default)'],
  ] as const) {
    const { config, warnings } = configFrom(text);
    assert.equal(config.dnsmasq.gateway, '10.122.0.1');
    assert.deepEqual(warnings, [
      `${described} is outside 10.122.128.0/17 (dnsmasq.net_address and net_prefix): guests get addresses only if the network of br-mds has both`,
    ]);
  }
});

test('a value that Bottle 0.13 reads as another one is warned about by its key, and not shown', () => {
  const { config, warnings } = configFrom(`[DEFAULT]
shared = $$
[mdserver]
password = $$6$$salt$$hash
[template-data]
proxy = http://\${service:location}/
home = \${HOME}
price = $5 $ {x}
[public-keys]
ops = $6$salt$hash
`);
  assert.equal(config.mdserver.password, '$$6$$salt$$hash');
  assert.equal(config.templateData.get('proxy'), `http://\${service:location}/`);
  const text = 'which is text here, as with Bottle 0.12: if the file is for Bottle 0.13 or later,';
  assert.deepEqual(
    warnings.filter((line) => line.includes('Bottle')),
    [
      `test.conf:2: mdserver.shared contains "$$", ${text} write one "$"`,
      `test.conf:4: mdserver.password contains "$$", ${text} write one "$"`,
      `test.conf:6: template-data.proxy contains "\${", ${text} write the value of that option`,
      `test.conf:7: template-data.home contains "\${", ${text} write the value of that option`,
    ],
  );
});

test('unknown sections and keys are warned about, with the nearest name', () => {
  const { config, warnings } = configFrom(`[mdserver]
prot = 1
debug-userdata = yes
net_name = x
qwertyuiop = 2
constructor = 3
__proto__ = 4
[MDServer]
port = 81
[dnsmaq]
user = x
[public_keys]
[zzzzzzzz]
a = b
c = d
`);
  assert.deepEqual(values(config), defaults);
  assert.deepEqual(warnings, [
    'test.conf:9: unknown section [MDServer], did you mean [mdserver]?',
    'test.conf:11: unknown section [dnsmaq], did you mean [dnsmasq]?',
    'test.conf: unknown section [public_keys], did you mean [public-keys]?',
    'test.conf:15: unknown section [zzzzzzzz]',
    'test.conf:2: unknown option mdserver.prot, did you mean mdserver.port?',
    'test.conf:3: unknown option mdserver.debug-userdata, did you mean mdserver.debug_userdata?',
    'test.conf:4: unknown option mdserver.net_name, did you mean dnsmasq.net_name?',
    'test.conf:5: unknown option mdserver.qwertyuiop',
    'test.conf:6: unknown option mdserver.constructor',
    'test.conf:7: unknown option mdserver.__proto__',
  ]);
});

test('a key of [DEFAULT] is warned about once, and only where no section knows it', () => {
  const { config, warnings } = configFrom(
    '[DEFAULT]\nlisten_address = 127.0.0.1\nuzer = x\n[mdserver]\n[service]\n[dnsmasq]',
  );
  assert.deepEqual(config.mdserver.listen_address, ['127.0.0.1']);
  assert.deepEqual(config.dnsmasq.listen_address, ['127.0.0.1']);
  assert.deepEqual(warnings, ['test.conf:3: unknown option mdserver.uzer']);
});

test('public keys: default has index 0, an empty one is left out, names are only names', () => {
  const { config, warnings } = configFrom(
    '[public-keys]\nb = 1\n__proto__ = 2\nempty =\ndefault = 3\na = 4',
  );
  assert.deepEqual(config.publicKeys, [
    { name: 'default', key: '3' },
    { name: 'b', key: '1' },
    { name: '__proto__', key: '2' },
    { name: 'a', key: '4' },
  ]);
  assert.deepEqual(warnings, ['test.conf:4: ignored public-keys.empty: it is empty']);
});

test('template data shadows no name that templates have, and the first one stays', () => {
  const { config, warnings } = configFrom(`[mdserver]
password = secret
[public-keys]
default = KEY
[template-data]
hostname = a
instance = b
it = c
public_keys = d
public_key_default = e
mdserver_password = f
public_key_other = kept
prefix = plain
__proto__ = proto
_config_items_ = dnsmasq.prefix, service.name, dnsmasq.user, mdserver.hostname
`);
  assert.deepEqual(
    [...config.templateData],
    [
      ['public_key_other', 'kept'],
      ['prefix', 'plain'],
      ['__proto__', 'proto'],
      ['name', 'mdserver'],
      ['user', 'mdserver'],
    ],
  );
  assert.deepEqual(warnings, [
    ...[
      [6, 'template-data.hostname', 'hostname'],
      [7, 'template-data.instance', 'instance'],
      [8, 'template-data.it', 'it'],
      [9, 'template-data.public_keys', 'public_keys'],
      [10, 'template-data.public_key_default', 'public_key_default'],
      [11, 'template-data.mdserver_password', 'mdserver_password'],
      [15, '"dnsmasq.prefix" in _config_items_', 'prefix'],
    ].map(
      ([line, what, name]) =>
        `test.conf:${line}: ignored ${what}: templates already have a "${name}"`,
    ),
    'test.conf:15: ignored "mdserver.hostname" in _config_items_: no such option',
  ]);
});

test('public_key_default is a name of templates also without that key', () => {
  const { config, warnings } = configFrom('[template-data]\npublic_key_default = x');
  assert.deepEqual(config.templateData, new Map());
  assert.deepEqual(warnings, [
    'test.conf:2: ignored template-data.public_key_default: templates already have a "public_key_default"',
  ]);
});

test('mdserver_password may be template data where no password is set, as in Python', () => {
  const config = configOf('[template-data]\nmdserver_password = x');
  assert.deepEqual(config.templateData, new Map([['mdserver_password', 'x']]));
});

test('template data that hides a function of templates is kept, with a warning', () => {
  const { config, warnings } = configFrom(
    '[template-data]\nyaml = text\nsh_name = x\n_config_items_ = a.json\n[a]\njson = 1',
  );
  assert.deepEqual(
    [...config.templateData],
    [
      ['yaml', 'text'],
      ['sh_name', 'x'],
      ['json', '1'],
    ],
  );
  assert.deepEqual(
    warnings.filter((line) => line.includes('hides')),
    [
      'test.conf:2: template-data.yaml hides the function yaml() from templates: rename it to use the function',
      'test.conf:4: "a.json" in _config_items_ hides the function json() from templates: rename it to use the function',
    ],
  );
});

test('_config_items_ takes quotes, defaults, other sections and old spellings of the list', async (t) => {
  const items = (list: string) =>
    configFrom(`[site]\nproxy = p\n[mdserver]\npassword =\n[template-data]\n${list}`);
  for (const list of [
    `dnsmasq.prefix,site.proxy`,
    `'dnsmasq.prefix,site.proxy'`,
    `"dnsmasq.prefix, site.proxy"`,
    ` "dnsmasq.prefix" , 'site.proxy' ,`,
    `\n  dnsmasq.prefix,\n  site.proxy`,
  ]) {
    await t.test(rowName(list), () => {
      assert.deepEqual(
        [...items(`_config_items_ = ${list}`).config.templateData],
        [
          ['prefix', false],
          ['proxy', 'p'],
        ],
      );
    });
  }
  const { config, warnings } = items(
    '_config_items_ = dnsmasq.user, nothing, a.b, constructor.name',
  );
  assert.deepEqual(config.templateData, new Map([['user', 'mdserver']]));
  assert.deepEqual(warnings.slice(1), [
    'test.conf:6: ignored "nothing" in _config_items_: no such option',
    'test.conf:6: ignored "a.b" in _config_items_: no such option',
    'test.conf:6: ignored "constructor.name" in _config_items_: no such option',
  ]);
});

test('_config_items_ has options that no file sets as the Python server has them, and others as text', () => {
  const names = [
    'mdserver.port, mdserver.password, mdserver.default_template, mdserver.debug, mdserver.vendor_data',
    'dnsmasq.prefix, dnsmasq.domain, dnsmasq.use_dns, dnsmasq.listen_address, dnsmasq.lease_len',
  ];
  const itemsOf = (text: string) =>
    Object.fromEntries(
      configOf(`${text}\n[template-data]\n_config_items_ = ${names.join(',')}`).templateData,
    );
  assert.deepEqual(itemsOf(''), {
    port: 80,
    password: null,
    default_template: null,
    debug: 'no',
    vendor_data: null,
    prefix: false,
    domain: false,
    use_dns: false,
    listen_address: null,
    lease_len: 86400,
  });
  assert.deepEqual(
    itemsOf(`[mdserver]
port = 80
password = None
default_template = None
debug = n
[dnsmasq]
prefix = no
domain =
use_dns = no
listen_address = 10.122.0.1
lease_len = 86400`),
    {
      port: '80',
      password: 'None',
      default_template: 'None',
      debug: 'n',
      vendor_data: null,
      prefix: 0,
      domain: '',
      use_dns: 'no',
      listen_address: '10.122.0.1',
      lease_len: '86400',
    },
  );
});

test('includes: folders first, each in code point order, then files, the last value winning', (t) => {
  const folder = temporaryFolder(t, {
    'main.conf': `[mdserver]
port = 1
[public-keys]
a = main
b = main
[loglevels]
base = error
[_include_]
directories = @DIR@/two:@DIR@/absent::@DIR@/main.conf:@DIR@/one
files = @DIR@/last.conf:@DIR@/absent.conf:@DIR@/one:@DIR@/first.conf
`,
    'one/10.conf': '[service]\nname = one-10\n[mdserver]\nport = 10',
    'one/9.conf': '[service]\nname = one-9',
    'one/B.conf': '[mdserver]\nhostname_prefix = B',
    'one/a.conf': '[mdserver]\nhostname_prefix = a',
    'one/\u{ff5e}.conf': '[service]\ntype = bmp',
    'one/\u{1f44d}.conf': '[service]\ntype = astral',
    'one/.hidden.conf': '[service]\nname = hidden',
    'one/other.cfg': '[service]\nname = other',
    'one/folder.conf/x.conf': '[service]\nname = folder',
    'two/z.conf': '[service]\nname = two\nlocation = two\n[mdserver]\nloglevel = debug',
    'last.conf': '[public-keys]\nc = last\na = last\n[mdserver]\nport = 30',
    'first.conf': '[service]\nlocation = first\n[public-keys]\ndefault = first',
    'linked/target': '[service]\nversion = linked',
  });
  symlinkSync(join(folder, 'linked/target'), join(folder, 'two/link.conf'));
  symlinkSync(join(folder, 'nowhere'), join(folder, 'two/broken.conf'));
  const main = join(folder, 'main.conf');
  const { config, files, warnings } = loadConfig(main);
  assert.deepEqual(
    files.map((file) => relative(folder, file)),
    [
      'main.conf',
      'two/link.conf',
      'two/z.conf',
      'one/10.conf',
      'one/9.conf',
      'one/B.conf',
      'one/a.conf',
      'one/\u{ff5e}.conf',
      'one/\u{1f44d}.conf',
      'last.conf',
      'first.conf',
    ],
  );
  assert.deepEqual(values(config).mdserver, {
    ...defaults.mdserver,
    port: 30,
    hostname_prefix: 'a',
  });
  assert.deepEqual(config.service, {
    ...defaults.service,
    name: 'one-9',
    type: 'astral',
    version: 'linked',
    location: 'first',
  });
  assert.deepEqual(config.publicKeys, [
    { name: 'default', key: 'first' },
    { name: 'a', key: 'last' },
    { name: 'b', key: 'main' },
    { name: 'c', key: 'last' },
  ]);
  assert.equal(config.loglevels.base, 'debug');
  assert.deepEqual(warnings, [
    `${join(folder, 'two/z.conf')}:5: mdserver.loglevel is the old name of loglevels.base and overrides it: rename it`,
  ]);
});

test('_include_ counts in the main file only', (t) => {
  const folder = temporaryFolder(t, {
    'main.conf': '[_include_]\nfiles = @DIR@/next.conf',
    'next.conf': '[_include_]\nfiles = @DIR@/third.conf\ndirectories = @DIR@',
    'third.conf': '[mdserver]\nport = 99',
  });
  const { config, files, warnings } = loadConfig(join(folder, 'main.conf'));
  const next = join(folder, 'next.conf');
  assert.deepEqual(files, [join(folder, 'main.conf'), next]);
  assert.equal(config.mdserver.port, 80);
  assert.deepEqual(config._include_, { directories: undefined, files: [next] });
  assert.deepEqual(warnings, [`${next}: ignored [_include_]: it works only in the main file`]);
});

test('relative includes start at the current directory', (t) => {
  const folder = temporaryFolder(t, { 'sub/x.conf': '[mdserver]\nport = 99' });
  writeFileSync(
    join(folder, 'sub/main.conf'),
    `[_include_]\nfiles = ${relative(process.cwd(), folder)}/sub/../sub/x.conf:x.conf`,
  );
  assert.deepEqual(loadConfig(join(folder, 'sub/main.conf')).files, [
    join(folder, 'sub/main.conf'),
    join(folder, 'sub/x.conf'),
  ]);
});

test('an error in an included file names that file', (t) => {
  const folder = temporaryFolder(t, {
    'main.conf': '[_include_]\ndirectories = @DIR@/conf.d',
    'conf.d/a.conf': '[mdserver]\n\nport = many',
  });
  assert.equal(
    refusal(() => loadConfig(join(folder, 'main.conf'))),
    `${folder}/conf.d/a.conf:3: mdserver.port = "many": expected a whole number from 1 to 65535`,
  );
});

test('a file that cannot be read is refused by name', async (t) => {
  const folder = temporaryFolder(t, {
    'folder/': '',
    'latin1.conf': Buffer.from('# M\xfcller\n', 'latin1'),
    'gzip.conf': Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]),
  });
  const absent = join(folder, 'absent.conf');
  assert.equal(
    refusal(() => loadConfig(absent)),
    `${absent}: cannot be read: ENOENT: no such file or directory, open '${absent}'`,
  );
  assert.equal(
    refusal(() => loadConfig(join(folder, 'folder'))),
    `${folder}/folder: cannot be read: EISDIR: illegal operation on a directory, read`,
  );
  for (const name of ['latin1.conf', 'gzip.conf']) {
    await t.test(name, () => {
      assert.equal(
        refusal(() => loadConfig(join(folder, name))),
        `${folder}/${name}: cannot be read: expected UTF-8 text`,
      );
    });
  }
});

test('a byte-order mark does no harm', (t) => {
  const folder = temporaryFolder(t, { 'main.conf': '\ufeff[mdserver]\r\nport = 81\r\n' });
  assert.equal(loadConfig(join(folder, 'main.conf')).config.mdserver.port, 81);
});

test('the readable configuration has every option that is no secret, as it is written', () => {
  const config = configOf(`[mdserver]
password = hunter2
debug = YES
[loglevels]
file = Warning
[service]
location = here
version = 9
ec2_versions = 2009-04-04,
    latest
[public-keys]
default = KEY
[template-data]
proxy = http://proxy/
_config_items_ = mdserver.password
`);
  const lines = readableConfig(config);
  const expectedNames = Object.entries<Readonly<Record<string, Option>>>(options).flatMap(
    ([section, ofSection]) =>
      Object.entries(ofSection)
        .filter(([, option]) => !option.secret)
        .map(([key]) => `${section}.${key}`),
  );
  assert.deepEqual(
    lines.map((line) => line.slice(0, line.indexOf('='))),
    expectedNames,
  );
  assert.equal(expectedNames.includes('mdserver.password'), false);
  for (const line of [
    'mdserver.listen_address=169.254.169.254',
    'mdserver.port=80',
    'mdserver.debug=YES',
    'mdserver.userdata_suffixes=:.yaml',
    'mdserver.default_template=',
    'loglevels.base=info',
    'loglevels.file=Warning',
    'dnsmasq.net_prefix=16',
    'dnsmasq.listen_address=',
    'dnsmasq.prefix=no',
    'service.location=here',
    'service.version=9',
    'service.ec2_versions=2009-04-04, latest',
    '_include_.directories=',
  ]) {
    assert.ok(lines.includes(line), line);
  }
  assert.doesNotMatch(lines.join('\n'), /hunter2|KEY|proxy/);
});

test('a reload keeps what needs a restart and takes the rest', () => {
  const old = configFrom(`[mdserver]
port = 81
userdata_dir = /old
[dnsmasq]
prefix = old-
listen_address = 10.122.0.1
[public-keys]
default = OLD
[template-data]
_config_items_ = dnsmasq.prefix, dnsmasq.domain, service.name
`);
  const next = configFrom(`[mdserver]
port = 82
userdata_dir = /new
listen_address = 169.254.169.254,127.0.0.1
debug = yes
[dnsmasq]
prefix = new-
domain = new.example
[service]
name = new
[public-keys]
default = NEW
[template-data]
_config_items_ = dnsmasq.prefix, dnsmasq.domain, service.name
`);
  assert.deepEqual(changesNeedingRestart(old.config, next.config), [
    'mdserver.listen_address',
    'mdserver.port',
    'dnsmasq.listen_address',
    'dnsmasq.prefix',
    'dnsmasq.domain',
  ]);
  const expected = configOf(`[mdserver]
port = 81
userdata_dir = /new
debug = yes
[dnsmasq]
prefix = old-
listen_address = 10.122.0.1
[service]
name = new
[public-keys]
default = NEW
[template-data]
_config_items_ = dnsmasq.prefix, dnsmasq.domain, service.name
`);
  const reloaded = reloadedConfig(old, next);
  assert.deepEqual(reloaded.config, expected);
  assert.deepEqual(reloadedConfig(reloaded, next).config, expected);
  assert.deepEqual(reloadedConfig(old, old), old);
});

test('the same value spelled differently needs no restart', () => {
  const old = configOf('[dnsmasq]\nuse_dns = yes\nentry_order = base,fqdn');
  const next = configOf('[dnsmasq]\nuse_dns = On\nentry_order = BASE, domain');
  assert.deepEqual(changesNeedingRestart(old, next), []);
});

test('whatever the text is, it gives a configuration or a one-line ConfigError', () => {
  const optionCount = readableConfig(configOf('')).length;
  const line = fc.oneof(
    fc.constantFrom('[mdserver]', '[dnsmasq]', '[template-data]', '[public-keys]', '[service]'),
    fc
      .tuple(
        fc.constantFrom('port', 'listen_address', 'prefix', '_config_items_', 'net_address', 'x'),
        fc.oneof(
          fc.constantFrom('no', '1', '10.122.0.1', 'dnsmasq.prefix', 'a,b', ''),
          fc.string({ unit: 'binary', maxLength: 6 }),
        ),
      )
      .map(([key, value]) => `${key} = ${value}`),
    fc.string({ unit: 'binary', maxLength: 20 }),
  );
  fc.assert(
    fc.property(fc.array(line, { maxLength: 6 }), (lines) => {
      try {
        const { config, warnings } = configFrom(`[mdserver]\n${lines.join('\n')}`);
        assert.equal(readableConfig(config).length, optionCount);
        for (const text of [...warnings, ...readableConfig(config)]) {
          assert.doesNotMatch(text, /[\n\r]/);
        }
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        assert.match(error.message, /^test\.conf:\d+: [^\0-\x1f]+$/);
      }
    }),
    { numRuns: 1000 },
  );
});
