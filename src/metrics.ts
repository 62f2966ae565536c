import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Boots } from './boots/boots.js';
import { isHostAddress } from './instances/addresses.js';
import type { AddressPlan, Instances } from './instances/instances.js';
import { ipv4ToNumber, parseIpv4 } from './network.js';

/** The metrics of the daemon: how to count events, and what Prometheus reads. */
export interface Metrics {
  request(kind: string, status: number): void;
  unknownCaller(): void;
  requestWithoutToken(): void;
  upload(outcome: string, seconds: number): void;
  /** `absent` means that no dnsmasq was running. */
  dnsmasqReload(outcome: 'told' | 'absent'): void;
  /** All metrics in Prometheus' text format. */
  text(): Promise<string>;
  readonly contentType: string;
}

/** Values that are counted when Prometheus reads the metrics. */
export interface Counts {
  readonly instances: () => number;
  readonly freeAddresses: () => number;
  /** The number of instances by the outcome of their latest boot. */
  readonly boots: () => ReadonlyMap<string, number>;
}

/** The number of addresses that instances could have and none has. Those that rest are free. */
function freeAddresses(
  { takenIpv4, resting }: Instances,
  { network, reserved }: AddressPlan,
): number {
  let free = network.last - network.first - 1;
  for (const value of takenIpv4.keys()) {
    if (value > network.first && value < network.last) free -= 1;
  }
  const isInNetwork = (text: string) => {
    const address = parseIpv4(text);
    return address !== undefined && isHostAddress(network, address);
  };
  for (const address of resting.keys()) if (isInNetwork(address)) free += 1;
  for (const text of reserved) {
    const address = parseIpv4(text);
    if (address === undefined || !isHostAddress(network, address)) continue;
    if (!takenIpv4.has(ipv4ToNumber(address)) || resting.has(address)) free -= 1;
  }
  return free;
}

/** The values that come from the instances and the boot records. */
export function countsOf(instances: () => Instances, plan: AddressPlan, boots: Boots): Counts {
  return {
    instances: () => instances().byName.size,
    freeAddresses: () => freeAddresses(instances(), plan),
    boots: () => {
      const counts = new Map<string, number>();
      for (const instance of instances().byName.values()) {
        const [boot] = boots.of(instance);
        if (boot !== undefined) counts.set(boot.outcome, (counts.get(boot.outcome) ?? 0) + 1);
      }
      return counts;
    },
  };
}

/** Creates the metrics of a daemon, in a new registry. */
export function createMetrics(counts: Counts): Metrics {
  const registry = new Registry();
  const registers = [registry];
  // These include the event loop's lag.
  collectDefaultMetrics({ register: registry });

  const requests = new Counter({
    name: 'mdserver_requests_total',
    help: 'Requests from instances, by kind and response status.',
    labelNames: ['kind', 'status'],
    registers,
  });
  const unknownCallers = new Counter({
    name: 'mdserver_unknown_callers_total',
    help: 'Requests from addresses that belong to no instance.',
    registers,
  });
  const withoutToken = new Counter({
    name: 'mdserver_requests_without_token_total',
    help: 'EC2 requests from instances without a session token (IMDSv1).',
    registers,
  });
  const uploads = new Counter({
    name: 'mdserver_uploads_total',
    help: 'Uploads of domains, by response status.',
    labelNames: ['outcome'],
    registers,
  });
  const uploadSeconds = new Histogram({
    name: 'mdserver_upload_durable_seconds',
    help: 'Time from an upload until its record is on disk and dnsmasq has been notified.',
    buckets: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3],
    registers,
  });
  const dnsmasqReloads = new Counter({
    name: 'mdserver_dnsmasq_reloads_total',
    help: 'Reloads of dnsmasq: told to read its files again, or absent because it was not running.',
    labelNames: ['outcome'],
    registers,
  });
  new Gauge({
    name: 'mdserver_instances',
    help: 'Instances in the database.',
    registers,
    collect() {
      this.set(counts.instances());
    },
  });
  new Gauge({
    name: 'mdserver_free_addresses',
    help: 'IPv4 addresses of the network that are free.',
    registers,
    collect() {
      this.set(counts.freeAddresses());
    },
  });
  new Gauge({
    name: 'mdserver_boots',
    help: 'Instances, by the outcome of their latest boot.',
    labelNames: ['outcome'],
    registers,
    collect() {
      this.reset();
      for (const [outcome, count] of counts.boots()) this.set({ outcome }, count);
    },
  });

  return {
    request: (kind, status) => requests.inc({ kind, status }),
    unknownCaller: () => unknownCallers.inc(),
    requestWithoutToken: () => withoutToken.inc(),
    upload: (outcome, seconds) => {
      uploads.inc({ outcome });
      if (outcome === '200') uploadSeconds.observe(seconds);
    },
    dnsmasqReload: (outcome) => dnsmasqReloads.inc({ outcome }),
    text: () => registry.metrics(),
    contentType: registry.contentType,
  };
}
