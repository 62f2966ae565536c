import { readFileSync, realpathSync, type Stats, statSync } from 'node:fs';
import { type FileContent, limitMode, replaceFiles } from '../files.js';
import type { Logger } from '../log.js';
import {
  type DetailsFile,
  formatDetails,
  noDetails,
  noDetailsFile,
  parseDetails,
  withHostKeys,
} from './details.js';
import {
  DatabaseError,
  describeInstance,
  formatDatabase,
  type Instance,
  largeRecords,
  parseDatabase,
} from './instance.js';
import {
  type AddressPlan,
  type Draft,
  draftOf,
  drop,
  type Instances,
  instancesFrom,
  put,
  register,
  rest,
} from './instances.js';
import { type Store, StoreError, type Subscriber } from './store.js';

/** Of the database and the details: for mdserver and its group. */
const fileMode = 0o640;

/** What the store depends on. */
export interface JsonStoreOptions {
  /** The database file. Its folder must exist; the file need not. */
  readonly file: string;
  readonly plan: AddressPlan;
  /** The location of this host, for the record of each domain uploaded here. */
  readonly location: () => string;
  readonly log: Logger;
}

/** A change that waits for the next batch. */
interface PendingChange {
  /** Applies the change to the draft. Throws to reject it; returns a function that reports success. */
  readonly apply: (draft: Draft) => () => void;
  /** The files to write for it, besides those of the subscribers: `details` notifies none. */
  readonly writes: 'database' | 'details' | 'nothing';
  readonly reject: (error: unknown) => void;
}

/** The path of the details file, which is beside the database. */
export function detailsFile(database: string): string {
  return `${database.replace(/\.json$/, '')}.details.json`;
}

function statOrNone(file: string): Stats | undefined {
  return statSync(file, { throwIfNoEntry: false });
}

function unixTime(): number {
  return Date.now() / 1000;
}

/** Whether the file is the same and has not been written in between. */
function isUnchanged(a: Stats | undefined, b: Stats | undefined): boolean {
  return a?.ino === b?.ino && a?.mtimeMs === b?.mtimeMs && a?.size === b?.size;
}

/**
 * Opens a store in one JSON file, which Python md_server can read too. Changes that arrive while a
 * batch is being stored form the next batch, which is written, synced and announced once.
 * Throws DatabaseError if the file exists but cannot be used; the store never overwrites such a file.
 */
export function openJsonStore({ file, plan, location, log }: JsonStoreOptions): Store {
  const path = statOrNone(file) ? realpathSync(file) : file;
  const detailsPath = detailsFile(path);
  const subscribers: Subscriber[] = [];
  limitMode(path, fileMode);
  limitMode(detailsPath, fileMode);
  const opened = read();
  let { stats: onDisk } = opened;
  let instances: Instances = opened.draft;
  let problem: string | undefined;
  let pending: PendingChange[] = [];
  let storing: Promise<void> | undefined;

  /** The daemon works without the details, so a bad file is ignored. */
  function readDetails(): DetailsFile {
    try {
      return parseDetails(readFileSync(detailsPath, 'utf8'));
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT') log.warn(`ignored ${detailsPath}: ${message}`);
      return noDetailsFile;
    }
  }

  /** Reads the file; `stats` identify the version that was read. */
  function read(): { draft: Draft; stats: Stats | undefined } {
    const stats = statOrNone(path);
    if (stats === undefined) return { draft: instancesFrom([]).draft, stats };
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch (error) {
      throw new DatabaseError(`${path} cannot be read: ${(error as Error).message}`);
    }
    try {
      const { details, resting } = readDetails();
      const records = parseDatabase(text).map((instance) => ({
        ...instance,
        details: details.get(instance.uuid ?? '') ?? noDetails,
      }));
      const { draft, superseded } = instancesFrom(records, resting, unixTime());
      for (const instance of superseded) {
        log.warn(
          `${path}: ignored an older record of the same machine: ${describeInstance(instance)}`,
        );
      }
      const large = largeRecords(draft.byName.values());
      if (large !== undefined) log.warn(`${path} has ${large}`);
      return { draft, stats };
    } catch (error) {
      if (!(error instanceof DatabaseError)) throw error;
      throw new DatabaseError(
        `${path}: ${error.message}; repair it, or move it away to start with an empty database`,
      );
    }
  }

  function databaseFile({ byName }: Instances): FileContent {
    return { path, content: formatDatabase(byName.values()), mode: fileMode };
  }

  function detailsContent(draft: Instances): FileContent {
    return { path: detailsPath, content: formatDetails(draft), mode: fileMode };
  }

  async function store(batch: readonly PendingChange[]): Promise<void> {
    let reports: (() => void)[];
    let concerned: readonly Subscriber[];
    try {
      // An operator may edit the file, as with Python md_server, which reads it each time.
      const edited = !isUnchanged(onDisk, statOrNone(path));
      if (edited) log.info(`${path} was changed by another program: reading it again`);
      const { draft, stats } = edited ? read() : { draft: draftOf(instances), stats: onDisk };
      // Records that the edit removed.
      if (edited) for (const known of instances.byName.values()) rest(draft, known, unixTime());
      reports = batch.flatMap(({ apply, reject }) => {
        try {
          return [apply(draft)];
        } catch (error) {
          reject(error);
          return [];
        }
      });
      if (reports.length === 0 && !edited) return;
      // Without a change the file is not written: it may be open in an editor, or belong to another
      // running daemon, which this one notices only when it listens.
      const writes = stats === undefined || batch.some((change) => change.writes === 'database');
      const writesDetails = writes || batch.some((change) => change.writes === 'details');
      // A guest may report other host keys again and again: that neither writes the database nor
      // makes dnsmasq read its files.
      concerned = edited || batch.some((change) => change.writes !== 'details') ? subscribers : [];
      await replaceFiles([
        ...(writes ? [databaseFile(draft)] : []),
        ...(writesDetails ? [detailsContent(draft)] : []),
        ...concerned.flatMap((subscriber) => subscriber.files(draft)),
      ]);
      onDisk = writes ? statOrNone(path) : stats;
      instances = draft;
      problem = undefined;
    } catch (error) {
      const failure = new StoreError(`nothing was stored: ${(error as Error).message}`);
      // Once: a guest can report host keys again and again.
      if (failure.message !== problem) log.error(failure.message);
      problem = failure.message;
      for (const { reject } of batch) reject(failure);
      return;
    }
    for (const subscriber of concerned) subscriber.changed(instances);
    for (const report of reports) report();
  }

  async function storePending(): Promise<void> {
    while (pending.length > 0) {
      const batch = pending;
      pending = [];
      await store(batch);
    }
    storing = undefined;
  }

  /** Makes a change with the next batch; `apply` throws to reject it and returns its result. */
  function change<T>(
    apply: (draft: Draft) => T,
    writes: PendingChange['writes'] = 'database',
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      pending.push({
        writes,
        apply: (draft) => {
          const result = apply(draft);
          return () => resolve(result);
        },
        reject,
      });
      // Not at once, so that all changes of this turn of the event loop are in one batch.
      storing ??= new Promise((start) => setImmediate(start)).then(storePending);
    });
  }

  return {
    get instances() {
      return instances;
    },
    get problem() {
      return problem;
    },
    async register(domain) {
      const { instance, superseded } = await change((draft) =>
        register(draft, domain, plan, { location: location(), now: unixTime() }),
      );
      for (const other of superseded) {
        log.warn(
          `${describeInstance(other)} was replaced by ${describeInstance(instance)}, which now has its name or MAC`,
        );
      }
      return instance;
    },
    remove(name) {
      return change((draft) => {
        const instance = draft.byName.get(name);
        if (instance !== undefined) drop(draft, instance, unixTime());
        return instance;
      });
    },
    async rememberHostKeys(name, hostKeys) {
      const changed = ({ byName }: Instances): Instance | undefined => {
        const before = byName.get(name);
        return before && { ...before, details: withHostKeys(before.details, hostKeys) };
      };
      // Refused at once, where possible: a batch copies all instances.
      changed(instances);
      return change((draft) => {
        const instance = changed(draft);
        if (instance !== undefined) put(draft, instance);
        return instance;
      }, 'details');
    },
    subscribe(subscriber) {
      subscribers.push(subscriber);
    },
    refresh() {
      return change(() => undefined, 'nothing');
    },
    async close() {
      await storing;
    },
  };
}
