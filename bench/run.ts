import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Answer, ask, freePort, mainFile } from '../test/support/daemon.js';
import { printHeadings, printRow } from '../test/support/table.js';
import type { BareOptions, FixedAnswer } from './bare.js';
import { type LoadName, type RoundResult, runRound } from './load.js';

const host = '127.122.0.1';
const bareFile = fileURLToPath(new URL('bare.js', import.meta.url));
const rounds = 10;
const roundMilliseconds = 400;
const connections = 50;

/** The loads and their names in the table. Only the first has targets: the second is a flood. */
const loadNames = new Map<LoadName, string>([
  ['oneByOne', '1 at a time'],
  ['allAtOnce', `${connections} at once`],
]);

/** The paths, and the target share of the bare server's requests per second. */
const cases = [
  { path: '/latest/meta-data/instance-id', targets: { off: 0.9, on: 0.75 } },
  { path: '/latest/meta-data/hostname', targets: { off: 0.9, on: 0.75 } },
  { path: '/latest/user-data', targets: { off: 0.75, on: 0.65 } },
] as const;

/** A server under load. */
interface Server {
  readonly process: ChildProcess;
  readonly port: number;
}

/** The addresses of `count` instances, in 127.122.0.0/16. */
function addressesOf(count: number): string[] {
  return Array.from({ length: count }, (_, index) => {
    const place = index + 10;
    return `127.122.${place >> 8}.${place & 255}`;
  });
}

/** A database record. All names have the same length, and so nearly all responses do. */
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
hostname: {{yaml(hostname)}}
fqdn: {{yaml(hostname + '.example.com')}}
manage_etc_hosts: true
password: {{yaml(mdserver_password)}}
ssh_authorized_keys:
    - {{yaml(public_keys['default'])}}
runcmd:
    - [ sh, -c, {{yaml('echo ' + sh(site) + ' > /etc/site')}} ]
`;

/** A configuration with the default log level, or with one that does not log requests. */
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

/** Marks requests in the log that are not part of the load. */
const setUp = { 'user-agent': 'set-up' };

/** Waits for the first response: at log level warning, the daemon does not log that it listens. */
async function firstAnswer(daemon: Server, from: string): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await ask({ host, port: daemon.port }, '/', { from, headers: setUp });
      return;
    } catch (error) {
      if (attempt === 200 || daemon.process.exitCode !== null) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/** Starts the daemon with an instance for each address; its standard output goes to a file. */
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

// An interrupted run leaves no processes behind.
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

/** The headers that Node adds itself. */
const ownHeaders = ['date', 'connection', 'keep-alive'];

function fixedAnswer({ status, headers, text }: Answer): FixedAnswer {
  const kept = Object.entries(headers).filter(([name]) => !ownHeaders.includes(name));
  return { status, headers: Object.fromEntries(kept) as FixedAnswer['headers'], body: text };
}

function comparable({ status, headers, text }: Answer): string {
  const sorted = Object.entries({ ...headers, date: '' }).sort();
  return JSON.stringify([status, sorted, text]);
}

/** Starts a bare server that gives the daemon's responses to the first instance, headers included. */
async function startBareLike(daemon: Server, from: string): Promise<Server> {
  const request = { from, headers: setUp };
  const answers = new Map<string, Answer>();
  for (const { path } of cases)
    answers.set(path, await ask({ host, port: daemon.port }, path, request));
  const bare = await startBare({
    host,
    answers: Object.fromEntries([...answers].map(([path, answer]) => [path, fixedAnswer(answer)])),
  });
  for (const [path, answer] of answers) {
    const response = await ask({ host, port: bare.port }, path, request);
    if (comparable(response) !== comparable(answer)) {
      throw new Error(`the responses differ: ${comparable(answer)} and ${comparable(response)}`);
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

/** The result of all rounds of one server in one case. */
interface Score {
  /** The median of the rounds. */
  readonly requestsPerSecond: number;
  readonly cpuMicroseconds: number;
  readonly requests: number;
}

function score(results: readonly RoundResult[]): Score {
  const total = (part: (result: RoundResult) => number) =>
    results.reduce((sum, result) => sum + part(result), 0);
  const requests = total((result) => result.requests);
  return {
    requestsPerSecond: median(results.map(({ requests, seconds }) => requests / seconds)),
    cpuMicroseconds: (total(({ cpuSeconds }) => cpuSeconds) / requests) * 1e6,
    requests,
  };
}

/** One instance for each connection, different ones in each round, spread over all instances. */
function sourcesOf(addresses: readonly string[], round: number): string[] {
  const step = Math.max(1, Math.floor(addresses.length / connections));
  return Array.from({ length: connections }, (_, index) => {
    return addresses[(index * step + round) % addresses.length] ?? host;
  });
}

/** Loads both servers in turn, so that other load on the machine affects both. */
async function measure(
  load: LoadName,
  daemon: Server,
  bare: Server,
  path: string,
  addresses: readonly string[],
): Promise<{ daemon: Score; bare: Score; allRequests: number }> {
  const results = { daemon: [] as RoundResult[], bare: [] as RoundResult[] };
  for (let round = 0; round <= rounds; round += 1) {
    const sources = sourcesOf(addresses, round);
    for (const [name, server] of [['bare', bare] as const, ['daemon', daemon] as const]) {
      const pid = server.process.pid ?? 0;
      const { port } = server;
      const milliseconds = roundMilliseconds;
      results[name].push(await runRound(load, { host, port, pid, path, sources, milliseconds }));
    }
  }
  const allRequests = results.daemon.reduce((sum, { requests }) => sum + requests, 0);
  // The first round is the warm-up.
  return {
    daemon: score(results.daemon.slice(1)),
    bare: score(results.bare.slice(1)),
    allRequests,
  };
}

/** The number of lines in the log file for successful requests. */
function requestLines(folder: string): number {
  const text = readFileSync(join(folder, 'mdserver.log'), 'utf8');
  return text.split('\n').filter((line) => line.endsWith(' 200 -')).length;
}

const columns = [
  ['log', 3],
  ['instances', -9],
  ['load', 11],
  ['path', 11],
  ['bare/s', -7],
  ['mdserver/s', -10],
  ['ratio', -5],
  ['target', -6],
  ['', 5],
  ['CPU bare', -8],
  ['mdserver', -8],
  ['ratio', -5],
] as const;

async function runSetup(instances: number, log: 'on' | 'off'): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'mdserver-bench-'));
  const addresses = addressesOf(instances);
  const [first = host] = addresses;
  const servers: Server[] = [];
  try {
    const daemon = await startDaemon(folder, addresses, log);
    servers.push(daemon);
    await firstAnswer(daemon, first);
    const bare = await startBareLike(daemon, first);
    servers.push(bare);
    let requests = 0;
    for (const [load, loadName] of loadNames) {
      for (const { path, targets } of cases) {
        const scores = await measure(load, daemon, bare, path, addresses);
        requests += scores.allRequests;
        const ratio = scores.daemon.requestsPerSecond / scores.bare.requestsPerSecond;
        const target = load === 'oneByOne' ? targets[log] : undefined;
        printRow(columns, [
          log,
          String(instances),
          loadName,
          path.slice(path.lastIndexOf('/') + 1),
          scores.bare.requestsPerSecond.toFixed(0),
          scores.daemon.requestsPerSecond.toFixed(0),
          ratio.toFixed(2),
          target?.toFixed(2) ?? '',
          target !== undefined && ratio < target ? 'below' : '',
          `${scores.bare.cpuMicroseconds.toFixed(1)} µs`,
          `${scores.daemon.cpuMicroseconds.toFixed(1)} µs`,
          (scores.bare.cpuMicroseconds / scores.daemon.cpuMicroseconds).toFixed(2),
        ]);
      }
    }
    await stop(daemon);
    // The log limits the lines of each instance, so there are fewer than requests.
    const written = requestLines(folder);
    if (written > 0 !== (log === 'on')) {
      throw new Error(`${written} request lines for ${requests} requests, with the log ${log}`);
    }
  } finally {
    for (const { process: child } of servers) child.kill('SIGKILL');
    rmSync(folder, { recursive: true });
  }
}

process.stdout.write(
  `node ${process.version}, ${rounds} rounds of ${roundMilliseconds} ms for each server in turn\n`,
);
printHeadings(columns);
for (const log of ['off', 'on'] as const) {
  for (const instances of [10, 5000]) await runSetup(instances, log);
}
