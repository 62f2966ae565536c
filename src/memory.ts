import type { EventLoopUtilization } from 'node:perf_hooks';
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
const growth = { small: 1.1, large: 1.5 } as const;

/** A collection of a small heap takes some milliseconds, of a large one some tens, in which nobody is served. */
type HeapSize = keyof typeof growth;

/**
 * Whether garbage should be collected: the event loop is idle, and the memory in bytes is larger than
 * it was after the last collection.
 */
export function isWorthCollecting(
  { utilization }: Pick<EventLoopUtilization, 'utilization'>,
  bytes: number,
  bytesBefore: number,
  size: HeapSize,
): boolean {
  return utilization < idleShare && bytes > bytesBefore * growth[size];
}

/**
 * Sets the flags of V8 that mdserver runs with. They keep V8's heap for new objects at its first size: while
 * much is created, as when a large database is read, V8 enlarges it to three times 16 MiB, which stays so. And
 * they let `giveMemoryBack` collect garbage. Compiled code counts for the flags that it was compiled with.
 */
export function setMemoryFlags(): void {
  setFlagsFromString('--semi-space-growth-factor=1');
  setFlagsFromString('--expose-gc');
}

/**
 * Gives memory back after a flood of requests, and of a large heap at once: what was made while it was
 * filled is garbage. V8 collects what became old during a flood only when yet more becomes old, which
 * does not happen in an idle process.
 */
export function giveMemoryBack(size: HeapSize): void {
  let collector: (() => void) | undefined;
  const collect = () => {
    // A context takes time to make, which a start has not.
    collector ??= runInNewContext('gc') as () => void;
    collector();
  };
  if (size === 'large') collect();
  let before = process.memoryUsage.rss();
  let lowest = before;
  let collected = performance.now();
  let seen = performance.eventLoopUtilization();
  setInterval(() => {
    const now = performance.eventLoopUtilization();
    const sinceThen = performance.eventLoopUtilization(now, seen);
    seen = now;
    const compared = performance.now() - collected < again ? before : lowest;
    if (!isWorthCollecting(sinceThen, process.memoryUsage.rss(), compared, size)) return;
    collect();
    collected = performance.now();
    before = process.memoryUsage.rss();
    lowest = Math.min(lowest, before);
  }, interval).unref();
}
