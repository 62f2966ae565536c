import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Daemon } from '../support/daemon.js';
import { type Footprint, footprint, honestAnswers, type Network } from './network.js';
import type { Way, WitnessOptions, WitnessReport } from './witness.js';

const witnessFile = fileURLToPath(new URL('witness.js', import.meta.url));

/** Runs the witness in the honest guest's namespace for so long. */
export async function witness(
  { guests, site }: Network,
  milliseconds: number,
): Promise<WitnessReport> {
  const { honest } = guests;
  const options: WitnessOptions = {
    milliseconds,
    socket: site.socket,
    name: honest.name,
    address: honest.address,
    expected: honestAnswers,
  };
  const { status, stdout, stderr } = await honest.run(process.execPath, [
    witnessFile,
    JSON.stringify(options),
  ]);
  if (status !== 0) throw new Error(`the witness failed: ${stderr}`);
  return JSON.parse(stdout) as WitnessReport;
}

/** The value that this share of the samples does not exceed; NaN without samples. */
export function percentile(samples: readonly number[], share: number): number {
  const sorted = samples.toSorted((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

/** The samples of several reports together. */
export function samplesOf(reports: readonly WitnessReport[], way: Way): number[] {
  return reports.flatMap(({ samples }) => samples[way]);
}

/** Looks at the daemon's footprint until it is stopped, and keeps the highest values. */
export function watchFootprint({ site }: Network): () => Footprint {
  let peak = footprint(site.daemon);
  const timer = setInterval(() => {
    try {
      const { rss, descriptors } = footprint(site.daemon);
      peak = {
        rss: Math.max(peak.rss, rss),
        descriptors: Math.max(peak.descriptors, descriptors),
      };
    } catch {
      // Whoever waits for the daemon reports its end.
    }
  }, 50);
  return () => {
    clearInterval(timer);
    return peak;
  };
}

/**
 * MB for what is loaded at its first use, such as the XML parser, and for what the C library keeps of
 * freed memory to use it again.
 */
const reserve = 40;

/** The memory in MB that may stay. */
function memoryLimit(before: Footprint): number {
  return before.rss * 1.2 + reserve;
}

/** Waits until memory and descriptors are back, for a minute at most; gives what there is then. */
export async function settled(daemon: Daemon, before: Footprint): Promise<Footprint> {
  for (let second = 0; ; second += 1) {
    const now = footprint(daemon);
    const isBack = now.rss <= memoryLimit(before) && now.descriptors <= before.descriptors;
    if (isBack || second === 60) return now;
    await sleep(1000);
  }
}

/** What has not come back, in words. */
export function remains(before: Footprint, after: Footprint): string[] {
  return [
    ...(after.rss > memoryLimit(before) ? ['the memory does not come back'] : []),
    ...(after.descriptors > before.descriptors ? ['descriptors stay open'] : []),
  ];
}

/** Stops the daemon; gives its errors in the log, and its exit code if that is not 0. */
export async function stopped(daemon: Daemon): Promise<string[]> {
  const errors = daemon.output().match(/^.* (ERROR|FATAL) .*$/gm) ?? [];
  const status = await daemon.stop();
  return [
    ...errors.map((line) => `in the log: ${line}`),
    ...(status === 0 ? [] : [`mdserver ended with ${status}`]),
  ];
}
