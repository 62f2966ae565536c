import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Boots } from './boots/boots.js';
import { isHostAddress } from './instances/addresses.js';
import type { AddressPlan } from './instances/instances.js';
import type { Store } from './instances/store.js';
import { parseIpv4 } from './network.js';

/** What the metrics are told, and where Prometheus reads them. */
export interface Metrics {
  request(kind: string, status: number): void;
  unknownCaller(): void;
  requestWithoutToken(): void;
  upload(outcome: string, seconds: number): void;
  dnsmasqTold(outcome: 'told' | 'absent'): void;
  /** All of them, in Prometheus' text format. */
  text(): Promise<string>;
  readonly contentType: string;
}

/** What is counted at the moment it is asked for. */
export interface Counts {
  readonly instances: () => number;
  readonly freeAddresses: () => number;
  /** How many instances' newest boot has each outcome. */
  readonly boots: () => ReadonlyMap<string, number>;
}

/** What the metrics count when they are asked for. */
export function countsOf(store: Store, plan: AddressPlan, boots: Boots): Counts {
  const { network, reserved } = plan;
  const inNetwork = (address: string) => {
    const ipv4 = parseIpv4(address);
    return ipv4 !== undefined && isHostAddress(network, ipv4);
  };
  const instances = () => [...store.instances.byName.values()];
  return {
    instances: () => store.instances.byName.size,
    freeAddresses: () => {
      const taken = new Set([...store.instances.byAddress.keys(), ...reserved].filter(inNetwork));
      return network.last - network.first - 1 - taken.size;
    },
    boots: () => {
      const counts = new Map<string, number>();
      for (const [boot] of instances().map(boots.of)) {
        if (boot !== undefined) counts.set(boot.outcome, (counts.get(boot.outcome) ?? 0) + 1);
      }
      return counts;
    },
  };
}

/** The metrics of a daemon, in a registry of its own. */
export function createMetrics(counts: Counts): Metrics {
  const registry = new Registry();
  const registers = [registry];
  // The event loop's delay is among these.
  collectDefaultMetrics({ register: registry });

  const requests = new Counter({
    name: 'mdserver_requests_total',
    help: 'Requests of instances, by what they asked for and the status they got.',
    labelNames: ['kind', 'status'],
    registers,
  });
  const unknownCallers = new Counter({
    name: 'mdserver_unknown_callers_total',
    help: "Requests from addresses that are no instance's.",
    registers,
  });
  const withoutToken = new Counter({
    name: 'mdserver_requests_without_token_total',
    help: 'EC2 requests of instances with no session token (IMDSv1).',
    registers,
  });
  const uploads = new Counter({
    name: 'mdserver_uploads_total',
    help: 'Uploads of domains by outcome: the status of their answer.',
    labelNames: ['outcome'],
    registers,
  });
  const durable = new Histogram({
    name: 'mdserver_upload_durable_seconds',
    help: 'Time from an upload to its record being durable and dnsmasq told.',
    buckets: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3],
    registers,
  });
  const told = new Counter({
    name: 'mdserver_dnsmasq_reloads_total',
    help: 'Times that dnsmasq was told to read its files, or was not there to be told.',
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
    help: 'IPv4 addresses of the network that no instance has.',
    registers,
    collect() {
      this.set(counts.freeAddresses());
    },
  });
  new Gauge({
    name: 'mdserver_boots',
    help: 'Instances by the outcome of their newest boot.',
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
      if (outcome === '200') durable.observe(seconds);
    },
    dnsmasqTold: (outcome) => told.inc({ outcome }),
    text: () => registry.metrics(),
    contentType: registry.contentType,
  };
}
