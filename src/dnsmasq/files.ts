import { join } from 'node:path';
import type { Config } from '../config/options.js';
import { type FileContent, fileText } from '../files.js';
import { dhcpName, dnsNames } from '../instances/host-names.js';
import type { Instances } from '../instances/instances.js';
import { type Entry, type Pages, pageFormatter } from '../instances/pages.js';
import { dhcpSettings } from '../instances/settings.js';
import {
  type Ipv6,
  ipv4Network,
  ipv6Network,
  type Mac,
  parseIpv4,
  reverseZones,
} from '../network.js';

/** The part of the configuration that dnsmasq's files are made from. */
export type DnsmasqConfig = Pick<Config, 'mdserver' | 'dnsmasq' | 'dhcpOptions'>;

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

/** Lines for domains that dnsmasq alone answers for: no other server is asked, also for names that nobody has. */
function localLines(domains: readonly string[]): string[] {
  // The zones of a network are up to 128. dnsmasq reads 1,024 characters of a line.
  const domainsOfLine = 32;
  return Array.from({ length: Math.ceil(domains.length / domainsOfLine) }, (_, index) => {
    const some = domains.slice(index * domainsOfLine, (index + 1) * domainsOfLine);
    return `local=/${some.join('/')}/`;
  });
}

/** What dnsmasq alone answers for: the names of instances, and the addresses of the network and of mdserver. */
function ownLookups({ mdserver, dnsmasq }: DnsmasqConfig): string[] {
  const { domain, net_address, net_prefix, net_address6, net_prefix6 } = dnsmasq;
  const networks = [
    ipv4Network(net_address, net_prefix),
    ...(net_address6 === undefined ? [] : [ipv6Network(net_address6, net_prefix6)]),
    ...mdserver.listen_address.map((address) => {
      const ipv4 = parseIpv4(address);
      return ipv4 === undefined ? ipv6Network(address as Ipv6, 128) : ipv4Network(ipv4, 32);
    }),
  ];
  return [
    // Of names without a dot, domain-needed keeps only look-ups of addresses here.
    'domain-needed',
    'local=//',
    ...(domain === false ? [] : localLines([domain])),
    // Not rev-server=, which takes only whole labels before dnsmasq 2.87.
    ...networks.flatMap((network) => localLines(reverseZones(network))),
  ];
}

/**
 * Whether dnsmasq serves the loopback interface: only if one of its addresses is asked for. Without
 * except-interface=lo, dnsmasq adds it to any other, where the host's own resolver may be.
 */
export function servesLoopback({ listen_address }: DnsmasqConfig['dnsmasq']): boolean {
  return listen_address?.some((address) => /^127\.|^::1$/.test(address)) ?? false;
}

/** dnsmasq's main configuration file (dnsmasq(8)). */
export function dnsmasqConfiguration(config: DnsmasqConfig): FileContent {
  const { dnsmasq } = config;
  const paths = dnsmasqPaths(dnsmasq);
  const network = ipv4Network(dnsmasq.net_address, dnsmasq.net_prefix);
  const listen = [
    ...(servesLoopback(dnsmasq) ? [] : ['except-interface=lo']),
    ...(dnsmasq.listen_address ?? []).map((address) => `listen-address=${address}`),
    // Leaves the ports of other addresses to libvirt's dnsmasqs and the host's resolver.
    'bind-dynamic',
  ];
  const lines = [
    '# Written by mdserver at each start: changes belong in mdserver.conf.',
    `user=${dnsmasq.user}`,
    'leasefile-ro',
    'strict-order',
    'expand-hosts',
    ...(dnsmasq.domain === false ? [] : [`domain=${dnsmasq.domain}`]),
    ...ownLookups(config),
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
      : [
          'enable-ra',
          `dhcp-range=${dnsmasq.net_address6},static,${dnsmasq.net_prefix6}`,
          // Only so does the log tell whose a message of DHCPv6 is, and what a lease can be ended with.
          'log-dhcp',
        ]),
    // There is no other DHCP server: a lease from before a restart is renewed, an unknown one refused.
    'dhcp-authoritative',
    // Names are given by mdserver, never by a guest's request.
    'dhcp-ignore-names',
    'dhcp-no-override',
    `dhcp-lease-max=${network.last - network.first - 1}`,
    // By name: what else lies in the folders is of another network, or somebody's copy.
    `dhcp-hostsfile=${paths.dhcpHosts}`,
    `dhcp-optsfile=${paths.options}`,
    `addn-hosts=${paths.dnsHosts}`,
  ];
  return { path: paths.configuration, content: `${lines.join('\n')}\n` };
}

/**
 * What the unit of dnsmasq starts it with, in the folder that systemd keeps for mdserver. The unit names
 * this file alone, whatever the configuration says. A log of undefined is standard error, which is the
 * journal.
 */
export function dnsmasqStart(
  { dnsmasq }: DnsmasqConfig,
  folder: string,
  log: string | undefined,
): FileContent {
  const lines = [
    '# Written by mdserver at each start, for mdserver-dnsmasq.service.',
    `log-facility=${log ?? '-'}`,
    `conf-file=${dnsmasqPaths(dnsmasq).configuration}`,
  ];
  return { path: join(folder, 'dnsmasq.conf'), content: `${lines.join('\n')}\n` };
}

/** The options with the routes of a guest: those to the metadata addresses, and the default route. */
function routeOptions({ mdserver, dnsmasq }: DnsmasqConfig, defaultRoute: boolean): string[] {
  const { gateway, net_address, net_prefix } = dnsmasq;
  const metadataRoutes = mdserver.listen_address
    .filter((address) => parseIpv4(address))
    .map((address) => `${address}/32,${gateway}`);
  // Clients that use RFC 3442 routes ignore the router option, so the default route is repeated. With
  // no route at all, the option would not take the place of the one for all: the network is a harmless one.
  const others = metadataRoutes.length > 0 ? [] : [`${net_address}/${net_prefix},0.0.0.0`];
  const last = defaultRoute ? [`0.0.0.0/0,${gateway}`] : others;
  const routes = [...metadataRoutes, ...last].join(',');
  return [
    `option:classless-static-route,${routes}`,
    // The code of this option for Windows before 2008.
    `249,${routes}`,
    // Without a value, dnsmasq leaves the option out. It would name itself otherwise.
    defaultRoute ? `option:router,${gateway}` : 'option:router',
  ];
}

/** The DHCP options for all guests: the routes, the DNS server, and those of the operator. */
export function dnsmasqOptions(config: DnsmasqConfig): FileContent {
  const { dnsmasq, dhcpOptions } = config;
  const dnsServer =
    dnsmasq.listen_address?.find((address) => parseIpv4(address)) ?? dnsmasq.gateway;
  const lines = [
    ...routeOptions(config, dnsmasq.default_route),
    ...(dnsmasq.use_dns ? [`option:dns-server,${dnsServer}`] : []),
    ...dhcpOptions.map(({ line }) => line),
  ];
  return { path: dnsmasqPaths(dnsmasq).options, content: `${lines.join('\n')}\n` };
}

/** What dnsmasq knows an instance by that has DHCP options of its own. */
function tagOf(mac: Mac): string {
  return `i${mac.replaceAll(':', '')}`;
}

/**
 * The options of one instance: dnsmasq takes an option with a tag that fits before the one for all of
 * the same code.
 */
function ownOptionLines(config: DnsmasqConfig, { instance }: Entry): string {
  const own = dhcpSettings(instance);
  if (own === undefined || instance.mac === undefined) return '';
  const tag = tagOf(instance.mac);
  const { options, defaultRoute } = own;
  const lines = [
    ...(defaultRoute === undefined ? [] : routeOptions(config, defaultRoute)),
    ...options.map(({ line }) => line),
  ];
  return lines.map((line) => `tag:${tag},${line}\n`).join('');
}

/**
 * The names in lower case. dnsmasq takes a name with capital letters for an internationalised one, and
 * refuses some of those (`Ab--cd`).
 */
function inDnsmasqFile(names: string): string {
  return names.toLowerCase();
}

/** The line of an instance in dnsmasq's dhcp-hostsfile; '' if it has no MAC or no address. */
function dhcpLine({ dnsmasq }: DnsmasqConfig, { instance, hostName }: Entry): string {
  const { mac, ipv4, ipv6 } = instance;
  if (mac === undefined || ipv4 === undefined) return '';
  // Without a name here, dnsmasq uses the one that its hosts file has for the address.
  const name = dhcpName(dnsmasq, hostName);
  const named = name === undefined ? '' : `${inDnsmasqFile(name)},`;
  const addresses = ipv6 === undefined ? ipv4 : `${ipv4},[${ipv6}]`;
  const tag = dhcpSettings(instance) === undefined ? '' : `set:${tagOf(mac)},`;
  return `${mac},id:*,${tag}${addresses},${named}${dnsmasq.lease_len}\n`;
}

/** The lines of an instance in the hosts file for DNS: one for each address. */
function dnsLines({ dnsmasq }: DnsmasqConfig, { instance, hostName }: Entry): string {
  const names = inDnsmasqFile(dnsNames(dnsmasq, hostName).join(' '));
  if (names === '') return '';
  return [instance.ipv4, instance.ipv6]
    .filter((address) => address !== undefined)
    .map((address) => `${address} ${names}\n`)
    .join('');
}

/** dnsmasq's files about the instances. */
export interface HostsFiles {
  /** The options for all, and those of single instances. */
  readonly options: FileContent;
  readonly dhcp: FileContent;
  readonly dns: FileContent;
}

/**
 * Returns a function that makes dnsmasq's hosts files from the instances. It formats again only the
 * pages that have changed since its last call. Options for all are those in force.
 */
export function hostsFiles(
  config: DnsmasqConfig,
): (instances: Instances, inForce?: DnsmasqConfig) => HostsFiles {
  const paths = dnsmasqPaths(config.dnsmasq);
  const dhcpLines = pageFormatter((page) => page.map((entry) => dhcpLine(config, entry)).join(''));
  const allDnsLines = pageFormatter((page) =>
    page.map((entry) => dnsLines(config, entry)).join(''),
  );
  const optionLines = pageFormatter((page) =>
    page.map((entry) => ownOptionLines(config, entry)).join(''),
  );
  function* options(pages: Pages, inForce: DnsmasqConfig): Generator<Buffer> {
    yield Buffer.from(fileText(dnsmasqOptions(inForce)));
    yield* optionLines(pages);
  }
  return ({ pages }, inForce = config) => ({
    options: { path: paths.options, content: options(pages, inForce) },
    dhcp: { path: paths.dhcpHosts, content: dhcpLines(pages) },
    dns: { path: paths.dnsHosts, content: allDnsLines(pages) },
  });
}
