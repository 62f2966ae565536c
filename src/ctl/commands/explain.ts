import { latestEvent } from '../../boots/boots.js';
import { type DhcpAction, dnsmasqLogPath, noAddress6 } from '../../boots/dhcp-log.js';
import type {
  AddressReport,
  BootOutcome,
  BootRecord,
  DhcpEvent,
  InstanceDetails,
  InstanceSummary,
} from '../../control/api.js';
import { lookForNeighbour } from '../../neighbours.js';
import { type IpAddress, type Mac, parseIp, parseMac } from '../../network.js';
import { operand, printable } from '../../text.js';
import { AnswerError, type ControlClient, fetchHealth, instancePath } from '../client.js';
import { connectOption, defineCommand, type GlobalOptions } from '../command.js';
import { connect, readConfigurationIfPossible } from '../connection.js';
import { recentDhcp } from '../dnsmasq-log.js';
import { CommandError, exitCodes } from '../errors.js';
import {
  datasourceAdvice,
  type Guest,
  guestNetwork,
  instanceFinder,
  interfacesOn,
  lacksDatasource,
  runningGuests,
  uploadRemedy,
} from '../guests.js';
import {
  coloured,
  counted,
  durationText,
  note,
  print,
  printJson,
  type Style,
  stdoutStyle,
  timeText,
} from '../output.js';
import { runProgram } from '../programs.js';
import {
  type DomainInterface,
  defaultConnection,
  interfacesOf,
  type LibvirtDomain,
  listDomains,
  type MacOwner,
  ownerOfMac,
  type Virsh,
  virshAt,
  virshOperand,
} from '../virsh.js';
import { keysChangedAt } from './known-hosts.js';

/** What an explanation depends on in addition to the instance. */
export interface ExplainContext {
  readonly style: Style;
  /** Unix seconds. */
  readonly now: number;
  /** The libvirt network and its bridge. */
  readonly network: string;
  readonly bridge: string;
  /** Whether mdserver can read dnsmasq's log, the only source of DHCP events. */
  readonly dhcpLog: boolean;
  /** Who answers for the instance's addresses that its guest declined. */
  readonly holders?: readonly AddressReport[];
}

/** Seconds. A younger boot may still be in progress. */
const bootTime = 120;

const outcomeTexts: Readonly<Record<BootOutcome, string>> = {
  started: 'its last boot has shown no activity yet',
  'no-address': 'its last boot asked for an address and has none',
  address: 'its last boot got an address and asked for nothing else',
  asking: 'its last boot asked for metadata, but not for user-data',
  configured: 'its last boot got everything there is for it',
  failed: 'its last boot did not get its user-data',
  home: 'its last boot phoned home',
  ended: 'it was stopped before it asked for anything',
  'start-failed': 'libvirt could not start it',
};

const beginningTexts: Readonly<Record<BootRecord['by'], string>> = {
  prepare: 'libvirt started it',
  restore: 'libvirt restored it from a saved state',
  reconnect: 'libvirtd started while it was running',
  migrate: 'it migrated from another host',
  attach: 'libvirt attached to it',
  dhcp: 'first seen; the hook had not reported a start',
  request: 'first seen; the hook had not reported a start',
};

function requestText({ requests, tokens, kinds, user_agents }: BootRecord): string {
  const clients = user_agents.length === 0 ? '' : ` by ${user_agents.join(' and ')}`;
  const paths = kinds.length === 0 ? '' : ` on ${kinds.join(' and ')} paths`;
  const tokenCounts =
    tokens.given + tokens.used + tokens.refused === 0
      ? 'no token'
      : `tokens: ${tokens.given} issued, ${tokens.used} used, ${tokens.refused} refused`;
  return `first request, of ${requests} in total${clients}${paths}; ${tokenCounts}`;
}

function userdataText({
  status,
  file,
  bytes,
  earlier,
}: NonNullable<BootRecord['userdata']>): string {
  const from = `${earlier ? 'an earlier version of ' : ''}${file ?? 'the built-in template'}`;
  if (status === 404) return 'asked for user-data, but there is none for it (404)';
  if (status >= 400) return `asked for user-data and got a ${status} (${from})`;
  return `got ${counted(bytes, 'byte')} of user-data from ${from}`;
}

const dhcpTexts: Readonly<Record<DhcpAction, (address: string) => string>> = {
  DHCPDISCOVER: () => 'asked for an address by DHCP',
  BOOTP: (address) => `asked for an address by BOOTP${address && `: ${address}`}`,
  DHCPACK: (address) => `got the address ${address} by DHCP`,
  DHCPNAK: (address) => `was refused the address ${address} by DHCP`,
  NOANSWER: (address) => `was refused the address ${address} by DHCP`,
  DHCPDECLINE: (address) => `declined the address ${address}: another machine has it, it found`,
  DHCPRELEASE: (address) => `gave the address ${address} back`,
  'DHCPv6-SOLICIT': () => 'asked for an address by DHCPv6',
  'DHCPv6-ADVERTISE': () => 'was offered no address by DHCPv6',
  'DHCPv6-REPLY': (address) => `got the address ${address || 'it asked for'} by DHCPv6`,
  'DHCPv6-DECLINE': () => 'declined its IPv6 address: another machine has it, it found',
  'DHCPv6-RELEASE': () => 'gave its IPv6 address back',
};

function dhcpText({ action, address, refusal, times, last }: DhcpEvent, style: Style): string {
  const often = times === 1 ? '' : ` (${times} times, last ${timeText(style, last)})`;
  if (refusal === '') return `${dhcpTexts[action](address)}${often}`;
  const said =
    action === 'DHCPv6-REPLY'
      ? `was refused ${address || 'an address'} by DHCPv6`
      : dhcpTexts[action](address);
  return `${said}: ${refusal}${often}`;
}

/** The events of a boot in order, a line each. */
function eventLines(boot: BootRecord, { style }: ExplainContext): string[] {
  const events: [at: number, text: string][] = [[boot.started, beginningTexts[boot.by]]];
  for (const event of boot.dhcp) events.push([event.at, dhcpText(event, style)]);
  if (boot.first_request !== null) {
    events.push([boot.first_request, requestText(boot)]);
  }
  if (boot.userdata !== null) events.push([boot.userdata.at, userdataText(boot.userdata)]);
  if (boot.last_request !== null && boot.requests > 1) {
    events.push([boot.last_request, 'last request']);
  }
  if (boot.phone_home !== null) events.push([boot.phone_home, 'phoned home']);
  if (boot.ended !== null) {
    const failed = boot.outcome === 'start-failed';
    events.push([boot.ended, failed ? 'libvirt gave up starting it' : 'libvirt stopped it']);
  }
  const lines = events
    .sort(([one], [other]) => one - other)
    .map(([at, text]) => `  ${timeText(style, at)}  ${text}`);
  if (boot.errors.length > 0) lines.push(`  errors: ${boot.errors.join(', ')}`);
  return lines;
}

const reload = 'sudo systemctl reload mdserver-dnsmasq';
const restart = 'sudo systemctl restart mdserver-dnsmasq';

/** That another machine has the address, which, and what to do. */
function declinedAdvice(
  address: string,
  { name, mac }: InstanceDetails,
  { holders = [], bridge }: ExplainContext,
): string {
  const holder = holders.find((one) => one.address === address);
  const pause = `dnsmasq does not offer an address for 10 minutes after it was declined; "${reload}" ends that.`;
  // dnsmasq itself enters the guest's MAC address for an address that it gives out.
  if (holder === undefined || holder.mac === null || holder.mac === mac) {
    return `Another machine on the network has the address ${address}, the guest found. To see which, run this again after "sudo ip neighbour flush to ${address} dev ${bridge}". ${pause}`;
  }
  const whose =
    holder.mac_instance === null
      ? `"mdserverctl explain ${operand(holder.mac)}" says whose that is`
      : `the MAC address of ${holder.mac_instance === name ? 'this guest' : holder.mac_instance}`;
  return `Another machine on the network has the address ${address}: ${holder.mac} answers for it, ${whose}. Take the address away from it. ${pause}`;
}

/** Why the guest has no address by DHCP or DHCPv6, and what to do: a line each. */
function dhcpAdvice(
  boot: BootRecord,
  instance: InstanceDetails,
  context: ExplainContext,
  wait: string,
): string[] {
  const lines: string[] = [];
  const refusals = boot.dhcp.filter(({ refusal }) => refusal !== '');
  const latest = latestEvent(boot.dhcp, ['DHCPACK', 'BOOTP', 'DHCPDECLINE']);
  if (latest?.action === 'DHCPDECLINE') {
    lines.push(declinedAdvice(latest.address, instance, context));
  } else if (latest === undefined && boot.dhcp.length > 0) {
    const refused = refusals.findLast(({ action }) => !action.startsWith('DHCPv6-'));
    const asked = boot.dhcp.some(({ action }) => !action.startsWith('DHCPv6-'));
    if (refused !== undefined) lines.push(refusedAdvice(refused, instance, context, wait));
    else if (asked) {
      lines.push(
        `dnsmasq offered it an address, and it took none: does a firewall, or a filter on its interface, drop the answers?${wait}`,
      );
    }
  }
  const latest6 = latestEvent(boot.dhcp, ['DHCPv6-REPLY', 'DHCPv6-DECLINE']);
  const refused6 = refusals.some(
    ({ refusal, last }) => refusal === noAddress6 && last > (latest6?.last ?? 0),
  );
  if (latest6?.action === 'DHCPv6-DECLINE' && instance.ipv6 !== null) {
    lines.push(declinedAdvice(instance.ipv6, instance, context));
  } else if (refused6) {
    lines.push(
      instance.ipv6 === null
        ? `It asks for an IPv6 address, and its record has none: upload its domain (mdserverctl sync).`
        : `It got no IPv6 address: its lease is still held by another DUID, that of its firmware, its installer or its system of before. It ends with dnsmasq.lease_len, or with "${restart}"; see docs/ipv6.md.${wait}`,
    );
  }
  return lines;
}

/** What a refusal by dnsmasq means. */
function refusedAdvice(
  { refusal, address }: DhcpEvent,
  { ipv4 }: InstanceDetails,
  { bridge }: ExplainContext,
  wait: string,
): string {
  if (refusal.endsWith('it was previously declined')) {
    return `It declined its address before this boot was seen: another machine on the network uses it. dnsmasq does not offer it for 10 minutes; "${reload}" ends that.`;
  }
  if (refusal.includes('it is leased to')) {
    return `dnsmasq has a lease of its address for another machine (${refusal}). It ends with dnsmasq.lease_len, or with "${restart}".`;
  }
  if (refusal.startsWith('no address available')) {
    return `dnsmasq has no address for it: is ${ipv4 ?? 'its address'} in the network that the bridge has ("ip address show dev ${bridge}"), and has dnsmasq read its files ("mdserverctl check" tells)?`;
  }
  return `dnsmasq refused it the address ${address} (${refusal}): a client then asks for another, unless a static configuration or an old lease in the guest keeps it from that.${wait}`;
}

/** What went wrong in the boot, the likely cause and what to check: a line each. */
function adviceLines(
  boot: BootRecord,
  instance: InstanceDetails,
  context: ExplainContext,
): string[] {
  const { name, ipv4 } = instance;
  const { now, network, bridge, dhcpLog } = context;
  if (boot.outcome === 'home') return [];
  const age = now - boot.started;
  const wait =
    age < bootTime && boot.ended === null
      ? ` It started ${durationText(age)} ago and may still be booting.`
      : '';
  const lines: string[] = [];
  // Only an acknowledged address is a lease: the guest may ask for others and be refused.
  const lease = latestEvent(boot.dhcp, ['DHCPACK']);
  if (lease !== undefined && lease.address !== ipv4) {
    lines.push(
      `Its lease is for ${lease.address}, but its record has ${ipv4 ?? 'no address'}, so requests from ${lease.address} are refused. Renew its lease or reboot it.`,
    );
  }
  lines.push(...dhcpAdvice(boot, instance, context, wait));
  const isSilent = boot.outcome === 'started' || boot.outcome === 'ended';
  if (isSilent && boot.dhcp.length === 0) {
    lines.push(
      boot.by === 'reconnect'
        ? 'mdserver has seen nothing of it since libvirtd started: a guest that is already running rarely asks for anything.'
        : `No ${dhcpLog ? 'DHCP request' : "request (mdserver cannot read dnsmasq's log, so it does not see DHCP)"} was seen: is its first interface on network ${network} (virsh domiflist ${operand(name)}), is mdserver-dnsmasq running (systemctl status mdserver-dnsmasq), does the guest bring that interface up?${wait}`,
    );
  }
  if (boot.outcome === 'start-failed') {
    lines.push(
      `libvirt says why: journalctl -u libvirtd -u virtqemud, or /var/log/libvirt/qemu/ on this host; virsh start ${operand(name)} says it again.`,
    );
  }
  if (boot.outcome === 'address') {
    lines.push(
      `It got its address and then asked for nothing: is cloud-init installed in the image and enabled, does it find its datasource (cloud-id, /run/cloud-init/ds-identify.log), does a firewall on ${bridge} block port 80?${wait}`,
    );
  }
  if (boot.outcome === 'asking') {
    lines.push(
      boot.tokens.given > 0 && boot.tokens.given === boot.requests
        ? `It asked for a token and then for nothing else: the answer may not reach it (MTU, a proxy in the guest), or its client gave up.${wait}`
        : `It asked for metadata but not for user-data: its client stopped early, or does not use user-data.${wait}`,
    );
  }
  if (boot.errors.some((line) => line.startsWith('401 '))) {
    lines.push(
      'It got a 401 without a valid token: mdserver.imds_tokens (or imds_tokens in the metadata of its domain) is "required", so its client must use IMDSv2.',
    );
  } else if (boot.tokens.refused > 0) {
    lines.push(
      'One of its tokens was refused: it had expired, belonged to another instance, or was issued before the token key was replaced. A client that asks for a new one can continue.',
    );
  }
  const { userdata } = boot;
  if (userdata !== null && userdata.status >= 500) {
    lines.push(
      `Its user-data cannot be rendered: "mdserverctl render ${operand(name)}" shows the error and its line.`,
    );
  }
  if (boot.errors.some((line) => /^500 \S*\/vendor[-_]data/.test(line))) {
    lines.push(
      `Its vendor-data cannot be rendered: "mdserverctl render ${operand(name)} vendor-data" shows the error and its line.`,
    );
  }
  if (userdata?.status === 404) {
    lines.push(
      instance.no_userdata === null
        ? 'There was no user-data for it then. Now there is: start it again.'
        : `There is no user-data for it: ${instance.no_userdata}.`,
    );
  }
  if (userdata?.not_ignition) {
    lines.push(
      `Its client is Ignition, and this user-data is no configuration of Ignition, which is JSON: Fedora CoreOS ends its boot with "config is not valid", Flatcar leaves cloud-config to coreos-cloudinit. ${
        instance.no_userdata === null
          ? 'Give it a configuration of Ignition, or no user-data: userdata = none in the metadata of its domain, or mdserver.builtin_template = no. See docs/recipes.md.'
          : 'It has no user-data now: start it again, with a new disk if its first boot went wrong.'
      }`,
    );
  } else if (userdata !== null && userdata.status < 400 && userdata.file === null) {
    lines.push(
      'Its user-data comes from the built-in template: mdserver.userdata_dir has no file for its name or MAC address, and mdserver.default_template is not set, or names no file.',
    );
  }
  if (boot.outcome === 'configured' && userdata !== null && userdata.status < 400) {
    lines.push(
      `It has not phoned home. If its cloud-config has phone_home, see /var/log/cloud-init.log in the guest.${wait}`,
    );
  }
  return lines;
}

/** What of an instance's guest, undefined if it does not run, does not fit its record: a line, or none. */
function networkLines(
  { name, mac, left_network }: InstanceDetails,
  guest: Guest | undefined,
  { style, network, bridge }: ExplainContext,
): string[] {
  const onNetwork = `an interface on the network ${network} or the bridge ${bridge}`;
  const mend = `Give it one (virsh attach-interface), or remove the record: mdserverctl sync --prune.`;
  if (guest === undefined) {
    if (left_network === null) return [];
    return [
      `Its domain has been without ${onNetwork} since ${timeText(style, left_network)}. ${mend}`,
    ];
  }
  const { domain, macs } = guest;
  const [current] = macs;
  if (current === undefined) {
    return [`It runs without ${onNetwork} (virsh domiflist ${operand(name)}). ${mend}`];
  }
  if (current === mac) return [];
  return [
    `It runs with the MAC address ${current} on the network, but its record has ${mac ?? 'none'}, so it gets no address by DHCP. Upload it: ${uploadRemedy([domain])}`,
  ];
}

/** What a line of the log says behind a name, as a line of its own. */
function capitalised(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
}

/** What to do about a domain that does not tell cloud-init where to look: a line, or none. */
function datasourceLines(instance: InstanceDetails): string[] {
  // Ignition, or an image with a setting of its own, needs nothing.
  if (!lacksDatasource(instance) || instance.boots.some(({ requests }) => requests > 0)) return [];
  return [capitalised(datasourceAdvice(instance))];
}

/** A guest that has asked for nothing, and whose interface for mdserver is not its first: a line, or none. */
function firstInterfaceLines(
  { name, boots }: InstanceDetails,
  guest: Guest | undefined,
  { network, bridge }: ExplainContext,
): string[] {
  const [first] = guest?.interfaces ?? [];
  if (guest === undefined || first === undefined) return [];
  if (guest.macs.length === 0 || guest.macs.includes(first.mac) || boots[0]?.requests !== 0) {
    return [];
  }
  return [
    `Its first interface is ${first.mac} on ${first.source === '-' ? 'no network of libvirt' : first.source}. Most images bring up only the first one, and cloud-init looks for metadata there: in its domain (virsh edit ${operand(name)}), put the one on ${network} or ${bridge} first.`,
  ];
}

/** The boots of an instance in words; the first line sums up the last boot. `guest` is what runs now. */
export function explainInstance(
  instance: InstanceDetails,
  context: ExplainContext,
  guest?: Guest,
): string[] {
  const { name, ipv4, mac, boots, last_update } = instance;
  const { style, now } = context;
  const who = `${name} (${ipv4 ?? 'no address'}, ${mac ?? 'no MAC address'})`;
  const differences = [
    ...networkLines(instance, guest, context),
    ...firstInterfaceLines(instance, guest, context),
    ...datasourceLines(instance),
    ...instance.warnings.map((text) => `${capitalised(text)}.`),
  ];
  const [last, ...earlier] = boots;
  if (last === undefined) {
    const uploaded =
      last_update === null
        ? ''
        : `Its domain was last uploaded ${durationText(now - last_update)} ago. `;
    return [
      `${who}: no boot seen since mdserver started.`,
      ...differences,
      `${uploaded}mdserver keeps boots in memory only. If it started since then, libvirt's hook did not report it: run mdserverctl check.`,
    ].map(printable);
  }
  const keysChanged = keysChangedAt(instance);
  const advice = adviceLines(last, instance, context);
  return [
    `${who}: ${outcomeTexts[last.outcome]}.`,
    ...differences,
    ...eventLines(last, context),
    ...(advice.length === 0 ? [] : ['What to check:', ...advice.map((line) => `  - ${line}`)]),
    ...(keysChanged === undefined
      ? []
      : [
          `Its SSH host keys changed ${timeText(style, keysChanged)}, which is expected only if it was reinstalled.`,
        ]),
    ...(earlier.length === 0
      ? []
      : [
          'Earlier boots:',
          ...earlier.map(({ started, outcome }) => `  ${timeText(style, started)}  ${outcome}`),
        ]),
  ].map(printable);
}

/** What explanations of what is no instance depend on. */
type NetworkContext = Pick<ExplainContext, 'style' | 'network' | 'bridge'>;

/** A domain that has a MAC address, with its record. */
export interface Owner extends MacOwner {
  readonly instance: InstanceSummary | undefined;
}

/** libvirt could not be asked. */
type NoAnswer = 'no answer';

/** Why a MAC address, which no record has, gets no address; undefined: no domain of libvirt has it. */
function ownerText(owner: Owner | undefined | NoAnswer, context: NetworkContext): string {
  if (owner === 'no answer') return 'libvirt does not answer, so its domain is not known.';
  if (owner === undefined) {
    return 'No instance and no domain of libvirt has it: it may be a container, another machine, or a guest that changed its MAC address.';
  }
  const { name, running, source, instance, interfaces } = owner;
  const { network, bridge } = context;
  const isServed = source === network || source === bridge;
  const recorded = interfaces.find(({ mac }) => mac === instance?.mac);
  if (recorded !== undefined) {
    const another = `It is another interface of ${name}, on ${source}; its record has ${recorded.mac} on ${recorded.source}`;
    return isServed
      ? `${another}. Only the first interface on the network gets an address: detach the other one (virsh detach-interface), or set its address in the guest.`
      : `${another}, the only one on which mdserver answers. If ${name} looks for metadata on the other one, put ${recorded.mac} first in its domain (virsh edit ${virshOperand(owner)}).`;
  }
  const who = `It is the MAC address of the domain ${name}`;
  if (!isServed) return `${who} on ${source}, which mdserver does not serve.`;
  const upload = uploadRemedy([owner]);
  if (!running) {
    return `${who}, which does not run. The hook uploads it when it starts; to do so now: ${upload}`;
  }
  if (instance === undefined) {
    return `${who}, which runs without a record, and so without an address: ${upload}. "mdserverctl check" shows whether the hooks are installed.`;
  }
  return `${who}, whose record has ${instance.mac ?? 'none'}: only the first interface on the network (virsh domiflist ${virshOperand(owner)}) gets an address. If that has changed: ${upload}`;
}

/** Explains who may use an address that no instance has; `owner` is the domain with its MAC address. */
export function explainAddress(
  { address, mac, mac_instance, last_refused }: AddressReport,
  owner: Owner | undefined | NoAnswer,
  context: NetworkContext,
): string[] {
  const { style } = context;
  const lines = [`No instance has the address ${address}.`];
  if (last_refused !== null) {
    lines.push(`Its last request, which got a 404, was at ${timeText(style, last_refused)}.`);
  }
  if (mac === null) {
    lines.push(
      `The kernel's neighbour table has no MAC address for it (ip neighbour show ${address}): ping it and try again.`,
    );
  } else if (mac_instance !== null) {
    lines.push(
      `It belongs to ${mac}, the MAC address of ${mac_instance}: that guest uses an address other than the one in its record. Renew its lease, or remove the static address from the guest; see "mdserverctl explain ${operand(mac_instance)}".`,
    );
  } else {
    lines.push(`It belongs to ${mac}. ${ownerText(owner, context)}`);
  }
  return lines.map(printable);
}

/** Explains a MAC address that no instance has; `refused` is when dnsmasq last gave it no address. */
export function explainMac(
  mac: string,
  owner: Owner | undefined | NoAnswer,
  refused: number | undefined,
  context: NetworkContext,
): string[] {
  const lines = [`No instance has the MAC address ${mac}.`, ownerText(owner, context)];
  if (refused !== undefined) {
    lines.push(
      `It asked for an address at ${timeText(context.style, refused)}, and dnsmasq had none for it.`,
    );
  }
  return lines.map(printable);
}

/** Explains a domain that is no instance. */
export function explainDomain(
  domain: LibvirtDomain,
  interfaces: readonly DomainInterface[],
  context: NetworkContext,
): string[] {
  const { network, bridge } = context;
  const runs = domain.running ? 'runs' : 'does not run';
  const [served] = interfacesOn({ net_name: network, interface: bridge }, interfaces);
  const lines = [`There is no instance ${domain.name}.`];
  if (served === undefined) {
    lines.push(
      `libvirt has a domain of this name. It ${runs}, and has no interface on the network ${network} or the bridge ${bridge}, so mdserver does not serve it. To change that: virsh attach-interface ${virshOperand(domain)} network ${network}`,
    );
  } else if (domain.running) {
    lines.push(
      `libvirt runs a domain of this name with ${served.mac} on ${served.source}, but it was never uploaded, so it gets neither address nor metadata.`,
      `Upload it: ${uploadRemedy([domain])}. "mdserverctl check" shows whether the hooks are installed.`,
    );
  } else {
    lines.push(
      `libvirt has a domain of this name. It does not run, and was never uploaded: the hook does that when it starts. To do so now: ${uploadRemedy([domain])}`,
    );
  }
  return lines.map(printable);
}

async function contextOf(
  control: ControlClient,
  options: Parameters<typeof connect>[0],
): Promise<ExplainContext> {
  const { net_name, interface: bridge } = guestNetwork(readConfigurationIfPossible(options));
  return {
    style: stdoutStyle,
    now: Date.now() / 1000,
    network: net_name,
    bridge,
    dhcpLog: (await fetchHealth(control)).dhcp_log,
  };
}

/** Seconds. */
const libvirtTimeLimit = 10;

/** What libvirt answers. A note says why it does not. */
async function askLibvirt<T>(
  uri: string | undefined,
  question: (virsh: Virsh) => Promise<T>,
): Promise<T | NoAnswer> {
  try {
    return await question(virshAt(uri ?? defaultConnection, libvirtTimeLimit));
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    note(`cannot ask libvirt: ${error.message}`);
    return 'no answer';
  }
}

/** What an explanation is made with. */
interface Explaining {
  readonly control: ControlClient;
  readonly options: GlobalOptions & { readonly connect: string | undefined };
  readonly context: ExplainContext;
}

/** Explains an instance or, if there is none of this name, the domain that could be one. */
async function explainName(explaining: Explaining, name: string): Promise<number> {
  const { control, options, context } = explaining;
  let instance: InstanceDetails;
  try {
    instance = await control.get<InstanceDetails>(instancePath(name));
  } catch (error) {
    if (!(error instanceof AnswerError) || error.status !== 404) throw error;
    const domain = await askLibvirt(options.connect, async (virsh) => {
      const found = (await listDomains(virsh)).find((candidate) => candidate.name === name);
      if (found === undefined) return undefined;
      const interfaces = await interfacesOf(virsh, [found]);
      return { ...found, interfaces: interfaces.get(found.uuid) ?? [] };
    });
    if (domain === undefined || domain === 'no answer') throw error;
    if (options.json) printJson({ instance: null, domain });
    else printLines(explainDomain(domain, domain.interfaces, context));
    return exitCodes.unknownInstance;
  }
  if (options.json) {
    printJson(instance);
  } else {
    const guest = await askLibvirt(options.connect, async (virsh) => {
      const domains = (await listDomains(virsh)).filter(instanceFinder([instance]));
      const { network: net_name, bridge } = context;
      const [found] = await runningGuests(virsh, domains, { net_name, interface: bridge });
      return found;
    });
    const known = guest === 'no answer' ? undefined : guest;
    const holders = await holdersOf(control, instance);
    const [headline = '', ...rest] = explainInstance(instance, { ...context, holders }, known);
    printLines([coloured(stdoutStyle, 'bold', headline), ...rest]);
  }
  return exitCodes.ok;
}

/** Who answers for the addresses that the guest declined. */
async function holdersOf(
  control: ControlClient,
  { ipv4, ipv6, boots }: InstanceDetails,
): Promise<AddressReport[]> {
  const reports: AddressReport[] = [];
  for (const [action, text] of [
    ['DHCPDECLINE', ipv4],
    ['DHCPv6-DECLINE', ipv6],
  ] as const) {
    const address = parseIp(text ?? '');
    if (address === undefined || !boots[0]?.dhcp.some((event) => event.action === action)) continue;
    await lookForNeighbour(address);
    reports.push(await control.get(`/addresses/${encodeURIComponent(address)}`));
  }
  return reports;
}

function printLines(lines: readonly string[]): void {
  print(`${lines.join('\n')}\n`);
}

/** The domain that has the MAC address, and its record. */
async function findOwner(
  { control, options, context }: Explaining,
  mac: string,
): Promise<Owner | undefined | NoAnswer> {
  const owner = await askLibvirt(options.connect, (virsh) =>
    ownerOfMac(virsh, mac, context.network),
  );
  if (owner === undefined || owner === 'no answer') return owner;
  const instances = await control.get<InstanceSummary[]>('/instances');
  return { ...owner, instance: instanceFinder(instances)(owner) };
}

/** When dnsmasq last had no address for the MAC address; undefined, with a note, if it cannot be read. */
function lastRefusal(options: GlobalOptions, mac: Mac): number | undefined {
  const config = readConfigurationIfPossible(options);
  if (config === undefined) return undefined;
  try {
    return recentDhcp(dnsmasqLogPath(config)).refused.get(mac);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    note(error.message);
    return undefined;
  }
}

async function explainMacOrName(explaining: Explaining, mac: Mac, text: string): Promise<number> {
  const { control, options, context } = explaining;
  const instances = await control.get<InstanceSummary[]>('/instances');
  const instance = instances.find((one) => one.mac === mac || one.name === text);
  if (instance !== undefined) return explainName(explaining, instance.name);
  const owner = await findOwner(explaining, mac);
  const refused = lastRefusal(options, mac);
  if (options.json) {
    const domain = owner === 'no answer' ? null : (owner ?? null);
    printJson({ mac, instance: null, domain, refused: refused ?? null });
  } else {
    printLines(explainMac(mac, owner, refused, context));
  }
  return exitCodes.unknownInstance;
}

/** The MAC address that the kernel has for an address on any interface; undefined if it has none. */
async function macAnywhere(address: IpAddress): Promise<Mac | undefined> {
  const said = await runProgram('ip', ['neighbour', 'show', address]);
  const [, mac = ''] = /^.* lladdr (\S+)/m.exec(said?.stdout ?? '') ?? [];
  return parseMac(mac);
}

async function explainIpAddress(explaining: Explaining, address: IpAddress): Promise<number> {
  const { control, options, context } = explaining;
  let report = await control.get<AddressReport>(`/addresses/${encodeURIComponent(address)}`);
  if (report.instance !== null) return explainName(explaining, report.instance);
  if (report.mac === null) {
    // mdserver looks on the guests' bridge. Another interface of a guest may be on another one.
    const mac = (await macAnywhere(address)) ?? null;
    const instances = mac === null ? [] : await control.get<InstanceSummary[]>('/instances');
    const mac_instance = instances.find((instance) => instance.mac === mac)?.name ?? null;
    report = { ...report, mac, mac_instance };
  }
  if (options.json) {
    printJson(report);
  } else {
    const { mac, mac_instance } = report;
    const owner =
      mac !== null && mac_instance === null ? await findOwner(explaining, mac) : undefined;
    printLines(explainAddress(report, owner, context));
  }
  return exitCodes.unknownInstance;
}

export const explain = defineCommand({
  name: 'explain',
  usage: ['NAME|ADDRESS|MAC'],
  operands: [1, 1],
  completes: ['instance', 'none'],
  options: { connect: connectOption },
  summary: 'Explain in words how the last boot of an instance went.',
  help: [
    'Shows what it asked for and when, what it got, what is missing, and the likely cause. Says so if its running domain has another MAC address than its record, or no interface on the network.',
    'If there is no instance of the NAME, looks for a domain of libvirt of this name, and says why it is no instance. If no instance has the ADDRESS, looks for its MAC address in the neighbour table of the kernel. If no instance has the MAC address, looks for the domain or the port of the network that has it, and for what dnsmasq logged of it in the last hour. The exit status is then 4.',
  ],
  examples: [
    ['mdserverctl explain web1', '"why did it get no user-data?"'],
    ['mdserverctl explain 10.122.7.9', '"whose address is this?"'],
    ['mdserverctl explain 52:54:00:12:34:56', '"why does this interface get no address?"'],
  ],
  run: async ([subject = ''], options) => {
    const control = connect(options);
    const explaining = { control, options, context: await contextOf(control, options) };
    const mac = parseMac(subject);
    if (mac !== undefined) return explainMacOrName(explaining, mac, subject);
    const address = parseIp(subject);
    if (address !== undefined) return explainIpAddress(explaining, address);
    return explainName(explaining, subject);
  },
});
