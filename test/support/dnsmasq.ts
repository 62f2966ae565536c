import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { eventually, type Start } from './daemon.js';

/** A dnsmasq that runs, and what it has logged. */
export interface Dnsmasq {
  readonly process: ChildProcess;
  /** The lines it has logged up to now, without their times, its name and process id. */
  readonly log: () => string[];
  /** How many times it has read its files up to now. */
  readonly rounds: () => number;
}

/**
 * Starts dnsmasq with what mdserver wrote below a folder, and waits until it has read it. It logs
 * to its standard error, or to a new file.
 */
export async function startDnsmasq(
  start: Start,
  folder: string,
  logFile?: string,
): Promise<Dnsmasq> {
  const child = start('dnsmasq', [
    `--conf-file=${folder}/dnsmasq/mds.conf`,
    '--keep-in-foreground',
    `--log-facility=${logFile ?? '-'}`,
    // The questions of a test stay in its namespace.
    '--no-resolv',
  ]);
  let errors = '';
  child.stderr?.on('data', (chunk) => (errors += chunk));
  const output = () => {
    if (logFile === undefined) return errors;
    return existsSync(logFile) ? readFileSync(logFile, 'utf8') : '';
  };
  const log = () =>
    output()
      .split('\n')
      .slice(0, -1)
      .map((line) => line.replace(/^.*?dnsmasq[a-z-]*(\[\d+\])?: /, ''));
  const rounds = () => log().filter((line) => line === `read ${folder}/dnsmasq/mds.opts`).length;
  await eventually('dnsmasq has read its files', () => {
    if (child.exitCode !== null) throw new Error(`dnsmasq ended: ${errors}${output()}`);
    return rounds() > 0;
  });
  return { process: child, log, rounds };
}
