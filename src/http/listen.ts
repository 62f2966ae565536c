import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { Socket } from 'node:net';
import type { FastifyInstance } from 'fastify';
import type { Logger } from '../log.js';
import { type IpAddress, serverUrl } from '../network.js';
import { headersTimeout, requestTimeout } from './app.js';
import { type ConnectionLimits, pacedServers } from './connections.js';
import type { PeerLog } from './peer-log.js';

/** mdserver cannot serve on an address; the message says why and what to do. */
export class ListenError extends Error {
  constructor(
    /** The address and the port, as a URL. */
    readonly url: string,
    /** Why, and what to do. */
    readonly reason: string,
    /** Whether the address may still appear: no interface has it yet. */
    readonly mayAppear: boolean,
  ) {
    super(`cannot serve on ${url}: ${reason}`);
  }
}

/** The sockets that an app is served on. */
export interface Listeners {
  /** One line for each address that is not served now. */
  problems(): readonly string[];
  /** Stops accepting requests. Resolves when those in flight are answered, after 5 seconds at most. */
  close(): Promise<void>;
}

/** What to do about an error, by its code. */
const remedies = new Map([
  ['EADDRINUSE', 'another program uses this address and port: stop it, or set mdserver.port'],
  [
    'EADDRNOTAVAIL',
    'no interface has this address yet (is its network up? virsh net-start mds; see mdserver.listen_address)',
  ],
  [
    'EPERM',
    'the unit allows only the port that mdserver.port was: run system-integration.sh again',
  ],
  ['EACCES', 'a port below 1024 needs CAP_NET_BIND_SERVICE (mdserver.service grants it)'],
]);

/** Connections that wait in the kernel to be accepted: with Node's 511, a burst of one guest loses those of others. */
const backlog = 4096;

function listenOn(server: Server, host: IpAddress, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const listening = () => {
      server.off('error', fail);
      resolve();
    };
    const fail = ({ code = '', message }: NodeJS.ErrnoException) => {
      server.off('listening', listening);
      const reason = remedies.get(code) ?? message;
      reject(new ListenError(serverUrl(host, port), reason, code === 'EADDRNOTAVAIL'));
    };
    server.once('error', fail);
    server.listen({ host, port, ipv6Only: true, backlog }, listening);
  });
}

/** Milliseconds that a connection may stand still: a peer may send nothing, or take nothing. */
const idleTimeout = 30_000;
/** Milliseconds that a connection is kept for another request. */
const keepAliveTimeout = 5000;
/** File descriptors for everything but connections: files, the control socket, child processes. */
const otherDescriptors = 128;

/** How many connections the limit of file descriptors leaves room for (proc(5)). */
export function connectionRoom(limits: string): number {
  const soft = /^Max open files +(\d+)/m.exec(limits)?.[1];
  const descriptors = soft === undefined ? Number.POSITIVE_INFINITY : Number(soft);
  return Math.max(descriptors - otherDescriptors, Math.floor(descriptors / 2));
}

/** Milliseconds between two attempts at an address that may appear. */
const retryInterval = 1000;

/** Resolves when the requests in flight are answered; cuts off those that take more than 5 seconds. */
function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    const cut = setTimeout(() => server.closeAllConnections(), 5000);
    server.close(() => {
      clearTimeout(cut);
      resolve();
    });
    server.closeIdleConnections();
  });
}

/** The status lines that Node itself would answer with, by the code of its error. */
const brokenRequests = new Map([
  ['HPE_HEADER_OVERFLOW', '431 Request Header Fields Too Large'],
  ['HPE_CHUNK_EXTENSIONS_OVERFLOW', '413 Payload Too Large'],
  ['ERR_HTTP_REQUEST_TIMEOUT', '408 Request Timeout'],
]);

/** What serving depends on. */
export interface ListenOptions extends Pick<ConnectionLimits, 'peerOf'> {
  readonly log: Logger;
  readonly peerLog: PeerLog;
}

/** Answers and logs what is not an HTTP request. */
function logBrokenRequests(server: Server, peerLog: PeerLog): void {
  server.on('clientError', ({ code = '', message }: NodeJS.ErrnoException, socket) => {
    const { remoteAddress, writableEnded } = socket as Socket;
    const isBroken = code.startsWith('HPE_') || code === 'ERR_HTTP_REQUEST_TIMEOUT';
    // A peer that has read why its body is refused does not send the rest of it.
    const isRequest = isBroken && !writableEnded;
    if (isRequest) {
      const status = brokenRequests.get(code) ?? '400 Bad Request';
      const line = () => `${remoteAddress} - no valid request: ${status}: ${message}`;
      peerLog('info', remoteAddress, line);
      // Behind its last request, a client expects no other answer.
      const isExpected = socket.writable && code !== 'HPE_CLOSED_CONNECTION';
      if (isExpected) socket.write(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`);
    }
    socket.destroy();
  });
}

/**
 * Throws ListenError if an address cannot be served on the port, and is not one that may still
 * appear. Nothing is left open.
 */
export async function tryListening(addresses: readonly IpAddress[], port: number): Promise<void> {
  for (const address of addresses) {
    const server = createServer();
    try {
      await listenOn(server, address, port);
    } catch (error) {
      if (!(error as ListenError).mayAppear) throw error;
    } finally {
      server.close();
    }
  }
}

/**
 * Serves the app on every address. One that no interface has yet is tried until it is there: libvirt
 * makes its bridge after mdserver has started, and an IPv6 address of a bridge is tentative until the
 * first guest joins (RFC 4862 5.4). Throws ListenError, with nothing left open, if an address that is
 * there cannot be served.
 */
export async function listen(
  app: FastifyInstance,
  addresses: readonly IpAddress[],
  port: number,
  { log, peerLog, peerOf }: ListenOptions,
): Promise<Listeners> {
  let closing = false;
  const retries = new Set<NodeJS.Timeout>();
  /** Why addresses are not served, by their URLs. */
  const missing = new Map<string, string>();
  app.addHook('onSend', (_request, reply, _payload, done) => {
    if (closing) reply.header('connection', 'close');
    done();
  });
  await app.ready();
  const makeServer = pacedServers({
    peerOf,
    maxConnections: connectionRoom(readFileSync('/proc/self/limits', 'utf8')),
    refused: (remote, reason) => {
      peerLog('warn', remote, () => `closed a connection from ${remote}: ${reason}`);
    },
  });
  const servers = new Map(
    addresses.map((address) => {
      const options = { headersTimeout, requestTimeout, keepAliveTimeout };
      const server = makeServer({ ...options, connectionsCheckingInterval: 5000 }, app.routing);
      server.timeout = idleTimeout;
      logBrokenRequests(server, peerLog);
      return [address, server];
    }),
  );
  const close = async () => {
    closing = true;
    for (const retry of retries) clearTimeout(retry);
    const listening = [...servers.values()].filter((server) => server.listening);
    await Promise.all(listening.map(closeServer));
    await app.close();
  };
  const serve = async (server: Server, address: IpAddress) => {
    await listenOn(server, address, port);
    // Without a listener, an error such as one of accept(2) would end the process.
    server.on('error', (error) => log.error(`${serverUrl(address, port)}: ${error.message}`));
    missing.delete(serverUrl(address, port));
    log.info(`serving on ${serverUrl(address, port)}`);
  };
  /** Says why an address is not served, once for each reason. */
  const report = ({ url, reason, mayAppear, message }: ListenError) => {
    if (missing.get(url) === reason) return;
    missing.set(url, reason);
    log[mayAppear ? 'warn' : 'error'](`${message}; mdserver continues without it and keeps trying`);
  };
  const tryAgain = (server: Server, address: IpAddress) => {
    const retry = setTimeout(() => {
      retries.delete(retry);
      serve(server, address).then(
        () => closing && server.close(),
        (error: ListenError) => {
          report(error);
          if (!closing) tryAgain(server, address);
        },
      );
    }, retryInterval);
    retries.add(retry);
  };

  const tried = [...servers].map(async ([address, server]) => {
    try {
      await serve(server, address);
      return undefined;
    } catch (error) {
      return { error: error as ListenError, retry: () => tryAgain(server, address) };
    }
  });
  const failures = (await Promise.all(tried)).filter((failure) => failure !== undefined);
  const serious = failures.find(({ error }) => !error.mayAppear);
  if (serious !== undefined) {
    await close();
    throw serious.error;
  }
  for (const { error, retry } of failures) {
    report(error);
    retry();
  }
  return {
    problems: () => Array.from(missing, ([url, reason]) => `not serving on ${url}: ${reason}`),
    close,
  };
}
