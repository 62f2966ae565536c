import { constants, existsSync, mkdirSync } from 'node:fs';
import { chmod, type FileHandle, link, lstat, open, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Config } from '../config/options.js';
import { unitStateFolder } from '../config/unit.js';
import type { ProblemSource } from '../health.js';
import { NoInterfaceError } from '../instances/domain.js';
import { OutdatedError } from '../instances/instances.js';
import { isJsonObject } from '../instances/json.js';
import { StoreError } from '../instances/registry.js';
import { quoted } from '../text.js';
import { shortTurns } from '../turns.js';
import {
  type BootOperation,
  bootOperations,
  maxXmlBytes,
  takeDomain,
  takePort,
  type UploadParts,
  uploadErrorStatus,
} from '../uploads.js';

/**
 * The folders in which the hook keeps what it cannot deliver. The hook of a unit's mdserver uses the
 * first one; up to 1.0.0, it used the one beside the database, where something may be left.
 */
export function spoolFolders({ mdserver }: Config): [string, ...string[]] {
  const beside = join(dirname(mdserver.db_file), 'spool');
  const folder = unitStateFolder();
  const first = folder === undefined ? beside : join(folder, 'spool');
  return first === beside || !existsSync(beside) ? [first] : [first, beside];
}

/**
 * Takes in what the hook could not deliver. The hook writes one file for each domain: a line of JSON,
 * then the XML that libvirt gave it. A newer delivery replaces the file.
 */
export interface Spool {
  /**
   * Takes in all that waits, in the order in which libvirt told it. Guests are served meanwhile. Never
   * rejects: what cannot be stored now waits for the next time, and is named in `problems`.
   */
  takeIn(): Promise<void>;
  readonly problems: ProblemSource;
}

/** The names that the hook gives its files; `.taking` is that of a file that is being taken in. */
const spooledName = /^[0-9a-f]{32}(?:\.domain|(?:\.[0-9a-f]{32})?\.port)(?:\.taking)?$/;
const taking = '.taking';

/** Bytes of a first line; a domain's name has at most 255. */
const maxHeadBytes = 4096;

/** Milliseconds between two looks into the folder while the hook does not speak. */
const lookInterval = 60_000;

/** Files that are taken in at the same time. Each may have a megabyte. */
const groupSize = 16;

/** Files that a health report names. */
const maxNamed = 3;

/** What the first line of a file says. */
interface Head {
  readonly operation: BootOperation | 'port-created';
  /** The domain's. */
  readonly name: string;
  /** When libvirt told of it, in Unix seconds. */
  readonly at: number;
}

/** A file that is being taken in. */
interface Claimed {
  /** Its name meanwhile. */
  readonly taken: string;
  readonly content: Buffer;
  readonly head: Head;
}

/** A file is none of the hook's; the message says why. */
class SpooledFileError extends Error {}

/** The first line of a file. Throws SpooledFileError. */
function parseHead(content: Buffer, file: string): Head {
  const end = content.indexOf('\n');
  const text = content.toString('utf8', 0, end < 0 ? 0 : end);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new SpooledFileError('its first line is not JSON');
  }
  const { operation, name, at } = isJsonObject(value) ? value : {};
  const isPort = /\.port\b/.test(file);
  const known = isPort
    ? (['port-created'] as const).find((word) => word === operation)
    : bootOperations.find((word) => word === operation);
  if (known === undefined || typeof name !== 'string' || !Number.isFinite(at)) {
    throw new SpooledFileError('its first line is not one of the hook');
  }
  return { operation: known, name, at: Number(at) };
}

/** Reads from the start of a file until so many bytes, or its end. */
async function readStart(file: FileHandle, bytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes);
  let length = 0;
  while (length < bytes) {
    const { bytesRead } = await file.read(buffer, length, bytes - length, length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return buffer.subarray(0, length);
}

/** The start of a regular file. Throws SpooledFileError for anything else. */
async function readRegular(path: string, bytes: number): Promise<Buffer> {
  let file: FileHandle;
  try {
    // Neither follows a link nor waits for a writer of a FIFO.
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ELOOP' || code === 'ENXIO') throw new SpooledFileError('it is no regular file');
    throw error;
  }
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw new SpooledFileError('it is no regular file');
    if (stats.size > maxHeadBytes + maxXmlBytes) throw new SpooledFileError('it is too large');
    return await readStart(file, Math.min(bytes, stats.size));
  } finally {
    await file.close();
  }
}

function hasCode(error: unknown, code: string): boolean {
  return (error as NodeJS.ErrnoException).code === code;
}

/** The items in groups, which are taken in together: they share what is written to disk. */
function groupsOf<T>(items: readonly T[]): T[][] {
  const starts = Array.from(
    { length: Math.ceil(items.length / groupSize) },
    (_, i) => i * groupSize,
  );
  return starts.map((start) => items.slice(start, start + groupSize));
}

/**
 * The files that are taken in one after the other: uploads before interfaces, which only make a record
 * where no upload does, and what was being taken in when mdserver ended before newer ones of the same name.
 */
const stages = [/\.domain\.taking$/, /\.domain$/, /\.port\.taking$/, /\.port$/];

/** A name without what marks a file that is being taken in. */
function nameOf(file: string): string {
  return file.replace(taking, '');
}

/** Creates the folder, if it is missing, and what takes in the files in it. */
export function createSpool(parts: UploadParts): Spool {
  const spools = spoolFolders(parts.config()).map((folder) => spoolOf(folder, parts));
  return {
    takeIn: async () => {
      for (const spool of spools) await spool.takeIn();
    },
    problems: () => spools.flatMap((spool) => spool.problems()),
  };
}

function spoolOf(folder: string, parts: UploadParts): Spool {
  const { log } = parts;
  /** What is still there after the last look, in words, by the names of the files. */
  const left = new Map<string, string>();
  /** Why nothing can be taken in. */
  let failure: string | undefined;
  let told: readonly string[] = [];
  let looking: Promise<void> | undefined;
  let isAskedAgain = false;

  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    // The first look says what is wrong.
    if (!hasCode(error, 'EEXIST')) log.warn(`${folder}: ${(error as Error).message}`);
  }

  function problems(): string[] {
    const lines = Array.from(left.values(), (words) => `${folder}: ${words}`);
    const more = lines.length - maxNamed;
    return [
      ...(failure === undefined ? [] : [failure]),
      ...lines.slice(0, maxNamed),
      ...(more > 0 ? [`${folder}: ${more} more`] : []),
    ];
  }

  /** The files in the folder. Throws what says why they cannot be used. */
  async function filesInFolder(): Promise<string[]> {
    const stats = await lstat(folder);
    if (!stats.isDirectory()) throw new Error(`${folder} is no folder`);
    if ((stats.mode & 0o077) !== 0) await chmod(folder, 0o700);
    // With a dot in front: the hook has not finished it.
    return (await readdir(folder)).filter((file) => !file.startsWith('.'));
  }

  function ignore(file: string, error: unknown): void {
    // The hook removes a file when the start of its domain fails.
    if (hasCode(error, 'ENOENT')) left.delete(nameOf(file));
    else left.set(nameOf(file), `ignored ${file}: ${(error as Error).message}`);
  }

  /** The files whose first lines are right, the oldest first. */
  async function filesInOrder(files: readonly string[]): Promise<string[]> {
    const found: { readonly file: string; readonly at: number }[] = [];
    const turn = shortTurns();
    for (const file of files) {
      try {
        if (!spooledName.test(file)) throw new SpooledFileError('the hook gives no such name');
        const { at } = parseHead(await readRegular(join(folder, file), maxHeadBytes), file);
        found.push({ file, at });
      } catch (error) {
        ignore(file, error);
      }
      await turn();
    }
    return found.sort((a, b) => a.at - b.at).map(({ file }) => file);
  }

  /** Gives a file its name again, unless a newer one has come. */
  async function putBack(file: string): Promise<void> {
    try {
      await link(join(folder, file), join(folder, nameOf(file)));
    } catch (error) {
      if (!hasCode(error, 'EEXIST')) throw error;
    }
    await rm(join(folder, file));
  }

  /** Registers what a file has. Throws what another try can mend. */
  async function register(content: Buffer, { operation, name, at }: Head): Promise<void> {
    const xml = content.subarray(content.indexOf('\n') + 1);
    try {
      if (operation === 'port-created') await takePort(parts, { xml, at });
      else await takeDomain(parts, { xml, operation, at });
    } catch (error) {
      const isOutdated = error instanceof OutdatedError;
      const status = uploadErrorStatus(error) ?? 500;
      if (!isOutdated && status >= 500) throw error;
      const level = isOutdated || error instanceof NoInterfaceError ? 'debug' : 'warn';
      const { message } = error as Error;
      log[level](`dropped what the hook had kept of ${quoted(name)} (${operation}): ${message}`);
    }
  }

  /** Reads a file. From then on, what the hook delivers is another one. Undefined if it is left alone. */
  async function claim(file: string): Promise<Claimed | undefined> {
    const taken = nameOf(file) + taking;
    try {
      if (taken !== file) await rename(join(folder, file), join(folder, taken));
      const content = await readRegular(join(folder, taken), maxHeadBytes + maxXmlBytes);
      return { taken, content, head: parseHead(content, file) };
    } catch (error) {
      ignore(file, error);
      return undefined;
    }
  }

  /** Takes in a file. Returns why it has to wait; undefined if it does not. Never rejects. */
  async function take({ taken, content, head }: Claimed): Promise<unknown> {
    let reason: unknown;
    try {
      await register(content, head).catch((error: Error) => {
        reason = error;
        left.set(nameOf(taken), `${quoted(head.name)} waits: ${error.message}`);
      });
      if (reason === undefined) {
        await rm(join(folder, taken));
        left.delete(nameOf(taken));
      } else {
        await putBack(taken);
      }
    } catch (error) {
      ignore(taken, error);
    }
    return reason;
  }

  /** Takes in files in their order. Throws StoreError if nothing can be stored now. */
  async function takeGroup(files: readonly string[]): Promise<void> {
    const claimed = await Promise.all(files.map(claim));
    const turn = shortTurns();
    const taken: Promise<unknown>[] = [];
    for (const one of claimed) {
      if (one !== undefined) taken.push(take(one));
      await turn();
    }
    const error = (await Promise.all(taken)).find((reason) => reason instanceof StoreError);
    if (error !== undefined) throw error;
  }

  async function takeAll(): Promise<void> {
    const files = await filesInFolder();
    const names = new Set(files.map(nameOf));
    for (const name of left.keys()) if (!names.has(name)) left.delete(name);
    const inOrder = await filesInOrder(files);
    for (const stage of stages) {
      const ofStage = inOrder.filter((file) => stage.test(file));
      for (const group of groupsOf(ofStage)) await takeGroup(group);
    }
  }

  async function look(): Promise<void> {
    do {
      isAskedAgain = false;
      try {
        await takeAll();
        failure = undefined;
      } catch (error) {
        failure = `what the hook kept is not taken in: ${(error as Error).message}`;
      }
      const now = problems();
      for (const line of now) if (!told.includes(line)) log.warn(line);
      told = now;
    } while (isAskedAgain);
    looking = undefined;
  }

  function takeIn(): Promise<void> {
    isAskedAgain = looking !== undefined;
    looking ??= look();
    return looking;
  }

  setInterval(() => void takeIn(), lookInterval).unref();
  return { takeIn, problems };
}
