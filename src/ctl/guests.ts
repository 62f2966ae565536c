import type { Config } from '../config/options.js';
import type { BootOutcome, InstanceSummary } from '../control/api.js';
import { namesNone } from '../instances/smbios.js';
import { operand, shellWord } from '../text.js';
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

/** Whether an instance's domain names no datasource of mdserver, and its guest has not found it without. */
export function lacksDatasource({ datasource, last_boot }: InstanceSummary): boolean {
  return datasource === 'none' && !outcomesOfAsking.has(last_boot?.outcome);
}

const outcomesOfAsking: ReadonlySet<BootOutcome | undefined> = new Set([
  'asking',
  'configured',
  'failed',
  'home',
] as const);

/** What that means for the instance, and what to do: a sentence or two. */
export function datasourceAdvice(instance: Pick<InstanceSummary, 'name' | 'uuid'>): string {
  return `its ${namesNone}, unless the image or a seed disk tells it where. This names one, from the next start on: ${datasourceRemedy(instance)}`;
}

/** What makes cloud-init look for mdserver, from the next start of the domain on. */
function datasourceRemedy({ name, uuid }: Pick<InstanceSummary, 'name' | 'uuid'>): string {
  // The rest of recipe A is there: the uuid. Another domain would lose its own.
  const serial = uuid?.startsWith('ec2')
    ? uuid
    : 'ds=nocloud;s=http://169.254.169.254/nocloud/;dsmode=net';
  const domain = uuid === null ? operand(name) : virshOperand({ uuid, name });
  return `virt-xml --add-device --sysinfo ${shellWord(`smbios,system.serial=${serial}`)} ${domain}`;
}

/** What uploads these domains. */
export function uploadRemedy(domains: readonly Pick<LibvirtDomain, 'uuid' | 'name'>[]): string {
  const [domain, another] = domains;
  return domain === undefined || another !== undefined
    ? 'mdserverctl sync'
    : `virsh dumpxml ${virshOperand(domain)} | mdserverctl upload -`;
}
