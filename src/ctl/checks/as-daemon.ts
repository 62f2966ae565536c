import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Config } from '../../config/options.js';
import { firstLine, runProgram } from '../programs.js';
import { statIfPresent } from './files.js';
import { type Finding, findingsOf, isFinding } from './finding.js';
import { checkUntrusted } from './untrusted.js';

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

const child = fileURLToPath(new URL('as-daemon-child.js', import.meta.url));

/**
 * Runs checkUntrusted. Root runs it as the daemon's user, in a child process: templates are code,
 * and whoever can write them, or the daemon's files, must not become root by it.
 */
export async function* checkAsDaemon(
  config: Config,
  configFile: string,
  prefix: string,
): AsyncGenerator<Finding> {
  if (process.geteuid?.() !== 0) {
    yield* checkUntrusted(config);
    return;
  }
  const { failure } = findingsOf('user');
  const account = await daemonAccount(config);
  if (account === undefined) {
    yield failure(
      `there is no user ${config.dnsmasq.user} (dnsmasq.user), so database, user-data and dnsmasq are not checked`,
      'run system-integration.sh, which creates it',
    );
  } else if (account.uid === 0) {
    yield* checkUntrusted(config);
  } else {
    const { output, problem } = await runAs(account, [child, resolve(configFile), prefix]);
    const findings = problem === undefined ? findingsIn(output) : undefined;
    if (findings !== undefined) yield* findings;
    else {
      yield failure(
        `database, user-data and dnsmasq could not be checked as user ${account.uid}: ${problem ?? 'a template prints to standard output'}`,
      );
    }
  }
}

/** The findings that the child printed; undefined if it printed something else. */
function findingsIn(output: string): Finding[] | undefined {
  try {
    const value: unknown = JSON.parse(output);
    return Array.isArray(value) && value.every(isFinding) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Runs Node as the user. `problem` says why it did not end well. */
async function runAs(
  account: Account,
  args: readonly string[],
): Promise<{ output: string; problem: string | undefined }> {
  const { uid, gid } = account;
  const running = spawn(process.execPath, args, {
    // Node also drops root's other groups.
    uid,
    gid,
    // Nothing of root's that is not needed: without a session of its own it could type on root's
    // terminal (TIOCSTI), and it can read its environment.
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
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
