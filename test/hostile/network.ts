import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Scope } from '../support/cleanup.js';
import { repository } from '../support/daemon.js';
import { type Dnsmasq, startDnsmasq } from '../support/dnsmasq.js';
import { addHost, type Host, type Namespace } from '../support/netns.js';
import { python } from '../support/parts.js';
import { databaseRecord } from '../support/samples.js';
import { type Setup, type Site, startSite } from '../support/site.js';

/** A guest in a namespace of its own. */
export interface Guest extends Namespace {
  readonly name: string;
  readonly address: string;
}

/** Who is there: `honest` asks for its data; the others are used by one attacker. */
const guestNames = ['honest', 'mallory', 'greedy', 'slow'] as const;
type GuestName = (typeof guestNames)[number];

/** A host with mdserver and dnsmasq, and guests on its bridge. */
export interface Network {
  readonly host: Host;
  readonly site: Site;
  readonly dnsmasq: Dnsmasq;
  readonly guests: Readonly<Record<GuestName, Guest>>;
  /** A guest that mdserver does not know. */
  readonly stranger: Guest;
}

/** What a guest reads in its answers, and no other one may. */
export function canary(name: string): string {
  return `canary-of-${name}`;
}

/** Takes about 25 ms to render. */
const slowTemplate = `#!/bin/sh
{{% let sum = 0; }}
{{% for (let number = 0; number < 3e7; number += 1) { sum += number % 7; } }}
# {{sum}} canary-of-slow
`;

const userdata: Readonly<Record<GuestName, string>> = {
  honest: `#!/bin/sh\n# ${canary('honest')}\n`,
  mallory: `#!/bin/sh\n# ${canary('mallory')}\n`,
  // More than fits in the buffers of a socket whose peer does not read.
  greedy: `#!/bin/sh\n# ${canary('greedy')}\n${`# ${'x'.repeat(77)}\n`.repeat(4000)}`,
  slow: slowTemplate,
};

/** What the honest guest is answered, by path. */
export const honestAnswers = {
  '/latest/meta-data/hostname': 'honest',
  '/latest/user-data': userdata.honest,
  '/latest/meta-data/local-ipv4': '10.122.8.1',
  '/latest/meta-data/tags/instance/Note': canary('honest'),
};

const records = guestNames.map((name, index) =>
  databaseRecord(index + 1, {
    domain_name: name,
    domain_metadata: { Note: canary(name) },
    mds_ipv4: `10.122.8.${index + 1}`,
  }),
);

function addGuest(host: Host, name: string, mac: string, address: string): Guest {
  const guest = host.addGuest(mac);
  guest.ip(`address add ${address}/16 dev eth0`);
  guest.ip('route replace 169.254.169.254/32 via 10.122.0.1');
  return { ...guest, name, address };
}

/** Starts mdserver with its default configuration, dnsmasq and the guests; all end with the scope. */
export async function startNetwork(scope: Scope, setup: Setup = {}): Promise<Network> {
  const host = addHost(scope);
  const site = await startSite(scope, host, {
    records,
    userdata,
    dnsmasq: 'user = root',
    ...setup,
  });
  const dnsmasq = await startDnsmasq(host.start, site.folder, join(site.folder, 'dnsmasq.log'));
  const guests = records.map(({ domain_name, mds_mac, mds_ipv4 }) => [
    domain_name,
    addGuest(host, domain_name, mds_mac, mds_ipv4),
  ]);
  return {
    host,
    site,
    dnsmasq,
    guests: Object.fromEntries(guests) as Network['guests'],
    stranger: addGuest(host, 'stranger', '52:54:00:00:99:99', '10.122.9.9'),
  };
}

/** The state of the daemon's process that an attack must leave as it was. */
export interface Footprint {
  /** Resident memory in MB. */
  readonly rss: number;
  readonly descriptors: number;
}

/** Reads it in /proc. Throws with the daemon's last words when it has ended. */
export function footprint({ process: child, output }: Site['daemon']): Footprint {
  const { pid, exitCode, signalCode } = child;
  if (exitCode !== null || signalCode !== null) {
    throw new Error(`mdserver has ended (${signalCode ?? exitCode}): ${output().slice(-1000)}`);
  }
  const rss = /^VmRSS:\s*(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  if (rss === null) throw new Error('mdserver has ended');
  return {
    rss: Number(rss[1]) / 1024,
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
  };
}

/** The size of the daemon's log in bytes. */
export function logSize({ folder }: Site): number {
  return statSync(join(folder, 'mdserver.log')).size;
}

/** What load.py takes: see there. */
export interface LoadSettings {
  readonly seconds: number;
  readonly sources: readonly string[];
  readonly host?: string;
  readonly connections?: number;
  readonly request?: string;
  readonly times?: number;
  /** Bytes of a body behind the request. */
  readonly body?: number;
  /** What follows the body. */
  readonly tail?: string;
  /** The user that it runs as; root if not set. */
  readonly uid?: number;
  /** Keeps the connections open after the report, until it is killed. */
  readonly stay?: true;
}

/** What load.py reports. */
export interface LoadReport {
  readonly connected: number;
  readonly refused: number;
  /** How many answers had which status. */
  readonly statuses: Readonly<Record<string, number>>;
  /** How often the canary of which guest was in an answer. */
  readonly canaries: Readonly<Record<string, number>>;
}

/** Load that runs. */
export interface Load {
  /** Resolves when the load is done. Throws what it wrote to its standard error when it failed. */
  readonly report: Promise<LoadReport>;
  readonly stop: () => void;
}

async function reportOf(child: ChildProcess): Promise<LoadReport> {
  let errors = '';
  let output = '';
  child.stderr?.on('data', (chunk) => (errors += chunk));
  const closed = once(child, 'close');
  const line = new Promise<string>((resolve) => {
    child.stdout?.on('data', (chunk) => {
      output += chunk;
      if (output.endsWith('\n')) resolve(output);
    });
  });
  await Promise.race([line, closed]);
  if (!output.endsWith('\n')) throw new Error(`load.py failed: ${errors}`);
  return JSON.parse(output) as LoadReport;
}

/**
 * Starts load.py in a namespace. The host serves other guests with other processors; here they share
 * two, so that the load runs at a lower priority than the server and the honest guest.
 */
export function startLoad(from: Namespace, kind: string, settings: LoadSettings): Load {
  const script = join(repository, 'test', 'hostile', 'load.py');
  const load = [python, script, kind, JSON.stringify(settings)];
  const child = from.start('nice', ['-n', '10', ...load]);
  return { report: reportOf(child), stop: () => child.kill('SIGKILL') };
}
