import { asNumber, asString, isJsonObject, type JsonObject } from './json.js';

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

/** The details with the host keys that the guest reports now. */
export function withHostKeys(details: Details, reported: HostKeys): Details {
  // Two identical messages may arrive at the same time.
  if (knowsHostKeys(details, reported)) return details;
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

/** Details by the uuid of the instance. */
export type DetailsByUuid = ReadonlyMap<string, Details>;

/** The text of the details file: a JSON object with the uuids as keys. */
export function formatDetails(
  instances: Iterable<{ readonly uuid: string | undefined; readonly details: Details }>,
): string {
  const entries: [string, Details][] = [];
  for (const { uuid, details } of instances) if (uuid !== undefined) entries.push([uuid, details]);
  return `${JSON.stringify(Object.fromEntries(entries))}\n`;
}

/** Parses the text of a details file. Throws SyntaxError if it is not JSON. */
export function parseDetails(text: string): DetailsByUuid {
  const entries = Object.entries(objectOrEmpty(JSON.parse(text)));
  return new Map(entries.map(([uuid, value]) => [uuid, detailsOf(value)]));
}
