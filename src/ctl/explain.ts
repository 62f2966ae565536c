import type {
  AddressReport,
  BootOutcome,
  BootRecord,
  DhcpEvent,
  InstanceDetails,
} from '../control/api.js';
import { keysChanged } from './known-hosts.js';
import { counted, printable, type Style, spanText, timeText } from './output.js';

/** What the words are made with. */
export interface Explaining {
  readonly style: Style;
  /** Unix seconds. */
  readonly now: number;
  /** The libvirt network and its bridge. */
  readonly network: string;
  readonly bridge: string;
  /** Whether mdserver can read dnsmasq's log: what DHCP did is not known otherwise. */
  readonly dhcpLog: boolean;
}

/** A boot that is younger, in seconds, may be on its way still. */
const patience = 120;

const outcomeWords: Readonly<Record<BootOutcome, string>> = {
  started: 'nothing was seen of its last boot',
  address: 'its last boot got an address and asked for nothing else',
  asking: 'its last boot asked for metadata, but not for user-data',
  configured: 'its last boot got what there is for it',
  failed: 'its last boot did not get its user-data',
  home: 'its last boot phoned home',
  ended: 'it was stopped before it asked for anything',
};

const beginWords: Readonly<Record<BootRecord['by'], string>> = {
  prepare: 'libvirt started it',
  restore: 'libvirt restored it from a saved state',
  reconnect: 'libvirtd was started while it ran',
  migrate: 'it came from another host',
  attach: 'libvirt attached to it',
  dhcp: 'first sign of it; no hook had told of a start',
  request: 'first sign of it; no hook had told of a start',
};

function requestWords(boot: BootRecord): string {
  const { requests, tokens, kinds, user_agents } = boot;
  const parts = [
    counted(requests, 'request'),
    kinds.length === 0 ? '' : `looked where ${kinds.join(' and ')} clients look`,
    tokens.given + tokens.used + tokens.refused === 0
      ? 'no token'
      : `tokens: ${tokens.given} given, ${tokens.used} used, ${tokens.refused} refused`,
    user_agents.length === 0 ? '' : `by ${user_agents.join(' and ')}`,
  ];
  return parts.filter((part) => part !== '').join('; ');
}

function userdataWords({ status, file, bytes }: NonNullable<BootRecord['userdata']>): string {
  const from = file ?? 'the built-in template';
  if (status === 404) return 'asked for user-data: there is none for it (404)';
  if (status >= 400) return `asked for user-data: answered ${status} (${from})`;
  return `got ${counted(bytes, 'byte')} of user-data from ${from}`;
}

function dhcpWords({ action, address }: DhcpEvent): string {
  if (action === 'DHCPACK') return `got the address ${address} by DHCP`;
  if (action === 'DHCPNAK') return `was refused the address ${address} by DHCP`;
  return 'asked for an address by DHCP';
}

/** What happened in a boot, in order, a line each. */
function story(boot: BootRecord, { style }: Explaining): string[] {
  const events: [at: number, text: string][] = [[boot.started, beginWords[boot.by]]];
  for (const event of boot.dhcp) events.push([event.at, dhcpWords(event)]);
  if (boot.first_request !== null) {
    events.push([boot.first_request, `first request; until now ${requestWords(boot)}`]);
  }
  if (boot.userdata !== null) events.push([boot.userdata.at, userdataWords(boot.userdata)]);
  if (boot.last_request !== null && boot.requests > 1) {
    events.push([boot.last_request, 'last request']);
  }
  if (boot.phone_home !== null) events.push([boot.phone_home, 'phoned home']);
  if (boot.ended !== null) events.push([boot.ended, 'libvirt stopped it']);
  const lines = events
    .sort(([one], [other]) => one - other)
    .map(([at, text]) => `  ${timeText(style, at)}  ${text}`);
  if (boot.errors.length > 0) lines.push(`  errors it got: ${boot.errors.join(', ')}`);
  return lines;
}

/** What is missing in the boot, and what that likely means: a line each. */
function missing(
  boot: BootRecord,
  { name, ipv4 }: InstanceDetails,
  { now, network, bridge, dhcpLog }: Explaining,
): string[] {
  if (boot.outcome === 'home') return [];
  const age = now - boot.started;
  const wait =
    age < patience && boot.ended === null
      ? ` It started ${spanText(age)} ago: it may be on its way still.`
      : '';
  const lines: string[] = [];
  // What it asks for and is refused tells nothing of its lease.
  const lease = boot.dhcp.findLast(({ action }) => action === 'DHCPACK');
  if (lease !== undefined && lease.address !== ipv4) {
    lines.push(
      `Its lease is for ${lease.address}, its record says ${ipv4 ?? 'no address'}: requests from ${lease.address} are nobody's. Reboot it, or renew its lease.`,
    );
  }
  if (boot.outcome === 'started' || boot.outcome === 'ended') {
    lines.push(
      boot.by === 'reconnect'
        ? 'Nothing seen of it since libvirtd was started: a guest that runs on asks seldom.'
        : `No ${dhcpLog ? 'DHCP request' : "request (and of DHCP nothing is known: dnsmasq's log cannot be read)"} seen: is its first interface on network ${network} (virsh domiflist ${name}), does mdserver-dnsmasq run (systemctl status mdserver-dnsmasq), does the guest bring that interface up?${wait}`,
    );
  }
  if (boot.outcome === 'address') {
    lines.push(
      `It asked for its address and then for nothing: is cloud-init installed in the image and not switched off, does it find its datasource (cloud-id, /run/cloud-init/ds-identify.log), and does a firewall on ${bridge} let port 80 through?${wait}`,
    );
  }
  if (boot.outcome === 'asking') {
    lines.push(
      boot.tokens.given > 0 && boot.tokens.given === boot.requests
        ? `It asked for a token and then nothing: the answer may not reach it (MTU, a proxy in the guest), or its client gave up.${wait}`
        : `It asked for metadata and not for user-data: its client stopped on the way, or wants no user-data.${wait}`,
    );
  }
  if (boot.errors.some((line) => line.startsWith('401 '))) {
    lines.push(
      'Requests were answered 401: mdserver.imds_tokens = required (or imds_tokens in the metadata of its domain), and its client sent no good token.',
    );
  } else if (boot.tokens.refused > 0) {
    lines.push(
      "A token of its was refused: it was another instance's, too old, or from before the key was made anew. A client that asks for a new one goes on.",
    );
  }
  const { userdata } = boot;
  if (userdata !== null && userdata.status >= 500) {
    lines.push(
      `Its user-data cannot be made: "mdserverctl render ${name}" shows the error at its line.`,
    );
  }
  if (userdata?.status === 404) {
    lines.push(
      'There is no user-data for it: the userdata_prefix in the metadata of its domain names no file in mdserver.userdata_dir.',
    );
  }
  if (userdata !== null && userdata.status < 400 && userdata.file === null) {
    lines.push(
      'Its user-data is the built-in one: mdserver.userdata_dir has no file of its name or MAC address, and there is no mdserver.default_template.',
    );
  }
  if (boot.outcome === 'configured' && userdata !== null && userdata.status < 400) {
    lines.push(
      `It has not phoned home: guests whose cloud-config has no phone_home never do; for others, see /var/log/cloud-init.log in the guest.${wait}`,
    );
  }
  return lines;
}

/** The boots of an instance in words, a line each; the first one says how the last boot went. */
export function explainInstance(instance: InstanceDetails, explaining: Explaining): string[] {
  const { name, ipv4, mac, boots, last_update } = instance;
  const { style, now } = explaining;
  const who = `${name} (${ipv4 ?? 'no address'}, ${mac ?? 'no MAC address'})`;
  const [last, ...earlier] = boots;
  if (last === undefined) {
    const seen =
      last_update === null
        ? ''
        : ` Its domain was last uploaded ${spanText(now - last_update)} ago.`;
    return [
      `${who}: no boot of it was seen since mdserver was started.`,
      `${seen} Boots are kept in memory. If it was started since then, libvirt's hook did not tell of it: see mdserverctl check.`.trim(),
    ].map(printable);
  }
  const changed = keysChanged(instance);
  const notes = missing(last, instance, explaining);
  return [
    `${who}: ${outcomeWords[last.outcome]}.`,
    ...story(last, explaining),
    ...(notes.length === 0 ? [] : ['What to look at:', ...notes.map((note) => `  - ${note}`)]),
    ...(changed === undefined
      ? []
      : [
          `Its ssh host keys changed ${timeText(style, changed)}: that is right after a new installation only.`,
        ]),
    ...(earlier.length === 0
      ? []
      : [
          'Boots before that:',
          ...earlier.map(({ started, outcome }) => `  ${timeText(style, started)}  ${outcome}`),
        ]),
  ].map(printable);
}

/** Who an address that is no instance's may be; `domain` is the one that has its MAC address. */
export function explainAddress(
  { address, mac, mac_instance, last_refused }: AddressReport,
  domain: string | undefined,
  { style, bridge }: Pick<Explaining, 'style' | 'bridge'>,
): string[] {
  const lines = [`${address} is no instance's address.`];
  if (last_refused !== null) {
    lines.push(`It asked for something, last ${timeText(style, last_refused)}, and got a 404.`);
  }
  if (mac === null) {
    lines.push(
      `Nobody answers for it in the kernel's neighbour table (ip neighbour show dev ${bridge}): ping it and ask again.`,
    );
  } else if (mac_instance !== null) {
    lines.push(
      `${mac} answers for it, which is ${mac_instance}'s: the guest uses another address than its record has. Renew its lease, or take the fixed address out of the guest; "mdserverctl explain ${mac_instance}" says more.`,
    );
  } else if (domain !== undefined) {
    lines.push(
      `${mac} answers for it, which is the domain ${domain}'s, and mdserver has no record of that: "mdserverctl sync" uploads it, "mdserverctl check" says whether the hook is in its place.`,
    );
  } else {
    lines.push(
      `${mac} answers for it, which no instance and no domain that runs has: it may be a container, another machine, or a MAC address that was changed in a guest.`,
    );
  }
  return lines.map(printable);
}
