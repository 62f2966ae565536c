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

/** Of the hook in a row: one call takes less than the clock can tell. */
const hookCalls = 200;

/** What the calls that a line for the shell makes take. */
async function shellCosts(line: string, args: readonly string[]): Promise<Cost> {
  const started = performance.now();
  const { stdout } = await promisify(execFile)('sh', ['-c', `${line}; times`, ...args]);
  // User and system times of the shell, then those of what it called: 0m0.120000s.
  const [, , user = Number.NaN, system = Number.NaN] = Array.from(
    stdout.matchAll(/(\d+)m([\d.]+)s/g),
    ([, minutes, seconds]) => 60_000 * Number(minutes) + 1000 * Number(seconds),
  );
  return { milliseconds: performance.now() - started, cpu: user + system };
}

/** What a call of the hook takes that has nothing to do. */
async function idleHookCall(hook: string): Promise<Cost> {
  const line = 'i=0; while [ $i -lt $1 ]; do "$0" vm1 start begin -; i=$((i+1)); done';
  const { milliseconds, cpu } = await shellCosts(line, [hook, String(hookCalls)]);
  return { milliseconds: milliseconds / hookCalls, cpu: cpu / hookCalls };
}

/** What a call of the hook takes that uploads a domain. Throws if mdserver does not take it. */
async function uploadingHookCall(hook: string, domain: string): Promise<Cost> {
  return shellCosts('"$0" vm1 prepare begin - <"$1" 2>&1 | grep . >&2 && exit 1', [hook, domain]);
}

/** Measures the start, and calls of the hook, beside a start of Node itself, in turn. */
export async function* measureStart(scope: Scope, effort: Effort): AsyncGenerator<Result> {
  const running = await startDaemon(scope, { instances });
  const folder = temporaryFolder(scope, { 'domain.xml': domainXml(instanceNumber(0)) });
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
    idleHook: () => idleHookCall(hook),
    upload: () => uploadingHookCall(hook, join(folder, 'domain.xml')),
    node: nodeStart,
    mdserver: () => start({ stateFolder }),
    first: () => start({}),
  });
  await stop(running);
  const result = (of: Case, what: keyof typeof costs, figure: keyof Cost): Result => {
    return { of, mdserver: costs[what][figure], reference: costs.node[figure] };
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
