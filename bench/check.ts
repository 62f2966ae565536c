import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { repository } from '../test/support/daemon.js';
import { type Case, isMoreBetter, median, type Result, ratioOf } from './cases.js';
import { nodeStart } from './start.js';

/** The ratios that CI compares with. */
export interface Recorded {
  /** Where they were measured: on another machine, they are others. */
  readonly machine: string;
  /** Milliseconds of CPU that `node -e 0` took: where it takes more, others slow the machine down. */
  readonly nodeStart: number;
  /** By the names of the cases. */
  readonly ratios: Readonly<Record<string, number>>;
}

const attempts = 5;

/** How many times worse a ratio may be on another kind of machine, where ratios are others. */
const boundElsewhere = 1.5;

/** How many times more CPU `node -e 0` takes on a machine that others slow down: they have its caches. */
const slowed = 1.3;

/** How many times worse a ratio may be there: with twice the CPU for `node -e 0`, floods were 1.5 to 1.8 times worse. */
const boundSlowed = 2;

const recordedFile = join(repository, 'bench/recorded.json');

/** The ratios that are in the repository. */
export function recordedRatios(): Recorded {
  return JSON.parse(readFileSync(recordedFile, 'utf8')) as Recorded;
}

function thisMachine(): string {
  const { arch, version } = process;
  return `${cpus()[0]?.model ?? arch}, node ${version.split('.')[0]}`;
}

async function nodeStartCpu(): Promise<number> {
  const costs: number[] = [];
  for (let count = 0; count < 15; count += 1) costs.push((await nodeStart()).cpu);
  return median(costs);
}

/** How many times worse a ratio is than the recorded one; less than 1 if it is better. */
export function timesWorse(of: Case, ratio: number, recorded: number): number {
  return isMoreBetter(of) ? recorded / ratio : ratio / recorded;
}

/** Measures some of the cases that CI checks. */
export type Measure = (names: ReadonlySet<string>) => AsyncGenerator<Result>;

/**
 * Compares ratios with the recorded ones, and prints them. A case that is worse is measured again,
 * up to five times in all: other load on the machine passes, a slow change does not. Returns
 * whether none is worse.
 */
export async function check(cases: readonly Case[], measure: Measure): Promise<boolean> {
  const { machine, ratios, nodeStart: recordedStart } = recordedRatios();
  const isElsewhere = machine !== thisMachine();
  if (isElsewhere) {
    process.stdout.write(
      `The recorded ratios are from ${machine}; this is ${thisMachine()}: a ratio may be ${boundElsewhere} times worse.\n`,
    );
  }
  let worse = new Set(cases.map(({ name }) => name));
  for (let attempt = 1; attempt <= attempts && worse.size > 0; attempt += 1) {
    const still = new Set<string>();
    const start = await nodeStartCpu();
    const isSlowed = start > slowed * recordedStart;
    if (isSlowed) {
      process.stdout.write(
        `node -e 0 takes ${start.toFixed(0)} ms of CPU, recorded ${recordedStart.toFixed(0)}: on a machine that is slowed down, a ratio may be ${boundSlowed} times worse.\n`,
      );
    }
    for await (const result of measure(worse)) {
      const { name } = result.of;
      if (!worse.has(name)) continue;
      const usual = isElsewhere ? boundElsewhere : (result.of.bound ?? 1);
      const bound = isSlowed ? boundSlowed : usual;
      const recorded = ratios[name];
      if (recorded === undefined)
        throw new Error(`${name} is not recorded: npm run bench -- record`);
      const ratio = ratioOf(result);
      const times = timesWorse(result.of, ratio, recorded);
      if (times > bound) still.add(name);
      const verdict = times > bound ? 'worse' : times < 1 / bound ? 'better' : 'same';
      process.stdout.write(
        `${verdict.padEnd(7)} ${name}: ratio ${ratio.toFixed(2)}, recorded ${recorded.toFixed(2)}\n`,
      );
    }
    worse = still;
  }
  if (worse.size === 0) return true;
  process.stdout.write(
    `Worse in ${attempts} of ${attempts} runs: find out why. If it has to be so, npm run bench -- record.\n`,
  );
  return false;
}

/** Records the ratios: the medians of several runs. */
export async function record(cases: readonly Case[], measure: Measure): Promise<void> {
  const names = new Set(cases.map(({ name }) => name));
  const measured = new Map(cases.map(({ name }) => [name, [] as number[]]));
  for (let attempt = 1; attempt <= attempts; attempt += 1) {
    for await (const result of measure(names)) {
      measured.get(result.of.name)?.push(ratioOf(result));
    }
  }
  const ratios = Object.fromEntries(
    Array.from(measured, ([name, values]) => [name, Number(median(values).toFixed(3))]),
  );
  const recorded: Recorded = {
    machine: thisMachine(),
    nodeStart: Number((await nodeStartCpu()).toFixed(1)),
    ratios,
  };
  writeFileSync(recordedFile, `${JSON.stringify(recorded, null, 2)}\n`);
  process.stdout.write(readFileSync(recordedFile));
}
