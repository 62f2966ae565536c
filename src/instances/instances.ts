import {
  type IpAddress,
  type Ipv4,
  type Ipv4Network,
  type Ipv4Range,
  type Ipv6,
  type Ipv6Network,
  inIpv6Network,
  ipv4ToNumber,
  type Mac,
  numberToIpv4,
  parseIpv4,
  parseIpv6,
} from '../network.js';
import { quoted } from '../text.js';
import {
  freeIpv4,
  freeIpv6,
  inPool,
  ipv4Pool,
  isHostAddress,
  isHostAddress6,
  type RestingAddress,
  type RestingAddresses,
} from './addresses.js';
import type { Domain, Port } from './domain.js';
import { giveHostName, type NameTable, type Naming, takeHostName } from './host-names.js';
import { describeInstance, type Instance } from './instance.js';
import { LayeredMap, type WritableMap } from './layered-map.js';
import { type Entry, type Page, type Pages, pageSize } from './pages.js';
import { fromMetadata } from './settings.js';
import type { Uuid } from './uuid.js';

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
  /** The addresses of it that only an instance gets whose domain chooses one of them, or that has it already. */
  readonly keptFree?: readonly Ipv4Range[] | undefined;
  /** Undefined if instances get no IPv6 address. */
  readonly network6?: Ipv6Network | undefined;
  /** The host's own addresses in the networks. */
  readonly reserved: ReadonlySet<IpAddress>;
  /** How long an address that was given up rests, in seconds: see RestingAddress. */
  readonly restTime: number;
}

/**
 * Bounds the file that they are stored in. Of more, those that have rested longest are forgotten, and
 * first those whose machine is gone.
 */
const maxResting = 4096;

/** The network has no free address. */
export class NoAddressError extends Error {}

/** A domain chooses an address that its instance cannot have; the message says why and what to do, in one line. */
export class ChosenAddressError extends Error {}

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

/** How addresses are given up. */
export interface GivingUp {
  /** Unix seconds. */
  readonly now: number;
  /** Whether libvirt has said that the machine is gone; where this is missing, it has not. */
  readonly isGone?: ((machine: Instance) => boolean) | undefined;
}

/**
 * Adds an instance, or replaces an earlier state of it that has the same name. No other one may have
 * its uuid, MAC or addresses.
 */
export function put(draft: Draft, instance: Instance, givingUp: GivingUp): void {
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
    rest(draft, before, givingUp);
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

/** Removes an instance. */
export function drop(draft: Draft, instance: Instance, givingUp: GivingUp): void {
  const later = laterThan(draft, draft.displaced.keys(), placeOf(draft, instance.name));
  unindex(draft, instance);
  rest(draft, instance, givingUp);
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

/** Lets the addresses that an instance no longer has rest from now on, unless another has them. */
export function rest(draft: Draft, instance: Instance, { now, isGone }: GivingUp): void {
  const { name, uuid } = instance;
  for (const address of addressesOf(instance)) {
    if (draft.byAddress.has(address)) continue;
    // An address that rested before goes to the end of the order.
    draft.resting.delete(address);
    draft.resting.set(address, { since: now, name, uuid, isGone: isGone?.(instance) ?? false });
    markTaken(draft, address);
  }
  while (draft.resting.size > maxResting) {
    const [oldest] = draft.resting.keys();
    const [first = oldest] = addressesOfGone(draft);
    if (first === undefined) return;
    endRestOf(draft, first);
  }
}

/** The addresses that rest and whose machine is gone, those that have rested longest first. */
function* addressesOfGone({ resting }: Draft): Generator<IpAddress> {
  for (const [address, { isGone }] of resting) if (isGone) yield address;
}

/** A machine that libvirt has named; hooks up to 1.0.0 do not tell the uuid. */
export interface NamedMachine {
  readonly name: string;
  readonly uuid: Uuid | undefined;
}

/** The addresses that rest and that the machine may still use. */
export function addressesUsedBy({ resting }: Instances, machine: NamedMachine): IpAddress[] {
  const isIts = ({ name, uuid }: RestingAddress) =>
    uuid === undefined || machine.uuid === undefined
      ? name === machine.name
      : uuid === machine.uuid;
  return Array.from(resting)
    .filter(([, about]) => !about.isGone && isIts(about))
    .map(([address]) => address);
}

/** The machine is gone: another may have the addresses that it gave up. */
export function endUse(draft: Draft, machine: NamedMachine): void {
  for (const address of addressesUsedBy(draft, machine)) {
    const about = draft.resting.get(address);
    if (about !== undefined) draft.resting.set(address, { ...about, isGone: true });
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
  // The 17 digits of its short id, and three hyphens: of very many, making the ids would take longer.
  const id = uuid.slice(0, 20);
  const holder = shortIds.get(id) ?? uuid;
  if (holder !== uuid) return { ...instance, details: { ...details, fullId: true } };
  shortIds.set(id, uuid);
  return instance;
}

/**
 * The instances of a database. Python md_server can leave two records of one machine, after its domain
 * was renamed: with the same MAC address, the last in the file counts, which its dnsmasq serves; else the
 * one updated last. The others are `superseded`.
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
    const isOutdated = (other: Instance) =>
      (instance.mac === undefined || other.mac !== instance.mac) &&
      (other.lastUpdate ?? 0) > (instance.lastUpdate ?? 0);
    if (others.some(isOutdated)) {
      superseded.push(instance);
      rest(draft, instance, { now });
      continue;
    }
    for (const other of others) drop(draft, other, { now });
    superseded.push(...others);
    put(draft, instance, { now });
  }
  return { draft, superseded };
}

/** Names the element of a domain's metadata that chooses an address, with its value. */
function choiceOf({ name }: Domain, element: string, address: string): string {
  return `${element} in the metadata of the domain ${quoted(name)} is ${quoted(address)}`;
}

/** Throws ChosenAddressError if another machine has the address, or may still use it. */
function refuseTaken(
  draft: Draft,
  domain: Domain,
  before: Instance | undefined,
  address: IpAddress,
  choice: string,
  { restTime }: AddressPlan,
): void {
  const holder = draft.byAddress.get(address);
  // One with its MAC address goes: a MAC address belongs to one machine.
  if (holder !== undefined && holder !== before && holder.mac !== domain.mac) {
    throw new ChosenAddressError(
      `${choice}, the address of ${describeInstance(holder)}: choose another one, or remove that instance (mdserverctl remove)`,
    );
  }
  const resting = draft.resting.get(address);
  if (resting === undefined || resting.isGone || isRestOf(resting, domain)) return;
  throw new ChosenAddressError(
    `${choice}, which ${quoted(resting.name)} (uuid ${resting.uuid ?? 'unknown'}) had and may still use: stop that guest, choose another one, or wait for ${restTime} seconds (dnsmasq.lease_len)`,
  );
}

/** The addresses that the metadata of a domain chooses. Throws ChosenAddressError. */
function chosenAddresses(
  draft: Draft,
  domain: Domain,
  before: Instance | undefined,
  plan: AddressPlan,
): { readonly ipv4: Ipv4 | undefined; readonly ipv6: Ipv6 | undefined } {
  const { network, network6, reserved } = plan;
  /** The address that an element chooses, if it is one of the `expected`. */
  function chosen<Address extends IpAddress>(
    element: 'ipv4' | 'ipv6',
    parse: (text: string) => Address | undefined,
    isAllowed: (address: Address) => boolean,
    expected: string,
  ): Address | undefined {
    const text = fromMetadata(domain, element);
    if (text === undefined) return undefined;
    const choice = choiceOf(domain, element, text);
    const address = parse(text);
    if (address === undefined || !isAllowed(address)) {
      throw new ChosenAddressError(
        `${choice}, which no instance can have: choose ${expected}, or remove the element`,
      );
    }
    if (reserved.has(address)) {
      throw new ChosenAddressError(
        `${choice}, an address of the host itself (dnsmasq.gateway, or a listen_address): choose another one`,
      );
    }
    if (before?.[element] !== address) refuseTaken(draft, domain, before, address, choice, plan);
    return address;
  }
  const expected4 = `an address of ${network.address}/${network.prefix}, but not its first or last`;
  const expected6 =
    network6 === undefined
      ? 'none while dnsmasq.net_address6 is not set'
      : `an address of ${network6.address}/${network6.prefix}, but not its first two or its last`;
  return {
    ipv4: chosen('ipv4', parseIpv4, (address) => isHostAddress(network, address), expected4),
    ipv6: chosen(
      'ipv6',
      parseIpv6,
      (address) => network6 !== undefined && isHostAddress6(network6, address),
      expected6,
    ),
  };
}

/**
 * The addresses of an instance: those that its domain chooses, else its current ones or else those that
 * it had before, if the plan still allows them, else free ones that do not rest, else those of a machine
 * that is gone that have rested longest. Throws ChosenAddressError.
 */
function addressesFor(
  draft: Draft,
  domain: Domain,
  before: Instance | undefined,
  plan: AddressPlan,
): { ipv4: Ipv4 | undefined; ipv6: Ipv6 | undefined } {
  const { network, network6, reserved, keptFree = [] } = plan;
  const chosen = chosenAddresses(draft, domain, before, plan);
  const own = before === undefined ? restingOf(draft, domain) : [];
  // The address of a superseded instance counts as taken: it may still be leased.
  const taken4 = (value: number) => draft.takenIpv4.has(value) || reserved.has(numberToIpv4(value));
  const taken6 = (address: Ipv6) =>
    draft.byAddress.has(address) || draft.resting.has(address) || reserved.has(address);

  const earlier = [before?.ipv4, before?.ipv6, ...own];
  const allowed4 = (address: Ipv4) => isHostAddress(network, address) && !reserved.has(address);
  const pool = ipv4Pool(network, keptFree);
  const ipv4 =
    chosen.ipv4 ??
    firstAllowed(earlier, parseIpv4, allowed4) ??
    freeIpv4(pool, taken4) ??
    firstAllowed(
      addressesOfGone(draft),
      parseIpv4,
      (address) => allowed4(address) && inPool(pool, ipv4ToNumber(address)),
    );
  if (network6 === undefined) return { ipv4, ipv6: before?.ipv6 };
  const allowed6 = (address: Ipv6) => inIpv6Network(network6, address) && !reserved.has(address);
  const ipv6 =
    chosen.ipv6 ??
    firstAllowed(earlier, parseIpv6, allowed6) ??
    freeIpv6(network6, taken6) ??
    firstAllowed(addressesOfGone(draft), parseIpv6, allowed6);
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
  for (const [address, about] of resting) {
    if (isRestOf(about, domain)) found.unshift(address);
  }
  return found;
}

/** Whether an address that rests was the domain's: that of its uuid, or of its name. */
function isRestOf({ uuid, name }: RestingAddress, domain: Domain): boolean {
  return uuid === domain.uuid || name === domain.name;
}

/** Ends the rest of the addresses that have rested for long enough. */
function endRest(draft: Draft, { restTime }: AddressPlan, now: number): void {
  for (const [address, { since }] of draft.resting) {
    if (now - since < restTime) return;
    endRestOf(draft, address);
  }
}

/** What a registration depends on, beside the domain. */
export interface About extends GivingUp {
  /** The location of this host. */
  readonly location: string;
  /** When libvirt told of the domain, in Unix seconds, if that was before now. */
  readonly at?: number | undefined;
}

/** What libvirt told is older than what is known. */
export class OutdatedError extends Error {}

/** Throws OutdatedError if a record of the domain, or of its MAC, is of a later time. */
function refuseOutdated(draft: Draft, { uuid, name, mac }: Port, at: number): void {
  for (const known of [draft.byUuid.get(uuid), draft.byName.get(name), draft.byMac.get(mac)]) {
    if (known === undefined || lastTold(known) <= at) continue;
    throw new OutdatedError(`${describeInstance(known)} is of a later time`);
  }
}

/** When libvirt last told of the instance's domain, in Unix seconds. */
function lastTold({ lastUpdate = 0, details }: Instance): number {
  return Math.max(lastUpdate, details.leftNetwork ?? 0);
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
 * domain's MAC or name is removed. Throws NoAddressError, ChosenAddressError and OutdatedError, and
 * then leaves the draft unchanged.
 */
export function register(
  draft: Draft,
  domain: Domain,
  plan: AddressPlan,
  about: About,
): Registration {
  if (about.at !== undefined) refuseOutdated(draft, domain, about.at);
  const before = instanceOf(draft, domain);
  const told = about.at ?? about.now;
  endRest(draft, plan, about.now);
  const { ipv4, ipv6 } = addressesFor(draft, domain, before, plan);
  if (ipv4 === undefined) {
    const { address, prefix } = plan.network;
    const { keptFree = [] } = plan;
    const held = [...draft.resting.values()].filter(({ isGone }) => !isGone).length;
    const hint =
      held === 0
        ? ''
        : ` (${held} rest until libvirt says that the machines that had them are gone, for ${plan.restTime} seconds at most)`;
    const where = `${address}/${prefix}${keptFree.length === 0 ? '' : ' (without dnsmasq.reserved)'}`;
    throw new NoAddressError(
      `no address left in ${where} for ${domain.name}${hint}: remove instances or widen dnsmasq.net_prefix`,
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
    // What libvirt told earlier may come later.
    firstSeen: Math.min(before?.firstSeen ?? told, told),
    lastUpdate: told,
    details: {
      hardware: {
        vcpus: domain.vcpus,
        memoryKib: domain.memoryKib,
        architecture: domain.architecture,
      },
      // A re-created machine generates new ones.
      hostKeys: isSame ? before.details.hostKeys : [],
      ...(isSame && before.details.password !== undefined && { password: before.details.password }),
      ...((!isSame || before.details.fullId) && { fullId: true }),
      ...(domain.smbios !== undefined && { smbios: domain.smbios }),
    },
    otherFields: before?.otherFields ?? {},
  };
  const superseded = [...conflicting(draft, instance)].filter((other) => other !== before);
  for (const other of superseded) drop(draft, other, about);
  if (before !== undefined && before.name !== instance.name) drop(draft, before, about);
  put(draft, instance, about);
  return { instance, superseded };
}

/** A port would take the name or the MAC of another record. */
export class PortConflictError extends Error {}

/**
 * Registers the domain of a port, without metadata and hardware: an upload completes it. A port tells
 * less than an upload, so it changes nothing that is known: undefined if a record has the uuid. Throws
 * PortConflictError if one has the name or the MAC, and what `register` throws.
 */
export function registerPort(
  draft: Draft,
  port: Port,
  plan: AddressPlan,
  about: About,
): Instance | undefined {
  if (draft.byUuid.has(port.uuid)) return undefined;
  const other = draft.byName.get(port.name) ?? draft.byMac.get(port.mac);
  if (other !== undefined) {
    throw new PortConflictError(
      `the interface ${port.mac} of ${port.name} (uuid ${port.uuid}) was not registered, because ${describeInstance(other)} has its name or MAC: upload the domain (mdserverctl sync)`,
    );
  }
  const notTold = {
    metadata: {},
    vcpus: undefined,
    memoryKib: undefined,
    architecture: undefined,
    smbios: undefined,
  };
  const { instance } = register(draft, { ...port, ...notTold }, plan, about);
  // No upload has come: one that libvirt made earlier, and that comes later, counts.
  const made = { ...instance, lastUpdate: undefined };
  put(draft, made, about);
  return made;
}

/**
 * Remembers that the domain of an instance has no interface on the network any more; undefined if that
 * is known, or out of date, or if no instance has the uuid.
 */
export function leaveNetwork(
  draft: Draft,
  uuid: Uuid,
  { at, ...givingUp }: GivingUp & Pick<About, 'at'>,
): Instance | undefined {
  const known = draft.byUuid.get(uuid);
  const told = at ?? givingUp.now;
  if (known === undefined || known.details.leftNetwork !== undefined) return undefined;
  if (at !== undefined && lastTold(known) > at) return undefined;
  const instance = { ...known, details: { ...known.details, leftNetwork: told } };
  put(draft, instance, givingUp);
  return instance;
}
