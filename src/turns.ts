import { setImmediate as nextTurn } from 'node:timers/promises';

/** Milliseconds that long work may keep others waiting. */
const turnLength = 4;

/**
 * Returns a function to call in the loop of long work: every few milliseconds, it lets the event
 * loop do what waits, so that guests are answered in between. Await what it returns, if anything.
 */
export function shortTurns(): () => Promise<void> | undefined {
  let started = performance.now();
  return () => {
    if (performance.now() - started < turnLength) return undefined;
    return nextTurn().then(() => {
      started = performance.now();
    });
  };
}
