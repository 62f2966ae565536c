import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from 'node:http';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';

/** The longest piece of a request that is parsed in one turn, in bytes: Node's limit for all headers. */
export const maxPieceBytes = 16 * 1024;
/** Requests that a connection may have. Then the peer has to make a new one, which is when it is counted. */
const maxRequests = 1000;

/**
 * Where the first piece of what was received ends: behind the first blank line, which ends a request's
 * headers, so that it holds one request at most. `line` is the length of the line that the bytes
 * continue; the answer has that of the line that the next ones continue.
 */
export function firstPiece(received: Buffer, line: number): { end: number; line: number } {
  let begin = 0;
  let before = line;
  for (;;) {
    const newline = received.indexOf('\n', begin);
    if (newline < 0 || newline >= maxPieceBytes) {
      const end = Math.min(received.length, maxPieceBytes);
      return { end, line: before + end - begin };
    }
    // Node takes a line feed alone for the end of a line, too. One more character is the carriage
    // return; any other only makes the piece shorter than it could be.
    if (before + newline - begin <= 1) return { end: newline + 1, line: 0 };
    before = 0;
    begin = newline + 1;
  }
}

/** What one peer waits for its turns with. */
interface Line {
  readonly waiting: (() => void)[];
  /** The peer has had its turn since the event loop last looked for input. */
  served: boolean;
}

/**
 * Gives every peer one turn for each turn of the event loop, whatever number of connections it has
 * and of requests it sends on them: a peer that sends many waits for itself, not others for it.
 * `nextTurn` calls its argument in the next turn.
 */
export function fairTurns(
  nextTurn: (turn: () => void) => void = setImmediate,
): (peer: string, work: () => void) => void {
  const lines = new Map<string, Line>();

  function serve(line: Line): void {
    const work = line.waiting.shift();
    if (work === undefined) return;
    line.served = true;
    work();
  }

  function turn(): void {
    for (const [peer, line] of lines) {
      line.served = false;
      serve(line);
      if (!line.served) lines.delete(peer);
    }
    if (lines.size > 0) nextTurn(turn);
  }

  return (peer, work) => {
    let line = lines.get(peer);
    if (line === undefined) {
      if (lines.size === 0) nextTurn(turn);
      line = { waiting: [], served: false };
      lines.set(peer, line);
    }
    line.waiting.push(work);
    // The usual case: a peer that sends one request does not wait.
    if (!line.served) serve(line);
  };
}

/** The ends of a connection. */
type Ends = Pick<Socket, 'remoteAddress' | 'remotePort' | 'localAddress' | 'localPort'>;
/** What Node's HTTP server and the routes use of a socket, beside the stream itself. */
type SocketLike = Ends & Pick<Socket, 'setTimeout' | 'destroySoon'>;

/** A connection as the HTTP server gets it. */
export interface PacedConnection {
  readonly stream: Duplex & SocketLike;
  /** To be called with each request that the HTTP server finds on the connection. */
  readonly begin: (request: IncomingMessage, response: ServerResponse) => void;
}

/**
 * A stream over a socket that hands on what was received one request at a time: the next one when
 * the last is answered, and only when it is this connection's turn. What is not handed on stays with
 * the peer (TCP's flow control), so requests that are sent ahead take no memory here. The addresses
 * of the stream stay when the socket is closed.
 */
export function pacedConnection(
  socket: Socket,
  takeTurn: (work: () => void) => void,
): PacedConnection {
  const nothing = Buffer.alloc(0);
  let received: Buffer = nothing;
  let ended = false;
  let paused = false;
  /** The stream asks for more. */
  let wanted = false;
  let waiting = false;
  /** The length of the line that the next bytes continue. */
  let unfinishedLine = 0;
  let requests = 0;
  let unanswered = 0;
  let newest: IncomingMessage | undefined;

  /**
   * Whether the stream may have more: not while a whole request is without an answer. The bytes that
   * complete a body may begin another request, of which only the first may so follow.
   */
  const isOpen = () => unanswered === 0 || (unanswered === 1 && newest?.complete === false);
  const mayHandOn = () => wanted && received.length > 0 && isOpen();

  function handOnPiece(): void {
    waiting = false;
    if (!mayHandOn()) return;
    const { end, line } = firstPiece(received, unfinishedLine);
    unfinishedLine = line;
    const piece = received.subarray(0, end);
    received = end === received.length ? nothing : received.subarray(end);
    wanted = false;
    stream.push(piece);
    proceed();
  }

  /** Does what can be done now: wait for a turn, or ask the socket for more. */
  function proceed(): void {
    if (mayHandOn()) {
      if (waiting) return;
      waiting = true;
      takeTurn(handOnPiece);
    } else if (received.length === 0) {
      if (ended) {
        if (isOpen()) stream.push(null);
      } else if (paused) {
        paused = false;
        socket.resume();
      }
    }
  }

  const duplex = new Duplex({
    // Only what was asked for is handed on.
    readableHighWaterMark: 1,
    // The headers are a string with an encoding of its own.
    decodeStrings: false,
    read() {
      wanted = true;
      proceed();
    },
    write(chunk, encoding, done) {
      socket.write(chunk, encoding, done);
    },
    writev(chunks, done) {
      // Of the headers with the body and the empty end that Node writes behind them, one is left. The
      // headers and a body of bytes go into one packet.
      const parts = chunks.filter(({ chunk }) => chunk.length > 0);
      const last = parts.pop();
      if (last === undefined) {
        done();
        return;
      }
      socket.cork();
      for (const { chunk, encoding } of parts) socket.write(chunk, encoding);
      socket.write(last.chunk, last.encoding, done);
      socket.uncork();
    },
    final(done) {
      socket.end(done);
    },
    destroy(error, done) {
      received = nothing;
      socket.destroy();
      done(error);
    },
  });
  const { remoteAddress, remotePort, localAddress, localPort } = socket;
  const ends = { remoteAddress, remotePort, localAddress, localPort } as Ends;
  const stream: Duplex & SocketLike = Object.assign(duplex, ends, {
    setTimeout(milliseconds: number, listener?: () => void) {
      socket.setTimeout(milliseconds);
      if (listener !== undefined) stream.once('timeout', listener);
      return stream as unknown as Socket;
    },
    destroySoon() {
      stream.end();
      if (stream.writableFinished) stream.destroy();
      else stream.once('finish', () => stream.destroy());
    },
  });

  socket.on('data', (chunk: Buffer) => {
    received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
    proceed();
    // Usually the one request was handed on at once, and pausing would cost as much as that.
    if (received.length > 0 && !paused) {
      paused = true;
      socket.pause();
    }
  });
  socket.on('end', () => {
    ended = true;
    proceed();
  });
  socket.on('timeout', () => stream.emit('timeout'));
  socket.on('error', (error) => stream.destroy(error));
  socket.on('close', () => stream.destroy());

  return {
    stream,
    begin(request, response) {
      newest = request;
      unanswered += 1;
      requests += 1;
      // Not server.maxRequestsPerSocket, which answers 503 to what the peer has sent ahead.
      if (requests >= maxRequests) response.shouldKeepAlive = false;
      response.once('close', () => {
        unanswered -= 1;
        proceed();
      });
    },
  };
}

/** Whom a connection counts for: everything that is limited is limited for each of these. */
export interface Peer {
  /** The same for all addresses of one instance, and for all addresses that no instance has. */
  readonly key: string;
  readonly maxConnections: number;
}

/** What connections are limited by. */
export interface ConnectionLimits {
  readonly peerOf: (remoteAddress: string | undefined) => Peer;
  /** The largest number of connections of all peers together. */
  readonly maxConnections: number;
  /** Called with each connection that is closed at once, and why. */
  readonly refused: (remoteAddress: string | undefined, reason: string) => void;
}

/** Makes HTTP servers that share their limits and turns. */
export type ServerMaker = (options: ServerOptions, handler: RequestListener) => Server;

/**
 * Returns a function that makes HTTP servers. All their connections together are bounded, and those
 * of each peer; each peer has its turns (fairTurns), one request of a connection at a time.
 */
export function pacedServers({ peerOf, maxConnections, refused }: ConnectionLimits): ServerMaker {
  const takeTurn = fairTurns();
  const counts = new Map<string, number>();
  const connections = new WeakMap<object, PacedConnection>();
  let total = 0;

  /** Counts the connection; undefined if it is one too many. */
  function admit(socket: Socket): Peer | undefined {
    const peer = peerOf(socket.remoteAddress);
    const count = (counts.get(peer.key) ?? 0) + 1;
    const problem =
      count > peer.maxConnections
        ? `${peer.key} has ${peer.maxConnections} connections already`
        : total >= maxConnections
          ? `there are ${maxConnections} connections already`
          : undefined;
    if (problem !== undefined) {
      refused(socket.remoteAddress, problem);
      return undefined;
    }
    total += 1;
    counts.set(peer.key, count);
    socket.once('close', () => {
      total -= 1;
      const left = (counts.get(peer.key) ?? 1) - 1;
      if (left === 0) counts.delete(peer.key);
      else counts.set(peer.key, left);
    });
    return peer;
  }

  return (options, handler) => {
    const server = createServer(options, (request, response) => {
      connections.get(request.socket)?.begin(request, response);
      handler(request, response);
    });
    // Node's own listener takes any stream (http, Event: 'connection').
    const [serve] = server.listeners('connection');
    server.removeAllListeners('connection');
    server.on('connection', (socket: Socket) => {
      // Without an address, the peer has reset the connection already.
      const peer = socket.remoteAddress === undefined ? undefined : admit(socket);
      if (peer === undefined) {
        socket.destroy();
        return;
      }
      // Nobody else listens yet.
      socket.on('error', () => undefined);
      // Making a parser takes longer than accepting: a peer that connects often waits for it, and
      // does not keep others in the kernel's queue.
      takeTurn(peer.key, () => {
        if (socket.destroyed) return;
        const connection = pacedConnection(socket, (work) => takeTurn(peer.key, work));
        connections.set(connection.stream, connection);
        serve?.call(server, connection.stream);
      });
    });
    return server;
  };
}
