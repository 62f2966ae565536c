import type {
  AddressReport,
  BootOutcome,
  BootRecord,
  DhcpEvent,
  InstanceDetails,
} from '../../control/api.js';
import { parseIp } from '../../network.js';
import { operand, printable } from '../../text.js';
import { type ControlClient, fetchHealth, instancePath } from '../client.js';
import { connectOption, defineCommand } from '../command.js';
import { connect, readConfigurationIfPossible } from '../connection.js';
import { CommandError, exitCodes } from '../errors.js';
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
import { defaultConnection, domainWithMac, virshAt } from '../virsh.js';
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
}

/** Seconds. A younger boot may still be in progress. */
const bootTime = 120;

const outcomeTexts: Readonly<Record<BootOutcome, string>> = {
  started: 'its last boot has shown no activity yet',
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

function userdataText({ status, file, bytes }: NonNullable<BootRecord['userdata']>): string {
  const from = file ?? 'the built-in template';
  if (status === 404) return 'asked for user-data, but there is none for it (404)';
  if (status >= 400) return `asked for user-data and got a ${status} (${from})`;
  return `got ${counted(bytes, 'byte')} of user-data from ${from}`;
}

function dhcpText({ action, address }: DhcpEvent): string {
  if (action === 'DHCPACK') return `got the address ${address} by DHCP`;
  if (action === 'DHCPNAK') return `was refused the address ${address} by DHCP`;
  return 'asked for an address by DHCP';
}

/** The events of a boot in order, a line each. */
function eventLines(boot: BootRecord, { style }: ExplainContext): string[] {
  const events: [at: number, text: string][] = [[boot.started, beginningTexts[boot.by]]];
  for (const event of boot.dhcp) events.push([event.at, dhcpText(event)]);
  if (boot.first_request !== null) {
    events.push([boot.first_request, requestText(boot)]);
  }
  if (boot.userdata !== null) events.push([boot.userdata.at, userdataText(boot.userdata)]);
  if (boot.last_request !== null && boot.requests > 1) {
    events.push([boot.last_request, 'last request']);
  }
  if (boot.phone_home !== null) events.push([boot.phone_home, 'phoned home']);
  if (boot.ended !== null) events.push([boot.ended, 'libvirt stopped it']);
  const lines = events
    .sort(([one], [other]) => one - other)
    .map(([at, text]) => `  ${timeText(style, at)}  ${text}`);
  if (boot.errors.length > 0) lines.push(`  errors: ${boot.errors.join(', ')}`);
  return lines;
}

/** What went wrong in the boot, the likely cause and what to check: a line each. */
function adviceLines(
  boot: BootRecord,
  { name, ipv4 }: InstanceDetails,
  { now, network, bridge, dhcpLog }: ExplainContext,
): string[] {
  if (boot.outcome === 'home') return [];
  const age = now - boot.started;
  const wait =
    age < bootTime && boot.ended === null
      ? ` It started ${durationText(age)} ago and may still be booting.`
      : '';
  const lines: string[] = [];
  // Only an acknowledged address is a lease: the guest may ask for others and be refused.
  const lease = boot.dhcp.findLast(({ action }) => action === 'DHCPACK');
  if (lease !== undefined && lease.address !== ipv4) {
    lines.push(
      `Its lease is for ${lease.address}, but its record has ${ipv4 ?? 'no address'}, so requests from ${lease.address} are refused. Renew its lease or reboot it.`,
    );
  }
  if (boot.outcome === 'started' || boot.outcome === 'ended') {
    lines.push(
      boot.by === 'reconnect'
        ? 'mdserver has seen nothing of it since libvirtd started: a guest that is already running rarely asks for anything.'
        : `No ${dhcpLog ? 'DHCP request' : "request (mdserver cannot read dnsmasq's log, so it does not see DHCP)"} was seen: is its first interface on network ${network} (virsh domiflist ${operand(name)}), is mdserver-dnsmasq running (systemctl status mdserver-dnsmasq), does the guest bring that interface up?${wait}`,
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
  if (userdata?.status === 404) {
    lines.push(
      'There is no user-data for it: mdserver.userdata_dir has no file for the userdata_prefix in the metadata of its domain.',
    );
  }
  if (userdata !== null && userdata.status < 400 && userdata.file === null) {
    lines.push(
      'Its user-data comes from the built-in template: mdserver.userdata_dir has no file for its name or MAC address, and mdserver.default_template is not set.',
    );
  }
  if (boot.outcome === 'configured' && userdata !== null && userdata.status < 400) {
    lines.push(
      `It has not phoned home. If its cloud-config has phone_home, see /var/log/cloud-init.log in the guest.${wait}`,
    );
  }
  return lines;
}

/** The boots of an instance in words; the first line sums up the last boot. */
export function explainInstance(instance: InstanceDetails, context: ExplainContext): string[] {
  const { name, ipv4, mac, boots, last_update } = instance;
  const { style, now } = context;
  const who = `${name} (${ipv4 ?? 'no address'}, ${mac ?? 'no MAC address'})`;
  const [last, ...earlier] = boots;
  if (last === undefined) {
    const uploaded =
      last_update === null
        ? ''
        : `Its domain was last uploaded ${durationText(now - last_update)} ago. `;
    return [
      `${who}: no boot seen since mdserver started.`,
      `${uploaded}mdserver keeps boots in memory only. If it started since then, libvirt's hook did not report it: run mdserverctl check.`,
    ].map(printable);
  }
  const keysChanged = keysChangedAt(instance);
  const advice = adviceLines(last, instance, context);
  return [
    `${who}: ${outcomeTexts[last.outcome]}.`,
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

/** Explains who may use an address that no instance has; `domain` is the domain with its MAC address. */
export function explainAddress(
  { address, mac, mac_instance, last_refused }: AddressReport,
  domain: string | undefined,
  { style, bridge }: Pick<ExplainContext, 'style' | 'bridge'>,
): string[] {
  const lines = [`No instance has the address ${address}.`];
  if (last_refused !== null) {
    lines.push(`Its last request, which got a 404, was at ${timeText(style, last_refused)}.`);
  }
  if (mac === null) {
    lines.push(
      `The kernel's neighbour table has no MAC address for it (ip neighbour show dev ${bridge}): ping it and try again.`,
    );
  } else if (mac_instance !== null) {
    lines.push(
      `It belongs to ${mac}, the MAC address of ${mac_instance}: that guest uses an address other than the one in its record. Renew its lease, or remove the static address from the guest; see "mdserverctl explain ${operand(mac_instance)}".`,
    );
  } else if (domain !== undefined) {
    lines.push(
      `It belongs to ${mac}, the MAC address of the domain ${domain}. mdserver has no record of this domain: "mdserverctl sync" uploads it, "mdserverctl check" shows whether the hook is installed.`,
    );
  } else {
    lines.push(
      `It belongs to ${mac}, which no instance and no running domain has: it may be a container, another machine, or a guest that changed its MAC address.`,
    );
  }
  return lines.map(printable);
}

async function contextOf(
  control: ControlClient,
  options: Parameters<typeof connect>[0],
): Promise<ExplainContext> {
  const dnsmasq = readConfigurationIfPossible(options)?.dnsmasq;
  return {
    style: stdoutStyle,
    now: Date.now() / 1000,
    network: dnsmasq?.net_name ?? 'mds',
    bridge: dnsmasq?.interface ?? 'br-mds',
    dhcpLog: (await fetchHealth(control)).dhcp_log,
  };
}

/** The running domain with the MAC address; undefined, with a note, if virsh fails. */
async function findDomain(uri: string, mac: string): Promise<string | undefined> {
  try {
    return await domainWithMac(virshAt(uri), mac);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    note(`cannot search the domains: ${error.message}`);
    return undefined;
  }
}

export const explain = defineCommand({
  name: 'explain',
  usage: ['NAME|ADDRESS'],
  operands: [1, 1],
  completes: ['instance', 'none'],
  options: { connect: connectOption },
  summary: 'Explain in words how the last boot of an instance went.',
  help: [
    'Shows what it asked for and when, what it got, what is missing, and the likely cause.',
    'If no instance has the ADDRESS, looks for its MAC address in the neighbour table of the kernel, and for the running domain that has this MAC address. The exit status is then 4.',
  ],
  examples: [
    ['mdserverctl explain web1', '"why did it get no user-data?"'],
    ['mdserverctl explain 10.122.7.9', '"whose address is this?"'],
  ],
  run: async ([nameOrAddress = ''], options) => {
    const control = connect(options);
    const context = await contextOf(control, options);
    const address = parseIp(nameOrAddress);
    const report =
      address && (await control.get<AddressReport>(`/addresses/${encodeURIComponent(address)}`));
    if (report === undefined || report.instance !== null) {
      const name = report?.instance ?? nameOrAddress;
      const instance = await control.get<InstanceDetails>(instancePath(name));
      if (options.json) {
        printJson(instance);
      } else {
        const [headline = '', ...rest] = explainInstance(instance, context);
        print(`${[coloured(stdoutStyle, 'bold', headline), ...rest].join('\n')}\n`);
      }
      return exitCodes.ok;
    }
    if (options.json) {
      printJson(report);
    } else {
      const domain =
        report.mac !== null && report.mac_instance === null
          ? await findDomain(options.connect ?? defaultConnection, report.mac)
          : undefined;
      print(`${explainAddress(report, domain, context).join('\n')}\n`);
    }
    return exitCodes.unknownInstance;
  },
});
