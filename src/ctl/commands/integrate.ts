import { chownSync, existsSync, lstatSync, mkdirSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { dnsmasqLogPath } from '../../boots/dhcp-log.js';
import type { Config } from '../../config/options.js';
import { changedFiles, UnitPathError, unitDropIns, unitFolders } from '../../config/unit.js';
import { replaceFiles } from '../../files.js';
import { type Account, daemonAccount } from '../as-daemon.js';
import { readIfPresent } from '../checks/files.js';
import { defineCommand } from '../command.js';
import { pathPrefix, readConfiguration } from '../connection.js';
import { CommandError, exitCodes } from '../errors.js';
import { note, printExactly } from '../output.js';
import { firstLine, runProgram } from '../programs.js';

const rotationFile = 'etc/logrotate.d/mdserver';

/**
 * The rules of log rotation for a log that is not at its usual place: those of the installed file, for
 * other paths. No content if the log is at its usual place, or nowhere.
 */
async function logRotation(config: Config): Promise<{ path: string; content: string | undefined }> {
  const installed = join(pathPrefix || '/', rotationFile);
  const path = `${installed}-integrate`;
  const { logfile } = config.mdserver;
  const usual = `${unitFolders.logs}/mdserver.log`;
  const rules = readIfPresent(installed);
  if (logfile === usual || logfile.startsWith('/dev/') || rules === undefined) {
    return { path, content: undefined };
  }
  const { user } = config.dnsmasq;
  const group = (await runProgram('id', ['-g', '-n', '--', user]))?.stdout.trim() || user;
  const content = rules
    .replace(`${usual} `, `${logfile} `)
    .replace(`${unitFolders.logs}/mdserver-dnsmasq.log `, `${dnsmasqLogPath(config)} `)
    .replaceAll('mdserver mdserver\n', `${user} ${group}\n`);
  return { path, content };
}

/** Whether only root can put something in the place of the path, which does not exist. */
function isRoots(path: string): boolean {
  for (let folder = dirname(path); ; folder = dirname(folder)) {
    const stats = lstatSync(folder, { throwIfNoEntry: false });
    if (stats !== undefined && (stats.uid !== 0 || (stats.mode & 0o022) !== 0)) return false;
    if (folder === dirname(folder)) return true;
  }
}

/** Makes the folders outside the units' own that mdserver writes to, and says what it leaves alone. */
function makeFolders({ mdserver, dnsmasq }: Config, account: Account | undefined): void {
  const own = [...Object.values(unitFolders), '/run', '/var/run', '/dev'];
  const folders = [dirname(mdserver.db_file), dirname(mdserver.logfile), dnsmasq.base_dir]
    .filter((folder) => !own.some((unit) => `${folder}/`.startsWith(`${unit}/`)))
    .map((folder) => join(pathPrefix || '/', folder));
  for (const folder of new Set(folders)) {
    const owner = statSync(folder, { throwIfNoEntry: false })?.uid;
    if (account === undefined || account.uid === owner) continue;
    const { uid, gid } = account;
    if (owner === undefined && isRoots(folder)) {
      mkdirSync(folder, { recursive: true, mode: 0o755 });
      chownSync(folder, uid, gid);
      printExactly(`created ${folder}\n`);
    } else {
      const change = owner === undefined ? `mkdir ${folder} && ` : '';
      note(
        `${folder} is not ${dnsmasq.user}'s: if mdserver is to write there, ${change}chown ${uid}:${gid} ${folder}`,
      );
    }
  }
}

export const integrate = defineCommand({
  name: 'integrate',
  usage: [''],
  operands: [0, 0],
  completes: ['none'],
  options: {},
  summary: 'Fit the systemd units to the paths in the configuration.',
  help: [
    'The units let mdserver write to its usual folders only, as its usual user. For a database, a log, or files of dnsmasq elsewhere, for paths in homes, and for another dnsmasq.user, this writes drop-ins, integrate.conf, for mdserver.service and mdserver-dnsmasq.service, and rules for logrotate; and removes them when they are no longer needed. It makes folders that are missing, as long as only root can write around them.',
    'Only root can run it. Restart mdserver afterwards. mdserver says in its log and in its health report when this has to be run; a new port, address or network never needs it.',
  ],
  examples: [['mdserverctl integrate && systemctl restart mdserver', 'after a new db_file']],
  run: async (_operands, options) => {
    const { config } = readConfiguration(options);
    let files: readonly { path: string; content: string | undefined }[];
    try {
      files = [...unitDropIns(config, pathPrefix), await logRotation(config)];
    } catch (error) {
      if (!(error instanceof UnitPathError)) throw error;
      throw new CommandError(error.message, exitCodes.failed);
    }
    const changed = changedFiles(files);
    try {
      makeFolders(config, await daemonAccount(config));
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
    return exitCodes.ok;
  },
});
