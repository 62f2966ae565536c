import { readFileSync } from 'node:fs';
import { ConfigError } from '../../config/dialect.js';
import { loadConfig } from '../../config/load.js';
import type { Config } from '../../config/options.js';
import { controlSocketPath } from '../../control/socket.js';
import { DatabaseError, type Instance, parseDatabase } from '../../instances/instance.js';
import { instancesFrom } from '../../instances/instances.js';
import { controlClient, fetchHealth } from '../client.js';
import { CommandError } from '../errors.js';
import { counted, durationText } from '../output.js';
import { checkDnsmasq } from './dnsmasq.js';
import { type Finding, findingsOf } from './finding.js';
import { checkHook } from './hook.js';
import { checkAddresses, checkNetwork } from './network.js';
import { checkPermissions } from './permissions.js';
import { checkTemplates } from './templates.js';

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
  const running = daemon.some(({ level }) => level !== 'failure');
  yield* guarded('address', checkAddresses(config, running));

  const database = readDatabase(config);
  yield* database.findings;
  yield* guarded('user-data', checkTemplates(config, database.instances));
  yield* guarded('dnsmasq', checkDnsmasq(config));
  yield* guarded('hook', checkHook(config, path, prefix));
  yield* guarded('network', checkNetwork(config, connection));
  yield* guarded('permissions', checkPermissions(config, files, path));
}

/** Turns an error of the file system into a failure of the check, so that the others still run. */
async function* guarded(
  check: string,
  findings: AsyncIterable<Finding> | Iterable<Finding>,
): AsyncGenerator<Finding> {
  try {
    yield* findings;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (!/^E[A-Z0-9]+$/.test(code ?? '')) throw error;
    yield findingsOf(check).failure(message, code === 'EACCES' ? 'run this with sudo' : undefined);
  }
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

function readDatabase({ mdserver }: Config): { instances: Instance[]; findings: Finding[] } {
  const { ok, warning, failure } = findingsOf('database');
  const path = mdserver.db_file;
  const noInstances = (finding: Finding) => ({ instances: [], findings: [finding] });
  try {
    const { draft, superseded } = instancesFrom(parseDatabase(readFileSync(path, 'utf8')));
    const instances = [...draft.byName.values()];
    return {
      instances,
      findings: [
        ...superseded.map(({ name }) =>
          warning(
            `${path}: an old record of ${name} is ignored, because there is a newer one of the same machine`,
          ),
        ),
        ok(`${path} has ${counted(instances.length, 'instance')}`),
      ],
    };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (error instanceof DatabaseError) {
      const remedy = 'repair it, or move it away to start with an empty database';
      return noInstances(failure(`${path}: ${message}`, remedy));
    }
    if (code === 'ENOENT')
      return noInstances(warning(`${path} does not exist yet: there are no instances`));
    if (code === 'EACCES') return noInstances(failure(message, 'run this with sudo'));
    if (code === undefined) throw error;
    return noInstances(failure(message));
  }
}
