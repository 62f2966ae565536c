import type { Logger } from '../log.js';

/**
 * Logs what a peer causes. `address` is its source address, or undefined on the control socket. The
 * line is made only if it is written.
 */
export type PeerLog = (
  level: 'info' | 'warn' | 'error',
  address: string | undefined,
  line: () => string,
  error?: unknown,
) => void;

/** The name of all addresses that no instance has: they are one peer, since a guest can send from thousands. */
export const strangersName = 'addresses of no instance';
/** Characters of a URL or a user agent that are logged. */
export const maxLogged = 200;
/** Lines that a peer may cause in each second. */
const linesPerSecond = 20;
/** Lines that a peer may cause at once after a quiet time: all requests of several boots. */
const maxBurst = 400;

interface Peer {
  /** How many lines it may still cause. */
  left: number;
  /** What was not written in this second. */
  dropped: number;
  droppedWarnings: number;
}

/**
 * Limits the lines that each peer causes, so that none can fill the disk: of the lines above the
 * rate, one in each second says how many they are. All addresses that `isKnown` does not know count
 * as one peer.
 */
export function limitedLog(log: Logger, isKnown: (address: string) => boolean): PeerLog {
  const peers = new Map<string, Peer>();
  let timer: NodeJS.Timeout | undefined;

  function nextSecond(): void {
    for (const [name, peer] of peers) {
      const { dropped, droppedWarnings } = peer;
      if (dropped > 0) {
        const warnings = droppedWarnings > 0 ? `, ${droppedWarnings} of them warnings` : '';
        log[droppedWarnings > 0 ? 'warn' : 'info'](
          `${name}: ${dropped} more in this second${warnings}`,
        );
      }
      peer.left = Math.min(peer.left + linesPerSecond, maxBurst);
      peer.dropped = 0;
      peer.droppedWarnings = 0;
      if (peer.left === maxBurst) peers.delete(name);
    }
    if (peers.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  }

  function peerOf(address: string | undefined): Peer {
    let name = 'the control socket';
    if (address !== undefined) name = isKnown(address) ? address : strangersName;
    const known = peers.get(name);
    if (known !== undefined) return known;
    const peer = { left: maxBurst, dropped: 0, droppedWarnings: 0 };
    peers.set(name, peer);
    timer ??= setInterval(nextSecond, 1000).unref();
    return peer;
  }

  return (level, address, line, error) => {
    if (!log.isLevelEnabled(level)) return;
    const peer = peerOf(address);
    if (peer.left > 0) {
      peer.left -= 1;
      if (error === undefined) log[level](line());
      else log[level]({ err: error }, line());
      return;
    }
    peer.dropped += 1;
    if (level !== 'info') peer.droppedWarnings += 1;
  };
}
