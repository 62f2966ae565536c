import { readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { quoted } from '../text.js';
import type { Config } from './options.js';

/**
 * The folders of the units in `systemd/`, which are the same on every host: systemd makes them, and
 * mdserver may write nowhere else.
 */
export const unitFolders = {
  state: '/var/lib/mdserver',
  logs: '/var/log/mdserver',
  runtime: '/run/mdserver',
  /** The only one in the state folder that dnsmasq sees. */
  dnsmasq: '/var/lib/mdserver/dnsmasq',
} as const;

/** The user of the units. */
export const unitUser = 'mdserver';

/**
 * The unit's own folder among those in a variable of systemd (systemd.exec(5)), which sorts them: a drop-in may have
 * added others.
 */
function unitFolder(variable: string): string | undefined {
  const folders = process.env[variable]?.split(':') ?? [];
  return (folders.find((folder) => basename(folder) === 'mdserver') ?? folders[0]) || undefined;
}

/** The folder that systemd keeps for the unit (StateDirectory=); undefined without systemd. */
export function unitStateFolder(): string | undefined {
  return unitFolder('STATE_DIRECTORY');
}

/** The folder that systemd makes for the unit at each boot (RuntimeDirectory=); undefined without systemd. */
export function unitRuntimeFolder(): string | undefined {
  return unitFolder('RUNTIME_DIRECTORY');
}

/** A file that lets a unit use what the configuration names and the unit does not. */
export interface DropIn {
  readonly unit: string;
  readonly path: string;
  /** Undefined if the unit fits the configuration: there is to be no such file. */
  readonly content: string | undefined;
}

/** A path in the configuration that cannot stand in a unit; the message says which. */
export class UnitPathError extends Error {}

/** The path with /run in place of /var/run, which is a link to it. */
export function runPath(path: string): string {
  return path.replace(/^\/var\/run\//, '/run/');
}

/** Whether the path is the folder or in it. */
export function isWithin(path: string, folder: string): boolean {
  return `${runPath(path)}/`.startsWith(`${folder}/`);
}

const homes = ['/home', '/root', '/run/user'];

/** What the configuration has mdserver use. */
function pathsOf({ mdserver, dnsmasq, _include_ }: Config) {
  const present = (paths: readonly (string | undefined)[]) =>
    paths.filter((path) => path?.startsWith('/')) as string[];
  // There is nothing to make or to write in /dev for a log that is thrown away or printed.
  const logs = dirname(mdserver.logfile);
  return {
    data: dirname(mdserver.db_file),
    logs: logs === '/dev' ? undefined : logs,
    read: present([
      mdserver.userdata_dir,
      mdserver.default_template,
      mdserver.vendor_data,
      ...(_include_.directories ?? []),
      ...(_include_.files ?? []),
    ]),
    socket: mdserver.control_socket,
    base: dnsmasq.base_dir,
    run: runPath(dnsmasq.run_dir),
  };
}

/**
 * The drop-ins that the units need for a configuration: one for each service. They are in
 * /etc/systemd/system, under the prefix. Throws UnitPathError.
 */
export function unitDropIns(config: Config, prefix = ''): DropIn[] {
  const { data, logs, read, socket, base, run } = pathsOf(config);
  const { user } = config.dnsmasq;
  const socketFolder = socket === undefined ? undefined : dirname(socket);
  const written = (paths: readonly (string | undefined)[]) =>
    paths.filter((path): path is string => {
      if (path === undefined) return false;
      const { state, logs: unitLogs, runtime } = unitFolders;
      return ![state, unitLogs, runtime].some((folder) => isWithin(path, folder));
    });
  const isRuntime = (path: string) => path.startsWith('/run/');
  const used = [data, logs, ...read, socketFolder, base, run];
  const readsHome = used.some((path) => path && homes.some((home) => isWithin(path, home)));
  const dnsmasqUses = [base, run, ...(logs === undefined ? [] : [logs])];
  const dnsmasqNeeds = (path: string) => dnsmasqUses.some((needed) => isWithin(needed, path));

  const common = [
    ...(user === unitUser ? [] : [`User=${user}`]),
    ...(readsHome ? ['ProtectHome=read-only'] : []),
  ];
  const folders = (paths: readonly (string | undefined)[]) => {
    const all = [...new Set(written(paths))];
    return [
      ...all.filter(isRuntime).map((path) => `RuntimeDirectory=${path.slice('/run/'.length)}`),
      ...all.filter((path) => !isRuntime(path)).map((path) => `ReadWritePaths=-${path}`),
    ];
  };
  // Of what only mdserver reads, dnsmasq sees nothing.
  const hidden = [data, ...read, socket].filter(
    (path): path is string =>
      path !== undefined &&
      !dnsmasqNeeds(path) &&
      ![unitFolders.state, unitFolders.runtime, '/etc/mdserver'].some((folder) =>
        isWithin(path, folder),
      ),
  );
  if (dnsmasqNeeds(data) && !isWithin(data, unitFolders.state))
    hidden.push(join(data, 'token.key'));
  const seesBase =
    isWithin(base, unitFolders.dnsmasq) || !isWithin(base, unitFolders.state)
      ? []
      : [`BindReadOnlyPaths=-${base}`];
  const others = [run, ...(logs === undefined ? [] : [logs])].some((path) => isWithin(path, data));
  const isOwnData = !isWithin(data, unitFolders.state) && isWithin(base, data);
  const view =
    isOwnData && base !== data && !others
      ? [`TemporaryFileSystem=${data}:ro`, `BindReadOnlyPaths=-${base}`]
      : seesBase;
  const lines = {
    'mdserver.service': [...common, ...folders([data, logs, socketFolder, base, run])],
    'mdserver-dnsmasq.service': [
      ...common,
      ...folders([logs, run]),
      ...view,
      ...hidden.map((path) => `InaccessiblePaths=-${path}`),
      ...written(dnsmasqUses).map((path) => `NoExecPaths=-${path}`),
    ],
  };
  return Object.entries(lines).map(([unit, settings]) => {
    for (const line of settings) {
      if (/^(?:User|ProtectHome|RuntimeDirectory)=[\w./-]+$|=-?\/[\w./-]+(?::ro)?$/.test(line))
        continue;
      const path = line.slice(line.indexOf('=') + 1).replace(/^-/, '');
      throw new UnitPathError(
        `${quoted(path)} cannot stand in a unit of systemd: it must be an absolute path of letters, digits and . _ - /`,
      );
    }
    return {
      unit,
      path: join(prefix || '/', 'etc/systemd/system', `${unit}.d`, 'integrate.conf'),
      content:
        settings.length === 0
          ? undefined
          : `# Made from mdserver.conf: change that, then run "mdserverctl integrate" again.\n[Service]\n${settings.join('\n')}\n`,
    };
  });
}

function contentOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

/** Of the files, those that are not on the disk as they are to be; without content, there is to be none. */
export function changedFiles<File extends Pick<DropIn, 'path' | 'content'>>(
  files: readonly File[],
): File[] {
  return files.filter(({ path, content }) => contentOf(path) !== content);
}

/** What to do when the units do not fit the configuration. */
export const integrateAdvice = "run 'mdserverctl integrate', then 'systemctl restart mdserver'";

/** A line for the health report of mdserver as a unit, if its drop-ins do not fit the configuration. */
export function dropInProblems(config: Config): string[] {
  try {
    const changed = changedFiles(unitDropIns(config));
    if (changed.length === 0) return [];
    const units = changed.map(({ unit }) => unit).join(' and ');
    return [`${units} does not fit the paths or the user in mdserver.conf: ${integrateAdvice}`];
  } catch (error) {
    if (!(error instanceof UnitPathError)) throw error;
    return [error.message];
  }
}
