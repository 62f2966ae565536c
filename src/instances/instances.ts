import {
  type IpAddress,
  type Ipv4,
  type Ipv4Network,
  type Ipv6,
  type Ipv6Network,
  inIpv6Network,
  ipv4ToNumber,
  type Mac,
  numberToIpv4,
  parseIpv4,
  parseIpv6,
} from '../network.js';
import {
  freeIpv4,
  freeIpv6,
  isHostAddress,
  type RestingAddress,
  type RestingAddresses,
} from './addresses.js';
import type { Domain } from './domain.js';
import { giveHostName, type NameTable, type Naming, takeHostName } from './host-names.js';
import type { Instance } from './instance.js';
import { LayeredMap, type WritableMap } from './layered-map.js';
import { type Entry, type Page, type Pages, pageSize } from './pages.js';
import { shortId, type Uuid } from './uuid.js';

/** All instances, indexed. */
export interface Instances {
  /** In the order in which they were first seen. */
  readonly byName: ReadonlyMap<string, Instance>;
  readonly byUuid: ReadonlyMap<Uuid, Instance>;
  readonly byMac: ReadonlyMap<Mac, Instance>;
  readonly byAddress: ReadonlyMap<IpAddress, Instance>;
  /** None of them is in `byAddress`. */
  readonly resting: RestingAddresses;
  /** All IPv4 addresses of `byAddress` and `resting`, as numbers. */
  readonly takenIpv4: ReadonlyMap<number, true>;
  /** The host name of each instance in DHCP and DNS, by the name of its domain. */
  readonly hostNames: ReadonlyMap<string, string>;
  readonly pages: Pages;
}

/** Instances that rules can change. */
export interface Draft extends Instances, NameTable {
  readonly naming: Naming;
  readonly byName: WritableMap<string, Instance>;
  readonly byUuid: WritableMap<Uuid, Instance>;
  readonly byMac: WritableMap<Mac, Instance>;
  readonly byAddress: WritableMap<IpAddress, Instance>;
  readonly resting: WritableMap<IpAddress, RestingAddress>;
  readonly takenIpv4: WritableMap<number, true>;
  readonly hostNames: WritableMap<string, string>;
  readonly pages: WritableMap<number, Page>;
  /** The number of each instance's page. */
  readonly pageNumbers: WritableMap<string, number>;
  /** The number of the newest page. */
  lastPage: number;
}

/** The maps of a draft. */
type DraftMaps = Omit<Draft, 'naming' | 'lastPage'>;

/** Changes on top of a draft, which stays as it is until they are applied. */
export type LayeredDraft = Draft & {
  readonly [Name in keyof DraftMaps]: DraftMaps[Name] extends WritableMap<infer K, infer V>
    ? LayeredMap<K, V & {}>
    : never;
};

/** The addresses that instances can have. */
export interface AddressPlan {
  readonly network: Ipv4Network;
  /** Undefined if instances get no IPv6 address. */
  readonly network6?: Ipv6Network | undefined;
  /** The host's own addresses in the networks. */
  readonly reserved: ReadonlySet<IpAddress>;
  /** How long an address that was given up goes to no other machine while others are free, in seconds. */
  readonly restTime: number;
}

/** Bounds the file that they are stored in. Of more, those that have rested longest are forgotten. */
const maxResting = 4096;

/** The network has no free address. */
export class NoAddressError extends Error {}

/** No instances, to add to. */
export function emptyDraft(naming: Naming): Draft {
  return {
    naming,
    byName: new Map(),
    byUuid: new Map(),
    byMac: new Map(),
    byAddress: new Map(),
    resting: new Map(),
    takenIpv4: new Map(),
    hostNames: new Map(),
    nameHolders: new Map(),
    displaced: new Map(),
    pages: new Map(),
    pageNumbers: new Map(),
    lastPage: 0,
  };
}

/** A draft on top of another one: it costs by its changes, not by the number of instances. */
export function draftOf(base: Draft): LayeredDraft {
  return {
    naming: base.naming,
    byName: new LayeredMap(base.byName),
    byUuid: new LayeredMap(base.byUuid),
    byMac: new LayeredMap(base.byMac),
    byAddress: new LayeredMap(base.byAddress),
    resting: new LayeredMap(base.resting),
    takenIpv4: new LayeredMap(base.takenIpv4),
    hostNames: new LayeredMap(base.hostNames),
    nameHolders: new LayeredMap(base.nameHolders),
    displaced: new LayeredMap(base.displaced),
    pages: new LayeredMap(base.pages),
    pageNumbers: new LayeredMap(base.pageNumbers),
    lastPage: base.lastPage,
  };
}

/** Makes the changes of a draft in the one that it is on top of. */
export function applyDraft(draft: LayeredDraft, base: Draft): void {
  for (const map of Object.values(draft)) {
    if (map instanceof LayeredMap) map.apply();
  }
  base.lastPage = draft.lastPage;
}

/**
 * Adds an instance, or replaces an earlier state of it that has the same name. No other one may have
 * its uuid, MAC or addresses. `now` is in Unix seconds.
 */
export function put(draft: Draft, instance: Instance, now: number): void {
  const { name, uuid, mac } = instance;
  const before = draft.byName.get(name);
  if (before !== undefined) unindex(draft, before, instance);
  draft.byName.set(name, instance);
  if (uuid !== undefined) draft.byUuid.set(uuid, instance);
  if (mac !== undefined) draft.byMac.set(mac, instance);
  for (const address of addressesOf(instance)) {
    draft.byAddress.set(address, instance);
    draft.resting.delete(address);
    markTaken(draft, address);
  }
  if (before === undefined) {
    if ((draft.pages.get(draft.lastPage)?.length ?? 0) >= pageSize) draft.lastPage += 1;
    draft.pageNumbers.set(name, draft.lastPage);
  } else {
    rest(draft, before, now);
  }
  writeEntry(draft, { instance, hostName: draft.hostNames.get(name) ?? '' });
  if (before === undefined || before.uuid !== uuid) nameAnew(draft, [name]);
}

/** Takes an instance out of the indexes in which the next state of it, if any, does not replace it. */
function unindex(draft: Draft, instance: Instance, next?: Instance): void {
  const { uuid, mac } = instance;
  if (uuid !== undefined && uuid !== next?.uuid) draft.byUuid.delete(uuid);
  if (mac !== undefined && mac !== next?.mac) draft.byMac.delete(mac);
  for (const address of addressesOf(instance)) {
    if (address !== next?.ipv4 && address !== next?.ipv6) draft.byAddress.delete(address);
  }
}

/** Removes an instance. `now` is in Unix seconds. */
export function drop(draft: Draft, instance: Instance, now: number): void {
  const later = laterThan(draft, draft.displaced.keys(), placeOf(draft, instance.name));
  unindex(draft, instance);
  rest(draft, instance, now);
  draft.byName.delete(instance.name);
  takeHostName(draft, draft.naming, instance.name);
  removeEntry(draft, instance.name);
  nameAnew(draft, later);
}

function addressesOf({ ipv4, ipv6 }: Instance): IpAddress[] {
  return [ipv4, ipv6].filter((address) => address !== undefined);
}

function markTaken(draft: Draft, address: IpAddress): void {
  const ipv4 = parseIpv4(address);
  if (ipv4 !== undefined) draft.takenIpv4.set(ipv4ToNumber(ipv4), true);
}

/** Writes an instance on its page, in its place or at the end. */
function writeEntry(draft: Draft, entry: Entry): void {
  const number = draft.pageNumbers.get(entry.instance.name) ?? draft.lastPage;
  const page = [...(draft.pages.get(number) ?? [])];
  const place = page.findIndex(({ instance }) => instance.name === entry.instance.name);
  if (place < 0) page.push(entry);
  else page[place] = entry;
  draft.pages.set(number, page);
}

function removeEntry(draft: Draft, name: string): void {
  const number = draft.pageNumbers.get(name) ?? -1;
  const page = (draft.pages.get(number) ?? []).filter(({ instance }) => instance.name !== name);
  if (page.length === 0) draft.pages.delete(number);
  else draft.pages.set(number, page);
  draft.pageNumbers.delete(name);
}

/** The place of an instance in the order of all. */
function placeOf(draft: Draft, name: string): number {
  const number = draft.pageNumbers.get(name) ?? -1;
  const page = draft.pages.get(number) ?? [];
  return number * pageSize + page.findIndex(({ instance }) => instance.name === name);
}

/**
 * Names instances, and all others that this concerns: those whose names these take, and those that
 * could have a name that became free.
 */
function nameAnew(draft: Draft, names: Iterable<string>): void {
  const queued = new Set<string>();
  const queue: { readonly name: string; readonly place: number }[] = [];
  const add = (others: Iterable<string>) => {
    for (const name of others) {
      if (queued.has(name)) continue;
      queued.add(name);
      queue.push({ name, place: placeOf(draft, name) });
    }
    queue.sort((a, b) => b.place - a.place);
  };
  add(names);
  // In the order of the instances, and each once: a name depends only on those before it.
  for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
    const { name, place } = next;
    const instance = draft.byName.get(name);
    if (instance === undefined) continue;
    const before = draft.hostNames.get(name);
    const isBefore = (other: string) => placeOf(draft, other) < place;
    add(giveHostName(draft, draft.naming, instance, isBefore));
    const hostName = draft.hostNames.get(name);
    if (hostName === undefined || hostName === before) continue;
    writeEntry(draft, { instance, hostName });
    if (before !== undefined) add(laterThan(draft, draft.displaced.keys(), place));
  }
}

function laterThan(draft: Draft, names: Iterable<string>, place: number): string[] {
  return [...names].filter((name) => placeOf(draft, name) > place);
}

/** Lets the addresses of an instance that is gone rest from now on (Unix seconds), unless another has them. */
export function rest(draft: Draft, instance: Instance, now: number): void {
  const { name, uuid } = instance;
  for (const address of addressesOf(instance)) {
    if (draft.byAddress.has(address)) continue;
    // An address that rested before goes to the end of the order.
    draft.resting.delete(address);
    draft.resting.set(address, { since: now, name, uuid });
    markTaken(draft, address);
  }
  for (const address of draft.resting.keys()) {
    if (draft.resting.size <= maxResting) return;
    endRestOf(draft, address);
  }
}

/** An address that rested is free. */
function endRestOf(draft: Draft, address: IpAddress): void {
  draft.resting.delete(address);
  const ipv4 = parseIpv4(address);
  if (ipv4 !== undefined) draft.takenIpv4.delete(ipv4ToNumber(ipv4));
}

/** The instances that share a name, uuid, MAC or address with this one. */
function conflicting(draft: Draft, instance: Instance): Set<Instance> {
  const found = [
    draft.byName.get(instance.name),
    instance.uuid && draft.byUuid.get(instance.uuid),
    instance.mac && draft.byMac.get(instance.mac),
    instance.ipv4 && draft.byAddress.get(instance.ipv4),
    instance.ipv6 && draft.byAddress.get(instance.ipv6),
  ];
  return new Set(found.filter((other) => typeof other === 'object'));
}

/**
 * The instance, with a full id if an earlier one has its short id. `shortIds` has those of the
 * instances before it, and gets its own.
 */
function withOwnId(instance: Instance, shortIds: Map<string, Uuid>): Instance {
  const { uuid, details } = instance;
  if (uuid === undefined || details.fullId) return instance;
  const id = shortId(uuid);
  const holder = shortIds.get(id) ?? uuid;
  if (holder !== uuid) return { ...instance, details: { ...details, fullId: true } };
  shortIds.set(id, uuid);
  return instance;
}

/**
 * The instances of a database. Python md_server can leave two records of one machine, after its domain
 * was renamed: the one updated last counts, the others are `superseded`.
 * Their addresses rest from now on (Unix seconds).
 */
export function instancesFrom(
  records: readonly Instance[],
  naming: Naming,
  resting: RestingAddresses = new Map(),
  now = 0,
): {
  draft: Draft;
  superseded: Instance[];
} {
  const draft = emptyDraft(naming);
  for (const [address, about] of resting) {
    draft.resting.set(address, about);
    markTaken(draft, address);
  }
  const superseded: Instance[] = [];
  const shortIds = new Map<string, Uuid>();
  for (const record of records) {
    const instance = withOwnId(record, shortIds);
    const others = [...conflicting(draft, instance)];
    if (others.some((other) => (other.lastUpdate ?? 0) > (instance.lastUpdate ?? 0))) {
      superseded.push(instance);
      rest(draft, instance, now);
      continue;
    }
    for (const other of others) drop(draft, other, now);
    superseded.push(...others);
    put(draft, instance, now);
  }
  return { draft, superseded };
}

/**
 * The addresses of an instance: its current ones or else those that it had before, if the plan still
 * allows them, else free ones that do not rest, else those that have rested longest.
 */
function addressesFor(
  draft: Draft,
  domain: Domain,
  before: Instance | undefined,
  { network, network6, reserved }: AddressPlan,
): { ipv4: Ipv4 | undefined; ipv6: Ipv6 | undefined } {
  const own = before === undefined ? restingOf(draft, domain) : [];
  // The address of a superseded instance counts as taken: it may still be leased.
  const taken4 = (value: number) => draft.takenIpv4.has(value) || reserved.has(numberToIpv4(value));
  const taken6 = (address: Ipv6) =>
    draft.byAddress.has(address) || draft.resting.has(address) || reserved.has(address);

  const earlier = [before?.ipv4, before?.ipv6, ...own];
  const allowed4 = (address: Ipv4) => isHostAddress(network, address) && !reserved.has(address);
  const ipv4 =
    firstAllowed(earlier, parseIpv4, allowed4) ??
    freeIpv4(network, taken4) ??
    firstAllowed(draft.resting.keys(), parseIpv4, allowed4);
  if (network6 === undefined) return { ipv4, ipv6: before?.ipv6 };
  const allowed6 = (address: Ipv6) => inIpv6Network(network6, address) && !reserved.has(address);
  const ipv6 =
    firstAllowed(earlier, parseIpv6, allowed6) ??
    freeIpv6(network6, taken6) ??
    firstAllowed(draft.resting.keys(), parseIpv6, allowed6);
  return { ipv4, ipv6 };
}

/** The instance that a domain is: the one with its uuid, even under another name, else that of its name. */
export function instanceOf(
  { byUuid, byName }: Instances,
  { uuid, name }: Pick<Domain, 'uuid' | 'name'>,
): Instance | undefined {
  return byUuid.get(uuid) ?? byName.get(name);
}

/** The first of the addresses that is of one kind and allowed. */
function firstAllowed<Address extends IpAddress>(
  addresses: Iterable<IpAddress | undefined>,
  parse: (text: string) => Address | undefined,
  isAllowed: (address: Address) => boolean,
): Address | undefined {
  for (const candidate of addresses) {
    const address = parse(candidate ?? '');
    if (address !== undefined && isAllowed(address)) return address;
  }
  return undefined;
}

/** The addresses that a machine had before it was removed, the last one first. */
function restingOf({ resting }: Draft, domain: Domain): IpAddress[] {
  const found: IpAddress[] = [];
  for (const [address, { uuid, name }] of resting) {
    if (uuid === domain.uuid || name === domain.name) found.unshift(address);
  }
  return found;
}

/** Ends the rest of the addresses that have rested for long enough. */
function endRest(draft: Draft, { restTime }: AddressPlan, now: number): void {
  for (const [address, { since }] of draft.resting) {
    if (now - since < restTime) return;
    endRestOf(draft, address);
  }
}

/** The result of a registration. */
export interface Registration {
  readonly instance: Instance;
  /** The instances that were removed because the domain now has their name or MAC. */
  readonly superseded: readonly Instance[];
}

/**
 * Registers a domain. The same uuid is the same instance, even under a new name. The same name with
 * another uuid is a re-created instance, which keeps its address. Any other instance with the
 * domain's MAC or name is removed. Throws NoAddressError and then leaves the draft unchanged.
 */
export function register(
  draft: Draft,
  domain: Domain,
  plan: AddressPlan,
  about: { readonly location: string; readonly now: number },
): Registration {
  const before = instanceOf(draft, domain);
  endRest(draft, plan, about.now);
  const { ipv4, ipv6 } = addressesFor(draft, domain, before, plan);
  if (ipv4 === undefined) {
    const { address, prefix } = plan.network;
    throw new NoAddressError(
      `no address left in ${address}/${prefix} for ${domain.name}: remove instances or widen dnsmasq.net_prefix`,
    );
  }
  const isSame = before?.uuid === domain.uuid;
  const instance: Instance = {
    name: domain.name,
    uuid: domain.uuid,
    mac: domain.mac,
    ipv4,
    ipv6,
    metadata: domain.metadata,
    location: about.location,
    firstSeen: before?.firstSeen ?? about.now,
    lastUpdate: about.now,
    details: {
      hardware: {
        vcpus: domain.vcpus,
        memoryKib: domain.memoryKib,
        architecture: domain.architecture,
      },
      // A re-created machine generates new ones.
      hostKeys: isSame ? before.details.hostKeys : [],
      ...((!isSame || before.details.fullId) && { fullId: true }),
    },
    otherFields: before?.otherFields ?? {},
  };
  const superseded = [...conflicting(draft, instance)].filter((other) => other !== before);
  for (const other of superseded) drop(draft, other, about.now);
  if (before !== undefined && before.name !== instance.name) drop(draft, before, about.now);
  put(draft, instance, about.now);
  return { instance, superseded };
}
