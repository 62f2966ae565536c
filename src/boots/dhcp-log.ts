import { closeSync, existsSync, openSync, readSync, statSync } from 'node:fs';
import type { Config } from '../config/options.js';
import { type Mac, parseMac } from '../network.js';

/** The log file that mdserver-dnsmasq.service gives dnsmasq, beside mdserver's own. */
export function dnsmasqLogPath({ mdserver }: Pick<Config, 'mdserver'>): string {
  return mdserver.logfile.replace(/(?<!^|\/)(\.[^./]*)?$/, '-dnsmasq$1');
}

/** A DHCP line of dnsmasq's log. */
export interface DhcpLine {
  readonly action: string;
  readonly mac: Mac;
  /** '' if the line has none. */
  readonly address: string;
}

/** Anchored at the time that dnsmasq writes first: what a guest sends comes later in the line. */
const dhcpLine =
  /^[A-Z][a-z]{2} [ \d]\d [\d:]{8} dnsmasq-dhcp\[\d+\]: (?:\d+ )?(DHCP(?:DISCOVER|ACK|NAK))\([^)]*\) (?:(\d+(?:\.\d+){3}) )?((?:[0-9a-f]{2}:){5}[0-9a-f]{2})\b/i;

/** Parses a line of dnsmasq's log; undefined if it is not about DHCP. */
export function parseDhcpLine(line: string): DhcpLine | undefined {
  const [, action, address = '', hardware = ''] = dhcpLine.exec(line) ?? [];
  const mac = parseMac(hardware);
  return action === undefined || mac === undefined ? undefined : { action, mac, address };
}

/** Milliseconds between two looks at the log. */
const pause = 1000;
/** Bytes read at once; of a log that grows faster, only the end is read. */
const mostRead = 1024 * 1024;

/**
 * Follows dnsmasq's log from its present end, through rotations and while it does not exist.
 * Returns a function that stops it.
 */
export function followDhcpLog(path: string, tell: (line: DhcpLine) => void): () => void {
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
    const from = Math.max(position, stats.size - mostRead);
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
        if (event !== undefined) tell(event);
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
  }, pause).unref();
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
