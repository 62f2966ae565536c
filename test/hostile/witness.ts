/*
 * What an honest guest sees: asks mdserver from the namespace of that guest, on a new connection for
 * each request and on one that stays, and its DNS server; and, every 100 ms, the control socket.
 * Prints a WitnessReport as JSON when the time is over.
 */
import assert from 'node:assert/strict';
import { Resolver } from 'node:dns/promises';
import { Agent } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { ask, type RequestOptions } from '../support/daemon.js';

/** The witness's only argument, as JSON. */
export interface WitnessOptions {
  readonly milliseconds: number;
  /** The path of the control socket. */
  readonly socket: string;
  readonly name: string;
  readonly address: string;
  /** The bodies of the answers by their paths. */
  readonly expected: Readonly<Record<string, string>>;
}

/** How it asked: over a new connection, over one that stays, on the control socket, or DNS. */
export type Way = 'fresh' | 'kept' | 'control' | 'dns';

/** What the witness saw. */
export interface WitnessReport {
  /** Milliseconds that each answer took. */
  readonly samples: Readonly<Record<Way, readonly number[]>>;
  /** Answers that were wrong, and requests without one. */
  readonly problems: readonly string[];
}

/** Milliseconds after which a request counts as not answered. */
const patience = 5000;

async function watch({
  milliseconds,
  socket,
  name,
  address,
  expected,
}: WitnessOptions): Promise<WitnessReport> {
  const deadline = performance.now() + milliseconds;
  const samples: Record<Way, number[]> = { fresh: [], kept: [], control: [], dns: [] };
  const problems: string[] = [];

  /** Asks again and again, and compares each answer with what it must be. */
  async function repeat(
    way: Way,
    pause: number,
    question: () => Promise<{ answer: unknown; correct: unknown }>,
  ): Promise<void> {
    while (performance.now() < deadline) {
      const started = performance.now();
      const late = sleep(patience, undefined, { ref: false }).then(() => {
        throw new Error(`no answer in ${patience} ms`);
      });
      try {
        const { answer, correct } = await Promise.race([question(), late]);
        samples[way].push(performance.now() - started);
        assert.deepEqual(answer, correct);
      } catch (error) {
        problems.push(`${way}: ${(error as Error).message.slice(0, 300)}`);
      }
      await sleep(pause);
    }
  }

  const metadata = { host: '169.254.169.254', port: 80 };
  const paths = Object.entries(expected);
  let number = 0;
  async function metadataQuestion(options: RequestOptions) {
    number += 1;
    const [path = '', body = ''] = paths[number % paths.length] ?? [];
    const { status, text } = await ask(metadata, path, options);
    return { answer: [path, status, text], correct: [path, 200, body] };
  }
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const resolver = new Resolver({ timeout: patience, tries: 1 });
  resolver.setServers(['10.122.0.1']);

  await Promise.all([
    repeat('fresh', 10, () => metadataQuestion({})),
    repeat('kept', 10, async () => metadataQuestion({ agent })),
    repeat('control', 100, async () => {
      const { status, text } = await ask({ socketPath: socket }, `/instances/${name}`);
      const { ipv4 } = JSON.parse(text) as { ipv4?: string };
      return { answer: [status, ipv4], correct: [200, address] };
    }),
    repeat('dns', 100, async () => ({ answer: await resolver.resolve4(name), correct: [address] })),
  ]);
  agent.destroy();
  return { samples, problems };
}

const options: WitnessOptions = JSON.parse(process.argv[2] ?? '');
process.stdout.write(JSON.stringify(await watch(options)));
