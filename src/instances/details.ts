/** What the machine is made of, as its domain XML had it; parts that it did not have are missing. */
export interface Hardware {
  readonly vcpus?: number | undefined;
  readonly memoryKib?: number | undefined;
  /** In libvirt's words: `x86_64`, `aarch64`. */
  readonly architecture?: string | undefined;
}

/** The ssh host keys that a guest said it has. */
export interface HostKeys {
  /** Unix seconds. */
  readonly at: number;
  readonly hostname: string | null;
  readonly fqdn: string | null;
  /** `ssh-ed25519 AAAA…`, without a comment. */
  readonly keys: readonly string[];
}

/** What is known of an instance beyond its database record, which stays what Python reads. */
export interface Details {
  readonly hardware: Hardware;
  /** Newest first; more than one means that they changed. */
  readonly hostKeys: readonly HostKeys[];
}

export const noDetails: Details = { hardware: {}, hostKeys: [] };

const hostKeysKept = 5;

/** Whether the guest said the same before: then there is nothing to keep. */
export function knowsHostKeys({ hostKeys: [newest] }: Details, said: HostKeys): boolean {
  const essence = ({ hostname, fqdn, keys }: HostKeys) => JSON.stringify([hostname, fqdn, keys]);
  return newest !== undefined && essence(newest) === essence(said);
}

/** The details with the host keys that the guest says it has now. */
export function withHostKeys(details: Details, said: HostKeys): Details {
  // Two messages that say the same may have come at the same time.
  if (knowsHostKeys(details, said)) return details;
  return { ...details, hostKeys: [said, ...details.hostKeys].slice(0, hostKeysKept) };
}

type Fields = Readonly<Record<string, unknown>>;

function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Fields) : {};
}

const string = (value: unknown) => (typeof value === 'string' ? value : undefined);
const number = (value: unknown) => (typeof value === 'number' ? value : undefined);
const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

function detailsOf(value: unknown): Details {
  const { hardware, hostKeys } = fieldsOf(value);
  const { vcpus, memoryKib, architecture } = fieldsOf(hardware);
  return {
    hardware: {
      vcpus: number(vcpus),
      memoryKib: number(memoryKib),
      architecture: string(architecture),
    },
    hostKeys: list(hostKeys).map((item) => {
      const { at, hostname, fqdn, keys } = fieldsOf(item);
      return {
        at: number(at) ?? 0,
        hostname: string(hostname) ?? null,
        fqdn: string(fqdn) ?? null,
        keys: list(keys).filter((key) => typeof key === 'string'),
      };
    }),
  };
}

/** Details by the uuid of the instance. */
export type DetailsByUuid = ReadonlyMap<string, Details>;

/** The text of the file that keeps details: JSON, an object by uuid. */
export function formatDetails(
  instances: Iterable<{ readonly uuid: string | undefined; readonly details: Details }>,
): string {
  const entries: [string, Details][] = [];
  for (const { uuid, details } of instances) if (uuid !== undefined) entries.push([uuid, details]);
  return `${JSON.stringify(Object.fromEntries(entries))}\n`;
}

/** The details that the text of such a file holds. Throws SyntaxError for what is no JSON. */
export function parseDetails(text: string): DetailsByUuid {
  const entries = Object.entries(fieldsOf(JSON.parse(text)));
  return new Map(entries.map(([uuid, value]) => [uuid, detailsOf(value)]));
}
