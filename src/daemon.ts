import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createBoots } from './boots/boots.js';
import {
  dhcpLines,
  dnsmasqLogPath,
  endOfLog,
  followDhcpLog,
  noAddress6,
} from './boots/dhcp-log.js';
import type { Config } from './config/options.js';
import { dropInProblems, unitFolders, unitStateFolder } from './config/unit.js';
import type { ControlParts } from './control/routes.js';
import { createSpool } from './control/spool.js';
import { dnsmasqSubscriber, watchDnsmasq, writeConfiguration } from './dnsmasq/dnsmasq.js';
import { createLeases6 } from './dnsmasq/leases6.js';
import { healthOf, type ProblemSource } from './health.js';
import { limitedLog } from './http/peer-log.js';
import { namingOf } from './instances/host-names.js';
import type { Instance } from './instances/instance.js';
import type { AddressPlan, Instances } from './instances/instances.js';
import { jsonFile, limitDatabaseMode } from './instances/json-file.js';
import { openRegistry, type Registry } from './instances/registry.js';
import type { Logger } from './log.js';
import { readTokenKey } from './metadata/token-key.js';
import { newTokenKey } from './metadata/tokens.js';
import { countsOf, createMetrics } from './metrics.js';
import { neighbourTable } from './neighbours.js';
import { ipv4Network, ipv6Network, peerAddress } from './network.js';
import { keepTrying, retryInterval } from './retries.js';
import { keepDebugCopy } from './userdata/debug-copies.js';
import { linkProblems, missingDefault } from './userdata/find.js';
import { keptTemplates } from './userdata/kept.js';
import { refusalLines } from './userdata/refused.js';
import { createUserdata } from './userdata/userdata.js';

function addressPlan({ mdserver, dnsmasq }: Config): AddressPlan {
  const own = [dnsmasq.gateway, ...mdserver.listen_address, ...(dnsmasq.listen_address ?? [])];
  return {
    network: ipv4Network(dnsmasq.net_address, dnsmasq.net_prefix),
    keptFree: dnsmasq.reserved,
    network6: dnsmasq.net_address6 && ipv6Network(dnsmasq.net_address6, dnsmasq.net_prefix6),
    reserved: new Set(own),
    restTime: dnsmasq.lease_len,
  };
}

/** What a daemon is made of. */
export interface Daemon extends ControlParts {
  /** What its parts have to say in the health report: each part adds its own. */
  readonly problemSources: ProblemSource[];
}

/** Whether the machine is one of the instances, under whatever name. */
function isKnown({ byUuid, byName }: Instances, { uuid, name }: Instance): boolean {
  return uuid === undefined ? byName.has(name) : byUuid.has(uuid);
}

/**
 * Writes the files that depend on the instances, again and again until it succeeds. The registry says
 * why it does not, in the log and in the health report.
 */
async function refreshUntilDone(registry: Registry): Promise<void> {
  try {
    await registry.refresh();
  } catch {
    setTimeout(() => void refreshUntilDone(registry), retryInterval).unref();
  }
}

/**
 * Puts a daemon together: loads the database, writes dnsmasq's files, and returns the parts that the
 * HTTP app and the control socket are built from. Nothing listens yet. `config` returns the
 * configuration in force, which a reload replaces.
 *
 * Guests are served what the database has, so a file that cannot be written is a problem and no
 * error: the disk may be full. Throws DatabaseError, and the file system's error if there is no
 * folder for the database.
 */
export async function createDaemon(config: () => Config, log: Logger): Promise<Daemon> {
  const start = config();
  const { db_file } = start.mdserver;
  const stateFolder = dirname(db_file);
  mkdirSync(stateFolder, { recursive: true });
  const plan = addressPlan(start);
  limitDatabaseMode(db_file);
  const boots = createBoots({
    // A machine that only starts now needs none of its leases from before, and may have a new DUID.
    started: ({ ipv6 }) => {
      if (ipv6 !== undefined) void leases6.end(ipv6);
    },
  });
  const registry = await openRegistry({
    backend: jsonFile(db_file),
    plan,
    naming: () => namingOf(config()),
    location: () => config().service.location,
    isGone: boots.isGone,
    log,
  });
  const leases6 = createLeases6({
    bridge: start.dnsmasq.interface,
    isInstances: (address) => registry.instances.byAddress.has(address),
    log,
  });
  const userdata = createUserdata({
    config,
    log,
    kept: keptTemplates(db_file, log),
    keepCopy: (name, body) => {
      if (!config().mdserver.debug_userdata) return;
      try {
        keepDebugCopy(join(stateFolder, 'debug-userdata'), name, body);
      } catch (error) {
        log.warn(`cannot keep a copy of the user-data of ${name}: ${(error as Error).message}`);
      }
    },
  });
  for (const { message } of linkProblems(start.mdserver.userdata_dir)) log.error(message);
  const missing = missingDefault(start.mdserver.default_template);
  if (missing !== undefined) log.warn(missing);
  const refusals = () => userdata.refusals(registry.instances.byName);
  const metrics = createMetrics({
    ...countsOf(() => registry.instances, plan, boots),
    refusedTemplates: () => new Set(refusals().map(({ file }) => file)).size,
  });
  /** dnsmasq goes on while mdserver restarts. A second after the start, because no answer needs it. */
  function readEarlierLeases(): void {
    try {
      for (const line of endOfLog(dnsmasqLogPath(start))) leases6.read(line);
    } catch {
      // The health report says that the log cannot be read.
    }
  }
  const readDhcp = dhcpLines();
  followDhcpLog(dnsmasqLogPath(start), (line) => {
    leases6.read(line);
    const message = readDhcp(line);
    if (message === undefined) return;
    const instance = registry.instances.byMac.get(message.mac);
    if (instance === undefined) return;
    boots.dhcp(instance, message);
    const { ipv6 } = instance;
    if (ipv6 !== undefined && message.refusal === noAddress6) void leases6.endUnused(ipv6);
  });
  const problemSources: ProblemSource[] = [
    await keepTrying('the configuration of dnsmasq cannot be written', log, () =>
      writeConfiguration(start, dnsmasqLogPath(start), log, unitStateFolder()),
    ),
  ];
  if (unitStateFolder() === unitFolders.state) {
    const problems = () => dropInProblems(start);
    for (const line of problems()) log.warn(line);
    problemSources.push(problems);
  }
  watchDnsmasq(config, log);
  registry.subscribe(dnsmasqSubscriber(config, leases6, log, metrics.dnsmasqReload));
  registry.subscribe({
    files: () => [],
    changed: ({ differences, instances }) => {
      for (const { before } of differences) {
        if (before !== undefined && !isKnown(instances, before)) boots.forget(before);
      }
    },
  });
  await refreshUntilDone(registry);

  // Made if it is needed: Node's cryptography takes a while to load.
  let madeKey: Buffer | undefined;
  const freshKey = () => {
    madeKey ??= newTokenKey();
    return madeKey;
  };
  let tokenKey = freshKey;
  problemSources.push(
    await keepTrying('session tokens end when mdserver restarts', log, async () => {
      const key = await readTokenKey(join(stateFolder, 'token.key'), freshKey);
      tokenKey = () => key;
    }),
  );
  const neighbourMac = neighbourTable(start.dnsmasq.interface);
  const spool = createSpool({ config, registry, boots, metrics, log });
  void spool.takeIn();
  problemSources.push(spool.problems, () => refusalLines(refusals()));
  const health = () => healthOf(config(), registry, problemSources);
  if (start.dnsmasq.net_address6 !== undefined) setTimeout(readEarlierLeases, 1000).unref();
  const peerLog = limitedLog(log, (remote) => {
    const address = peerAddress(remote);
    if (address === undefined) return false;
    return registry.instances.byAddress.has(address) || plan.reserved.has(address);
  });
  return {
    config,
    registry,
    plan,
    userdata,
    tokenKey: () => tokenKey(),
    boots,
    metrics,
    spool,
    neighbourMac,
    health,
    problemSources,
    log,
    peerLog,
  };
}
