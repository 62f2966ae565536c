import { closeSync, existsSync, openSync, readSync, statSync } from 'node:fs';
import type { Config } from '../config/options.js';
import { type Mac, parseMac } from '../network.js';

/** The path of dnsmasq's log, which mdserver-dnsmasq.service sets: next to mdserver's own. */
export function dnsmasqLogPath({ mdserver }: Pick<Config, 'mdserver'>): string {
  return mdserver.logfile.replace(/(?<!^|\/)(\.[^./]*)?$/, '-dnsmasq$1');
}

/** A DHCP line of dnsmasq's log. */
export interface DhcpLine {
  readonly action: string;
  readonly mac: Mac;
  /** '' if the line has none. */
  readonly address: string;
  /** When dnsmasq wrote it, as it does: `Nov 23 09:04:14`, in local time and without a year. */
  readonly time: string;
  /** Whether it got no address: it has no record, or not with this MAC address. */
  readonly refused: boolean;
}

/** Anchored at the time that dnsmasq writes first, because text from a guest comes later in the line. */
const dhcpLine =
  /^([A-Z][a-z]{2} [ \d]\d [\d:]{8}) dnsmasq-dhcp\[\d+\]: (?:\d+ )?(DHCP(?:DISCOVER|ACK|NAK))\([^)]*\) (?:(\d+(?:\.\d+){3}) )?((?:[0-9a-f]{2}:){5}[0-9a-f]{2})\b(.*)/i;

/** Parses a line of dnsmasq's log; undefined if it is not about DHCP. */
export function parseDhcpLine(line: string): DhcpLine | undefined {
  const [, time = '', action, address = '', hardware = '', text = ''] = dhcpLine.exec(line) ?? [];
  const mac = parseMac(hardware);
  if (action === undefined || mac === undefined) return undefined;
  // The rest of these lines is dnsmasq's own text, that of a DHCPACK the guest's name.
  const refused =
    action === 'DHCPNAK' || (action === 'DHCPDISCOVER' && text === ' no address available');
  return { action, mac, address, time, refused };
}

/** Milliseconds between two reads of the log. */
const readInterval = 1000;
/** Bytes read at once; of a log that grows faster, only the end is read. */
const maxRead = 1024 * 1024;

/**
 * Follows dnsmasq's log from its current end, across rotations; the log need not exist yet. Calls
 * `onLine` with each DHCP line. Returns a function that stops it.
 */
export function followDhcpLog(path: string, onLine: (line: DhcpLine) => void): () => void {
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
    const bytes = Buffer.alloc(stats.size - from);
    const descriptor = openSync(path, 'r');
    try {
      const length = readSync(descriptor, bytes, 0, bytes.length, from);
      const lines = (rest + bytes.toString('latin1', 0, length)).split('\n');
      rest = (lines.pop() ?? '').slice(-1000);
      position = from + length;
      for (const line of lines) {
        const event = parseDhcpLine(line);
        if (event !== undefined) onLine(event);
      }
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

/** Whether the log exists and is readable. */
export function isReadable(path: string): boolean {
  try {
    closeSync(openSync(path, 'r'));
    return true;
  } catch {
    return false;
  }
}
