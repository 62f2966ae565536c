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

/** MAC addresses, each with the time of the last message in Unix seconds, the latest last. */
type Times = ReadonlyMap<string, number>;

/** What dnsmasq's log tells of the last hour. */
export interface RecentDhcp {
  /** Those to which dnsmasq gave no address. */
  readonly refused: Times;
  /** Those whose guests found their address in use, and have got none since. */
  readonly declined: Times;
}

/** Nothing. */
export const noRecentDhcp: RecentDhcp = { refused: new Map(), declined: new Map() };

/** Reads the end of dnsmasq's log. Throws CommandError. */
export function recentDhcp(path: string, now = new Date()): RecentDhcp {
  const refused = new Map<Mac, number>();
  const declined = new Map<Mac, number>();
  const read = dhcpLines();
  for (const line of newestLines(path)) {
    const message = read(line);
    if (message === undefined) continue;
    const { mac, action, refusal, time } = message;
    const at = timeOf(time, now).getTime();
    if (now.getTime() - at > recently) continue;
    if (refusal !== '') {
      refused.delete(mac);
      refused.set(mac, at / 1000);
    }
    if (action === 'DHCPDECLINE' || action === 'DHCPACK') declined.delete(mac);
    if (action === 'DHCPDECLINE') declined.set(mac, at / 1000);
  }
  return { refused, declined };
}
