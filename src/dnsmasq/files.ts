import { join } from 'node:path';
import type { Config } from '../config/options.js';
import type { FileContent } from '../files.js';
import { dhcpName, dnsNames, hostNames } from '../instances/host-names.js';
import type { Instances } from '../instances/instances.js';
import { ipv4Network, parseIpv4 } from '../network.js';

/** The part of the configuration that dnsmasq's files are made from. */
export type DnsmasqConfig = Pick<Config, 'mdserver' | 'dnsmasq'>;

/** The paths of dnsmasq's files and folders. */
export function dnsmasqPaths({ base_dir, run_dir, net_name }: Config['dnsmasq']) {
  return {
    configuration: join(base_dir, `${net_name}.conf`),
    options: join(base_dir, `${net_name}.opts`),
    dhcpFolder: join(base_dir, 'dhcp'),
    dhcpHosts: join(base_dir, 'dhcp', `${net_name}.dhcp-hosts`),
    dnsFolder: join(base_dir, 'dns'),
    dnsHosts: join(base_dir, 'dns', `${net_name}.dns-hosts`),
    pid: join(run_dir, `${net_name}.pid`),
  };
}

/** dnsmasq's main configuration file (dnsmasq(8)). */
export function dnsmasqConfiguration({ dnsmasq }: DnsmasqConfig): FileContent {
  const paths = dnsmasqPaths(dnsmasq);
  const network = ipv4Network(dnsmasq.net_address, dnsmasq.net_prefix);
  const listen =
    dnsmasq.listen_address === undefined
      ? // Leaves port 53 of other addresses to libvirt's dnsmasqs and the host's resolver.
        ['except-interface=lo', 'bind-dynamic']
      : dnsmasq.listen_address.map((address) => `listen-address=${address}`);
  const lines = [
    '# Written by mdserver at each start: changes belong in mdserver.conf.',
    `user=${dnsmasq.user}`,
    'leasefile-ro',
    'strict-order',
    'expand-hosts',
    ...(dnsmasq.domain === false
      ? []
      : // Only dnsmasq answers for the domain of the instances: no other server is asked.
        [`domain=${dnsmasq.domain}`, `local=/${dnsmasq.domain}/`]),
    'domain-needed',
    ...(dnsmasq.use_etc_hosts ? [] : ['no-hosts']),
    // A name from outside must not lead a guest's browser to an address inside (DNS rebinding).
    'stop-dns-rebind',
    ...(dnsmasq.private_domains === undefined
      ? []
      : [`rebind-domain-ok=/${dnsmasq.private_domains.join('/')}/`]),
    `pid-file=${paths.pid}`,
    ...listen,
    `interface=${dnsmasq.interface}`,
    `dhcp-range=${dnsmasq.gateway},static`,
    // Instances ask for an IPv6 address only if a router advertisement tells them to.
    ...(dnsmasq.net_address6 === undefined
      ? []
      : ['enable-ra', `dhcp-range=${dnsmasq.net_address6},static,${dnsmasq.net_prefix6}`]),
    // There is no other DHCP server: a lease from before a restart is renewed, an unknown one refused.
    'dhcp-authoritative',
    // Names are given by mdserver, never by a guest's request.
    'dhcp-ignore-names',
    'dhcp-no-override',
    `dhcp-lease-max=${network.last - network.first - 1}`,
    `dhcp-hostsfile=${paths.dhcpFolder}`,
    `dhcp-optsfile=${paths.options}`,
    `hostsdir=${paths.dnsFolder}`,
  ];
  return { path: paths.configuration, content: `${lines.join('\n')}\n` };
}

/** The DHCP options: the route to the metadata address, the router, the DNS server. */
export function dnsmasqOptions({ mdserver, dnsmasq }: DnsmasqConfig): FileContent {
  const { gateway } = dnsmasq;
  const metadataRoutes = mdserver.listen_address
    .filter((address) => parseIpv4(address))
    .map((address) => `${address}/32,${gateway}`);
  // Clients that use RFC 3442 routes ignore the router option, so the default route is repeated.
  const routes = [...metadataRoutes, `0.0.0.0/0,${gateway}`].join(',');
  const dnsServer = dnsmasq.listen_address?.find((address) => parseIpv4(address)) ?? gateway;
  const lines = [
    `option:classless-static-route,${routes}`,
    // The code of this option for Windows before 2008.
    `249,${routes}`,
    `option:router,${gateway}`,
    ...(dnsmasq.use_dns ? [`option:dns-server,${dnsServer}`] : []),
  ];
  return { path: dnsmasqPaths(dnsmasq).options, content: `${lines.join('\n')}\n` };
}

/**
 * The names in lower case. dnsmasq takes a name with capital letters for an internationalised one, and
 * refuses some of those (`Ab--cd`).
 */
function inDnsmasqFile(names: string): string {
  return names.toLowerCase();
}

/** dnsmasq's dhcp-hostsfile: one line for each instance that has a MAC and an address. */
export function dhcpHosts(config: DnsmasqConfig, instances: Instances): FileContent {
  const { dnsmasq } = config;
  const names = hostNames(instances, config);
  const lines = [];
  for (const { name, mac, ipv4, ipv6 } of instances.byName.values()) {
    if (mac === undefined || ipv4 === undefined) continue;
    // Without a name here, dnsmasq uses the one that its hosts file has for the address.
    const hostName = dhcpName(dnsmasq, names.get(name) ?? '');
    const named = hostName === undefined ? '' : `${inDnsmasqFile(hostName)},`;
    const addresses = ipv6 === undefined ? ipv4 : `${ipv4},[${ipv6}]`;
    lines.push(`${mac},id:*,${addresses},${named}${dnsmasq.lease_len}\n`);
  }
  return { path: dnsmasqPaths(dnsmasq).dhcpHosts, content: lines.join('') };
}

/** The hosts file for DNS: one line for each address. */
export function dnsHosts(config: DnsmasqConfig, instances: Instances): FileContent {
  const { dnsmasq } = config;
  const hostNameOf = hostNames(instances, config);
  const lines = [];
  for (const { name, ipv4, ipv6 } of instances.byName.values()) {
    const names = inDnsmasqFile(dnsNames(dnsmasq, hostNameOf.get(name) ?? '').join(' '));
    if (names === '') continue;
    for (const address of [ipv4, ipv6]) {
      if (address !== undefined) lines.push(`${address} ${names}\n`);
    }
  }
  return { path: dnsmasqPaths(dnsmasq).dnsHosts, content: lines.join('') };
}
