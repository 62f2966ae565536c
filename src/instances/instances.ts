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

/** All instances, and where to find one. Read only: a change makes another one. */
export interface Instances {
  /** In the order they were first seen in. */
  readonly byName: ReadonlyMap<string, Instance>;
  readonly byUuid: ReadonlyMap<Uuid, Instance>;
  readonly byMac: ReadonlyMap<Mac, Instance>;
  readonly byAddress: ReadonlyMap<IpAddress, Instance>;
}

/** Instances in the making: a copy that is not in force yet. */
export interface Draft extends Instances {
  readonly byName: Map<string, Instance>;
  readonly byUuid: Map<Uuid, Instance>;
  readonly byMac: Map<Mac, Instance>;
  readonly byAddress: Map<IpAddress, Instance>;
}

/** What the addresses of new instances are taken from. */
export interface AddressPlan {
  readonly network: Ipv4Network;
  /** Where instances get an IPv6 address, too. */
  readonly network6?: Ipv6Network | undefined;
  /** Addresses in the networks that are the host's own. */
  readonly reserved: ReadonlySet<IpAddress>;
}

/** The network has no address left. */
export class NoAddressError extends Error {}

/** A copy that can be changed. */
export function draftOf(instances: Instances): Draft {
  return {
    byName: new Map(instances.byName),
    byUuid: new Map(instances.byUuid),
    byMac: new Map(instances.byMac),
    byAddress: new Map(instances.byAddress),
  };
}

/** Puts an instance in; another state of itself with the same names and addresses gives way. */
export function put(draft: Draft, instance: Instance): void {
  draft.byName.set(instance.name, instance);
  if (instance.uuid !== undefined) draft.byUuid.set(instance.uuid, instance);
  if (instance.mac !== undefined) draft.byMac.set(instance.mac, instance);
  if (instance.ipv4 !== undefined) draft.byAddress.set(instance.ipv4, instance);
  if (instance.ipv6 !== undefined) draft.byAddress.set(instance.ipv6, instance);
}

/** Takes an instance out of all but `byName`, where it holds its place in the order. */
function unindex(draft: Draft, instance: Instance): void {
  if (instance.uuid !== undefined) draft.byUuid.delete(instance.uuid);
  if (instance.mac !== undefined) draft.byMac.delete(instance.mac);
  if (instance.ipv4 !== undefined) draft.byAddress.delete(instance.ipv4);
  if (instance.ipv6 !== undefined) draft.byAddress.delete(instance.ipv6);
}

/** Takes an instance out. */
export function drop(draft: Draft, instance: Instance): void {
  unindex(draft, instance);
  draft.byName.delete(instance.name);
}

/** Those that have a name, uuid, MAC or address in common with the instance. */
function rivals(draft: Draft, instance: Instance): Set<Instance> {
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
 * The instances of a database. Python can leave two records of one machine (a domain that was
 * renamed): the one updated last stays, and `gone` are the others.
 */
export function instancesFrom(records: readonly Instance[]): { draft: Draft; gone: Instance[] } {
  const draft = draftOf({
    byName: new Map(),
    byUuid: new Map(),
    byMac: new Map(),
    byAddress: new Map(),
  });
  const gone: Instance[] = [];
  for (const instance of records) {
    const others = [...rivals(draft, instance)];
    if (others.some((other) => (other.lastUpdate ?? 0) > (instance.lastUpdate ?? 0))) {
      gone.push(instance);
      continue;
    }
    for (const other of others) drop(draft, other);
    gone.push(...others);
    put(draft, instance);
  }
  return { draft, gone };
}

/** An instance's addresses: those it has, where the plan still allows them, else free ones. */
function addressesFor(
  draft: Draft,
  before: Instance | undefined,
  { network, network6, reserved }: AddressPlan,
): { ipv4: Ipv4 | undefined; ipv6: Ipv6 | undefined } {
  // What gives way frees its address for later uploads only: it may be in a DHCP lease still.
  const taken = (address: IpAddress) => draft.byAddress.has(address) || reserved.has(address);
  const keeps4 = before?.ipv4 !== undefined && isHostAddress(network, before.ipv4);
  const ipv4 = keeps4 && !reserved.has(before.ipv4) ? before.ipv4 : freeIpv4(network, taken);
  if (network6 === undefined) return { ipv4, ipv6: before?.ipv6 };
  const keeps6 = before?.ipv6 !== undefined && inIpv6Network(network6, before.ipv6);
  const ipv6 = keeps6 && !reserved.has(before.ipv6) ? before.ipv6 : freeIpv6(network6, taken);
  return { ipv4, ipv6 };
}

/** The outcome of a registration. */
export interface Registered {
  readonly instance: Instance;
  /** Records that had to go because the domain has their name or MAC now. */
  readonly gone: readonly Instance[];
}

/**
 * Puts a domain in: the same uuid is the same instance, under whatever name; the same name with
 * another uuid was made anew and keeps its address. A record that has the domain's MAC or name
 * otherwise gives way. Throws NoAddressError, with the draft as it was.
 */
export function register(
  draft: Draft,
  domain: Domain,
  plan: AddressPlan,
  about: { readonly location: string; readonly now: number },
): Registered {
  const before = draft.byUuid.get(domain.uuid) ?? draft.byName.get(domain.name);
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
      // A machine made anew makes new ones.
      hostKeys: before?.uuid === domain.uuid ? before.details.hostKeys : [],
    },
    otherFields: before?.otherFields ?? {},
  };
  const gone = [...rivals(draft, instance)].filter((other) => other !== before);
  for (const other of gone) drop(draft, other);
  if (before?.name === instance.name) unindex(draft, before);
  else if (before !== undefined) drop(draft, before);
  put(draft, instance);
  return { instance, gone };
}
