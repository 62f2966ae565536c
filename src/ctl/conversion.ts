import { linkSync, readFileSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ConversionProblem, convertTemplate } from '../bottle/convert.js';
import type { LoadedConfig } from '../config/load.js';
import { replaceFiles } from '../files.js';
import { daemonAccount, runAs } from './as-daemon.js';
import { type Compared, type ConvertedTemplate, compareTemplates } from './comparison.js';
import { pathPrefix } from './connection.js';
import { CommandError, exitCodes } from './errors.js';
import { pythonNames } from './python-names.js';

/** What becomes of a template. */
export type ConvertedFile = { readonly file: string } & (
  | { readonly result: 'refused'; readonly problems: readonly ConversionProblem[] }
  /** It is no text, which is served as it is. */
  | { readonly result: 'binary' }
  /** `after` is the same as `before` if the template means the same in both languages. */
  | { readonly result: 'converted'; readonly before: string; readonly after: string }
);

/** What conversions and editors leave beside templates. */
export const leftovers = /(?:\.bottle|\.new|~)$/;

/** The endings that Bottle tries for the name of a template. */
const endings = ['', '.tpl', '.html', '.thtml', '.stpl'];

/**
 * Returns a function that finds what a template includes: where Python's server looked, and in the folder
 * of templates, the only place where it can stay.
 */
function partsIn(folder: string) {
  const inside = `${resolve(folder)}/`;
  return (name: string) => {
    for (const start of ['/', '/views', folder]) {
      for (const ending of endings) {
        const path = resolve(start, name + ending);
        if (!path.startsWith(inside)) continue;
        const stats = statSync(path, { throwIfNoEntry: false });
        if (!stats?.isFile()) continue;
        return { name: path.slice(inside.length), source: readFileSync(path, 'utf8') };
      }
    }
    return undefined;
  };
}

/** The text of a file; undefined if it is not UTF-8. */
function textOf(file: string): string | undefined {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    throw new CommandError(`cannot read ${file}: ${(error as Error).message}`, exitCodes.failed);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** Converts a template of Python's server. It writes nothing. Throws CommandError if it cannot be read. */
export function convertFile(file: string, loaded: LoadedConfig): ConvertedFile {
  const source = textOf(file);
  if (source === undefined) return { file, result: 'binary' };
  const conversion = convertTemplate(source, {
    // Its value is another one for each instance.
    names: pythonNames(loaded, 'hostname'),
    part: partsIn(loaded.config.mdserver.userdata_dir),
  });
  if ('problems' in conversion) return { file, result: 'refused', problems: conversion.problems };
  const { text, changed } = conversion;
  return { file, result: 'converted', before: source, after: changed ? text : source };
}

const child = fileURLToPath(new URL('comparison-child.js', import.meta.url));

/**
 * Compares converted templates with what Bottle gives. Root does it as the daemon's user: templates are code,
 * and whoever can write them must not become root by it.
 */
export async function compareAsDaemon(
  templates: readonly ConvertedTemplate[],
  loaded: LoadedConfig,
  configFile: string,
): Promise<Compared> {
  if (process.geteuid?.() !== 0) return compareTemplates(templates, loaded);
  const account = await daemonAccount(loaded.config);
  if (account === undefined) {
    const { user } = loaded.config.dnsmasq;
    return { problem: `there is no user ${user} (dnsmasq.user), and root does not run templates` };
  }
  if (account.uid === 0) return compareTemplates(templates, loaded);
  const args = [child, resolve(configFile), pathPrefix];
  const { output, problem } = await runAs(account, args, JSON.stringify(templates));
  if (problem !== undefined) return { problem: `as user ${account.uid}: ${problem}` };
  const compared: unknown = JSON.parse(output);
  return compared as Compared;
}

/** Writes a text beside its file, or in its place: for the same user and group, with the same permissions. */
async function writeLike(file: string, path: string, text: string): Promise<void> {
  const { mode, uid, gid } = statSync(file);
  const owner = process.geteuid?.() === 0 ? { owner: { uid, gid } } : {};
  await replaceFiles([{ path, content: text, mode: mode & 0o777, ...owner }]);
}

/** Writes a converted template to FILE.new. Returns the path. */
export async function writeNew(file: string, text: string): Promise<string> {
  await writeLike(file, `${file}.new`, text);
  return `${file}.new`;
}

/**
 * Puts a converted template in the place of the old one, which stays as FILE.bottle. Returns that path.
 * Throws EEXIST if there is a FILE.bottle: it is from an earlier conversion.
 */
export async function replaceTemplate(file: string, text: string): Promise<string> {
  const kept = `${file}.bottle`;
  linkSync(file, kept);
  await writeLike(file, file, text);
  return kept;
}
