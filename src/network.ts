import { isIPv4 } from 'node:net';

import ipaddr = require('ipaddr.js');

declare const checked: unique symbol;

/** A checked IPv4 address in dotted form. */
export type Ipv4 = string & { readonly [checked]: 'ipv4' };
/** A checked IPv6 address in the form of RFC 5952: shortest, lower case. */
export type Ipv6 = string & { readonly [checked]: 'ipv6' };
/** A checked IPv4 or IPv6 address. */
export type IpAddress = Ipv4 | Ipv6;
/** A checked MAC address: six pairs of lower-case hexadecimal digits, separated by colons. */
export type Mac = string & { readonly [checked]: 'mac' };

/** An IPv4 network. */
export interface Ipv4Network {
  readonly address: Ipv4;
  readonly prefix: number;
  /** The network address as an unsigned number. */
  readonly first: number;
  /** The broadcast address as an unsigned number. */
  readonly last: number;
}

/** Consecutive IPv4 addresses, as unsigned numbers, its ends included. */
export interface Ipv4Range {
  readonly first: number;
  readonly last: number;
}

/** The text as an IPv4 address; undefined if it is not one. */
export function parseIpv4(text: string): Ipv4 | undefined {
  return isIPv4(text) ? (text as Ipv4) : undefined;
}

/** The text as an IPv6 address without a zone, in its short form; undefined if it is not one. */
export function parseIpv6(text: string): Ipv6 | undefined {
  if (!ipaddr.IPv6.isValid(text)) return undefined;
  const address = ipaddr.IPv6.parse(text);
  return address.zoneId === undefined ? (address.toRFC5952String() as Ipv6) : undefined;
}

/** The text as an IP address, an IPv6 one with or without brackets; undefined if it is not one. */
export function parseIp(text: string): IpAddress | undefined {
  const bare = /^\[(.*)\]$/.exec(text)?.[1];
  return bare === undefined ? (parseIpv4(text) ?? parseIpv6(text)) : parseIpv6(bare);
}

/**
 * The text as a MAC address in lower case; undefined if it is not one. Bytes may have one digit, as
 * libvirt and dnsmasq take them.
 */
export function parseMac(text: string): Mac | undefined {
  const lower = text.toLowerCase();
  if (!/^[0-9a-f]{1,2}(:[0-9a-f]{1,2}){5}$/.test(lower)) return undefined;
  const isLong = lower.length === 17;
  return (isLong ? lower : lower.replace(/\b[0-9a-f]\b/g, '0$&')) as Mac;
}

/** The address as an unsigned 32-bit number. */
export function ipv4ToNumber(address: Ipv4): number {
  return address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
}

/** The address with this value, an unsigned 32-bit number. */
export function numberToIpv4(value: number): Ipv4 {
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join('.') as Ipv4;
}

/** The 16 bytes of the address. */
export function ipv6ToBytes(address: Ipv6): Uint8Array {
  return Uint8Array.from(ipaddr.IPv6.parse(address).toByteArray());
}

/** The network of an address with this prefix length (0 to 32). */
export function ipv4Network(address: Ipv4, prefix: number): Ipv4Network {
  const size = 2 ** (32 - prefix);
  const first = Math.floor(ipv4ToNumber(address) / size) * size;
  return { address: numberToIpv4(first), prefix, first, last: first + size - 1 };
}

/** The prefix length of a netmask (255.255.0.0) or hostmask (0.0.255.255); undefined if it is neither. */
export function prefixOfMask(mask: Ipv4): number | undefined {
  const value = ipv4ToNumber(mask);
  const size = value < 2 ** 31 ? value + 1 : 2 ** 32 - value;
  const prefix = 32 - Math.log2(size);
  return Number.isInteger(prefix) ? prefix : undefined;
}

/** The text as an address, a range (`10.0.0.2-10.0.0.9`) or a network (`10.0.0.0/28`); undefined if it is none. */
export function parseIpv4Range(text: string): Ipv4Range | undefined {
  const [, start = '', end, digits] = /^([\d.]+)(?:\s*-\s*([\d.]+)|\/(\d{1,2}))?$/.exec(text) ?? [];
  const first = parseIpv4(start);
  const last = parseIpv4(end ?? start);
  if (first === undefined || last === undefined) return undefined;
  if (digits === undefined) {
    const range = { first: ipv4ToNumber(first), last: ipv4ToNumber(last) };
    return range.first <= range.last ? range : undefined;
  }
  const prefix = Number(digits);
  const network = prefix <= 32 ? ipv4Network(first, prefix) : undefined;
  // As strictly as with dnsmasq.net_address: one with host bits may be a slip.
  return network?.address === first ? { first: network.first, last: network.last } : undefined;
}

/** Whether the address is in the network, its first and last address included. */
export function inIpv4Network(network: Ipv4Network, address: Ipv4): boolean {
  const value = ipv4ToNumber(address);
  return value >= network.first && value <= network.last;
}

/**
 * A socket's remote address in the form that records use: an IPv4-mapped address
 * (`::ffff:10.0.0.1`, RFC 4291 2.5.5.2) as IPv4, an IPv6 address without its zone.
 */
export function peerAddress(remote: string | undefined): IpAddress | undefined {
  if (remote === undefined) return undefined;
  if (isIPv4(remote)) return remote as Ipv4;
  const bare = remote.replace(/%.*$/, '');
  return parseIpv4(bare.replace(/^::ffff:/i, '')) ?? parseIpv6(bare);
}

/** An IPv6 network. */
export interface Ipv6Network {
  readonly address: Ipv6;
  readonly prefix: number;
  /** Its first address as an unsigned number. */
  readonly first: bigint;
  /** Its last address as an unsigned number. */
  readonly last: bigint;
}

/** The address with this value, an unsigned 128-bit number. */
export function numberToIpv6(value: bigint): Ipv6 {
  const parts = Array.from({ length: 8 }, (_, index) =>
    Number((value >> BigInt(112 - 16 * index)) & 0xffffn),
  );
  return new ipaddr.IPv6(parts).toRFC5952String() as Ipv6;
}

function ipv6ToNumber(address: Ipv6): bigint {
  return ipaddr.IPv6.parse(address).parts.reduce((sum, part) => (sum << 16n) | BigInt(part), 0n);
}

/** The network of an address with this prefix length (0 to 128). */
export function ipv6Network(address: Ipv6, prefix: number): Ipv6Network {
  const size = 1n << BigInt(128 - prefix);
  const first = (ipv6ToNumber(address) / size) * size;
  return { address: numberToIpv6(first), prefix, first, last: first + size - 1n };
}

/** Whether the address is in the network, its first and last address included. */
export function inIpv6Network(network: Ipv6Network, address: Ipv6): boolean {
  const value = ipv6ToNumber(address);
  return value >= network.first && value <= network.last;
}

/**
 * The zones of reverse look-ups that have the addresses of a network and no others (RFC 1035 3.5, RFC
 * 3596 2.5). A prefix that ends inside a label needs several: at most 128 with IPv4, 8 with IPv6.
 */
export function reverseZones({ first, prefix }: Ipv4Network | Ipv6Network): string[] {
  const [bits, bitsOfLabel, radix, top] =
    typeof first === 'number'
      ? ([32, 8, 10, 'in-addr.arpa'] as const)
      : ([128, 4, 16, 'ip6.arpa'] as const);
  const labels = Math.ceil(prefix / bitsOfLabel);
  const zoneBits = labels * bitsOfLabel;
  const firstZone = BigInt(first) >> BigInt(bits - zoneBits);
  return Array.from({ length: 2 ** (zoneBits - prefix) }, (_, index) => {
    const zone = firstZone + BigInt(index);
    const digits = Array.from({ length: labels }, (_, label) =>
      ((zone >> BigInt(label * bitsOfLabel)) % BigInt(2 ** bitsOfLabel)).toString(radix),
    );
    return [...digits, top].join('.');
  });
}

/** `http://ADDRESS:PORT`, with an IPv6 address in brackets and without port 80. */
export function serverUrl(address: string, port: number): string {
  // Not isIPv6: Node compiles its pattern at the first use, which takes 3 ms of a start.
  const host = address.includes(':') ? `[${address}]` : address;
  return port === 80 ? `http://${host}` : `http://${host}:${port}`;
}
