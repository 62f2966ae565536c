import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import {
  type IpAddress,
  type Ipv4,
  type Ipv4Range,
  type Ipv6,
  parseIp,
  parseIpv4,
  parseIpv4Range,
  parseIpv6,
  prefixOfMask,
} from '../network.js';
import { controlCharacters } from '../text.js';
import type { DhcpOption } from './dhcp-options.js';

/** How one kind of value is parsed. `parse` returns undefined for a text that is not as `expected`. */
interface Kind<T> {
  readonly expected: string;
  readonly parse: (text: string) => T | undefined;
}

/** One option, as the loader, the documentation and `/service/configuration` use it. */
export interface Option<T = unknown> extends Kind<T> {
  /** The default as it would be written in a file; undefined if there is none. */
  readonly default: string | undefined;
  /** Describes the default in the documentation if it depends on the host, the release or other options. */
  readonly defaultInWords: string | undefined;
  readonly explanation: string;
  /** The text, beside an empty one, for an option without a default that is not set. */
  readonly unset: string | undefined;
  /** A change takes effect at the next start, not at a reload. */
  readonly restart: boolean;
  /** Left out of `/service/configuration`, the log and lists; `mdserverctl config` prints it only if it is named. */
  readonly secret: boolean;
}

interface OptionExtras {
  readonly defaultInWords?: string;
  readonly unset?: string;
  readonly restart?: true;
  readonly secret?: true;
}

const noExtras = { defaultInWords: undefined, unset: undefined, restart: false, secret: false };

function option<T>(
  kind: Kind<T>,
  defaultText: string,
  explanation: string,
  extras: OptionExtras = {},
): Option<T> {
  return { ...kind, default: defaultText, explanation, ...noExtras, ...extras };
}

/** An option without a default: its value is undefined if it is not set. */
function optional<T>(
  kind: Kind<T>,
  explanation: string,
  extras: OptionExtras = {},
): Option<T | undefined> {
  return { ...kind, default: undefined, explanation, ...noExtras, ...extras };
}

// Those of Python's strtobool.
const yesWords = ['yes', 'y', 'true', 't', 'on', '1'];
const noWords = ['no', 'n', 'false', 'f', 'off', '0'];

/** Yes or no, and their synonyms. */
export const yesNo: Kind<boolean> = {
  expected: 'yes or no',
  parse: (text) => {
    const word = text.toLowerCase();
    if (yesWords.includes(word)) return true;
    return noWords.includes(word) ? false : undefined;
  },
};

const text: Kind<string> = {
  expected: 'one line of text',
  parse: (value) => (controlCharacters.test(value.replaceAll('\t', ' ')) ? undefined : value),
};

/** A value that goes into dnsmasq's files, which have no quoting, or into a file name. */
const word: Kind<string> = {
  expected: 'a name of letters, digits, ".", "_" and "-"',
  parse: (value) => (/^[A-Za-z0-9_][A-Za-z0-9._-]*$/.test(value) ? value : undefined),
};

const path: Kind<string> = {
  expected: 'a path',
  parse: (value) => (value === '' || controlCharacters.test(value) ? undefined : value),
};

/** A path that goes into dnsmasq's files, which have no quoting and separate values by commas. */
const dnsmasqPath: Kind<string> = {
  expected: 'a path without spaces, commas, quotes, "#" and "\\"',
  parse: (value) =>
    /^[^\s,"#\\]+$/.test(value) && !controlCharacters.test(value) ? value : undefined,
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

/** A list of at least one item, each of which must parse. */
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
  'an IP address, or several separated by commas',
);

const ranges: Kind<readonly [Ipv4Range, ...Ipv4Range[]]> = list(
  { expected: 'a range', parse: parseIpv4Range },
  'IPv4 addresses, ranges (10.122.0.2-10.122.0.99) and networks (10.122.1.0/24), separated by commas',
);

const logLevels = {
  debug: 'debug',
  info: 'info',
  warning: 'warn',
  warn: 'warn',
  error: 'error',
  critical: 'fatal',
  fatal: 'fatal',
} as const;
/** A level, as pino names it. */
export type LogLevel = (typeof logLevels)[keyof typeof logLevels];

/** Python has the word "notset", too, which does not mean the same for the base as for what is below it. */
function logLevel(notset: LogLevel): Kind<LogLevel> {
  const words = new Map<string, LogLevel>([...Object.entries(logLevels), ['notset', notset]]);
  return {
    expected: `one of ${Object.keys(logLevels).join(', ')}`,
    parse: (value) => words.get(value.toLowerCase()),
  };
}

/** As Python's ip_network takes it: a number, a netmask or a hostmask. */
const prefixLength: Kind<number> = {
  expected: 'a whole number from 1 to 30, or a netmask such as 255.255.0.0',
  parse: (value) => {
    const mask = parseIpv4(value);
    const length = mask === undefined ? value : String(prefixOfMask(mask));
    return integer(1, 30).parse(length);
  },
};

const suffixes: Kind<readonly string[]> = {
  expected: 'suffixes separated by colons, without "/"',
  parse: (value) =>
    value.includes('/') || controlCharacters.test(value) ? undefined : value.split(':'),
};

/** The value, or false for "no" and its synonyms and, as in Python, for an empty text. */
function orNo(kind: Kind<string>): Kind<string | false> {
  return {
    expected: `${kind.expected}, or "no"`,
    parse: (value) =>
      value === '' || noWords.includes(value.toLowerCase()) ? false : kind.parse(value),
  };
}

const hostNamePrefix: Kind<string> = {
  expected: 'letters, digits, "-" and "_", the first of them a letter or digit',
  parse: (value) => (/^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/.test(value) ? value : undefined),
};

/** With a label in front, the name is not too long for DNS: 253 characters (RFC 1035 2.3.4). */
const maxDomainLength = 253 - '.'.length - 63;

/** As dnsmasq takes it: with "_", but not in front of a label, and with a dot at its end, which means nothing. */
const dnsDomain: Kind<string> = {
  expected: 'a DNS domain name',
  parse: (value) => {
    const name = value.replace(/\.$/, '');
    const isValid =
      name.length <= maxDomainLength &&
      /^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9_])?)*$/i.test(name);
    return isValid ? name : undefined;
  },
};

/** A name of an instance in DNS: its own, with the prefix, or with prefix and domain. */
export type NameForm = 'base' | 'prefix' | 'domain';
function nameForm(text: string): NameForm | undefined {
  const word = text.toLowerCase();
  // As in Python, which looks only at how the first two begin: "basename" is "base".
  if (word.startsWith('base')) return 'base';
  if (word.startsWith('prefix')) return 'prefix';
  return word === 'domain' || word === 'fqdn' ? 'domain' : undefined;
}
const entryOrder = list<NameForm>(
  { expected: '', parse: nameForm },
  'base, prefix and domain (or fqdn), separated by commas',
);

/** Names in lower case and addresses, as requests are compared with them. */
const hosts: Kind<readonly [string, ...string[]]> = list(
  {
    expected: 'a host',
    parse: (value) => parseIp(value) ?? dnsDomain.parse(value)?.toLowerCase(),
  },
  'a host name or an IP address, or several separated by commas',
);

/** An EC2 API version, or "latest". As in Python, with or without a slash in front. */
const version: Kind<string> = {
  expected: 'a version',
  parse: (value) => /^\/?(\d{4}-\d{2}-\d{2}|\d+\.\d+|latest)$/.exec(value)?.[1],
};

const paths: Kind<readonly string[]> = {
  expected: 'paths separated by colons',
  parse: (value) =>
    controlCharacters.test(value) ? undefined : value.split(':').filter((item) => item !== ''),
};

/** What a bundle has of package.json, which is not beside it (tools/bundle.ts). */
declare const bundledPackage: { readonly version: string; readonly releaseDate: string };
const ownPackage =
  typeof bundledPackage === 'undefined'
    ? JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'))
    : bundledPackage;
/** The version of mdserver. */
export const ownVersion: string = ownPackage.version;
/** The date of its release (YYYY-MM-DD). */
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

/** The functions that templates can use. */
export const templateFunctions = ['yaml', 'json', 'sh', 'int', 'repr'] as const;

/** Every option: how it is parsed, and its documentation. */
export const options = {
  mdserver: {
    listen_address: option(
      addresses,
      '169.254.169.254',
      'Address to serve metadata on, or several separated by commas.',
      restart,
    ),
    port: option(integer(1, 65535), '80', 'TCP port to serve metadata on.', restart),
    logfile: option(path, '/var/log/mdserver/mdserver.log', 'Log file.', restart),
    debug: option(yesNo, 'no', 'Log everything, regardless of [loglevels].'),
    debug_userdata: option(
      yesNo,
      'no',
      'Keep a copy of all rendered user-data in the folder debug-userdata next to the database.',
    ),
    userdata_dir: option(path, '/etc/mdserver/userdata', 'Folder of user-data templates.'),
    userdata_suffixes: option(
      suffixes,
      ':.yaml',
      'Suffixes to try for each file name in userdata_dir, separated by colons. An empty one means no suffix.',
    ),
    default_template: optional(path, 'Template for instances that do not have their own.', {
      // As configurations of the Python md_server have it.
      unset: 'None',
    }),
    builtin_template: option(
      yesNo,
      'yes',
      'Give instances for which there is no template the built-in one, which is cloud-config. With no, they have no user-data, as images with Ignition or NixOS need it.',
    ),
    password: optional(text, 'Password that templates can use as {{mdserver_password}}.', {
      secret: true,
    }),
    hostname_prefix: option(text, 'vm', 'Not used; accepted for old configurations.'),
    vendor_data: optional(
      path,
      'Template for the vendor-data of NoCloud and OpenStack guests, which they get in addition to their user-data.',
    ),
    network_config: option(
      yesNo,
      'no',
      'Give NoCloud guests a network configuration: DHCP on the interface that has their MAC address.',
    ),
    imds_tokens: option(
      oneOf('optional', 'required'),
      'optional',
      'Whether a guest must send a session token (IMDSv2) with its requests. imds_tokens in the metadata of a domain overrides this for its instance. NoCloud and OpenStack clients do not send tokens.',
    ),
    instance_id: option(
      oneOf('address', 'uuid'),
      'address',
      'Whether instance-id is made from the IPv4 address or, as in EC2, from the uuid of the domain: i- and its 32 digits, or the first 17 for instances of releases that took as many. If the instance-id of a guest changes, cloud-init treats it as a new machine.',
    ),
    control_socket: optional(
      path,
      'Unix socket that mdserverctl and the libvirt hook connect to.',
      {
        restart: true,
        defaultInWords: 'control.sock in dnsmasq.run_dir',
      },
    ),
    upload_over_tcp: option(
      yesNo,
      'yes',
      'Accept uploads over TCP from this host. Uploads on the control socket are always accepted.',
    ),
    upload_from: option(
      oneOf('root', 'host'),
      'root',
      'Who on this host may upload over TCP: root and the user that mdserver runs as (root), or every user of the host (host).',
    ),
    host_names: optional(
      hosts,
      'Further names or addresses that requests may be for, separated by commas. Requests for any other host are refused, unless it is an address of mdserver, 169.254.169.254, localhost or instance-data.',
    ),
    metrics: option(yesNo, 'no', 'Also serve /metrics and /health to this host over TCP.'),
    check_mac: option(
      yesNo,
      'no',
      "Refuse requests from an instance's address unless the kernel's neighbour table has a complete entry for it on the bridge (dnsmasq.interface), with the instance's MAC address. Needs ip of iproute2 5.0 or newer.",
    ),
    db_file: option(path, '/var/lib/mdserver/db_file.json', 'Database of the instances.', restart),
  },
  loglevels: {
    base: option(logLevel('warn'), 'info', 'Lowest level that is logged at all.'),
    stream: option(logLevel('debug'), 'info', 'Lowest level that is logged to standard output.'),
    file: option(logLevel('debug'), 'debug', 'Lowest level that is logged to the log file.'),
  },
  dnsmasq: {
    user: option(word, 'mdserver', 'User that dnsmasq runs as.', restart),
    base_dir: option(
      dnsmasqPath,
      '/var/lib/mdserver/dnsmasq',
      'Folder for the configuration of dnsmasq, which mdserver writes.',
      restart,
    ),
    run_dir: option(
      dnsmasqPath,
      '/var/run/mdserver',
      "Folder of dnsmasq's pid file and, by default, of the control socket.",
      restart,
    ),
    net_name: option(
      word,
      'mds',
      'libvirt network of the instances. mdserver serves the first interface that a domain has on it.',
      restart,
    ),
    interface: option(word, 'br-mds', 'Bridge of the libvirt network.', restart),
    net_address: option(
      ipv4,
      '10.122.0.0',
      'Network that the IPv4 addresses of instances are taken from.',
      restart,
    ),
    net_prefix: option(
      prefixLength,
      '16',
      'Prefix length of net_address, or its netmask.',
      restart,
    ),
    gateway: option(
      ipv4,
      '10.122.0.1',
      'Address of the host on the bridge. If net_address and net_prefix are a part of the network of the bridge, it may be outside of them.',
      restart,
    ),
    reserved: optional(
      ranges,
      'Addresses of the network that no instance gets, unless its domain chooses one (ipv4 in its metadata) or it has one already: addresses, ranges such as 10.122.0.2-10.122.0.99 and networks such as 10.122.1.0/24, separated by commas.',
      restart,
    ),
    default_route: option(
      yesNo,
      'yes',
      'Tell the guests that their default route is through the gateway (DHCP options 3, 121 and 249). Without it, they still get the route to the metadata address. default_route in the metadata of a domain overrides this for its instance.',
    ),
    net_address6: optional(
      ipv6,
      'Network that the IPv6 addresses of instances are taken from. If it is not set, instances have none.',
      restart,
    ),
    net_prefix6: option(integer(64, 120), '64', 'Prefix length of net_address6.', restart),
    listen_address: optional(
      addresses,
      'Address that dnsmasq listens on, or several separated by commas. If it is not set, dnsmasq listens on all addresses of the interface.',
      restart,
    ),
    use_dns: option(
      yesNo,
      'no',
      'Tell the guests to use this dnsmasq as their DNS server.',
      restart,
    ),
    use_etc_hosts: option(
      yesNo,
      'no',
      "Also serve the names in the host's /etc/hosts to the guests.",
      restart,
    ),
    private_domains: optional(
      list(dnsDomain, 'DNS domain names separated by commas'),
      'Domains outside dnsmasq.domain whose names may have private addresses, such as a zone of your own site or a DNS block list. For names in other domains, dnsmasq drops such answers of the DNS servers that it asks, because of DNS rebinding.',
      restart,
    ),
    lease_len: option(
      integer(1, 4294967294),
      '86400',
      'Duration of a DHCP lease, in seconds. For as long, the address of a removed instance goes to another one only if no other address is free.',
      restart,
    ),
    prefix: option(
      orNo(hostNamePrefix),
      'no',
      'Prefix for names in DNS; see entry_order.',
      restart,
    ),
    domain: option(orNo(dnsDomain), 'no', 'DNS domain of the instances.', restart),
    entry_order: option(
      entryOrder,
      'base',
      'Names of an instance in DNS, in this order: base (the name of its libvirt domain), prefix (with the prefix), domain (with prefix and domain). Forms whose prefix or domain is not set are left out. A reverse lookup of its address returns the first name, with dnsmasq.domain appended if it is set.',
      restart,
    ),
  },
  service: {
    name: option(text, 'mdserver', 'Answer to /service/name, such as the name of your site.'),
    type: option(text, 'mdserver', 'Answer to /service/type.'),
    location: option(
      text,
      hostname().split('.')[0] ?? 'localhost',
      'Location of this host: the answer to /service/location.',
      { defaultInWords: 'the short name of the host' },
    ),
    version: option(text, ownVersion, 'Answer to /service/version.', {
      defaultInWords: 'the version of mdserver',
    }),
    release_date: option(text, releaseDate, 'Date in the answer to /service/version.', {
      defaultInWords: 'the date of the release',
    }),
    hostname: option(text, hostname(), 'Not used; accepted for old configurations.', {
      defaultInWords: 'the name of the host',
    }),
    ec2_versions: option(
      list(version, 'EC2 versions separated by commas, such as "2009-04-04, latest"'),
      [...publishedVersions, 'latest'].join(', '),
      'EC2 metadata versions to serve.',
    ),
  },
  'metadata-defaults': {
    'ami-id': option(
      text,
      'ami-00000000000000000',
      'ID of the image. mdserver does not know it, so this is the same for all instances.',
    ),
    'ami-launch-index': option(
      text,
      '0',
      'Position among the instances that were launched together.',
    ),
    'ami-manifest-path': option(
      text,
      '(unknown)',
      'Path of the image manifest. EC2 answers "(unknown)" for an image without one.',
    ),
    'availability-zone': optional(text, 'Availability zone.', {
      defaultInWords: 'the value of service.location',
    }),
    'instance-action': option(
      text,
      'none',
      'Pending action: in EC2 none, shutdown or bundle-pending.',
    ),
    'instance-life-cycle': option(
      text,
      'on-demand',
      'Purchasing option, such as on-demand or spot.',
    ),
    'instance-type': optional(text, 'Instance type.', {
      defaultInWords: "made from the domain's vcpus and memory, such as kvm.2cpu-2048mib",
    }),
    'owner-id': option(text, '000000000000', 'Account ID, which has twelve digits in EC2.'),
    profile: option(text, 'default-hvm', 'Virtualisation type.'),
    'public-hostname': optional(text, 'Name that the outside knows the instance by.'),
    'public-ipv4': optional(
      text,
      'Address that the outside reaches the instance at, such as that of the host if it forwards ports.',
    ),
    region: optional(text, 'Region.', { defaultInWords: 'the value of service.location' }),
    'security-groups': option(text, 'default', 'Names of the security groups.'),
  },
  _include_: {
    directories: optional(
      paths,
      'Folders whose *.conf files are read after this file, separated by colons.',
    ),
    files: optional(paths, 'Files that are read after those folders, separated by colons.'),
  },
} as const;

type Options = typeof options;
type ValueOf<O> = O extends Option<infer T> ? T : never;

/** The parsed value of every option of the table. */
export type OptionValues = {
  readonly [S in keyof Options]: { readonly [K in keyof Options[S]]: ValueOf<Options[S][K]> };
};

/** What templates get for a name of the configuration: text, or what `_config_items_` takes from an option that no file sets. */
export type TemplateValue = string | number | false | null;

/** The defaults of the Python server that are neither text nor nothing. Its templates can tell: `% if prefix:`. */
export const pythonDefaults: ReadonlyMap<string, number | false> = new Map<string, number | false>([
  ['mdserver.port', 80],
  ['dnsmasq.lease_len', 86400],
  ['dnsmasq.prefix', false],
  ['dnsmasq.domain', false],
  ['dnsmasq.use_dns', false],
]);

/** The name of the public key that has index 0 in the metadata. Templates have a value for it in any case. */
export const defaultKey = 'default';

/** A public key in `[public-keys]`. */
export interface PublicKey {
  readonly name: string;
  readonly key: string;
}

/** A whole configuration, parsed and checked. */
export interface Config extends OptionValues {
  /** In the order of their index in the metadata: `default`, if there is one, comes first. */
  readonly publicKeys: readonly PublicKey[];
  /** `[dhcp-options]`, in the order of the file: what all guests get that ask for it. */
  readonly dhcpOptions: readonly DhcpOption[];
  /** `[template-data]`, with the options that `_config_items_` names under their keys. */
  readonly templateData: ReadonlyMap<string, TemplateValue>;
  /** The options that `_config_items_` names: name in templates to `section.key`. */
  readonly configItems: ReadonlyMap<string, string>;
  /** The values by `section.key`, as written in a file or as the default. Options without a value are left out. */
  readonly texts: ReadonlyMap<string, string>;
}
