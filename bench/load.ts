import { Agent, get } from 'node:http';
import { connect, type NetConnectOpts, type Socket } from 'node:net';
import { cpuMilliseconds } from './servers.js';

/** One round of requests to a server. */
export interface Round {
  readonly host: string;
  readonly port: number;
  /** The server's process, whose CPU time is measured. */
  readonly pid: number;
  readonly path: string;
  /** The source addresses. Each has one persistent connection. */
  readonly sources: readonly string[];
  readonly milliseconds: number;
}

/** The result of a round. */
export interface RoundResult {
  readonly requests: number;
  readonly seconds: number;
  /** User and system CPU time of all threads of the server, in seconds. */
  readonly cpuSeconds: number;
}

/** Sends requests until `over()` returns true; returns their number. */
type Load = (round: Round, over: () => boolean) => Promise<number>;

function unexpectedResponse(what: string): Error {
  return new Error(`unexpected response: ${what}`);
}

/** One request at a time, from each source in turn, with Node's own client. */
const oneByOne: Load = async ({ host, port, path, sources }, over) => {
  const agent = new Agent({ keepAlive: true });
  const request = (localAddress: string) =>
    new Promise<void>((resolve, reject) => {
      const sent = get({ host, port, path, localAddress, agent, timeout: 10_000 }, (response) => {
        if (response.statusCode !== 200)
          reject(unexpectedResponse(`status ${response.statusCode}`));
        response.on('error', reject);
        response.on('end', resolve);
        response.resume();
      });
      sent.on('timeout', () => sent.destroy(new Error('no response for 10 seconds')));
      sent.on('error', reject);
    });
  let requests = 0;
  try {
    for (; !over(); requests += 1) await request(sources[requests % sources.length] ?? host);
  } finally {
    agent.destroy();
  }
  return requests;
};

/** A connection over TCP, or to a unix socket. */
export function connected(where: NetConnectOpts): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(where, () => resolve(socket));
    socket.once('error', reject);
  });
}

/** The length of the response at the start of the text; undefined if its head is incomplete. */
function responseLength(text: string): number | undefined {
  const end = text.indexOf('\r\n\r\n');
  if (end < 0) return undefined;
  const length = /\r\ncontent-length: (\d+)/i.exec(text)?.[1];
  if (!text.startsWith('HTTP/1.1 200 ') || length === undefined) {
    throw unexpectedResponse(text.slice(0, end));
  }
  return end + 4 + Number(length);
}

/** Sends one request after another on a connection until `over()` returns true. */
export function exchange(socket: Socket, request: string, over: () => boolean): Promise<number> {
  return new Promise((resolve, reject) => {
    let answered = 0;
    let received = '';
    const fail = (error: Error) => {
      socket.destroy();
      reject(error);
    };
    socket.setEncoding('latin1');
    socket.setTimeout(10_000, () => fail(new Error('no response for 10 seconds')));
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

/** One request from every source at all times, over plain sockets, so that the server is the bottleneck. */
const flood: Load = async ({ host, port, path, sources }, over) => {
  const sockets = await Promise.all(
    sources.map((localAddress) => connected({ host, port, localAddress, noDelay: true })),
  );
  const request = `GET ${path} HTTP/1.1\r\nhost: ${host}\r\nconnection: keep-alive\r\n\r\n`;
  const counts = await Promise.all(sockets.map((socket) => exchange(socket, request, over)));
  return counts.reduce((sum, count) => sum + count, 0);
};

const loads = { oneByOne, flood };
export type LoadName = keyof typeof loads;

/** Loads a server for one round. Throws if the status of a response is not 200. */
export async function runRound(load: LoadName, round: Round): Promise<RoundResult> {
  const cpuBefore = cpuMilliseconds(round.pid);
  const start = performance.now();
  const end = start + round.milliseconds;
  const requests = await loads[load](round, () => performance.now() >= end);
  return {
    requests,
    seconds: (performance.now() - start) / 1000,
    cpuSeconds: (cpuMilliseconds(round.pid) - cpuBefore) / 1000,
  };
}
