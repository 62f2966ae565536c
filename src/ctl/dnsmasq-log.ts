import { type DhcpLine, dhcpLines, endOfLog } from '../boots/dhcp-log.js';
import type { Mac } from '../network.js';
import { CommandError, exitCodes } from './errors.js';

/** Milliseconds. A guest without an address asks again at least every few minutes. */
const recently = 3_600_000;

/** The newest lines of the log; none if there is no such file. Throws CommandError. */
function newestLines(path: string): string[] {
  try {
    return endOfLog(path);
  } catch (error) {
    throw new CommandError(
      `cannot read dnsmasq's log: ${(error as Error).message}`,
      exitCodes.failed,
    );
  }
}

/** The time of a line, which has no year: the newest such time that is not in the future. */
function timeOf(text: string, now: Date): Date {
  const at = new Date(`${text} ${now.getFullYear()}`);
  // Between the two clocks of a line and of now there may be a second.
  if (at.getTime() > now.getTime() + 60_000) at.setFullYear(now.getFullYear() - 1);
  return at;
}

/** MAC addresses, each with the time of the last message in Unix seconds, the latest last. */
type Times = ReadonlyMap<Mac, number>;

/** The DHCP messages of the last hour, with their times in Unix seconds. Throws CommandError. */
function* messagesLately(path: string, now: Date): Generator<[message: DhcpLine, at: number]> {
  const read = dhcpLines();
  for (const line of newestLines(path)) {
    const message = read(line);
    if (message === undefined) continue;
    const at = timeOf(message.time, now).getTime();
    if (now.getTime() - at <= recently) yield [message, at / 1000];
  }
}

/** The MAC addresses to which dnsmasq gave no address during the last hour. Throws CommandError. */
export function refusedLately(path: string, now = new Date()): Times {
  const refused = new Map<Mac, number>();
  for (const [{ mac, refusal }, at] of messagesLately(path, now)) {
    if (refusal === '') continue;
    refused.delete(mac);
    refused.set(mac, at);
  }
  return refused;
}

/**
 * The MAC addresses whose guests found their address in use during the last hour, and have got none
 * since. Throws CommandError.
 */
export function declinedLately(path: string, now = new Date()): Times {
  const declined = new Map<Mac, number>();
  for (const [{ mac, action }, at] of messagesLately(path, now)) {
    if (action !== 'DHCPDECLINE' && action !== 'DHCPACK') continue;
    declined.delete(mac);
    if (action === 'DHCPDECLINE') declined.set(mac, at);
  }
  return declined;
}
