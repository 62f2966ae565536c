import {
  type IpAddress,
  type Ipv4,
  type Ipv4Network,
  type Ipv6,
  type Ipv6Network,
  inIpv6Network,
  type Mac,
} from '../network.js';
import { freeIpv4, freeIpv6, isHostAddress } from './addresses.js';
import type { Domain } from './domain-xml.js';
import type { Instance } from './instance.js';
import type { Uuid } from './uuid.js';

/** All instances, indexed. Immutable: a change makes a new object. */
export interface Instances {
  /** In the order in which they were first seen. */
  readonly byName: ReadonlyMap<string, Instance>;
  readonly byUuid: ReadonlyMap<Uuid, Instance>;
  readonly byMac: ReadonlyMap<Mac, Instance>;
  readonly byAddress: ReadonlyMap<IpAddress, Instance>;
}

/** A modifiable copy of the instances, not in force yet. */
export interface Draft extends Instances {
  readonly byName: Map<string, Instance>;
  readonly byUuid: Map<Uuid, Instance>;
  readonly byMac: Map<Mac, Instance>;
  readonly byAddress: Map<IpAddress, Instance>;
}

/** The addresses that instances can have. */
export interface AddressPlan {
  readonly network: Ipv4Network;
  /** Undefined if instances get no IPv6 address. */
  readonly network6?: Ipv6Network | undefined;
  /** The host's own addresses in the networks. */
  readonly reserved: ReadonlySet<IpAddress>;
}

/** The network has no free address. */
export class NoAddressError extends Error {}

/** Copies the instances into a draft. */
export function draftOf(instances: Instances): Draft {
  return {
    byName: new Map(instances.byName),
    byUuid: new Map(instances.byUuid),
    byMac: new Map(instances.byMac),
    byAddress: new Map(instances.byAddress),
  };
}

/** Adds an instance, or replaces an earlier state of it that has the same names and addresses. */
export function put(draft: Draft, instance: Instance): void {
  draft.byName.set(instance.name, instance);
  if (instance.uuid !== undefined) draft.byUuid.set(instance.uuid, instance);
  if (instance.mac !== undefined) draft.byMac.set(instance.mac, instance);
  if (instance.ipv4 !== undefined) draft.byAddress.set(instance.ipv4, instance);
  if (instance.ipv6 !== undefined) draft.byAddress.set(instance.ipv6, instance);
}

/** Removes an instance from all indexes but `byName`, where it keeps its place in the order. */
function unindex(draft: Draft, instance: Instance): void {
  if (instance.uuid !== undefined) draft.byUuid.delete(instance.uuid);
  if (instance.mac !== undefined) draft.byMac.delete(instance.mac);
  if (instance.ipv4 !== undefined) draft.byAddress.delete(instance.ipv4);
  if (instance.ipv6 !== undefined) draft.byAddress.delete(instance.ipv6);
}

/** Removes an instance. */
export function drop(draft: Draft, instance: Instance): void {
  unindex(draft, instance);
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
 */
export function instancesFrom(records: readonly Instance[]): {
  draft: Draft;
  superseded: Instance[];
} {
  const draft = draftOf({
    byName: new Map(),
    byUuid: new Map(),
    byMac: new Map(),
    byAddress: new Map(),
  });
  const superseded: Instance[] = [];
  for (const instance of records) {
    const others = [...conflicting(draft, instance)];
    if (others.some((other) => (other.lastUpdate ?? 0) > (instance.lastUpdate ?? 0))) {
      superseded.push(instance);
      continue;
    }
    for (const other of others) drop(draft, other);
    superseded.push(...others);
    put(draft, instance);
  }
  return { draft, superseded };
}

/** The addresses of an instance: its current ones if the plan still allows them, else free ones. */
function addressesFor(
  draft: Draft,
  before: Instance | undefined,
  { network, network6, reserved }: AddressPlan,
): { ipv4: Ipv4 | undefined; ipv6: Ipv6 | undefined } {
  // The address of a superseded instance counts as taken: it may still be leased.
  const taken = (address: IpAddress) => draft.byAddress.has(address) || reserved.has(address);
  const keeps4 = before?.ipv4 !== undefined && isHostAddress(network, before.ipv4);
  const ipv4 = keeps4 && !reserved.has(before.ipv4) ? before.ipv4 : freeIpv4(network, taken);
  if (network6 === undefined) return { ipv4, ipv6: before?.ipv6 };
  const keeps6 = before?.ipv6 !== undefined && inIpv6Network(network6, before.ipv6);
  const ipv6 = keeps6 && !reserved.has(before.ipv6) ? before.ipv6 : freeIpv6(network6, taken);
  return { ipv4, ipv6 };
}

/** The instance that a domain is: the one with its uuid, even under another name, else that of its name. */
export function instanceOf(
  { byUuid, byName }: Instances,
  { uuid, name }: Pick<Domain, 'uuid' | 'name'>,
): Instance | undefined {
  return byUuid.get(uuid) ?? byName.get(name);
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
  const { ipv4, ipv6 } = addressesFor(draft, before, plan);
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
  for (const other of superseded) drop(draft, other);
  if (before?.name === instance.name) unindex(draft, before);
  else if (before !== undefined) drop(draft, before);
  put(draft, instance);
  return { instance, superseded };
}
