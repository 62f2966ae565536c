import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { hookFile, installedHook } from '../test/fixtures/hook/installed.js';
import { type Scope, temporaryFolder } from '../test/support/cleanup.js';
import { repository } from '../test/support/daemon.js';
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
  hook: {
    name: 'CPU of a hook call that has nothing to do',
    unit: 'ms of CPU',
    reference: 'node -e 0',
    goal: { of: 'ratio', value: 0.1 },
    bound: 1.5,
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

/** Of the hook in a row: one call takes less than the clock can tell. */
const hookCalls = 200;

/** What a call of the hook takes that has nothing to do. */
async function hookCall(hook: string): Promise<Cost> {
  const started = performance.now();
  const script = 'i=0; while [ $i -lt $1 ]; do "$0" vm1 start begin -; i=$((i+1)); done; times';
  const { stdout } = await promisify(execFile)('sh', ['-c', script, hook, String(hookCalls)]);
  // User and system times of the shell, then those of what it called: 0m0.120000s.
  const [, , user = Number.NaN, system = Number.NaN] = Array.from(
    stdout.matchAll(/(\d+)m([\d.]+)s/g),
    ([, minutes, seconds]) => 60_000 * Number(minutes) + 1000 * Number(seconds),
  );
  return {
    milliseconds: (performance.now() - started) / hookCalls,
    cpu: (user + system) / hookCalls,
  };
}

/** Measures the start, and a call of the hook, beside a start of Node itself, in turn. */
export async function* measureStart(scope: Scope, effort: Effort): AsyncGenerator<Result> {
  const folder = temporaryFolder(scope);
  installedHook(repository, folder);
  const costs = await inTurn(effort, {
    hook: () => hookCall(hookFile(folder)),
    node: nodeStart,
    mdserver: async () => {
      const daemon = await startDaemon(scope, { instances });
      await stop(daemon);
      return { milliseconds: daemon.startMilliseconds, cpu: daemon.startCpu };
    },
  });
  const result = (of: Case, what: 'mdserver' | 'hook', figure: keyof Cost): Result => {
    return { of, mdserver: costs[what][figure], reference: costs.node[figure] };
  };
  if (!effort.onlyChecked) yield result(cases.time, 'mdserver', 'milliseconds');
  yield result(cases.cpu, 'mdserver', 'cpu');
  yield result(cases.hook, 'hook', 'cpu');
}
