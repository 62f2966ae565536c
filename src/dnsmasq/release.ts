import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import { type Ipv4, ipv4ToNumber, type Mac } from '../network.js';

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

/**
 * Releases leases on behalf of the machines that had them: dnsmasq has no other way to end a lease
 * early, and keeps the name in DNS and the address reserved until it expires. Must run on the
 * server's host. Rejects with the system's error.
 */
export async function releaseLeases(leases: readonly Lease[], server: Ipv4): Promise<void> {
  const socket = createSocket('udp4');
  try {
    for (const lease of leases) {
      await new Promise<void>((resolve, reject) => {
        socket.send(releaseMessage(lease, server), 67, server, (error) =>
          error ? reject(error) : resolve(),
        );
      });
      // dnsmasq's receive buffer holds only a few hundred messages.
      await setTimeout(1);
    }
  } finally {
    socket.close();
    await once(socket, 'close');
  }
}
