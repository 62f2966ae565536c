import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';

import pino = require('pino');

import type { Config, LogLevel } from './config/options.js';
import { limitMode } from './files.js';
import { isJournal, type JournalPriority, withPriority } from './systemd.js';
import { printable } from './text.js';

/** The logger of the daemon. */
export type Logger = pino.Logger;

/** The log, and what an operator can change while the daemon runs. */
export interface Logging {
  readonly log: Logger;
  /** Applies the levels of a new configuration. */
  setLevels(config: Pick<Config, 'loglevels' | 'mdserver'>): void;
  /** Reopens the log file after logrotate has moved it. Throws the file system's error. */
  reopen(): void;
  /** Writes the buffered lines. */
  flush(): void;
  /** One line if the log file cannot be written now. */
  problems(): readonly string[];
}

/** A file that lines are written to. */
interface Sink {
  /** Undefined as long as the file cannot be opened. */
  descriptor: number | undefined;
  level: number;
  /** The lines of this turn of the event loop. */
  buffered: string;
  /** Lines that could not be written yet, and their length in bytes. */
  backlog: Buffer[];
  backlogBytes: number;
}

/** For mdserver and its group: the log has names and addresses of guests. */
const fileMode = 0o640;

/** In bytes. The backlog grows while the log cannot be written, as on a full disk. */
const maxBacklog = 1024 * 1024;

/**
 * Writes all lines to the file, which is opened if it is not open yet. Throws the file system's error
 * and keeps the unwritten lines in the backlog.
 */
function writeOut(sink: Sink, open: () => number): void {
  const lines = Buffer.from(sink.buffered);
  sink.buffered = '';
  const hasRoom = sink.backlogBytes === 0 || sink.backlogBytes + lines.length <= maxBacklog;
  if (lines.length > 0 && hasRoom) {
    sink.backlog.push(lines);
    sink.backlogBytes += lines.length;
  }
  if (sink.backlog.length === 0) return;
  sink.descriptor ??= open();
  for (let [first] = sink.backlog; first !== undefined; [first] = sink.backlog) {
    const written = writeSync(sink.descriptor, first);
    sink.backlogBytes -= written;
    if (written < first.length) sink.backlog[0] = first.subarray(written);
    else sink.backlog.shift();
  }
}

const levelNames = new Map(
  Object.entries(pino.levels.values).map(([name, value]) => [value, name.toUpperCase().padEnd(5)]),
);

function errorText(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

const { values: levels } = pino.levels;

/** The priority of a level in the journal. */
function priorityOf(level: number): JournalPriority {
  if (level >= (levels['fatal'] ?? 0)) return 2;
  if (level >= (levels['error'] ?? 0)) return 3;
  if (level >= (levels['warn'] ?? 0)) return 4;
  return level >= (levels['info'] ?? 0) ? 6 : 7;
}

/** Formats log lines as plain text: time, level, message. */
function lineFormatter(): (level: number, text: string) => string {
  let formatted = 0;
  let time = '';
  return (level, text) => {
    const now = Date.now();
    // Requests come in bursts, so many lines share a millisecond.
    if (now !== formatted) time = new Date(now).toISOString();
    formatted = now;
    return `${time} ${levelNames.get(level) ?? level} ${text}\n`;
  };
}

/**
 * The text of what a method of the log is called with: a message, an error, or `{ err }` and a
 * message.
 */
function messageOf([first, second = '']: readonly unknown[]): string {
  if (typeof first === 'string') return first;
  if (first instanceof Error) return errorText(first);
  const { err } = first as { readonly err?: unknown };
  return err === undefined ? String(second) : `${String(second)} ${errorText(err)}`;
}

/**
 * Logs to standard output and to a file. If the journal reads standard output, the lines there have a priority in
 * place of time and level. Lines are buffered and written once per turn of the event
 * loop, and when the process exits. A file that cannot be opened or written is tried again with each
 * line, and gets the last of the lines that it missed.
 */
export function startLogging(config: Pick<Config, 'loglevels' | 'mdserver'>): Logging {
  const { logfile } = config.mdserver;
  const openFile = () => {
    const descriptor = openSync(logfile, 'a', fileMode);
    limitMode(logfile, fileMode);
    return descriptor;
  };
  const openFirst = () => {
    mkdirSync(dirname(logfile), { recursive: true });
    return openFile();
  };
  const sink = (descriptor: number | undefined): Sink => {
    return { descriptor, level: 0, buffered: '', backlog: [], backlogBytes: 0 };
  };
  const file = sink(undefined);
  const stream = sink(1);
  const formatLine = lineFormatter();
  const hasJournal = isJournal(1);
  let scheduled = false;
  let problem: string | undefined;

  function flush(): void {
    scheduled = false;
    try {
      writeOut(file, openFirst);
      problem = undefined;
    } catch (error) {
      const before = problem;
      problem = `the log file cannot be written: ${(error as Error).message}`;
      // Once each time that the disk fills up.
      if (before === undefined) log.error(problem);
    }
    try {
      writeOut(stream, () => 1);
    } catch {
      // Nobody reads standard output any more; the log file remains.
    }
  }

  function write(level: number, message: string): void {
    const text = printable(message);
    const line = formatLine(level, text);
    if (level >= file.level) file.buffered += line;
    if (level >= stream.level) {
      // The journal has the time already, and shows the priority as it likes.
      stream.buffered += hasJournal ? withPriority(priorityOf(level), `${text}\n`) : line;
    }
    if (scheduled) return;
    scheduled = true;
    setImmediate(flush);
  }

  const log = pino(
    {
      hooks: {
        // In place of pino's own method, which would make JSON of what is written as text.
        logMethod: (args, _method, level) => write(level, messageOf(args)),
      },
    },
    // Without a stream, pino would open standard output, which then loses what is written at the end.
    { write: () => undefined },
  );

  function setLevels({ loglevels, mdserver }: Pick<Config, 'loglevels' | 'mdserver'>): void {
    const value = (level: LogLevel) => pino.levels.values[mdserver.debug ? 'debug' : level] ?? 0;
    const base = value(loglevels.base);
    stream.level = Math.max(base, value(loglevels.stream));
    file.level = Math.max(base, value(loglevels.file));
    log.level = pino.levels.labels[Math.min(stream.level, file.level)] ?? 'info';
  }

  function reopen(): void {
    const opened = openFile();
    // The buffered lines belong in the old file.
    flush();
    if (file.descriptor !== undefined) closeSync(file.descriptor);
    file.descriptor = opened;
  }

  setLevels(config);
  process.on('exit', flush);
  const problems = () =>
    problem === undefined ? [] : [`${problem} (journalctl -u mdserver has the lines)`];
  return { log, setLevels, flush, reopen, problems };
}
