import { spawnSync } from 'node:child_process';
import { type DnsmasqConfig, servesLoopback } from './files.js';

/** A process that has a socket. */
export interface SocketOwner {
  readonly pid: number;
  readonly program: string;
}

/** A socket that waits for connections or packets. */
export interface Listener {
  readonly protocol: 'tcp' | 'udp';
  /** `0.0.0.0` is any IPv4 address, `::` any IPv6 address, `*` both. */
  readonly address: string;
  /** The interface that it is bound to, if any (SO_BINDTODEVICE). */
  readonly device: string | undefined;
  readonly port: number;
  /** Undefined if only root can see it. */
  readonly owner: SocketOwner | undefined;
}

/** The sockets in the output of `ss --listening --tcp --udp`. */
export function parseListeners(output: string): Listener[] {
  return output.split('\n').flatMap((line) => {
    // Protocol, state, two queues, own address, the peer's, processes.
    const [protocol, , , , local = '', , ...processes] = line.split(/ +/);
    const [, host = '', port] = /^(.*):(\d+)$/.exec(local) ?? [];
    if (port === undefined || (protocol !== 'tcp' && protocol !== 'udp')) return [];
    const [address = '', device] = host.replace(/[[\]]/g, '').split('%');
    const [, program, pid] = /"(.*?)",pid=(\d+)/.exec(processes.join(' ')) ?? [];
    const owner = program === undefined ? undefined : { program, pid: Number(pid) };
    return [{ protocol, address, device, port: Number(port), owner }];
  });
}

/**
 * The sockets of this host that wait for others; undefined if there is no `ss` to ask. Not from /proc/net, which has
 * not the interfaces that sockets are bound to: libvirt's DHCP servers would seem to be in the way.
 */
export function listeners(): readonly Listener[] | undefined {
  const options = ['--no-header', '--numeric', '--listening', '--tcp', '--udp', '--processes'];
  const env = { ...process.env, LC_ALL: 'C' };
  const { status, stdout } = spawnSync('ss', options, { env, encoding: 'utf8', timeout: 5000 });
  return status === 0 ? parseListeners(stdout) : undefined;
}

/** "NAME (process N)". */
export function ownerText(owner: SocketOwner | undefined): string {
  return owner === undefined ? 'another program' : `${owner.program} (process ${owner.pid})`;
}

/**
 * The sockets that have a port of DNS or DHCP where mdserver's dnsmasq needs it, its own among them. `onBridge` are the
 * bridge's addresses. DHCP servers that are bound to another interface, as libvirt's are, and DNS servers on other
 * addresses do no harm. Tried with dnsmasq 2.90.
 */
export function socketsInTheWay(
  all: readonly Listener[],
  dnsmasq: DnsmasqConfig['dnsmasq'],
  onBridge: readonly string[],
): Listener[] {
  const { interface: bridge, listen_address = [], net_address6 } = dnsmasq;
  const addresses = new Set([
    ...['*', '0.0.0.0', ...onBridge, ...listen_address],
    ...(servesLoopback(dnsmasq) ? ['127.0.0.1', '::1'] : []),
  ]);
  if ([...addresses].some((address) => address.includes(':'))) addresses.add('::');
  const ports = [53, 67, ...(net_address6 === undefined ? [] : [547])];
  return all.filter(
    ({ port, address, device = bridge }) =>
      ports.includes(port) && addresses.has(address) && device === bridge,
  );
}

/**
 * Whether mdserver's dnsmasq cannot do beside the socket. Two TCP servers exclude each other, and two DHCP servers on
 * the bridge both answer its guests. Other UDP sockets may allow dnsmasq's beside them (SO_REUSEADDR).
 */
export function isExclusive({ protocol, port, device }: Listener, bridge: string): boolean {
  return protocol === 'tcp' || (port !== 53 && device === bridge);
}

/** "port 53 of 10.122.0.1 (tcp, udp), port 67 of 0.0.0.0 (udp)". */
export function portsText(sockets: readonly Listener[]): string {
  const protocols = new Map<string, Set<string>>();
  for (const { address, port, protocol } of sockets) {
    const name = `port ${port} of ${address === '*' ? 'all addresses' : address}`;
    protocols.set(name, (protocols.get(name) ?? new Set()).add(protocol));
  }
  return Array.from(protocols, ([name, all]) => `${name} (${[...all].join(', ')})`).join(', ');
}

/** What a program that has the sockets does to mdserver's dnsmasq. */
export function holderText(who: string, sockets: readonly Listener[], bridge: string): string {
  const effect = sockets.some((socket) => isExclusive(socket, bridge))
    ? ", which mdserver's dnsmasq needs"
    : ": mdserver's dnsmasq may not start beside it";
  return `${who} has ${portsText(sockets)}${effect}`;
}
