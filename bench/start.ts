import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Scope } from '../test/support/cleanup.js';
import type { Case, Effort, Result } from './cases.js';
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
    bound: 1.1,
  },
} as const satisfies Record<string, Case>;

/** All cases of the start. */
export const startCases: readonly Case[] = Object.values(cases);

/** The milliseconds, and those of CPU time, that a start takes. */
export interface Start {
  readonly milliseconds: number;
  readonly cpu: number;
}

/** What `node -e 0` takes; it also writes its CPU time. */
export async function nodeStart(): Promise<Start> {
  const started = performance.now();
  const script =
    'const { user, system } = process.cpuUsage(); fs.writeSync(1, String(user + system))';
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  let printed = '';
  child.stdout.on('data', (chunk) => (printed += chunk));
  await once(child, 'close');
  return { milliseconds: performance.now() - started, cpu: Number(printed) / 1000 };
}

/** Measures the start beside that of Node itself, in turn. */
export async function* measureStart(scope: Scope, effort: Effort): AsyncGenerator<Result> {
  const node: Start[] = [];
  const mdserver: Start[] = [];
  // The first turn warms up.
  for (let repeat = 0; repeat <= effort.repeats; repeat += 1) {
    node.push(await nodeStart());
    const daemon = await startDaemon(scope, { instances });
    mdserver.push({ milliseconds: daemon.startMilliseconds, cpu: daemon.startCpu });
    await stop(daemon);
  }
  const result = (of: Case, figure: keyof Start): Result => {
    const summaryOf = (starts: readonly Start[]) =>
      effort.summary(starts.slice(1).map((one) => one[figure]));
    return { of, mdserver: summaryOf(mdserver), reference: summaryOf(node) };
  };
  if (!effort.onlyChecked) yield result(cases.time, 'milliseconds');
  yield result(cases.cpu, 'cpu');
}
