import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { dirname } from 'node:path';
import type { Config } from '../config/options.js';
import { statIfPresent } from './checks/files.js';
import { firstLine, runProgram } from './programs.js';

/** A user and its group, by their numbers. */
export interface Account {
  readonly uid: number;
  readonly gid: number;
}

/** The account of a user's name or number; undefined if there is none. */
async function accountOf(user: string): Promise<Account | undefined> {
  const [uid, gid] = await Promise.all(
    ['-u', '-g'].map(async (flag) => {
      const result = await runProgram('id', [flag, '--', user]);
      return result?.status === 0 ? Number(result.stdout) : undefined;
    }),
  );
  return uid === undefined || gid === undefined ? undefined : { uid, gid };
}

/**
 * The daemon's user: that of dnsmasq or, if that is root, the owner of the database's folder.
 * Undefined if there is no such user.
 */
export async function daemonAccount({ dnsmasq, mdserver }: Config): Promise<Account | undefined> {
  const named = await accountOf(dnsmasq.user);
  if (named?.uid !== 0) return named;
  const owner = statIfPresent(dirname(mdserver.db_file))?.uid ?? 0;
  // Its primary group: the folder's group may be root's.
  return owner === 0 ? named : accountOf(String(owner));
}

/** Milliseconds. Ten times what the check of 60,000 instances takes. */
const timeLimit = 10 * 60_000;
/** In characters. */
const maxOutput = 64 * 1024 * 1024;

/**
 * Runs Node as the user: what others than root can write must not be run by root. `problem` says why it did not
 * end well.
 */
export async function runAs(
  account: Account,
  args: readonly string[],
  input = '',
): Promise<{ output: string; problem: string | undefined }> {
  const { uid, gid } = account;
  const running = spawn(process.execPath, args, {
    // Node also drops root's other groups.
    uid,
    gid,
    // Nothing of root's that is not needed: without a session of its own it could type on root's
    // terminal (TIOCSTI), and it can read its environment.
    detached: true,
    stdio: 'pipe',
    env: { PATH: process.env['PATH'] },
  });
  let problem: string | undefined;
  const stop = () => {
    // With the programs that it has started.
    if (running.pid !== undefined && running.exitCode === null)
      process.kill(-running.pid, 'SIGKILL');
  };
  const giveUp = (why: string) => {
    problem ??= why;
    stop();
  };
  const interrupted = () => {
    stop();
    process.exit(130);
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.once(signal, interrupted);
  const timer = setTimeout(() => giveUp(`no end after ${timeLimit / 60_000} minutes`), timeLimit);
  // It may end before it has read all of its input.
  running.stdin.on('error', () => {});
  running.stdin.end(input);
  let output = '';
  let errors = '';
  running.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
    if (output.length > maxOutput) giveUp('too much output');
  });
  running.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors = (errors + text).slice(0, 10_000);
  });
  try {
    const [status] = await once(running, 'close');
    if (status !== 0) problem ??= firstLine(errors) || `ended with ${status ?? 'a signal'}`;
  } catch (error) {
    problem = `${(error as Error).message}`;
  } finally {
    clearTimeout(timer);
    for (const signal of signals) process.off(signal, interrupted);
  }
  return { output, problem };
}
