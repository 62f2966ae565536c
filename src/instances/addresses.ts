import { randomBytes } from 'node:crypto';
import {
  type Ipv4,
  type Ipv4Network,
  type Ipv6,
  type Ipv6Network,
  ipv4ToNumber,
  numberToIpv4,
  numberToIpv6,
} from '../network.js';

/**
 * A free IPv4 address of the network, or undefined when there is none: the first one that
 * `taken` lets pass, from a random place on. Never the network's own or its broadcast address.
 * `random` gives numbers from 0 up to, not including, 1.
 */
export function freeIpv4(
  network: Ipv4Network,
  taken: (address: Ipv4) => boolean,
  random: () => number = Math.random,
): Ipv4 | undefined {
  const hosts = network.last - network.first - 1;
  const start = Math.floor(random() * hosts);
  for (let step = 0; step < hosts; step++) {
    const address = numberToIpv4(network.first + 1 + ((start + step) % hosts));
    if (!taken(address)) return address;
  }
  return undefined;
}

/** Whether the address can be an instance's: within the network and not one of its two ends. */
export function isHostAddress(network: Ipv4Network, address: Ipv4): boolean {
  const value = ipv4ToNumber(address);
  return value > network.first && value < network.last;
}

/**
 * A free IPv6 address of the network, or undefined where a small one is full: the first one that
 * `taken` lets pass, from a random place on. Never the first one, the anycast address of its
 * routers (RFC 4291 2.6.1), nor the one behind it, which is the host's by custom, nor the last,
 * as in Python.
 */
export function freeIpv6(
  { first, last }: Ipv6Network,
  taken: (address: Ipv6) => boolean,
): Ipv6 | undefined {
  const hosts = last - first - 2n;
  const start = BigInt(`0x${randomBytes(16).toString('hex')}`) % hosts;
  for (let step = 0n; step < hosts; step++) {
    const address = numberToIpv6(first + 2n + ((start + step) % hosts));
    if (!taken(address)) return address;
  }
  return undefined;
}
