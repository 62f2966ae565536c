import { join } from 'node:path';
import type { Config } from '../../config/options.js';
import { mapConcurrently } from '../concurrency.js';
import { CommandError, exitCodes } from '../errors.js';
import { listed } from '../output.js';
import { firstLine, runProgram } from '../programs.js';
import { exists, readIfPresent } from './files.js';
import { type Finding, findingsOf, notChecked } from './finding.js';
import { droppingChains, nftCommands, nftRuleset, type Traffic } from './nftables.js';

const { ok, warning, failure } = findingsOf('firewall');

/** What guests must be able to send to the host. */
interface Need extends Traffic {
  /** The option of firewall-cmd that lets it in. */
  readonly option: string;
}

function needsOf({ mdserver: { port }, dnsmasq }: Config): Need[] {
  return [
    {
      what: `metadata (TCP port ${port})`,
      port,
      protocol: 'tcp',
      option: port === 80 ? '--add-service=http' : `--add-port=${port}/tcp`,
    },
    { what: 'DHCP', port: 67, protocol: 'udp', option: '--add-service=dhcp' },
    { what: 'DNS', port: 53, protocol: 'udp', option: '--add-service=dns' },
    ...(dnsmasq.net_address6 === undefined
      ? []
      : [{ what: 'DHCPv6', port: 547, protocol: 'udp', option: '--add-service=dhcpv6' } as const]),
  ];
}

/** The values of a line `KEY: VALUE VALUE` of what firewall-cmd prints. */
function valuesOf(text: string, key: string): string[] {
  return new RegExp(`^ *${key}: (.*)$`, 'm').exec(text)?.[1]?.trim().split(/ +/) ?? [];
}

/** Whether a list of `PORT/PROTOCOL` and `FIRST-LAST/PROTOCOL` has what is needed. */
function covers(
  ports: readonly string[],
  { port, protocol }: Pick<Need, 'port' | 'protocol'>,
): boolean {
  return ports.some((entry) => {
    const [range = '', of] = entry.split('/');
    const [first = Number.NaN, last = first] = range.split('-').map(Number);
    return of === protocol && first <= port && port <= last;
  });
}

/**
 * Whether a zone or policy of firewalld (the output of --list-all) lets in what is needed. `services`
 * has the ports of its services. What depends on the source counts as let in.
 */
export function letsIn(
  rules: string,
  services: ReadonlyMap<string, readonly string[]>,
  need: Need,
): boolean {
  const ofService = (name: string) => covers(services.get(name) ?? [], need);
  const rich = rules.match(/^\s*rule .*$/gm) ?? [];
  const byRichRule = rich.some((rule) => {
    if (!/ accept\b/.test(rule)) return false;
    const [, port] = / port port="([^"]*)"/.exec(rule) ?? [];
    const [, protocol] = / protocol(?: value)?="([^"]*)"/.exec(rule) ?? [];
    const [, service] = / service name="([^"]*)"/.exec(rule) ?? [];
    if (port !== undefined) return covers([`${port}/${protocol}`], need);
    if (service !== undefined) return ofService(service);
    if (protocol !== undefined) return protocol === need.protocol;
    return !/ (?:icmp-type|icmp-block|masquerade|forward-port|source-port)\b/.test(rule);
  });
  const isOpen =
    valuesOf(rules, 'target').includes('ACCEPT') &&
    // libvirt's zone: accepts what is forwarded, and rejects what is for the host.
    !rich.some((rule) => /^\s*rule(?: priority="[^"]*")? (?:reject|drop)\b/.test(rule));
  return (
    isOpen ||
    byRichRule ||
    covers(valuesOf(rules, 'ports'), need) ||
    valuesOf(rules, 'protocols').includes(need.protocol) ||
    valuesOf(rules, 'services').some(ofService)
  );
}

/** The output of firewall-cmd. Throws CommandError. */
async function firewallCmd(...args: string[]): Promise<string> {
  const result = await runProgram('firewall-cmd', args);
  if (result?.status === 0) return result.stdout.trimEnd();
  throw new CommandError(firstLine(result?.stderr ?? ''), exitCodes.failed);
}

/** The ports of all services that the rules name. */
async function portsOfServices(rules: readonly string[]): Promise<Map<string, string[]>> {
  const names = rules.flatMap((text) => [
    ...valuesOf(text, 'services'),
    ...Array.from(text.matchAll(/ service name="([^"]*)"/g), ([, name = '']) => name),
  ]);
  const entries = await mapConcurrently([...new Set(names)].filter(Boolean), 4, async (name) => {
    const ports = valuesOf(await firewallCmd(`--info-service=${name}`), 'ports');
    return [name, ports] as const;
  });
  return new Map(entries);
}

/** The policies of firewalld for what a zone sends to the host, as options. None before firewalld 0.9. */
async function policiesOf(zone: string): Promise<string[]> {
  const active = await runProgram('firewall-cmd', ['--get-active-policies']);
  const blocks = active?.status === 0 ? active.stdout.split(/^(?=\S)/m) : [];
  return blocks.flatMap((block) => {
    const from = valuesOf(block, 'ingress-zones');
    const isOurs = from.includes(zone) || from.includes('ANY');
    return isOurs && valuesOf(block, 'egress-zones').includes('HOST')
      ? [`--policy=${firstLine(block)}`]
      : [];
  });
}

/** Whether firewalld lets guests reach mdserver and its dnsmasq. Throws CommandError. */
async function* checkFirewalld(config: Config): AsyncGenerator<Finding> {
  const { interface: bridge } = config.dnsmasq;
  if (!exists(join('/sys/class/net', bridge))) return;
  const named = await runProgram('firewall-cmd', [`--get-zone-of-interface=${bridge}`]);
  const hasZone = named?.status === 0;
  const zone = hasZone ? named.stdout.trim() : await firewallCmd('--get-default-zone');
  // A policy comes before the zone: what it rejects does not get there.
  const places = [...(await policiesOf(zone)), `--zone=${zone}`];
  const all = await mapConcurrently(places, 4, (place) => firewallCmd(place, '--list-all'));
  const last = all.findIndex((rules) => /^ *target: (?:REJECT|DROP)$/m.test(rules));
  const asked = last === -1 ? all : all.slice(0, last + 1);
  const place = places[asked.length - 1] ?? '';
  const services = await portsOfServices(asked);
  const letIn = (rules: readonly string[]) => (need: Need) =>
    rules.some((text) => letsIn(text, services, need));
  const needs = needsOf(config);
  const refused = needs.filter((need) => !letIn(asked)(need));
  const commands = (some: readonly Need[], ...kinds: readonly string[]) =>
    kinds
      .map((kind) => ['firewall-cmd', kind, place, ...some.map(({ option }) => option)])
      .map((words) => words.filter(Boolean).join(' '))
      .join('; ');
  const where = `firewalld (${place.slice(2).replace('=', ' ')}, for ${bridge})`;
  if (refused.length > 0) {
    yield failure(
      `${where} rejects what guests need: ${listed(refused, ({ what }) => what)}`,
      hasZone
        ? commands(refused, '', '--permanent')
        : `the bridge has no zone, so this is the default one: systemctl restart libvirtd (or virtnetworkd), which gives it libvirt's, then look again`,
    );
    return;
  }
  const permanent = await firewallCmd('--permanent', place, '--list-all');
  const later = needs.filter((need) => !letIn([...asked.slice(0, -1), permanent])(need));
  if (later.length > 0) {
    yield warning(
      `${where} lets guests have ${listed(later, ({ what }) => what)} only until it is reloaded`,
      commands(later, '--permanent'),
    );
  } else {
    yield ok(`${where} lets guests reach ${listed(needs, ({ what }) => what)}`);
  }
}

/** Whether a rule of ufw, in the words of its column "To", lets in TCP on this port of the bridge, or may. */
function mayLetIn(to: string, bridge: string, port: number): boolean {
  const [, device = bridge] = / on (\S+)/.exec(to) ?? [];
  // Without an address: "80,8000:8010/tcp".
  const [, ports, protocol = 'tcp'] = /(?:^| )(\d[\d:,]*)(?:\/(\w+))?(?= |$)/.exec(to) ?? [];
  const ranges = ports?.split(',').map((range) => `${range.replace(':', '-')}/${protocol}`);
  return device === bridge && (ranges === undefined || covers(ranges, { port, protocol: 'tcp' }));
}

/**
 * Whether ufw drops what guests send to mdserver, as far as `ufw status verbose` tells. DHCP and DNS
 * are let in by libvirt's own rules, which come before those of ufw.
 */
export function isDroppedByUfw(status: string, bridge: string, port: number): boolean {
  const allowed = Array.from(
    status.matchAll(/^(\S.*?) {2,}(?:ALLOW|LIMIT) IN /gm),
    ([, to = '']) => to,
  );
  return (
    /^Default: (?:deny|reject) \(incoming\)/m.test(status) &&
    !allowed.some((to) => mayLetIn(to, bridge, port))
  );
}

async function* checkUfw({ mdserver: { port }, dnsmasq }: Config): AsyncGenerator<Finding> {
  const { interface: bridge } = dnsmasq;
  if (!/^ENABLED=yes$/m.test(readIfPresent('/etc/ufw/ufw.conf') ?? '')) return;
  const result = await runProgram('ufw', ['status', 'verbose']);
  if (result === undefined) return;
  if (result.status !== 0) {
    yield notChecked('firewall', `ufw (${firstLine(result.stderr)})`);
  } else if (isDroppedByUfw(result.stdout, bridge, port)) {
    yield warning(
      `ufw drops what guests need: metadata (TCP port ${port})`,
      `ufw allow in on ${bridge} to any port ${port} proto tcp`,
    );
  } else {
    yield ok(`ufw lets guests reach metadata (TCP port ${port})`);
  }
}

/** Whether rules of nftables that somebody has written drop what guests send. */
async function* checkNftables(config: Config): AsyncGenerator<Finding> {
  const { interface: bridge } = config.dnsmasq;
  const ruleset = await nftRuleset();
  if (ruleset === undefined) return;
  const needs = needsOf(config);
  for (const chain of droppingChains(ruleset, bridge, needs)) {
    yield failure(
      `nftables (chain ${chain.chain}) drops what guests need: ${listed(chain.dropped, ({ what }) => what)}`,
      `${nftCommands(chain, bridge).join('; ')}; and put these rules where yours are loaded from, such as /etc/nftables.conf`,
    );
  }
}

/** Whether firewalld, ufw or rules of nftables, whichever are in force, let guests reach mdserver. */
export async function* checkFirewall(config: Config): AsyncGenerator<Finding> {
  let isUfw = false;
  for await (const finding of checkUfw(config)) {
    isUfw = true;
    yield finding;
  }
  const state = await runProgram('firewall-cmd', ['--state']);
  // 253: it may not be asked; others: it does not run.
  if (state?.status !== 0 && state?.status !== 253) {
    // Those of ufw are in nftables, too.
    if (!isUfw) yield* checkNftables(config);
    return;
  }
  try {
    yield* checkFirewalld(config);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    yield notChecked('firewall', `firewalld (${error.message})`);
  }
}
