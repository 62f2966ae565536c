import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

/** The result of a command. */
export interface CommandResult {
  /** The exit code; -1 after a signal. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly milliseconds: number;
}

export interface RunOptions {
  /** Its standard input. */
  readonly input?: string;
  /** After this many milliseconds it is killed. */
  readonly limit?: number;
}

/** Runs a command until it ends, successfully or not. */
export async function attempt(
  command: string,
  args: readonly string[],
  { input = '', limit = 120_000 }: RunOptions = {},
): Promise<CommandResult> {
  const started = Date.now();
  const child = spawn(command, args, { timeout: limit, killSignal: 'SIGKILL' });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  // It is not an error if a command does not read its input.
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  const [status] = (await once(child, 'close')) as [number | null];
  return { status: status ?? -1, stdout, stderr, milliseconds: Date.now() - started };
}

/** Runs a command and returns its output. Throws with its error output if it fails. */
export async function run(
  command: string,
  args: readonly string[],
  options?: RunOptions,
): Promise<string> {
  const { status, stdout, stderr } = await attempt(command, args, options);
  if (status === 0) return stdout;
  const output = (stderr.trim() || stdout.trim()).slice(-2000);
  throw new Error(`${[command, ...args].join(' ').slice(0, 300)} ended with ${status}: ${output}`);
}

/** Repeats `look` until it returns a value, and returns that. Throws after `limit` milliseconds. */
export async function eventually<Found>(
  what: string,
  limit: number,
  look: () => Found | undefined | Promise<Found | undefined>,
): Promise<Found> {
  const deadline = Date.now() + limit;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (Date.now() > deadline) throw new Error(`${what}: not within ${limit / 1000} s`);
    await sleep(250);
  }
}

export function isRunning(child: ChildProcess | undefined): boolean {
  return child?.exitCode === null && child.signalCode === null;
}

/** Sends the signal and waits until the process ends. */
export async function end(child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  if (!isRunning(child)) return;
  const ended = once(child, 'exit');
  child.kill(signal);
  await ended;
}

/** The numbers of a user of this machine and of its group. Throws if there is no such user. */
export function accountOf(user: string): { readonly uid: number; readonly gid: number } {
  const id = (flag: string) => Number(execFileSync('id', [flag, user], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
}
