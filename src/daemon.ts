import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createBoots } from './boots/boots.js';
import { dnsmasqLogPath, followDhcpLog } from './boots/dhcp-log.js';
import type { Config } from './config/options.js';
import type { ControlParts } from './control/routes.js';
import { createSpool } from './control/spool.js';
import { dnsmasqSubscriber, writeConfiguration } from './dnsmasq/dnsmasq.js';
import { healthOf, type ProblemSource } from './health.js';
import { limitedLog } from './http/peer-log.js';
import { namingOf } from './instances/host-names.js';
import type { Instance } from './instances/instance.js';
import type { AddressPlan, Instances } from './instances/instances.js';
import { jsonFile, limitDatabaseMode } from './instances/json-file.js';
import { openRegistry } from './instances/registry.js';
import type { Logger } from './log.js';
import { readTokenKey } from './metadata/token-key.js';
import { countsOf, createMetrics } from './metrics.js';
import { neighbourTable } from './neighbours.js';
import { ipv4Network, ipv6Network, peerAddress } from './network.js';
import { keepDebugCopy } from './userdata/debug-copies.js';
import { keptTemplates } from './userdata/kept.js';
import { refusalLines } from './userdata/refused.js';
import { createUserdata } from './userdata/userdata.js';

function addressPlan({ mdserver, dnsmasq }: Config): AddressPlan {
  const own = [dnsmasq.gateway, ...mdserver.listen_address, ...(dnsmasq.listen_address ?? [])];
  return {
    network: ipv4Network(dnsmasq.net_address, dnsmasq.net_prefix),
    network6: dnsmasq.net_address6 && ipv6Network(dnsmasq.net_address6, dnsmasq.net_prefix6),
    reserved: new Set(own),
    restTime: dnsmasq.lease_len,
  };
}

/** Whether the machine is one of the instances, under whatever name. */
function isKnown({ byUuid, byName }: Instances, { uuid, name }: Instance): boolean {
  return uuid === undefined ? byName.has(name) : byUuid.has(uuid);
}

/**
 * Puts a daemon together: loads the database, writes dnsmasq's files, and returns the parts that the
 * HTTP app and the control socket are built from. Nothing listens yet. `config` returns the
 * configuration in force, which a reload replaces. Throws DatabaseError, TokenKeyError, StoreError
 * and errors of the file system.
 */
export async function createDaemon(config: () => Config, log: Logger): Promise<ControlParts> {
  const start = config();
  const { db_file } = start.mdserver;
  const stateFolder = dirname(db_file);
  mkdirSync(stateFolder, { recursive: true });
  const plan = addressPlan(start);
  limitDatabaseMode(db_file);
  const boots = createBoots();
  const registry = await openRegistry({
    backend: jsonFile(db_file),
    plan,
    naming: () => namingOf(config()),
    location: () => config().service.location,
    isGone: boots.isGone,
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
  const refusals = () => userdata.refusals(registry.instances.byName);
  const metrics = createMetrics({
    ...countsOf(() => registry.instances, plan, boots),
    refusedTemplates: () => new Set(refusals().map(({ file }) => file)).size,
  });
  followDhcpLog(dnsmasqLogPath(start), ({ mac, action, address }) => {
    const instance = registry.instances.byMac.get(mac);
    if (instance !== undefined) boots.dhcp(instance, action, address);
  });
  await writeConfiguration(start, log);
  registry.subscribe(dnsmasqSubscriber(config, log, metrics.dnsmasqReload));
  registry.subscribe({
    files: () => [],
    changed: ({ differences, instances }) => {
      for (const { before } of differences) {
        if (before !== undefined && !isKnown(instances, before)) boots.forget(before);
      }
    },
  });
  await registry.refresh();

  const tokenKey = await readTokenKey(join(stateFolder, 'token.key'));
  const neighbourMac = neighbourTable(start.dnsmasq.interface);
  const spool = createSpool({ config, registry, boots, metrics, log });
  void spool.takeIn();
  const problemSources: ProblemSource[] = [spool.problems, () => refusalLines(refusals())];
  const health = () => healthOf(config(), registry, problemSources);
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
    tokenKey,
    boots,
    metrics,
    spool,
    neighbourMac,
    health,
    log,
    peerLog,
  };
}
