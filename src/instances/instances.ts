import {
  type IpAddress,
  type Ipv4,
  type Ipv4Network,
  type Ipv6,
  type Ipv6Network,
  inIpv6Network,
  type Mac,
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
import type { Instance } from './instance.js';
import type { Uuid } from './uuid.js';

/** All instances, indexed. Immutable: a change makes a new object. */
export interface Instances {
  /** In the order in which they were first seen. */
  readonly byName: ReadonlyMap<string, Instance>;
  readonly byUuid: ReadonlyMap<Uuid, Instance>;
  readonly byMac: ReadonlyMap<Mac, Instance>;
  readonly byAddress: ReadonlyMap<IpAddress, Instance>;
  /** None of them is in `byAddress`. */
  readonly resting: RestingAddresses;
}

/** A modifiable copy of the instances, not in force yet. */
export interface Draft extends Instances {
  readonly byName: Map<string, Instance>;
  readonly byUuid: Map<Uuid, Instance>;
  readonly byMac: Map<Mac, Instance>;
  readonly byAddress: Map<IpAddress, Instance>;
  readonly resting: Map<IpAddress, RestingAddress>;
}

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

/** Copies the instances into a draft. */
export function draftOf(instances: Instances): Draft {
  return {
    byName: new Map(instances.byName),
    byUuid: new Map(instances.byUuid),
    byMac: new Map(instances.byMac),
    byAddress: new Map(instances.byAddress),
    resting: new Map(instances.resting),
  };
}

/** Adds an instance, or replaces an earlier state of it that has the same names and addresses. */
export function put(draft: Draft, instance: Instance): void {
  draft.byName.set(instance.name, instance);
  if (instance.uuid !== undefined) draft.byUuid.set(instance.uuid, instance);
  if (instance.mac !== undefined) draft.byMac.set(instance.mac, instance);
  for (const address of addressesOf(instance)) {
    draft.byAddress.set(address, instance);
    draft.resting.delete(address);
  }
}

function addressesOf({ ipv4, ipv6 }: Instance): IpAddress[] {
  return [ipv4, ipv6].filter((address) => address !== undefined);
}

/** Lets the addresses of an instance that is gone rest from now on (Unix seconds), unless another has them. */
export function rest(draft: Draft, instance: Instance, now: number): void {
  const { name, uuid } = instance;
  for (const address of addressesOf(instance)) {
    if (draft.byAddress.has(address)) continue;
    // An address that rested before goes to the end of the order.
    draft.resting.delete(address);
    draft.resting.set(address, { since: now, name, uuid });
  }
  for (const address of draft.resting.keys()) {
    if (draft.resting.size <= maxResting) return;
    draft.resting.delete(address);
  }
}

/** Removes an instance from all indexes but `byName`, where it keeps its place in the order. */
function unindex(draft: Draft, instance: Instance, now: number): void {
  if (instance.uuid !== undefined) draft.byUuid.delete(instance.uuid);
  if (instance.mac !== undefined) draft.byMac.delete(instance.mac);
  for (const address of addressesOf(instance)) draft.byAddress.delete(address);
  rest(draft, instance, now);
}

/** Removes an instance. `now` is in Unix seconds. */
export function drop(draft: Draft, instance: Instance, now: number): void {
  unindex(draft, instance, now);
  draft.byName.delete(instance.name);
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
 * The instances of a database. Python md_server can leave two records of one machine, after its domain
 * was renamed: the one updated last counts, the others are `superseded`.
 * Their addresses rest from now on (Unix seconds).
 */
export function instancesFrom(
  records: readonly Instance[],
  resting: RestingAddresses = new Map(),
  now = 0,
): {
  draft: Draft;
  superseded: Instance[];
} {
  const draft = draftOf({
    byName: new Map(),
    byUuid: new Map(),
    byMac: new Map(),
    byAddress: new Map(),
    resting,
  });
  const superseded: Instance[] = [];
  for (const instance of records) {
    const others = [...conflicting(draft, instance)];
    if (others.some((other) => (other.lastUpdate ?? 0) > (instance.lastUpdate ?? 0))) {
      superseded.push(instance);
      rest(draft, instance, now);
      continue;
    }
    for (const other of others) drop(draft, other, now);
    superseded.push(...others);
    put(draft, instance);
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
  const taken = (address: IpAddress) =>
    draft.byAddress.has(address) || draft.resting.has(address) || reserved.has(address);

  const earlier = [before?.ipv4, before?.ipv6, ...own];
  const allowed4 = (address: Ipv4) => isHostAddress(network, address) && !reserved.has(address);
  const ipv4 =
    firstAllowed(earlier, parseIpv4, allowed4) ??
    freeIpv4(network, taken) ??
    firstAllowed(draft.resting.keys(), parseIpv4, allowed4);
  if (network6 === undefined) return { ipv4, ipv6: before?.ipv6 };
  const allowed6 = (address: Ipv6) => inIpv6Network(network6, address) && !reserved.has(address);
  const ipv6 =
    firstAllowed(earlier, parseIpv6, allowed6) ??
    freeIpv6(network6, taken) ??
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
  return [...resting]
    .filter(([, { uuid, name }]) => uuid === domain.uuid || name === domain.name)
    .map(([address]) => address)
    .reverse();
}

/** Ends the rest of the addresses that have rested for long enough. */
function endRest({ resting }: Draft, { restTime }: AddressPlan, now: number): void {
  for (const [address, { since }] of resting) {
    if (now - since < restTime) return;
    resting.delete(address);
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
      hostKeys: before?.uuid === domain.uuid ? before.details.hostKeys : [],
    },
    otherFields: before?.otherFields ?? {},
  };
  const superseded = [...conflicting(draft, instance)].filter((other) => other !== before);
  for (const other of superseded) drop(draft, other, about.now);
  if (before?.name === instance.name) unindex(draft, before, about.now);
  else if (before !== undefined) drop(draft, before, about.now);
  put(draft, instance);
  return { instance, superseded };
}
