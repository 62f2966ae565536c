import { randomBytes } from 'node:crypto';
import {
  type IpAddress,
  type Ipv4,
  type Ipv4Network,
  type Ipv6,
  type Ipv6Network,
  ipv4ToNumber,
  numberToIpv4,
  numberToIpv6,
} from '../network.js';
import type { Uuid } from './uuid.js';

/**
 * An address that an instance gave up. Until the lease ends, its machine may still use it: no other
 * gets it before libvirt has said that the machine is gone, and then only if no other address is free.
 */
export interface RestingAddress {
  /** Unix seconds. */
  readonly since: number;
  /** The machine that had the address, and that may have it back. */
  readonly name: string;
  readonly uuid: Uuid | undefined;
  /** libvirt has said that the machine is gone. */
  readonly isGone: boolean;
}

/** In the order in which they were given up. */
export type RestingAddresses = ReadonlyMap<IpAddress, RestingAddress>;

/**
 * Finds a free IPv4 address of the network: the first for which `taken` returns false, starting from
 * a random one. Never the network or broadcast address. Undefined if the network is full.
 * `taken` gets the address as a number, since a full network has many to ask for; `random` returns
 * numbers from 0 up to but not including 1.
 */
export function freeIpv4(
  network: Ipv4Network,
  taken: (value: number) => boolean,
  random: () => number = Math.random,
): Ipv4 | undefined {
  const hosts = network.last - network.first - 1;
  const start = Math.floor(random() * hosts);
  for (let step = 0; step < hosts; step++) {
    const value = network.first + 1 + ((start + step) % hosts);
    if (!taken(value)) return numberToIpv4(value);
  }
  return undefined;
}

/** Whether an instance can have the address: it is in the network, but neither first nor last. */
export function isHostAddress(network: Ipv4Network, address: Ipv4): boolean {
  const value = ipv4ToNumber(address);
  return value > network.first && value < network.last;
}

/**
 * Finds a free IPv6 address of the network: the first for which `taken` returns false, starting from
 * a random one. Never the first address, which is the anycast address of the routers (RFC 4291
 * 2.6.1), nor the second, which is usually the host's, nor the last, as in Python md_server. Undefined if
 * the network is full.
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
