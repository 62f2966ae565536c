import type { Registry } from 'prom-client';
import type { Boots } from './boots/boots.js';
import { inPool, ipv4Pool, poolSize } from './instances/addresses.js';
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
  /** The number of templates whose newest version is refused. */
  readonly refusedTemplates: () => number;
}

/**
 * The number of addresses that an instance could get without choosing one. Those that rest are free, unless a machine may
 * still use them.
 */
function freeAddresses(
  { takenIpv4, resting }: Instances,
  { network, keptFree = [], reserved }: AddressPlan,
): number {
  const pool = ipv4Pool(network, keptFree);
  let free = poolSize(pool);
  for (const value of takenIpv4.keys()) if (inPool(pool, value)) free -= 1;
  const ofPool = (addresses: Iterable<string>) =>
    Array.from(addresses, parseIpv4)
      .filter((address) => address !== undefined)
      .filter((address) => inPool(pool, ipv4ToNumber(address)));
  const unused = Array.from(resting).flatMap(([address, { isGone }]) => (isGone ? [address] : []));
  for (const address of ofPool(unused)) if (!reserved.has(address)) free += 1;
  for (const address of ofPool(reserved)) {
    if (!takenIpv4.has(ipv4ToNumber(address))) free -= 1;
  }
  return free;
}

/** The values that come from the instances and the boot records. */
export function countsOf(
  instances: () => Instances,
  plan: AddressPlan,
  boots: Boots,
): Omit<Counts, 'refusedTemplates'> {
  return {
    instances: () => instances().byName.size,
    freeAddresses: () => freeAddresses(instances(), plan),
    boots: boots.outcomes,
  };
}

/** A metric, and its values by what follows its name: labels, or the part of a histogram. */
interface Metric {
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly values: () => Iterable<readonly [rest: string, value: number]>;
}

/** Prometheus' text format (prometheus.io/docs/instrumenting/exposition_formats). */
function textOf({ name, help, type, values }: Metric): string {
  const lines = [...values()].map(([rest, value]) => `${name}${rest} ${value}\n`);
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join('')}\n`;
}

/** Upper bounds of the histogram's buckets, in seconds. */
const buckets = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3];

function countOne<Key>(counts: Map<Key, number>, key: Key): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

function* byOutcome(counts: ReadonlyMap<string, number>): Generator<[string, number]> {
  for (const [outcome, count] of counts) yield [`{outcome="${outcome}"}`, count];
}

/**
 * The metrics of the process, such as the event loop's lag, from the first look on: before, they are
 * neither loaded nor measured.
 */
function processMetrics(): () => Promise<string> {
  let loading: Promise<Registry> | undefined;
  async function load(): Promise<Registry> {
    const prometheus = await import('prom-client');
    const registry = new prometheus.Registry();
    prometheus.collectDefaultMetrics({ register: registry });
    return registry;
  }
  return async () => {
    loading ??= load();
    return (await loading).metrics();
  };
}

/** Creates the metrics of a daemon. What a request counts are plain numbers: a library's took longer than the answer. */
export function createMetrics(counts: Counts): Metrics {
  const requests = new Map<string, Map<number, number>>();
  let unknownCallers = 0;
  let withoutToken = 0;
  const uploads = new Map<string, number>();
  const uploadsWithin = buckets.map(() => 0);
  let uploadSeconds = 0;
  const dnsmasqReloads = new Map<string, number>();
  const processText = processMetrics();

  const metrics: readonly Metric[] = [
    {
      name: 'mdserver_requests_total',
      help: 'Requests from instances, by kind and response status.',
      type: 'counter',
      *values() {
        for (const [kind, statuses] of requests) {
          for (const [status, count] of statuses) {
            yield [`{kind="${kind}",status="${status}"}`, count];
          }
        }
      },
    },
    {
      name: 'mdserver_unknown_callers_total',
      help: 'Requests from addresses that belong to no instance.',
      type: 'counter',
      values: () => [['', unknownCallers]],
    },
    {
      name: 'mdserver_requests_without_token_total',
      help: 'EC2 requests from instances without a session token (IMDSv1).',
      type: 'counter',
      values: () => [['', withoutToken]],
    },
    {
      name: 'mdserver_uploads_total',
      help: 'Uploads of domains, by response status.',
      type: 'counter',
      values: () => byOutcome(uploads),
    },
    {
      name: 'mdserver_upload_durable_seconds',
      help: 'Time from an upload until its record is on disk and dnsmasq has been notified.',
      type: 'histogram',
      *values() {
        for (const [index, bound] of buckets.entries()) {
          yield [`_bucket{le="${bound}"}`, uploadsWithin[index] ?? 0];
        }
        const all = uploads.get('200') ?? 0;
        yield ['_bucket{le="+Inf"}', all];
        yield ['_sum', uploadSeconds];
        yield ['_count', all];
      },
    },
    {
      name: 'mdserver_dnsmasq_reloads_total',
      help: 'Reloads of dnsmasq: told to read its files again, or absent because it was not running.',
      type: 'counter',
      values: () => byOutcome(dnsmasqReloads),
    },
    {
      name: 'mdserver_instances',
      help: 'Instances in the database.',
      type: 'gauge',
      values: () => [['', counts.instances()]],
    },
    {
      name: 'mdserver_free_addresses',
      help: 'IPv4 addresses of the network that are free.',
      type: 'gauge',
      values: () => [['', counts.freeAddresses()]],
    },
    {
      name: 'mdserver_boots',
      help: 'Instances, by the outcome of their latest boot.',
      type: 'gauge',
      values: () => byOutcome(counts.boots()),
    },
    {
      name: 'mdserver_templates_refused',
      help: 'Templates whose newest version does not render for some instance that asked.',
      type: 'gauge',
      values: () => [['', counts.refusedTemplates()]],
    },
  ];

  return {
    request(kind, status) {
      let statuses = requests.get(kind);
      if (statuses === undefined) {
        statuses = new Map();
        requests.set(kind, statuses);
      }
      countOne(statuses, status);
    },
    unknownCaller() {
      unknownCallers += 1;
    },
    requestWithoutToken() {
      withoutToken += 1;
    },
    upload(outcome, seconds) {
      countOne(uploads, outcome);
      if (outcome !== '200') return;
      uploadSeconds += seconds;
      for (const [index, bound] of buckets.entries()) {
        if (seconds <= bound) uploadsWithin[index] = (uploadsWithin[index] ?? 0) + 1;
      }
    },
    dnsmasqReload: (outcome) => countOne(dnsmasqReloads, outcome),
    text: async () => (await processText()) + metrics.map(textOf).join(''),
    contentType: 'text/plain; version=0.0.4; charset=utf-8',
  };
}
