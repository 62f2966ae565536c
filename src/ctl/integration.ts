import {
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { dnsmasqLogPath } from '../boots/dhcp-log.js';
import type { Config } from '../config/options.js';
import {
  changedFiles,
  type DropIn,
  isWithin,
  UnitPathError,
  unitDropIns,
  unitFolders,
  unitUser,
} from '../config/unit.js';
import { replaceFiles } from '../files.js';
import { type Account, daemonAccount } from './as-daemon.js';
import { readIfPresent, statIfPresent } from './checks/files.js';
import { pathPrefix } from './connection.js';
import { CommandError, exitCodes } from './errors.js';
import { note, printExactly } from './output.js';
import { firstLine, runProgram } from './programs.js';

const usualLog = `${unitFolders.logs}/mdserver.log`;

/** Whether the installed rules of log rotation do: the log is at its usual place, of its usual user, or nowhere. */
function isRotated({ mdserver, dnsmasq }: Config): boolean {
  const { logfile } = mdserver;
  return logfile.startsWith('/dev/') || (logfile === usualLog && dnsmasq.user === unitUser);
}

/** Rules of log rotation. */
function rotationFile(name: string): string {
  return join(pathPrefix || '/', 'etc/logrotate.d', name);
}
/** Those that integrate writes: logrotate reads them before the installed ones. */
const ownRotation = rotationFile('00-mdserver-integrate');

/**
 * The rules of log rotation for a log of another user or in another place: those of the installed file. No content if
 * the installed file does.
 */
async function logRotation(
  config: Config,
  account: Account | undefined,
): Promise<{ path: string; content: string | undefined }> {
  const installedRules = readIfPresent(rotationFile('mdserver'));
  if (isRotated(config) || installedRules === undefined) {
    return { path: ownRotation, content: undefined };
  }
  const { logfile } = config.mdserver;
  const { user } = config.dnsmasq;
  const group = (await runProgram('id', ['-g', '-n', '--', user]))?.stdout.trim() || user;
  const rules = installedRules
    .replace(`${usualLog} `, `${logfile} `)
    .replace(`${unitFolders.logs}/mdserver-dnsmasq.log `, `${dnsmasqLogPath(config)} `)
    .replaceAll('mdserver mdserver\n', `${user} ${group}\n`)
    // The installed rules for the same logs are no error then.
    .replaceAll('{\n', '{\n    ignoreduplicates\n');
  // In a folder of root's, the user cannot rename the logs. Its usual one gets its owner from systemd.
  const folder = statIfPresent(join(pathPrefix || '/', dirname(logfile)));
  const isUsers =
    isWithin(logfile, unitFolders.logs) || folder === undefined || folder.uid === account?.uid;
  return { path: ownRotation, content: isUsers ? rules : rules.replaceAll(/^ *su .*\n/gm, '') };
}

/** Whether the units are as they are to be without a drop-in, so that integrateUnits would do nothing. */
export function needsNothing(config: Config): boolean {
  try {
    const files = [...unitDropIns(config, pathPrefix), { path: ownRotation, content: undefined }];
    return (
      isRotated(config) &&
      files.every(({ content }) => content === undefined) &&
      changedFiles(files).length === 0
    );
  } catch (error) {
    if (!(error instanceof UnitPathError)) throw error;
    return false;
  }
}

/** Throws CommandError if systemd would give a runtime folder of another program to mdserver's user. */
function checkRuntimeFolders(dropIns: readonly DropIn[], account: Account | undefined): void {
  for (const { content = '' } of dropIns) {
    for (const [, name = ''] of content.matchAll(/^RuntimeDirectory=(.*)$/gm)) {
      const folder = join(pathPrefix || '/', 'run', name);
      const owner = statIfPresent(folder)?.uid;
      if (owner === undefined || owner === account?.uid) continue;
      throw new CommandError(
        `${folder} belongs to another user, and systemd would make it mdserver's: choose a folder of its own in mdserver.conf`,
        exitCodes.failed,
      );
    }
  }
}

/** Whether only root can put something in the place of the path, which does not exist. */
function isRoots(path: string): boolean {
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    const stats = lstatSync(folder, { throwIfNoEntry: false });
    if (folder === (pathPrefix || '/')) return true;
    if (stats !== undefined && (stats.uid !== 0 || (stats.mode & 0o022) !== 0)) return false;
  }
}

/**
 * Makes the folders outside the units' own that mdserver writes to, and logs in a folder of root's, such
 * as /var/log. Says what it leaves alone.
 */
function makeFolders(config: Config, { uid, gid }: Account): void {
  const { mdserver, dnsmasq } = config;
  const own = [...Object.values(unitFolders), '/run', '/var/run', '/dev'];
  const isElsewhere = (path: string) => !own.some((folder) => isWithin(path, folder));
  const under = (path: string) => join(pathPrefix || '/', path);
  const make = (path: string, create: (path: string) => void) => {
    const owner = statIfPresent(path)?.uid;
    if (owner === uid) return;
    // A log of root's is that of the Python md_server, which ran as root.
    const isLog = lstatSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
    if ((owner === undefined || isLog) && isRoots(path)) {
      if (owner === undefined) create(path);
      chownSync(path, uid, gid);
      printExactly(`${owner === undefined ? 'created' : `gave ${dnsmasq.user}`} ${path}\n`);
      return;
    }
    const first = owner === undefined ? 'make it and ' : '';
    note(
      `${path} is not ${dnsmasq.user}'s: for mdserver to write it, ${first}chown ${uid}:${gid} ${path}`,
    );
  };
  const makeFolder = (path: string) =>
    make(path, () => mkdirSync(path, { recursive: true, mode: 0o755 }));
  for (const folder of [dirname(mdserver.db_file), dnsmasq.base_dir].filter(isElsewhere)) {
    makeFolder(under(folder));
  }
  const logs = dirname(mdserver.logfile);
  if (!isElsewhere(logs)) return;
  if (!existsSync(under(logs))) makeFolder(under(logs));
  if (statIfPresent(under(logs))?.uid === uid) return;
  for (const log of [mdserver.logfile, dnsmasqLogPath(config)]) {
    make(under(log), (path) => writeFileSync(path, '', { mode: 0o640 }));
  }
}

/**
 * Gives files of root's in /etc/mdserver to the group of mdserver's user where that cannot read them, but a group can:
 * an installation gives them to the group of the usual user.
 */
function shareConfiguration({ dnsmasq }: Config, { uid, gid }: Account): void {
  const folder = join(pathPrefix || '/', 'etc/mdserver');
  if (!existsSync(folder)) return;
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  for (const path of [folder, ...names.map((name) => join(folder, name))]) {
    const stats = lstatSync(path);
    if (stats.isSymbolicLink() || stats.uid !== 0 || uid === 0 || stats.gid === gid) continue;
    // To read it; a folder also to be passed.
    const needed = stats.isDirectory() ? 5 : 4;
    const isAllowed = (mode: number) => (mode & needed) === needed;
    if (isAllowed(stats.mode) || !isAllowed(stats.mode >> 3)) continue;
    chownSync(path, 0, gid);
    printExactly(`gave the group of ${dnsmasq.user} ${path}\n`);
  }
}

/** Writes and removes drop-ins and rules of log rotation, so that they fit the configuration. Throws CommandError. */
export async function integrateUnits(config: Config): Promise<void> {
  const account = await daemonAccount(config);
  let files: readonly { path: string; content: string | undefined }[];
  try {
    const dropIns = unitDropIns(config, pathPrefix);
    checkRuntimeFolders(dropIns, account);
    files = [...dropIns, await logRotation(config, account)];
  } catch (error) {
    if (!(error instanceof UnitPathError)) throw error;
    throw new CommandError(error.message, exitCodes.failed);
  }
  const changed = changedFiles(files);
  try {
    if (account !== undefined) {
      shareConfiguration(config, account);
      makeFolders(config, account);
    }
    for (const { path, content } of changed) {
      if (content === undefined) rmSync(path);
      else {
        mkdirSync(dirname(path), { recursive: true });
        await replaceFiles([{ path, content, mode: 0o644 }]);
      }
      printExactly(`${content === undefined ? 'removed' : 'wrote'} ${path}\n`);
    }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    throw new CommandError(`${message}: run this as root`, exitCodes.failed);
  }
  if (pathPrefix === '' && changed.length > 0 && existsSync('/run/systemd/system')) {
    const done = await runProgram('systemctl', ['daemon-reload']);
    if (done?.status !== 0) {
      const reason = firstLine(done?.stderr ?? 'there is no systemctl');
      throw new CommandError(`systemctl daemon-reload failed: ${reason}`, exitCodes.failed);
    }
  }
}
