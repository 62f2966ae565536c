import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { hookFile, installedHook } from '../fixtures/hook/installed.js';
import type { Scope } from '../support/cleanup.js';
import { repository } from '../support/daemon.js';
import { startDnsmasq } from '../support/dnsmasq.js';
import { addHost, type Namespace } from '../support/netns.js';
import { type Site, startSite } from '../support/site.js';
import {
  canaryDetails,
  canaryRecord,
  canaryUserdata,
  identityOf,
  numbers,
  password,
  strangers,
} from './canaries.js';
import type { FuzzOptions, FuzzReport } from './fuzz-client.js';
import { remains, settled, stopped } from './measure.js';
import { type Footprint, footprint } from './network.js';

const clientFile = fileURLToPath(new URL('fuzz-client.js', import.meta.url));

/** Of how many requests one is sent from the host: to its face, its control socket and its hook. */
const hostShare = 5;

/** How much is sent, and from which seed. */
export interface FuzzPlan {
  readonly seed: number;
  readonly requests: number;
  /** After so many seconds it ends, whatever it has sent. */
  readonly seconds: number;
}

/** Runs a client in a namespace to its end. */
async function runClient(from: Namespace, options: FuzzOptions): Promise<FuzzReport> {
  const { status, stdout, stderr } = await from.run(process.execPath, [
    '--enable-source-maps',
    clientFile,
    JSON.stringify(options),
  ]);
  if (status !== 0) throw new Error(`the client on ${options.from} failed: ${stderr}`);
  return JSON.parse(stdout) as FuzzReport;
}

/** The hook that system-integration.sh installs for a site. */
function installHook({ folder, socket }: Site): string {
  const prefix = join(folder, 'root');
  installedHook(repository, prefix, { socket, spool: join(folder, 'spool') });
  return hookFile(prefix);
}

/**
 * Sends requests at random to mdserver, from guests, strangers and the host, over HTTP, on its control
 * socket, as domain XML and through the hook. Prints what came of it, and gives the failures.
 */
export async function fuzz(scope: Scope, plan: FuzzPlan): Promise<string[]> {
  const host = addHost(scope);
  const site = await startSite(scope, host, {
    records: numbers.map(canaryRecord),
    details: Object.fromEntries(
      numbers.map((number) => [identityOf(number).uuid, canaryDetails(number)]),
    ),
    userdata: Object.fromEntries(
      numbers.map((number) => [identityOf(number).name, canaryUserdata(number)]),
    ),
    // All guests are in one namespace, so that one MAC address answers for all of them.
    mdserver: `password = ${password}\ncheck_mac = no`,
    dnsmasq: 'user = root\nnet_address6 = fd00:ca9a:79::',
  });
  const { daemon, folder, socket } = site;
  const dnsmasq = await startDnsmasq(host.start, folder, join(folder, 'dnsmasq.log'));
  const guests = host.addGuest('52:54:ca:9a:79:00');
  for (const address of [...numbers.map((number) => identityOf(number).ipv4), ...strangers]) {
    guests.ip(`address add ${address}/16 dev eth0`);
  }
  guests.ip('route replace 169.254.169.254/32 via 10.122.0.1');

  const hook = installHook(site);
  const run = ({ seed, requests, seconds }: FuzzPlan) => {
    const onHost = Math.ceil(requests / hostShare);
    const client = (from: 'guests' | 'host', number: number): FuzzOptions => {
      return { seed, requests: number, seconds, from, socket, hook };
    };
    return Promise.all([
      runClient(guests, client('guests', requests - onHost)),
      runClient(host, client('host', onHost)),
    ]);
  };

  // The code that serves the requests is compiled now, and counts as memory before.
  await run({ seed: plan.seed + 1_000_000_000, requests: 5000, seconds: 60 });
  const before = await settled(daemon, footprint(daemon));
  const started = performance.now();
  const reports = await Promise.race([
    run(plan),
    once(daemon.process, 'exit').then(() => {
      throw new Error(
        `mdserver has crashed, with the seed ${plan.seed}: ${daemon.output().slice(-2000)}`,
      );
    }),
  ]);
  const seconds = (performance.now() - started) / 1000;
  const after = await settled(daemon, before);

  const failures = reports.flatMap((report) =>
    report.failures.map(({ what, batch, input }) => {
      const file = join(tmpdir(), `mdserver-fuzz-${plan.seed}-${batch}`);
      writeFileSync(file, input, 'latin1');
      return `${what}: ${JSON.stringify(input.slice(0, 500))}; all of it is in ${file}`;
    }),
  );
  failures.push(...remains(before, after));
  const complaints = dnsmasq
    .log()
    .filter((line) => /\b(bad|illegal|invalid|duplicate)\b/i.test(line));
  failures.push(...complaints.map((line) => `dnsmasq: ${line}`));
  for (const number of numbers) {
    const { ipv4, name } = identityOf(number);
    const url = 'http://169.254.169.254/latest/user-data';
    const { stdout } = await guests.run('curl', ['--silent', '--interface', ipv4, url]);
    if (stdout !== canaryUserdata(number)) failures.push(`${name} got ${JSON.stringify(stdout)}`);
  }
  failures.push(...(await stopped(daemon)));
  printReports(reports, plan, seconds, before, after);
  return failures;
}

function printReports(
  reports: readonly FuzzReport[],
  { seed }: FuzzPlan,
  seconds: number,
  before: Footprint,
  after: Footprint,
): void {
  const sent = reports.reduce((sum, report) => sum + report.sent, 0);
  const hooks = reports.reduce((sum, report) => sum + report.hooks, 0);
  const statuses = new Map<string, number>();
  for (const report of reports) {
    for (const [status, count] of Object.entries(report.statuses)) {
      statuses.set(status, (statuses.get(status) ?? 0) + count);
    }
  }
  const answers = [...statuses].sort().map(([status, count]) => `${count} × ${status}`);
  process.stdout.write(
    `fuzz, seed ${seed}: ${sent} requests and ${hooks} calls of the hook in ${seconds.toFixed(0)} s, ` +
      `${(sent / seconds).toFixed(0)}/s; answers ${answers.join(', ')}; ` +
      `RSS ${before.rss.toFixed(0)} MB before, ${after.rss.toFixed(0)} MB after\n`,
  );
}
