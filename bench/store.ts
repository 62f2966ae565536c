import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, statSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { killAtEnd, type Scope, temporaryFolder } from '../test/support/cleanup.js';
import { ask } from '../test/support/daemon.js';
import { domainXml } from '../test/support/samples.js';
import type { AskerOptions, Waits } from './asker.js';
import { type Case, type Effort, type Goal, median, type Result } from './cases.js';
import { type Cost, inTurn } from './costs.js';
import { connected, exchange } from './load.js';
import {
  cpuMilliseconds,
  type Daemon,
  host,
  instanceAddress,
  instanceNumber,
  longestStall,
  memory,
  startBare,
  startDaemon,
  stop,
} from './servers.js';
import { nodeStart } from './start.js';

const askerFile = fileURLToPath(new URL('asker.js', import.meta.url));
/** Uploads of 1,000 domains at the same moment, as after a restart of libvirt. */
const atOnce = 1000;
/** Milliseconds after which an idle mdserver has collected garbage. */
const rest = 12_000;

const atMost = (value: number): Goal => ({ of: 'figure', value });
const disk = 'plain writing';

function casesOf(instances: number, uploadGoal: Goal) {
  const of = (what: string) => `${instances.toLocaleString('en')} instances: ${what}`;
  return {
    known: { name: of('upload, known domain'), unit: 'ms', reference: disk, goal: uploadGoal },
    knownCpu: {
      name: of('CPU of an upload'),
      unit: 'ms of CPU',
      reference: disk,
      // Most of it is the kernel's, which differs by a tenth from run to run.
      bound: 1.25,
    },
    added: { name: of('upload, new domain'), unit: 'ms', reference: disk, goal: uploadGoal },
    removed: { name: of('removal'), unit: 'ms', reference: disk, goal: uploadGoal },
  } as const satisfies Record<string, Case>;
}

const small = {
  instances: 5000,
  ...casesOf(5000, atMost(20)),
  atOnce: {
    name: '5,000 instances: 1,000 uploads at once',
    unit: 'ms',
    reference: disk,
    goal: atMost(1000),
  },
} as const;

const quiet = 'without uploads';
const bare = 'bare node';
const large = {
  instances: 60_000,
  start: {
    name: '60,000 instances: start to the first answer',
    unit: 'ms',
    reference: 'node -e 0',
    goal: atMost(1500),
  },
  memory: {
    name: '60,000 instances: memory after the start',
    unit: 'MB',
    reference: bare,
    goal: atMost(200),
  },
  ...casesOf(60_000, atMost(100)),
  stall: {
    name: '60,000 instances: longest stall while uploading',
    unit: 'ms',
    reference: quiet,
    goal: atMost(10),
  },
  longestWait: {
    name: "60,000 instances: another guest's longest wait",
    unit: 'ms',
    reference: quiet,
    goal: atMost(10),
  },
  usualWait: {
    name: "60,000 instances: another guest's wait, 99 of 100",
    unit: 'ms',
    reference: quiet,
  },
  stallAfter: {
    name: '60,000 instances: longest stall in the 12 s after',
    unit: 'ms',
    reference: quiet,
    goal: atMost(10),
  },
  highestMemory: {
    name: '60,000 instances: memory at its highest',
    unit: 'MB',
    reference: bare,
    goal: atMost(200),
  },
  laterMemory: {
    name: '60,000 instances: memory when idle after uploads',
    unit: 'MB',
    reference: bare,
    goal: atMost(200),
  },
} as const;

function isCase(value: Case | number): value is Case {
  return typeof value !== 'number';
}

/** All cases of the store. */
export const storeCases: readonly Case[] = [small, large].flatMap((size) =>
  Object.values<Case | number>(size).filter(isCase),
);

/** The files that a change writes, in the daemon's folder. */
const stored = [
  'db.json',
  'db.details.json',
  'dnsmasq/dhcp/mds.dhcp-hosts',
  'dnsmasq/dns/mds.dns-hosts',
];

/** Replaces files as the store must: write, sync, rename, sync the folders. */
async function replaceAll(contents: ReadonlyMap<string, Buffer>): Promise<void> {
  for (const [path, content] of contents) {
    const file = await open(`${path}.new`, 'w');
    await file.writeFile(content);
    await file.sync();
    await file.close();
  }
  for (const path of contents.keys()) await rename(`${path}.new`, path);
  for (const folder of new Set(Array.from(contents.keys(), dirname))) {
    const handle = await open(folder, 'r');
    await handle.sync();
    await handle.close();
  }
}

/** What something costs that a process is asked to do. */
async function costOf(pid: number, work: () => Promise<unknown>): Promise<Cost> {
  const before = cpuMilliseconds(pid);
  const started = performance.now();
  await work();
  const milliseconds = performance.now() - started;
  // What a process does behind its answer is part of the cost. The time is exact when it is idle.
  await sleep(10);
  return { milliseconds, cpu: cpuMilliseconds(pid) - before };
}

/** What it costs plain Node to write as many bytes, to the same disk. */
function diskCost({ folder }: Daemon): () => Promise<Cost> {
  const contents = new Map(
    stored.map((name) => {
      const path = join(folder, 'disk', name);
      mkdirSync(dirname(path), { recursive: true });
      return [path, Buffer.alloc(statSync(join(folder, name)).size, 'x')];
    }),
  );
  return () => costOf(process.pid, () => replaceAll(contents));
}

/** The milliseconds after which 4 KiB are on disk. */
export async function syncMilliseconds(scope: Scope): Promise<number> {
  const contents = new Map([[join(temporaryFolder(scope), 'file'), Buffer.alloc(4096)]]);
  const costs: number[] = [];
  for (let repeat = 0; repeat < 15; repeat += 1) {
    costs.push((await costOf(process.pid, () => replaceAll(contents))).milliseconds);
  }
  return median(costs);
}

function changeOf({ socket }: Daemon, path: string, method: string, body = '') {
  return async () => {
    const { status, text } = await ask({ socketPath: socket }, path, { method, body });
    if (status !== 200) throw new Error(`unexpected response: status ${status}: ${text}`);
  };
}

function uploadOf(daemon: Daemon, number: number): () => Promise<void> {
  return changeOf(daemon, '/instance-upload', 'POST', domainXml(number));
}

/** Sends so many uploads of known domains at the same moment, each on a connection of its own. */
async function uploadsAtOnce({ socket, pid }: Daemon): Promise<Cost> {
  const sockets = [];
  while (sockets.length < atOnce) {
    sockets.push(await connected({ path: socket }));
    // Those before an answer have been taken: the queue of those that wait never gets full.
    if (sockets.length % 100 === 0)
      await ask({ socketPath: socket }, `/instances/vm${instanceNumber(0)}`);
  }
  const uploads = sockets.map((connection, index) => () => {
    const body = domainXml(instanceNumber(index));
    const head = `POST /instance-upload HTTP/1.1\r\nhost: mdserver\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n`;
    return exchange(connection, head + body, () => true);
  });
  return costOf(pid, () => Promise.all(uploads.map((upload) => upload())));
}

/** One change after another, beside the disk. */
async function* changes(
  daemon: Daemon,
  { instances, ...cases }: { readonly instances: number } & ReturnType<typeof casesOf>,
  effort: Effort,
): AsyncGenerator<Result> {
  const { pid } = daemon;
  // Not the first instances: the other guest is one of them.
  const known = (repeat: number) => instanceNumber(100 + repeat);
  const added = (repeat: number) => instanceNumber(instances + repeat);
  // After a change, all files are there.
  await uploadOf(daemon, known(0))();
  const uploadKnown = (repeat: number) => costOf(pid, uploadOf(daemon, known(repeat)));
  const writing = diskCost(daemon);
  if (effort.onlyChecked) {
    const costs = await inTurn(effort, { known: uploadKnown, disk: writing });
    yield { of: cases.knownCpu, mdserver: costs.known.cpu, reference: costs.disk.cpu };
    return;
  }
  const costs = await inTurn(effort, {
    known: uploadKnown,
    disk: writing,
    added: (repeat) => costOf(pid, uploadOf(daemon, added(repeat))),
    removed: (repeat) => costOf(pid, changeOf(daemon, `/instances/vm${added(repeat)}`, 'DELETE')),
  });
  yield {
    of: cases.known,
    mdserver: costs.known.milliseconds,
    reference: costs.disk.milliseconds,
  };
  yield { of: cases.knownCpu, mdserver: costs.known.cpu, reference: costs.disk.cpu };
  for (const name of ['added', 'removed'] as const) {
    yield {
      of: cases[name],
      mdserver: costs[name].milliseconds,
      reference: costs.disk.milliseconds,
    };
  }
}

/** What another guest sees while something happens. */
async function waitsDuring(
  scope: Scope,
  { port }: Daemon,
  work: () => Promise<void>,
): Promise<{ longest: number; usual: number }> {
  const options: AskerOptions = { host, port, from: instanceAddress(0) };
  const asker = fork(askerFile, [JSON.stringify(options)]);
  killAtEnd(scope, asker);
  await once(asker, 'message');
  await sleep(500);
  await work();
  const answer = once(asker, 'message');
  asker.send('over');
  const [waits] = (await answer) as [Waits];
  const sorted = waits.toSorted((one, other) => one - other);
  return {
    longest: sorted.at(-1) ?? Number.NaN,
    usual: sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN,
  };
}

/** What others notice of uploads. */
async function* others(scope: Scope, daemon: Daemon, { repeats }: Effort): AsyncGenerator<Result> {
  // Until what came before is over.
  await sleep(rest);
  const before = await waitsDuring(scope, daemon, async () => {
    await longestStall(daemon);
    await sleep(2000);
  });
  const stall = await longestStall(daemon);
  const meanwhile = await waitsDuring(scope, daemon, async () => {
    await longestStall(daemon);
    for (let repeat = 0; repeat < repeats; repeat += 1) {
      await uploadOf(daemon, instanceNumber(200 + repeat))();
    }
  });
  yield { of: large.stall, mdserver: await longestStall(daemon), reference: stall };
  yield { of: large.longestWait, mdserver: meanwhile.longest, reference: before.longest };
  yield { of: large.usualWait, mdserver: meanwhile.usual, reference: before.usual };
  await sleep(rest);
  yield { of: large.stallAfter, mdserver: await longestStall(daemon), reference: stall };
}

/** Measures what changes cost with few and with many instances. */
export async function* measureStore(scope: Scope, effort: Effort): AsyncGenerator<Result> {
  const few = await startDaemon(scope, { instances: small.instances });
  yield* changes(few, small, effort);
  if (!effort.onlyChecked) {
    const writing = diskCost(few);
    const costs = await inTurn(
      { ...effort, repeats: Math.min(effort.repeats, 5) },
      {
        atOnce: () => uploadsAtOnce(few),
        disk: writing,
      },
    );
    yield {
      of: small.atOnce,
      mdserver: costs.atOnce.milliseconds,
      reference: costs.disk.milliseconds,
    };
  }
  await stop(few);

  const many = await startDaemon(scope, { instances: large.instances, probe: !effort.onlyChecked });
  if (effort.onlyChecked) {
    yield* changes(many, large, effort);
    await stop(many);
    return;
  }
  const server = await startBare(scope, { host, answers: {} });
  const reference = memory(server).now;
  await stop(server);
  const node = await nodeStart();
  yield { of: large.start, mdserver: many.startMilliseconds, reference: node.milliseconds };
  yield { of: large.memory, mdserver: memory(many).now, reference };
  yield* changes(many, large, effort);
  yield* others(scope, many, effort);
  yield { of: large.highestMemory, mdserver: memory(many).highest, reference };
  yield { of: large.laterMemory, mdserver: memory(many).now, reference };
  await stop(many);
}
