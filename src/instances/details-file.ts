import { parseIp } from '../network.js';
import type { RestingAddresses } from './addresses.js';
import { type Details, type Hardware, type HostKeys, isEncryptedPassword } from './details.js';
import type { Instance } from './instance.js';
import { asNumber, asString, isJsonObject, type JsonObject } from './json.js';
import { listPieces, type Pages, pageFormatter } from './pages.js';
import { maxSmbiosLength, type Smbios, smbiosFrom } from './smbios.js';
import { parseUuid } from './uuid.js';

function objectOrEmpty(value: unknown): JsonObject {
  return isJsonObject(value) ? value : {};
}

function arrayOrEmpty(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function hardwareOf(value: unknown): Hardware {
  const { vcpus, memoryKib, architecture } = objectOrEmpty(value);
  return {
    vcpus: asNumber(vcpus),
    memoryKib: asNumber(memoryKib),
    architecture: asString(architecture),
  };
}

function hostKeysOf(value: unknown): HostKeys[] {
  return arrayOrEmpty(value).map((item) => {
    const { at, hostname, fqdn, keys } = objectOrEmpty(item);
    return {
      at: asNumber(at) ?? 0,
      hostname: asString(hostname) ?? null,
      fqdn: asString(fqdn) ?? null,
      keys: arrayOrEmpty(keys).filter((key) => typeof key === 'string'),
    };
  });
}

function smbiosOf(value: unknown): Smbios | undefined {
  if (!isJsonObject(value)) return undefined;
  return smbiosFrom((field) => asString(value[field])?.slice(0, maxSmbiosLength));
}

function passwordOf(value: unknown): string | undefined {
  const text = asString(value);
  return text !== undefined && isEncryptedPassword(text) ? text : undefined;
}

/** Parses details. Those that are the same are one object: of very many instances, most are. */
function detailsParser(): (value: unknown) => Details {
  const known = new Map<string, Details>();
  return (value) => {
    const { hardware, hostKeys, fullId, leftNetwork, smbios, password } = objectOrEmpty(value);
    const details: Details = {
      hardware: hardwareOf(hardware),
      hostKeys: hostKeysOf(hostKeys),
      ...(fullId === true && { fullId }),
      leftNetwork: asNumber(leftNetwork),
      smbios: smbiosOf(smbios),
      password: passwordOf(password),
    };
    if (details.hostKeys.length > 0) return details;
    const key = JSON.stringify(details);
    const same = known.get(key);
    if (same !== undefined) return same;
    known.set(key, details);
    return details;
  };
}

/** What the details file holds. */
export interface DetailsFile {
  /** By the uuid of the instance. */
  readonly details: ReadonlyMap<string, Details>;
  readonly resting: RestingAddresses;
}

/** The details file before anything was stored. */
export const noDetailsFile: DetailsFile = { details: new Map(), resting: new Map() };

/**
 * The entry of an instance in the details file; undefined if it has no uuid. The same details have the
 * same text, wherever they come from: a file that says nothing new is not written.
 */
export function detailsText(
  instance: Pick<Instance, 'uuid' | 'details'> | undefined,
): string | undefined {
  if (instance?.uuid === undefined) return undefined;
  const { hardware, hostKeys, fullId, leftNetwork, smbios, password } = instance.details;
  const details: Details = { hardware, hostKeys, fullId, leftNetwork, smbios, password };
  return `${JSON.stringify(instance.uuid)}:${JSON.stringify(details)}`;
}

const separator = ',';
const detailsOfPages = pageFormatter((page) =>
  page
    .map(({ instance }) => detailsText(instance))
    .filter((text) => text !== undefined)
    .join(separator),
);

function* entries({ pages, resting }: DetailsSource): Generator<Buffer> {
  yield* detailsOfPages(pages);
  if (resting.size === 0) return;
  const list = Array.from(resting, ([address, about]) => ({ address, ...about }));
  yield Buffer.from(`"resting":${JSON.stringify(list)}`);
}

/** The instances, as far as the details file has them. */
interface DetailsSource {
  readonly pages: Pages;
  readonly resting: RestingAddresses;
}

/**
 * The details file in pieces: a JSON object with the uuids as keys, and `resting`, which versions up
 * to 1.0.0 ignore.
 */
export function detailsPieces(source: DetailsSource): Generator<Buffer> {
  return listPieces(entries(source), { begin: '{', separator, end: '}\n', empty: '{}\n' });
}

/** Parses the text of a details file. Throws SyntaxError if it is not JSON. */
export function parseDetails(text: string): DetailsFile {
  const { resting, ...byUuid } = objectOrEmpty(JSON.parse(text));
  const detailsOf = detailsParser();
  const details = new Map<string, Details>();
  for (const [uuid, value] of Object.entries(byUuid)) details.set(uuid, detailsOf(value));
  return { details, resting: parseResting(resting) };
}

function parseResting(value: unknown): RestingAddresses {
  const resting = arrayOrEmpty(value).flatMap((item) => {
    const { address, since, name, uuid, isGone } = objectOrEmpty(item);
    const parsed = parseIp(asString(address) ?? '');
    if (parsed === undefined) return [];
    const about = {
      since: asNumber(since) ?? 0,
      name: asString(name) ?? '',
      uuid: parseUuid(asString(uuid) ?? ''),
      isGone: isGone === true,
    };
    return [[parsed, about] as const];
  });
  return new Map(resting);
}
