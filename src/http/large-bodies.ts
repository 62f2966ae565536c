import { Socket } from 'node:net';
import type { FastifyError, FastifyRequest } from 'fastify';
import { truncate } from '../text.js';
import { maxLogged, type PeerLog } from './peer-log.js';

/** What is read of a request behind its answer, in bytes and in milliseconds. */
const maxRest = 16 * 1024 * 1024;
const restTime = 5000;
/** Milliseconds between two looks at what was read. */
const watchInterval = 50;

/**
 * Why a body was refused that is longer than its route takes, with its size and the limit; undefined
 * for any other error.
 */
export function tooLarge(error: FastifyError, request: FastifyRequest): string | undefined {
  if (error.code !== 'FST_ERR_CTP_BODY_TOO_LARGE') return undefined;
  const { bodyLimit: limit } = request.routeOptions;
  const size = request.raw.headers['content-length'] ?? `more than ${limit}`;
  return `the body is too large: it has ${size} bytes, and at most ${limit} are allowed`;
}

/** Logs a body that is too large, which no handler sees. */
export function logTooLarge(peerLog: PeerLog, request: FastifyRequest, error: FastifyError): void {
  const reason = tooLarge(error, request);
  if (reason === undefined) return;
  const what = () => `${request.method} ${truncate(request.url, maxLogged)}`;
  peerLog('warn', request.socket.remoteAddress, () => `refused ${what()}: ${reason}`);
}

/**
 * Lets the peer read its answer, if it comes before the whole body has arrived and ends the connection:
 * to close it while the peer sends would reset it, and the answer would be lost (RFC 9112, 9.6). So
 * the connection is closed for writing first. What still comes is dropped, within limits.
 */
export function closeBehindBody({ raw, socket }: FastifyRequest): void {
  const close = () => {
    const before = socket.bytesRead;
    const end = performance.now() + restTime;
    const watch = setInterval(() => {
      if (socket.bytesRead - before > maxRest || performance.now() > end) socket.destroy();
    }, watchInterval);
    socket.once('close', () => clearInterval(watch));
    raw.once('end', () => Socket.prototype.destroySoon.call(socket));
    raw.resume();
    socket.end();
  };
  // Node calls it behind the last answer.
  socket.destroySoon = () => {
    if (raw.complete) Socket.prototype.destroySoon.call(socket);
    else close();
  };
}
