import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { exited, killAtEnd, type Scope, temporaryFolder } from '../test/support/cleanup.js';
import { ask, eventually, freePort } from '../test/support/daemon.js';
import { databaseRecord, loopbackConfiguration, uuid } from '../test/support/samples.js';
import type { BareOptions } from './bare.js';
import type { Stall } from './probe.js';

/** The address of mdserver and of the bare server. */
export const host = '127.122.0.1';

/** The program as packages install it. */
const programFile = fileURLToPath(new URL('../bundle/mdserver.js', import.meta.url));
const bareFile = fileURLToPath(new URL('bare.js', import.meta.url));
const probeFile = fileURLToPath(new URL('probe.js', import.meta.url));

/** A server that is measured. */
export interface Server {
  readonly process: ChildProcess;
  readonly pid: number;
  readonly port: number;
}

/** An mdserver that is measured, with all of its state in a folder of its own. */
export interface Daemon extends Server {
  readonly folder: string;
  /** The path of the control socket. */
  readonly socket: string;
  /** Milliseconds from its start until it answered a guest. */
  readonly startMilliseconds: number;
  /** CPU time in milliseconds that it had used by then. */
  readonly startCpu: number;
}

/** The number of the first instance: all numbers have the same length, and so have nearly all answers. */
const firstNumber = 100_000;

/** The number of an instance in its name, MAC address and uuid. */
export function instanceNumber(index: number): number {
  return firstNumber + index;
}

/** The address of an instance. */
export function instanceAddress(index: number): string {
  const place = index + 10;
  return `127.122.${place >> 8}.${place & 255}`;
}

function record(index: number): object {
  return databaseRecord(instanceNumber(index), {
    mds_ipv4: instanceAddress(index),
    mds_ipv6: null,
    first_seen: 1700000000.5,
    last_update: 1700000000.5,
    location: 'bench',
  });
}

/** What mdserver keeps of the instances beside the database: hardware and SMBIOS of `domainXml`. */
function details(instances: number): object {
  const hardware = { vcpus: 1, memoryKib: 1024 * 1024, architecture: 'x86_64' };
  return Object.fromEntries(
    Array.from({ length: instances }, (_, index) => [
      uuid(instanceNumber(index)),
      { hardware, hostKeys: [], smbios: {} },
    ]),
  );
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

/** Sections of the configuration; without the log of requests, if it is off. */
function sections(log: 'on' | 'off'): string {
  return `${log === 'off' ? '[loglevels]\nbase = warning\n' : ''}[public-keys]
default = ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGRlbW8gb25seSwgdGhpcyBpcyBubyByZWFsIGtleSEh bench
[template-data]
site = bench
`;
}

/** Marks requests in the log that are not part of a load. */
export const setUp = { 'user-agent': 'set-up' };

/** Waits until the daemon answers a guest. */
async function firstAnswer(child: ChildProcess, port: number): Promise<void> {
  for (;;) {
    try {
      await ask({ host, port }, '/', { from: instanceAddress(0), headers: setUp });
      return;
    } catch (error) {
      if (child.exitCode !== null) throw error;
      await new Promise((resolve) => setTimeout(resolve, 3));
    }
  }
}

/** What an mdserver is started with. */
export interface DaemonSettings {
  readonly instances: number;
  readonly log?: 'on' | 'off';
  /** Whether it can be asked for its longest stall. */
  readonly probe?: boolean;
  /** The folder that systemd keeps for the unit; none by default. */
  readonly stateFolder?: string;
}

/** Starts mdserver and waits until it answers a guest. It is killed at the end of the scope. */
export async function startDaemon(
  scope: Scope,
  { instances, log = 'on', probe = false, stateFolder }: DaemonSettings,
): Promise<Daemon> {
  const folder = temporaryFolder(scope, {
    'userdata/base': template,
    'db.json': JSON.stringify(Array.from({ length: instances }, (_, index) => record(index))),
    'db.details.json': JSON.stringify(details(instances)),
  });
  const port = await freePort(host);
  const configuration = loopbackConfiguration(host, folder, {
    mdserver: `default_template = ${folder}/userdata/base\npassword = bench`,
    sections: sections(log),
  });
  const configurationFile = join(folder, 'mdserver.conf');
  writeFileSync(configurationFile, configuration.replace('{port}', String(port)));
  const stdout = openSync(join(folder, 'stdout'), 'w');
  const started = performance.now();
  const child = spawn(
    process.execPath,
    [...(probe ? ['--import', probeFile] : []), programFile, configurationFile],
    {
      stdio: ['ignore', stdout, 'inherit', ...(probe ? ['ipc' as const] : [])],
      env: { ...process.env, ...(stateFolder && { STATE_DIRECTORY: stateFolder }) },
    },
  );
  killAtEnd(scope, child);
  await firstAnswer(child, port);
  const startMilliseconds = performance.now() - started;
  const pid = pidOf(child);
  const startCpu = cpuMilliseconds(pid);
  const socket = join(folder, 'run/control.sock');
  await eventually('mdserver serves its control socket', () => existsSync(socket));
  return { process: child, pid, port, folder, socket, startMilliseconds, startCpu };
}

/** Starts a bare server. It is killed at the end of the scope. */
export async function startBare(scope: Scope, options: BareOptions): Promise<Server> {
  const child = spawn(process.execPath, [bareFile, JSON.stringify(options)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  killAtEnd(scope, child);
  const [printed] = await once(child.stdout, 'data');
  return { process: child, pid: pidOf(child), port: Number(String(printed)) };
}

/** Ends a server in order. */
export async function stop({ process: child }: Server): Promise<void> {
  child.kill('SIGTERM');
  await exited(child);
}

function pidOf({ pid }: ChildProcess): number {
  if (pid === undefined) throw new Error('a process could not be started');
  return pid;
}

/** The CPU time in milliseconds that all threads of a process have used (schedstat of proc(5)). */
export function cpuMilliseconds(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`);
  const nanoseconds = threads.map((thread) => {
    const text = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1');
    return Number(text.split(' ', 1)[0]);
  });
  return nanoseconds.reduce((sum, value) => sum + value, 0) / 1e6;
}

/** The memory of a process in MB: what it uses now, and the most that it ever used. */
export function memory({ pid }: Server): { readonly now: number; readonly highest: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  const megabytes = (field: string) =>
    (Number(new RegExp(`^${field}:\\s*(\\d+) kB`, 'm').exec(status)?.[1]) * 1024) / 1e6;
  return { now: megabytes('VmRSS'), highest: megabytes('VmHWM') };
}

/** The longest time in milliseconds that the event loop of a daemon with a probe stood still since it was asked last. */
export async function longestStall({ process: child }: Daemon): Promise<number> {
  const answer = once(child, 'message');
  child.send('stall');
  const [stall] = (await answer) as [Stall];
  return stall.milliseconds;
}
