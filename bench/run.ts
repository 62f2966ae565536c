import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Answer, ask, freePort, mainFile } from '../test/support/daemon.js';
import type { BareOptions, FixedAnswer } from './bare.js';
import { type LoadName, type Outcome, runRound } from './load.js';

const host = '127.122.0.1';
const bareFile = fileURLToPath(new URL('bare.js', import.meta.url));
const rounds = 10;
const roundMilliseconds = 400;
const connections = 50;

/** The loads, as the table names them. The aims are for the first: the second is a flood. */
const loadNames = new Map<LoadName, string>([
  ['oneByOne', '1 at a time'],
  ['allAtOnce', `${connections} at once`],
]);

/** What is asked for, and the least share of bare node's requests a second that is aimed at. */
const cases = [
  { path: '/latest/meta-data/instance-id', aims: { off: 0.9, on: 0.75 } },
  { path: '/latest/meta-data/hostname', aims: { off: 0.9, on: 0.75 } },
  { path: '/latest/user-data', aims: { off: 0.75, on: 0.65 } },
] as const;

/** A server under load, and how to end it. */
interface Server {
  readonly process: ChildProcess;
  readonly port: number;
}

/** The addresses of as many instances, in 127.122.0.0/16. */
function addressesOf(count: number): string[] {
  return Array.from({ length: count }, (_, index) => {
    const place = index + 10;
    return `127.122.${place >> 8}.${place & 255}`;
  });
}

/** A record of Python's database; all names are equally long, and so are all answers nearly. */
function record(address: string, index: number): Record<string, unknown> {
  const number = String(index).padStart(4, '0');
  return {
    domain_name: `guest-${number}`,
    domain_uuid: `00000000-0000-4000-8000-00000000${number}`,
    domain_metadata: {},
    mds_mac: `52:54:00:00:${number.slice(0, 2)}:${number.slice(2)}`,
    mds_ipv4: address,
    mds_ipv6: null,
    first_seen: 1700000000.5,
    last_update: 1700000000.5,
    location: 'bench',
  };
}

const template = `#cloud-config
hostname: {{hostname}}
fqdn: {{hostname}}.example.com
manage_etc_hosts: true
password: {{mdserver_password}}
ssh_authorized_keys:
    - {{public_keys['default']}}
runcmd:
    - [ sh, -c, "echo {{site}} > /etc/site" ]
`;

/** A configuration with the default log, or with one that has no line for a request. */
function configuration(folder: string, port: number, log: 'on' | 'off'): string {
  return `[mdserver]
listen_address = ${host}
port = ${port}
logfile = ${folder}/mdserver.log
db_file = ${folder}/db_file.json
userdata_dir = ${folder}/userdata
default_template = ${folder}/userdata/base
password = bench
${log === 'off' ? '[loglevels]\nbase = warning\n' : ''}
[public-keys]
default = ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGRlbW8gb25seSwgdGhpcyBpcyBubyByZWFsIGtleSEh bench
[template-data]
site = bench
[dnsmasq]
base_dir = ${folder}/dnsmasq
run_dir = ${folder}/run
interface = lo
net_address = 127.122.0.0
net_prefix = 16
gateway = ${host}
`;
}

/** Tells requests that are not part of the load apart, in the log. */
const setUp = { 'user-agent': 'set-up' };

/** Asks until there is an answer: with no request lines the daemon prints nothing when it serves. */
async function firstAnswer(daemon: Server, from: string): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await ask(host, daemon.port, '/', { from, headers: setUp });
      return;
    } catch (error) {
      if (attempt === 200 || daemon.process.exitCode !== null) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/** The daemon as it is installed, with as many instances; its standard output is a file. */
async function startDaemon(
  folder: string,
  addresses: readonly string[],
  log: 'on' | 'off',
): Promise<Server> {
  const port = await freePort(host);
  mkdirSync(join(folder, 'userdata'));
  writeFileSync(join(folder, 'userdata/base'), template);
  writeFileSync(join(folder, 'db_file.json'), JSON.stringify(addresses.map(record)));
  writeFileSync(join(folder, 'mdserver.conf'), configuration(folder, port, log));
  const stdout = openSync(join(folder, 'stdout'), 'w');
  const child = spawn(process.execPath, [mainFile, join(folder, 'mdserver.conf')], {
    stdio: ['ignore', stdout, 'inherit'],
  });
  running.add(child);
  return { process: child, port };
}

async function startBare(options: BareOptions): Promise<Server> {
  const child = spawn(process.execPath, [bareFile, JSON.stringify(options)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  running.add(child);
  const [printed] = await once(child.stdout, 'data');
  return { process: child, port: Number(String(printed)) };
}

// A run that is cut short leaves nothing behind.
const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill();
});
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

async function stop({ process: child }: Server): Promise<void> {
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  await ended;
  running.delete(child);
}

/** What node sends by itself. */
const ownHeaders = ['date', 'connection', 'keep-alive'];

function fixedAnswer({ status, headers, text }: Answer): FixedAnswer {
  const kept = Object.entries(headers).filter(([name]) => !ownHeaders.includes(name));
  return { status, headers: Object.fromEntries(kept) as FixedAnswer['headers'], body: text };
}

function comparable({ status, headers, text }: Answer): string {
  const sorted = Object.entries({ ...headers, date: '' }).sort();
  return JSON.stringify([status, sorted, text]);
}

/** A bare server that answers as the daemon does the first instance, header for header. */
async function startTwin(daemon: Server, from: string): Promise<Server> {
  const asking = { from, headers: setUp };
  const answers = new Map<string, Answer>();
  for (const { path } of cases) answers.set(path, await ask(host, daemon.port, path, asking));
  const bare = await startBare({
    host,
    answers: Object.fromEntries([...answers].map(([path, answer]) => [path, fixedAnswer(answer)])),
  });
  for (const [path, answer] of answers) {
    const twins = await ask(host, bare.port, path, asking);
    if (comparable(twins) !== comparable(answer)) {
      throw new Error(`not the same: ${comparable(answer)} and ${comparable(twins)}`);
    }
  }
  return bare;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** The rounds of one server in one case. */
interface Score {
  /** Median of the rounds. */
  readonly requestsPerSecond: number;
  readonly cpuMicroseconds: number;
  readonly requests: number;
}

function score(outcomes: readonly Outcome[]): Score {
  const total = (part: (outcome: Outcome) => number) =>
    outcomes.reduce((sum, outcome) => sum + part(outcome), 0);
  const requests = total((outcome) => outcome.requests);
  return {
    requestsPerSecond: median(outcomes.map(({ requests, seconds }) => requests / seconds)),
    cpuMicroseconds: (total(({ cpuSeconds }) => cpuSeconds) / requests) * 1e6,
    requests,
  };
}

/** As many instances as there are connections, other ones in each round, spread over all. */
function sourcesOf(addresses: readonly string[], round: number): string[] {
  const step = Math.max(1, Math.floor(addresses.length / connections));
  return Array.from({ length: connections }, (_, index) => {
    return addresses[(index * step + round) % addresses.length] ?? host;
  });
}

/** Loads both servers in turn, so that what else the machine does hits both. */
async function measure(
  load: LoadName,
  daemon: Server,
  bare: Server,
  path: string,
  addresses: readonly string[],
): Promise<{ daemon: Score; bare: Score; allRequests: number }> {
  const outcomes = { daemon: [] as Outcome[], bare: [] as Outcome[] };
  for (let round = 0; round <= rounds; round += 1) {
    const sources = sourcesOf(addresses, round);
    for (const [name, server] of [['bare', bare] as const, ['daemon', daemon] as const]) {
      const pid = server.process.pid ?? 0;
      const { port } = server;
      const milliseconds = roundMilliseconds;
      outcomes[name].push(await runRound(load, { host, port, pid, path, sources, milliseconds }));
    }
  }
  const allRequests = outcomes.daemon.reduce((sum, { requests }) => sum + requests, 0);
  // The first round of each warms up.
  return {
    daemon: score(outcomes.daemon.slice(1)),
    bare: score(outcomes.bare.slice(1)),
    allRequests,
  };
}

/** Lines of the log file for answered requests. */
function requestLines(folder: string): number {
  const text = readFileSync(join(folder, 'mdserver.log'), 'utf8');
  return text.split('\n').filter((line) => line.endsWith(' 200 -')).length;
}

/** Headings and widths; a negative one is for numbers, which stand at the right. */
const columns = [
  ['log', 3],
  ['instances', -9],
  ['load', 11],
  ['asked for', 11],
  ['bare/s', -7],
  ['mdserver/s', -10],
  ['ratio', -5],
  ['aim', -4],
  ['', 5],
  ['CPU bare', -8],
  ['mdserver', -8],
  ['ratio', -5],
] as const;

function printRow(cells: readonly string[]): void {
  const padded = columns.map(([, width], index) => {
    const cell = cells[index] ?? '';
    return width < 0 ? cell.padStart(-width) : cell.padEnd(width);
  });
  process.stdout.write(`${padded.join('  ').trimEnd()}\n`);
}

async function runSetup(instances: number, log: 'on' | 'off'): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'mdserver-bench-'));
  const addresses = addressesOf(instances);
  const [first = host] = addresses;
  const servers: Server[] = [];
  try {
    const daemon = await startDaemon(folder, addresses, log);
    servers.push(daemon);
    await firstAnswer(daemon, first);
    const bare = await startTwin(daemon, first);
    servers.push(bare);
    let requests = 0;
    for (const [load, loadName] of loadNames) {
      for (const { path, aims } of cases) {
        const scores = await measure(load, daemon, bare, path, addresses);
        requests += scores.allRequests;
        const ratio = scores.daemon.requestsPerSecond / scores.bare.requestsPerSecond;
        const aim = load === 'oneByOne' ? aims[log] : undefined;
        printRow([
          log,
          String(instances),
          loadName,
          path.slice(path.lastIndexOf('/') + 1),
          scores.bare.requestsPerSecond.toFixed(0),
          scores.daemon.requestsPerSecond.toFixed(0),
          ratio.toFixed(2),
          aim?.toFixed(2) ?? '',
          aim !== undefined && ratio < aim ? 'below' : '',
          `${scores.bare.cpuMicroseconds.toFixed(1)} µs`,
          `${scores.daemon.cpuMicroseconds.toFixed(1)} µs`,
          (scores.bare.cpuMicroseconds / scores.daemon.cpuMicroseconds).toFixed(2),
        ]);
      }
    }
    await stop(daemon);
    const expected = log === 'on' ? requests : 0;
    const written = requestLines(folder);
    if (written !== expected) throw new Error(`${written} request lines for ${expected} requests`);
  } finally {
    for (const { process: child } of servers) child.kill('SIGKILL');
    rmSync(folder, { recursive: true });
  }
}

process.stdout.write(
  `node ${process.version}, ${rounds} rounds of ${roundMilliseconds} ms for each server in turn\n`,
);
printRow(columns.map(([name]) => name));
for (const log of ['off', 'on'] as const) {
  for (const instances of [10, 5000]) await runSetup(instances, log);
}
