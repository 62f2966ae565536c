import { isIPv4 } from 'node:net';
import { hostname } from 'node:os';
import type { Config, NameForm } from '../config/options.js';
import { deceptiveCharacters } from '../text.js';
import type { Instance } from './instance.js';
import type { WritableMap } from './layered-map.js';

/** The options that names in DNS depend on. */
export type NameOptions = Pick<Config['dnsmasq'], 'prefix' | 'domain' | 'entry_order'>;

/** What the names of all instances depend on, the names of mdserver itself included. */
export interface NameConfig {
  readonly mdserver: Pick<Config['mdserver'], 'host_names'>;
  readonly dnsmasq: NameOptions;
}

/** RFC 1035 2.3.4, without the dot at the end of a name. */
const maxLabelLength = 63;
const maxNameLength = 253;

/**
 * Names that are looked up without anybody asking for them, and whose answer is trusted. A guest of
 * that name would get the requests of all others.
 */
const reservedNames = new Set([
  // Top-level domains that have no addresses: RFC 6761 6.3 and 6.4, RFC 6762 3, RFC 7686. "test" and
  // "example" (RFC 6761 6.2 and 6.5) are fine as names of a guest: nothing trusts them.
  ...['localhost', 'invalid', 'local', 'onion'],
  // The hosts files of Linux, BSD and macOS.
  ...['localdomain', 'localhost4', 'localhost6', 'loopback', 'broadcasthost'],
  ...['ip6-localhost', 'ip6-loopback', 'ip6-localnet', 'ip6-mcastprefix'],
  ...['ip6-allnodes', 'ip6-allrouters', 'ip6-allhosts'],
  // Proxy discovery (draft-ietf-wrec-wpad-01) and IPv6 tunnels (RFC 5214 8.3.2). Windows' DNS server
  // refuses both in its "global query block list".
  ...['wpad', 'isatap'],
  // The metadata server of EC2 and of Google Compute Engine.
  ...['instance-data', 'metadata'],
]);

/** The text as a label that dnsmasq takes: letters, digits, inner hyphens, "_" not in front; '' if nothing is left. */
function toLabel(text: string): string {
  return text
    .replace(/[^A-Za-z0-9_-]+/g, '-')
    .replace(/^[_-]+/, '')
    .slice(0, maxLabelLength)
    .replace(/-+$/, '');
}

/** The name without the domain that it is below of; undefined if it is not below it. Ignores case (RFC 4343). */
function relativeName(name: string, domain: string | false): string | undefined {
  const suffix = `.${domain}`;
  if (domain === false || name.length <= suffix.length) return undefined;
  const start = name.length - suffix.length;
  return name.slice(start).toLowerCase() === suffix.toLowerCase()
    ? name.slice(0, start)
    : undefined;
}

/** Whether a name can be that of a host: labels as dnsmasq takes them, and no address. */
export function isHostName(name: string): boolean {
  const labels = name.split('.');
  const areLabels = labels.every((label) => label !== '' && toLabel(label) === label);
  return areLabels && name.length <= maxNameLength && !isIPv4(name);
}

/**
 * Makes a host name from a domain's name. A valid one is unchanged: a label, or a name below
 * `domain` (`dnsmasq.domain`). Of any other name with dots a label is made, because a guest called
 * github.com must not get what is meant for that host.
 */
export function toHostName(name: string, domain: string | false): string {
  const relative = relativeName(name, domain);
  const label = toLabel(name) || 'instance';
  if (relative === undefined) return label;
  const labels = relative.split('.').map(toLabel);
  const below = labels.filter((label) => label !== '').join('.') + name.slice(relative.length);
  // In a hosts file, a name such as 10.0.0.1 would be an address.
  const isValid = !below.startsWith('.') && below.length <= maxNameLength && !isIPv4(below);
  return isValid ? below : label;
}

/**
 * The name that guests and templates get: the domain's own, as in Python. Of a name with deceptive
 * characters, which only records from before they were refused have, it is a host name made from it.
 */
export function servedName({ name }: Pick<Instance, 'name'>): string {
  return deceptiveCharacters.test(name) ? toHostName(name, false) : name;
}

/**
 * What tells the names of one instance from those of all others. With dnsmasq's `expand-hosts`, and
 * by DHCP, an instance has each name with and without the domain, so the domain does not count.
 */
function nameKeys(options: NameOptions, hostName: string): Set<string> {
  const names = [hostName, ...dnsNames(options, hostName)];
  return new Set(names.map((name) => nameKey(name, options.domain)));
}

function nameKey(name: string, domain: string | false): string {
  return (relativeName(name, domain) ?? name).toLowerCase();
}

/** The host name with a suffix at its first label. */
function withSuffix(hostName: string, suffix: string): string {
  const [first = '', ...rest] = hostName.split('.');
  return [first.slice(0, maxLabelLength - suffix.length) + suffix, ...rest].join('.');
}

/** What the names of instances depend on, prepared once. */
export interface Naming {
  readonly options: NameOptions;
  /** The keys of the names of this host, on which guests reach mdserver. */
  readonly own: ReadonlySet<string>;
}

/** Prepares the naming of instances for a configuration. */
export function namingOf({ mdserver, dnsmasq: options }: NameConfig): Naming {
  const full = hostname();
  const own = [full, full.replace(/\..*/, ''), ...(mdserver.host_names ?? [])];
  return { options, own: new Set(own.map((name) => nameKey(name, options.domain))) };
}

/** Which instance has which names. Instances are named by the names of their domains. */
export interface NameTable {
  /** The host name of each instance in DHCP and DNS. */
  readonly hostNames: WritableMap<string, string>;
  /** The instance that has each key of a name. */
  readonly nameHolders: WritableMap<string, string>;
  /** The instances that do not have the host name that they would have alone. */
  readonly displaced: WritableMap<string, true>;
}

/** An instance as far as its names depend on it. */
type Named = Pick<Instance, 'name' | 'uuid'>;

/** The first of the host names that an instance may have that `isFree`, with its keys. */
function firstFreeName(
  { options, own }: Naming,
  { name, uuid }: Named,
  isFree: (key: string) => boolean,
): { hostName: string; keys: ReadonlySet<string>; isDisplaced: boolean } {
  const wanted = toHostName(name, options.domain);
  const tail = uuid?.slice(0, 8) ?? 'x';
  const isAllowed = (key: string) => !own.has(key) && !reservedNames.has(key) && isFree(key);
  let hostName = wanted;
  let keys = nameKeys(options, hostName);
  for (let attempt = 1; ![...keys].every(isAllowed); attempt++) {
    hostName = withSuffix(wanted, attempt === 1 ? `-${tail}` : `-${tail}-${attempt}`);
    keys = nameKeys(options, hostName);
  }
  return { hostName, keys, isDisplaced: hostName !== wanted };
}

/**
 * Names an instance. No two instances share a name in DNS, in any of its forms, and none has a
 * reserved name or one of the host. The instance that was seen first keeps its name; a later one
 * that would have the same gets a part of its uuid. `isBefore` tells whether another was seen first.
 * Returns the later instances whose names this one took: they have to be named anew.
 */
export function giveHostName(
  table: NameTable,
  naming: Naming,
  instance: Named,
  isBefore: (other: string) => boolean,
): Set<string> {
  const { name } = instance;
  takeHostName(table, naming, name);
  const { hostName, keys, isDisplaced } = firstFreeName(naming, instance, (key) => {
    const holder = table.nameHolders.get(key);
    return holder === undefined || !isBefore(holder);
  });
  const evicted = new Set<string>();
  for (const key of keys) {
    const holder = table.nameHolders.get(key);
    if (holder !== undefined) evicted.add(holder);
    table.nameHolders.set(key, name);
  }
  table.hostNames.set(name, hostName);
  if (isDisplaced) table.displaced.set(name, true);
  else table.displaced.delete(name);
  return evicted;
}

/** Takes its names from an instance, if it has any. */
export function takeHostName(table: NameTable, { options }: Naming, name: string): void {
  const hostName = table.hostNames.get(name);
  if (hostName === undefined) return;
  for (const key of nameKeys(options, hostName)) {
    // Another one may have got it already.
    if (table.nameHolders.get(key) === name) table.nameHolders.delete(key);
  }
  table.hostNames.delete(name);
  table.displaced.delete(name);
}

/** The names of an instance in DNS, without duplicates; a reverse lookup returns the first. */
export function dnsNames({ prefix, domain, entry_order }: NameOptions, hostName: string): string[] {
  const prefixed = prefix === false ? hostName : prefix + hostName;
  const isBelow = relativeName(hostName, domain) !== undefined;
  const forms: Record<NameForm, string | undefined> = {
    base: hostName,
    prefix: prefix === false ? undefined : prefixed,
    domain: domain === false || isBelow ? undefined : `${prefixed}.${domain}`,
  };
  // A prefix can make a label too long.
  const isShort = (name: string) =>
    name.length <= maxNameLength && name.replace(/\..*/, '').length <= maxLabelLength;
  const names = entry_order.map((form) => forms[form]);
  return [...new Set(names.filter((name) => name !== undefined).filter(isShort))];
}

/**
 * The name that dnsmasq can give an instance by DHCP; undefined if there is none. dnsmasq would cut
 * a name with subdomains down to its first label. In a dhcp-host line, it reads digits, with or
 * without a unit, as a lease time, and `infinite` and `ignore` are keywords.
 */
export function dhcpName({ domain }: NameOptions, hostName: string): string | undefined {
  const name = relativeName(hostName, domain) ?? hostName;
  return /\.|^(\d+[smhdw]?|infinite|ignore)$/i.test(name) ? undefined : name;
}
