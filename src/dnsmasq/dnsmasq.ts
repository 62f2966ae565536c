import { mkdirSync, readFileSync, realpathSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Config } from '../config/options.js';
import { replaceFiles } from '../files.js';
import type { Instances } from '../instances/instances.js';
import type { Subscriber } from '../instances/store.js';
import type { Logger } from '../log.js';
import {
  dhcpHosts,
  dnsHosts,
  dnsmasqConfiguration,
  dnsmasqOptions,
  dnsmasqPaths,
} from './files.js';
import { type Lease, releaseLeases } from './release.js';

type Settings = Pick<Config, 'mdserver' | 'dnsmasq'>;

/** Makes dnsmasq's folders and writes its configuration and options, which it reads when it starts. */
export async function writeConfiguration(config: Settings, log: Logger): Promise<void> {
  const paths = dnsmasqPaths(config.dnsmasq);
  mkdirSync(paths.dhcpFolder, { recursive: true });
  mkdirSync(paths.dnsFolder, { recursive: true });
  try {
    mkdirSync(dirname(paths.pid), { recursive: true });
  } catch (error) {
    log.warn(`dnsmasq has no folder for its pid file: ${(error as Error).message}`);
  }
  await replaceFiles([dnsmasqConfiguration(config), dnsmasqOptions(config)]);
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return undefined;
    throw error;
  }
}

/** A dnsmasq that runs on our configuration, or why there is none to be told of a change. */
export type DnsmasqState =
  | { readonly pid: number }
  | { readonly pid: undefined; readonly problem: string; readonly expected: boolean };

/**
 * Looks for the dnsmasq of our pid file. That alone proves nothing: the number may be another
 * process's now. Not `expected` is what dnsmasq leaves behind when it did not end well.
 */
export function findDnsmasq({ dnsmasq }: Settings): DnsmasqState {
  const paths = dnsmasqPaths(dnsmasq);
  const none = (problem: string, expected = false) => ({ pid: undefined, problem, expected });
  const text = readIfThere(paths.pid)?.trim();
  if (text === undefined) {
    const problem = `dnsmasq is not running (no ${paths.pid}): it reads its files when it starts`;
    return none(problem, true);
  }
  const pid = /^[1-9]\d{0,9}$/.test(text) ? Number(text) : undefined;
  if (pid === undefined) {
    return none(`${paths.pid} holds no process id: dnsmasq was not told; restart dnsmasq`);
  }
  const name = readIfThere(`/proc/${pid}/comm`)?.trim();
  if (name === undefined) {
    return none(`dnsmasq is not running: ${paths.pid} names process ${pid}, which is gone`);
  }
  const configurations = [paths.configuration, realpathSync(paths.configuration)];
  const words = readIfThere(`/proc/${pid}/cmdline`)?.split('\0') ?? [];
  const ours = words.some((word) => configurations.some((path) => word.endsWith(path)));
  if (name === 'dnsmasq' && ours) return { pid };
  return none(
    `process ${pid} of ${paths.pid} is not a dnsmasq with --conf-file=${paths.configuration}: not signalled; restart dnsmasq`,
  );
}

/**
 * Tells dnsmasq to read its hosts files again (SIGHUP); gives whether one was there to be told.
 * What goes wrong is logged, never thrown.
 */
function reloadDnsmasq(config: Settings, log: Logger): boolean {
  try {
    const state = findDnsmasq(config);
    if (state.pid === undefined) {
      log[state.expected ? 'info' : 'warn'](state.problem);
      return false;
    }
    process.kill(state.pid, 'SIGHUP');
    log.debug(`dnsmasq (process ${state.pid}) reads its hosts files again`);
    return true;
  } catch (error) {
    log.error(`dnsmasq was not told of the change: ${(error as Error).message}`);
    return false;
  }
}

function leasesOf(instances: Instances): Map<string, Lease> {
  const leases = new Map<string, Lease>();
  for (const { ipv4, mac } of instances.byName.values()) {
    if (ipv4 !== undefined && mac !== undefined) leases.set(`${ipv4} ${mac}`, { ipv4, mac });
  }
  return leases;
}

/** What dnsmasq has to know of the instances: its hosts files, and a word after each change. */
export function dnsmasqSubscriber(
  config: Settings,
  log: Logger,
  told: (outcome: 'told' | 'absent') => void,
): Subscriber {
  let leases = new Map<string, Lease>();

  /** Ends the leases of machines that have been removed or have another address or MAC now. */
  async function endLeases(ended: readonly Lease[]): Promise<void> {
    try {
      await releaseLeases(ended, config.dnsmasq.gateway);
    } catch (error) {
      log.error(
        `dnsmasq may keep the leases of removed instances until they end: ${(error as Error).message}`,
      );
    }
  }

  return {
    files: (instances) => [dhcpHosts(config, instances), dnsHosts(config, instances)],
    changed: (instances) => {
      const before = leases;
      leases = leasesOf(instances);
      const running = reloadDnsmasq(config, log);
      told(running ? 'told' : 'absent');
      if (!running) return;
      const ended = [...before].filter(([key]) => !leases.has(key)).map(([, lease]) => lease);
      if (ended.length > 0) void endLeases(ended);
    },
  };
}
