import { parseIpv4 } from '../network.js';
import { quoted } from '../text.js';

/** An option of DHCP that guests get when they ask for it, checked. */
export interface DhcpOption {
  readonly code: number;
  /** As dnsmasq's `--dhcp-option` takes it, without a tag: `option:ntp-server,10.122.0.1`. */
  readonly line: string;
}

/** An option cannot be given to guests; the message says why, in one line, after the option's name. */
export class DhcpOptionError extends Error {}

/** How the values of some options are written. `format` gives them as dnsmasq reads them; undefined for any other text. */
interface Kind {
  readonly expected: string;
  readonly format: (text: string) => string | undefined;
}

/** The bytes that an option can have (RFC 2132 2). */
const maxBytes = 255;

/** All of them in one line, which dnsmasq reads up to 1,024 characters of. */
const maxAddresses = 32;

function items(text: string): string[] {
  return text.split(',').map((item) => item.trim());
}

const addresses: Kind = {
  expected: `IPv4 addresses separated by commas, ${maxAddresses} at most`,
  format: (text) => {
    const all = items(text);
    return all.length <= maxAddresses && all.every(parseIpv4) ? all.join(',') : undefined;
  },
};

function number(from: number, to: number): Kind {
  return {
    expected: `a whole number from ${from} to ${to}`,
    format: (text) => {
      const value = /^-?\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
      return value >= from && value <= to ? String(value) : undefined;
    },
  };
}

const flag = number(0, 1);
const byte = number(1, 255);
const uint16 = number(1, 65_535);
const uint32 = number(0, 4_294_967_295);

/** What dnsmasq takes as it stands: quotes, backslashes and "#" have a meaning in its files. */
const text: Kind = {
  expected: 'letters, digits and .,:/_+=@<>-, with a letter or a digit at its ends',
  format: (value) =>
    value.length <= maxBytes && /^[\w/]([\w.,:/+=@<>-]*[\w/>])?$/.test(value) ? value : undefined,
};

const label = '[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?';
const dnsName = new RegExp(`^${label}(\\.${label})*$`, 'i');

const domain: Kind = {
  expected: 'a DNS domain name',
  format: (value) =>
    value.length < maxBytes && dnsName.test(value) ? value.toLowerCase() : undefined,
};

const domains: Kind = {
  expected: 'DNS domain names separated by commas',
  // In DNS, a name has two bytes more than characters.
  format: (value) => {
    const all = items(value);
    const bytes = all.reduce((sum, name) => sum + name.length + 2, 0);
    return bytes <= maxBytes && all.every((name) => dnsName.test(name))
      ? all.join(',').toLowerCase()
      : undefined;
  },
};

/** For options that only their number names. A text goes to dnsmasq as its bytes: nothing in it can mean anything. */
const anything: Kind = {
  expected:
    'IPv4 addresses, a whole number, bytes (01:ff), or a text in ASCII of 255 characters at most',
  format: (value) => {
    const isBytes = /^[0-9a-f]{2}(:[0-9a-f]{2})+$/i.test(value) && value.length <= maxBytes * 3;
    if (isBytes) return value.toLowerCase();
    if (value.length > maxBytes || !/^[ -~]+$/.test(value)) return undefined;
    const known = addresses.format(value) ?? uint32.format(value);
    // One byte alone is no list of bytes to dnsmasq, but a number.
    const bytes = Buffer.from(value);
    return (
      known ??
      (bytes.length === 1 ? String(bytes[0]) : bytes.toString('hex', 0).replace(/..(?=.)/g, '$&:'))
    );
  },
};

/** The options that have a name in dnsmasq (`dnsmasq --help dhcp`), and that guests may get another value of. */
const named: ReadonlyMap<string, readonly [code: number, kind: Kind]> = new Map([
  ['time-offset', [2, number(-2_147_483_647, 2_147_483_647)]],
  ['dns-server', [6, addresses]],
  ['log-server', [7, addresses]],
  ['lpr-server', [9, addresses]],
  ['boot-file-size', [13, uint16]],
  ['domain-name', [15, domain]],
  ['swap-server', [16, addresses]],
  ['root-path', [17, text]],
  ['extension-path', [18, text]],
  ['ip-forward-enable', [19, flag]],
  ['non-local-source-routing', [20, flag]],
  ['policy-filter', [21, addresses]],
  ['max-datagram-reassembly', [22, number(576, 65_535)]],
  ['default-ttl', [23, byte]],
  ['mtu', [26, number(68, 65_535)]],
  ['all-subnets-local', [27, flag]],
  ['router-discovery', [31, flag]],
  ['router-solicitation', [32, addresses]],
  ['trailer-encapsulation', [34, flag]],
  ['arp-timeout', [35, uint32]],
  ['ethernet-encap', [36, flag]],
  ['tcp-ttl', [37, byte]],
  ['tcp-keepalive', [38, uint32]],
  ['nis-domain', [40, text]],
  ['nis-server', [41, addresses]],
  ['ntp-server', [42, addresses]],
  ['netbios-ns', [44, addresses]],
  ['netbios-dd', [45, addresses]],
  ['netbios-nodetype', [46, byte]],
  ['x-windows-fs', [48, addresses]],
  ['x-windows-dm', [49, addresses]],
  ['nis+-domain', [64, text]],
  ['nis+-server', [65, addresses]],
  ['tftp-server', [66, text]],
  ['bootfile-name', [67, text]],
  ['mobile-ip-home', [68, addresses]],
  ['smtp-server', [69, addresses]],
  ['pop3-server', [70, addresses]],
  ['nntp-server', [71, addresses]],
  ['irc-server', [74, addresses]],
  ['posix-timezone', [100, text]],
  ['tzdb-timezone', [101, text]],
  ['ipv6-only', [108, uint32]],
  ['domain-search', [119, domains]],
  ['tftp-server-address', [150, addresses]],
]);

const namesByCode = new Map(Array.from(named, ([name, [code]]) => [code, name]));

/** The routes are mdserver's: without them, a guest does not reach its metadata. */
const routes: ReadonlyMap<number, string> = new Map([
  [3, 'router'],
  [33, 'static-route'],
  [121, 'classless-static-route'],
  [249, 'the routes of old versions of Windows'],
]);

/** What dnsmasq and mdserver set themselves, or what only a client sends. */
const own: ReadonlyMap<number, string> = new Map([
  [1, 'netmask'],
  [12, 'hostname'],
  [28, 'broadcast'],
  [43, 'vendor-encap'],
  [50, 'requested-address'],
  [51, 'lease-time'],
  [52, 'option-overload'],
  [53, 'message-type'],
  [54, 'server-identifier'],
  [55, 'parameter-request'],
  [56, 'message'],
  [57, 'max-message-size'],
  [58, 't1'],
  [59, 't2'],
  [60, 'vendor-class'],
  [61, 'client-id'],
  [77, 'user-class'],
  [80, 'rapid-commit'],
  [81, 'fqdn'],
  [82, 'agent-id'],
  [93, 'client-arch'],
  [94, 'client-interface-id'],
  [97, 'client-machine-id'],
  [118, 'subnet-select'],
]);

function codeOf(name: string): number | undefined {
  if (/^[1-9]\d{0,2}$/.test(name)) return Number(name);
  const others = [...routes, ...own].find(([, other]) => other === name);
  return named.get(name)?.[0] ?? others?.[0];
}

/**
 * An option of DHCP by its name in dnsmasq or its number, in any case and with underscores or hyphens,
 * and its value. Throws DhcpOptionError.
 */
export function dhcpOption(name: string, value: string): DhcpOption {
  const code = codeOf(name.toLowerCase().replaceAll('_', '-'));
  if (code === undefined || code > 254) {
    throw new DhcpOptionError(
      'no option of DHCP: expected a number from 1 to 254, or a name as "dnsmasq --help dhcp" lists them',
    );
  }
  if (routes.has(code)) {
    throw new DhcpOptionError(
      'mdserver sets the routes of guests: to leave the default route out, use default_route',
    );
  }
  if (own.has(code)) {
    throw new DhcpOptionError('mdserver, dnsmasq or the guest sets this one: it cannot be changed');
  }
  const known = namesByCode.get(code);
  const kind = named.get(known ?? '')?.[1] ?? anything;
  const formatted = kind.format(value);
  if (formatted === undefined) {
    throw new DhcpOptionError(`${quoted(value)}: expected ${kind.expected}`);
  }
  return { code, line: `${known === undefined ? code : `option:${known}`},${formatted}` };
}
