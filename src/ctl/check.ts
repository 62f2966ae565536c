import { readFileSync } from 'node:fs';
import { ConfigError } from '../config/dialect.js';
import { loadConfig } from '../config/load.js';
import type { Config } from '../config/options.js';
import { controlSocketPath } from '../control/socket.js';
import { DatabaseError, type Instance, parseDatabase } from '../instances/instance.js';
import { instancesFrom } from '../instances/instances.js';
import {
  checkAddresses,
  checkDnsmasq,
  checkHook,
  checkNetwork,
  checkPermissions,
} from './check-host.js';
import { checkTemplates } from './check-templates.js';
import { controlAt, healthOf } from './client.js';
import { CommandError } from './failure.js';
import { type Finding, finder } from './finding.js';
import { counted, spanText } from './output.js';

/** Where things are. */
export interface Checked {
  readonly configFile: string;
  /** In place of what the configuration says. */
  readonly socket: string | undefined;
  /** libvirt's connection URI. */
  readonly connect: string;
  /** Put before /etc/libvirt/hooks, as system-integration.sh does. */
  readonly prefix: string;
}

export const levelColours = { ok: 'green', warning: 'yellow', failure: 'red' } as const;

/** Looks at everything, in the order in which things depend on each other. */
export async function* checkAll(checked: Checked): AsyncGenerator<Finding> {
  const { configFile, socket, connect, prefix } = checked;
  const { ok, warning, failure } = finder('configuration');
  let loaded: ReturnType<typeof loadConfig>;
  try {
    loaded = loadConfig(configFile);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    yield failure(error.message, 'everything else depends on it and was not looked at');
    return;
  }
  const { config, files, warnings } = loaded;
  for (const text of warnings) yield warning(text);
  yield ok(files.join(', '));
  if (config.publicKeys.length === 0) {
    yield warning('there are no [public-keys]', 'without one nobody can log in to most images');
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
  yield* guarded('network', checkNetwork(config, connect));
  yield* guarded('permissions', checkPermissions(config, files, path));
}

/** What may not be looked at is a failure of that check, not of all. */
async function* guarded(
  check: string,
  findings: AsyncIterable<Finding> | Iterable<Finding>,
): AsyncGenerator<Finding> {
  try {
    yield* findings;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (!/^E[A-Z0-9]+$/.test(code ?? '')) throw error;
    yield finder(check).failure(message, code === 'EACCES' ? 'run this with sudo' : undefined);
  }
}

async function daemonFindings(path: string): Promise<Finding[]> {
  const { ok, warning, failure } = finder('mdserver');
  try {
    const { version, uptime_seconds, instances, problems } = await healthOf(controlAt(path));
    const running = `${version} runs for ${spanText(uptime_seconds)}, with ${counted(instances, 'instance')}`;
    return [ok(running), ...problems.map((problem) => warning(problem))];
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    return [failure(error.message)];
  }
}

function readDatabase({ mdserver }: Config): { instances: Instance[]; findings: Finding[] } {
  const { ok, warning, failure } = finder('database');
  const path = mdserver.db_file;
  const nothing = (finding: Finding) => ({ instances: [], findings: [finding] });
  try {
    const { draft, superseded } = instancesFrom(parseDatabase(readFileSync(path, 'utf8')));
    const instances = [...draft.byName.values()];
    return {
      instances,
      findings: [
        ...superseded.map(({ name }) =>
          warning(
            `${path}: a record of ${name} is older than another of the same machine: left out`,
          ),
        ),
        ok(`${path} holds ${counted(instances.length, 'instance')}`),
      ],
    };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (error instanceof DatabaseError) {
      const mend = 'mend it, or move it away to start with an empty database';
      return nothing(failure(`${path}: ${message}`, mend));
    }
    if (code === 'ENOENT') return nothing(warning(`${path} is not there yet: no instances`));
    if (code === 'EACCES') return nothing(failure(message, 'run this with sudo'));
    if (code === undefined) throw error;
    return nothing(failure(message));
  }
}
