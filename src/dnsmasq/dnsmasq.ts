import { closeSync, mkdirSync, openSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { unitStateFolder } from '../config/unit.js';
import { type FileContent, replaceFiles } from '../files.js';
import type { Instance } from '../instances/instance.js';
import type { Change, Subscriber } from '../instances/registry.js';
import type { Logger } from '../log.js';
import type { IpAddress, Ipv6 } from '../network.js';
import {
  type DnsmasqConfig,
  dnsmasqConfiguration,
  dnsmasqPaths,
  dnsmasqStart,
  hostsFiles,
} from './files.js';
import type { Leases6 } from './leases6.js';
import { holderText, listeners, ownerText, socketsInTheWay } from './ports.js';
import { type Lease, releaseLeases } from './release.js';

/** Whether the file is as it would be written: a text, and readable for everybody. */
function isWritten({ path, content }: FileContent): boolean {
  try {
    return (statSync(path).mode & 0o777) === 0o644 && readFileSync(path, 'utf8') === content;
  } catch {
    // There is none, or something else: to write it says what is wrong.
    return false;
  }
}

/** The value of an option in a file of dnsmasq; undefined if there is no such line or file. */
function valueIn(file: string, option: string): string | undefined {
  const text = readIfExists(file) ?? '';
  return text
    .split('\n')
    .find((line) => line.startsWith(`${option}=`))
    ?.slice(option.length + 1);
}

/** The log, if dnsmasq can write it: it does not start with one that it cannot open. */
function usableLog(path: string): string | undefined {
  // Not a file: it is mdserver's own standard output, or nothing.
  if (path.startsWith('/dev/')) return undefined;
  try {
    closeSync(openSync(path, 'a', 0o640));
    return path;
  } catch {
    return undefined;
  }
}

/**
 * Creates dnsmasq's folders and writes its configuration, which it reads only when it starts. If it has
 * not changed, it stays: the time of the file tells whether the dnsmasq that runs has read it.
 *
 * With the folder that systemd keeps for the unit, it also writes what the unit of dnsmasq starts it
 * with, and ends a dnsmasq that runs with something older: systemd starts it again.
 */
export async function writeConfiguration(
  config: DnsmasqConfig,
  dnsmasqLog: string,
  log: Logger,
  unitFolder: string | undefined,
): Promise<void> {
  const paths = dnsmasqPaths(config.dnsmasq);
  mkdirSync(paths.dhcpFolder, { recursive: true });
  mkdirSync(paths.dnsFolder, { recursive: true });
  try {
    mkdirSync(dirname(paths.pid), { recursive: true });
  } catch (error) {
    log.warn(`cannot create the folder of dnsmasq's pid file: ${(error as Error).message}`);
  }
  const configuration = dnsmasqConfiguration(config);
  const write = async (file: FileContent) => {
    if (!isWritten(file)) await replaceFiles([file]);
  };
  await write(configuration);
  if (unitFolder === undefined) return;
  const start = dnsmasqStart(config, unitFolder, usableLog(dnsmasqLog));
  // With another network or folder, the dnsmasq that runs has another pid file.
  const before = valueIn(start.path, 'conf-file') ?? configuration.path;
  const pidFile = valueIn(before, 'pid-file') ?? paths.pid;
  await write(start);
  endOutdated(pidFile, [configuration.path, start.path], log);
}

/** Ends the dnsmasq that was started before one of the files was written. Logs errors and never throws. */
function endOutdated(pidFile: string, files: readonly string[], log: Logger): void {
  try {
    // dnsmasq writes it when it has read its configuration.
    const started = statSync(pidFile, { throwIfNoEntry: false })?.mtimeMs;
    if (started === undefined || files.every((file) => statSync(file).mtimeMs <= started)) return;
    const pid = Number(readIfExists(pidFile));
    const name = readIfExists(`/proc/${pid}/comm`)?.trim();
    const isDnsmasq = name === 'dnsmasq' || (name === undefined && ownerOf(pid) === 'own');
    if (!Number.isInteger(pid) || pid < 1 || !isDnsmasq) return;
    process.kill(pid, 'SIGTERM');
    log.info(`dnsmasq (process ${pid}) ends, and starts again with its new configuration`);
  } catch (error) {
    log.error(`cannot end dnsmasq, whose configuration has changed: ${(error as Error).message}`);
  }
}

function readIfExists(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return undefined;
    throw error;
  }
}

/** The dnsmasq that runs with mdserver's configuration, or why none can be notified of a change. */
export type DnsmasqState =
  | { readonly pid: number }
  | {
      readonly pid: undefined;
      readonly problem: string;
      /** dnsmasq has not been started or was stopped: no reason for a warning. */
      readonly expected: boolean;
      /** There is no such process at all. */
      readonly isGone?: boolean;
      /** There is a process, but this user may not see whether it is dnsmasq. */
      readonly hidden?: boolean;
    };

/**
 * Whose a process is that is not in /proc: of this user, of another one, or of nobody, since it is gone. With ProtectProc=invisible in
 * its unit, mdserver sees its own processes except for those with capabilities that it lacks, and
 * that is only dnsmasq.
 */
function ownerOf(hidden: number): 'own' | 'foreign' | 'gone' {
  try {
    process.kill(hidden, 0);
    return 'own';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM' ? 'foreign' : 'gone';
  }
}

/** The words of a process's command line; none if it cannot be seen. */
export function commandLine(pid: number): string[] {
  return readIfExists(`/proc/${pid}/cmdline`)?.split('\0') ?? [];
}

/**
 * Whether the command line of a process names this configuration, what it is a link to, or a file that
 * names it, as the unit's does.
 */
export function readsConfiguration(pid: number, configuration: string): boolean {
  const configurations = [configuration, realpathSync(configuration)];
  return commandLine(pid).some((word) => {
    const [, file] = /^(?:--conf-file=|-C)(.+)$/.exec(word) ?? [];
    const included = file === undefined ? undefined : valueIn(file, 'conf-file');
    return [word, included].some((text) => configurations.some((path) => text?.endsWith(path)));
  });
}

/**
 * Finds the dnsmasq that the pid file names, and checks that the process is that dnsmasq: after a
 * crash, another process may have the number.
 */
export function findDnsmasq({ dnsmasq }: DnsmasqConfig): DnsmasqState {
  const paths = dnsmasqPaths(dnsmasq);
  const none = (problem: string, expected = false) => ({
    pid: undefined,
    problem,
    expected,
  });
  const text = readIfExists(paths.pid)?.trim();
  if (text === undefined) {
    const problem = `dnsmasq is not running (no ${paths.pid}); it will read its files when it starts`;
    return { ...none(problem, true), isGone: true };
  }
  const pid = /^[1-9]\d{0,9}$/.test(text) ? Number(text) : undefined;
  if (pid === undefined) {
    return none(
      `${paths.pid} does not contain a process ID: dnsmasq was not notified; restart dnsmasq`,
    );
  }
  const name = readIfExists(`/proc/${pid}/comm`)?.trim();
  if (name === undefined) {
    const owner = ownerOf(pid);
    if (owner === 'own') return { pid };
    if (owner === 'foreign') {
      const problem = `process ${pid} (from ${paths.pid}) cannot be seen, and belongs to another user`;
      return { ...none(problem), hidden: true };
    }
    const problem = `dnsmasq is not running: ${paths.pid} names process ${pid}, which is gone`;
    return { ...none(problem), isGone: true };
  }
  if (name === 'dnsmasq' && readsConfiguration(pid, paths.configuration)) return { pid };
  return none(
    `process ${pid} (from ${paths.pid}) is not a dnsmasq with --conf-file=${paths.configuration}: not signalled; restart dnsmasq`,
  );
}

/** Why mdserver cannot tell dnsmasq about changes; undefined if it can. */
export function dnsmasqProblem(config: DnsmasqConfig): string | undefined {
  try {
    const dnsmasq = findDnsmasq(config);
    if (dnsmasq.pid !== undefined) return undefined;
    return dnsmasq.isGone ? `${dnsmasq.problem}${whyNotRunning(config)}` : dnsmasq.problem;
  } catch (error) {
    return `cannot look for dnsmasq: ${(error as Error).message}`;
  }
}

/**
 * Why dnsmasq does not run, as far as mdserver can see: dnsmasq has no log before it serves, and says why it
 * ends to the journal, which mdserver may not read.
 */
function whyNotRunning({ dnsmasq, mdserver }: DnsmasqConfig): string {
  const onBridge = [dnsmasq.gateway, ...mdserver.listen_address];
  const sockets = socketsInTheWay(listeners() ?? [], dnsmasq, onBridge);
  if (sockets.length > 0) {
    // mdserver sees the processes of its own user only.
    return `; ${holderText(ownerText(undefined), sockets, dnsmasq.interface)}: 'mdserverctl check' names it`;
  }
  return unitStateFolder() === undefined
    ? ''
    : "; if it ends again and again, 'journalctl -u mdserver-dnsmasq' says why";
}

/** Milliseconds between two looks at dnsmasq. */
const watchInterval = 5000;
/** Milliseconds that dnsmasq may take to start: it starts after mdserver. */
const startTime = 20_000;

/** Whether dnsmasq can be told about changes. If it cannot be looked for, dnsmasqProblem says why. */
function isThere(config: DnsmasqConfig): boolean {
  try {
    return findDnsmasq(config).pid !== undefined;
  } catch {
    return false;
  }
}

/** Logs when dnsmasq is gone, and when it is back. */
export function watchDnsmasq(config: () => DnsmasqConfig, log: Logger): void {
  const started = performance.now();
  let wasThere = false;
  let isMissed = false;
  setInterval(() => {
    if (isThere(config())) {
      if (isMissed) log.info('dnsmasq is running again');
      wasThere = true;
      isMissed = false;
    } else if (!isMissed && (wasThere || performance.now() - started > startTime)) {
      // Only now, because it starts a program to find out who has the ports.
      const problem = dnsmasqProblem(config());
      if (problem === undefined) return;
      log.warn(`guests get no addresses and no names: ${problem}`);
      isMissed = true;
    }
  }, watchInterval).unref();
}

/**
 * Tells dnsmasq to read its hosts files again (SIGHUP). Returns whether it was running; logs errors
 * and never throws.
 */
function reloadDnsmasq(config: DnsmasqConfig, log: Logger): boolean {
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
    log.error(`cannot notify dnsmasq of the change: ${(error as Error).message}`);
    return false;
  }
}

/**
 * Whether a machine no longer has an address, or has it under another name. dnsmasq gives the leases of
 * a renamed machine no new name if they are DHCPv6's, or if the new name is none that DHCP can give.
 */
function isEnded({ instances }: Change, { name, mac }: Instance, address: IpAddress): boolean {
  const now = instances.byAddress.get(address);
  return now === undefined || now.mac !== mac || now.name !== name;
}

/** The leases that dnsmasq would keep until they expire, with an address and a name that are free again. */
function endedLeases(change: Change): Lease[] {
  return change.differences.flatMap(({ before }) => {
    if (before?.ipv4 === undefined || before.mac === undefined) return [];
    const { ipv4, mac } = before;
    return isEnded(change, before, ipv4) ? [{ ipv4, mac }] : [];
  });
}

/** The same for DHCPv6: the addresses. */
function ended6(change: Change): Ipv6[] {
  return change.differences.flatMap(({ before }) =>
    before?.ipv6 !== undefined && isEnded(change, before, before.ipv6) ? [before.ipv6] : [],
  );
}

/** Keeps dnsmasq up to date: writes its hosts files, reloads it and ends leases after a change. */
export function dnsmasqSubscriber(
  config: () => DnsmasqConfig,
  leases6: Pick<Leases6, 'end'>,
  log: Logger,
  onReload: (outcome: 'told' | 'absent') => void,
): Subscriber {
  // A new configuration of dnsmasq is in force after a restart only.
  const filesOf = hostsFiles(config());
  const paths = dnsmasqPaths(config().dnsmasq);
  /** dnsmasq has not been told of the last change. */
  let isBehind = true;

  /** Ends leases of machines that would otherwise be known until the leases expire. */
  async function endLeases(ended: readonly Lease[]): Promise<void> {
    try {
      await releaseLeases(ended, config().dnsmasq.gateway);
    } catch (error) {
      log.error(
        `dnsmasq may keep the leases of removed instances until they expire: ${(error as Error).message}`,
      );
    }
  }

  return {
    files: (instances) => Object.values(filesOf(instances, config())),
    changed: (change) => {
      const read = [paths.dhcpHosts, paths.dnsHosts, paths.options];
      if (read.some((path) => change.written.has(path))) isBehind = true;
      if (!isBehind) return;
      isBehind = !reloadDnsmasq(config(), log);
      onReload(isBehind ? 'absent' : 'told');
      if (isBehind) return;
      const ended = endedLeases(change);
      if (ended.length > 0) void endLeases(ended);
      for (const address of ended6(change)) void leases6.end(address);
    },
  };
}
