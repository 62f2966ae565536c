import { chmodSync, statSync } from 'node:fs';
import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/** A file to write. */
export interface FileContent {
  readonly path: string;
  readonly content: string;
  /** Permission bits, whatever the umask is; 0644 by default. */
  readonly mode?: number;
}

// dnsmasq ignores names that begin with a dot when it reads a folder of hosts files.
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

/**
 * Takes the permissions that are not in the mode from a file, if there is one and it is no device or
 * pipe. A file of another user keeps them: `mdserverctl check` reports it. Throws other errors of the
 * file system.
 */
export function limitMode(path: string, mode: number): void {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (!stats?.isFile() || (stats.mode & 0o7777 & ~mode) === 0) return;
  try {
    chmodSync(path, stats.mode & mode);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
  }
}

/** Writes the content to disk under the temporary name. */
async function stage({ path, content, mode = 0o644 }: FileContent): Promise<void> {
  try {
    // Not a file that is there: a killed process left it, and whoever has it open could read on.
    await rm(temporaryName(path), { force: true });
    await withFile(temporaryName(path), 'wx', async (file) => {
      await file.chmod(mode);
      await file.writeFile(content);
      await file.sync();
    });
  } catch (error) {
    // An error on an open file (ENOSPC, EIO) does not name the file.
    const { message, code } = error as NodeJS.ErrnoException;
    const located = message.includes(path) ? message : `${message} '${path}'`;
    throw Object.assign(new Error(located, { cause: error }), { code });
  }
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

/**
 * Replaces all of the files or none: it writes all contents to disk under temporary names before it
 * renames the first file. It renames them in the given order; when it returns, the renames are on
 * disk. Two callers must not replace the same files at the same time.
 * Throws the file system's error (ENOSPC, EACCES, …), which names the file; the files are unchanged.
 */
export async function replaceFiles(files: readonly FileContent[]): Promise<void> {
  const staged = new Set<string>();
  try {
    for (const file of files) {
      await refuseFolder(file.path);
      staged.add(temporaryName(file.path));
      await stage(file);
    }
    for (const { path } of files) {
      await rename(temporaryName(path), path);
      staged.delete(temporaryName(path));
    }
  } catch (error) {
    // The first error is the one to report, even if this fails too.
    await Promise.allSettled(Array.from(staged, (name) => rm(name, { force: true })));
    throw error;
  }
  for (const folder of new Set(files.map(({ path }) => dirname(path)))) {
    await withFile(folder, 'r', (handle) => handle.sync());
  }
}
