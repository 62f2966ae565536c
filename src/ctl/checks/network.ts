import { connect } from 'node:net';
import { join } from 'node:path';
import type { Config } from '../../config/options.js';
import { type IpAddress, serverUrl } from '../../network.js';
import { CommandError } from '../errors.js';
import { runProgram } from '../programs.js';
import type { Virsh } from '../virsh.js';
import { exists } from './files.js';
import { type Finding, findingsOf } from './finding.js';

/** The address to connect to for a listen address: loopback for "any address". */
export function connectAddress(address: IpAddress): IpAddress {
  if (address === '0.0.0.0') return '127.0.0.1' as IpAddress;
  return address === '::' ? ('::1' as IpAddress) : address;
}

/** An address of this host, in the JSON of `ip address`. */
interface HostAddress {
  readonly local: string;
  /** The kernel does not use an IPv6 address before it has looked for others that have it. */
  readonly tentative?: boolean;
}

/**
 * The addresses of an interface, or of all of them; undefined if there is no `ip` to ask. Not from
 * os.networkInterfaces(), which leaves out an interface without carrier: a bridge without a guest.
 */
async function addressesOf(name?: string): Promise<readonly HostAddress[] | undefined> {
  const which = name === undefined ? [] : ['dev', name];
  const result = await runProgram('ip', ['-json', 'address', 'show', ...which]);
  if (result?.status !== 0) return undefined;
  const interfaces = JSON.parse(result.stdout || '[]') as { addr_info?: HostAddress[] }[];
  return interfaces.flatMap(({ addr_info }) => addr_info ?? []);
}

/** The libvirt network, its bridge, and the host's address on it. */
export async function* checkNetwork({ dnsmasq }: Config, virsh: Virsh): AsyncGenerator<Finding> {
  const { ok, warning, failure } = findingsOf('network');
  const { net_name: network, interface: bridge, gateway } = dnsmasq;
  try {
    const info = await virsh('net-info', network);
    const value = (key: string) => new RegExp(`^${key}:\\s*(\\S*)`, 'm').exec(info)?.[1];
    if (value('Active') !== 'yes') {
      yield failure(`libvirt's network ${network} is not active`, `virsh net-start ${network}`);
    } else if (value('Bridge') !== bridge) {
      yield failure(
        `libvirt's network ${network} has the bridge ${value('Bridge') ?? 'none'}, but dnsmasq.interface is ${bridge}`,
        'change one of them to match the other',
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
      `virsh net-define mds-network.xml (in mdserver's etc/libvirt), virsh net-start ${network}`,
    );
  }
  if (!exists(join('/sys/class/net', bridge))) {
    yield failure(`the bridge ${bridge} does not exist`, `virsh net-start ${network}`);
    return;
  }
  const addresses = await addressesOf(bridge);
  if (addresses === undefined) {
    yield warning(`cannot ask for the addresses of ${bridge}`, 'install iproute2');
  } else if (!addresses.some(({ local }) => local === gateway)) {
    yield failure(
      `${bridge} does not have the address ${gateway} (dnsmasq.gateway)`,
      `add it to the network: virsh net-edit ${network}`,
    );
  } else {
    yield ok(`${bridge} has the address ${gateway}`);
  }
}

/** Whether something accepts a connection within 2 seconds. */
export function canConnect(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: 2000 });
    const finish = (connected: boolean) => {
      socket.destroy();
      resolve(connected);
    };
    socket.once('connect', () => finish(true));
    socket.once('timeout', () => finish(false));
    socket.once('error', () => finish(false));
  });
}

/**
 * Whether mdserver answers on each address. `running`: it answers on its control socket, so what
 * answers here is taken to be mdserver.
 */
export async function* checkAddresses(
  { mdserver, dnsmasq }: Config,
  running: boolean,
): AsyncGenerator<Finding> {
  const { ok, warning, failure } = findingsOf('address');
  const own = await addressesOf();
  for (const address of mdserver.listen_address) {
    const url = serverUrl(address, mdserver.port);
    const host = connectAddress(address);
    const known = own?.find(({ local }) => local === host);
    // Without this, another machine that has the address could answer.
    if (!host.startsWith('127.') && own !== undefined && known === undefined) {
      yield failure(
        `no interface has the address ${address}; mdserver serves it as soon as one has`,
        `is its network up (virsh net-start ${dnsmasq.net_name})? See mdserver.listen_address`,
      );
    } else if (known?.tentative) {
      yield warning(
        `the kernel does not use ${address} before a guest joins its bridge; mdserver serves it then`,
      );
    } else if (!(await canConnect(host, mdserver.port))) {
      yield failure(`no answer on ${url}`, 'systemctl restart mdserver');
    } else if (running) {
      yield ok(`${url} is served`);
    } else {
      yield failure(
        `another program answers on ${url}`,
        `find it with ss -ltnp 'sport = ${mdserver.port}' and stop it, or set mdserver.port`,
      );
    }
  }
}
