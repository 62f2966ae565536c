import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { dhcpLines } from '../boots/dhcp-log.js';
import type { Mac } from '../network.js';
import { CommandError, exitCodes } from './errors.js';

/** Bytes that are read at the end of the log: some 10,000 lines. */
const maxRead = 1024 * 1024;
/** Milliseconds. A guest without an address asks again at least every few minutes. */
const recently = 3_600_000;

/** The end of a file, without the line that it begins in; '' if there is no such file. */
function endOf(path: string): string {
  let descriptor: number;
  try {
    // Whoever can write to the log's folder could put a FIFO there, which must not hang this.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return '';
    throw new CommandError(`cannot read dnsmasq's log: ${message}`, exitCodes.failed);
  }
  try {
    const stats = fstatSync(descriptor);
    if (!stats.isFile()) return '';
    const from = Math.max(0, stats.size - maxRead);
    const bytes = Buffer.alloc(stats.size - from);
    const text = bytes.toString('latin1', 0, readSync(descriptor, bytes, 0, bytes.length, from));
    return from === 0 ? text : text.slice(text.indexOf('\n') + 1);
  } finally {
    closeSync(descriptor);
  }
}

/** The time of a line, which has no year: the newest such time that is not in the future. */
function timeOf(text: string, now: Date): Date {
  const at = new Date(`${text} ${now.getFullYear()}`);
  // Between the two clocks of a line and of now there may be a second.
  if (at.getTime() > now.getTime() + 60_000) at.setFullYear(now.getFullYear() - 1);
  return at;
}

/**
 * The MAC addresses to which dnsmasq gave no address during the last hour, each with the time of the
 * last refusal in Unix seconds, the latest last. Throws CommandError.
 */
export function refusedLately(path: string, now = new Date()): ReadonlyMap<Mac, number> {
  const refused = new Map<Mac, number>();
  const read = dhcpLines();
  for (const line of endOf(path).split('\n')) {
    const event = read(line);
    if (event === undefined || event.refusal === '') continue;
    const at = timeOf(event.time, now).getTime();
    if (now.getTime() - at > recently) continue;
    refused.delete(event.mac);
    refused.set(event.mac, at / 1000);
  }
  return refused;
}
