import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import { type Ipv4, ipv4ToNumber, ipv6ToBytes, type Mac } from '../network.js';
import type { Lease6 } from './log.js';

/** An address and the MAC address that it is leased to. */
export interface Lease {
  readonly ipv4: Ipv4;
  readonly mac: Mac;
}

/** The DHCPRELEASE message with which a client releases its lease (RFC 2131 4.4.6). */
function releaseMessage({ ipv4, mac }: Lease, server: Ipv4): Buffer {
  const fixedFields = 236;
  const magicCookie = [99, 130, 83, 99];
  // BOOTP's minimum length, which RFC 1542 2.1 requires.
  const message = Buffer.alloc(300);
  // A request (1) over Ethernet (1), which has 6-byte addresses.
  message.set([1, 1, 6]);
  message.writeUInt32BE(ipv4ToNumber(ipv4), 12);
  message.write(mac.replaceAll(':', ''), 28, 'hex');
  message.set([...magicCookie, 53, 1, 7, 54, 4, 0, 0, 0, 0, 255], fixedFields);
  message.writeUInt32BE(ipv4ToNumber(server), fixedFields + 9);
  return message;
}

/** An option of DHCPv6 (RFC 8415 21.1). */
function option6(code: number, ...parts: readonly Uint8Array[]): Buffer {
  const data = Buffer.concat(parts);
  const head = Buffer.alloc(4);
  head.writeUInt16BE(code);
  head.writeUInt16BE(data.length, 2);
  return Buffer.concat([head, data]);
}

/** The Release message with which a client of DHCPv6 releases its lease (RFC 8415 18.2.7). */
function release6Message({ address, duid, association, iaid, server }: Lease6): Buffer {
  const identifier = (text: string) => Buffer.from(text.replaceAll(':', ''), 'hex');
  // The times of the association, which a temporary address has none of, and of the address.
  const times = Buffer.alloc(8);
  const number = Buffer.alloc(4);
  number.writeUInt32BE(iaid);
  return Buffer.concat([
    Buffer.from([8, 0, 0, 0]),
    option6(1, identifier(duid)),
    option6(2, identifier(server)),
    option6(
      association,
      number,
      ...(association === 3 ? [times] : []),
      option6(5, ipv6ToBytes(address), times),
    ),
  ]);
}

/** Sends messages to dnsmasq, one after the other. Rejects with the system's error. */
async function sendAll(
  messages: readonly Buffer[],
  kind: 'udp4' | 'udp6',
  port: number,
  server: string,
): Promise<void> {
  const socket = createSocket(kind);
  try {
    for (const message of messages) {
      await new Promise<void>((resolve, reject) => {
        socket.send(message, port, server, (error) => (error ? reject(error) : resolve()));
      });
      // dnsmasq's receive buffer holds only a few hundred messages.
      await setTimeout(1);
    }
  } finally {
    socket.close();
    await once(socket, 'close');
  }
}

/**
 * Releases leases on behalf of the machines that had them: dnsmasq has no other way to end a lease
 * early, and keeps the name in DNS and the address reserved until it expires. Must run on the
 * server's host. Rejects with the system's error.
 */
export function releaseLeases(leases: readonly Lease[], server: Ipv4): Promise<void> {
  const messages = leases.map((lease) => releaseMessage(lease, server));
  return sendAll(messages, 'udp4', 67, server);
}

/** The same for leases of DHCPv6: to all its servers (RFC 8415 7.1) on the guests' bridge. */
export function releaseLeases6(leases: readonly Lease6[], bridge: string): Promise<void> {
  return sendAll(leases.map(release6Message), 'udp6', 547, `ff02::1:2%${bridge}`);
}
