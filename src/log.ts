import { closeSync, openSync, writeSync } from 'node:fs';
import { pino } from 'pino';
import type { Config, LogLevel } from './config/options.js';
import { escapeControls } from './text.js';

export type Logger = pino.Logger;

/** Where log lines go, and what an operator can change while it runs. */
export interface Logging {
  readonly log: Logger;
  /** Takes other levels. */
  setLevels(config: Pick<Config, 'loglevels' | 'mdserver'>): void;
  /** Opens the log file anew, after logrotate has moved it away. Throws what the file system says. */
  reopen(): void;
  /** Writes what has been gathered. */
  flush(): void;
}

/** A file that lines go to. */
interface Sink {
  descriptor: number;
  level: number;
  /** Lines of this turn of the event loop. */
  gathered: string;
  /** What could not be written yet, and how many bytes that is. */
  kept: Buffer[];
  keptBytes: number;
}

/** At most so much is kept for a log that cannot be written, a full disk's for example. */
const longestBacklog = 1024 * 1024;

/** Writes what there is. Throws what the file system says, and keeps what is not written then. */
function writeOut(sink: Sink): void {
  const lines = Buffer.from(sink.gathered);
  sink.gathered = '';
  const hasRoom = sink.keptBytes === 0 || sink.keptBytes + lines.length <= longestBacklog;
  if (lines.length > 0 && hasRoom) {
    sink.kept.push(lines);
    sink.keptBytes += lines.length;
  }
  for (let [first] = sink.kept; first !== undefined; [first] = sink.kept) {
    const written = writeSync(sink.descriptor, first);
    sink.keptBytes -= written;
    if (written < first.length) sink.kept[0] = first.subarray(written);
    else sink.kept.shift();
  }
}

const levelNames = new Map(
  Object.entries(pino.levels.values).map(([name, value]) => [value, name.toUpperCase().padEnd(5)]),
);

/** What pino tells a stream of the line that it writes (pino's "metadata" of streams). */
interface LineStream {
  lastLevel: number;
  lastTime: string;
  lastMsg: string | undefined;
  lastObj: { readonly err?: unknown } | null;
  write(json: string): void;
}

function errorText(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** Makes lines of the log, as people and grep read them. */
function lineFormatter(): (line: LineStream) => string {
  let formatted = '';
  let time = '';
  return ({ lastLevel, lastTime, lastMsg, lastObj }) => {
    // Requests come in bursts: many lines have the same millisecond.
    if (lastTime !== formatted) time = new Date(Number(lastTime)).toISOString();
    formatted = lastTime;
    const error = lastObj?.err === undefined ? '' : ` ${errorText(lastObj.err)}`;
    return `${time} ${levelNames.get(lastLevel) ?? lastLevel} ${escapeControls(`${lastMsg ?? ''}${error}`)}\n`;
  };
}

/**
 * A log that goes to standard output and to a file. Lines are gathered and written once each turn
 * of the event loop, and when the process ends. Throws when the file cannot be opened.
 */
export function startLogging(config: Pick<Config, 'loglevels' | 'mdserver'>): Logging {
  const { logfile } = config.mdserver;
  const openFile = () => openSync(logfile, 'a');
  const sink = (descriptor: number): Sink => {
    return { descriptor, level: 0, gathered: '', kept: [], keptBytes: 0 };
  };
  const file = sink(openFile());
  const stream = sink(1);
  // What is wrong with the file goes to the stream, so that comes last.
  const sinks = [file, stream];
  const formatLine = lineFormatter();
  let scheduled = false;
  let fileWorks = true;

  function flush(): void {
    scheduled = false;
    try {
      writeOut(file);
      fileWorks = true;
    } catch (error) {
      // One word for each time that the disk fills.
      if (fileWorks) log.error(`the log file cannot be written: ${(error as Error).message}`);
      fileWorks = false;
    }
    try {
      writeOut(stream);
    } catch {
      // Nobody reads standard output any more: the log file remains.
    }
  }

  const lines: LineStream = {
    lastLevel: 0,
    lastTime: '0',
    lastMsg: undefined,
    lastObj: null,
    write() {
      const line = formatLine(this);
      for (const sink of sinks) if (this.lastLevel >= sink.level) sink.gathered += line;
      if (scheduled) return;
      scheduled = true;
      setImmediate(flush);
    },
  };
  const log = pino(
    { base: null, timestamp: () => `,"time":${Date.now()}` },
    Object.assign(lines, { [Symbol.for('pino.metadata')]: true }),
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
    // The lines up to now belong to the file as it was.
    flush();
    closeSync(file.descriptor);
    file.descriptor = opened;
  }

  setLevels(config);
  process.on('exit', flush);
  return { log, setLevels, flush, reopen };
}
