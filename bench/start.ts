import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Scope } from '../test/support/cleanup.js';
import type { Case, Effort, Result } from './cases.js';
import { type Cost, inTurn } from './costs.js';
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

/** What `node -e 0` takes; it also writes its CPU time. */
export async function nodeStart(): Promise<Cost> {
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
  const costs = await inTurn(effort, {
    node: nodeStart,
    mdserver: async () => {
      const daemon = await startDaemon(scope, { instances });
      await stop(daemon);
      return { milliseconds: daemon.startMilliseconds, cpu: daemon.startCpu };
    },
  });
  const result = (of: Case, figure: keyof Cost): Result => {
    return { of, mdserver: costs.mdserver[figure], reference: costs.node[figure] };
  };
  if (!effort.onlyChecked) yield result(cases.time, 'milliseconds');
  yield result(cases.cpu, 'cpu');
}
