import { type Ipv6, type Mac, parseIpv6, parseMac } from '../network.js';

/** What dnsmasq's DHCP wrote in a line of its log. */
export interface DhcpSaid {
  /** When, as it writes it: `Nov 23 09:04:14`, in local time and without a year. */
  readonly time: string;
  /** The number of the exchange, which the client chose: with `log-dhcp`, and in most lines only. */
  readonly exchange: string | undefined;
  readonly text: string;
}

/** Anchored at the time that dnsmasq writes first, because text from a guest comes later in the line. */
const saidLine = /^([A-Z][a-z]{2} [ \d]\d [\d:]{8}) dnsmasq-dhcp\[\d+\]: (?:(\d+) )?(.*)$/;

/** Reads a line of dnsmasq's log; undefined if its DHCP did not write it. */
export function dhcpSaid(line: string): DhcpSaid | undefined {
  const [, time, exchange, text] = saidLine.exec(line) ?? [];
  return time === undefined || text === undefined ? undefined : { time, exchange, text };
}

/** A message of DHCPv6, and who sent it or gets it. */
export interface Dhcp6Message {
  /** `SOLICIT`, `REPLY`. */
  readonly kind: string;
  /** The MAC address of the client, as dnsmasq has found it for the address that it sent from. */
  readonly mac: Mac;
  /** '' if the line has none. */
  readonly address: string;
  /** Whatever the client says that it is. dnsmasq writes 100 bytes of it at most. */
  readonly duid: string;
  /** The name that mdserver gave the instance, or dnsmasq's own words. */
  readonly text: string;
}

const clientLine = /^(?:client MAC address: ([0-9a-f:]+)|cannot determine client MAC address)$/;
const messageLine =
  /^DHCP([A-Z-]+)\([^)]*\) (?:([0-9a-f:.]+) )?((?:[0-9a-f]{2}:)*[0-9a-f]{2}) ?(.*)$/;

/**
 * Returns a function that is to be called with what dnsmasq's DHCP says, in order, and gives its
 * messages of DHCPv6. Only `log-dhcp` tells the MAC address of the client, in a line before the message:
 * without that there are no messages, because the identifier in them is the client's to choose.
 */
export function dhcp6Messages(): (said: DhcpSaid) => Dhcp6Message | undefined {
  let client: { readonly exchange: string; readonly mac: Mac | undefined } | undefined;
  return ({ exchange, text }) => {
    if (exchange === undefined) return undefined;
    const isClient = clientLine.exec(text);
    if (isClient !== null) {
      client = { exchange, mac: parseMac(isClient[1] ?? '') };
      return undefined;
    }
    // Another exchange may have begun: dnsmasq writes the lines of a message together.
    if (client?.exchange !== exchange) client = undefined;
    if (client?.mac === undefined) return undefined;
    const [, kind, address = '', duid, rest = ''] = messageLine.exec(text) ?? [];
    if (kind === undefined || duid === undefined) return undefined;
    return { kind, mac: client.mac, address, duid, text: rest };
  };
}

/** A lease of DHCPv6, with what dnsmasq knows it by. */
export interface Lease6 {
  readonly address: Ipv6;
  readonly duid: string;
  /** The option that it was asked for with: 3 for an address that stays (IA_NA), 4 for a temporary one. */
  readonly association: 3 | 4;
  readonly iaid: number;
  /** The identifier of dnsmasq itself. */
  readonly server: string;
}

const optionLine = /^(?:sent|nest) size: *\d+ option: *(\d+) \S+ +(\S+)(?: |$)(.*)$/;

/**
 * Returns a function that is to be called with what dnsmasq's DHCP says, in order, and gives the leases
 * of DHCPv6 that it gives or renews. Only `log-dhcp` tells the options of an answer.
 */
export function leases6Given(): (said: DhcpSaid) => Lease6 | undefined {
  let answer: Partial<Lease6> & { readonly exchange: string } = { exchange: '' };
  return ({ exchange, text }) => {
    if (exchange === undefined) return undefined;
    const [, kind, , duid] = messageLine.exec(text) ?? [];
    if (kind !== undefined) {
      answer = { exchange, ...(kind === 'REPLY' && duid !== undefined && { duid }) };
    }
    const { duid: whose, server, iaid, association } = answer;
    if (answer.exchange !== exchange || whose === undefined) return undefined;
    const [, option, value = '', more = ''] = optionLine.exec(text) ?? [];
    if (option === '2') answer = { ...answer, server: value };
    if (option === '3' || option === '4') {
      const [, number] = /^IAID=(\d+)$/.exec(value) ?? [];
      answer = { ...answer, association: option === '3' ? 3 : 4, iaid: Number(number) };
    }
    const address = option === '5' ? parseIpv6(value) : undefined;
    // An address that the guest cannot have comes with no time at all.
    if (address === undefined || more.endsWith(' VL=0')) return undefined;
    if (server === undefined || association === undefined || iaid === undefined) return undefined;
    return { address, duid: whose, association, iaid, server };
  };
}
