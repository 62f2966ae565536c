import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import { type Ipv4, ipv4ToNumber, type Mac } from '../network.js';

/** An address and the machine that has it. */
export interface Lease {
  readonly ipv4: Ipv4;
  readonly mac: Mac;
}

/** The DHCPRELEASE with which a client gives its lease back to a server (RFC 2131 4.4.6). */
export function releaseMessage({ ipv4, mac }: Lease, server: Ipv4): Buffer {
  const fixedFields = 236;
  const magicCookie = [99, 130, 83, 99];
  // BOOTP's least length, which RFC 1542 2.1 asks for.
  const message = Buffer.alloc(300);
  // A request (1) over Ethernet (1), whose addresses have 6 bytes.
  message.set([1, 1, 6]);
  message.writeUInt32BE(ipv4ToNumber(ipv4), 12);
  message.write(mac.replaceAll(':', ''), 28, 'hex');
  message.set([...magicCookie, 53, 1, 7, 54, 4, 0, 0, 0, 0, 255], fixedFields);
  message.writeUInt32BE(ipv4ToNumber(server), fixedFields + 9);
  return message;
}

/**
 * Gives leases back in the name of the machines that had them: dnsmasq has no other way to end a
 * lease early, and would keep its name in DNS and its address from anybody else until it ends.
 * To be sent from the server's own host. Rejects with what the system says.
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
      // The receive buffer of dnsmasq holds only some hundreds.
      await setTimeout(1);
    }
  } finally {
    socket.close();
    await once(socket, 'close');
  }
}
