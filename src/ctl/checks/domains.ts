import { dnsmasqLogPath } from '../../boots/dhcp-log.js';
import type { Config } from '../../config/options.js';
import type { BootOutcome, InstanceSummary } from '../../control/api.js';
import { operand } from '../../text.js';
import type { ControlClient } from '../client.js';
import { noRecentDhcp, type RecentDhcp, recentDhcp } from '../dnsmasq-log.js';
import { CommandError } from '../errors.js';
import { type Guest, instanceFinder, isHere, runningGuests, uploadRemedy } from '../guests.js';
import { counted, durationText, listed } from '../output.js';
import { listDomains, type NetworkPort, networkPorts, type Virsh } from '../virsh.js';
import { type Finding, findingsOf } from './finding.js';

const { ok, warning, failure } = findingsOf('domains');

/** What libvirt runs on the network, beside the records. */
interface Comparison extends RecentDhcp {
  /** Undefined if libvirt cannot be asked. */
  readonly guests: readonly Guest[] | undefined;
  readonly ports: readonly NetworkPort[];
  readonly instances: readonly InstanceSummary[];
  /** The location of this host. */
  readonly here: string;
  /** Unix seconds. */
  readonly now: number;
}

/** How far a boot came whose guest has not asked for anything. */
const silentOutcomes: ReadonlySet<BootOutcome | undefined> = new Set([
  'started',
  'no-address',
  'address',
] as const);

/** What libvirt runs and what dnsmasq refuses, where the records say something else or nothing. */
function* domainFindings(comparison: Comparison): Generator<Finding> {
  const { guests = [], ports, instances, here, refused, declined, now } = comparison;
  const instanceOf = instanceFinder(instances);
  const all = guests.map((guest) => ({ ...guest, instance: instanceOf(guest.domain) }));
  const on = all.filter(({ macs }) => macs.length > 0);

  const unknown = on.filter(({ instance }) => instance === undefined);
  if (unknown.length > 0) {
    yield failure(
      `${counted(unknown.length, 'domain')} on the network without a record, so without an address and metadata: ${listed(unknown, ({ domain }) => domain.name)}`,
      uploadRemedy(unknown.map(({ domain }) => domain)),
    );
  }
  const changed = on.flatMap(({ domain, instance, macs: [mac] }) =>
    instance === undefined || instance.mac === mac ? [] : [{ domain, mac, before: instance.mac }],
  );
  if (changed.length > 0) {
    yield failure(
      `${counted(changed.length, 'domain')} with another MAC address than in the record, so without an address: ${listed(changed, ({ domain, mac, before }) => `${domain.name} (${mac}, not ${before ?? 'none'})`)}`,
      uploadRemedy(changed.map(({ domain }) => domain)),
    );
  }
  const further = on.flatMap(({ domain, macs: [, ...others] }) =>
    others.map((mac) => ({ name: domain.name, mac })),
  );
  if (further.length > 0) {
    yield warning(
      `${counted(further.length, 'interface')} without an address, because only the first one of a domain on the network gets one: ${listed(further, ({ name, mac }) => `${mac} of ${name}`)}`,
      'detach it (virsh detach-interface), or set its address in the guest',
    );
  }

  const later = on.flatMap(({ domain, instance, macs, interfaces: [first] }) => {
    const isSilent = silentOutcomes.has(instance?.last_boot?.outcome);
    return first === undefined || macs.includes(first.mac) || !isSilent
      ? []
      : [{ name: domain.name, source: first.source }];
  });
  if (later.length > 0) {
    yield warning(
      `${counted(later.length, 'domain')} without a request, whose first interface is another one: ${listed(later, ({ name, source }) => `${name} (on ${source})`)}`,
      'most images look for metadata on the first one: in the domain (virsh edit), put the one on the network first',
    );
  }

  const offNetwork = new Set(
    all.filter(({ macs }) => macs.length === 0).map(({ instance }) => instance),
  );
  const onNetwork = new Set(on.map(({ instance }) => instance));
  const left = instances.filter(
    (instance) =>
      offNetwork.has(instance) ||
      (instance.left_network !== null && isHere(instance, here) && !onNetwork.has(instance)),
  );
  if (left.length > 0) {
    yield warning(
      `${counted(left.length, 'record')} of domains without an interface on the network: ${listed(left, ({ name }) => name)}`,
      'give them one (virsh attach-interface), or remove the records: mdserverctl sync --prune',
    );
  }

  const recorded = new Set(instances.map(({ mac }) => mac));
  const running = new Set(guests.map(({ domain }) => domain.uuid));
  const foreign = ports.filter(({ owner, mac }) => !running.has(owner.uuid) && !recorded.has(mac));
  if (foreign.length > 0) {
    yield warning(
      `${counted(foreign.length, 'port')} of the network without a record: ${listed(foreign, ({ owner, mac }) => `${mac} of ${owner.name}`)}`,
      'if another driver of libvirt runs it: virsh --connect URI dumpxml NAME | mdserverctl upload -',
    );
  }
  const reported = new Set([...on.flatMap(({ macs }) => macs), ...foreign.map(({ mac }) => mac)]);
  const strangers = [...refused].filter(([mac]) => !recorded.has(mac) && !reported.has(mac));
  const [latest] = strangers.at(-1) ?? [];
  if (latest !== undefined) {
    const owners = new Map(
      guests.flatMap(({ domain, interfaces }) => interfaces.map(({ mac }) => [mac, domain.name])),
    );
    yield warning(
      `dnsmasq has no address for ${counted(strangers.length, 'machine')} that asked for one: ${listed(strangers.reverse(), ([mac, at]) => `${mac} (${owners.get(mac) ?? 'no running domain has it'}, ${durationText(now - at)} ago)`)}`,
      `whose is it? mdserverctl explain ${latest}`,
    );
  }
  const conflicts = instances.flatMap(({ name, ipv4, mac }) => {
    const at = declined.get(mac ?? '');
    return at === undefined ? [] : [{ name, ipv4, at }];
  });
  const [conflict] = conflicts;
  if (conflict !== undefined) {
    yield warning(
      `another machine on the network has the address of ${counted(conflicts.length, 'instance')}: ${listed(conflicts, ({ name, ipv4, at }) => `${name} (${ipv4}, declined ${durationText(now - at)} ago)`)}`,
      `which one? mdserverctl explain ${operand(conflict.name)}`,
    );
  }
  const right = on.length - unknown.length - changed.length;
  if (comparison.guests !== undefined && (right > 0 || on.length === 0)) {
    yield ok(`${counted(right, 'domain')} on the network, each as in its record`);
  }
}

/** Compares what libvirt runs, and what dnsmasq refuses, with the records. */
export async function* checkDomains(
  config: Config,
  control: Pick<ControlClient, 'get'>,
  virsh: Virsh,
): AsyncGenerator<Finding> {
  const { dnsmasq, service } = config;
  let guests: Guest[] | undefined;
  let ports: NetworkPort[] = [];
  try {
    guests = await runningGuests(virsh, await listDomains(virsh), dnsmasq);
    ports = await networkPorts(virsh, dnsmasq.net_name);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const what = guests === undefined ? 'what runs' : 'ports of the network';
    yield warning(`cannot compare the records with libvirt (${what}): ${error.message}`);
  }
  // Asked for last: the hook uploads a domain before it runs.
  let instances: InstanceSummary[];
  try {
    instances = await control.get<InstanceSummary[]>('/instances');
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    yield failure(error.message);
    return;
  }
  const now = new Date();
  let dhcp = noRecentDhcp;
  try {
    dhcp = recentDhcp(dnsmasqLogPath(config), now);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    yield warning(error.message, 'run this with sudo');
  }
  yield* domainFindings({
    guests,
    ports,
    instances,
    here: service.location,
    ...dhcp,
    now: now.getTime() / 1000,
  });
}
