import type { Config } from '../../config/options.js';
import { commandLine, readsConfiguration } from '../../dnsmasq/dnsmasq.js';
import { dnsmasqPaths } from '../../dnsmasq/files.js';
import {
  holderText,
  isExclusive,
  type Listener,
  listeners,
  ownerText,
  portsText,
  type SocketOwner,
  socketsInTheWay,
} from '../../dnsmasq/ports.js';
import { exists } from './files.js';
import { type Finding, findingsOf, notChecked } from './finding.js';
import { addressesOf } from './iproute2.js';
import { ownDnsmasqMend } from './network.js';

/** The libvirt network whose own dnsmasq this is; undefined if it is none of libvirt's. */
function libvirtNetworkOf({ pid }: SocketOwner): string | undefined {
  const words = commandLine(pid).map((word) => /\/libvirt\/dnsmasq\/(.+)\.conf$/.exec(word)?.[1]);
  return words.find((network) => network !== undefined);
}

/** Whether another program than mdserver's dnsmasq has the ports of DNS and DHCP on the bridge. */
export async function* checkPorts({ dnsmasq }: Config): AsyncGenerator<Finding> {
  const { ok, warning, failure } = findingsOf('ports');
  const { interface: bridge } = dnsmasq;
  const all = listeners();
  if (all === undefined) {
    yield warning('not checked: which programs have the ports of DNS and DHCP', 'install iproute2');
    return;
  }
  const onBridge = (await addressesOf(bridge)) ?? [];
  const sockets = socketsInTheWay(
    all,
    dnsmasq,
    onBridge.map(({ local }) => local),
  );
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
    const certain = theirs.filter((socket) => isExclusive(socket, bridge));
    // Of the others, only a dnsmasq that is not there tells that they are in its way.
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
    if (certain.length > 0) yield failure(holderText(who, theirs, bridge), mend);
    else if (possible.length > 0) yield warning(holderText(who, possible, bridge), mend);
    found += certain.length + possible.length;
  }
  if (found === 0) yield ok(`no other program has the ports of DNS and DHCP on ${bridge}`);
}
