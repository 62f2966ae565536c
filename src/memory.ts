import { type EventLoopUtilization, performance } from 'node:perf_hooks';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Milliseconds between two looks at the memory. */
const interval = 5000;
/** The share of its time that an idle event loop may be busy. */
const idleShare = 0.1;
/**
 * Milliseconds after which a collection is tried again while memory is above its lowest: what was in
 * use at the last one, such as connections that a peer held, may be garbage by now.
 */
const again = 20_000;
/** How much more memory than after the last collection is worth another one. */
const growth = 1.1;

/**
 * Whether garbage should be collected: the event loop is idle, and the memory in bytes is larger than
 * it was after the last collection.
 */
export function isWorthCollecting(
  { utilization }: Pick<EventLoopUtilization, 'utilization'>,
  bytes: number,
  bytesBefore: number,
): boolean {
  return utilization < idleShare && bytes > bytesBefore * growth;
}

/**
 * Keeps V8's heap for new objects at its first size. While much is created, as when a large database
 * is read, V8 enlarges it to three times 16 MiB, which stays so.
 */
export function keepHeapSmall(): void {
  setFlagsFromString('--semi-space-growth-factor=1');
}

/**
 * Gives memory back after a flood of requests, and at once if there is `garbage` already. V8 collects
 * what became old during the flood only when yet more becomes old, which does not happen in an idle
 * process.
 */
export function giveMemoryBack(garbage: boolean): void {
  setFlagsFromString('--expose-gc');
  const collect: () => void = runInNewContext('gc');
  if (garbage) collect();
  let before = process.memoryUsage.rss();
  let lowest = before;
  let collected = performance.now();
  let seen = performance.eventLoopUtilization();
  setInterval(() => {
    const now = performance.eventLoopUtilization();
    const sinceThen = performance.eventLoopUtilization(now, seen);
    seen = now;
    const compared = performance.now() - collected < again ? before : lowest;
    if (!isWorthCollecting(sinceThen, process.memoryUsage.rss(), compared)) return;
    collect();
    collected = performance.now();
    before = process.memoryUsage.rss();
    lowest = Math.min(lowest, before);
  }, interval).unref();
}
