import type { BootRecord, Boots } from './boots/boots.js';
import type { Config } from './config/options.js';
import { DomainXmlError, NoInterfaceError } from './instances/domain.js';
import { describeInstance, type Instance } from './instances/instance.js';
import {
  ChosenAddressError,
  instanceOf,
  NoAddressError,
  PortConflictError,
} from './instances/instances.js';
import { type Registry, StoreError } from './instances/registry.js';
import { settingProblems } from './instances/settings.js';
import { datasourceOf, namesNone } from './instances/smbios.js';
import type { Logger } from './log.js';
import type { Metrics } from './metrics.js';
import { operand } from './text.js';

/** The largest XML of libvirt that is taken, in bytes; its own have about 10 KB. */
export const maxXmlBytes = 1024 * 1024;

/** The operations of libvirt that begin a boot, or find one that goes on. */
export const bootOperations = ['prepare', 'restore', 'reconnect', 'migrate', 'attach'] as const;

/** One of them. */
export type BootOperation = (typeof bootOperations)[number] & BootRecord['by'];

/** What takes in what libvirt tells. */
export interface UploadParts {
  /** The configuration in force. */
  readonly config: () => Config;
  readonly registry: Pick<Registry, 'instances' | 'register' | 'registerPort' | 'leaveNetwork'>;
  readonly boots: Boots;
  readonly metrics: Pick<Metrics, 'upload'>;
  readonly log: Logger;
}

/** A domain or a port, as libvirt tells of it. */
export interface Upload {
  readonly xml: Buffer;
  /** What libvirt does with the domain; undefined if nobody says. */
  readonly operation?: BootOperation | undefined;
  /** When libvirt told of it, in Unix seconds; undefined if that is now. */
  readonly at?: number | undefined;
}

/** The HTTP status for an error that refuses what libvirt tells; undefined for any other error. */
export function uploadErrorStatus(error: unknown): number | undefined {
  if (error instanceof NoInterfaceError) return 422;
  if (error instanceof DomainXmlError || error instanceof ChosenAddressError) return 400;
  if (error instanceof PortConflictError) return 409;
  if (error instanceof NoAddressError) return 503;
  return error instanceof StoreError ? 500 : undefined;
}

/** What a domain keeps as long as it runs. */
const identity = ['name', 'uuid', 'mac', 'ipv4', 'ipv6'] as const;

/**
 * Registers the domain of a libvirt domain XML, and begins its boot. When the promise resolves, the
 * instance is on disk and dnsmasq has been notified. Rejects with DomainXmlError, OutdatedError,
 * NoAddressError, ChosenAddressError or StoreError.
 */
export async function takeDomain(parts: UploadParts, upload: Upload): Promise<Instance> {
  const { registry, boots, metrics, log } = parts;
  const started = performance.now();
  let known: Instance | undefined;
  try {
    const domain = await readDomain(parts, upload);
    const before = instanceOf(registry.instances, domain);
    known = before?.uuid === domain.uuid ? before : undefined;
    // To be asked before: the boots of a uuid that goes are forgotten.
    const runs = before !== undefined && boots.of(before)[0]?.ended === null;
    const instance = await registry.register(domain, upload.at);
    if (runs && identity.some((field) => before[field] !== instance[field])) {
      log.warn(
        `an upload changed an instance whose guest runs: ${describeInstance(before)} is now ${describeInstance(instance)}`,
      );
    }
    metrics.upload('200', (performance.now() - started) / 1000);
    beginBoot(boots, instance, upload);
    logDatasource(parts, instance, before);
    for (const problem of settingProblems(instance, parts.config().publicKeys)) {
      log.warn(`${instance.name}: ${problem}`);
    }
    log.info(`${instance.name} (${instance.mac}) has the address ${instance.ipv4}`);
    return instance;
  } catch (error) {
    const status = uploadErrorStatus(error);
    if (status !== undefined) metrics.upload(String(status), 0);
    // Its guest starts all the same, with the record that it has: its address is in use.
    if (error instanceof ChosenAddressError && known !== undefined) {
      beginBoot(boots, { ...known, lastUpdate: upload.at }, upload);
    }
    throw error;
  }
}

/** Logs that a domain names no datasource, if it is the news of this upload. */
function logDatasource(
  { boots, log }: UploadParts,
  instance: Instance,
  before: Instance | undefined,
): void {
  if (datasourceOf(instance) !== 'none') return;
  if (before !== undefined && datasourceOf(before) === 'none') return;
  if (boots.of(instance).some(({ requests }) => requests > 0)) return;
  log.info(`${instance.name}: its ${namesNone}: see mdserverctl explain ${operand(instance.name)}`);
}

/** Seconds for which the hook waits for an answer, at most: then it keeps what it may have delivered. */
const hookTime = 5;

/** Begins the boot of an instance that was uploaded, unless the same upload has begun it. */
function beginBoot(boots: Boots, instance: Instance, { operation, at }: Upload): void {
  if (operation === undefined) return;
  const [newest] = boots.of(instance);
  const isBegun = newest?.by === operation && newest.ended === null;
  if (isBegun && at !== undefined && at - newest.started < hookTime) return;
  boots.begin(instance, operation, instance.lastUpdate);
}

/** The domain of an upload. Remembers of a known one that it has left the network, and throws then, too. */
async function readDomain({ config, registry, log }: UploadParts, { xml, at }: Upload) {
  const { parseDomain } = await import('./instances/domain-xml.js');
  try {
    return parseDomain(xml, config().dnsmasq);
  } catch (error) {
    if (!(error instanceof NoInterfaceError)) throw error;
    const left = await registry.leaveNetwork(error.uuid, at);
    if (left !== undefined) {
      log.warn(
        `${describeInstance(left)} has left the network: ${error.message}. Its record stays: give the domain an interface there again, or remove the record (mdserverctl sync --prune)`,
      );
    }
    throw error;
  }
}

/**
 * Registers the domain of a port, as libvirt describes it to its network hook, if no record has its
 * uuid. Rejects as `takeDomain` does, and with PortConflictError.
 */
export async function takePort(
  { config, registry, log }: UploadParts,
  { xml, at }: Upload,
): Promise<void> {
  const { parsePort } = await import('./instances/domain-xml.js');
  const instance = await registry.registerPort(parsePort(xml, config().dnsmasq), at);
  if (instance === undefined) return;
  log.info(
    `${instance.name} (${instance.mac}) has the address ${instance.ipv4}: its interface came after its start`,
  );
}
