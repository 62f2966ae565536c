/*
 * Measures mdserver: npm run bench [-- [requests|start|store] [--short]]
 *
 * docs/benchmarks.md says what each line means.
 */
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import type { Scope } from '../test/support/cleanup.js';
import type { Effort, Result } from './cases.js';
import { measureRequests } from './requests.js';
import { measureStart } from './start.js';
import { measureStore, syncMilliseconds } from './store.js';
import { headings, line } from './table.js';

const parts: ReadonlyMap<string, (scope: Scope, effort: Effort) => AsyncGenerator<Result>> =
  new Map([
    ['requests', measureRequests],
    ['start', measureStart],
    ['store', measureStore],
  ]);

const full: Effort = { rounds: 10, roundMilliseconds: 400, repeats: 15, onlyChecked: false };
const short: Effort = { rounds: 5, roundMilliseconds: 200, repeats: 5, onlyChecked: false };

/** Releases what a part has made when it is over. */
async function withScope<T>(work: (scope: Scope) => Promise<T>): Promise<T> {
  const releases: (() => unknown)[] = [];
  try {
    return await work({ after: (release) => releases.push(release) });
  } finally {
    for (const release of releases) await release();
  }
}

async function printTable(names: readonly string[], effort: Effort): Promise<void> {
  const sync = await withScope(syncMilliseconds);
  process.stdout.write(
    `node ${process.version}, ${cpus().length} cores; 4 KiB are on disk in ${sync.toFixed(1)} ms\n\n${headings}\n`,
  );
  for (const [name, measure] of parts) {
    if (!names.includes(name)) continue;
    await withScope(async (scope) => {
      for await (const result of measure(scope, effort)) process.stdout.write(`${line(result)}\n`);
    });
  }
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { short: { type: 'boolean' } },
});
const unknown = positionals.find((name) => !parts.has(name));
if (unknown !== undefined)
  throw new Error(`there is no ${unknown}: ${[...parts.keys()].join(', ')}`);
await printTable(
  positionals.length === 0 ? [...parts.keys()] : positionals,
  values.short ? short : full,
);
