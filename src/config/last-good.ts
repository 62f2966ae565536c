import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { replaceFiles } from '../files.js';
import type { ConfigSections } from './dialect.js';
import { interpreted, type LoadedConfig } from './load.js';

/** The file that the last good configuration is kept in. */
export function lastGoodFile(folder: string): string {
  return join(folder, 'last-good-config.json');
}

/**
 * Keeps the entries of a configuration that is in force, for a start whose configuration has an
 * error. Readable by its owner only: there may be a password. Throws the file system's error.
 */
export async function keepLastGood(folder: string, sections: ConfigSections): Promise<void> {
  const pairs = Array.from(sections, ([section, entries]) => [section, [...entries]]);
  const content = `${JSON.stringify(pairs)}\n`;
  await replaceFiles([{ path: lastGoodFile(folder), content, mode: 0o600 }]);
}

/** The configuration that was kept; undefined if there is none that this release can use. */
export function readLastGood(folder: string): LoadedConfig | undefined {
  try {
    const pairs: [string, []][] = JSON.parse(readFileSync(lastGoodFile(folder), 'utf8'));
    return interpreted(new Map(pairs.map(([section, entries]) => [section, new Map(entries)])));
  } catch {
    return undefined;
  }
}
