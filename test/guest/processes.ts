import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

/** How a command ended. */
export interface Ended {
  /** The exit code; -1 after a signal. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly milliseconds: number;
}

export interface Running {
  /** Given to it on standard input. */
  readonly input?: string;
  /** Milliseconds after which it is killed. */
  readonly limit?: number;
}

/** Runs a command to its end, whatever that is. */
export async function attempt(
  command: string,
  args: readonly string[],
  { input = '', limit = 120_000 }: Running = {},
): Promise<Ended> {
  const started = Date.now();
  const child = spawn(command, args, { timeout: limit, killSignal: 'SIGKILL' });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  // A command that does not read its input is no failure.
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  const [status] = (await once(child, 'close')) as [number | null];
  return { status: status ?? -1, stdout, stderr, milliseconds: Date.now() - started };
}

/** Runs a command and gives what it printed. Throws with what it said when it fails. */
export async function run(
  command: string,
  args: readonly string[],
  running?: Running,
): Promise<string> {
  const { status, stdout, stderr } = await attempt(command, args, running);
  if (status === 0) return stdout;
  const said = (stderr.trim() || stdout.trim()).slice(-2000);
  throw new Error(`${[command, ...args].join(' ').slice(0, 300)} ended with ${status}: ${said}`);
}

/** Looks again and again until there is something, and gives that. Throws after the limit (ms). */
export async function eventually<Found>(
  what: string,
  limit: number,
  look: () => Found | undefined | Promise<Found | undefined>,
): Promise<Found> {
  const deadline = Date.now() + limit;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (Date.now() > deadline) throw new Error(`${what}: not after ${limit / 1000} s`);
    await sleep(250);
  }
}

export function isRunning({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode === null && signalCode === null;
}

/** Sends the signal and waits for the end. */
export async function end(child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  if (!isRunning(child)) return;
  const ended = once(child, 'exit');
  child.kill(signal);
  await ended;
}
