import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Scope } from '../test/support/cleanup.js';
import { type Answer, ask } from '../test/support/daemon.js';
import type { FixedAnswer } from './bare.js';
import { type Case, type Effort, type Goal, isChecked, type Result } from './cases.js';
import { type LoadName, type RoundResult, runRound } from './load.js';
import {
  type Daemon,
  host,
  instanceAddress,
  type Server,
  setUp,
  startBare,
  startDaemon,
  stop,
} from './servers.js';

const instances = 5000;
const connections = 50;

const logs = ['off', 'on'] as const;
type Log = (typeof logs)[number];

/** The documents, and the shares of the bare server's speed that they are to reach: with the log off, and on. */
const documents = [
  { path: '/latest/meta-data/instance-id', goals: { oneByOne: [0.9, 0.75], flood: [0.85, 0.7] } },
  { path: '/latest/meta-data/hostname', goals: { oneByOne: [0.9, 0.75], flood: [0.85, 0.7] } },
  { path: '/latest/user-data', goals: { oneByOne: [0.75, 0.65], flood: [0.65, 0.5] } },
] as const;

/**
 * The loads. One at a time, the time of a request counts, much of which is the kernel's and the
 * client's. In a flood the server is the bottleneck, so its CPU time counts.
 */
const loads = [
  { load: 'oneByOne', words: 'one at a time', unit: 'requests/s' },
  { load: 'flood', words: 'in a flood', unit: 'requests per second of CPU' },
] as const;

interface RequestCase extends Case {
  readonly log: Log;
  readonly load: LoadName;
  readonly path: string;
}

const cases: readonly RequestCase[] = logs.flatMap((log, column) =>
  loads.flatMap(({ load, words, unit }) =>
    documents.map(({ path, goals }): RequestCase => {
      const name = `${path.slice(path.lastIndexOf('/') + 1)}, ${words}, log ${log}`;
      const goal: Goal = { of: 'ratio', value: goals[load][column] ?? 0 };
      // The time of a request depends on what else the machine does, and two documents are enough.
      const bounds = load === 'flood' && !path.endsWith('instance-id') ? { bound: 1.1 } : {};
      return { name, unit, reference: 'bare node', goal, ...bounds, log, load, path };
    }),
  ),
);

/** All cases of requests. */
export const requestCases: readonly Case[] = cases;

/** The headers that Node adds itself. */
const ownHeaders = ['date', 'connection', 'keep-alive'];

function fixedAnswer({ status, headers, text }: Answer): FixedAnswer {
  const kept = Object.entries(headers).filter(([name]) => !ownHeaders.includes(name));
  return { status, headers: Object.fromEntries(kept) as FixedAnswer['headers'], body: text };
}

function comparable({ status, headers, text }: Answer): string {
  const sorted = Object.entries({ ...headers, date: '' }).sort();
  return JSON.stringify([status, sorted, text]);
}

/** Starts a bare server that gives the daemon's responses to the first instance, headers included. */
async function startBareLike(scope: Scope, daemon: Daemon): Promise<Server> {
  const request = { from: instanceAddress(0), headers: setUp };
  const answers = new Map<string, Answer>();
  for (const { path } of documents) {
    answers.set(path, await ask({ host, port: daemon.port }, path, request));
  }
  const bare = await startBare(scope, {
    host,
    answers: Object.fromEntries([...answers].map(([path, answer]) => [path, fixedAnswer(answer)])),
  });
  for (const [path, answer] of answers) {
    const response = await ask({ host, port: bare.port }, path, request);
    if (comparable(response) !== comparable(answer)) {
      throw new Error(`the responses differ: ${comparable(answer)} and ${comparable(response)}`);
    }
  }
  return bare;
}

/** One instance for each connection, different ones in each round, spread over all instances. */
function sourcesOf(round: number): string[] {
  const step = instances / connections;
  return Array.from({ length: connections }, (_, index) =>
    instanceAddress((index * step + round) % instances),
  );
}

/** Loads both servers in turn, so that other load on the machine affects both. */
async function measure(
  of: RequestCase,
  daemon: Server,
  bare: Server,
  { rounds, roundMilliseconds: milliseconds, summary }: Effort,
): Promise<Result> {
  const results = { bare: [] as RoundResult[], daemon: [] as RoundResult[] };
  // The first round warms up.
  for (let round = 0; round <= rounds; round += 1) {
    const sources = sourcesOf(round);
    for (const [name, { port, pid }] of [['bare', bare] as const, ['daemon', daemon] as const]) {
      const { path } = of;
      const result = await runRound(of.load, { host, port, pid, path, sources, milliseconds });
      if (round > 0) results[name].push(result);
    }
  }
  const cost = ({ requests, seconds, cpuSeconds }: RoundResult) =>
    (of.load === 'flood' ? cpuSeconds : seconds) / requests;
  return {
    of,
    mdserver: 1 / summary(results.daemon.map(cost)),
    reference: 1 / summary(results.bare.map(cost)),
  };
}

/** Throws unless there are lines for successful requests in the log if it is on, and none if it is off. */
function checkLog({ folder }: Daemon, log: Log): void {
  const file = join(folder, 'mdserver.log');
  // Without any line there is no file.
  const lines = existsSync(file) ? readFileSync(file, 'utf8').split('\n') : [];
  // The log limits the lines of each instance, so there are fewer than requests.
  const written = lines.filter((line) => line.endsWith(' 200 -')).length;
  if (written > 0 !== (log === 'on')) {
    throw new Error(`${written} lines of requests in the log, which is ${log}`);
  }
}

/** Measures requests, beside a bare server that gives the same responses. */
export async function* measureRequests(scope: Scope, effort: Effort): AsyncGenerator<Result> {
  for (const log of logs) {
    const daemon = await startDaemon(scope, { instances, log });
    const bare = await startBareLike(scope, daemon);
    const wanted = cases.filter(
      (one) => one.log === log && (isChecked(one) || !effort.onlyChecked),
    );
    for (const one of wanted) yield await measure(one, daemon, bare, effort);
    await stop(daemon);
    await stop(bare);
    checkLog(daemon, log);
  }
}
