import { readFileSync, type Stats, statSync } from 'node:fs';

/** The file's status; undefined if there is no such file. Throws if it is not accessible. */
export function statIfPresent(path: string): Stats | undefined {
  return statSync(path, { throwIfNoEntry: false });
}

/** Whether there is such a file. Throws if it is not accessible. */
export function exists(path: string): boolean {
  return statIfPresent(path) !== undefined;
}

/** The text of the file; undefined if there is no such file. */
export function readIfPresent(path: string): string | undefined {
  return exists(path) ? readFileSync(path, 'utf8') : undefined;
}
