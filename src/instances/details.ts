import { parseIp } from '../network.js';
import type { RestingAddresses } from './addresses.js';
import { asNumber, asString, isJsonObject, type JsonObject } from './json.js';
import { parseUuid } from './uuid.js';

/** The hardware that the domain XML describes; undefined if it does not say. */
export interface Hardware {
  readonly vcpus?: number | undefined;
  readonly memoryKib?: number | undefined;
  /** libvirt's name: `x86_64`, `aarch64`. */
  readonly architecture?: string | undefined;
}

/** The SSH host keys that a guest reported. */
export interface HostKeys {
  /** Unix seconds. */
  readonly at: number;
  readonly hostname: string | null;
  readonly fqdn: string | null;
  /** `ssh-ed25519 AAAA…`, without a comment. */
  readonly keys: readonly string[];
}

/** Data of an instance that is not in its database record, whose format Python md_server defines. */
export interface Details {
  readonly hardware: Hardware;
  /** Newest first. More than one means that the keys changed. */
  readonly hostKeys: readonly HostKeys[];
}

/** The details of an instance that has none yet. */
export const noDetails: Details = { hardware: {}, hostKeys: [] };

const maxHostKeyRecords = 5;

/** Whether these are the host keys and names that the guest reported last. */
export function knowsHostKeys({ hostKeys: [newest] }: Details, reported: HostKeys): boolean {
  const comparable = ({ hostname, fqdn, keys }: HostKeys) => JSON.stringify([hostname, fqdn, keys]);
  return newest !== undefined && comparable(newest) === comparable(reported);
}

/** Seconds between two changes of an instance's host keys, each of which is written to disk. */
const hostKeysRest = 10;

/** The host keys of an instance changed a moment ago, so they cannot change now. */
export class HostKeysError extends Error {
  constructor(
    /** The whole seconds until they can. */
    readonly seconds: number,
  ) {
    super(`the host keys changed less than ${hostKeysRest} seconds ago: try again in ${seconds} s`);
  }
}

/** The details with the host keys that the guest reports now. Throws HostKeysError. */
export function withHostKeys(details: Details, reported: HostKeys): Details {
  // Two identical messages may arrive at the same time.
  if (knowsHostKeys(details, reported)) return details;
  const [newest] = details.hostKeys;
  const since = newest === undefined ? hostKeysRest : reported.at - newest.at;
  // Less than 0 after the clock was set back.
  if (since >= 0 && since < hostKeysRest) throw new HostKeysError(Math.ceil(hostKeysRest - since));
  return { ...details, hostKeys: [reported, ...details.hostKeys].slice(0, maxHostKeyRecords) };
}

function objectOrEmpty(value: unknown): JsonObject {
  return isJsonObject(value) ? value : {};
}

function arrayOrEmpty(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function detailsOf(value: unknown): Details {
  const { hardware, hostKeys } = objectOrEmpty(value);
  const { vcpus, memoryKib, architecture } = objectOrEmpty(hardware);
  return {
    hardware: {
      vcpus: asNumber(vcpus),
      memoryKib: asNumber(memoryKib),
      architecture: asString(architecture),
    },
    hostKeys: arrayOrEmpty(hostKeys).map((item) => {
      const { at, hostname, fqdn, keys } = objectOrEmpty(item);
      return {
        at: asNumber(at) ?? 0,
        hostname: asString(hostname) ?? null,
        fqdn: asString(fqdn) ?? null,
        keys: arrayOrEmpty(keys).filter((key) => typeof key === 'string'),
      };
    }),
  };
}

/** What the details file holds. */
export interface DetailsFile {
  /** By the uuid of the instance. */
  readonly details: ReadonlyMap<string, Details>;
  readonly resting: RestingAddresses;
}

/** The details file of a store that has stored nothing yet. */
export const noDetailsFile: DetailsFile = { details: new Map(), resting: new Map() };

/**
 * The text of the details file: a JSON object with the uuids as keys, and `resting`, which versions
 * up to 1.0.0 ignore.
 */
export function formatDetails({
  byName,
  resting,
}: {
  readonly byName: ReadonlyMap<
    string,
    { readonly uuid: string | undefined; readonly details: Details }
  >;
  readonly resting: RestingAddresses;
}): string {
  const entries: [string, unknown][] = [];
  for (const { uuid, details } of byName.values()) {
    if (uuid !== undefined) entries.push([uuid, details]);
  }
  if (resting.size > 0) {
    entries.push(['resting', Array.from(resting, ([address, about]) => ({ address, ...about }))]);
  }
  return `${JSON.stringify(Object.fromEntries(entries))}\n`;
}

/** Parses the text of a details file. Throws SyntaxError if it is not JSON. */
export function parseDetails(text: string): DetailsFile {
  const { resting, ...byUuid } = objectOrEmpty(JSON.parse(text));
  const details = Object.entries(byUuid).map(([uuid, value]) => [uuid, detailsOf(value)] as const);
  return { details: new Map(details), resting: parseResting(resting) };
}

function parseResting(value: unknown): RestingAddresses {
  const resting = arrayOrEmpty(value).flatMap((item) => {
    const { address, since, name, uuid } = objectOrEmpty(item);
    const parsed = parseIp(asString(address) ?? '');
    if (parsed === undefined) return [];
    const about = {
      since: asNumber(since) ?? 0,
      name: asString(name) ?? '',
      uuid: parseUuid(asString(uuid) ?? ''),
    };
    return [[parsed, about] as const];
  });
  return new Map(resting);
}
