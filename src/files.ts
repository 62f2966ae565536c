import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/** A file and what it shall hold. */
export interface FileContent {
  readonly path: string;
  readonly content: string;
  /** Permission bits; 0644 if left out. */
  readonly mode?: number;
}

// dnsmasq skips names that begin with a dot when it reads a folder of hosts files.
function temporaryName(path: string): string {
  return join(dirname(path), `.${basename(path)}.new`);
}

async function withFile<T>(
  path: string,
  flags: string,
  mode: number,
  use: (file: FileHandle) => Promise<T>,
) {
  const file = await open(path, flags, mode);
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}

/** Puts the content on the disk under the temporary name. */
async function stage({ path, content, mode = 0o644 }: FileContent): Promise<void> {
  try {
    await withFile(temporaryName(path), 'w', mode, async (file) => {
      await file.writeFile(content);
      await file.sync();
    });
  } catch (error) {
    // What fails on an open file (ENOSPC, EIO) does not say which one.
    const { message, code } = error as NodeJS.ErrnoException;
    const located = message.includes(path) ? message : `${message} '${path}'`;
    throw Object.assign(new Error(located, { cause: error }), { code });
  }
}

/** Nothing but this, short of a broken disk, stops a rename in a folder that was just written to. */
async function refuseFolder(path: string): Promise<void> {
  const there = await stat(path).catch(() => undefined);
  if (!there?.isDirectory()) return;
  const message = `EISDIR: a folder is in the place of the file '${path}'`;
  throw Object.assign(new Error(message), { code: 'EISDIR' });
}

/**
 * Replaces files, all of them or none: every new content is on the disk under a temporary name
 * before the first file is renamed. Renames happen in the order given, and have reached the disk
 * when this returns. Not for two callers with the same paths at the same time.
 * Throws what the file system says (ENOSPC, EACCES, …) and where, with the files as they were.
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
    // What went wrong is what has to be said, not that something is in the way here, too.
    await Promise.allSettled(Array.from(staged, (name) => rm(name, { force: true })));
    throw error;
  }
  for (const folder of new Set(files.map(({ path }) => dirname(path)))) {
    await withFile(folder, 'r', 0, (handle) => handle.sync());
  }
}
