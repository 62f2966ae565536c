import { closeSync, constants, existsSync, fstatSync, openSync, readSync, statSync } from 'node:fs';
import type { Config } from '../config/options.js';
import { type Dhcp6Message, dhcp6Messages, dhcpSaid } from '../dnsmasq/log.js';
import { type Mac, parseMac } from '../network.js';

/** The path of dnsmasq's log, which mdserver-dnsmasq.service sets: next to mdserver's own. */
export function dnsmasqLogPath({ mdserver }: Pick<Config, 'mdserver'>): string {
  return mdserver.logfile.replace(/(?<!^|\/)(\.[^./]*)?$/, '-dnsmasq$1');
}

/** A DHCP message in dnsmasq's log. */
export interface DhcpLine {
  /** `DHCPACK`; of DHCPv6, `DHCPv6-REPLY`. */
  readonly action: DhcpAction;
  readonly mac: Mac;
  /** '' if the line has none. */
  readonly address: string;
  /** When dnsmasq wrote it, as it does: `Nov 23 09:04:14`, in local time and without a year. */
  readonly time: string;
  /** Why dnsmasq gave it no address, in dnsmasq's words; '' if the message is no refusal. */
  readonly refusal: string;
}

/** The messages that are told. Those of clients, but for a few, are followed by dnsmasq's answer. */
const actions = [
  ...['DHCPDISCOVER', 'DHCPACK', 'DHCPNAK', 'DHCPDECLINE', 'DHCPRELEASE', 'NOANSWER', 'BOOTP'],
  ...['DHCPv6-SOLICIT', 'DHCPv6-ADVERTISE', 'DHCPv6-REPLY', 'DHCPv6-DECLINE', 'DHCPv6-RELEASE'],
] as const;

/** One of them. */
export type DhcpAction = (typeof actions)[number];

const isAction = (text: string): text is DhcpAction =>
  (actions as readonly string[]).includes(text);

/** Only these two have no address: a longer hardware address, or a DUID, is no MAC address. */
const messageLine =
  /^(?:(DHCPDISCOVER|BOOTP)\([^)]*\) (?:(\d+(?:\.\d+){3}) )?|([A-Z]+)\([^)]*\) (\d+(?:\.\d+){3}) )((?:[0-9a-f]{2}:){5}[0-9a-f]{2})(?: (.*))?$/;
/** Stands before the line of the message that it explains. */
const reasonLine = /^not using configured address \S+ because it (.+)$/;

/** Where the text at the end is dnsmasq's own; elsewhere it is the guest's, or the guest's name. */
const refusing: readonly DhcpAction[] = ['DHCPDISCOVER', 'DHCPNAK', 'NOANSWER', 'BOOTP'];

/** dnsmasq's words where DHCPv6 has no address for the guest: it may be leased to another DUID. */
export const noAddress6 = 'no addresses available';
/** Its words for an address of DHCPv6 that the guest cannot have, or has no more. */
const refusals6 = [noAddress6, 'lease not found', 'address invalid', 'confirm failed'];

/** A message of DHCPv6 as a line; undefined if it says nothing that an answer does not say as well. */
function line6({ kind, mac, address, text }: Dhcp6Message, time: string): DhcpLine | undefined {
  const action = `DHCPv6-${kind}`;
  const refusal = kind === 'SOLICIT' || refusals6.includes(text) ? text : '';
  // An offer, which the guest may still take.
  if (!isAction(action) || (kind === 'ADVERTISE' && refusal === '')) return undefined;
  return { action, mac, address, time, refusal };
}

/**
 * Returns a function that is to be called with the lines of dnsmasq's log, in order, and gives the
 * DHCP messages in them. The guest that one is of is known by its MAC address, as dnsmasq goes by it.
 */
export function dhcpLines(): (line: string) => DhcpLine | undefined {
  const messages6 = dhcp6Messages();
  let reason: string | undefined;
  return (line) => {
    const said = dhcpSaid(line);
    if (said === undefined) return undefined;
    const { time, text } = said;
    const before = reason;
    reason = reasonLine.exec(text)?.[1];
    const message6 = messages6(said);
    if (message6 !== undefined) return line6(message6, time);
    const [, maybeWithout, own = '', other, its = '', hardware = '', words = ''] =
      messageLine.exec(text) ?? [];
    const action = maybeWithout ?? other ?? '';
    const mac = parseMac(hardware);
    if (mac === undefined || !isAction(action)) return undefined;
    const refusal = refusing.includes(action) ? words : '';
    const why = refusal === '' || before === undefined ? refusal : `${refusal}: it ${before}`;
    return { action, mac, address: own || its, time, refusal: why };
  };
}

/** What a file has from a place up to another one. latin1: a character is a byte. */
function textOf(descriptor: number, from: number, to: number): string {
  const bytes = Buffer.alloc(to - from);
  return bytes.toString('latin1', 0, readSync(descriptor, bytes, 0, bytes.length, from));
}

/** Milliseconds between two reads of the log. */
const readInterval = 1000;
/** Bytes read at once; of a log that grows faster, only the end is read. */
const maxRead = 1024 * 1024;

/**
 * Follows dnsmasq's log from its current end, across rotations; the log need not exist yet. Calls
 * `onLine` with each line. Returns a function that stops it.
 */
export function followDhcpLog(path: string, onLine: (line: string) => void): () => void {
  const present = existsSync(path) ? statSync(path, { throwIfNoEntry: false }) : undefined;
  let position = present?.size ?? 0;
  let file = present?.ino;
  let rest = '';

  function readOn(): void {
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats === undefined) {
      // The next file may get the same inode.
      file = undefined;
      return;
    }
    // Another file, or the same one truncated: read it from its start.
    if (stats.ino !== file || stats.size < position) {
      file = stats.ino;
      position = 0;
      rest = '';
    }
    if (stats.size === position) return;
    const from = Math.max(position, stats.size - maxRead);
    if (from > position) rest = '';
    const descriptor = openSync(path, 'r');
    try {
      const text = textOf(descriptor, from, stats.size);
      const lines = (rest + text).split('\n');
      rest = (lines.pop() ?? '').slice(-1000);
      position = from + text.length;
      for (const line of lines) onLine(line);
    } finally {
      closeSync(descriptor);
    }
  }

  const timer = setInterval(() => {
    try {
      readOn();
    } catch {
      // The health report says that the log cannot be read.
    }
  }, readInterval).unref();
  return () => clearInterval(timer);
}

/**
 * The lines at the end of the log, without the one that they begin in: 1 MiB, some 10,000 lines. None if
 * there is no such file. Throws the system's error.
 */
export function endOfLog(path: string): string[] {
  let descriptor: number;
  try {
    // Whoever can write to the log's folder could put a FIFO there, which must not hang this.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  try {
    const stats = fstatSync(descriptor);
    if (!stats.isFile()) return [];
    const from = Math.max(0, stats.size - maxRead);
    const lines = textOf(descriptor, from, stats.size).split('\n');
    return from === 0 ? lines : lines.slice(1);
  } finally {
    closeSync(descriptor);
  }
}

/** Whether the log exists and is readable. */
export function isReadable(path: string): boolean {
  try {
    closeSync(openSync(path, 'r'));
    return true;
  } catch {
    return false;
  }
}
