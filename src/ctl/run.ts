import { execFile } from 'node:child_process';
import { exitCodes } from './commands.js';
import { CommandError } from './failure.js';

/** How a program ended; status -1 after a signal. */
export interface Ended {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const longest = 64 * 1024 * 1024;

/** Runs a program to its end, in the C locale; undefined where there is no such program. */
export function run(command: string, args: readonly string[]): Promise<Ended | undefined> {
  const env = { ...process.env, LC_ALL: 'C' };
  return new Promise((resolve, reject) => {
    execFile(command, [...args], { env, maxBuffer: longest }, (error, stdout, stderr) => {
      if (error?.code === 'ENOENT') resolve(undefined);
      else if (error !== null && typeof error.code === 'string') reject(error);
      else resolve({ status: error === null ? 0 : Number(error.code ?? -1), stdout, stderr });
    });
  });
}

/** The first line that tells something; virsh puts "error: " before its own. */
export function firstLine(text: string): string {
  const line = text.split('\n').find((candidate) => candidate.trim() !== '') ?? '';
  return line.replace(/^error:\s*/, '').trim();
}

/** What virsh is asked, and its lines. Throws CommandError with what it says. */
export type Virsh = (...args: string[]) => Promise<string>;

/** virsh on a connection URI. */
export function virshOn(uri: string): Virsh {
  return async (...args) => {
    const ended = await run('virsh', ['--connect', uri, ...args]);
    if (ended === undefined) {
      throw new CommandError('virsh is not there: install libvirt-clients', exitCodes.failed);
    }
    if (ended.status !== 0) {
      throw new CommandError(`virsh (${uri}): ${firstLine(ended.stderr)}`, exitCodes.failed);
    }
    return ended.stdout;
  };
}

/** Calls `work` for each item, a few at a time; the results are in the items' order. */
export async function eachOf<T, R>(
  items: readonly T[],
  atOnce: number,
  work: (item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = [];
  const left = items.entries();
  async function worker(): Promise<void> {
    for (const [index, item] of left) results[index] = await work(item);
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, worker));
  return results;
}
