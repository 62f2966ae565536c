import { databaseRecord } from '../support/samples.js';

/*
 * The instances of the fuzz. Whatever belongs to one of them (its name, uuid, MAC address, addresses,
 * metadata, user-data, host keys) has its number in a form that an answer can be searched for.
 */

/** Their numbers: of two digits each. */
export const numbers = Array.from({ length: 40 }, (_, index) => index + 10);

/** What is of an instance, by its number. */
export const identityOf = (number: number) => ({
  name: `canary-${number}`,
  uuid: `ca9a7900-0000-4000-8000-0000000000${number}`,
  mac: `52:54:ca:9a:79:${number}`,
  ipv4: `10.122.79.${number}`,
  ipv6: `fd00:ca9a:79::${number}`,
});

/** The record of an instance in the database. */
export function canaryRecord(number: number) {
  const { name, uuid, mac, ipv4, ipv6 } = identityOf(number);
  return databaseRecord(number, {
    domain_name: name,
    domain_uuid: uuid,
    domain_metadata: { Note: `note of ${name}` },
    mds_mac: mac,
    mds_ipv4: ipv4,
    mds_ipv6: ipv6,
  });
}

/** The details of an instance: what it phoned home with. */
export function canaryDetails(number: number) {
  const { name } = identityOf(number);
  const keys = [`ssh-ed25519 AAAA${name.replace('-', '')}`];
  return { hardware: {}, hostKeys: [{ at: 1_700_000_000, hostname: name, fqdn: null, keys }] };
}

/** The user-data of an instance. */
export function canaryUserdata(number: number): string {
  return `#!/bin/sh\n# user-data of ${identityOf(number).name}\n`;
}

/** Addresses that no instance has. */
export const strangers = ['10.122.9.1', '10.122.9.2', '10.122.9.3', '10.122.9.4', '10.122.9.5'];

/** The password of the configuration, which nobody may see. */
export const password = 'PASSWORD-SECRET';
/** Files and folders of the host, which only the host may see. */
const hostTexts = ['root:x:', '/mdserver-test-'];

const marks = new RegExp(
  [
    'canary-?(\\d\\d)',
    'ca9a7900-0000-4000-8000-0000000000(\\d\\d)',
    '52:54:ca:9a:79:(\\d\\d)',
    '10\\.122\\.79\\.(\\d\\d)',
    'fd00:ca9a:79::(\\d\\d)',
    // Made from the address.
    'i-0*0a7a4f([0-9a-f]{2})',
    password,
    ...hostTexts,
  ].join('|'),
  'gi',
);

/** Who sends: the instance of that number, an address that no instance has, or the host. */
export type Sender = number | 'stranger' | 'host';

/** What an answer has that is not for its sender. Whatever it sent itself may come back. */
export function foreignTexts(sender: Sender, sent: string, answer: string): string[] {
  return Array.from(answer.matchAll(marks)).flatMap(([text, ...owners]) => {
    const fromHex = owners[5];
    const owner = fromHex === undefined ? owners.find((number) => number) : parseInt(fromHex, 16);
    const isOwn =
      owner === undefined ? sender === 'host' && text !== password : Number(owner) === sender;
    return isOwn || sent.includes(text) ? [] : [text];
  });
}
