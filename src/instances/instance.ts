import { type Ipv4, type Ipv6, type Mac, parseIpv4, parseIpv6, parseMac } from '../network.js';
import { jsonText, quoted, truncate, unicodeEscape } from '../text.js';
import { type Details, noDetails } from './details.js';
import { asNumber, asString, isJsonObject, type JsonObject } from './json.js';
import { parseUuid, type Uuid } from './uuid.js';

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
export function machineKey({ uuid, name }: Pick<Instance, 'uuid' | 'name'>): string {
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

/** The database cannot be used; the message says where the problem is and what to do. */
export class DatabaseError extends Error {}

/** The parsed value of a field that may be missing or null. Throws DatabaseError. */
function optionalField<T>(
  record: JsonObject,
  name: string,
  expected: string,
  parse: (value: unknown) => T | undefined,
): T | undefined {
  const value = record[name];
  if (value === undefined || value === null) return undefined;
  const parsed = parse(value);
  if (parsed === undefined) {
    throw new DatabaseError(`${name} is ${truncate(jsonText(value))}, expected ${expected}`);
  }
  return parsed;
}

const parsedString =
  <T>(parse: (text: string) => T | undefined) =>
  (value: unknown) =>
    typeof value === 'string' ? parse(value) : undefined;

/** Without a prototype, because templates look up names in it. */
function metadataOf(value: unknown): Readonly<Record<string, string>> | undefined {
  if (!isJsonObject(value)) return undefined;
  const metadata: Record<string, string> = Object.create(null);
  for (const [key, item] of Object.entries(value)) metadata[key] = String(item ?? '');
  return metadata;
}

/**
 * The instance of a database record, including those of old Python versions. Throws DatabaseError
 * if the record is invalid.
 */
export function instanceFromRecord(record: unknown): Instance {
  if (!isJsonObject(record)) throw new DatabaseError('a record is not a JSON object');
  const {
    domain_name: _name,
    domain_uuid: _uuid,
    domain_metadata: _metadata,
    mds_mac: _mac,
    mds_ipv4: _ipv4,
    mds_ipv6: _ipv6,
    first_seen: _first,
    last_update: _last,
    location: _location,
    ...otherFields
  } = record;
  const text = optionalField(record, 'domain_name', 'a name', asString);
  if (text === undefined || text === '') throw new DatabaseError('domain_name is missing');
  // A lone surrogate becomes U+FFFD: UTF-8 has none, so nobody could ask for the instance.
  const name = Buffer.from(text).toString();
  return {
    name,
    uuid: optionalField(record, 'domain_uuid', 'a uuid', parsedString(parseUuid)),
    mac: optionalField(record, 'mds_mac', 'a MAC address', parsedString(parseMac)),
    ipv4: optionalField(record, 'mds_ipv4', 'an IPv4 address', parsedString(parseIpv4)),
    ipv6: optionalField(record, 'mds_ipv6', 'an IPv6 address', parsedString(parseIpv6)),
    metadata: optionalField(record, 'domain_metadata', 'an object', metadataOf) ?? {},
    location: optionalField(record, 'location', 'a string', asString),
    firstSeen: optionalField(record, 'first_seen', 'a number', asNumber),
    lastUpdate: optionalField(record, 'last_update', 'a number', asNumber),
    details: noDetails,
    otherFields,
  };
}

/** The database record of an instance, in the format of Python md_server 0.6. */
export function recordFromInstance(instance: Instance): JsonObject {
  return {
    domain_name: instance.name,
    domain_uuid: instance.uuid ?? null,
    domain_metadata: instance.metadata,
    mds_mac: instance.mac ?? null,
    mds_ipv4: instance.ipv4 ?? null,
    mds_ipv6: instance.ipv6 ?? null,
    first_seen: instance.firstSeen ?? null,
    last_update: instance.lastUpdate ?? null,
    location: instance.location ?? null,
    ...instance.otherFields,
  };
}

/** The records of a database file: an array, or an object with `entries` as later Python versions write. */
function recordsOf(database: unknown): readonly unknown[] {
  if (Array.isArray(database)) return database;
  if (isJsonObject(database) && Array.isArray(database['entries'])) return database['entries'];
  throw new DatabaseError('expected an array of records, or an object with "entries"');
}

/** Parses the text of a database file. Throws DatabaseError. */
export function parseDatabase(text: string): Instance[] {
  let database: unknown;
  try {
    database = JSON.parse(text);
  } catch (error) {
    throw new DatabaseError(`not JSON: ${(error as SyntaxError).message.split('\n')[0]}`);
  }
  return recordsOf(database).map((record, index) => {
    try {
      return instanceFromRecord(record);
    } catch (error) {
      if (error instanceof DatabaseError) {
        throw new DatabaseError(`record ${index + 1}: ${error.message}`);
      }
      throw error;
    }
  });
}

/** The text of a database file as Python's json.dump writes it: indented by 4, in ASCII. */
export function formatDatabase(instances: Iterable<Instance>): string {
  const text = JSON.stringify(Array.from(instances, recordFromInstance), null, 4);
  return text.replace(/[\u007f-\uffff]/g, unicodeEscape);
}

/** The instance as log lines name it. */
export function describeInstance({ name, uuid, mac, ipv4 }: Instance): string {
  return `${name} (uuid ${uuid ?? 'unknown'}, MAC ${mac ?? 'unknown'}, address ${ipv4 ?? 'none'})`;
}
