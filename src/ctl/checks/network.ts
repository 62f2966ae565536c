import { connect } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import type { Config } from '../../config/options.js';
import { type IpAddress, serverUrl } from '../../network.js';
import { CommandError } from '../errors.js';
import type { Virsh } from '../virsh.js';
import { exists } from './files.js';
import { type Finding, findingsOf } from './finding.js';

/** The address to connect to for a listen address: loopback for "any address". */
export function connectAddress(address: IpAddress): IpAddress {
  if (address === '0.0.0.0') return '127.0.0.1' as IpAddress;
  return address === '::' ? ('::1' as IpAddress) : address;
}

/** The addresses of an interface, or of all of them. */
function addressesOf(name?: string): string[] {
  return Object.entries(networkInterfaces())
    .filter(([candidate]) => name === undefined || candidate === name)
    .flatMap(([, addresses]) => addresses ?? [])
    .map(({ address }) => address);
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
  } else if (!addressesOf(bridge).includes(gateway)) {
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
  { mdserver }: Config,
  running: boolean,
): AsyncGenerator<Finding> {
  const { ok, failure } = findingsOf('address');
  for (const address of mdserver.listen_address) {
    const url = serverUrl(address, mdserver.port);
    const host = connectAddress(address);
    // Without this, another machine that has the address could answer.
    if (!host.startsWith('127.') && !addressesOf().includes(host)) {
      yield failure(
        `no interface has the address ${address}`,
        'is its network up (virsh net-start)? See mdserver.listen_address',
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
