import { closeSync, existsSync, openSync, readSync, statSync } from 'node:fs';
import type { Config } from '../config/options.js';
import { type Mac, parseMac } from '../network.js';

/** Where mdserver-dnsmasq.service has dnsmasq write its log: beside mdserver's own. */
export function dnsmasqLogPath({ mdserver }: Pick<Config, 'mdserver'>): string {
  return mdserver.logfile.replace(/(?<!^|\/)(\.[^./]*)?$/, '-dnsmasq$1');
}

/** What dnsmasq did for a machine. */
export interface DhcpLine {
  readonly action: string;
  readonly mac: Mac;
  /** '' where the line names none. */
  readonly address: string;
}

/** From the line's start on, where dnsmasq puts the time: what a guest says stands behind that. */
const dhcpLine =
  /^[A-Z][a-z]{2} [ \d]\d [\d:]{8} dnsmasq-dhcp\[\d+\]: (?:\d+ )?(DHCP(?:DISCOVER|ACK|NAK))\([^)]*\) (?:(\d+(?:\.\d+){3}) )?((?:[0-9a-f]{2}:){5}[0-9a-f]{2})\b/i;

/** What a line of dnsmasq's log says of DHCP; undefined for all others. */
export function parseDhcpLine(line: string): DhcpLine | undefined {
  const [, action, address = '', hardware = ''] = dhcpLine.exec(line) ?? [];
  const mac = parseMac(hardware);
  return action === undefined || mac === undefined ? undefined : { action, mac, address };
}

/** Milliseconds; a boot record need not be quicker. */
const pause = 1000;
/** Bytes in one go: a log that grows faster is not read to its end, but passed over. */
const mostRead = 1024 * 1024;

/**
 * Follows dnsmasq's log from its present end on, through rotations and while it does not exist.
 * Gives what stops it.
 */
export function followDhcpLog(path: string, tell: (line: DhcpLine) => void): () => void {
  const present = existsSync(path) ? statSync(path, { throwIfNoEntry: false }) : undefined;
  let position = present?.size ?? 0;
  let file = present?.ino;
  let rest = '';

  function readOn(): void {
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats === undefined) {
      // The next one may well get the same inode.
      file = undefined;
      return;
    }
    // Another file, or the same one cut: it begins anew.
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
      // A log that cannot be read brings no events; the health report says that there are none.
    }
  }, pause).unref();
  return () => clearInterval(timer);
}

/** Whether dnsmasq's log is there and may be read. */
export function isReadable(path: string): boolean {
  try {
    closeSync(openSync(path, 'r'));
    return true;
  } catch {
    return false;
  }
}
