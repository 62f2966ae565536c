import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Scope } from '../test/support/cleanup.js';
import { type Case, type Effort, median, type Result } from './cases.js';
import { startDaemon, stop } from './servers.js';

const instances = 10;

const cases = {
  time: {
    name: 'start to the first answer',
    unit: 'ms',
    reference: 'node -e 0',
    goal: { of: 'ratio', value: 3 },
  },
  cpu: {
    name: 'CPU from the start to the first answer',
    unit: 'ms of CPU',
    reference: 'node -e 0',
    checked: true,
  },
} as const satisfies Record<string, Case>;

/** All cases of the start. */
export const startCases: readonly Case[] = Object.values(cases);

/** Milliseconds, and those of CPU time, that `node -e 0` takes. */
export async function nodeStart(): Promise<{ milliseconds: number; cpu: number }> {
  const started = performance.now();
  // The shell prints the times of its own process, and then of its children: 0m0.050s 0m0.010s.
  const shell = spawn('sh', ['-c', '"$0" -e 0; times', process.execPath], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let printed = '';
  shell.stdout.on('data', (chunk) => (printed += chunk));
  await once(shell, 'close');
  const milliseconds = performance.now() - started;
  const times = [...printed.matchAll(/(\d+)m([\d.]+)s/g)].map(
    ([, minutes, seconds]) => Number(minutes) * 60 + Number(seconds),
  );
  const [, , user = Number.NaN, system = Number.NaN] = times;
  return { milliseconds, cpu: (user + system) * 1000 };
}

/** Measures the start beside that of Node itself, in turn. */
export async function* measureStart(scope: Scope, effort: Effort): AsyncGenerator<Result> {
  const node: { milliseconds: number; cpu: number }[] = [];
  const mdserver: typeof node = [];
  // The first turn warms up.
  for (let repeat = 0; repeat <= effort.repeats; repeat += 1) {
    node.push(await nodeStart());
    const daemon = await startDaemon(scope, { instances });
    mdserver.push({ milliseconds: daemon.startMilliseconds, cpu: daemon.startCpu });
    await stop(daemon);
  }
  const result = (of: Case, figure: 'milliseconds' | 'cpu'): Result => {
    const medianOf = (starts: typeof node) => median(starts.slice(1).map((one) => one[figure]));
    return { of, mdserver: medianOf(mdserver), reference: medianOf(node) };
  };
  if (!effort.onlyChecked) yield result(cases.time, 'milliseconds');
  yield result(cases.cpu, 'cpu');
}
