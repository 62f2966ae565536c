import { connect } from 'node:net';
import { join } from 'node:path';
import type { Config } from '../../config/options.js';
import { listeners, ownerText, type SocketOwner } from '../../dnsmasq/ports.js';
import { type IpAddress, inIpv4Network, ipv4Network, serverUrl } from '../../network.js';
import { CommandError } from '../errors.js';
import type { Virsh } from '../virsh.js';
import { exists } from './files.js';
import { type Finding, findingsOf, notChecked } from './finding.js';
import { addressesOf } from './iproute2.js';

/** The address to connect to for a listen address: loopback for "any address". */
export function connectAddress(address: IpAddress): IpAddress {
  if (address === '0.0.0.0') return '127.0.0.1' as IpAddress;
  return address === '::' ? ('::1' as IpAddress) : address;
}

/**
 * Why libvirt runs a dnsmasq of its own for a network (networkStartDhcpDaemon in libvirt), as
 * what to change in the XML that virsh prints of it.
 */
export function ownDnsmasqCauses(networkXml: string): string[] {
  // Other programs may keep anything in <metadata>.
  const xml = networkXml.replace(/<metadata>[\s\S]*<\/metadata>/, '');
  return [
    ...(/<dhcp[\s/>]/.test(xml) ? ['remove <dhcp>'] : []),
    ...(/<dns enable='no'/.test(xml) || !/<ip /.test(xml) ? [] : ["add <dns enable='no'/>"]),
  ];
}

/** How to take a network's own dnsmasq away. Tried with libvirt 9.0: guests run on, and are connected again. */
export function ownDnsmasqMend(network: string, causes: readonly string[]): string {
  const edit = causes.length === 0 ? '' : `virsh net-edit ${network} (${causes.join(', ')}), then `;
  return `${edit}virsh net-destroy ${network}; virsh net-start ${network}; systemctl restart libvirtd (or virtqemud), which connects running guests again`;
}

/** Whether libvirt runs a dnsmasq of its own on the bridge, now or from the network's next start on. */
async function* checkOwnDnsmasq(
  network: string,
  isActive: boolean,
  virsh: Virsh,
): AsyncGenerator<Finding> {
  const { warning, failure } = findingsOf('network');
  const now = isActive ? ownDnsmasqCauses(await virsh('net-dumpxml', network)) : [];
  const next = ownDnsmasqCauses(
    await virsh('net-dumpxml', '--inactive', network).catch((error: Error) => {
      // Of a driver whose networks have one XML only.
      if (/unsupported flags/.test(error.message)) return virsh('net-dumpxml', network);
      throw error;
    }),
  );
  const takes = "which takes DHCP or DNS from mdserver's";
  if (now.length > 0) {
    yield failure(
      `libvirt runs a dnsmasq of its own for the network ${network}, ${takes}`,
      ownDnsmasqMend(network, next),
    );
  } else if (next.length > 0) {
    yield warning(
      `when the network ${network} starts, libvirt starts a dnsmasq of its own, ${takes}`,
      `virsh net-edit ${network} (${next.join(', ')})`,
    );
  }
}

/** The libvirt network, its bridge, and the host's address on it. */
export async function* checkNetwork({ dnsmasq }: Config, virsh: Virsh): AsyncGenerator<Finding> {
  const { ok, warning, failure } = findingsOf('network');
  const { net_name: network, interface: bridge, gateway, net_address, net_prefix } = dnsmasq;
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
    yield* checkOwnDnsmasq(network, value('Active') === 'yes', virsh);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const { message } = error;
    if (/failed to connect/.test(message)) {
      yield /permission denied|authenti|polkit|access denied/i.test(message)
        ? notChecked('network', message)
        : failure(message, 'systemctl start libvirtd (or virtqemud and virtnetworkd)');
    } else {
      yield failure(
        message,
        `virsh net-define mds-network.xml (in mdserver's etc/libvirt), virsh net-start ${network}`,
      );
    }
  }
  if (!exists(join('/sys/class/net', bridge))) {
    yield failure(`the bridge ${bridge} does not exist`, `virsh net-start ${network}`);
    return;
  }
  const addresses = await addressesOf(bridge);
  const found = addresses?.find(({ local }) => local === gateway);
  if (addresses === undefined) {
    yield warning(`cannot ask for the addresses of ${bridge}`, 'install iproute2');
  } else if (found === undefined) {
    yield failure(
      `${bridge} does not have the address ${gateway} (dnsmasq.gateway)`,
      `add it to the network: virsh net-edit ${network}`,
    );
  } else if (
    found.prefixlen > net_prefix ||
    !inIpv4Network(ipv4Network(gateway, found.prefixlen), net_address)
  ) {
    yield failure(
      `${bridge} has ${gateway}/${found.prefixlen}, so dnsmasq gives no address outside of it, but instances get theirs from ${net_address}/${net_prefix} (dnsmasq.net_address and net_prefix)`,
      `change one of them to match the other (virsh net-edit ${network}: <ip address='${gateway}' prefix='${net_prefix}'>)`,
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

/** The program that has the address and port; undefined if it cannot be seen. */
function holderOf(address: IpAddress, port: number): SocketOwner | undefined {
  const any = address.includes(':') ? '::' : '0.0.0.0';
  const holder = listeners()?.find(
    (one) =>
      one.protocol === 'tcp' && one.port === port && [address, any, '*'].includes(one.address),
  );
  return holder?.owner;
}

/**
 * Whether mdserver answers on each address. `isServed`: whether mdserver says that it serves a URL, so
 * that what answers there is mdserver.
 */
export async function* checkAddresses(
  { mdserver, dnsmasq }: Config,
  isServed: (url: string) => boolean,
): AsyncGenerator<Finding> {
  const { ok, warning, failure } = findingsOf('address');
  const own = await addressesOf();
  for (const address of mdserver.listen_address) {
    const url = serverUrl(address, mdserver.port);
    const host = connectAddress(address);
    const known = own?.find(({ local }) => local === host);
    // Without this, another machine that has the address could answer.
    if (!host.startsWith('127.') && own !== undefined && known === undefined) {
      const { net_name: network, interface: bridge } = dnsmasq;
      yield failure(
        `no interface has the address ${address}; mdserver serves it as soon as one has`,
        exists(join('/sys/class/net', bridge))
          ? `is it in the network (virsh net-edit ${network}: <ip address='${address}' prefix='${address.includes(':') ? 128 : 32}'/>)? See mdserver.listen_address`
          : `is its network up (virsh net-start ${network})? See mdserver.listen_address`,
      );
    } else if (known?.tentative) {
      yield warning(
        `the kernel does not use ${address} before a guest joins its bridge; mdserver serves it then`,
      );
    } else if (!(await canConnect(host, mdserver.port))) {
      yield failure(`no answer on ${url}`, 'systemctl restart mdserver');
    } else if (isServed(url)) {
      yield ok(`${url} is served`);
    } else {
      const holder = holderOf(host, mdserver.port);
      yield failure(
        `${holder === undefined ? 'another program' : ownerText(holder)} answers on ${url}`,
        `${holder === undefined ? `find it with ss -ltnp 'sport = ${mdserver.port}' and ` : ''}stop it, or set mdserver.port`,
      );
    }
  }
}
