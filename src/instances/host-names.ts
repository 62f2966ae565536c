import { isIP } from 'node:net';
import type { Config, NameForm } from '../config/options.js';
import type { Instance } from './instance.js';
import type { Instances } from './instances.js';

const maxLabelLength = 63;
const maxNameLength = 190;

/** The text as a label of letters, digits and inner hyphens (RFC 1123 2.1); '' if nothing is left. */
function toLabel(text: string): string {
  return text
    .replace(/[^A-Za-z0-9-]+/g, '-')
    .replace(/^-+/, '')
    .slice(0, maxLabelLength)
    .replace(/-+$/, '');
}

/** Makes a host name from a domain's name. A valid one is unchanged. */
export function toHostName(name: string): string {
  const labels = name.split('.').map(toLabel);
  const joined = labels
    .filter((label) => label !== '')
    .join('.')
    .slice(0, maxNameLength)
    .replace(/[.-]+$/, '');
  if (joined === '') return 'instance';
  // In a hosts file, it would be an address.
  return isIP(joined) === 0 ? joined : joined.replaceAll('.', '-');
}

const cache = new WeakMap<Instances, ReadonlyMap<string, string>>();

/**
 * The host name of each instance in DHCP and DNS, by the name of its domain. Host names ignore case
 * (RFC 4343) and are unique. A domain's name that is a valid host name is kept; one that had to be
 * changed gets a part of the uuid if the result is already taken.
 */
export function hostNames(instances: Instances): ReadonlyMap<string, string> {
  const cached = cache.get(instances);
  if (cached !== undefined) return cached;
  const names = new Map<string, string>();
  const taken = new Set<string>();
  const assign = ({ name, uuid }: Instance, wanted: string) => {
    const tail = uuid?.slice(0, 8) ?? 'x';
    let free = wanted;
    for (let attempt = 1; taken.has(free.toLowerCase()); attempt++) {
      const suffix = attempt === 1 ? `-${tail}` : `-${tail}-${attempt}`;
      const [first = '', ...rest] = wanted.split('.');
      free = [first.slice(0, maxLabelLength - suffix.length) + suffix, ...rest].join('.');
    }
    taken.add(free.toLowerCase());
    names.set(name, free);
  };
  const changed: (readonly [Instance, string])[] = [];
  for (const instance of instances.byName.values()) {
    const wanted = toHostName(instance.name);
    if (wanted === instance.name) assign(instance, wanted);
    else changed.push([instance, wanted]);
  }
  for (const [instance, wanted] of changed) assign(instance, wanted);
  cache.set(instances, names);
  return names;
}

/** The names of an instance in DNS, without duplicates; a reverse lookup returns the first. */
export function dnsNames(
  { prefix, domain, entry_order }: Pick<Config['dnsmasq'], 'prefix' | 'domain' | 'entry_order'>,
  hostName: string,
): string[] {
  const prefixed = prefix === false ? hostName : prefix + hostName;
  const forms: Record<NameForm, string | undefined> = {
    base: hostName,
    prefix: prefix === false ? undefined : prefixed,
    domain: domain === false ? undefined : `${prefixed}.${domain}`,
  };
  const names = entry_order.map((form) => forms[form]).filter((name) => name !== undefined);
  return [...new Set(names)];
}
