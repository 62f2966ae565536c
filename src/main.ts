#!/usr/bin/env node
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { ConfigError } from './config/dialect.js';
import { changesNeedingRestart, loadConfig, reloadedConfig } from './config/load.js';
import { type Config, ownVersion, releaseDate } from './config/options.js';
import type { ControlParts } from './control/routes.js';
import { controlSocketPath, listenOnSocket } from './control/socket.js';
import { createDaemon } from './daemon.js';
import { buildApp } from './http/app.js';
import { peerOf } from './http/caller.js';
import { ListenError, listen } from './http/listen.js';
import { DatabaseError } from './instances/database-file.js';
import type { Instances } from './instances/instances.js';
import { StoreError } from './instances/registry.js';
import { type Logger, type Logging, startLogging } from './log.js';
import { giveMemoryBack, keepHeapSmall } from './memory.js';
import { TokenKeyError } from './metadata/token-key.js';
import { serverUrl } from './network.js';
import { defaultConfigFile, usage } from './usage.js';

/** An error that an operator can fix; the message says how. */
class StartError extends Error {}

function readArguments(): { file: string } | { print: string } {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        help: { type: 'boolean', short: 'h' },
        version: { type: 'boolean', short: 'V' },
      },
    });
    if (values.help) return { print: usage };
    if (values.version) return { print: `mdserver ${ownVersion} (${releaseDate})\n` };
    if (positionals.length > 1) throw new Error('more than one configuration file given');
    return { file: positionals[0] ?? defaultConfigFile };
  } catch (error) {
    throw new StartError(`${(error as Error).message.split('\n')[0]}; see mdserver --help`);
  }
}

function openLog(config: Config): Logging {
  try {
    mkdirSync(dirname(config.mdserver.logfile), { recursive: true });
    return startLogging(config);
  } catch (error) {
    throw new StartError(`mdserver.logfile cannot be opened: ${(error as Error).message}`);
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

/**
 * Tells systemd that dnsmasq's configuration is written and requests are served (sd_notify(3)), for
 * units with Type=notify: an edited one of an earlier release stays in its place.
 */
async function notifyReady(log: Logger): Promise<void> {
  if (process.env['NOTIFY_SOCKET'] === undefined) return;
  const { execFile } = await import('node:child_process');
  execFile('systemd-notify', ['--ready', `--pid=${process.pid}`], (error) => {
    if (error) log.error(`cannot tell systemd that mdserver is ready: ${error.message}`);
  });
}

async function run(file: string): Promise<void> {
  // Without a listener the signal would end the process, and it may come at any time.
  let onReload = () => {};
  process.on('SIGHUP', () => onReload());

  keepHeapSmall();
  // For folders; files have modes of their own. dnsmasq may run as another user.
  process.umask(0o022);
  const loaded = loadConfig(file);
  let { config } = loaded;
  const logging = openLog(config);
  const { log } = logging;
  try {
    log.info(`mdserver ${ownVersion} starts with ${loaded.files.join(', ')}`);
    for (const warning of loaded.warnings) log.warn(warning);

    const parts = await createDaemon(() => config, log);
    const { registry } = parts;
    giveMemoryBack(registry.instances.byName.size > largeDatabase ? 'large' : 'small');
    const app = buildApp(parts);
    const { listen_address: addresses, port } = config.mdserver;
    const whose = (remote: string | undefined) =>
      peerOf(config.mdserver, registry.instances, remote);
    const listening = await listen(app, addresses, port, { ...parts, peerOf: whose });
    const control = serveControl(parts);
    const stop = async (signal: string) => {
      log.info(`${signal}: mdserver is stopping`);
      await Promise.all([listening.close(), control.then((app) => app?.close())]);
      await registry.close();
      log.info('mdserver has stopped');
      logging.flush();
      process.exit(0);
    };
    for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => void stop(signal));
    onReload = () => {
      config = reload(file, config, logging);
      void tryNeighbours(parts);
      registry.refresh().catch(() => log.error('cannot read the database again'));
    };

    await control;
    logNextSteps(log, config, registry.instances);
    void notifyReady(log);
    void tryNeighbours(parts);
    setTimeout(() => void loadRest(log), restDelay);
  } catch (error) {
    const clear = isOperatorError(error) || isSystemError(error);
    log.fatal({ err: clear ? undefined : error }, (error as Error).message);
    throw error;
  }
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

/** Serves the control socket. A failure is logged and not fatal: metadata is served without it. */
async function serveControl(parts: ControlParts) {
  const path = controlSocketPath(parts.config());
  try {
    // Guests are served by now, and need not wait for it.
    const { buildControl } = await import('./control/routes.js');
    const control = buildControl(parts);
    await control.ready();
    await listenOnSocket(control.server, path);
    parts.log.info(`mdserverctl is served on ${path}`);
    return control;
  } catch (error) {
    parts.log.warn(`mdserverctl is not served: ${(error as Error).message}`);
    return undefined;
  }
}

/** Logs an error if check_mac refuses all instances, because the neighbour table cannot be read. */
async function tryNeighbours({ config, neighbourMac, log }: ControlParts): Promise<void> {
  const { mdserver, dnsmasq } = config();
  if (!mdserver.check_mac) return;
  try {
    await neighbourMac(dnsmasq.gateway);
  } catch (error) {
    const reason = (error as Error).message;
    log.error(`mdserver.check_mac = yes refuses every instance: ${reason}. Install iproute2`);
  }
}

/** The configuration after a reload: the old one if the new one has an error. */
function reload(file: string, before: Config, { log, reopen, setLevels }: Logging): Config {
  try {
    reopen();
  } catch (error) {
    log.error(`cannot reopen the log file: ${(error as Error).message}`);
  }
  try {
    const { config: next, warnings } = loadConfig(file);
    for (const warning of warnings) log.warn(warning);
    for (const name of changesNeedingRestart(before, next)) {
      log.warn(`${name} has changed: restart mdserver to apply it`);
    }
    const config = reloadedConfig(before, next);
    setLevels(config);
    log.info('read the configuration again');
    return config;
  } catch (error) {
    log.error(`kept the old configuration: ${(error as Error).message}`);
    return before;
  }
}

/** An error that an operator must fix before mdserver can start. */
function isOperatorError(error: unknown): boolean {
  return [StartError, ConfigError, DatabaseError, ListenError, TokenKeyError].some(
    (kind) => error instanceof kind,
  );
}

/** An error of the system (ENOSPC, EACCES, …): it says what and where, and may be temporary. */
function isSystemError(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return error instanceof StoreError || /^E[A-Z0-9]+$/.test(code ?? '');
}

try {
  const invocation = readArguments();
  if ('print' in invocation) process.stdout.write(invocation.print);
  else await run(invocation.file);
} catch (error) {
  const { message, stack } = error as Error;
  const text = isOperatorError(error) || isSystemError(error) ? message : (stack ?? error);
  process.stderr.write(`mdserver: ${text}\n`);
  // EX_CONFIG (sysexits.h): a restart would not help, so systemd does not try. An address may still
  // appear.
  process.exit(isOperatorError(error) && !(error instanceof ListenError) ? 78 : 1);
}
