import type { Ipv4, Ipv6, Mac } from '../network.js';
import { quoted } from '../text.js';
import type { Details } from './details.js';
import type { Uuid } from './uuid.js';

/** A virtual machine that mdserver serves. Immutable: an update makes a new object. */
export interface Instance {
  /** The name of the libvirt domain. */
  readonly name: string;
  /** Like the next three, missing in some records of old Python versions. */
  readonly uuid: Uuid | undefined;
  readonly mac: Mac | undefined;
  readonly ipv4: Ipv4 | undefined;
  readonly ipv6: Ipv6 | undefined;
  /** The elements of mdserver's namespace in the domain XML. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly location: string | undefined;
  /** Unix seconds, with a fraction. */
  readonly firstSeen: number | undefined;
  readonly lastUpdate: number | undefined;
  /** Stored in a file next to the database, because Python md_server defines the database's format. */
  readonly details: Details;
  /** Fields of the database record that this version does not know. They are written back. */
  readonly otherFields: Readonly<Record<string, unknown>>;
}

/** Identifies a machine: a renamed one keeps its key, a re-created one gets a new key. */
export function machineKey({
  uuid,
  name,
}: {
  readonly uuid: string | undefined;
  readonly name: string;
}): string {
  return uuid ?? name;
}

/**
 * The bytes of metadata that a domain may have. All records are written at each change, so one that
 * is large makes every upload slow.
 */
export const maxMetadataBytes = 16 * 1024;

/** The bytes of the metadata in UTF-8, names and values together. */
export function metadataBytes(metadata: Instance['metadata']): number {
  const texts = Object.entries(metadata).flat();
  return texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
}

/**
 * What to do about records that were stored before metadata had a limit, or that other programs
 * wrote; undefined if there are none.
 */
export function largeRecords(instances: Iterable<Instance>): string | undefined {
  const large: { readonly name: string; readonly bytes: number }[] = [];
  for (const { name, metadata, otherFields } of instances) {
    const others = Object.keys(otherFields).length === 0 ? '' : JSON.stringify(otherFields);
    const bytes = metadataBytes(metadata) + Buffer.byteLength(others);
    if (bytes > maxMetadataBytes) large.push({ name, bytes });
  }
  if (large.length === 0) return undefined;
  const total = large.reduce((sum, { bytes }) => sum + bytes, 0);
  const largest = large.sort((a, b) => b.bytes - a.bytes).slice(0, 3);
  const names = largest.map(({ name }) => quoted(name)).join(', ');
  const records = large.length === 1 ? '1 record' : `${large.length} records`;
  return `${records} with more than ${maxMetadataBytes} bytes of metadata, ${total} bytes in all, which make each upload slow, the largest are those of ${names}: upload these domains again with less metadata, or remove them (mdserverctl remove NAME)`;
}

/** The instance as log lines name it. */
export function describeInstance({ name, uuid, mac, ipv4 }: Instance): string {
  return `${name} (uuid ${uuid ?? 'unknown'}, MAC ${mac ?? 'unknown'}, address ${ipv4 ?? 'none'})`;
}
