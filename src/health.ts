import { dnsmasqLogPath, isReadable } from './boots/dhcp-log.js';
import { type Config, ownVersion } from './config/options.js';
import { dnsmasqProblem } from './dnsmasq/dnsmasq.js';
import type { Registry } from './instances/registry.js';

/** The state of the daemon and its surroundings. */
export interface Health {
  readonly status: 'ok' | 'degraded';
  readonly version: string;
  readonly uptime_seconds: number;
  readonly instances: number;
  /** Whether mdserver can read dnsmasq's log, the source of DHCP events. */
  readonly dhcp_log: boolean;
  /** One line for each problem. */
  readonly problems: readonly string[];
}

/** A part of the daemon that can have problems: one line for each that it has now. */
export type ProblemSource = () => readonly string[];

/** Looks at the daemon and its surroundings. `sources` are its other parts that can have problems. */
export function healthOf(
  config: Config,
  registry: Registry,
  sources: Iterable<ProblemSource>,
): Health {
  const dnsmasq = dnsmasqProblem(config);
  const problems = [
    ...(dnsmasq === undefined ? [] : [dnsmasq]),
    ...(registry.problem === undefined ? [] : [registry.problem]),
    ...Array.from(sources, (problemsOf) => problemsOf()).flat(),
  ];
  return {
    status: problems.length === 0 ? 'ok' : 'degraded',
    version: ownVersion,
    uptime_seconds: process.uptime(),
    instances: registry.instances.byName.size,
    dhcp_log: isReadable(dnsmasqLogPath(config)),
    problems,
  };
}
