import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline/promises';
import { CommandError, exitCodes, UsageError } from './errors.js';

/** The content of the file, or of standard input for "-". Throws CommandError. */
export function readInput(file: string): Buffer {
  try {
    return readFileSync(file === '-' ? 0 : file);
  } catch (error) {
    const name = file === '-' ? 'standard input' : file;
    throw new CommandError(`cannot read ${name}: ${(error as Error).message}`, exitCodes.failed);
  }
}

/** Throws UsageError unless there is --yes or a terminal to ask on. */
export function requireConfirmation(command: string, yes: boolean): void {
  if (yes || process.stdin.isTTY === true) return;
  throw new UsageError(
    `${command} needs a terminal to ask for confirmation: use --yes to remove without asking`,
  );
}

/** Asks on the terminal; only "y" and "yes" confirm. */
export async function confirm(question: string): Promise<boolean> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    // After Ctrl-D, question() would never settle.
    const closed = new Promise<string>((resolve) => terminal.once('close', () => resolve('')));
    const answer = await Promise.race([terminal.question(`${question} [y/N] `), closed]);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    terminal.close();
  }
}
