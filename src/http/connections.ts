import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerOptions,
} from 'node:http';
import { Socket } from 'node:net';

/** The longest piece of a request that is parsed in one turn, in bytes: Node's limit for all headers. */
export const maxPieceBytes = 16 * 1024;
/** Requests that a connection may have. Then the peer has to make a new one, which is when it is counted. */
const maxRequests = 1000;

/** As a number, which Node finds ten times faster than as a text. */
const lineFeed = 10;

/**
 * Where the first piece of what was received ends: behind the first blank line, which ends a request's
 * headers, so that it holds one request at most. `line` is the length of the line that the bytes
 * continue; the answer has that of the line that the next ones continue.
 */
export function firstPiece(received: Buffer, line: number): { end: number; line: number } {
  let begin = 0;
  let before = line;
  for (;;) {
    const newline = received.indexOf(lineFeed, begin);
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

/** The turns of one peer. */
export interface Turns {
  /** Takes the peer's turn. False if it has had its turn, or something of it waits for one. */
  readonly take: () => boolean;
  /** Calls `work` when it is the peer's turn, behind all that waits already. */
  readonly wait: (work: () => void) => void;
}

/** What one peer waits for its turns with. */
interface Line {
  readonly waiting: (() => void)[];
  /** The number of the turn of the event loop in which the peer had its last turn. */
  served: number;
}

/**
 * Gives every peer one turn for each turn of the event loop, whatever number of connections it has
 * and of requests it sends on them: a peer that sends many waits for itself, not others for it.
 * Returns a function that makes the turns of one more peer. `nextTurn` calls its argument in the next
 * turn.
 */
export function fairTurns(nextTurn: (turn: () => void) => void = setImmediate): () => Turns {
  const lines = new Set<Line>();
  let current = 0;
  let isScheduled = false;

  function schedule(): void {
    if (isScheduled) return;
    isScheduled = true;
    nextTurn(turn);
  }

  function turn(): void {
    isScheduled = false;
    current += 1;
    // A copy: what begins to wait now waits for the next turn.
    for (const line of [...lines]) {
      const work = line.waiting.shift();
      line.served = current;
      work?.();
      if (line.waiting.length === 0) lines.delete(line);
      schedule();
    }
  }

  return () => {
    const line: Line = { waiting: [], served: -1 };
    return {
      take() {
        if (line.served === current || line.waiting.length > 0) return false;
        line.served = current;
        schedule();
        return true;
      },
      wait(work) {
        line.waiting.push(work);
        lines.add(line);
        schedule();
      },
    };
  };
}

/** Takes the newest listener of an event from a socket. */
function takeListener(socket: Socket, event: 'data' | 'end'): (chunk?: Buffer) => void {
  const listener = socket.listeners(event).at(-1) as (chunk?: Buffer) => void;
  socket.off(event, listener);
  return listener;
}

/**
 * Stands between a socket and the HTTP server that serves it, and hands on what is received one
 * request at a time: the next one when the last is answered, and only when it is the peer's turn.
 * What is not handed on stays with the peer (TCP's flow control), so requests that are sent ahead take
 * no memory here. `serve` makes the HTTP server serve the socket. Returns what is to be called with each
 * request that the HTTP server finds on the connection.
 */
export function pacedConnection(socket: Socket, turns: Turns, serve: () => void): RequestListener {
  // A socket forgets its own address when it is closed.
  Object.defineProperty(socket, 'localAddress', { value: socket.localAddress });
  serve();
  const parse = takeListener(socket, 'data');
  const finish = takeListener(socket, 'end');
  let ended = false;
  let isPaused = false;
  /** Bytes that were received, and given back to the socket for later. */
  let kept = 0;
  /** The HTTP server wants no more for now. */
  let isHeld = false;
  let isWaiting = false;
  /** This is the turn that the connection has waited for. */
  let isTurn = false;
  /** The length of the line that the next bytes continue. */
  let unfinishedLine = 0;
  let requests = 0;
  let unanswered = 0;
  let newest: IncomingMessage | undefined;

  /**
   * Whether the HTTP server may have more: not while a whole request is without an answer, and not
   * behind the last request. The bytes that complete a body may begin another request, of which only
   * the first may so follow.
   */
  const isOpen = () => {
    if (socket.destroyed) return false;
    return unanswered === 0
      ? requests < maxRequests
      : unanswered === 1 && newest?.complete === false;
  };

  function keep(rest: Buffer): void {
    isPaused = true;
    kept = rest.length;
    pause.call(socket);
    socket.unshift(rest);
  }

  function receive(chunk: Buffer): void {
    kept = 0;
    if (isHeld || !isOpen() || !(isTurn || turns.take())) {
      keep(chunk);
    } else {
      isTurn = false;
      const { end, line } = firstPiece(chunk, unfinishedLine);
      unfinishedLine = line;
      // Before the piece is parsed: then the socket may be closed.
      if (end < chunk.length) keep(chunk.subarray(end));
      parse(end < chunk.length ? chunk.subarray(0, end) : chunk);
    }
    proceed();
  }

  function readInTurn(): void {
    isWaiting = false;
    if (socket.destroyed) return;
    isTurn = true;
    // This emits them as data. Of a socket that gives all that it has, Node would receive more each time.
    socket.read(kept);
    isTurn = false;
  }

  /** Does what can be done now: wait for a turn, or let the socket receive more. */
  function proceed(): void {
    if (ended) {
      if (!isOpen()) return;
      ended = false;
      finish();
    } else if (isPaused && !isWaiting && !isHeld && isOpen()) {
      if (kept > 0) {
        isWaiting = true;
        turns.wait(readInTurn);
      } else {
        isPaused = false;
        resume.call(socket);
      }
    }
  }

  const answered = () => {
    unanswered -= 1;
    proceed();
  };

  const { pause, resume } = Socket.prototype;
  socket.pause = () => {
    isHeld = true;
    return socket;
  };
  socket.resume = () => {
    if (isHeld) {
      isHeld = false;
      proceed();
    }
    return socket;
  };
  socket.on('data', receive);
  socket.on('end', () => {
    ended = true;
    proceed();
  });

  return (request, response) => {
    newest = request;
    unanswered += 1;
    requests += 1;
    // Not server.maxRequestsPerSocket, which answers 503 to what the peer has sent ahead.
    if (requests >= maxRequests) response.shouldKeepAlive = false;
    response.on('close', answered);
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
  const newTurns = fairTurns();
  const peers = new Map<string, { readonly turns: Turns; connections: number }>();
  const listeners = new WeakMap<Socket, RequestListener>();
  let total = 0;

  /** Counts the connection, and returns the turns of its peer; undefined if it is one too many. */
  function admit(socket: Socket): Turns | undefined {
    const { key, maxConnections: most } = peerOf(socket.remoteAddress);
    const peer = peers.get(key) ?? { turns: newTurns(), connections: 0 };
    const problem =
      peer.connections >= most
        ? `${key} has ${most} connections already`
        : total >= maxConnections
          ? `there are ${maxConnections} connections already`
          : undefined;
    if (problem !== undefined) {
      refused(socket.remoteAddress, problem);
      return undefined;
    }
    total += 1;
    peer.connections += 1;
    peers.set(key, peer);
    socket.once('close', () => {
      total -= 1;
      peer.connections -= 1;
      if (peer.connections === 0) peers.delete(key);
    });
    return peer.turns;
  }

  return (options, handler) => {
    const server = createServer(options, (request, response) => {
      listeners.get(request.socket)?.(request, response);
      handler(request, response);
    });
    // Node's own listener serves a socket.
    const [serve] = server.listeners('connection');
    server.removeAllListeners('connection');
    server.on('connection', (socket: Socket) => {
      // Without an address, the peer has reset the connection already.
      const turns = socket.remoteAddress === undefined ? undefined : admit(socket);
      if (turns === undefined) {
        socket.destroy();
        return;
      }
      // Nobody else listens yet.
      socket.on('error', () => undefined);
      const begin = () => {
        if (socket.destroyed) return;
        listeners.set(
          socket,
          pacedConnection(socket, turns, () => serve?.call(server, socket)),
        );
      };
      // Making a parser takes longer than accepting: a peer that connects often waits for it, and
      // does not keep others in the kernel's queue.
      if (turns.take()) begin();
      else turns.wait(begin);
    });
    return server;
  };
}
