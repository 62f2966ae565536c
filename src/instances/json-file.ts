import { readFileSync, realpathSync, type Stats, watch } from 'node:fs';
import { basename, dirname } from 'node:path';
import { type FileContent, isUnchanged, limitMode, replaceFiles, statOrNone } from '../files.js';
import { shortTurns } from '../turns.js';
import type { Backend, Difference, StoredInstances } from './backend.js';
import { DatabaseError, databasePieces, parseDatabase, recordText } from './database-file.js';
import {
  type DetailsFile,
  detailsPieces,
  detailsText,
  noDetailsFile,
  parseDetails,
} from './details-file.js';

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

/**
 * The instances in one JSON file, which Python md_server can read too, and a second one for what
 * Python's format has no place for. The file's folder must exist; the file need not. A file that
 * cannot be used is never overwritten.
 */
export function jsonFile(file: string): Backend<Stats | undefined> {
  const paths = realPaths(file);
  const path = paths.database;

  function load(): StoredInstances<Stats | undefined> {
    const version = statOrNone(path);
    if (version === undefined) {
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
      const records = parseDatabase(content, (uuid) => details.get(uuid));
      return { version, isNew: false, records, resting, warnings };
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
    hasChanged: (version) => !isUnchanged(version, statOrNone(path)),
    async commit(version, draft, differences) {
      const differs = (text: (instance: Difference['after']) => string | undefined) =>
        differences.some(({ before, after }) => text(before) !== text(after));
      // Without a change the file is not written: it may be open in an editor, or belong to another
      // running daemon, which this one notices only when it listens.
      const isNew = version === undefined;
      const writes = isNew || differs((instance) => instance && recordText(instance));
      const writesDetails = isNew || draft.resting.isChanged || differs(detailsText);
      const files: FileContent[] = [];
      if (writes) files.push({ path, content: databasePieces(draft.pages), mode: fileMode });
      if (writesDetails) {
        files.push({ path: paths.details, content: detailsPieces(draft), mode: fileMode });
      }
      await replaceFiles(files);
      return writes ? statOrNone(path) : version;
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
