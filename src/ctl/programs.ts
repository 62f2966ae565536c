import { execFile } from 'node:child_process';

/** How a program ended; status -1 after a signal. */
export interface ProgramResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The limit for standard output and for standard error. */
const maxOutputBytes = 64 * 1024 * 1024;

/** How a program is run. */
export interface RunOptions {
  /** When it comes, the program is killed. */
  readonly signal?: AbortSignal;
  /** Its standard input; empty by default. */
  readonly input?: string;
  readonly cwd?: string;
}

/**
 * Runs a program to its end, in the C locale; undefined if there is no such program. Throws when the
 * signal comes.
 */
export function runProgram(
  command: string,
  args: readonly string[],
  { input = '', ...given }: RunOptions = {},
): Promise<ProgramResult | undefined> {
  const options = {
    env: { ...process.env, LC_ALL: 'C' },
    maxBuffer: maxOutputBytes,
    killSignal: 'SIGKILL' as const,
    ...given,
  };
  return new Promise((resolve, reject) => {
    const running = execFile(command, [...args], options, (error, stdout, stderr) => {
      if (error?.code === 'ENOENT') resolve(undefined);
      else if (error !== null && typeof error.code === 'string') reject(error);
      else resolve({ status: error === null ? 0 : Number(error.code ?? -1), stdout, stderr });
    });
    // It may end before it has read all of its input, or not start at all.
    running.stdin?.on('error', () => {});
    running.stdin?.end(input);
  });
}

/** The first line that is not empty, without the "error: " that virsh begins it with. */
export function firstLine(text: string): string {
  const line = text.split('\n').find((candidate) => candidate.trim() !== '') ?? '';
  return line.replace(/^error:\s*/, '').trim();
}
