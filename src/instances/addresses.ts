import { randomBytes } from 'node:crypto';
import {
  type IpAddress,
  type Ipv4,
  type Ipv4Network,
  type Ipv4Range,
  type Ipv6,
  type Ipv6Network,
  inIpv6Network,
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
 * What is left of a network for instances that choose no address: neither its first and last address
 * nor what is kept free. In the order of the addresses.
 */
export function ipv4Pool(network: Ipv4Network, keptFree: readonly Ipv4Range[]): Ipv4Range[] {
  const pool: Ipv4Range[] = [];
  let next = network.first + 1;
  for (const { first, last } of [...keptFree].sort((one, other) => one.first - other.first)) {
    if (first > next) pool.push({ first: next, last: Math.min(first, network.last) - 1 });
    next = Math.max(next, last + 1);
  }
  if (next < network.last) pool.push({ first: next, last: network.last - 1 });
  return pool.filter(({ first, last }) => first <= last);
}

/** The number of addresses in a pool. */
export function poolSize(pool: readonly Ipv4Range[]): number {
  return pool.reduce((sum, { first, last }) => sum + last - first + 1, 0);
}

/** Whether the address, as a number, is in a pool. */
export function inPool(pool: readonly Ipv4Range[], value: number): boolean {
  return pool.some(({ first, last }) => value >= first && value <= last);
}

/**
 * Finds a free IPv4 address of a pool: the first for which `taken` returns false, starting from a
 * random one. Undefined if the pool is full.
 * `taken` gets the address as a number, since a full network has many to ask for; `random` returns
 * numbers from 0 up to but not including 1.
 */
export function freeIpv4(
  pool: readonly Ipv4Range[],
  taken: (value: number) => boolean,
  random: () => number = Math.random,
): Ipv4 | undefined {
  let start = Math.floor(random() * poolSize(pool));
  const index = pool.findIndex(({ first, last }) => {
    if (start <= last - first) return true;
    start -= last - first + 1;
    return false;
  });
  const range = pool[index];
  if (range === undefined) return undefined;
  const from = range.first + start;
  const others = [...pool.slice(index + 1), ...pool.slice(0, index)];
  const inOrder = [
    { first: from, last: range.last },
    ...others,
    { first: range.first, last: from - 1 },
  ];
  for (const { first, last } of inOrder) {
    for (let value = first; value <= last; value++) if (!taken(value)) return numberToIpv4(value);
  }
  return undefined;
}

/** Whether an instance can have the address: it is in the network, but neither first nor last. */
export function isHostAddress(network: Ipv4Network, address: Ipv4): boolean {
  const value = ipv4ToNumber(address);
  return value > network.first && value < network.last;
}

/**
 * Whether an instance can choose the IPv6 address: it is in the network, but neither the first, which
 * is the anycast address of the routers (RFC 4291 2.6.1), nor the second, which is usually the host's,
 * nor the last, as in Python md_server.
 */
export function isHostAddress6(network: Ipv6Network, address: Ipv6): boolean {
  const { first, last } = network;
  return (
    inIpv6Network(network, address) &&
    ![first, first + 1n, last].some((value) => numberToIpv6(value) === address)
  );
}

/**
 * Finds a free IPv6 address of the network: the first for which `taken` returns false, starting from
 * a random one. Never one that isHostAddress6 refuses. Undefined if the network is full.
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
