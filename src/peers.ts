import { readFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { endianness } from 'node:os';

import ipaddr = require('ipaddr.js');

import { type IpAddress, peerAddress } from './network.js';

/** One end of a TCP connection. */
export interface TcpEnd {
  readonly address: IpAddress;
  readonly port: number;
}

/** An end as the kernel prints it: words of 32 bits in the host's byte order, then the port. */
function printed(bytes: readonly number[], port: number): string {
  const address = Buffer.from(bytes);
  if (endianness() === 'LE') address.swap32();
  const text = `${address.toString('hex')}:${port.toString(16).padStart(4, '0')}`;
  return text.toUpperCase();
}

/** How an end may stand in the tables. An IPv4 connection of an IPv6 socket has mapped addresses. */
function formsOf({ address, port }: TcpEnd): string[] {
  const parsed = ipaddr.parse(address);
  const mapped = parsed instanceof ipaddr.IPv4 ? [parsed.toIPv4MappedAddress()] : [];
  return [parsed, ...mapped].map((form) => printed(form.toByteArray(), port));
}

/**
 * The uid of the process at the other end of a connection within this host, from the texts of
 * `/proc/self/net/tcp` and `tcp6` (proc(5)). It stands in the line of the peer's own socket.
 * Undefined without one such line that is established and has an inode: a socket that was closed has
 * no inode, and its uid is printed as 0.
 */
export function uidInTcpTables(tables: string, own: TcpEnd, peer: TcpEnd): number | undefined {
  const ownForms = formsOf(own);
  const found = formsOf(peer).flatMap((form, index) => {
    const line = `: ${form} ${ownForms[index]} 01 \\S+ \\S+ \\S+ +(\\d+) +\\d+ (\\d+) `;
    return [...tables.matchAll(new RegExp(line, 'g'))];
  });
  const [, uid, inode] = found[0] ?? [];
  return found.length === 1 && inode !== '0' ? Number(uid) : undefined;
}

/** The text of a table of the kernel; empty for tcp6 on a host without IPv6. */
async function tcpTable(path: string): Promise<string> {
  try {
    return await readFile(path, 'latin1');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' && path.endsWith('6')) return '';
    throw error;
  }
}

// Not /proc/net/tcp: with the unit's ProcSubset=pid, /proc holds only processes.
const tablePaths = ['/proc/self/net/tcp', '/proc/self/net/tcp6'];

/**
 * The kernel prints the tables page by page, and not all of them at one moment: while connections come
 * and go, a line can be left out or be there twice.
 */
const maxReadings = 3;

let reading: Promise<unknown> = Promise.resolve();
let nextTables: Promise<string> | undefined;

/**
 * The tables as they are from now on. The kernel takes tens of milliseconds to print them, so that
 * nothing waits for that but uploads, and all that come during one reading share the next.
 */
function tcpTables(): Promise<string> {
  nextTables ??= reading.then(async () => {
    nextTables = undefined;
    const texts = Promise.all(tablePaths.map(tcpTable));
    reading = texts.catch(() => undefined);
    return (await texts).join('');
  });
  return nextTables;
}

/**
 * The uid of the process that has the other end of a connection; undefined if it is not on this
 * host, or has closed its end. `readTables` gives the kernel's tables as they are from now on. Throws if
 * they cannot be read.
 */
export async function peerUid(
  socket: Pick<Socket, 'destroyed' | 'localAddress' | 'localPort' | 'remoteAddress' | 'remotePort'>,
  readTables: () => Promise<string> = tcpTables,
): Promise<number | undefined> {
  const own = peerAddress(socket.localAddress);
  const peer = peerAddress(socket.remoteAddress);
  const { localPort, remotePort } = socket;
  if (own === undefined || peer === undefined) return undefined;
  if (localPort === undefined || remotePort === undefined) return undefined;
  for (let attempt = 1; attempt <= maxReadings; attempt += 1) {
    const tables = await readTables();
    // After a reset, another process may have the peer's port.
    if (socket.destroyed) return undefined;
    const uid = uidInTcpTables(
      tables,
      { address: own, port: localPort },
      { address: peer, port: remotePort },
    );
    if (uid !== undefined) return uid;
  }
  return undefined;
}
