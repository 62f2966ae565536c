import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import {
  attempt,
  type CommandResult,
  end,
  eventually,
  isRunning,
  type RunOptions,
  run,
} from '../support/processes.js';

/** The folders of a run. */
export interface Folders {
  /** test/guest of the repository. */
  readonly sources: string;
  /** For the files of this run; removed when it ends. */
  readonly space: string;
  /** Where the package is installed; appears as /usr/local on the hosts. */
  readonly prefix: string;
  /** The guests' image: disk.qcow2, kernel, initrd, key. */
  readonly image: string;
}

/** A record of mdserver's database. */
export interface DatabaseRecord {
  readonly domain_name: string;
  readonly domain_uuid: string;
  readonly mds_mac: string;
  readonly mds_ipv4: string;
}

/** A virtual machine host: namespaces with libvirtd, mdserver and dnsmasq. */
export interface Host {
  readonly name: string;
  /** The path of its file system outside its namespaces. */
  readonly root: string;
  /** Its folder for the files of this run. */
  readonly space: string;
  /** The socket of its libvirtd, under a path that is the same in all namespaces. */
  readonly libvirt: string;
  /** Its address for other hosts. */
  readonly address: string;
  readonly run: (command: string, args: readonly string[], options?: RunOptions) => Promise<string>;
  readonly attempt: (
    command: string,
    args: readonly string[],
    options?: RunOptions,
  ) => Promise<CommandResult>;
  readonly start: (command: string, args: readonly string[], log: string) => ChildProcess;
  readonly virsh: (...args: string[]) => Promise<string>;
  readonly services: {
    libvirtd: ChildProcess | undefined;
    mdserver: ChildProcess | undefined;
    dnsmasq: ChildProcess | undefined;
  };
}

export const gateway = '10.122.0.1';
export const domain = 'guests.test';
export const templateData = 'from the template, a&b';

const configuration = (key: string) => `[mdserver]
debug = yes
check_mac = yes

[public-keys]
default = ${key}

[template-data]
greeting = ${templateData}

[dnsmasq]
use_dns = yes
domain = ${domain}
entry_order = domain, base
`;

// Without dbus, polkit, virtlogd, control groups and private namespaces, which do not work here.
export const libvirtdConf = (socket: string, uuid: string) => `
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_dir = "${socket}"
host_uuid = "${uuid}"
log_outputs = "2:stderr"
`;
export const qemuConf = `
user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
`;

/** Creates the namespaces of a host, without any services. */
export async function makeHost(folders: Folders, name: string, number: number): Promise<Host> {
  const space = join(folders.space, name);
  mkdirSync(join(space, 'libvirt'), { recursive: true });
  const script = join(folders.sources, 'host.sh');
  const holder = spawn(
    'unshare',
    // Without --fork, unshare becomes the script, so its process id is that of the namespaces.
    ['--mount', '--net', '--uts', '--propagation', 'private', '--', 'bash', script].concat([
      name,
      space,
      folders.prefix,
    ]),
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const [output] = (await Promise.race([once(holder.stdout, 'data'), once(holder, 'exit')])) as [
    unknown,
  ];
  if (!Buffer.isBuffer(output)) throw new Error(`the namespaces of ${name} could not be made`);

  const enter = ['--target', String(holder.pid), '--mount', '--net', '--uts', '--'];
  const libvirt = join(space, 'libvirt', 'libvirt-sock');
  const host: Host = {
    name,
    root: `/proc/${holder.pid}/root`,
    space,
    libvirt,
    address: `10.99.0.${number}`,
    run: (command, args, options) => run('nsenter', [...enter, command, ...args], options),
    attempt: (command, args, options) => attempt('nsenter', [...enter, command, ...args], options),
    start: (command, args, log) => {
      const file = openSync(join(space, log), 'a');
      const stdio: ['ignore', number, number] = ['ignore', file, file];
      const child = spawn('nsenter', [...enter, command, ...args], { stdio });
      closeSync(file);
      return child;
    },
    virsh: (...args) => run('virsh', ['-q', '-c', libvirtUri(host), ...args]),
    services: { libvirtd: undefined, mdserver: undefined, dnsmasq: undefined },
  };
  return host;
}

export function libvirtUri({ libvirt }: Host): string {
  return `qemu+unix:///system?socket=${libvirt}`;
}

/** Installs the host's services as the README tells an operator to, and configures them. */
export async function integrate(host: Host, key: string): Promise<void> {
  const installed = '/usr/local/lib/node_modules/mdserver';
  await host.run('bash', [`${installed}/system-integration.sh`]);
  const file = join(host.root, 'etc/mdserver/conf.d/10-test.conf');
  writeFileSync(file, configuration(key));
  const uuid = (await host.run('cat', ['/proc/sys/kernel/random/uuid'])).trim();
  const libvirt = join(host.root, 'etc/libvirt');
  appendFileSync(join(libvirt, 'libvirtd.conf'), libvirtdConf(join(host.space, 'libvirt'), uuid));
  appendFileSync(join(libvirt, 'qemu.conf'), qemuConf);
}

/** Starts libvirtd and waits until it answers. */
export async function startLibvirtd(host: Host): Promise<void> {
  host.services.libvirtd = host.start('libvirtd', [], 'libvirtd.log');
  const { libvirtd } = host.services;
  await eventually('libvirtd answers', 60_000, async () => {
    if (!isRunning(libvirtd)) throw new Error(`libvirtd ended, see ${host.space}/libvirtd.log`);
    if (!existsSync(host.libvirt)) return undefined;
    const { status } = await attempt('virsh', ['-c', libvirtUri(host), 'list'], { limit: 10_000 });
    return status === 0 ? true : undefined;
  });
}

/** Defines the network of the package, which libvirt starts at the next boot. */
export async function defineNetwork(host: Host): Promise<void> {
  const xml = '/usr/local/lib/node_modules/mdserver/etc/libvirt/mds-network.xml';
  await host.virsh('net-define', host.root + xml);
  await host.virsh('net-autostart', 'mds');
}

/** The settings of a systemd unit; of several lines with the same key, the last one counts. */
function readUnit(host: Host, name: string): Record<string, string> {
  const text = readFileSync(join(host.root, 'etc/systemd/system', name), 'utf8');
  const lines = text.matchAll(/^([A-Za-z]+)=(.*)$/gm);
  return Object.fromEntries([...lines].map(([, key, value]) => [key, value]));
}

/** The folders that systemd makes for a unit, and the variables that it names them in (systemd.exec(5)). */
const unitFolders = {
  RuntimeDirectory: ['/run', 'RUNTIME_DIRECTORY'],
  StateDirectory: ['/var/lib', 'STATE_DIRECTORY'],
  LogsDirectory: ['/var/log', 'LOGS_DIRECTORY'],
} as const;

/** Starts the command of a unit with the unit's user, capabilities and folders. */
async function startUnit(host: Host, name: string, log: string): Promise<ChildProcess> {
  const unit = readUnit(host, name);
  const { User = 'root', Group = User, ExecStart = '' } = unit;
  const variables: string[] = [];
  for (const [key, [parent, variable]] of Object.entries(unitFolders)) {
    const folders = (unit[key] ?? '').split(' ').filter(Boolean);
    for (const folder of folders) {
      await host.run('install', ['-d', '-o', User, '-g', Group, `${parent}/${folder}`]);
    }
    variables.push(`${variable}=${folders.map((folder) => `${parent}/${folder}`).join(':')}`);
  }
  const capabilities = (text = '') =>
    ['-all', ...text.split(' ').filter(Boolean)]
      .map((word) => word.toLowerCase().replace(/^cap_/, '+'))
      .join(',');
  const limits = [
    `--reuid=${User}`,
    `--regid=${Group}`,
    '--init-groups',
    `--inh-caps=${capabilities(unit['AmbientCapabilities'])}`,
    `--ambient-caps=${capabilities(unit['AmbientCapabilities'])}`,
    `--bounding-set=${capabilities(unit['CapabilityBoundingSet'])}`,
    ...(unit['NoNewPrivileges'] === 'yes' ? ['--no-new-privs'] : []),
  ];
  // As in a unit, the process has a mount namespace of its own.
  const proc = unit['ProcSubset'] === 'pid' ? 'mount -t proc -o subset=pid proc /proc; ' : '';
  const shell = `set -e; ${proc}umask ${unit['UMask'] ?? '0022'}; exec "$@"`;
  return host.start(
    'unshare',
    ['--mount', '--propagation', 'private', '--', 'sh', '-c', shell, 'sh', 'env'].concat(
      variables,
      'setpriv',
      limits,
      ExecStart.split(' '),
    ),
    log,
  );
}

/** The text of mdserver's log from an offset on. */
export function mdserverLog(host: Host, from = 0): string {
  const file = join(host.root, 'var/log/mdserver/mdserver.log');
  // mdserver makes it when it first starts.
  return existsSync(file) ? readFileSync(file, 'utf8').slice(from) : '';
}

/** Starts mdserver as its unit does, and waits until it takes uploads. */
export async function startMdserver(host: Host): Promise<void> {
  const before = mdserverLog(host).length;
  const mdserver = await startUnit(host, 'mdserver.service', 'mdserver.out');
  host.services.mdserver = mdserver;
  await eventually('mdserver takes uploads', 30_000, () => {
    if (!isRunning(mdserver)) throw new Error(`mdserver ended: ${mdserverLog(host, before)}`);
    return mdserverLog(host, before).includes('mdserverctl is served on') || undefined;
  });
}

export async function startDnsmasq(host: Host): Promise<void> {
  const dnsmasq = await startUnit(host, 'mdserver-dnsmasq.service', 'dnsmasq.out');
  host.services.dnsmasq = dnsmasq;
  await eventually('dnsmasq runs', 10_000, () => {
    if (!isRunning(dnsmasq)) {
      throw new Error(`dnsmasq ended: ${readFileSync(join(host.space, 'dnsmasq.out'), 'utf8')}`);
    }
    return existsSync(join(host.root, 'run/mdserver/mds.pid')) || undefined;
  });
}

/** Stops mdserver with the signal. */
export async function stopMdserver(host: Host, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  const { mdserver } = host.services;
  if (mdserver !== undefined) await end(mdserver, signal);
}

/** Stops dnsmasq. */
export async function stopDnsmasq({ services: { dnsmasq } }: Host): Promise<void> {
  if (dnsmasq !== undefined) await end(dnsmasq);
}

/** Stops libvirtd; its guests keep running. */
export async function stopLibvirtd(host: Host): Promise<void> {
  const { libvirtd } = host.services;
  if (libvirtd !== undefined) await end(libvirtd);
}

export function readDatabase(host: Host): DatabaseRecord[] {
  const text = readFileSync(join(host.root, 'var/lib/mdserver/db_file.json'), 'utf8');
  return JSON.parse(text) as DatabaseRecord[];
}

/** The record of a domain. Throws if there is none, or more than one. */
export function recordOf(host: Host, name: string): DatabaseRecord {
  const found = readDatabase(host).filter(({ domain_name }) => domain_name === name);
  const [record] = found;
  if (record === undefined || found.length > 1) {
    throw new Error(`${found.length} records of ${name} in the database`);
  }
  return record;
}

/** Writes a file in the user-data folder that mdserver can read. */
export function writeUserdata(host: Host, name: string, text: string): void {
  const file = join(host.root, 'etc/mdserver/userdata', name);
  writeFileSync(file, text);
  chmodSync(file, 0o644);
}

/** Connects two hosts with a virtual cable, for migrations. */
export async function connect(first: Host, second: Host): Promise<void> {
  const pid = /\d+/.exec(second.root)?.[0] ?? '';
  const cable = ['link', 'add', 'cable', 'type', 'veth', 'peer', 'name', 'cable', 'netns', pid];
  await first.run('ip', cable);
  for (const host of [first, second]) {
    await host.run('ip', ['address', 'add', `${host.address}/24`, 'dev', 'cable']);
    await host.run('ip', ['link', 'set', 'cable', 'up']);
  }
}
