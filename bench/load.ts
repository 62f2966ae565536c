import { readFileSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { connect, type Socket } from 'node:net';

/** One round of requests at a server. */
export interface Round {
  readonly host: string;
  readonly port: number;
  /** The server's process: its CPU time is measured. */
  readonly pid: number;
  readonly path: string;
  /** Source addresses: each has one connection, which is kept. */
  readonly sources: readonly string[];
  readonly milliseconds: number;
}

/** What a round came to. */
export interface Outcome {
  readonly requests: number;
  readonly seconds: number;
  /** CPU time of all threads of the server, user and system, in seconds. */
  readonly cpuSeconds: number;
}

/** Sends requests until `over()`, and gives their number. */
type Load = (round: Round, over: () => boolean) => Promise<number>;

// USER_HZ: the kernel tells times in /proc in hundredths of a second wherever node runs.
const ticksPerSecond = 100;

/** CPU time that a process has used, in seconds (proc(5), `stat`: utime and stime). */
function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

function notTheAnswer(what: string): Error {
  return new Error(`not the answer to measure: ${what}`);
}

/** One request after another, from one source after another, with node's own client. */
const oneByOne: Load = async ({ host, port, path, sources }, over) => {
  const agent = new Agent({ keepAlive: true });
  const answered = (localAddress: string) =>
    new Promise<void>((resolve, reject) => {
      const request = get(
        { host, port, path, localAddress, agent, timeout: 10_000 },
        (response) => {
          if (response.statusCode !== 200) reject(notTheAnswer(`status ${response.statusCode}`));
          response.on('error', reject);
          response.on('end', resolve);
          response.resume();
        },
      );
      request.on('timeout', () => request.destroy(new Error('no answer for 10 seconds')));
      request.on('error', reject);
    });
  let requests = 0;
  try {
    for (; !over(); requests += 1) await answered(sources[requests % sources.length] ?? host);
  } finally {
    agent.destroy();
  }
  return requests;
};

function connected(host: string, port: number, localAddress: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, localAddress, noDelay: true }, () => resolve(socket));
    socket.once('error', reject);
  });
}

/** The length of the response that the text begins with; undefined where its head is not whole. */
function responseLength(text: string): number | undefined {
  const end = text.indexOf('\r\n\r\n');
  if (end < 0) return undefined;
  const length = /\r\ncontent-length: (\d+)/i.exec(text)?.[1];
  if (!text.startsWith('HTTP/1.1 200 ') || length === undefined) {
    throw notTheAnswer(text.slice(0, end));
  }
  return end + 4 + Number(length);
}

/** One request after another on a connection, until `over()`. */
function exchange(socket: Socket, request: string, over: () => boolean): Promise<number> {
  return new Promise((resolve, reject) => {
    let answered = 0;
    let received = '';
    const fail = (error: Error) => {
      socket.destroy();
      reject(error);
    };
    socket.setEncoding('latin1');
    socket.setTimeout(10_000, () => fail(new Error('no answer for 10 seconds')));
    socket.on('error', fail);
    socket.on('close', () => reject(new Error('the server closed a connection')));
    socket.on('data', (text: string) => {
      try {
        received += text;
        if (received.length < (responseLength(received) ?? Number.POSITIVE_INFINITY)) return;
      } catch (error) {
        fail(error as Error);
        return;
      }
      received = '';
      answered += 1;
      if (!over()) {
        socket.write(request, 'latin1');
        return;
      }
      resolve(answered);
      socket.destroy();
    });
    socket.write(request, 'latin1');
  });
}

/** A request from every source at any time, over plain sockets: the server is the bottleneck. */
const allAtOnce: Load = async ({ host, port, path, sources }, over) => {
  const sockets = await Promise.all(sources.map((source) => connected(host, port, source)));
  const request = `GET ${path} HTTP/1.1\r\nhost: ${host}\r\nconnection: keep-alive\r\n\r\n`;
  const counts = await Promise.all(sockets.map((socket) => exchange(socket, request, over)));
  return counts.reduce((sum, count) => sum + count, 0);
};

/** The ways to ask. */
const loads = { oneByOne, allAtOnce };
export type LoadName = keyof typeof loads;

/** Loads a server for the time of a round. Throws when it answers anything but 200. */
export async function runRound(load: LoadName, round: Round): Promise<Outcome> {
  const cpuBefore = cpuSeconds(round.pid);
  const start = performance.now();
  const end = start + round.milliseconds;
  const requests = await loads[load](round, () => performance.now() >= end);
  return {
    requests,
    seconds: (performance.now() - start) / 1000,
    cpuSeconds: cpuSeconds(round.pid) - cpuBefore,
  };
}
