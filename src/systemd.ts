import { fstatSync } from 'node:fs';

/** The priority of a line in the journal, from 0, the most urgent, to 7 (sd-daemon(3)). */
export type JournalPriority = 2 | 3 | 4 | 6 | 7;

/**
 * Whether the journal reads what is written to the descriptor: JOURNAL_STREAM names the device and the inode of
 * what systemd connected to it (systemd.exec(5)).
 */
export function isJournal(descriptor: number): boolean {
  const [, device, inode] = /^(\d+):(\d+)$/.exec(process.env['JOURNAL_STREAM'] ?? '') ?? [];
  if (device === undefined || inode === undefined) return false;
  try {
    const { dev, ino } = fstatSync(descriptor, { bigint: true });
    return dev === BigInt(device) && ino === BigInt(inode);
  } catch {
    // It is closed.
    return false;
  }
}

/** The text with the priority before each of its lines, as the journal reads it. */
export function withPriority(priority: JournalPriority, text: string): string {
  return text.replace(/^(?=.)/gm, `<${priority}>`);
}

/** Writes a text to standard error, with its priority if the journal reads that. */
export function writeError(priority: JournalPriority, text: string): void {
  process.stderr.write(isJournal(2) ? withPriority(priority, text) : text);
}

/** What a service tells systemd (sd_notify(3)). */
export type Notice = Readonly<
  Partial<Record<'READY' | 'RELOADING' | 'STOPPING' | 'STATUS' | 'WATCHDOG', string>>
>;

/** Tells systemd, soon, and never throws. What it has not been told yet is replaced by something newer. */
export type Notify = (notice: Notice) => void;

/** Milliseconds. systemd-notify needs 30, and ends by itself after 5 seconds if systemd does not read. */
const notifyLimit = 10_000;

/** Characters. systemd takes 4096 bytes in all. */
const maxStatus = 1000;

/**
 * Returns what tells systemd about this service, as the unit's NOTIFY_SOCKET asks for; undefined without one.
 * Node has no datagram sockets, so it runs systemd-notify(1): one at a time, however long that takes.
 * `onFailure` is called with the reason when it fails, and again only after it has succeeded.
 */
export function systemdNotifier(onFailure: (reason: string) => void): Notify | undefined {
  if (!process.env['NOTIFY_SOCKET']) return undefined;
  let waiting: Notice = {};
  let isRunning = false;
  let hasFailed = false;

  async function run(notice: Notice): Promise<void> {
    const { execFile } = await import('node:child_process');
    const values = Object.entries(notice).map(([key, value]) => `${key}=${value}`);
    // So that systemd can tell a reload from an earlier one (Type=notify-reload): its clock is Node's.
    if ('RELOADING' in notice) values.push(`MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`);
    const options = { timeout: notifyLimit, killSignal: 'SIGKILL' } as const;
    await new Promise<void>((resolve, reject) => {
      execFile('systemd-notify', values, options, (error) => (error ? reject(error) : resolve()));
    });
  }

  async function runAll(): Promise<void> {
    isRunning = true;
    while (Object.keys(waiting).length > 0) {
      const notice = waiting;
      waiting = {};
      try {
        await run(notice);
        hasFailed = false;
      } catch (error) {
        if (!hasFailed) onFailure((error as Error).message.trim().replaceAll('\n', ' '));
        hasFailed = true;
      }
    }
    isRunning = false;
  }

  return ({ STATUS, ...others }) => {
    const status =
      STATUS === undefined ? {} : { STATUS: STATUS.replace(/\s+/g, ' ').slice(0, maxStatus) };
    waiting = { ...waiting, ...others, ...status };
    if (!isRunning) void runAll();
  };
}

/**
 * Tells systemd at half of the unit's WatchdogSec= that the event loop turns; nothing if the unit does not ask for
 * it. That is all it tells: against what else can be wrong, such as a full disk or a missing address, a new start
 * does not help, and mdserver goes on trying. Both clocks stand still while the machine is suspended.
 */
export function feedWatchdog(notify: Notify): void {
  const { WATCHDOG_USEC: time, WATCHDOG_PID: whose } = process.env;
  if (!time || (whose !== undefined && Number(whose) !== process.pid)) return;
  setInterval(() => notify({ WATCHDOG: '1' }), Number(time) / 2000).unref();
}
