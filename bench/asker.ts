import { Agent } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { ask } from '../test/support/daemon.js';

/** The asker's only argument, as JSON. */
export interface AskerOptions {
  readonly host: string;
  readonly port: number;
  /** The address of the guest. */
  readonly from: string;
}

/** Milliseconds that each answer took. */
export type Waits = readonly number[];

/*
 * A guest that asks again and again, a millisecond after each answer. It sends a message when it has
 * its first answer, and all its Waits when it gets one.
 */
const { host, port, from }: AskerOptions = JSON.parse(process.argv[2] ?? '');
const agent = new Agent({ keepAlive: true, maxSockets: 1 });
const waits: number[] = [];
let over = false;
process.once('message', () => {
  over = true;
});
while (!over) {
  const sent = performance.now();
  const { status } = await ask({ host, port }, '/latest/meta-data/hostname', { from, agent });
  if (status !== 200) throw new Error(`unexpected response: status ${status}`);
  // The first one makes the connection and compiles the client.
  if (waits.length === 0) process.send?.('ready');
  waits.push(performance.now() - sent);
  await sleep(1);
}
process.send?.(waits.slice(1), () => process.exit());
