import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import { promisify } from 'node:util';
import { type IpAddress, type Mac, parseMac } from './network.js';

const execute = promisify(execFile);

/**
 * The MAC address of an IPv4 neighbour, from the text of `/proc/self/net/arp` (proc(5)); undefined
 * if the table has no complete entry for it.
 */
export function macInArpTable(table: string, address: string): Mac | undefined {
  // Without splitting the table into lines: it has one for each guest.
  const [, entry] = table.split(`\n${address} `, 2);
  const [, flags, hardware] = entry?.trimStart().split(/ +/, 3) ?? [];
  return flags === '0x0' ? undefined : parseMac(hardware ?? '');
}

/** The MAC address of an IPv6 neighbour, from the output of `ip -j -6 neigh show to ADDRESS`. */
export function macInNeighbours(json: string): Mac | undefined {
  const entries: { readonly lladdr?: string }[] = JSON.parse(json === '' ? '[]' : json);
  return parseMac(entries.find(({ lladdr }) => lladdr !== undefined)?.lladdr ?? '');
}

/**
 * The MAC address that the kernel's neighbour table has for an address; undefined if it has none,
 * as for the host's own addresses and those behind a router. Rejects if the table cannot be read.
 */
export async function neighbourMac(address: IpAddress): Promise<Mac | undefined> {
  // Not /proc/net/arp: with the unit's ProcSubset=pid, /proc holds only processes.
  if (isIPv4(address)) return macInArpTable(readFileSync('/proc/self/net/arp', 'utf8'), address);
  const { stdout } = await execute('ip', ['-j', '-6', 'neigh', 'show', 'to', address]);
  return macInNeighbours(stdout.trim());
}
