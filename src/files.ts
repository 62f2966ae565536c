import { chmodSync, type Stats, statSync } from 'node:fs';
import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { shortTurns } from './turns.js';

/** A file to write. */
export interface FileContent {
  readonly path: string;
  /** The text, or its pieces in UTF-8, which are made when the file is written. */
  readonly content: string | Iterable<Buffer>;
  /** Permission bits, whatever the umask is; 0644 by default. */
  readonly mode?: number;
  /** Only root can name another one. */
  readonly owner?: { readonly uid: number; readonly gid: number };
}

// A dnsmasq that reads whole folders of hosts files, as Python's does, ignores names with a dot in front.
function temporaryName(path: string): string {
  return join(dirname(path), `.${basename(path)}.new`);
}

async function withFile<T>(path: string, flags: string, use: (file: FileHandle) => Promise<T>) {
  const file = await open(path, flags, 0o600);
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}

/** Why permissions cannot be changed now: the file is another user's, or its disk is read-only or full. */
const keepsPermissions = ['EPERM', 'EACCES', 'EROFS', 'ENOSPC', 'EDQUOT'];

/**
 * Takes the permissions that are not in the mode from a file, if there is one and it is no device or
 * pipe. It keeps them where they cannot be changed: `mdserverctl check` reports it. Throws other
 * errors of the file system.
 */
export function limitMode(path: string, mode: number): void {
  const stats = statOrNone(path);
  if (!stats?.isFile() || (stats.mode & 0o7777 & ~mode) === 0) return;
  try {
    chmodSync(path, stats.mode & mode);
  } catch (error) {
    if (!keepsPermissions.includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

/** The whole text of a file. */
export function fileText({ content }: FileContent): string {
  return typeof content === 'string' ? content : Buffer.concat([...content]).toString();
}

/** The pieces of a content, without empty ones. Others are served while they are made. */
async function piecesOf(content: FileContent['content']): Promise<readonly Buffer[]> {
  const pieces: Buffer[] = [];
  const turn = shortTurns();
  for (const piece of typeof content === 'string' ? [Buffer.from(content)] : content) {
    if (piece.length > 0) pieces.push(piece);
    await turn();
  }
  return pieces;
}

/** The number of pieces that the system takes in one call (IOV_MAX). */
const maxPieces = 1024;

async function writePieces(file: FileHandle, pieces: readonly Buffer[]): Promise<void> {
  for (let start = 0; start < pieces.length; start += maxPieces) {
    let rest = pieces.slice(start, start + maxPieces);
    while (rest.length > 0) {
      const { bytesWritten } = await file.writev(rest);
      rest = behind(rest, bytesWritten);
    }
  }
}

/** What is left of the pieces behind so many bytes. */
function behind(pieces: readonly Buffer[], bytes: number): Buffer[] {
  let left = bytes;
  const index = pieces.findIndex((piece) => {
    if (piece.length > left) return true;
    left -= piece.length;
    return false;
  });
  if (index < 0) return [];
  const [first, ...others] = pieces.slice(index);
  return first === undefined ? [] : [first.subarray(left), ...others];
}

/** A file whose content is ready to be written. */
interface PreparedFile {
  readonly path: string;
  readonly pieces: readonly Buffer[];
  readonly mode: number;
  readonly owner: FileContent['owner'];
}

/**
 * Throws EISDIR if the path is a folder: once the temporary file is written, that and a broken disk
 * are all that can make the rename fail.
 */
async function refuseFolder(path: string): Promise<void> {
  const stats = await stat(path).catch(() => undefined);
  if (!stats?.isDirectory()) return;
  const message = `EISDIR: '${path}' is a folder where a file is expected`;
  throw Object.assign(new Error(message), { code: 'EISDIR' });
}

/** Writes the content to disk under the temporary name. */
async function stage({ path, pieces, mode, owner }: PreparedFile): Promise<void> {
  try {
    await refuseFolder(path);
    // Not a file that is there: a killed process left it, and whoever has it open could read on.
    await rm(temporaryName(path), { force: true });
    await withFile(temporaryName(path), 'wx', async (file) => {
      if (owner !== undefined) await file.chown(owner.uid, owner.gid);
      await file.chmod(mode);
      await writePieces(file, pieces);
      await file.sync();
    });
  } catch (error) {
    // An error on an open file (ENOSPC, EIO) does not name the file.
    const { message, code } = error as NodeJS.ErrnoException;
    const located = message.includes(path) ? message : `${message} '${path}'`;
    throw Object.assign(new Error(located, { cause: error }), { code });
  }
}

/** Files that are on disk under temporary names. */
export interface StagedFiles {
  /** The paths of the files that they replace. */
  readonly paths: readonly string[];
  /**
   * Replaces the files, in the given order; when it resolves, that is on disk. Only a broken disk or
   * a folder that is gone can make it fail.
   */
  commit(): Promise<void>;
  /** Removes them. Never rejects. */
  discard(): Promise<void>;
}

async function stageAll(files: readonly PreparedFile[]): Promise<StagedFiles> {
  const staged = new Set(files.map(({ path }) => temporaryName(path)));
  const discard = async () => {
    // An error that led here is the one to report, even if this fails too.
    await Promise.allSettled(Array.from(staged, (name) => rm(name, { force: true })));
  };
  const outcomes = await Promise.allSettled(files.map(stage));
  for (const outcome of outcomes) {
    if (outcome.status === 'fulfilled') continue;
    await discard();
    throw outcome.reason;
  }
  return {
    paths: files.map(({ path }) => path),
    discard,
    async commit() {
      try {
        for (const { path } of files) {
          await rename(temporaryName(path), path);
          staged.delete(temporaryName(path));
        }
      } catch (error) {
        await discard();
        throw error;
      }
      const folders = new Set(files.map(({ path }) => dirname(path)));
      await Promise.all(
        Array.from(folders, (folder) => withFile(folder, 'r', (handle) => handle.sync())),
      );
    },
  };
}

async function prepareAll(files: readonly FileContent[]): Promise<readonly PreparedFile[]> {
  const prepared: PreparedFile[] = [];
  for (const { path, content, mode = 0o644, owner } of files) {
    prepared.push({ path, pieces: await piecesOf(content), mode, owner });
  }
  return prepared;
}

/**
 * Replaces all of the files or none: it writes all contents to disk under temporary names before it
 * renames the first file. It renames them in the given order; when it returns, the renames are on
 * disk. Two callers must not replace the same files at the same time.
 * Throws the file system's error (ENOSPC, EACCES, …), which names the file; the files are unchanged.
 */
export async function replaceFiles(files: readonly FileContent[]): Promise<void> {
  const staged = await stageAll(await prepareAll(files));
  await staged.commit();
}

/** The state of a file; undefined if there is none. */
export function statOrNone(path: string): Stats | undefined {
  return statSync(path, { throwIfNoEntry: false });
}

/** Whether the file is the same and has not been written in between. */
export function isUnchanged(a: Stats | undefined, b: Stats | undefined): boolean {
  return a?.ino === b?.ino && a?.mtimeMs === b?.mtimeMs && a?.size === b?.size;
}

/** Writes files again and again, and each of them only when its content differs. */
export interface FileKeeper {
  /**
   * Writes the files to disk under temporary names, but for those whose content is as it was last
   * written and still there. Throws as replaceFiles does.
   */
  stage(files: readonly FileContent[]): Promise<StagedFiles>;
  /** Makes the next `stage` write all files. */
  forget(): void;
}

/** Creates a keeper of files that nobody else should write. */
export function fileKeeper(): FileKeeper {
  const written = new Map<string, { pieces: readonly Buffer[]; stats: Stats | undefined }>();

  function isThere({ path, pieces }: PreparedFile): boolean {
    const before = written.get(path);
    return (
      before !== undefined &&
      before.pieces.length === pieces.length &&
      pieces.every((piece, index) => before.pieces[index]?.equals(piece)) &&
      isUnchanged(before.stats, statOrNone(path))
    );
  }

  return {
    async stage(files) {
      const prepared = await prepareAll(files);
      const different = prepared.filter((file) => !isThere(file));
      const staged = await stageAll(different);
      return {
        ...staged,
        async commit() {
          for (const { path } of different) written.delete(path);
          await staged.commit();
          for (const { path, pieces } of different) {
            written.set(path, { pieces, stats: statOrNone(path) });
          }
        },
      };
    },
    forget() {
      written.clear();
    },
  };
}
