import { dhcpLines, endOfLog } from '../boots/dhcp-log.js';
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

/**
 * The MAC addresses to which dnsmasq gave no address during the last hour, each with the time of the
 * last refusal in Unix seconds, the latest last. Throws CommandError.
 */
export function refusedLately(path: string, now = new Date()): ReadonlyMap<Mac, number> {
  const refused = new Map<Mac, number>();
  const read = dhcpLines();
  for (const line of newestLines(path)) {
    const event = read(line);
    if (event === undefined || event.refusal === '') continue;
    const at = timeOf(event.time, now).getTime();
    if (now.getTime() - at > recently) continue;
    refused.delete(event.mac);
    refused.set(event.mac, at / 1000);
  }
  return refused;
}
