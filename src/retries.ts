import type { Logger } from './log.js';

/** Milliseconds between two tries. */
export const retryInterval = 10_000;

/**
 * Does the work now, and if it fails again and again until it succeeds once: a disk may be full when
 * mdserver starts. Resolves after the first try. `problem` says what is wrong as long as it fails, in
 * the log and in what the returned function gives: one line, or none.
 */
export async function keepTrying(
  problem: string,
  log: Logger,
  work: () => Promise<unknown>,
): Promise<() => readonly string[]> {
  let reason: string | undefined;
  async function attempt(): Promise<void> {
    const before = reason;
    try {
      await work();
      reason = undefined;
      if (before !== undefined) log.info(`solved: ${problem}`);
    } catch (error) {
      reason = (error as Error).message;
      if (reason !== before) log.error(`${problem}: ${reason}; mdserver keeps trying`);
      setTimeout(() => void attempt(), retryInterval).unref();
    }
  }
  await attempt();
  return () => (reason === undefined ? [] : [`${problem}: ${reason}`]);
}
