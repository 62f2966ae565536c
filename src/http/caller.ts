import type { Socket } from 'node:net';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Instance } from '../instances/instance.js';
import type { Instances } from '../instances/instances.js';
import type { Logger } from '../log.js';
import { neighbourMac } from '../neighbours.js';
import { type Mac, peerAddress } from '../network.js';

/** What the request log and the boot records are told of a request that only instances may make. */
export interface Seen {
  /** The instance that asks; null where it should be one and is not. */
  readonly instance: Instance | null;
  readonly kind: 'ec2' | 'nocloud' | 'openstack' | 'phone-home';
  token: 'given' | 'used' | 'refused' | undefined;
  /** The template that user-data was made from, null for the built-in one. */
  userdataFile: string | null | undefined;
  /** Length of the user-data in bytes. */
  userdataBytes: number;
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Set once it is known that only an instance may ask for the path. */
    seen: Seen | undefined;
  }
}

/** What decides who asks. */
export interface Callers {
  readonly instances: () => Instances;
  /** Whether the address has to answer with the instance's own MAC address (mdserver.check_mac). */
  readonly checkMac: () => boolean;
  readonly log: Pick<Logger, 'warn'>;
}

/** The MAC address that answers for a peer, asked for once in each connection. */
const peerMacs = new WeakMap<Socket, Mac | undefined>();

/** Has the kernel asked who answers for a peer's address, before its first request is looked at. */
export function lookUpPeers(app: FastifyInstance, { instances, checkMac }: Callers): void {
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
 * Finds who asks: the address of the peer alone decides, no header can change it. One guest can
 * take another's address and answer ARP for it, though, and so be sent what is the other's: that
 * is what the MAC address is looked at for.
 */
export function seeCaller(
  request: FastifyRequest,
  { instances, checkMac, log }: Callers,
  kind: Seen['kind'],
): Seen {
  const { socket } = request.raw;
  const address = peerAddress(socket.remoteAddress);
  const instance = (address && instances().byAddress.get(address)) ?? null;
  const mac = checkMac() ? peerMacs.get(socket) : undefined;
  const isOther = mac !== undefined && instance?.mac !== undefined && mac !== instance.mac;
  if (isOther) {
    log.warn(
      `${address} is answered for by ${mac}, not by ${instance.mac} of ${instance.name}: it gets nothing`,
    );
  }
  const seen: Seen = {
    instance: isOther ? null : instance,
    kind,
    token: undefined,
    userdataFile: undefined,
    userdataBytes: 0,
  };
  // The warning says it all: what is logged of callers with unknown addresses would be wrong.
  if (!isOther) request.seen = seen;
  return seen;
}
