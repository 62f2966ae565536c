import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Boots } from '../boots/boots.js';
import { dnsmasqLogPath, isReadable } from '../boots/dhcp-log.js';
import { type Config, ownVersion } from '../config/options.js';
import type { Health } from '../control/api.js';
import { findDnsmasq } from '../dnsmasq/dnsmasq.js';
import { isHostAddress } from '../instances/addresses.js';
import type { AddressPlan } from '../instances/instances.js';
import type { Store } from '../instances/store.js';
import type { Counts, Metrics } from '../metrics.js';
import { parseIpv4 } from '../network.js';

/** `/metrics` for Prometheus and `/health`, for those who may ask; to others they are not there. */
export function monitoringRoutes(
  app: FastifyInstance,
  { metrics, health }: { readonly metrics: Metrics; readonly health: () => Health },
  mayAsk: (request: FastifyRequest) => boolean,
): void {
  app.get('/metrics', async (request, reply) => {
    if (!mayAsk(request)) return reply.callNotFound();
    return reply.type(metrics.contentType).send(await metrics.text());
  });
  app.get('/health', async (request, reply) => {
    if (!mayAsk(request)) return reply.callNotFound();
    const state = health();
    return reply.code(state.status === 'ok' ? 200 : 503).send(state);
  });
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

/** Why there is no dnsmasq to be told of changes; undefined where there is one. */
function dnsmasqProblem(config: Config): string | undefined {
  try {
    const dnsmasq = findDnsmasq(config);
    return dnsmasq.pid === undefined ? dnsmasq.problem : undefined;
  } catch (error) {
    return `dnsmasq cannot be looked for: ${(error as Error).message}`;
  }
}

/** How the daemon is: what is wrong with its surroundings is said, a line each. */
export function healthOf(config: Config, store: Store): Health {
  const dnsmasq = dnsmasqProblem(config);
  const problems = [
    ...(dnsmasq === undefined ? [] : [dnsmasq]),
    ...(store.problem === undefined ? [] : [store.problem]),
  ];
  return {
    status: problems.length === 0 ? 'ok' : 'degraded',
    version: ownVersion,
    uptime_seconds: process.uptime(),
    instances: store.instances.byName.size,
    dhcp_log: isReadable(dnsmasqLogPath(config)),
    problems,
  };
}
