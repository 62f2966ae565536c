import type { Socket } from 'node:net';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { TokenUse, UserdataAnswer } from '../boots/boots.js';
import type { Instance } from '../instances/instance.js';
import type { Instances } from '../instances/instances.js';
import type { Logger } from '../log.js';
import type { DatasourceName } from '../metadata/datasources.js';
import { neighbourMac } from '../neighbours.js';
import { type Mac, peerAddress } from '../network.js';

/**
 * Who sent a request: an instance, an address that no instance has (`stranger`), or a machine that
 * answers with another MAC address than the instance whose address it uses (`impostor`).
 */
export type Caller = Instance | 'stranger' | 'impostor';

/** What is recorded about a request that only instances may make. */
export interface RequestRecord {
  readonly caller: Caller;
  /** What was asked for. */
  readonly kind: DatasourceName | 'phone-home';
  readonly token?: TokenUse | undefined;
  /** Set if the request was for user-data. */
  readonly userdata?: UserdataAnswer | undefined;
}

/** A route's answer to an instance, and what else is recorded about the request. */
export interface GuestAnswer extends Pick<RequestRecord, 'token' | 'userdata'> {
  readonly status: number;
  readonly body: string | Buffer;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Sends an answer. Returns nothing, since Fastify would wait for a returned reply, which costs time. */
export function sendAnswer(reply: FastifyReply, { status, body, headers = {} }: GuestAnswer): void {
  void reply.code(status).headers(headers).type('text/plain').send(body);
}

/** The answer for a path that does not exist, and for callers that are not instances. */
export const notFound: GuestAnswer = { status: 404, body: 'not found\n' };
/** The answer when the daemon or a template has an error. */
export const internalError: GuestAnswer = { status: 500, body: 'internal error, see the log\n' };

declare module 'fastify' {
  interface FastifyRequest {
    /** Undefined for a request that others than instances may make. */
    guestRecord: RequestRecord | undefined;
  }
}

/** What the look-up of a request's caller depends on. */
export interface CallerOptions {
  readonly instances: () => Instances;
  /** Whether an instance's address must answer with the instance's MAC address (mdserver.check_mac). */
  readonly checkMac: () => boolean;
  readonly log: Pick<Logger, 'warn'>;
}

/** The MAC address that answers for a peer: looked up once for each connection. */
const peerMacs = new WeakMap<Socket, Mac | undefined>();

/** Looks up the MAC address of an instance's address before the first request of a connection. */
export function lookUpPeers(app: FastifyInstance, { instances, checkMac }: CallerOptions): void {
  app.addHook('onRequest', (request, _reply, done) => {
    const { socket } = request.raw;
    const address = checkMac() ? peerAddress(socket.remoteAddress) : undefined;
    if (address === undefined || peerMacs.has(socket) || !instances().byAddress.has(address)) {
      done();
      return;
    }
    neighbourMac(address).then((mac) => {
      peerMacs.set(socket, mac);
      done();
    }, done);
  });
}

/**
 * Finds the caller by the peer's address alone: no header can change it. A guest can still take
 * another guest's address and answer ARP for it, which check_mac detects.
 */
function findCaller(
  { raw: { socket } }: FastifyRequest,
  { instances, checkMac, log }: CallerOptions,
): Caller {
  const address = peerAddress(socket.remoteAddress);
  const instance = address && instances().byAddress.get(address);
  if (instance === undefined) return 'stranger';
  const mac = checkMac() ? peerMacs.get(socket) : undefined;
  if (mac === undefined || instance.mac === undefined || mac === instance.mac) return instance;
  log.warn(`refused ${address}: it answers with ${mac}, but ${instance.name} has ${instance.mac}`);
  return 'impostor';
}

/**
 * Sends an instance its answer and anybody else a 404. Keeps the record of the request, which the
 * app writes when the answer is sent.
 */
export function answerGuest(
  request: FastifyRequest,
  reply: FastifyReply,
  options: CallerOptions,
  kind: RequestRecord['kind'],
  answer: (instance: Instance) => GuestAnswer | Promise<GuestAnswer>,
): void | Promise<void> {
  const caller = findCaller(request, options);
  const send = (sent: GuestAnswer) => {
    request.guestRecord = { caller, kind, token: sent.token, userdata: sent.userdata };
    sendAnswer(reply, sent);
  };
  if (caller === 'stranger' || caller === 'impostor') {
    send(notFound);
    return;
  }
  // This record stays if the route throws: Fastify's error handler answers then.
  request.guestRecord = { caller, kind };
  const answered = answer(caller);
  // Waiting for a promise costs more than the answer, so only a route that needs one returns it.
  if (answered instanceof Promise) return answered.then(send);
  send(answered);
}
