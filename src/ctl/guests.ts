import type { Config } from '../config/options.js';
import type { InstanceSummary } from '../control/api.js';
import {
  type DomainInterface,
  interfacesOf,
  type LibvirtDomain,
  type Virsh,
  virshOperand,
} from './virsh.js';

/** The libvirt network and the bridge whose guests mdserver serves. */
export type GuestNetwork = Pick<Config['dnsmasq'], 'net_name' | 'interface'>;

/** The network of a configuration, or of the defaults if that cannot be read. */
export function guestNetwork(config: Config | undefined): GuestNetwork {
  return config?.dnsmasq ?? { net_name: 'mds', interface: 'br-mds' };
}

/** The interfaces on the network or its bridge; the first one is the one that a record has. */
export function interfacesOn(
  { net_name, interface: bridge }: GuestNetwork,
  interfaces: readonly DomainInterface[],
): DomainInterface[] {
  const from = (name: string) => interfaces.filter(({ source }) => source === name);
  return [...from(net_name), ...from(bridge)];
}

/** Returns a function that finds a domain's instance. Records of old Python versions have no uuid. */
export function instanceFinder(
  instances: readonly InstanceSummary[],
): (domain: Pick<LibvirtDomain, 'uuid' | 'name'>) => InstanceSummary | undefined {
  const byUuid = new Map(instances.map((instance) => [instance.uuid, instance]));
  const byName = new Map(
    instances.filter(({ uuid }) => uuid === null).map((instance) => [instance.name, instance]),
  );
  return ({ uuid, name }) => byUuid.get(uuid) ?? byName.get(name);
}

/** A running domain. */
export interface Guest {
  readonly domain: LibvirtDomain;
  readonly interfaces: readonly DomainInterface[];
  /** The MAC addresses of those on the network, the one for the record first. */
  readonly macs: readonly string[];
}

/** The domains among these that run. Those that are gone by now are left out. Throws CommandError. */
export async function runningGuests(
  virsh: Virsh,
  domains: readonly LibvirtDomain[],
  network: GuestNetwork,
): Promise<Guest[]> {
  const running = domains.filter((domain) => domain.running);
  const interfaces = await interfacesOf(virsh, running);
  return running.flatMap((domain) => {
    const all = interfaces.get(domain.uuid);
    if (all === undefined) return [];
    return [{ domain, interfaces: all, macs: interfacesOn(network, all).map(({ mac }) => mac) }];
  });
}

/** Whether an instance's domain is on this host; `here` is its location, undefined if not known. */
export function isHere({ location }: InstanceSummary, here: string | undefined): boolean {
  return location === null || location === here;
}

/** What uploads these domains. */
export function uploadRemedy(domains: readonly Pick<LibvirtDomain, 'uuid' | 'name'>[]): string {
  const [domain, another] = domains;
  return domain === undefined || another !== undefined
    ? 'mdserverctl sync'
    : `virsh dumpxml ${virshOperand(domain)} | mdserverctl upload -`;
}
