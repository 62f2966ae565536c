import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  type Stats,
  utimesSync,
} from 'node:fs';
import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { TemplateValue } from '../config/options.js';
import { replaceFiles } from '../files.js';
import { shortTurns } from '../turns.js';
import { hasCode } from './find.js';
import type { TemplateConfig } from './template.js';

/** A file that a version of a template includes. */
interface KeptPart {
  /** As the template names it. */
  readonly name: string;
  readonly path: string;
  readonly source: Buffer;
}

/** A version of a template that has rendered. */
export interface TemplateVersion {
  readonly source: Buffer;
  /** Undefined for a version of before mdserver 1.1, when there were none. */
  readonly parts: readonly KeptPart[] | undefined;
  /** What it rendered with. */
  readonly settings: TemplateConfig;
  /** The key of the only machine that may get it; undefined for a template that several may share. */
  readonly machine: string | undefined;
}

/** The versions of templates that have rendered, on disk. */
export interface KeptTemplates {
  /** Notes the version as the newest one of its path. It is written later; a failure is logged. */
  keep(path: string, version: TemplateVersion): void;
  /** The newest first. The same list until another version is noted. */
  versions(path: string): readonly TemplateVersion[];
  /** Resolves when all that was noted is written, or has failed to be. */
  written(): Promise<void>;
}

/** Keeps nothing. */
export const noKeptTemplates: KeptTemplates = {
  keep: () => {},
  versions: () => [],
  written: async () => {},
};

/** The folder of the versions that are kept, which is beside the database. */
export function keptTemplatesFolder(database: string): string {
  return join(dirname(database), 'templates');
}

/** Of a path. */
const maxVersions = 10;
const maxPathBytes = 32 * 1024 * 1024;
/** Of the versions that wait to be written, and of those that were read, in bytes. */
const maxMemory = 64 * 1024 * 1024;

/** The length of a source counts as this much more, for what is kept with it. */
const overhead = 1024;

function bytesOf(versions: readonly TemplateVersion[]): number {
  return versions.reduce((sum, version) => {
    return sum + sourcesOf(version).reduce((bytes, { length }) => bytes + length, overhead);
  }, 0);
}

/** The texts of a version: its own, then those of its parts. */
function sourcesOf({ source, parts = [] }: TemplateVersion): Buffer[] {
  return [source, ...parts.map((part) => part.source)];
}

function isSameVersion(a: TemplateVersion, b: TemplateVersion): boolean {
  return (
    a.machine === b.machine &&
    a.source.equals(b.source) &&
    isSameParts(a.parts, b.parts) &&
    isSameSettings(a.settings, b.settings)
  );
}

function isSameParts(a: TemplateVersion['parts'], b: TemplateVersion['parts']): boolean {
  if (a === undefined || b === undefined) return a === b;
  return (
    a.length === b.length &&
    a.every(({ name, source }, index) => name === b[index]?.name && source.equals(b[index].source))
  );
}

function isSameSettings(a: TemplateConfig, b: TemplateConfig): boolean {
  return JSON.stringify(plainSettings(a)) === JSON.stringify(plainSettings(b));
}

/** The settings as JSON has them. */
function plainSettings({ publicKeys, templateData, password }: TemplateConfig) {
  return { publicKeys, templateData: [...templateData], password };
}

/** Each version once, and no more than may be kept. */
function limited(versions: readonly TemplateVersion[], most: number): TemplateVersion[] {
  const kept: TemplateVersion[] = [];
  for (const version of versions) {
    if (kept.some((other) => isSameVersion(other, version))) continue;
    if (kept.length > 0 && bytesOf([...kept, version]) > maxPathBytes) break;
    kept.push(version);
    if (kept.length === most) break;
  }
  return kept;
}

/** The file of a path's versions: a line of JSON about them, then their sources, end to end. */
function* filePieces(path: string, versions: readonly TemplateVersion[]): Generator<Buffer> {
  const about = versions.map(({ source, parts, machine, settings }) => {
    const files = parts?.map((part) => ({
      name: part.name,
      path: part.path,
      bytes: part.source.length,
    }));
    return { bytes: source.length, parts: files, machine, settings: plainSettings(settings) };
  });
  yield Buffer.from(`${JSON.stringify({ path, versions: about })}\n`);
  for (const version of versions) yield* sourcesOf(version);
}

/** Parses what filePieces makes. Throws if it is anything else. */
function parseFile(path: string, content: Buffer): TemplateVersion[] {
  const end = content.indexOf('\n');
  const about = JSON.parse(content.toString('utf8', 0, end));
  if (about.path !== path) throw new Error(`is about ${about.path}`);
  let start = end + 1;
  const take = (bytes: number): Buffer => {
    start += bytes;
    return content.subarray(start - bytes, start);
  };
  const versions: TemplateVersion[] = [];
  for (const { bytes, parts: files, machine, settings } of about.versions) {
    const source = take(bytes);
    const parts = files?.map((file: { name: string; path: string; bytes: number }): KeptPart => {
      return { name: file.name, path: file.path, source: take(file.bytes) };
    });
    const templateData = new Map<string, TemplateValue>(settings.templateData);
    versions.push({ source, parts, machine, settings: { ...settings, templateData } });
  }
  if (start !== content.length) throw new Error('has another length than it says');
  return versions;
}

/** Templates are code: throws if another user could have written what is there. */
function refuseForeign(path: string, { uid, mode }: Stats): void {
  if (uid === process.geteuid?.() && (mode & 0o022) === 0) return;
  const permissions = (mode & 0o777).toString(8).padStart(4, '0');
  throw new Error(
    `${path} belongs to user ${uid} and has the mode ${permissions}, so others can write it: remove it`,
  );
}

/** Throws errors of the file system, and if others could have written the folder. */
function refuseForeignFolder(folder: string): void {
  const stats = lstatSync(folder);
  if (!stats.isDirectory()) throw new Error(`${folder} is not a folder: remove it`);
  refuseForeign(folder, stats);
}

/** Makes the folder, or takes its permissions from others. Throws as refuseForeignFolder does. */
function makeOwnFolder(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const stats = lstatSync(folder);
  // Not of a link: that would change what it points to.
  if (stats.isDirectory() && (stats.mode & 0o077) !== 0) chmodSync(folder, 0o700);
  refuseForeignFolder(folder);
}

/** Reads a regular file. Throws errors of the file system, and if others could have written it. */
function readOwnFile(file: string): Buffer {
  // O_NONBLOCK: of a FIFO, open would wait for a writer.
  const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW;
  const descriptor = openSync(file, flags);
  try {
    const stats = fstatSync(descriptor);
    if (!stats.isFile()) throw new Error(`${file} is not a regular file: remove it`);
    refuseForeign(file, stats);
    return readFileSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

const fileName = /^[0-9a-f]{64}$/;

/** The files in the folder and their lengths, those first that rendered longest ago. */
async function fileSizes(folder: string): Promise<Map<string, number>> {
  const turn = shortTurns();
  const found: { name: string; size: number; time: number }[] = [];
  for (const name of await readdir(folder)) {
    const stats = lstatSync(join(folder, name), { throwIfNoEntry: false });
    if (fileName.test(name) && stats) found.push({ name, size: stats.size, time: stats.mtimeMs });
    await turn();
  }
  found.sort((a, b) => a.time - b.time);
  return new Map(found.map(({ name, size }) => [name, size]));
}

/**
 * Keeps versions of templates in a folder that only the daemon's user may open, since there are
 * passwords and keys in them: one file for each path. Above the limits, those files go whose templates
 * rendered longest ago; above half of the bytes, a file that is written has the newest version alone.
 */
export function keptTemplates(
  database: string,
  log: Record<'warn', (message: string) => void>,
  limits = { paths: 100_000, bytes: 256 * 1024 * 1024 },
): KeptTemplates {
  const folder = keptTemplatesFolder(database);
  /** What is to be written, by path, the newest first. */
  const waiting = new Map<string, readonly TemplateVersion[]>();
  let waitingBytes = 0;
  let writing: Promise<void> | undefined;
  /** What was read. */
  const known = new Map<string, readonly TemplateVersion[]>();
  let knownBytes = 0;
  /** Of the files in the folder, once it has been read. */
  let sizes: Map<string, number> | undefined;
  let totalBytes = 0;
  let lastProblem = '';

  /** Logs a problem unless it is the last one again, as for each file on a full disk. */
  function report(what: string, error: unknown): void {
    const { message } = error as Error;
    if (message !== lastProblem) log.warn(`${what}: ${message}`);
    lastProblem = message;
  }

  function read(path: string): TemplateVersion[] {
    const file = join(folder, nameOf(path));
    try {
      refuseForeignFolder(folder);
      return parseFile(path, readOwnFile(file));
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return [];
      report(`ignored ${file}, which has earlier versions of ${path}`, error);
      return [];
    }
  }

  function setSize(name: string, size: number | undefined): void {
    totalBytes += (size ?? 0) - (sizes?.get(name) ?? 0);
    // The newest is the last one.
    sizes?.delete(name);
    if (size !== undefined) sizes?.set(name, size);
  }

  async function write(path: string, added: readonly TemplateVersion[]): Promise<void> {
    makeOwnFolder(folder);
    if (sizes === undefined) {
      sizes = await fileSizes(folder);
      for (const size of sizes.values()) totalBytes += size;
    }
    const name = nameOf(path);
    const file = join(folder, name);
    const before = read(path);
    const most = totalBytes > limits.bytes / 2 ? 1 : maxVersions;
    const versions = limited([...added, ...before], most);
    const [newest] = before;
    if (newest !== undefined && versions[0] && isSameVersion(newest, versions[0])) {
      const now = new Date();
      utimesSync(file, now, now);
      setSize(name, sizes.get(name));
      return;
    }
    await replaceFiles([{ path: file, content: filePieces(path, versions), mode: 0o600 }]);
    setSize(name, lstatSync(file).size);
    for (const oldest of sizes.keys()) {
      if (sizes.size <= limits.paths && totalBytes <= limits.bytes) break;
      if (oldest === name) break;
      rmSync(join(folder, oldest), { force: true });
      setSize(oldest, undefined);
    }
  }

  /** Writes one path after the other. On a full disk, the rest waits until there is more to write. */
  async function writeAll(): Promise<void> {
    for (;;) {
      // Not before the answer that is being made.
      await nextTurn();
      const [next] = waiting;
      if (next === undefined) return;
      const [path, added] = next;
      try {
        await write(path, added);
        lastProblem = '';
      } catch (error) {
        report(`cannot keep the version of ${path} that rendered`, error);
        if (hasCode(error, 'ENOSPC', 'EDQUOT', 'EROFS')) return;
      }
      // Another one may have come in between.
      if (waiting.get(path) !== added) continue;
      waiting.delete(path);
      waitingBytes -= bytesOf(added);
    }
  }

  return {
    keep(path, version) {
      const before = waiting.get(path) ?? [];
      const after = limited([version, ...before], maxVersions);
      const bytes = bytesOf(after) - bytesOf(before);
      if (waitingBytes + bytes > maxMemory) {
        report(
          `cannot keep the version of ${path} that rendered`,
          new Error('too many wait to be written'),
        );
        return;
      }
      waiting.set(path, after);
      waitingBytes += bytes;
      knownBytes -= bytesOf(known.get(path) ?? []);
      known.delete(path);
      writing ??= writeAll().finally(() => {
        writing = undefined;
      });
    },
    versions(path) {
      const cached = known.get(path);
      if (cached !== undefined) return cached;
      const versions = limited([...(waiting.get(path) ?? []), ...read(path)], maxVersions);
      knownBytes += bytesOf(versions);
      if (knownBytes > maxMemory) {
        known.clear();
        knownBytes = bytesOf(versions);
      }
      known.set(path, versions);
      return versions;
    },
    async written() {
      await writing;
    },
  };
}

function nameOf(path: string): string {
  return createHash('sha256').update(path).digest('hex');
}
