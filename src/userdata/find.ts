import { type Dirent, lstatSync, readdirSync, realpathSync, type Stats, statSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import { quoted } from '../text.js';

/** Where user-data is: `[mdserver]` userdata_dir, userdata_suffixes, default_template, builtin_template. */
export interface UserdataLocation {
  readonly directory: string;
  readonly suffixes: readonly string[];
  readonly defaultTemplate: string | undefined;
  readonly builtIn: boolean;
}

/** What an instance's user-data is looked up by. */
export interface UserdataQuery {
  readonly name: string;
  readonly mac: string | undefined;
  /** `userdata_prefix` of the domain's metadata. */
  readonly prefix: string | undefined;
  /** The domain says that there is none. */
  readonly refused: boolean;
}

/** There is no user-data. */
export interface NoUserdata {
  /** Why, for messages that have named the instance. */
  readonly reason: string;
  /** Somebody has said so. */
  readonly onPurpose: boolean;
}

/** Where an instance's user-data may come from. */
export interface Candidates {
  readonly directory: string;
  /** In the directory, in order of preference. */
  readonly files: readonly { readonly name: string; readonly path: string }[];
  /** What comes if there is none of the files. */
  readonly otherwise: { readonly defaultTemplate: string } | 'built-in' | NoUserdata;
  /** The files are for this machine alone: they have its name or its MAC address. */
  readonly own: boolean;
  /** One for each name that was ignored. */
  readonly warnings: readonly string[];
}

/** Changes whenever a file is written, replaced, or made readable or unreadable. */
export type FileVersion = Pick<Stats, 'dev' | 'ino' | 'size' | 'mtimeMs' | 'ctimeMs'>;

/** A regular file, and its version when it was found. */
export interface SourceFile {
  /** The path under which it was found. */
  readonly path: string;
  /** The path to open: the same file, but its last component is not a symbolic link. */
  readonly target: string;
  readonly version: FileVersion;
}

/** What user-data is rendered from. */
export type UserdataSource = SourceFile | 'built-in' | NoUserdata;

/** Whether there is no user-data. */
export function isNoUserdata(
  source: UserdataSource | Candidates['otherwise'],
): source is NoUserdata {
  return typeof source === 'object' && 'reason' in source;
}

/** User-data cannot be served because of its file; the message is for the log. */
export class UserdataError extends Error {
  constructor(
    readonly file: string,
    problem: string,
    /** Of the file system, if it is one. */
    cause?: unknown,
  ) {
    super(`${file}: ${problem}`, { cause });
  }
}

/** There is no file where the configuration names one. */
export class MissingFileError extends UserdataError {}

const notPermitted = 'mdserver is not allowed to read it: give its user read permission';
const reasons = new Map([
  ['EACCES', notPermitted],
  ['EPERM', notPermitted],
]);

/** The file system's error as a UserdataError that says what to do. */
export function fileError(path: string, error: unknown): UserdataError {
  const { code = '', message } = error as NodeJS.ErrnoException;
  return new UserdataError(path, reasons.get(code) ?? `cannot be read: ${message}`, error);
}

/** Whether this is a system error with one of the codes. */
export function hasCode(error: unknown, ...codes: string[]): boolean {
  return codes.includes((error as NodeJS.ErrnoException).code ?? '');
}

/** Whether the file is unchanged. Unlike the modification time, the change time cannot be set back. */
export function sameVersion(a: FileVersion, b: FileVersion): boolean {
  return (
    a.ctimeMs === b.ctimeMs &&
    a.mtimeMs === b.mtimeMs &&
    a.ino === b.ino &&
    a.size === b.size &&
    a.dev === b.dev
  );
}

/** The coarsest resolution of file times, in milliseconds (FAT). Within it, a change may not show. */
const timeResolution = 2000;

/** Whether any later change will change the file's version. */
export function isSettled(stats: Stats): boolean {
  return Date.now() - stats.ctimeMs > timeResolution;
}

/**
 * Returns a function that lists a directory and caches the names until the directory changes. Most
 * guests have no file of their own, and trying each name and suffix costs more than the rest of the
 * request. It returns undefined for a directory that changed just now or cannot be read.
 */
export function cachedDirectoryEntries(): (directory: string) => ReadonlySet<string> | undefined {
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
      // The lookup of a file reports the error.
      return undefined;
    }
  };
}

function sourceFile(path: string, target: string, stats: Stats): SourceFile {
  return { path, target, version: stats };
}

/** Why a name cannot be a file in the directory; undefined if it can. */
function nameProblem(name: string, allowsFolders: boolean): string | undefined {
  // This matches nearly all names.
  if (/^\w[^\0/]*$/.test(name)) return undefined;
  if (name.includes('\0')) return 'contains a NUL character';
  if (isAbsolute(name)) return 'is an absolute path';
  const segments = name.split('/');
  if (segments.includes('..')) return 'contains ".."';
  // A version control system or an editor may have put it there: .git/config, .web1.yaml.swp.
  if (segments.some((segment) => segment.startsWith('.'))) return 'has a part that begins with "."';
  // With a suffix, it would be a file such as "folder/.yaml".
  if (name.endsWith('/')) return 'ends with "/"';
  return name.includes('/') && !allowsFolders ? 'contains "/"' : undefined;
}

/**
 * The file that a path with symbolic links resolves to. Throws UserdataError if that is outside the directory.
 */
function resolveLinks(directory: string, path: string): SourceFile | undefined {
  const inside = `${realpathSync.native(directory)}/`.replace('//', '/');
  const target = realpathSync.native(path);
  if (!target.startsWith(inside)) {
    const problem = `the link points to ${target}, outside ${directory}: put a file there in its place`;
    throw new UserdataError(path, problem);
  }
  const stats = statSync(target);
  return stats.isFile() ? sourceFile(path, target, stats) : undefined;
}

/**
 * The file of that name in the directory; undefined if there is none. Throws UserdataError if it cannot be
 * accessed, or if a link leads out of the directory: the operator meant this file, and no other.
 */
function fileInDirectory(
  directory: string,
  { name, path }: Candidates['files'][number],
): SourceFile | undefined {
  try {
    const stats = lstatSync(path, { throwIfNoEntry: false });
    if (stats === undefined) return undefined;
    // The usual case needs no real path: the file is directly in the directory.
    if (stats.isFile() && !name.includes('/')) return sourceFile(path, path, stats);
    if (!stats.isFile() && !stats.isSymbolicLink()) return undefined;
    return resolveLinks(directory, path);
  } catch (error) {
    if (error instanceof UserdataError) throw error;
    if (hasCode(error, 'ENOENT', 'ENOTDIR', 'ENAMETOOLONG')) return undefined;
    if (!hasCode(error, 'ELOOP')) throw fileError(path, error);
    throw new UserdataError(path, 'the link points to itself: put a file there in its place');
  }
}

/** The file of the directory that a template includes. Throws UserdataError. */
export function includedFile(directory: string, name: string): SourceFile {
  const problem = nameProblem(name, true);
  if (problem !== undefined) throw new UserdataError(name, `the name ${problem}`);
  const path = `${directory}/${name}`;
  const found = fileInDirectory(directory, { name, path });
  if (found === undefined) throw new UserdataError(path, 'no such file');
  return found;
}

/** What is wrong with the links directly in the directory, whether or not an instance needs them. */
export function linkProblems(directory: string): UserdataError[] {
  let entries: Dirent[];
  try {
    entries = readdirSync(directory, { withFileTypes: true });
  } catch {
    // The lookup of a file reports the error.
    return [];
  }
  return entries.flatMap((entry) => {
    const { name } = entry;
    if (!entry.isSymbolicLink() || nameProblem(name, false) !== undefined) return [];
    try {
      fileInDirectory(directory, { name, path: `${directory}/${name}` });
      return [];
    } catch (error) {
      if (error instanceof UserdataError) return [error];
      throw error;
    }
  });
}

/**
 * The file that an option names. It may be in any directory.
 * Throws UserdataError if it does not exist or cannot be accessed.
 */
export function configuredFile(path: string, option: string): SourceFile {
  let stats: Stats | undefined;
  try {
    stats = lstatSync(path, { throwIfNoEntry: false });
    if (stats?.isFile()) return sourceFile(path, path, stats);
    stats = statSync(path, { throwIfNoEntry: false });
    if (stats?.isFile()) return sourceFile(path, realpathSync.native(path), stats);
  } catch (error) {
    throw fileError(path, error);
  }
  if (stats !== undefined)
    throw new UserdataError(path, `is not a regular file (set by ${option})`);
  throw new MissingFileError(path, `no such file (set by ${option})`);
}

/** What the log says of a default template that is missing. */
export const builtInInstead = 'the built-in template takes its place';

/**
 * What to say of a default template that is configured and not there: the built-in one takes its place, as in
 * the Python server. Undefined if none is configured, or if it is there.
 */
export function missingDefault(path: string | undefined): string | undefined {
  try {
    if (path !== undefined) configuredFile(path, 'mdserver.default_template');
    return undefined;
  } catch (error) {
    // Any other error is said where the template is rendered.
    return error instanceof MissingFileError ? `${error.message}: ${builtInInstead}` : undefined;
  }
}

/** What comes if there is no file for an instance. */
function otherwiseOf(
  { defaultTemplate, builtIn }: UserdataLocation,
  { prefix, refused }: UserdataQuery,
): Candidates['otherwise'] {
  if (refused) return { reason: 'userdata in the metadata of its domain is none', onPurpose: true };
  if (prefix !== undefined) {
    return {
      reason: `mdserver.userdata_dir has no file for the userdata_prefix in the metadata of its domain, ${quoted(prefix)}`,
      onPurpose: false,
    };
  }
  if (defaultTemplate !== undefined) return { defaultTemplate };
  if (builtIn) return 'built-in';
  return {
    reason:
      'mdserver.userdata_dir has no file for its name or MAC address, mdserver.default_template is not set, and mdserver.builtin_template is no',
    onPurpose: true,
  };
}

/**
 * Where an instance's user-data may come from: files named by its prefix if it has one, else by its name
 * or MAC, each with each suffix. Only a prefix may contain a folder. Neither may name a hidden file or folder.
 */
export function candidatesOf(location: UserdataLocation, query: UserdataQuery): Candidates {
  const { directory, suffixes } = location;
  const { name, mac, prefix, refused } = query;
  const own = prefix === undefined;
  const warnings: string[] = [];
  const files: { name: string; path: string }[] = [];
  for (const stem of refused ? [] : own ? [name, mac] : [prefix]) {
    if (stem === undefined) continue;
    const problem = nameProblem(stem, !own);
    if (problem !== undefined) {
      warnings.push(`user-data of ${quoted(stem)}: ignored: the name ${problem}`);
      continue;
    }
    for (const suffix of suffixes) {
      files.push({ name: stem + suffix, path: `${directory}/${stem}${suffix}` });
    }
  }
  return { directory, files, otherwise: otherwiseOf(location, query), own, warnings };
}

/**
 * Finds the source of an instance's user-data: the first candidate that is a regular file inside the
 * directory, else what comes without one.
 * `entries` are the names in the directory, if known; they save looking for each candidate.
 * Throws UserdataError if a file exists but cannot be accessed, or is a link out of the directory.
 */
export function findUserdata(
  { directory, files, otherwise }: Candidates,
  entries?: ReadonlySet<string>,
): UserdataSource {
  for (const file of files) {
    if (entries?.has(file.name) === false && !file.name.includes('/')) continue;
    const found = fileInDirectory(directory, file);
    if (found !== undefined) return found;
  }
  if (otherwise === 'built-in' || isNoUserdata(otherwise)) return otherwise;
  return configuredFile(otherwise.defaultTemplate, 'mdserver.default_template');
}
