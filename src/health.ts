import { dnsmasqLogPath, isReadable } from './boots/dhcp-log.js';
import { type Config, ownVersion } from './config/options.js';
import { findDnsmasq } from './dnsmasq/dnsmasq.js';
import type { Store } from './instances/store.js';

/** How the daemon is. */
export interface Health {
  readonly status: 'ok' | 'degraded';
  readonly version: string;
  readonly uptime_seconds: number;
  readonly instances: number;
  /** Whether dnsmasq's log is there to be read, which DHCP events come from. */
  readonly dhcp_log: boolean;
  /** What is wrong, a line each; empty when all is well. */
  readonly problems: readonly string[];
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
