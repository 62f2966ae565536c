/*
 * Attacks mdserver as hostile guests, users and web pages would, with an honest guest beside them:
 * npm run test:hostile [-- [--long] [--only TEXT] [--requests N] [--seed N]]
 *
 * Everything runs in network namespaces that it makes itself: see docs/testing.md.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { Scope } from '../support/cleanup.js';
import { missing } from '../support/parts.js';
import { domainXml } from '../support/samples.js';
import { printHeadings, printRow } from '../support/table.js';
import { type Attack, attacks } from './attacks.js';
import { fuzz } from './fuzz.js';
import {
  percentile,
  remains,
  samplesOf,
  settled,
  stopped,
  watchFootprint,
  witness,
} from './measure.js';
import {
  type Footprint,
  footprint,
  logSize,
  type Network,
  startLoad,
  startNetwork,
} from './network.js';
import type { WitnessReport } from './witness.js';

/** How often and how long each attack runs; CI wants few minutes, `--long` stable figures. */
interface Timing {
  readonly rounds: number;
  readonly quietSeconds: number;
  readonly attackSeconds: number;
}
const short: Timing = { rounds: 1, quietSeconds: 1, attackSeconds: 4 };
const long: Timing = { rounds: 5, quietSeconds: 5, attackSeconds: 10 };

/** The fuzz ends after so many seconds, whatever it has sent. */
const fuzzSeconds = process.env['CI'] ? 120 : 3600;

/** Milliseconds within which the control socket is to answer under attack. */
const controlTarget = 50;
/** How much longer the 99th percentile of the honest guest is to get at most. */
const latencyTarget = 2;

/** What was measured of one attack. */
interface Measured {
  readonly quiet: readonly WitnessReport[];
  readonly attacked: readonly WitnessReport[];
  readonly before: Footprint;
  readonly peak: Footprint;
  readonly after: Footprint;
  /** Bytes that the log grew by in a second. */
  readonly logRate: number;
  /** How often dnsmasq was told to read its files again. */
  readonly reloads: number;
  readonly detail: string;
  /** What must not be. */
  readonly failures: readonly string[];
}

/** The message of an error: that of an assertion has several lines. */
function oneLine({ message }: Error): string {
  return message.replaceAll(/\s*\n\s*/g, ' ');
}

async function measure(
  network: Network,
  { run }: Attack,
  { rounds, quietSeconds, attackSeconds }: Timing,
  before: Footprint,
): Promise<Measured> {
  const { site, dnsmasq } = network;
  const quiet: WitnessReport[] = [];
  const attacked: WitnessReport[] = [];
  const failures: string[] = [];
  let detail = '';
  const bytes = logSize(site);
  const reloads = dnsmasq.rounds();
  const stopWatching = watchFootprint(network);
  const started = performance.now();
  try {
    for (let round = 0; round < rounds; round += 1) {
      quiet.push(await witness(network, quietSeconds * 1000));
      const attacking = run(network, attackSeconds).catch((error: Error) => {
        failures.push(oneLine(error));
        return '';
      });
      attacked.push(await witness(network, attackSeconds * 1000));
      detail = await attacking;
    }
  } finally {
    stopWatching();
  }
  const seconds = (performance.now() - started) / 1000;
  const logRate = (logSize(site) - bytes) / seconds;
  const after = await settled(site.daemon, before);
  failures.push(...remains(before, after));
  const problems = [...quiet, ...attacked].flatMap((report) => report.problems);
  failures.push(...new Set(problems));
  return {
    quiet,
    attacked,
    before,
    peak: stopWatching(),
    after,
    logRate,
    reloads: dnsmasq.rounds() - reloads,
    detail,
    failures,
  };
}

const columns = [
  ['attack', 32],
  ['answered', -8],
  ['p50 quiet', -9],
  ['attack', -6],
  ['p99 quiet', -9],
  ['attack', -6],
  ['kept p99', -8],
  ['control max', -11],
  ['DNS max', -7],
  ['RSS before', -10],
  ['peak', -5],
  ['after', -5],
  ['fds before', -10],
  ['peak', -5],
  ['after', -5],
  ['log KB/s', -8],
  ['SIGHUP', -6],
  ['', 4],
] as const;

function report({ name }: Attack, measured: Measured): void {
  const { quiet, attacked, before, peak, after, failures, detail } = measured;
  const fresh = { quiet: samplesOf(quiet, 'fresh'), attacked: samplesOf(attacked, 'fresh') };
  const kept = samplesOf(attacked, 'kept');
  const control = Math.max(...samplesOf(attacked, 'control'));
  const milliseconds = (samples: readonly number[], share: number) =>
    percentile(samples, share).toFixed(1);
  const isOver =
    percentile(fresh.attacked, 0.99) > latencyTarget * percentile(fresh.quiet, 0.99) ||
    control > controlTarget;
  printRow(columns, [
    name,
    String(fresh.attacked.length + kept.length),
    milliseconds(fresh.quiet, 0.5),
    milliseconds(fresh.attacked, 0.5),
    milliseconds(fresh.quiet, 0.99),
    milliseconds(fresh.attacked, 0.99),
    milliseconds(kept, 0.99),
    control.toFixed(0),
    Math.max(...samplesOf(attacked, 'dns')).toFixed(0),
    before.rss.toFixed(0),
    peak.rss.toFixed(0),
    after.rss.toFixed(0),
    String(before.descriptors),
    String(peak.descriptors),
    String(after.descriptors),
    (measured.logRate / 1000).toFixed(0),
    String(measured.reloads),
    failures.length > 0 ? 'FAIL' : isOver ? 'over' : 'ok',
  ]);
  if (detail !== '') process.stdout.write(`    ${detail}\n`);
  printFailures(failures);
}

/** Prints the first failures: those that follow are mostly like them. */
function printFailures(failures: readonly string[]): void {
  for (const failure of failures.slice(0, 10)) process.stdout.write(`FAIL: ${failure}\n`);
  if (failures.length > 10) process.stdout.write(`FAIL: ${failures.length - 10} more\n`);
}

/** Requests and uploads as on any day, until the code that serves them is compiled. */
async function warmUp(network: Network): Promise<void> {
  const { guests, site } = network;
  const request = 'GET /latest/user-data HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n';
  const loads = Object.values(guests).map((guest) =>
    startLoad(guest, 'storm', { seconds: 5, sources: [guest.address], request }),
  );
  for (let number = 1; number <= 50; number += 1) {
    const body = domainXml(2, { name: 'mallory', metadata: { Note: 'canary-of-mallory' } });
    await site.ask('/instance-upload', { method: 'POST', body });
  }
  await witness(network, 5000);
  await Promise.all(loads.map((load) => load.report));
  await sleep(2000);
}

async function attackAll(scope: Scope, chosen: readonly Attack[], timing: Timing): Promise<number> {
  const network = await startNetwork(scope);
  await warmUp(network);
  const before = footprint(network.site.daemon);
  process.stdout.write(
    'milliseconds; MB; the verdict "over": above a target, see docs/testing.md\n',
  );
  printHeadings(columns);
  let failures = 0;
  for (const attack of chosen) {
    const measured = await measure(network, attack, timing, before);
    report(attack, measured);
    failures += measured.failures.length;
  }
  const atTheEnd = await stopped(network.site.daemon);
  printFailures(atTheEnd);
  return failures + atTheEnd.length;
}

async function fuzzAll(scope: Scope): Promise<number> {
  const plan = {
    seed: Number(values.seed),
    requests: Number(values.requests),
    seconds: fuzzSeconds,
  };
  const failures = await fuzz(scope, plan);
  printFailures(failures);
  return failures.length;
}

const { values } = parseArgs({
  options: {
    long: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    requests: { type: 'string', default: process.env['CI'] ? '100000' : '1000000' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
  },
});
const skip = missing('netns', 'dnsmasq', 'dig', 'curl', 'python');
if (skip !== false) {
  process.stdout.write(`skipped: ${skip}\n`);
  process.exit(0);
}
const releases: (() => unknown)[] = [];
const scope: Scope = { after: (release) => releases.push(release) };
let failures = 0;
try {
  const chosen = attacks.filter(({ name }) => name.includes(values.only));
  if (chosen.length > 0) failures += await attackAll(scope, chosen, values.long ? long : short);
  if ('fuzz'.includes(values.only)) failures += await fuzzAll(scope);
} catch (error) {
  failures += 1;
  printFailures([oneLine(error as Error)]);
} finally {
  for (const release of releases) await release();
}
process.stdout.write(failures === 0 ? 'passed\n' : `FAILED: ${failures}\n`);
process.exit(failures === 0 ? 0 : 1);
