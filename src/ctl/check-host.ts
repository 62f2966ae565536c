import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  type Stats,
  statSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Config } from '../config/options.js';
import { findDnsmasq } from '../dnsmasq/dnsmasq.js';
import { dnsmasqConfiguration, dnsmasqOptions, dnsmasqPaths } from '../dnsmasq/files.js';
import { type IpAddress, serverUrl } from '../network.js';
import { CommandError } from './failure.js';
import { type Finding, finder } from './finding.js';
import { firstLine, run, virshOn } from './run.js';

function statOrNone(path: string): Stats | undefined {
  return statSync(path, { throwIfNoEntry: false });
}

/** Whether it is there; throws where one may not look. */
function isThere(path: string): boolean {
  return statOrNone(path) !== undefined;
}

function readOrNone(path: string): string | undefined {
  return isThere(path) ? readFileSync(path, 'utf8') : undefined;
}

// ---- dnsmasq ----

/** The configuration with the lines of the files that `--test` does not read put in as options. */
function wholeConfiguration(paths: ReturnType<typeof dnsmasqPaths>): string {
  const asOptions = (path: string, option: string) =>
    (readOrNone(path) ?? '')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => `${option}=${line}`);
  return [
    readFileSync(paths.configuration, 'utf8').trimEnd(),
    ...asOptions(paths.options, 'dhcp-option'),
    ...asOptions(paths.dhcpHosts, 'dhcp-host'),
    '',
  ].join('\n');
}

/** Whether dnsmasq takes the files that mdserver wrote for it, and runs on them. */
export async function* checkDnsmasq(config: Config): AsyncGenerator<Finding> {
  const { ok, warning, failure } = finder('dnsmasq');
  const paths = dnsmasqPaths(config.dnsmasq);
  if (!isThere(paths.configuration)) {
    yield failure(
      `${paths.configuration} is not there`,
      'mdserver writes it when it starts: systemctl start mdserver',
    );
    return;
  }
  const folder = mkdtempSync(join(tmpdir(), 'mdserverctl-'));
  try {
    const whole = join(folder, 'dnsmasq.conf');
    writeFileSync(whole, wholeConfiguration(paths));
    const test = await run('dnsmasq', ['--test', `--conf-file=${whole}`]);
    if (test === undefined) {
      yield failure('there is no dnsmasq', 'install dnsmasq-base');
    } else if (test.status !== 0) {
      yield failure(
        `${firstLine(test.stderr).replace(whole, `${paths.configuration} and its files`)}`,
        'systemctl restart mdserver writes them anew',
      );
    } else {
      yield ok(`takes ${paths.configuration} and its files`);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const stale = [dnsmasqConfiguration(config), dnsmasqOptions(config)].find(
    ({ path, content }) => readOrNone(path) !== content,
  );
  if (stale !== undefined) {
    yield warning(
      `${stale.path} is not what the configuration says now`,
      'systemctl restart mdserver',
    );
  }
  const state = findDnsmasq(config);
  if (state.pid === undefined) yield failure(state.problem, 'systemctl restart mdserver-dnsmasq');
  else yield ok(`runs (process ${state.pid})`);
}

// ---- hook ----

/** Where libvirt looks for hooks of qemu guests (libvirt.org/hooks.html), below a prefix. */
function hookFiles(prefix: string): string[] {
  const hooks = join(prefix || '/', 'etc/libvirt/hooks');
  const more = join(hooks, 'qemu.d');
  const names = isThere(more) ? readdirSync(more).sort() : [];
  return [join(hooks, 'qemu'), ...names.map((name) => join(more, name))].filter((path) =>
    statOrNone(path)?.isFile(),
  );
}

/** Where the hook posts to: the control socket, and where that is not there the URL. */
export interface HookTarget {
  readonly url: string;
  /** Undefined for the hook of a release that knew no control socket. */
  readonly socket: string | undefined;
}

/** What system-integration.sh filled in; undefined for a hook that is not mdserver's. */
export function hookTarget(source: string): HookTarget | undefined {
  const url = /^const uploadUrl = '([^']*)';$/m.exec(source)?.[1];
  const socket = /^const controlSocket = '([^']*)';$/m.exec(source)?.[1];
  return url === undefined ? undefined : { url, socket };
}

function samePath(one: string, other: string): boolean {
  const short = (path: string) => path.replace(/^\/var\/run\//, '/run/');
  return short(one) === short(other);
}

/** An address that stands for all, as one to connect to. */
function reachable(address: IpAddress): IpAddress {
  if (address === '0.0.0.0') return '127.0.0.1' as IpAddress;
  return address === '::' ? ('::1' as IpAddress) : address;
}

/** Whether libvirt's hook is there, can be run, and tells this mdserver. */
export function* checkHook(
  { mdserver }: Config,
  controlSocket: string,
  prefix: string,
): Generator<Finding> {
  const { ok, warning, failure } = finder('hook');
  const again = 'run system-integration.sh again';
  const ours = hookFiles(prefix).flatMap((path) => {
    const target = hookTarget(readFileSync(path, 'utf8'));
    return target === undefined ? [] : [{ path, ...target }];
  });
  const [first, second] = ours;
  if (first === undefined) {
    const path = join(prefix || '/', 'etc/libvirt/hooks/qemu');
    yield failure(
      `no hook of mdserver's at ${path} or in ${path}.d`,
      'run system-integration.sh, then restart libvirtd',
    );
    return;
  }
  if (second !== undefined) {
    yield warning(`there are two hooks, ${first.path} and ${second.path}`, 'remove one of them');
  }
  const urls = mdserver.listen_address.map(
    (address) => new URL(serverUrl(reachable(address), mdserver.port)).origin,
  );
  for (const { path, url, socket } of ours) {
    const bySocket = socket !== undefined && samePath(socket, controlSocket);
    const byUrl =
      mdserver.upload_over_tcp && URL.canParse(url) && urls.includes(new URL(url).origin);
    if (((statOrNone(path)?.mode ?? 0) & 0o111) === 0) {
      yield failure(`${path} may not be executed, so libvirt passes it over`, `chmod 755 ${path}`);
    } else if (bySocket) {
      yield ok(`${path} posts to ${socket}`);
    } else if (byUrl) {
      yield warning(
        `${path} posts to ${url}, and not to ${controlSocket}: when a guest is stopped is not known`,
        again,
      );
    } else {
      yield failure(
        `${path} posts to ${socket ?? url}, mdserver takes uploads on ${controlSocket}`,
        again,
      );
    }
  }
}

// ---- network ----

function addressesOf(name?: string): string[] {
  return Object.entries(networkInterfaces())
    .filter(([candidate]) => name === undefined || candidate === name)
    .flatMap(([, addresses]) => addresses ?? [])
    .map(({ address }) => address);
}

/** The libvirt network, its bridge, and the host's address on it. */
export async function* checkNetwork({ dnsmasq }: Config, uri: string): AsyncGenerator<Finding> {
  const { ok, warning, failure } = finder('network');
  const { net_name: network, interface: bridge, gateway } = dnsmasq;
  try {
    const info = await virshOn(uri)('net-info', network);
    const value = (key: string) => new RegExp(`^${key}:\\s*(\\S*)`, 'm').exec(info)?.[1];
    if (value('Active') !== 'yes') {
      yield failure(`libvirt's network ${network} is not active`, `virsh net-start ${network}`);
    } else if (value('Bridge') !== bridge) {
      yield failure(
        `libvirt's network ${network} has the bridge ${value('Bridge') ?? 'none'}, dnsmasq.interface is ${bridge}`,
        'make them the same',
      );
    } else {
      yield ok(`libvirt's network ${network} is active on ${bridge}`);
    }
    if (value('Autostart') === 'no') {
      yield warning(
        `libvirt's network ${network} does not start with the host`,
        `virsh net-autostart ${network}`,
      );
    }
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    yield failure(
      error.message,
      `virsh net-define mds-network.xml (of mdserver's etc/libvirt), virsh net-start ${network}`,
    );
  }
  if (!isThere(join('/sys/class/net', bridge))) {
    yield failure(`there is no bridge ${bridge}`, `virsh net-start ${network}`);
  } else if (!addressesOf(bridge).includes(gateway)) {
    yield failure(
      `${bridge} has not the address ${gateway} (dnsmasq.gateway)`,
      `put it in the network: virsh net-edit ${network}`,
    );
  } else {
    yield ok(`${bridge} has the address ${gateway}`);
  }
}

function connects(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: 2000 });
    const end = (there: boolean) => {
      socket.destroy();
      resolve(there);
    };
    socket.once('connect', () => end(true));
    socket.once('timeout', () => end(false));
    socket.once('error', () => end(false));
  });
}

/** Whether somebody answers on each address. `running`: the control socket says that it is mdserver. */
export async function* checkAddresses(
  { mdserver }: Config,
  running: boolean,
): AsyncGenerator<Finding> {
  const { ok, failure } = finder('address');
  for (const address of mdserver.listen_address) {
    const url = serverUrl(address, mdserver.port);
    const host = reachable(address);
    // Asked first: an address that is not this host's may be another machine's.
    if (!host.startsWith('127.') && !addressesOf().includes(host)) {
      yield failure(
        `no interface has the address ${address}`,
        'is its network up (virsh net-start)? See mdserver.listen_address',
      );
    } else if (!(await connects(host, mdserver.port))) {
      yield failure(`nobody answers on ${url}`, 'systemctl restart mdserver');
    } else if (running) {
      yield ok(`${url} is served`);
    } else {
      yield failure(
        `another program answers on ${url}`,
        `ss -ltnp 'sport = ${mdserver.port}' names it: stop it, or set mdserver.port`,
      );
    }
  }
}

// ---- permissions ----

interface Guarded {
  readonly path: string;
  /** Permission bits that it may not have. */
  readonly forbidden: number;
  readonly why: string;
}

/** Who may read and write what: templates are code, and the key makes tokens. */
export function* checkPermissions(
  config: Config,
  files: readonly string[],
  socket: string,
): Generator<Finding> {
  const { ok, warning, failure } = finder('permissions');
  const { db_file, userdata_dir, default_template, vendor_data, password } = config.mdserver;
  const write = (path: string, why: string): Guarded => ({ path, forbidden: 0o002, why });
  const names = isThere(userdata_dir) ? readdirSync(userdata_dir) : [];
  const templates = [
    userdata_dir,
    ...names.map((name) => join(userdata_dir, name)),
    default_template,
    vendor_data,
  ].filter((path) => path !== undefined);
  const guarded: Guarded[] = [
    {
      path: join(dirname(db_file), 'token.key'),
      forbidden: 0o077,
      why: 'who reads it can make session tokens',
    },
    write(db_file, 'who writes it says which guest has which address'),
    write(dirname(db_file), 'who writes in it can replace the database'),
    write(config.dnsmasq.base_dir, 'who writes in it says what dnsmasq does'),
    { path: socket, forbidden: 0o007, why: 'it is for root and the group mdserver alone' },
    ...templates.map((path) => write(path, 'templates are code that mdserver runs')),
    ...files.map((path) =>
      password === undefined
        ? write(path, 'who writes it says what mdserver runs')
        : { path, forbidden: 0o006, why: 'it may hold mdserver.password' },
    ),
  ];
  let looked = 0;
  let bad = 0;
  for (const { path, forbidden, why } of guarded) {
    const mode = statOrNone(path)?.mode;
    if (mode === undefined) continue;
    looked += 1;
    if ((mode & forbidden) === 0) continue;
    bad += 1;
    const wanted = (mode & 0o7777 & ~forbidden).toString(8).padStart(4, '0');
    yield failure(
      `${path} has the mode ${(mode & 0o7777).toString(8).padStart(4, '0')}: ${why}`,
      `chmod ${wanted} ${path}`,
    );
  }
  if (!isThere(userdata_dir)) {
    yield warning(
      `${userdata_dir} (mdserver.userdata_dir) is not there: every instance gets the default user-data`,
      `mkdir ${userdata_dir}`,
    );
  }
  if (bad === 0) yield ok(`${looked} files and folders are as they should be`);
}
