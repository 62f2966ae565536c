import { isIP } from 'node:net';
import type { Config, NameForm } from '../config/options.js';
import type { Instance } from './instance.js';
import type { Instances } from './instances.js';

const longestLabel = 63;
const longestName = 190;

/** A label of letters, digits and inner hyphens (RFC 1123 2.1), or '' where nothing is left. */
function toLabel(text: string): string {
  return text
    .replace(/[^A-Za-z0-9-]+/g, '-')
    .replace(/^-+/, '')
    .slice(0, longestLabel)
    .replace(/-+$/, '');
}

/** The host name that a domain's name becomes: itself where it is a valid one. */
export function toHostName(name: string): string {
  const labels = name.split('.').map(toLabel);
  const joined = labels
    .filter((label) => label !== '')
    .join('.')
    .slice(0, longestName)
    .replace(/[.-]+$/, '');
  if (joined === '') return 'instance';
  // In a hosts file it would be another address.
  return isIP(joined) === 0 ? joined : joined.replaceAll('.', '-');
}

const known = new WeakMap<Instances, ReadonlyMap<string, string>>();

/**
 * The host name that DHCP and DNS give each instance, by the name of its domain. Host names do
 * not depend on case (RFC 4343), and no two instances share one: a valid name is kept, one that
 * had to be changed and is taken gets a part of its uuid.
 */
export function hostNames(instances: Instances): ReadonlyMap<string, string> {
  const before = known.get(instances);
  if (before !== undefined) return before;
  const names = new Map<string, string>();
  const taken = new Set<string>();
  const give = ({ name, uuid }: Instance, wanted: string) => {
    const tail = uuid?.slice(0, 8) ?? 'x';
    let free = wanted;
    for (let attempt = 1; taken.has(free.toLowerCase()); attempt++) {
      const suffix = attempt === 1 ? `-${tail}` : `-${tail}-${attempt}`;
      const [first = '', ...rest] = wanted.split('.');
      free = [first.slice(0, longestLabel - suffix.length) + suffix, ...rest].join('.');
    }
    taken.add(free.toLowerCase());
    names.set(name, free);
  };
  const changed: (readonly [Instance, string])[] = [];
  for (const instance of instances.byName.values()) {
    const wanted = toHostName(instance.name);
    if (wanted === instance.name) give(instance, wanted);
    else changed.push([instance, wanted]);
  }
  for (const [instance, wanted] of changed) give(instance, wanted);
  known.set(instances, names);
  return names;
}

/** The names of an instance in DNS, in order and each once; the first is what its address gives. */
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
