import { connect } from 'node:net';
import type { Logger } from '../log.js';
import { discardPort } from '../neighbours.js';
import type { Ipv6 } from '../network.js';
import { dhcpSaid, type Lease6, leases6Given } from './log.js';
import { releaseLeases6 } from './release.js';

/** What the leases of DHCPv6 depend on. */
export interface Leases6Parts {
  /** The guests' bridge. */
  readonly bridge: string;
  readonly isInstances: (address: Ipv6) => boolean;
  readonly log: Logger;
}

/**
 * The leases of DHCPv6 that dnsmasq has given, as far as its log tells. dnsmasq gives a leased address
 * to no other DUID, even of the same machine: so those that nobody needs any more have to be ended.
 */
export interface Leases6 {
  /** Takes in a line of dnsmasq's log. */
  read(line: string): void;
  /** Ends the leases of an address whose machine starts or is gone. Logs errors and never throws. */
  end(address: Ipv6): Promise<void>;
  /**
   * The same for an address that dnsmasq refused to its own machine: only if no machine answers for it.
   * Whoever asks says by itself which machine it is.
   */
  endUnused(address: Ipv6): Promise<void>;
}

/**
 * Leases of an address that are kept. dnsmasq has one at a time, but for clients that rebind: it then
 * gives a lease without a look at others.
 */
const maxLeases = 8;

/** Creates an empty list of leases. Those of addresses that no instance has are not kept. */
export function createLeases6({ bridge, isInstances, log }: Leases6Parts): Leases6 {
  const all = new Map<Ipv6, readonly Lease6[]>();
  const given = leases6Given();
  /** The addresses at which somebody is looked for. */
  const checked = new Set<Ipv6>();

  async function end(address: Ipv6): Promise<void> {
    const leases = all.get(address);
    if (leases === undefined) return;
    all.delete(address);
    try {
      await releaseLeases6(leases, bridge);
    } catch (error) {
      log.error(
        `dnsmasq may keep the DHCPv6 lease of ${address} until it expires: ${(error as Error).message}`,
      );
    }
  }

  return {
    read(line) {
      const said = dhcpSaid(line);
      const lease = said && given(said);
      if (lease === undefined || !isInstances(lease.address)) return;
      const { address, duid, iaid, association } = lease;
      const others = (all.get(address) ?? []).filter(
        (one) => one.duid !== duid || one.iaid !== iaid || one.association !== association,
      );
      all.set(address, [...others, lease].slice(-maxLeases));
    },
    end,
    async endUnused(address) {
      if (!all.has(address) || checked.has(address)) return;
      checked.add(address);
      const unused = await isUnused(address);
      checked.delete(address);
      if (!unused) return;
      log.info(`the DHCPv6 lease of ${address} ends: another DUID asks, and nobody uses it`);
      await end(address);
    },
  };
}

/** Milliseconds. The kernel gives up after 3 seconds, or after 8 if it knew somebody at the address. */
const answerTime = 12_000;

/** Whether no machine of the guests' network has the address: the kernel finds no neighbour there. */
export async function isUnused(address: Ipv6): Promise<boolean> {
  const socket = connect({ host: address, port: discardPort });
  try {
    return await new Promise<boolean>((resolve) => {
      socket.setTimeout(answerTime, () => resolve(false));
      socket.once('connect', () => resolve(false));
      socket.once('error', ({ code }: NodeJS.ErrnoException) => resolve(code === 'EHOSTUNREACH'));
    });
  } finally {
    socket.destroy();
  }
}
