import type { FastifyReply, FastifyRequest, onRequestHookHandler } from 'fastify';
import type { TokenUse, UserdataAnswer } from '../boots/boots.js';
import type { Config } from '../config/options.js';
import { type Instance, machineKey } from '../instances/instance.js';
import type { Instances } from '../instances/instances.js';
import type { DatasourceName } from '../metadata/datasources.js';
import { NeighbourError, type NeighbourMac } from '../neighbours.js';
import { type IpAddress, type Mac, peerAddress } from '../network.js';
import type { Peer } from './connections.js';
import { type PeerLog, strangersName } from './peer-log.js';

/**
 * Who sent a request: an instance, an address that no instance has (`stranger`), or an instance's
 * address that does not have the instance's MAC address (`impostor`).
 */
export type Caller = Instance | 'stranger' | 'impostor';

/** Whether a remote address is this host's: loopback, or one that mdserver listens on. */
export function isThisHost(
  { listen_address }: Pick<Config['mdserver'], 'listen_address'>,
  remote: string | undefined,
): boolean {
  const address = peerAddress(remote) ?? '';
  return (
    address === '127.0.0.1' || address === '::1' || listen_address.some((own) => own === address)
  );
}

/** Connections that one instance may have at a time: far more than any client of metadata opens. */
const instanceConnections = 64;
/** Those of this host, with all its users and monitoring, and those of all unknown addresses together. */
const otherConnections = 256;

/** Whom a connection from this address counts for. */
export function peerOf(
  config: Config['mdserver'],
  { byAddress }: Instances,
  remote: string | undefined,
): Peer {
  const instance = byAddress.get(peerAddress(remote) as IpAddress);
  if (instance !== undefined) {
    return { key: `the instance ${machineKey(instance)}`, maxConnections: instanceConnections };
  }
  const key = isThisHost(config, remote) ? 'this host' : strangersName;
  return { key, maxConnections: otherConnections };
}

/** What is recorded about a request that only instances may make. */
export interface RequestRecord {
  readonly caller: Caller;
  /** What was asked for. */
  readonly kind: DatasourceName | 'phone-home';
  token: TokenUse | undefined;
  /** Set if the request was for user-data. */
  userdata: UserdataAnswer | undefined;
  /** The file that could not be rendered for the answer. */
  failedFile: string | undefined;
}

/** A route's answer to an instance, and what else is recorded about the request. */
export interface GuestAnswer
  extends Partial<Pick<RequestRecord, 'token' | 'userdata' | 'failedFile'>> {
  readonly status: number;
  readonly body: string | Buffer;
  /** Its media type; text/plain where this is missing. */
  readonly type?: string | undefined;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Sends an answer. Returns nothing, since Fastify would wait for a returned reply, which costs time. */
export function sendAnswer(reply: FastifyReply, answer: GuestAnswer): void {
  const { status, body, type = 'text/plain', headers } = answer;
  if (headers !== undefined) reply.headers(headers);
  void reply.code(status).type(type).send(body);
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
  /** Whether an instance's address must have the instance's MAC address (mdserver.check_mac). */
  readonly checkMac: () => boolean;
  readonly neighbourMac: NeighbourMac;
  readonly peerLog: PeerLog;
}

/**
 * Finds the instance by the peer's address alone: no header can change it. A guest can still take
 * another guest's address and answer ARP for it, which check_mac detects.
 */
export function instanceOf(
  { raw }: FastifyRequest,
  { instances }: Pick<CallerOptions, 'instances'>,
): Instance | undefined {
  const { byAddress } = instances();
  const remote = raw.socket.remoteAddress as IpAddress | undefined;
  if (remote === undefined) return undefined;
  // An IPv4 address is there as records have it, if no socket for both families took it.
  const found = byAddress.get(remote);
  if (found !== undefined) return found;
  const address = peerAddress(remote);
  return address && byAddress.get(address);
}

/** Why a machine with this MAC address is not the instance, and what to do; undefined if it is. */
function impostorReason({ name, mac }: Instance, found: Mac | undefined): string | undefined {
  if (mac === undefined) {
    return `the record of ${name} has no MAC address to compare: upload its domain again`;
  }
  if (found === undefined) {
    return `the neighbour table has no complete entry for it on the guests' bridge: ${name} must ask from there, not from the host or through a router`;
  }
  if (found === mac) return undefined;
  return `it answers with ${found}, but ${name} has ${mac}: remove the address from the other machine, or upload the domain again if its MAC address has changed`;
}

/** The caller, if the kernel's neighbour table now has the instance's MAC address for it. */
async function checkedCaller(request: FastifyRequest, options: CallerOptions): Promise<Caller> {
  const address = peerAddress(request.raw.socket.remoteAddress);
  if (address === undefined || instanceOf(request, options) === undefined) return 'stranger';
  let reason: string | undefined;
  try {
    const mac = await options.neighbourMac(address);
    // Only now: meanwhile the address may have become another instance's.
    const instance = options.instances().byAddress.get(address);
    if (instance === undefined) return 'stranger';
    reason = impostorReason(instance, mac);
    if (reason === undefined) return instance;
  } catch (error) {
    if (!(error instanceof NeighbourError)) throw error;
    reason = `its MAC address cannot be checked: ${error.message}`;
  }
  options.peerLog('warn', address, () => `refused ${address}: ${reason} (mdserver.check_mac)`);
  return 'impostor';
}

/** Sends a caller's answer. The record is kept before, and stays if the route throws: Fastify's error handler answers then. */
function respond(
  request: FastifyRequest,
  reply: FastifyReply,
  kind: RequestRecord['kind'],
  caller: Caller,
  answer: (instance: Instance) => GuestAnswer | Promise<GuestAnswer>,
): void | Promise<void> {
  const record: RequestRecord = {
    caller,
    kind,
    token: undefined,
    userdata: undefined,
    failedFile: undefined,
  };
  request.guestRecord = record;
  if (caller === 'stranger' || caller === 'impostor') {
    sendAnswer(reply, notFound);
    return;
  }
  const send = (sent: GuestAnswer) => {
    record.token = sent.token;
    record.userdata = sent.userdata;
    record.failedFile = sent.failedFile;
    sendAnswer(reply, sent);
  };
  const answered = answer(caller);
  // Waiting for a promise costs more than the answer, so only a route that needs one returns it.
  if (answered instanceof Promise) return answered.then(send);
  send(answered);
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
  // Here, where every route gets its instance, and before each answer: a connection is kept for many.
  if (options.checkMac()) {
    return checkedCaller(request, options).then((caller) => {
      return respond(request, reply, kind, caller, answer);
    });
  }
  // Without a promise, which would cost more than the answer.
  return respond(request, reply, kind, instanceOf(request, options) ?? 'stranger', answer);
}

/**
 * A hook for requests with a body: answers 404 to who is no instance before the body is read, which nobody
 * else may make mdserver keep in memory.
 */
export function refuseStrangers(
  options: CallerOptions,
  kind: RequestRecord['kind'],
): onRequestHookHandler {
  return (request, reply, done) => {
    if (instanceOf(request, options) !== undefined) done();
    else void answerGuest(request, reply, options, kind, () => notFound);
  };
}
