import { monitorEventLoopDelay } from 'node:perf_hooks';

/** The longest time that the event loop stood still since the last question. */
export interface Stall {
  readonly milliseconds: number;
}

/*
 * Loaded into mdserver with --import: answers each message with a Stall. The same value among the
 * metrics is too coarse: it looks every 10 ms, and an answer with all metrics is a stall of its own.
 */
const resolution = 1;
const delay = monitorEventLoopDelay({ resolution });
delay.enable();
process.on('message', () => {
  const stall: Stall = { milliseconds: Math.max(0, delay.max / 1e6 - resolution) };
  delay.reset();
  process.send?.(stall);
});
process.channel?.unref();
