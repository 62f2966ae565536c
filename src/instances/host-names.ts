import { isIP } from 'node:net';
import { hostname } from 'node:os';
import type { Config, NameForm } from '../config/options.js';
import { deceptiveCharacters } from '../text.js';
import type { Instance } from './instance.js';
import type { Instances } from './instances.js';

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
  const isValid = !below.startsWith('.') && below.length <= maxNameLength && isIP(below) === 0;
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

/** The names of this host, on which guests reach mdserver. */
function ownNames({ mdserver }: NameConfig): string[] {
  const full = hostname();
  return [full, full.replace(/\..*/, ''), ...(mdserver.host_names ?? [])];
}

/** The host name of each instance, by the name of its domain. */
function assignHostNames(instances: Instances, config: NameConfig): Map<string, string> {
  const options = config.dnsmasq;
  const names = new Map<string, string>();
  const taken = new Set(ownNames(config).map((name) => nameKey(name, options.domain)));
  const isFree = (key: string) => !taken.has(key) && !reservedNames.has(key);
  for (const { name, uuid } of instances.byName.values()) {
    const wanted = toHostName(name, options.domain);
    const tail = uuid?.slice(0, 8) ?? 'x';
    let hostName = wanted;
    let keys = nameKeys(options, hostName);
    for (let attempt = 1; ![...keys].every(isFree); attempt++) {
      hostName = withSuffix(wanted, attempt === 1 ? `-${tail}` : `-${tail}-${attempt}`);
      keys = nameKeys(options, hostName);
    }
    for (const key of keys) taken.add(key);
    names.set(name, hostName);
  }
  return names;
}

interface Assigned {
  readonly config: NameConfig;
  readonly names: ReadonlyMap<string, string>;
}

const cache = new WeakMap<Instances, Assigned>();

/**
 * The host name of each instance in DHCP and DNS, by the name of its domain. No two instances share
 * a name in DNS, in any of its forms, and none has a reserved name or one of the host. The instance
 * that was seen first keeps its name; a later one that would have the same gets a part of its uuid.
 */
export function hostNames(instances: Instances, config: NameConfig): ReadonlyMap<string, string> {
  const cached = cache.get(instances);
  if (cached?.config === config) return cached.names;
  const names = assignHostNames(instances, config);
  cache.set(instances, { config, names });
  return names;
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
