import { type Ipv4, type Ipv6, type Mac, parseIpv4, parseIpv6, parseMac } from '../network.js';
import { unicodeEscape } from '../text.js';
import { type Details, noDetails } from './details.js';
import { parseUuid, type Uuid } from './uuid.js';

/** A virtual machine that mdserver knows. Never changed in place: an update makes a new one. */
export interface Instance {
  /** The name of the libvirt domain. */
  readonly name: string;
  /** Missing in some records of old Python versions, as are the three that follow. */
  readonly uuid: Uuid | undefined;
  readonly mac: Mac | undefined;
  readonly ipv4: Ipv4 | undefined;
  readonly ipv6: Ipv6 | undefined;
  /** What the domain XML says in mdserver's own namespace. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly location: string | undefined;
  /** Unix seconds, with a fraction. */
  readonly firstSeen: number | undefined;
  readonly lastUpdate: number | undefined;
  /** Not in the database record, which stays what Python reads, but in a file beside it. */
  readonly details: Details;
  /** Fields of the database record that this version does not know: kept as they are. */
  readonly otherFields: Readonly<Record<string, unknown>>;
}

/** What a machine is known by: it stays when it is renamed, and one made anew has another. */
export function machineKey({ uuid, name }: Pick<Instance, 'uuid' | 'name'>): string {
  return uuid ?? name;
}

/** A database that cannot be used as it is; the message says where and what to do. */
export class DatabaseError extends Error {}

type Fields = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A field that may be absent or null, but not something else than `parse` takes. */
function field<T>(
  record: Fields,
  name: string,
  expected: string,
  parse: (value: unknown) => T | undefined,
): T | undefined {
  const value = record[name];
  if (value === undefined || value === null) return undefined;
  const parsed = parse(value);
  if (parsed === undefined) {
    throw new DatabaseError(`${name} is ${JSON.stringify(value)}, expected ${expected}`);
  }
  return parsed;
}

const string = (value: unknown) => (typeof value === 'string' ? value : undefined);
const number = (value: unknown) => (typeof value === 'number' ? value : undefined);
const textAs =
  <T>(parse: (text: string) => T | undefined) =>
  (value: unknown) =>
    typeof value === 'string' ? parse(value) : undefined;

/** Without a prototype: templates look names up in it. */
function metadataOf(value: unknown): Readonly<Record<string, string>> | undefined {
  if (!isObject(value)) return undefined;
  const metadata: Record<string, string> = Object.create(null);
  for (const [key, item] of Object.entries(value)) metadata[key] = String(item ?? '');
  return metadata;
}

/**
 * The instance of a record of the database file, one of an old Python version included.
 * Throws DatabaseError for what is no record.
 */
export function instanceFromRecord(record: unknown): Instance {
  if (!isObject(record)) throw new DatabaseError('a record is not a JSON object');
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
  const name = field(record, 'domain_name', 'a name', string);
  if (name === undefined || name === '') throw new DatabaseError('domain_name is missing');
  return {
    name,
    uuid: field(record, 'domain_uuid', 'a uuid', textAs(parseUuid)),
    mac: field(record, 'mds_mac', 'a MAC address', textAs(parseMac)),
    ipv4: field(record, 'mds_ipv4', 'an IPv4 address', textAs(parseIpv4)),
    ipv6: field(record, 'mds_ipv6', 'an IPv6 address', textAs(parseIpv6)),
    metadata: field(record, 'domain_metadata', 'an object', metadataOf) ?? {},
    location: field(record, 'location', 'a string', string),
    firstSeen: field(record, 'first_seen', 'a number', number),
    lastUpdate: field(record, 'last_update', 'a number', number),
    details: noDetails,
    otherFields,
  };
}

/** The record of an instance as Python md_server 0.6 reads and writes it. */
export function recordFromInstance(instance: Instance): Fields {
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

/** The records of a database file: Python's array, or its later form with `entries`. */
function recordsOf(database: unknown): readonly unknown[] {
  if (Array.isArray(database)) return database;
  if (isObject(database) && Array.isArray(database['entries'])) return database['entries'];
  throw new DatabaseError('expected an array of records, or an object with "entries"');
}

/** The instances that the text of a database file holds. Throws DatabaseError. */
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

/** The text of a database file, as Python's json.dump writes it: indented by 4, in ASCII. */
export function formatDatabase(instances: Iterable<Instance>): string {
  const text = JSON.stringify(Array.from(instances, recordFromInstance), null, 4);
  return text.replace(/[\u007f-\uffff]/g, unicodeEscape);
}
