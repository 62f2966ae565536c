import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { type IpAddress, type Ipv4, type Ipv6, parseIp, parseIpv4, parseIpv6 } from '../network.js';

/** How one kind of value is read. `parse` gives undefined for what is not `expected`. */
interface Kind<T> {
  readonly expected: string;
  readonly parse: (text: string) => T | undefined;
}

/** One option: all that the loader, the documentation and `/service/configuration` know of it. */
export interface Option<T = unknown> extends Kind<T> {
  /** The default as it would be written in a file; undefined for "none". */
  readonly default: string | undefined;
  /** What documentation says in place of a default that depends on the host or the release. */
  readonly defaultInWords: string | undefined;
  readonly explanation: string;
  /** A change takes effect at the next start only, not at a reload. */
  readonly restart: boolean;
  /** Never shown to anybody: `/service/configuration` and the log leave it out. */
  readonly secret: boolean;
}

interface OptionExtras {
  readonly defaultInWords?: string;
  readonly restart?: true;
  readonly secret?: true;
}

const noExtras = { defaultInWords: undefined, restart: false, secret: false };

function option<T>(
  kind: Kind<T>,
  defaultText: string,
  explanation: string,
  extras: OptionExtras = {},
): Option<T> {
  return { ...kind, default: defaultText, explanation, ...noExtras, ...extras };
}

/** An option that may be absent: its value is then undefined. */
function optional<T>(
  kind: Kind<T>,
  explanation: string,
  extras: OptionExtras = {},
): Option<T | undefined> {
  return { ...kind, default: undefined, explanation, ...noExtras, ...extras };
}

const yesWords = ['yes', 'true', 'on', '1'];
const noWords = ['no', 'false', 'off', '0'];

const yesNo: Kind<boolean> = {
  expected: 'yes or no',
  parse: (text) => {
    const word = text.toLowerCase();
    if (yesWords.includes(word)) return true;
    return noWords.includes(word) ? false : undefined;
  },
};

const text: Kind<string> = {
  expected: 'one line of text',
  parse: (value) => (/[\0-\x08\n-\x1f\x7f]/.test(value) ? undefined : value),
};

/** What stands in a dnsmasq file or is part of a file name: dnsmasq has no quoting. */
const word: Kind<string> = {
  expected: 'a name of letters, digits, ".", "_" and "-"',
  parse: (value) => (/^[A-Za-z0-9_][A-Za-z0-9._-]*$/.test(value) ? value : undefined),
};

const path: Kind<string> = {
  expected: 'a path',
  parse: (value) => (value === '' || /[\0-\x1f\x7f]/.test(value) ? undefined : value),
};

/** dnsmasq's files have no quoting, and a comma separates values in them. */
const dnsmasqPath: Kind<string> = {
  expected: 'a path without spaces, commas, quotes, "#" and "\\"',
  parse: (value) => (/^[^\s,"#\\\0-\x1f\x7f]+$/.test(value) ? value : undefined),
};

function oneOf<W extends string>(...words: readonly W[]): Kind<W> {
  return {
    expected: words.join(' or '),
    parse: (value) => words.find((candidate) => candidate === value.toLowerCase()),
  };
}

function integer(from: number, to: number): Kind<number> {
  return {
    expected: `a whole number from ${from} to ${to}`,
    parse: (value) => {
      const number = /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN;
      return number >= from && number <= to ? number : undefined;
    },
  };
}

const ipv6: Kind<Ipv6> = { expected: 'an IPv6 address', parse: parseIpv6 };
const ipv4: Kind<Ipv4> = { expected: 'an IPv4 address', parse: parseIpv4 };

function listItems(value: string): string[] {
  return value
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
}

/** Every item has to parse, and there has to be at least one. */
function list<T>(kind: Kind<T>, expected: string): Kind<readonly [T, ...T[]]> {
  return {
    expected,
    parse: (value) => {
      const [first, ...rest] = listItems(value).map(kind.parse);
      if (first === undefined || rest.includes(undefined)) return undefined;
      return [first, ...(rest as T[])];
    },
  };
}

const addresses: Kind<readonly [IpAddress, ...IpAddress[]]> = list(
  { expected: 'an address', parse: parseIp },
  'an IP address, or several with commas between',
);

const logLevels = {
  debug: 'debug',
  info: 'info',
  warning: 'warn',
  warn: 'warn',
  error: 'error',
  critical: 'fatal',
} as const;
/** A level in pino's words. */
export type LogLevel = (typeof logLevels)[keyof typeof logLevels];

const logLevel: Kind<LogLevel> = {
  expected: `one of ${Object.keys(logLevels).join(', ')}`,
  parse: (value) => new Map<string, LogLevel>(Object.entries(logLevels)).get(value.toLowerCase()),
};

const suffixes: Kind<readonly string[]> = {
  expected: 'suffixes with colons between, none of them with a "/"',
  parse: (value) => (/[/\0-\x1f\x7f]/.test(value) ? undefined : value.split(':')),
};

/** The value, or false for one of the "no" words or, as in Python, for an empty one. */
function orNo(kind: Kind<string>): Kind<string | false> {
  return {
    expected: `${kind.expected}, or "no"`,
    parse: (value) =>
      value === '' || noWords.includes(value.toLowerCase()) ? false : kind.parse(value),
  };
}

const hostNamePrefix: Kind<string> = {
  expected: 'letters, digits and "-"',
  parse: (value) => (/^[A-Za-z0-9][A-Za-z0-9-]{0,62}$/.test(value) ? value : undefined),
};

const domainName: Kind<string> = {
  expected: 'a DNS domain name',
  parse: (value) =>
    value.length <= 190 &&
    /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/i.test(value)
      ? value
      : undefined,
};

/** Which names an instance gets in DNS: its own, with the prefix, with prefix and domain. */
export type NameForm = 'base' | 'prefix' | 'domain';
const nameForms = new Map<string, NameForm>([
  ['base', 'base'],
  ['prefix', 'prefix'],
  ['domain', 'domain'],
  ['fqdn', 'domain'],
]);
const entryOrder = list<NameForm>(
  { expected: '', parse: (value) => nameForms.get(value.toLowerCase()) },
  'base, prefix and domain (or fqdn), with commas between',
);

/** An EC2 API version, or "latest". */
const version: Kind<string> = {
  expected: 'a version',
  parse: (value) => (/^(\d{4}-\d{2}-\d{2}|\d+\.\d+|latest)$/.test(value) ? value : undefined),
};

const paths: Kind<readonly string[]> = {
  expected: 'paths with colons between',
  parse: (value) =>
    /[\0-\x1f\x7f]/.test(value) ? undefined : value.split(':').filter((item) => item !== ''),
};

const packageFile = new URL('../../../package.json', import.meta.url);
const ownPackage = JSON.parse(readFileSync(packageFile, 'utf8'));
/** This program's own version, and the day it was released on (YYYY-MM-DD). */
export const ownVersion: string = ownPackage.version;
export const releaseDate: string = ownPackage.releaseDate;

/**
 * All published EC2 metadata versions, oldest first
 * (docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html).
 */
export const publishedVersions = [
  '1.0',
  '2007-01-19',
  '2007-03-01',
  '2007-08-29',
  '2007-10-10',
  '2007-12-15',
  '2008-02-01',
  '2008-09-01',
  '2009-04-04',
  '2011-01-01',
  '2011-05-01',
  '2012-01-12',
  '2014-02-25',
  '2014-11-05',
  '2015-10-20',
  '2016-04-19',
  '2016-06-30',
  '2016-09-02',
  '2018-03-28',
  '2018-08-17',
  '2018-09-24',
  '2019-10-01',
  '2020-10-27',
  '2021-01-03',
  '2021-03-23',
  '2021-07-15',
  '2022-07-09',
  '2022-09-24',
  '2024-04-11',
] as const;

const restart = { restart: true } as const;

/** Every option: the one place that says what there is, how it is read and what it means. */
export const options = {
  mdserver: {
    listen_address: option(
      addresses,
      '169.254.169.254',
      'Address to serve metadata on; several with commas between.',
      restart,
    ),
    port: option(integer(1, 65535), '80', 'TCP port to serve metadata on.', restart),
    logfile: option(path, '/var/log/mdserver.log', 'The log file.', restart),
    debug: option(yesNo, 'no', 'Log everything, everywhere.'),
    debug_userdata: option(
      yesNo,
      'no',
      'Keep a copy of each rendered user-data in the folder debug-userdata beside the database.',
    ),
    userdata_dir: option(
      path,
      '/etc/mdserver/userdata',
      'Where user-data templates are looked for.',
    ),
    userdata_suffixes: option(
      suffixes,
      ':.yaml',
      'Suffixes tried for each name in userdata_dir, with colons between; an empty one is "none".',
    ),
    default_template: optional(path, 'Template for instances that have none of their own.'),
    password: optional(text, 'Given to templates as mdserver_password.', { secret: true }),
    hostname_prefix: option(text, 'vm', 'Accepted for old configurations; not used.'),
    vendor_data: optional(
      path,
      'Template given to NoCloud and OpenStack guests as vendor-data, beside their user-data.',
    ),
    network_config: option(
      yesNo,
      'no',
      'Give NoCloud guests a network configuration: DHCP on the interface with their MAC address.',
    ),
    imds_tokens: option(
      oneOf('optional', 'required'),
      'optional',
      'Whether an instance has to send a session token (IMDSv2) to get anything; an instance can have its own imds_tokens in the metadata of its domain. NoCloud and OpenStack guests send none.',
    ),
    instance_id: option(
      oneOf('address', 'uuid'),
      'address',
      "What instance-id is made of: the IPv4 address, or the domain's uuid as EC2's are. To a guest that has booted before, another one means that it is a new machine.",
    ),
    control_socket: optional(path, 'Unix socket that mdserverctl and the libvirt hook talk to.', {
      restart: true,
      defaultInWords: 'control.sock in dnsmasq.run_dir',
    }),
    upload_over_tcp: option(
      yesNo,
      'yes',
      'Take uploads over TCP from this host, that is from every user of it; the control socket always takes them.',
    ),
    metrics: option(yesNo, 'no', 'Answer /metrics and /health to this host over TCP, too.'),
    check_mac: option(
      yesNo,
      'no',
      "Serve an instance only while its address answers with its MAC address in the kernel's neighbour table.",
    ),
    db_file: option(path, '/var/lib/mdserver/db_file.json', 'The database of instances.', restart),
  },
  loglevels: {
    base: option(logLevel, 'info', 'The least level that is logged anywhere.'),
    stream: option(logLevel, 'info', 'The least level that goes to standard output.'),
    file: option(logLevel, 'debug', 'The least level that goes to the log file.'),
  },
  dnsmasq: {
    user: option(word, 'mdserver', 'The user that dnsmasq runs as.', restart),
    base_dir: option(
      dnsmasqPath,
      '/var/lib/mdserver/dnsmasq',
      'Where the configuration of dnsmasq is written.',
      restart,
    ),
    run_dir: option(dnsmasqPath, '/var/run/mdserver', "Where dnsmasq's pid file is.", restart),
    net_name: option(
      word,
      'mds',
      "The libvirt network: an instance's first interface on it is the one that is served.",
      restart,
    ),
    interface: option(word, 'br-mds', 'The bridge of that network.', restart),
    net_address: option(ipv4, '10.122.0.0', 'Addresses of instances are taken from here.', restart),
    net_prefix: option(integer(1, 30), '16', 'The length of its prefix.', restart),
    gateway: option(ipv4, '10.122.0.1', "The host's own address in it.", restart),
    net_address6: optional(
      ipv6,
      'IPv6 addresses of instances are taken from here, where it is set.',
      restart,
    ),
    net_prefix6: option(integer(64, 120), '64', 'The length of its prefix.', restart),
    listen_address: optional(
      addresses,
      'Address that dnsmasq listens on, where it is not all of the interface.',
      restart,
    ),
    use_dns: option(
      yesNo,
      'no',
      'Tell instances to use this dnsmasq as their DNS server.',
      restart,
    ),
    lease_len: option(
      integer(1, 4294967294),
      '86400',
      'Length of a DHCP lease in seconds.',
      restart,
    ),
    prefix: option(
      orNo(hostNamePrefix),
      'no',
      'Put before names in DNS, see entry_order.',
      restart,
    ),
    domain: option(orNo(domainName), 'no', 'DNS domain of the instances.', restart),
    entry_order: option(
      entryOrder,
      'base',
      'Names in DNS, in this order: base (the name of the domain in libvirt), prefix (with the prefix), domain (with prefix and domain). Forms whose prefix or domain is not set are left out. An address resolves to the first, which dnsmasq puts the domain behind where one is set.',
      restart,
    ),
  },
  service: {
    name: option(text, 'mdserver', 'Answer to /service/name: your site, perhaps.'),
    type: option(text, 'mdserver', 'Answer to /service/type.'),
    location: option(
      text,
      hostname().split('.')[0] ?? 'localhost',
      'Where this host is: the answer to /service/location.',
      { defaultInWords: 'the short name of the host' },
    ),
    version: option(text, ownVersion, 'Answer to /service/version.', {
      defaultInWords: 'the version of mdserver',
    }),
    ec2_versions: option(
      list(version, 'EC2 versions with commas between, such as "2009-04-04, latest"'),
      [...publishedVersions, 'latest'].join(', '),
      'EC2 metadata versions that are served.',
    ),
  },
  'metadata-defaults': {
    'ami-id': option(text, 'ami-00000000000000000', 'The image: mdserver knows of none.'),
    'ami-launch-index': option(text, '0', 'The place among instances that were launched together.'),
    'ami-manifest-path': option(text, '(unknown)', "EC2's word for an image with no manifest."),
    'availability-zone': optional(text, 'The zone; service.location where it is not set.'),
    'instance-action': option(text, 'none', 'What is about to happen to the instance.'),
    'instance-life-cycle': option(text, 'on-demand', 'How the instance is paid for.'),
    'instance-type': optional(
      text,
      "Made of the domain's vcpus and memory where it is not set: kvm.2cpu-2048mib.",
    ),
    'owner-id': option(text, '000000000000', 'The account, twelve digits in EC2.'),
    profile: option(text, 'default-hvm', 'How the instance is virtualised.'),
    region: optional(text, 'The region; service.location where it is not set.'),
    'security-groups': option(text, 'default', 'Names of security groups.'),
  },
  _include_: {
    directories: optional(
      paths,
      'Folders whose *.conf files are read after this one, with colons between.',
    ),
    files: optional(paths, 'Files that are read after those, with colons between.'),
  },
} as const;

type Options = typeof options;
type ValueOf<O> = O extends Option<infer T> ? T : never;

/** The parsed value of every option of the table. */
export type OptionValues = {
  readonly [S in keyof Options]: { readonly [K in keyof Options[S]]: ValueOf<Options[S][K]> };
};

/** A public key of `[public-keys]`. */
export interface PublicKey {
  readonly name: string;
  readonly key: string;
}

/** A whole configuration, parsed and checked. */
export interface Config extends OptionValues {
  /** In the order of their index in the metadata: `default` first where there is one. */
  readonly publicKeys: readonly PublicKey[];
  /** `[template-data]` without `_config_items_`, which stand in it already under their keys. */
  readonly templateData: ReadonlyMap<string, string>;
  /** What `_config_items_` asks for: name in templates to `section.key`. */
  readonly configItems: ReadonlyMap<string, string>;
  /** Options by `section.key` as they are written in the file or by default; not those with none. */
  readonly texts: ReadonlyMap<string, string>;
}
