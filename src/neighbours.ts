import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import { promisify } from 'node:util';
import { type IpAddress, type Mac, parseMac } from './network.js';

const run = promisify(execFile);

/**
 * The MAC address that answers for an IPv4 address, from the text of `/proc/self/net/arp`
 * (proc(5)); undefined where there is no complete entry.
 */
export function macInArpTable(table: string, address: string): Mac | undefined {
  // Found without making lines of the others: there are as many as guests.
  const [, entry] = table.split(`\n${address} `, 2);
  const [, flags, hardware] = entry?.trimStart().split(/ +/, 3) ?? [];
  return flags === '0x0' ? undefined : parseMac(hardware ?? '');
}

/** The same for IPv6, which the kernel has no such file for: what `ip -j -6 neigh` says. */
export function macInNeighbours(json: string): Mac | undefined {
  const entries: { readonly lladdr?: string }[] = JSON.parse(json === '' ? '[]' : json);
  return parseMac(entries.find(({ lladdr }) => lladdr !== undefined)?.lladdr ?? '');
}

/**
 * The MAC address that the kernel has for an address; undefined where it has none, as for those
 * of the host itself and those behind a router. Rejects when the kernel cannot be asked.
 */
export async function neighbourMac(address: IpAddress): Promise<Mac | undefined> {
  // The unit's ProcSubset=pid leaves processes in /proc and nothing else, /proc/net not either.
  if (isIPv4(address)) return macInArpTable(readFileSync('/proc/self/net/arp', 'utf8'), address);
  const { stdout } = await run('ip', ['-j', '-6', 'neigh', 'show', 'to', address]);
  return macInNeighbours(stdout.trim());
}
