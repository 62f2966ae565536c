import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { hookFile, installedHook } from '../test/fixtures/hook/installed.js';
import { type Scope, temporaryFolder } from '../test/support/cleanup.js';
import { eventually, repository } from '../test/support/daemon.js';
import { domainXml } from '../test/support/samples.js';
import type { Case, Effort, Result } from './cases.js';
import { type Cost, inTurn } from './costs.js';
import { instanceNumber, startDaemon, stop } from './servers.js';

const instances = 10;

const cases = {
  time: {
    name: 'start to the first answer',
    unit: 'ms',
    reference: 'node -e 0',
    goal: { of: 'ratio', value: 2.2 },
  },
  cpu: {
    name: 'CPU from the start to the first answer',
    unit: 'ms of CPU',
    reference: 'node -e 0',
    goal: { of: 'ratio', value: 2.2 },
    bound: 1.1,
  },
  first: {
    name: 'the first start of all, to the first answer',
    unit: 'ms',
    reference: 'node -e 0',
  },
  upload: {
    name: 'a hook call that uploads a domain',
    unit: 'ms',
    reference: 'node -e 0',
    goal: { of: 'ratio', value: 1.3 },
  },
  uploadCpu: {
    name: 'CPU of a hook call that uploads a domain',
    unit: 'ms of CPU',
    reference: 'node -e 0',
    goal: { of: 'ratio', value: 1.3 },
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

/**
 * What one of so many calls of a line for the shell takes, in a row: one takes less than the clock can tell.
 * Throws if it prints something on standard error.
 */
async function shellCost(calls: number, line: string, args: readonly string[]): Promise<Cost> {
  const started = performance.now();
  const loop = `i=0; while [ $i -lt ${calls} ]; do ${line}; i=$((i+1)); done; times`;
  const { stdout, stderr } = await promisify(execFile)('sh', ['-c', loop, ...args]);
  if (stderr !== '') throw new Error(stderr);
  // User and system times of the shell, then those of what it called: 0m0.120000s.
  const [, , user = Number.NaN, system = Number.NaN] = Array.from(
    stdout.matchAll(/(\d+)m([\d.]+)s/g),
    ([, minutes, seconds]) => 60_000 * Number(minutes) + 1000 * Number(seconds),
  );
  return { milliseconds: (performance.now() - started) / calls, cpu: (user + system) / calls };
}

/** Measures the start, and calls of the hook, beside a start of Node itself, in turn. */
export async function* measureStart(scope: Scope, effort: Effort): AsyncGenerator<Result> {
  const running = await startDaemon(scope, { instances });
  const folder = temporaryFolder(scope, { 'domain.xml': domainXml(instanceNumber(0)) });
  const domain = join(folder, 'domain.xml');
  const socket = running.socket;
  installedHook(repository, folder, { socket, spool: join(folder, 'spool') });
  const hook = hookFile(folder);
  const stateFolder = temporaryFolder(scope);
  const start = async (settings: { readonly stateFolder?: string }): Promise<Cost> => {
    const daemon = await startDaemon(scope, { instances, ...settings });
    await stop(daemon);
    return { milliseconds: daemon.startMilliseconds, cpu: daemon.startCpu };
  };
  const first = await startDaemon(scope, { instances, stateFolder });
  await eventually('mdserver keeps its compiled code', () =>
    existsSync(join(stateFolder, 'compiled-code')),
  );
  await stop(first);
  const costs = await inTurn(effort, {
    idleHook: () => shellCost(200, '"$0" vm1 start begin -', [hook]),
    upload: () => shellCost(5, '"$0" vm1 prepare begin - <"$1"', [hook, domain]),
    // As the hook, from beginning to end.
    wholeNode: () => shellCost(5, '"$0" -e 0', [process.execPath]),
    node: nodeStart,
    mdserver: () => start({ stateFolder }),
    first: () => start({}),
  });
  await stop(running);
  const result = (of: Case, what: keyof typeof costs, figure: keyof Cost): Result => {
    const node = what === 'upload' || what === 'idleHook' ? costs.wholeNode : costs.node;
    return { of, mdserver: costs[what][figure], reference: node[figure] };
  };
  if (!effort.onlyChecked) {
    yield result(cases.time, 'mdserver', 'milliseconds');
    yield result(cases.first, 'first', 'milliseconds');
    yield result(cases.upload, 'upload', 'milliseconds');
  }
  yield result(cases.cpu, 'mdserver', 'cpu');
  yield result(cases.uploadCpu, 'upload', 'cpu');
  yield result(cases.hook, 'idleHook', 'cpu');
}
