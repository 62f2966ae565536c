import { parseIpv4, parseIpv6, parseMac } from '../network.js';
import { jsonText, truncate, unicodeEscape } from '../text.js';
import { type Details, noDetails } from './details.js';
import type { Instance } from './instance.js';
import { asNumber, asString, isJsonObject, type JsonObject } from './json.js';
import { listPieces, type Pages, pageFormatter } from './pages.js';
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

/** The parsed value of a field that may be missing, null or empty. Throws DatabaseError. */
function optionalField<T>(
  record: JsonObject,
  name: string,
  expected: string,
  parse: (value: unknown) => T | undefined,
): T | undefined {
  const value = record[name];
  if (value === undefined || value === null || value === '') return undefined;
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

/** What an XML element contains, as the Python server stores it: `@…` are attributes, `#text` is its text. */
function innerElements(item: unknown): [string, unknown][] {
  if (!isJsonObject(item)) return [];
  const elements = Object.entries(item).filter(([key]) => !/^[@#]/.test(key));
  // Those of other namespaces keep their prefix.
  return elements
    .map(([key, inner]): [string, unknown] => [key.replace(/^mdserver:/, ''), inner])
    .filter(([key]) => !key.includes(':'));
}

/** The text of an XML element as the Python server stores it: a list if there were several, the first counts. */
function elementText(item: unknown): string {
  if (Array.isArray(item)) return elementText(item[0]);
  if (isJsonObject(item)) return elementText(item['#text']);
  return String(item ?? '');
}

/**
 * The values by name, read as those of a domain's XML are: an element that contains others is a container.
 * Without a prototype, because templates look up names in it.
 */
function metadataOf(value: unknown): Readonly<Record<string, string>> | undefined {
  if (!isJsonObject(value)) return undefined;
  const metadata: Record<string, string> = Object.create(null);
  for (const [key, item] of Object.entries(value)) {
    const inner = innerElements(item);
    for (const [name, element] of inner.length === 0 ? [[key, item] as const] : inner) {
      metadata[name] ??= elementText(element);
    }
  }
  return metadata;
}

const noOtherFields: Instance['otherFields'] = {};

/**
 * The instance of a database record, including those of old Python versions, with its `details`
 * by the uuid. Throws DatabaseError if the record is invalid.
 */
export function instanceFromRecord(
  record: unknown,
  details: (uuid: string) => Details | undefined = () => undefined,
): Instance {
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
  const name = /[\ud800-\udfff]/.test(text) ? Buffer.from(text).toString() : text;
  const uuid = optionalField(record, 'domain_uuid', 'a uuid', parsedString(parseUuid));
  return {
    name,
    uuid,
    mac: optionalField(record, 'mds_mac', 'a MAC address', parsedString(parseMac)),
    ipv4: optionalField(record, 'mds_ipv4', 'an IPv4 address', parsedString(parseIpv4)),
    ipv6: optionalField(record, 'mds_ipv6', 'an IPv6 address', parsedString(parseIpv6)),
    metadata: optionalField(record, 'domain_metadata', 'an object', metadataOf) ?? {},
    location: optionalField(record, 'location', 'a string', asString),
    firstSeen: optionalField(record, 'first_seen', 'a number', asNumber),
    lastUpdate: optionalField(record, 'last_update', 'a number', asNumber),
    details: (uuid && details(uuid)) ?? noDetails,
    // One object for all that have none: there can be very many.
    otherFields: Object.keys(otherFields).length === 0 ? noOtherFields : otherFields,
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

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new DatabaseError(`not JSON: ${(error as SyntaxError).message.split('\n')[0]}`);
  }
}

/**
 * The text of each record of a file that is written as recordText writes records: a text in JSON has
 * no line breaks, so these lines are nowhere else. Undefined for any other file.
 */
function recordTexts(file: Buffer): Iterable<string> | undefined {
  const [begin, between, end] = ['[\n    {\n', '\n    },\n    {\n', '\n    }\n]'];
  const last = file.lastIndexOf(end);
  const isWhole = last >= 0 && file.toString('latin1', last + end.length).trim() === '';
  if (!isWhole || file.toString('latin1', 0, begin.length) !== begin) return undefined;
  return (function* () {
    for (let start = begin.length; start <= last; ) {
      const found = file.indexOf(between, start);
      const stop = found < 0 ? last : found;
      yield `{${file.toString('utf8', start, stop)}}`;
      start = stop + between.length;
    }
  })();
}

/** A record that is no instance. It stays in the file as it is, and no other guest suffers from it. */
export interface OddRecord {
  readonly record: unknown;
  /** What is wrong with it, and where it is. */
  readonly problem: string;
}

/** What a database file holds. */
export interface ParsedDatabase {
  readonly instances: readonly Instance[];
  readonly odd: readonly OddRecord[];
}

function eachRecord<T>(
  records: Iterable<T>,
  parse: (record: T) => unknown,
  details: (uuid: string) => Details | undefined,
): ParsedDatabase {
  const instances: Instance[] = [];
  const odd: OddRecord[] = [];
  for (const item of records) {
    const record = parse(item);
    try {
      instances.push(instanceFromRecord(record, details));
    } catch (error) {
      if (!(error instanceof DatabaseError)) throw error;
      const number = instances.length + odd.length + 1;
      odd.push({ record, problem: `record ${number}: ${error.problem}` });
    }
  }
  return { instances, odd };
}

/**
 * Parses a database file. `details` gives those of an instance, by its uuid. Throws DatabaseError if
 * it is no list of records.
 */
export function parseDatabase(
  file: Buffer,
  details: (uuid: string) => Details | undefined = () => undefined,
): ParsedDatabase {
  // Record by record, where possible: all together take several times the memory of the file.
  const texts = recordTexts(file);
  if (texts !== undefined) {
    try {
      return eachRecord(texts, (text): unknown => JSON.parse(text), details);
    } catch (error) {
      // What is wrong and where is said of the whole file, below.
      if (!(error instanceof SyntaxError)) throw error;
    }
  }
  return eachRecord(recordsOf(parseJson(file.toString())), (record) => record, details);
}

const indent = '    ';

/** The text of an instance's record in the database. */
export function recordText(instance: Instance): string {
  return itemText(recordFromInstance(instance));
}

/** An item of the database's list as Python's json.dump writes it: indented, in ASCII. */
function itemText(item: unknown): string {
  const text = JSON.stringify(item, null, indent);
  return indent + text.replaceAll('\n', `\n${indent}`).replace(/[\u007f-\uffff]/g, unicodeEscape);
}

const separator = ',\n';
const recordsOfPages = pageFormatter((page) =>
  page.map(({ instance }) => recordText(instance)).join(separator),
);

function* allRecords(pages: Pages, odd: readonly OddRecord[]): Generator<Buffer> {
  // In front: of records with the same name or MAC address, the Python server and its dnsmasq take the last.
  for (const { record } of odd) yield Buffer.from(itemText(record));
  yield* recordsOfPages(pages);
}

/** The database file in pieces: a JSON array of the records, the odd ones that it had included. */
export function databasePieces(pages: Pages, odd: readonly OddRecord[] = []): Generator<Buffer> {
  const brackets = { begin: '[\n', separator, end: '\n]', empty: '[]' };
  return listPieces(allRecords(pages, odd), brackets);
}
