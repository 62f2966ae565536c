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
 * Gives memory back after a flood of requests. V8 collects what became old during the flood only when
 * yet more becomes old, which does not happen in an idle process. And it enlarges the heap for new
 * objects to three times 16 MiB, which stays so: here it keeps its first size.
 */
export function giveMemoryBack(): void {
  setFlagsFromString('--semi-space-growth-factor=1');
  setFlagsFromString('--expose-gc');
  const collect: () => void = runInNewContext('gc');
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
