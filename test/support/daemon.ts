import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { type Agent, type IncomingHttpHeaders, request } from 'node:http';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { killAtEnd, type Scope } from './cleanup.js';

/** The daemon as it is installed. */
export const mainFile = fileURLToPath(new URL('../../src/main.js', import.meta.url));
/** The folder of the repository. */
export const repository = fileURLToPath(new URL('../../../', import.meta.url));

/** Waits until something is true. Throws after 60 seconds, with what it was to be. */
export async function eventually(
  what: string,
  isTrue: () => boolean | Promise<boolean>,
): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!(await isTrue())) {
    if (Date.now() > deadline) throw new Error(`never came true: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/**
 * A TCP port that nobody has on the address, and that stays free until the caller takes it: it is none of those that
 * the kernel gives to connections and to servers that ask for any.
 */
export async function freePort(address: string): Promise<number> {
  const range = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8');
  const first = Number.parseInt(range, 10);
  for (;;) {
    // A host may let connections have all ports.
    const port = randomInt(10_000, first > 20_000 ? first : 65_536);
    const server = createServer().listen(port, address);
    // Also rejects if another program has it.
    const listens = await once(server, 'listening').then(
      () => true,
      (error: NodeJS.ErrnoException) => {
        if (error.code !== 'EADDRINUSE') throw error;
        return false;
      },
    );
    if (!listens) continue;
    server.close();
    await once(server, 'close');
    return port;
  }
}

/**
 * Waits until a connection is closed, by a reset, too: events.once would reject then, whatever
 * other listeners its errors have. To be called before what has it closed.
 */
export function closing(socket: Socket): Promise<void> {
  socket.on('error', () => undefined);
  return new Promise((resolve) => socket.once('close', () => resolve()));
}

/**
 * All that comes back on a connection that is read only once all bytes are sent, until it is closed.
 * Rejects if it breaks.
 */
export function sendThenRead(socket: Socket, bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let received = '';
    socket.setEncoding('latin1').on('data', (chunk) => (received += chunk));
    socket.on('error', reject).on('close', () => resolve(received));
    socket.pause().write(bytes, 'latin1', () => socket.resume());
  });
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly text: string;
  /** Status, and the body as the JSON that it is. Throws when it is none. */
  readonly json: () => { status: number; body: unknown };
}

export interface RequestOptions {
  /** The source address. */
  readonly from?: string;
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string | Buffer;
  /** Keeps the connection for the next request. */
  readonly agent?: Agent | false;
}

/** One request over TCP or to a unix socket, over a connection of its own unless an agent keeps it. */
export function ask(
  where: { readonly host: string; readonly port: number } | { readonly socketPath: string },
  path: string,
  { from, method = 'GET', headers = {}, body, agent = false }: RequestOptions = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request(
      { ...where, path, method, headers, agent, ...(from && { localAddress: from }) },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => {
          const { statusCode: status = 0, headers: received } = response;
          const whole = Buffer.concat(chunks);
          const text = whole.toString();
          const json = () => ({ status, body: JSON.parse(text) as unknown });
          resolve({ status, headers: received, body: whole, text, json });
        });
      },
    );
    sent.on('error', reject);
    sent.end(body);
  });
}

export interface Daemon {
  readonly process: ChildProcess;
  readonly port: number;
  readonly host: string;
  /** What it has printed up to now. */
  readonly output: () => string;
  readonly ask: (path: string, options?: RequestOptions) => Promise<Answer>;
  /** Uploads a domain XML from the daemon's own host, as `curl --data-binary` does. */
  readonly upload: (xml: string, headers?: Record<string, string>) => Promise<Answer>;
  /** Sends SIGTERM and gives the exit code. */
  readonly stop: () => Promise<number | null>;
  /** Waits until it has printed the text. */
  readonly printed: (text: string | RegExp) => Promise<void>;
}

/** A way to start the daemon: for one in a network namespace, say. */
export type Start = (command: string, args: readonly string[]) => ChildProcess;

const spawnPlain: Start = (command, args) =>
  spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });

/**
 * Starts the daemon with a configuration, and waits until it serves, or has printed `ready`. `{port}` in the text is
 * replaced by a free one. It is killed at the end of the scope, if it still runs. Throws with what
 * it printed when it ends instead of serving.
 */
export async function startDaemon(
  scope: Scope,
  folder: string,
  configuration: string,
  host: string,
  start: Start = spawnPlain,
  ready: string | RegExp = 'serving on',
): Promise<Daemon> {
  const port = Number(/^port *= *(\d+)/m.exec(configuration)?.[1] ?? (await freePort(host)));
  const file = join(folder, 'mdserver.conf');
  writeFileSync(file, configuration.replaceAll('{port}', String(port)));
  const child = start(process.execPath, ['--enable-source-maps', mainFile, file]);
  killAtEnd(scope, child);
  let output = '';
  child.stdout?.on('data', (chunk) => (output += chunk));
  child.stderr?.on('data', (chunk) => (output += chunk));
  const ended = once(child, 'exit').then(([code]) => code as number | null);
  const printed = (text: string | RegExp) =>
    eventually(`the daemon prints "${text}"`, () => {
      if (typeof text === 'string' ? output.includes(text) : text.test(output)) return true;
      if (child.exitCode === null && child.signalCode === null) return false;
      throw new Error(`no "${text}" in the daemon's output: ${output}`);
    });
  await printed(ready);
  const askIt = (path: string, options?: RequestOptions) => ask({ host, port }, path, options);
  return {
    process: child,
    port,
    host,
    output: () => output,
    ask: askIt,
    upload: (xml, headers = {}) =>
      askIt('/instance-upload', { method: 'POST', body: xml, headers, from: host }),
    stop: () => {
      child.kill('SIGTERM');
      return ended;
    },
    printed,
  };
}
