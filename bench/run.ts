/*
 * Measures mdserver: npm run bench [-- [requests] [start] [store] [--short]]
 * Compares ratios with the recorded ones: npm run bench -- check
 * Records them: npm run bench -- record
 *
 * docs/benchmarks.md says what each case is.
 */
import { constants, setPriority } from 'node:os';
import { parseArgs } from 'node:util';
import type { Scope } from '../test/support/cleanup.js';
import { type Case, type Effort, isChecked, lowest, median, type Result } from './cases.js';
import { check, record } from './check.js';
import { measureRequests, requestCases } from './requests.js';
import { measureStart, startCases } from './start.js';
import { measureStore, storeCases, syncMilliseconds } from './store.js';
import { circumstances, headings, legend, line } from './table.js';

interface Part {
  readonly name: string;
  readonly cases: readonly Case[];
  readonly measure: (scope: Scope, effort: Effort) => AsyncGenerator<Result>;
}

const parts: readonly Part[] = [
  { name: 'requests', cases: requestCases, measure: measureRequests },
  { name: 'start', cases: startCases, measure: measureStart },
  { name: 'store', cases: storeCases, measure: measureStore },
];

const full: Effort = {
  rounds: 10,
  roundMilliseconds: 400,
  repeats: 15,
  onlyChecked: false,
  summary: median,
};
const short: Effort = { ...full, rounds: 5, roundMilliseconds: 200, repeats: 5 };
// Medians are off by a sixth while others use the machine, and the lowest by a tenth at most.
const checking: Effort = {
  rounds: 12,
  roundMilliseconds: 200,
  repeats: 20,
  onlyChecked: true,
  summary: lowest,
};

/** What is made is released when this process ends. */
const scope: Scope = { after: () => undefined };

async function* results(chosen: readonly Part[], effort: Effort): AsyncGenerator<Result> {
  for (const { measure } of chosen) yield* measure(scope, effort);
}

async function printTable(chosen: readonly Part[], effort: Effort): Promise<void> {
  const sync = await syncMilliseconds(scope);
  process.stdout.write(`${circumstances(sync)}\n\n${headings}\n`);
  for await (const result of results(chosen, effort)) process.stdout.write(`${line(result)}\n`);
  process.stdout.write(`${legend}\n`);
}

const checked = parts.flatMap(({ cases }) => cases.filter(isChecked));

/** Measures the parts that have one of these cases. */
function measureChecked(names: ReadonlySet<string>): AsyncGenerator<Result> {
  const chosen = parts.filter(({ cases }) => cases.some(({ name }) => names.has(name)));
  return results(chosen, checking);
}

/** As root, goes before what else runs on the machine, and so does all that is started here. */
function goFirst(): void {
  try {
    setPriority(constants.priority.PRIORITY_HIGH);
  } catch (error) {
    const { message } = error as Error;
    process.stderr.write(`not root, so other programs disturb the measurement more: ${message}\n`);
  }
}

goFirst();
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { short: { type: 'boolean' } },
});
const [command] = positionals;
if (command === 'check') {
  if (!(await check(checked, measureChecked))) process.exitCode = 1;
} else if (command === 'record') {
  await record(checked, measureChecked);
} else {
  const unknown = positionals.find((word) => !parts.some(({ name }) => name === word));
  if (unknown !== undefined)
    throw new Error(`"${unknown}" is none of requests, start, store, check and record`);
  const chosen = parts.filter(({ name }) => positionals.length === 0 || positionals.includes(name));
  await printTable(chosen, values.short ? short : full);
}
