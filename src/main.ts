#!/usr/bin/env node
import { setTimeout as wait } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { chooseConfig, isRefusal } from './chosen.js';
import { keepLastGood } from './config/last-good.js';
import {
  changesNeedingRestart,
  type LoadedConfig,
  loadConfig,
  reloadedConfig,
} from './config/load.js';
import { type Config, ownVersion, releaseDate } from './config/options.js';
import { unitRuntimeFolder, unitStateFolder } from './config/unit.js';
import { controlSocketPath, linkSocket, listenOnSocket, removeLink } from './control/socket.js';
import { createDaemon, type Daemon } from './daemon.js';
import type { Health } from './health.js';
import { buildApp } from './http/app.js';
import { peerOf } from './http/caller.js';
import { ListenError, listen } from './http/listen.js';
import type { Instances } from './instances/instances.js';
import { jsonFile } from './instances/json-file.js';
import { type Logger, type Logging, startLogging } from './log.js';
import { giveMemoryBack, setMemoryFlags } from './memory.js';
import { serverUrl } from './network.js';
import { keepTrying } from './retries.js';
import { feedWatchdog, type Notice, type Notify, systemdNotifier, writeError } from './systemd.js';
import { defaultConfigFile, usage } from './usage.js';
import { missingDefault } from './userdata/find.js';

/** EX_CONFIG (sysexits.h): a restart would not help, so systemd does not try. */
const configExit = 78;

/** An error that an operator can fix; the message says how. */
class StartError extends Error {}

function readArguments(): { file: string; check: boolean } | { print: string } {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        check: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
        version: { type: 'boolean', short: 'V' },
      },
    });
    if (values.help) return { print: usage };
    if (values.version) return { print: `mdserver ${ownVersion} (${releaseDate})\n` };
    if (positionals.length > 1) throw new Error('more than one configuration file given');
    return { file: positionals[0] ?? defaultConfigFile, check: values.check === true };
  } catch (error) {
    throw new StartError(`${(error as Error).message.split('\n')[0]}; see mdserver --help`);
  }
}

/** Logs commands to try next if the server runs on a loopback address, as the demo does. */
function logNextSteps(log: Logger, { mdserver }: Config, instances: Instances): void {
  const [address] = mdserver.listen_address;
  if (!address.startsWith('127.')) return;
  const url = serverUrl(address, mdserver.port);
  const known = instances.byName.values().next().value;
  const from = known?.ipv4 ?? 'ADDRESS';
  log.info('to try it, run in another terminal:');
  log.info(
    `  curl -H 'Accept: application/json' -d @etc/libvirt/sample-domain.xml ${url}/instance-upload`,
  );
  if (known === undefined) log.info('and, with the address that it returns as mds_ipv4:');
  log.info(`  curl --interface ${from} ${url}/latest/meta-data/hostname`);
  log.info(`  curl --interface ${from} ${url}/latest/user-data`);
}

/** Milliseconds between two looks at what the status line of `systemctl status` says. */
const statusInterval = 5000;

/** The status line of `systemctl status`: what is wrong, or that all is well. */
function statusLine({ instances, problems }: Health, { mdserver }: Config): string {
  if (problems.length > 0) return problems.join('; ');
  const urls = mdserver.listen_address.map((address) => serverUrl(address, mdserver.port));
  return `${instances} instance${instances === 1 ? '' : 's'}, serving on ${urls.join(', ')}`;
}

/**
 * Keeps the status line of `systemctl status` up to date. Returns a function that tells it now, with something
 * else, whether it has changed or not.
 */
function keepStatus(notify: Notify, status: () => string): (notice: Notice) => void {
  let told: string | undefined;
  const tell = (notice: Notice) => {
    told = status();
    notify({ ...notice, STATUS: told });
  };
  setInterval(() => {
    if (status() !== told) tell({});
  }, statusInterval).unref();
  return tell;
}

/**
 * Says what is wrong with the configuration and the database, one line each on standard error.
 * Returns the exit status: 78 if mdserver would not start with them. Writes nothing.
 */
async function check(file: string): Promise<number> {
  try {
    const warn = (warning: string) => writeError(4, `mdserver: warning: ${warning}\n`);
    const { config, warnings } = loadConfig(file);
    warnings.forEach(warn);
    const missing = missingDefault(config.mdserver.default_template);
    if (missing !== undefined) warn(missing);
    const stored = await jsonFile(config.mdserver.db_file).load();
    stored.warnings.forEach(warn);
    return 0;
  } catch (error) {
    if (!isOperatorError(error)) throw error;
    writeError(3, `mdserver: ${(error as Error).message}\n`);
    return configExit;
  }
}

async function run(file: string): Promise<void> {
  // Without a listener the signal would end the process, and it may come at any time.
  let onReload = () => {};
  process.on('SIGHUP', () => onReload());

  setMemoryFlags();
  // For folders; files have modes of their own. dnsmasq may run as another user.
  process.umask(0o022);
  const folder = unitStateFolder();
  const chosen = await chooseConfig(file, folder);
  let loaded: LoadedConfig = chosen;
  let { refusal } = chosen;
  const logging = startLogging(loaded.config);
  const { log } = logging;
  let isStopping = false;
  const notify = systemdNotifier((reason) => {
    // systemd ends all processes of a unit that it stops.
    if (!isStopping) log.error(`cannot tell systemd the state of mdserver: ${reason}`);
  });
  // From here on: a start with many instances on a slow disk may take longer than the watchdog waits.
  if (notify !== undefined) feedWatchdog(notify);
  try {
    log.info(`mdserver ${ownVersion} starts with ${chosen.source}`);
    if (refusal !== undefined) log.error(refusalText(refusal));
    for (const warning of loaded.warnings) log.warn(warning);

    const config = () => loaded.config;
    const parts = await createDaemon(config, log);
    const { registry, problemSources } = parts;
    giveMemoryBack(registry.instances.byName.size > largeDatabase ? 'large' : 'small');
    const app = buildApp(parts);
    const { listen_address: addresses, port } = config().mdserver;
    const whose = (remote: string | undefined) =>
      peerOf(config().mdserver, registry.instances, remote);
    const listening = await listen(app, addresses, port, { ...parts, peerOf: whose });
    problemSources.push(listening.problems, logging.problems, () =>
      refusal === undefined ? [] : [refusalText(refusal)],
    );
    const control = serveControl(parts);
    const stop = async (signal: string) => {
      isStopping = true;
      log.info(`${signal}: mdserver is stopping`);
      notify?.({ STOPPING: '1', STATUS: 'stopping' });
      await Promise.all([listening.close(), control.then((served) => served.close())]);
      await registry.close();
      log.info('mdserver has stopped');
      logging.flush();
      process.exit(0);
    };
    for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => void stop(signal));
    let keeping = Promise.resolve();
    const keep = () => {
      if (folder === undefined || refusal !== undefined) return;
      const { sections } = loaded;
      keeping = keeping
        .then(() => keepLastGood(folder, sections))
        .catch((error: Error) => log.warn(`cannot keep the configuration: ${error.message}`));
    };
    let tell: (notice: Notice) => void = () => {};
    onReload = () => {
      notify?.({ RELOADING: '1' });
      const next = reload(file, loaded, logging);
      if (typeof next === 'string') refusal = next;
      else {
        loaded = next;
        refusal = undefined;
        keep();
      }
      tell({ READY: '1' });
      void tryNeighbours(parts);
      registry.refresh().catch(() => log.error('cannot read the database again'));
    };

    await control;
    keep();
    logNextSteps(log, config(), registry.instances);
    if (notify !== undefined) {
      tell = keepStatus(notify, () => statusLine(parts.health(), config()));
      tell({ READY: '1' });
    }
    void tryNeighbours(parts);
    setTimeout(() => void loadRest(log), restDelay);
  } catch (error) {
    const clear = isOperatorError(error) || isSystemError(error);
    log.fatal({ err: clear ? undefined : error }, (error as Error).message);
    throw error;
  }
}

/** What the log and the health report say as long as the configuration file has an error. */
function refusalText(refusal: string): string {
  return `the last good configuration is in force, because the new one has an error: ${refusal}`;
}

/** The instances of a database above which the heap is a large one. */
const largeDatabase = 5000;

/** Milliseconds from the start to the loading of what the first answer does without. */
const restDelay = 1000;

/**
 * Loads what the first answer does without, so that no upload waits for it. Later it might be of
 * another release: npm replaces the files while mdserver runs.
 */
async function loadRest(log: Logger): Promise<void> {
  try {
    await import('./instances/domain-xml.js');
  } catch (error) {
    const reason = (error as Error).message;
    log.error(
      `uploads fail, because their parser cannot be loaded: ${reason}. Install mdserver again`,
    );
  }
}

/** Milliseconds from the serving of guests to the work for the control socket, which takes as long. */
const controlDelay = 10;

/**
 * Serves the control socket, and tries again if it cannot: metadata is served without it. Resolves
 * after the first try.
 */
async function serveControl(parts: Daemon): Promise<{ close(): Promise<void> }> {
  const path = controlSocketPath(parts.config());
  let close = async () => {};
  // Guests that wait are served meanwhile.
  await wait(controlDelay);
  const problems = await keepTrying('mdserverctl is not served', parts.log, async () => {
    const { buildControl } = await import('./control/routes.js');
    const control = buildControl(parts);
    await control.ready();
    removeLink(path, unitRuntimeFolder());
    await listenOnSocket(control.server, path);
    linkSocket(path, unitRuntimeFolder());
    close = () => control.close();
    parts.log.info(`mdserverctl is served on ${path}`);
  });
  parts.problemSources.push(problems);
  return { close: () => close() };
}

/** Logs an error if check_mac refuses all instances, because the neighbour table cannot be read. */
async function tryNeighbours({ config, neighbourMac, log }: Daemon): Promise<void> {
  const { mdserver, dnsmasq } = config();
  if (!mdserver.check_mac) return;
  try {
    await neighbourMac(dnsmasq.gateway);
  } catch (error) {
    const reason = (error as Error).message;
    log.error(`mdserver.check_mac = yes refuses every instance: ${reason}. Install iproute2`);
  }
}

/** The configuration after a reload; if the new one has an error, what is wrong with it. */
function reload(
  file: string,
  before: LoadedConfig,
  { log, reopen, setLevels }: Logging,
): LoadedConfig | string {
  try {
    reopen();
  } catch (error) {
    log.error(`cannot reopen the log file: ${(error as Error).message}`);
  }
  try {
    const next = loadConfig(file);
    for (const warning of next.warnings) log.warn(warning);
    for (const name of changesNeedingRestart(before.config, next.config)) {
      log.warn(`${name} has changed: restart mdserver to apply it`);
    }
    const loaded = reloadedConfig(before, next);
    setLevels(loaded.config);
    log.info('read the configuration again');
    return loaded;
  } catch (error) {
    const { message } = error as Error;
    log.error(`kept the old configuration: ${message}`);
    return message;
  }
}

/** An error that an operator must fix before mdserver can start. */
function isOperatorError(error: unknown): boolean {
  return error instanceof StartError || isRefusal(error);
}

/** An error of the system (ENOSPC, EACCES, …): it says what and where, and may be temporary. */
function isSystemError(error: unknown): boolean {
  return /^E[A-Z0-9]+$/.test((error as NodeJS.ErrnoException).code ?? '');
}

// A function, since a bundle in CommonJS has no await outside of one.
async function main(): Promise<void> {
  try {
    const invocation = readArguments();
    if ('print' in invocation) process.stdout.write(invocation.print);
    else if (invocation.check) process.exitCode = await check(invocation.file);
    else await run(invocation.file);
  } catch (error) {
    const { message, stack } = error as Error;
    const text = isOperatorError(error) || isSystemError(error) ? message : (stack ?? error);
    writeError(3, `mdserver: ${text}\n`);
    // The other program on a port may still end.
    process.exit(isOperatorError(error) && !(error instanceof ListenError) ? configExit : 1);
  }
}

void main();
