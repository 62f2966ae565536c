import { ConfigError } from '../../config/dialect.js';
import { configFrom, loadConfig } from '../../config/load.js';
import { controlSocketPath } from '../../control/socket.js';
import { controlClient, fetchHealth } from '../client.js';
import { CommandError } from '../errors.js';
import { counted, durationText } from '../output.js';
import { virshAt } from '../virsh.js';
import { checkAsDaemon } from './as-daemon.js';
import { checkDomains } from './domains.js';
import { type Finding, findingsOf, guarded } from './finding.js';
import { checkFirewall } from './firewall.js';
import { checkHook } from './hook.js';
import { checkAddresses, checkNetwork } from './network.js';
import { checkPermissions } from './permissions.js';
import { checkPorts } from './ports.js';
import { checkUnit } from './unit.js';

/** Seconds. Far more than libvirt needs for a thousand domains: a libvirtd that hangs is a finding. */
const libvirtTimeLimit = 60;

/** Where the checks look. */
export interface CheckOptions {
  readonly configFile: string;
  /** Used instead of the control socket in the configuration. */
  readonly socket: string | undefined;
  /** libvirt's connection URI. */
  readonly connection: string;
  /** Put before included files and /etc/libvirt/hooks, as system-integration.sh does. */
  readonly prefix: string;
}

/** Runs all checks; each comes after those that it depends on. */
export async function* checkAll(options: CheckOptions): AsyncGenerator<Finding> {
  const { configFile, socket, connection, prefix } = options;
  const { ok, warning, failure } = findingsOf('configuration');
  let loaded: ReturnType<typeof loadConfig>;
  try {
    loaded = loadConfig(configFile, prefix);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    yield failure(error.message, 'fix it first: the other checks depend on it');
    // It says whether it runs with the last good configuration.
    const daemon = await daemonFindings(socket ?? controlSocketPath(configFrom('').config));
    if (isRunning(daemon)) yield* daemon;
    return;
  }
  const { config, files, warnings } = loaded;
  for (const text of warnings) yield warning(text);
  yield ok(files.join(', '));
  if (config.publicKeys.length === 0) {
    yield warning('[public-keys] is empty', 'without a key, nobody can log in to most images');
  }

  const path = socket ?? controlSocketPath(config);
  const daemon = await daemonFindings(path);
  yield* daemon;
  const running = isRunning(daemon);
  const isServed = (url: string) =>
    running && daemon.every(({ text }) => !text.startsWith(`not serving on ${url}: `));
  yield* guarded('address', checkAddresses(config, isServed));

  yield* checkAsDaemon(config, configFile, prefix);
  yield* guarded('unit', checkUnit(config, prefix));
  yield* guarded('hook', checkHook(config, path, prefix));
  const virsh = virshAt(connection, libvirtTimeLimit);
  yield* guarded('network', checkNetwork(config, virsh));
  yield* guarded('ports', checkPorts(config));
  yield* guarded('firewall', checkFirewall(config));
  if (running) yield* guarded('domains', checkDomains(config, controlClient(path), virsh));
  yield* guarded('permissions', checkPermissions(config, files, path));
}

function isRunning(daemon: readonly Finding[]): boolean {
  return daemon.some(({ level }) => level !== 'failure');
}

async function daemonFindings(path: string): Promise<Finding[]> {
  const { ok, warning, failure } = findingsOf('mdserver');
  try {
    const { version, uptime_seconds, instances, problems } = await fetchHealth(controlClient(path));
    const running = `${version} has been running for ${durationText(uptime_seconds)}, with ${counted(instances, 'instance')}`;
    return [ok(running), ...problems.map((problem) => warning(problem))];
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    return [failure(error.message)];
  }
}
