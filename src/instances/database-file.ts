import { parseIpv4, parseIpv6, parseMac } from '../network.js';
import { jsonText, truncate, unicodeEscape } from '../text.js';
import { noDetails } from './details.js';
import type { Instance } from './instance.js';
import { asNumber, asString, isJsonObject, type JsonObject } from './json.js';
import { type Page, pageFormatter } from './pages.js';
import { parseUuid } from './uuid.js';

/** The database cannot be used; the message says where the problem is and what to do. */
export class DatabaseError extends Error {
  constructor(
    readonly problem: string,
    /** What to do, if more can be said than the problem. */
    readonly remedy?: string,
    options?: ErrorOptions,
  ) {
    super(remedy === undefined ? problem : `${problem}; ${remedy}`, options);
  }
}

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

const indent = '    ';

/** The text of an instance's record in the database, as Python's json.dump writes it: indented, in ASCII. */
export function recordText(instance: Instance): string {
  const text = JSON.stringify(recordFromInstance(instance), null, indent);
  return indent + text.replaceAll('\n', `\n${indent}`).replace(/[\u007f-\uffff]/g, unicodeEscape);
}

const separator = ',\n';
const recordsOfPage = pageFormatter((page) =>
  page.map(({ instance }) => recordText(instance)).join(separator),
);

/** The database file in pieces: a JSON array of the records. */
export function* databasePieces(pages: ReadonlyMap<number, Page>): Generator<Buffer> {
  let before = '[\n';
  for (const page of pages.values()) {
    yield Buffer.from(before);
    yield recordsOfPage(page);
    before = separator;
  }
  yield Buffer.from(pages.size === 0 ? '[]' : '\n]');
}
