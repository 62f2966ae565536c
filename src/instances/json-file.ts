import { readFileSync, realpathSync, type Stats, watch } from 'node:fs';
import { basename, dirname } from 'node:path';
import { type FileContent, isUnchanged, limitMode, replaceFiles, statOrNone } from '../files.js';
import { type IpAddress, parseIp } from '../network.js';
import { quoted } from '../text.js';
import { shortTurns } from '../turns.js';
import type { RestingAddress, RestingAddresses } from './addresses.js';
import type { Backend, Difference, StoredInstances } from './backend.js';
import {
  DatabaseError,
  databasePieces,
  type OddRecord,
  parseDatabase,
  recordText,
} from './database-file.js';
import {
  type DetailsFile,
  detailsPieces,
  detailsText,
  noDetailsFile,
  parseDetails,
} from './details-file.js';
import { asString, isJsonObject } from './json.js';
import { parseUuid } from './uuid.js';

/** Of the database and the details: for mdserver and its group. */
const fileMode = 0o640;

/** Milliseconds for which a file that another program writes has to stay the same before it is read. */
const settleTime = 1000;

/** The path of the details file, which is beside the database. */
export function detailsFile(database: string): string {
  return `${database.replace(/\.json$/, '')}.details.json`;
}

/** The database, behind a symbolic link, and the details file. */
function realPaths(file: string): { database: string; details: string } {
  const database = statOrNone(file) ? realpathSync(file) : file;
  return { database, details: detailsFile(database) };
}

/** Takes the permissions of others from the files, if they are there. Throws as limitMode does. */
export function limitDatabaseMode(file: string): void {
  for (const path of Object.values(realPaths(file))) limitMode(path, fileMode);
}

/** The daemon works without the details, so a bad file is ignored. */
function readDetails(path: string): DetailsFile & { warnings: readonly string[] } {
  try {
    return { ...parseDetails(readFileSync(path, 'utf8')), warnings: [] };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return { ...noDetailsFile, warnings: code === 'ENOENT' ? [] : [`ignored ${path}: ${message}`] };
  }
}

/** The file as it was read or written. */
interface FileVersion {
  readonly stats: Stats | undefined;
  readonly odd: readonly OddRecord[];
}

/** Of more, the others are counted. */
const maxOddNamed = 10;

function oddWarnings(path: string, odd: readonly OddRecord[]): string[] {
  const named = odd.slice(0, maxOddNamed).map(({ record, problem }) => {
    const name = isJsonObject(record) ? asString(record['domain_name']) : undefined;
    const whose = name === undefined ? '' : ` (${quoted(name)})`;
    return `${path}: ${problem}${whose}: left out, so this guest is not served; it stays in the file: repair it there, or remove it`;
  });
  const others = odd.length - named.length;
  return others === 0 ? named : [...named, `${path}: left out ${others} more such records`];
}

/** The addresses of odd records: their guests may use them, so they rest as if they had been given up now. */
function restingOf(odd: readonly OddRecord[]): RestingAddresses {
  const resting = new Map<IpAddress, RestingAddress>();
  for (const { record } of odd) {
    if (!isJsonObject(record)) continue;
    const { domain_name, domain_uuid, mds_ipv4, mds_ipv6 } = record;
    const about = {
      since: Date.now() / 1000,
      name: asString(domain_name) ?? '',
      uuid: parseUuid(asString(domain_uuid) ?? ''),
      isGone: false,
    };
    for (const text of [mds_ipv4, mds_ipv6]) {
      const address = parseIp(asString(text) ?? '');
      if (address !== undefined) resting.set(address, about);
    }
  }
  return resting;
}

/**
 * The instances in one JSON file, which Python md_server can read too, and a second one for what
 * Python's format has no place for. The file's folder must exist; the file need not. A file that
 * cannot be used is never overwritten.
 */
export function jsonFile(file: string): Backend<FileVersion> {
  const paths = realPaths(file);
  const path = paths.database;

  function load(): StoredInstances<FileVersion> {
    const stats = statOrNone(path);
    if (stats === undefined) {
      const version = { stats, odd: [] };
      return { version, isNew: true, records: [], resting: new Map(), warnings: [] };
    }
    const { details, resting, warnings } = readDetails(paths.details);
    let content: Buffer;
    try {
      content = readFileSync(path);
    } catch (error) {
      const problem = `${path} cannot be read: ${(error as Error).message}`;
      throw new DatabaseError(problem, undefined, { cause: error });
    }
    try {
      const { instances, odd } = parseDatabase(content, (uuid) => details.get(uuid));
      return {
        version: { stats, odd },
        isNew: false,
        records: instances,
        resting: new Map([...restingOf(odd), ...resting]),
        warnings: [...warnings, ...oddWarnings(path, odd)],
      };
    } catch (error) {
      if (!(error instanceof DatabaseError)) throw error;
      throw new DatabaseError(
        `${path}: ${error.message}`,
        'repair it, or move it away to start with an empty database',
      );
    }
  }

  return {
    name: path,
    async load() {
      return load();
    },
    hasChanged: ({ stats }) => !isUnchanged(stats, statOrNone(path)),
    async commit(version, draft, differences) {
      const differs = (text: (instance: Difference['after']) => string | undefined) =>
        differences.some(({ before, after }) => text(before) !== text(after));
      // Without a change the file is not written: it may be open in an editor, or belong to another
      // running daemon, which this one notices only when it listens.
      const isNew = version.stats === undefined;
      const writes = isNew || differs((instance) => instance && recordText(instance));
      const writesDetails = isNew || draft.resting.isChanged || differs(detailsText);
      const files: FileContent[] = [];
      if (writes)
        files.push({ path, content: databasePieces(draft.pages, version.odd), mode: fileMode });
      if (writesDetails) {
        files.push({ path: paths.details, content: detailsPieces(draft), mode: fileMode });
      }
      await replaceFiles(files);
      return writes ? { ...version, stats: statOrNone(path) } : version;
    },
    async prepare(instances) {
      const turn = shortTurns();
      // Each piece is kept when it is made.
      for (const _ of databasePieces(instances.pages)) await turn();
      for (const _ of detailsPieces(instances)) await turn();
    },
    watch(mayHaveChanged) {
      let timer: NodeJS.Timeout | undefined;
      const watcher = watch(dirname(path), { persistent: false }, (_event, name) => {
        if (name !== basename(path)) return;
        clearTimeout(timer);
        timer = setTimeout(mayHaveChanged, settleTime).unref();
      });
      // The folder is gone: the next change of an instance says so.
      watcher.on('error', () => watcher.close());
      return () => {
        clearTimeout(timer);
        watcher.close();
      };
    },
  };
}
