import { lstatSync, readdirSync, realpathSync, type Stats, statSync } from 'node:fs';
import { isAbsolute } from 'node:path';

/** Where user-data is looked for: `[mdserver]` userdata_dir, userdata_suffixes, default_template. */
export interface Places {
  readonly directory: string;
  readonly suffixes: readonly string[];
  readonly defaultTemplate: string | undefined;
}

/** What an instance's user-data is looked for by. */
export interface Wanted {
  readonly name: string;
  readonly mac: string | undefined;
  /** `userdata_prefix` of the domain's metadata. */
  readonly prefix: string | undefined;
}

/** The files that can be an instance's user-data. */
export interface Candidates extends Places {
  /** In the directory, in the order in which they are looked for. */
  readonly files: readonly { readonly name: string; readonly path: string }[];
  /** An instance with a prefix has the file of its prefix or none. */
  readonly prefixed: boolean;
  /** A line for the log for each name that was passed over. */
  readonly refused: readonly string[];
}

/** Is another one whenever a file was written, replaced, or made (un)readable. */
export type FileVersion = Pick<Stats, 'dev' | 'ino' | 'size' | 'mtimeMs' | 'ctimeMs'>;

/** A regular file as it was when it was looked at. */
export interface FoundFile {
  /** The path as it was looked for. */
  readonly path: string;
  /** The same file with no symbolic link as its last part, to open. */
  readonly target: string;
  readonly version: FileVersion;
}

/** A file, the built-in template, or none where a prefix names no file. */
export interface Found {
  readonly what: FoundFile | 'built-in' | 'none';
  /** A line for the log for each thing that was passed over. */
  readonly refused: readonly string[];
}

/** User-data that cannot be served for a reason that its file has; the message is for the log. */
export class UserdataError extends Error {
  constructor(
    readonly file: string,
    problem: string,
  ) {
    super(`${file}: ${problem}`);
  }
}

const reasons = new Map([
  ['EACCES', 'mdserver may not read it: give its user the right to'],
  ['EPERM', 'mdserver may not read it: give its user the right to'],
]);

/** The error for what the file system said of a file. */
export function fileError(path: string, error: unknown): UserdataError {
  const { code = '', message } = error as NodeJS.ErrnoException;
  return new UserdataError(path, reasons.get(code) ?? `cannot be read: ${message}`);
}

/** Whether the file system said one of these. */
export function isCode(error: unknown, ...codes: string[]): boolean {
  return codes.includes((error as NodeJS.ErrnoException).code ?? '');
}

/** Whether nothing has changed in between. The change time cannot be set back, unlike mtime. */
export function sameVersion(a: FileVersion, b: FileVersion): boolean {
  return (
    a.ctimeMs === b.ctimeMs &&
    a.mtimeMs === b.mtimeMs &&
    a.ino === b.ino &&
    a.size === b.size &&
    a.dev === b.dev
  );
}

/** A file that is younger (in milliseconds) may change with no new time: FAT counts in two seconds. */
const unsettled = 2000;

/** Whether any later change will show in the file's version. */
export function isSettled(stats: Stats): boolean {
  return Date.now() - stats.ctimeMs > unsettled;
}

/**
 * Gives the names in a directory, which are read anew when it has changed: most guests have no file
 * of their own, and to look for it under each name and suffix costs more than the request otherwise.
 * Gives undefined for a directory that changed just now, or cannot be read.
 */
export function directoryEntries(): (directory: string) => ReadonlySet<string> | undefined {
  let version: FileVersion | undefined;
  let entries: ReadonlySet<string> | undefined;
  return (directory) => {
    try {
      const stats = statSync(directory, { throwIfNoEntry: false });
      if (stats === undefined || !isSettled(stats)) return undefined;
      if (version !== undefined && sameVersion(version, stats)) return entries;
      version = stats;
      entries = undefined;
      entries = new Set(readdirSync(directory));
      return entries;
    } catch {
      // What is wrong is found, and said, when a file is looked for.
      return undefined;
    }
  };
}

function foundFile(path: string, target: string, stats: Stats): FoundFile {
  return { path, target, version: stats };
}

/** Why a name cannot stand for a file of the directory, or undefined. */
function badName(name: string, folders: boolean): string | undefined {
  // Nearly all names end here.
  if (/^\w[^\0/]*$/.test(name)) return undefined;
  if (name.includes('\0')) return 'holds a NUL character';
  if (isAbsolute(name)) return 'is an absolute path';
  if (name.split('/').includes('..')) return 'holds ".."';
  return name.includes('/') && !folders ? 'holds "/"' : undefined;
}

/** The file that a path leads to through symbolic links, none of which may leave the directory. */
function throughLinks(directory: string, path: string, refused: string[]): FoundFile | undefined {
  const inside = `${realpathSync.native(directory)}/`.replace('//', '/');
  const target = realpathSync.native(path);
  if (!target.startsWith(inside)) {
    refused.push(`${path}: passed over, its link leads to ${target}, outside of ${directory}`);
    return undefined;
  }
  const stats = statSync(target);
  return stats.isFile() ? foundFile(path, target, stats) : undefined;
}

function fileInside(
  directory: string,
  { name, path }: Candidates['files'][number],
  refused: string[],
): FoundFile | undefined {
  try {
    const stats = lstatSync(path, { throwIfNoEntry: false });
    if (stats === undefined) return undefined;
    // The usual case needs no look at the real path: a file right in the directory is inside it.
    if (stats.isFile() && !name.includes('/')) return foundFile(path, path, stats);
    if (!stats.isFile() && !stats.isSymbolicLink()) return undefined;
    return throughLinks(directory, path, refused);
  } catch (error) {
    if (isCode(error, 'ENOENT', 'ENOTDIR', 'ENAMETOOLONG')) return undefined;
    if (!isCode(error, 'ELOOP')) throw fileError(path, error);
    refused.push(`${path}: passed over, its link leads back to itself`);
    return undefined;
  }
}

/**
 * A file that an option names: it may be anywhere, and it has to be there.
 * Throws UserdataError where it is not, or cannot be looked at.
 */
export function configuredFile(path: string, option: string): FoundFile {
  let stats: Stats | undefined;
  try {
    stats = lstatSync(path, { throwIfNoEntry: false });
    if (stats?.isFile()) return foundFile(path, path, stats);
    stats = statSync(path, { throwIfNoEntry: false });
    if (stats?.isFile()) return foundFile(path, realpathSync.native(path), stats);
  } catch (error) {
    throw fileError(path, error);
  }
  const problem = stats === undefined ? 'there is no such file' : 'is not a regular file';
  throw new UserdataError(path, `${problem}; ${option} names it`);
}

/**
 * Where an instance's user-data may be: in the file of its prefix alone where it has one, else of
 * its name, else of its MAC, each with each suffix. A prefix may name one in a folder.
 */
export function candidatesOf(places: Places, { name, mac, prefix }: Wanted): Candidates {
  const prefixed = prefix !== undefined;
  const refused: string[] = [];
  const files: { name: string; path: string }[] = [];
  for (const stem of prefixed ? [prefix] : [name, mac]) {
    if (stem === undefined) continue;
    const bad = badName(stem, prefixed);
    if (bad !== undefined) {
      refused.push(`user-data of ${JSON.stringify(stem)}: passed over, the name ${bad}`);
      continue;
    }
    // "." and ".." are made of a name and a suffix at most: both are folders, hence no files.
    for (const suffix of places.suffixes) {
      files.push({ name: stem + suffix, path: `${places.directory}/${stem}${suffix}` });
    }
  }
  return { ...places, files, prefixed, refused };
}

/**
 * Where an instance's user-data comes from: the first of its candidates that is a regular file
 * inside the directory, else, without a prefix, the default template, else the built-in one.
 * `entries` is what is in the directory, where that is known: each file is looked at otherwise.
 * Throws UserdataError for what is there and cannot be looked at.
 */
export function findUserdata(candidates: Candidates, entries?: ReadonlySet<string>): Found {
  const { directory, defaultTemplate, files, prefixed } = candidates;
  const passedOver: string[] = [];
  let what: Found['what'] | undefined;
  for (const file of files) {
    if (entries?.has(file.name) === false && !file.name.includes('/')) continue;
    what = fileInside(directory, file, passedOver);
    if (what !== undefined) break;
  }
  what ??= prefixed ? 'none' : 'built-in';
  if (what === 'built-in' && defaultTemplate !== undefined) {
    what = configuredFile(defaultTemplate, 'mdserver.default_template');
  }
  const { refused } = candidates;
  return { what, refused: passedOver.length === 0 ? refused : [...refused, ...passedOver] };
}
