import { readFileSync, realpathSync, type Stats, statSync } from 'node:fs';
import { type FileContent, replaceFiles } from '../files.js';
import type { Logger } from '../log.js';
import {
  type DetailsByUuid,
  formatDetails,
  noDetails,
  parseDetails,
  withHostKeys,
} from './details.js';
import { DatabaseError, formatDatabase, type Instance, parseDatabase } from './instance.js';
import {
  type AddressPlan,
  type Draft,
  draftOf,
  drop,
  type Instances,
  instancesFrom,
  put,
  register,
} from './instances.js';
import { type Store, StoreError, type Subscriber } from './store.js';

export interface JsonStoreOptions {
  /** The database file. It need not exist, its folder must. */
  readonly file: string;
  readonly plan: AddressPlan;
  /** Where this host is; goes into each record that is uploaded here. */
  readonly location: () => string;
  readonly log: Logger;
}

/** A change that waits for its round: what it does to the draft, and whom to answer. */
interface Waiting {
  readonly apply: (draft: Draft) => () => void;
  /** Whether the database has to be written for it. */
  readonly isChange: boolean;
  readonly reject: (error: unknown) => void;
}

function statOrNone(file: string): Stats | undefined {
  return statSync(file, { throwIfNoEntry: false });
}

function sameVersion(a: Stats | undefined, b: Stats | undefined): boolean {
  return a?.ino === b?.ino && a?.mtimeMs === b?.mtimeMs && a?.size === b?.size;
}

/**
 * A store in one JSON file that Python md_server reads, too. Changes that arrive while a round is
 * under way share the next one: one file written, one fsync, one word to the subscribers for all.
 * Throws DatabaseError when the file is there and cannot be used; it is never written over then.
 */
export function openJsonStore({ file, plan, location, log }: JsonStoreOptions): Store {
  const path = statOrNone(file) ? realpathSync(file) : file;
  const detailsPath = `${path.replace(/\.json$/, '')}.details.json`;
  const subscribers: Subscriber[] = [];
  const opened = read();
  let { stats: onDisk } = opened;
  let instances: Instances = opened.draft;
  let problem: string | undefined;
  let waiting: Waiting[] = [];
  let round: Promise<void> | undefined;

  /** Nothing that matters is lost without the details: a bad file is left out. */
  function readDetails(): DetailsByUuid {
    try {
      return parseDetails(readFileSync(detailsPath, 'utf8'));
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT') log.warn(`${detailsPath} is left out: ${message}`);
      return new Map();
    }
  }

  /** What the file holds, and the version of it that was read. */
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
      const details = readDetails();
      const records = parseDatabase(text).map((instance) => ({
        ...instance,
        details: details.get(instance.uuid ?? '') ?? noDetails,
      }));
      const { draft, gone } = instancesFrom(records);
      for (const instance of gone) {
        log.warn(`${path}: an older record of the same machine is left out: ${describe(instance)}`);
      }
      return { draft, stats };
    } catch (error) {
      if (!(error instanceof DatabaseError)) throw error;
      throw new DatabaseError(
        `${path}: ${error.message}; mend it, or move it away to start with an empty database`,
      );
    }
  }

  /** The database's own files, as they are written for a state. */
  function databaseFiles({ byName }: Instances): FileContent[] {
    return [
      { path, content: formatDatabase(byName.values()) },
      { path: detailsPath, content: formatDetails(byName.values()) },
    ];
  }

  async function runRound(batch: readonly Waiting[]): Promise<void> {
    let answers: (() => void)[];
    try {
      // An operator's own edit counts, as it does for Python, which reads the file each time.
      const edited = !sameVersion(onDisk, statOrNone(path));
      if (edited) log.info(`${path} was changed by somebody else: it is read again`);
      const { draft, stats } = edited ? read() : { draft: draftOf(instances), stats: onDisk };
      answers = batch.flatMap(({ apply, reject }) => {
        try {
          return [apply(draft)];
        } catch (error) {
          reject(error);
          return [];
        }
      });
      if (answers.length === 0 && !edited) return;
      // Where nothing is changed the file stays as it is: another daemon may be at it (and this one
      // find out only when it listens), or somebody who has it in an editor.
      const stores = stats === undefined || batch.some(({ isChange }) => isChange);
      await replaceFiles([
        ...(stores ? databaseFiles(draft) : []),
        ...subscribers.flatMap((subscriber) => subscriber.files(draft)),
      ]);
      onDisk = stores ? statOrNone(path) : stats;
      instances = draft;
      problem = undefined;
    } catch (error) {
      const failure = new StoreError(`nothing was stored: ${(error as Error).message}`);
      log.error(failure.message);
      problem = failure.message;
      for (const { reject } of batch) reject(failure);
      return;
    }
    for (const subscriber of subscribers) subscriber.changed(instances);
    for (const answer of answers) answer();
  }

  async function runRounds(): Promise<void> {
    while (waiting.length > 0) {
      const batch = waiting;
      waiting = [];
      await runRound(batch);
    }
    round = undefined;
  }

  /** Asks for a change; `apply` throws to refuse it and gives the answer otherwise. */
  function change<T>(apply: (draft: Draft) => T, isChange = true): Promise<T> {
    return new Promise((resolve, reject) => {
      waiting.push({
        isChange,
        apply: (draft) => {
          const answer = apply(draft);
          return () => resolve(answer);
        },
        reject,
      });
      // Not at once: what else this turn of the event loop brings shall share the round.
      round ??= new Promise((start) => setImmediate(start)).then(runRounds);
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
      const { instance, gone } = await change((draft) =>
        register(draft, domain, plan, { location: location(), now: Date.now() / 1000 }),
      );
      for (const other of gone) {
        log.warn(
          `${describe(other)} gave way to ${describe(instance)}, which has its name or MAC now`,
        );
      }
      return instance;
    },
    remove(name) {
      return change((draft) => {
        const instance = draft.byName.get(name);
        if (instance !== undefined) drop(draft, instance);
        return instance;
      });
    },
    rememberHostKeys(name, hostKeys) {
      return change((draft) => {
        const before = draft.byName.get(name);
        if (before === undefined) return undefined;
        const instance = { ...before, details: withHostKeys(before.details, hostKeys) };
        put(draft, instance);
        return instance;
      });
    },
    subscribe(subscriber) {
      subscribers.push(subscriber);
    },
    refresh() {
      return change(() => undefined, false);
    },
    async close() {
      await round;
    },
  };
}

function describe({ name, uuid, mac, ipv4 }: Instance): string {
  return `${name} (uuid ${uuid ?? 'unknown'}, MAC ${mac ?? 'unknown'}, address ${ipv4 ?? 'none'})`;
}
