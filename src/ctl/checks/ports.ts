import type { Config } from '../../config/options.js';
import { commandLine, readsConfiguration } from '../../dnsmasq/dnsmasq.js';
import { dnsmasqPaths, servesLoopback } from '../../dnsmasq/files.js';
import { exists } from './files.js';
import { type Finding, findingsOf, notChecked } from './finding.js';
import { addressesOf, type Listener, listeners, ownerText, type SocketOwner } from './iproute2.js';
import { ownDnsmasqMend } from './network.js';

/** The libvirt network whose own dnsmasq this is; undefined if it is none of libvirt's. */
function libvirtNetworkOf({ pid }: SocketOwner): string | undefined {
  const words = commandLine(pid).map((word) => /\/libvirt\/dnsmasq\/(.+)\.conf$/.exec(word)?.[1]);
  return words.find((network) => network !== undefined);
}

/** "port 53 of 10.122.0.1 (tcp, udp), port 67 of 0.0.0.0 (udp)". */
function portsText(sockets: readonly Listener[]): string {
  const protocols = new Map<string, Set<string>>();
  for (const { address, port, protocol } of sockets) {
    const name = `port ${port} of ${address === '*' ? 'all addresses' : address}`;
    protocols.set(name, (protocols.get(name) ?? new Set()).add(protocol));
  }
  return Array.from(protocols, ([name, all]) => `${name} (${[...all].join(', ')})`).join(', ');
}

/** The sockets that have a port of DNS or DHCP where mdserver's dnsmasq needs it. */
async function socketsOnBridge(
  all: readonly Listener[],
  dnsmasq: Config['dnsmasq'],
): Promise<Listener[]> {
  const { interface: bridge, listen_address = [], net_address6 } = dnsmasq;
  const onBridge = (await addressesOf(bridge)) ?? [];
  const addresses = new Set([
    ...['*', '0.0.0.0', ...onBridge.map(({ local }) => local)],
    ...listen_address,
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
 * Whether another program than mdserver's dnsmasq has the ports of DNS and DHCP on the bridge. DHCP
 * servers that are bound to another interface, as libvirt's are, and DNS servers on other addresses
 * do no harm. Tried with dnsmasq 2.90.
 */
export async function* checkPorts({ dnsmasq }: Config): AsyncGenerator<Finding> {
  const { ok, warning, failure } = findingsOf('ports');
  const { interface: bridge } = dnsmasq;
  const all = await listeners();
  if (all === undefined) {
    yield warning('not checked: which programs have the ports of DNS and DHCP', 'install iproute2');
    return;
  }
  const sockets = await socketsOnBridge(all, dnsmasq);
  const unseen = sockets.filter(({ owner }) => owner === undefined);
  if (unseen.length > 0 && process.geteuid?.() !== 0) {
    yield notChecked('ports', `which program has ${portsText(unseen)}`);
    return;
  }
  const { configuration } = dnsmasqPaths(dnsmasq);
  const isOurs = ({ owner }: Listener) =>
    owner?.program === 'dnsmasq' &&
    exists(configuration) &&
    readsConfiguration(owner.pid, configuration);
  const taken = new Set(sockets.filter(isOurs).map(({ port }) => port));
  const others = sockets.filter((socket) => !isOurs(socket));
  const holders = new Map(others.map(({ owner }) => [owner?.pid, owner]));
  let found = 0;
  for (const [pid, owner] of holders) {
    const theirs = others.filter((socket) => socket.owner?.pid === pid);
    // Two TCP servers exclude each other, and two DHCP servers on the bridge both answer its guests.
    const certain = theirs.filter(
      ({ protocol, port, device }) => protocol === 'tcp' || (port !== 53 && device === bridge),
    );
    // Other UDP sockets may allow dnsmasq's beside them (SO_REUSEADDR): only a dnsmasq that is not there tells.
    const possible = theirs.filter(({ port }) => !taken.has(port));
    const network = owner && libvirtNetworkOf(owner);
    const who =
      network === undefined
        ? ownerText(owner)
        : `libvirt's dnsmasq of the network ${network} (process ${owner?.pid})`;
    const mend =
      network === undefined
        ? `stop it, or let it leave ${bridge} alone (dnsmasq: bind-dynamic and except-interface=${bridge}; BIND: listen-on; systemd-resolved: DNSStubListenerExtra)`
        : ownDnsmasqMend(network, ['no <dhcp>', "<dns enable='no'/>"]);
    if (certain.length > 0) {
      yield failure(`${who} has ${portsText(theirs)}, which mdserver's dnsmasq needs`, mend);
    } else if (possible.length > 0) {
      yield warning(
        `${who} has ${portsText(possible)}: mdserver's dnsmasq may not start beside it`,
        mend,
      );
    }
    found += certain.length + possible.length;
  }
  if (found === 0) yield ok(`no other program has the ports of DNS and DHCP on ${bridge}`);
}
