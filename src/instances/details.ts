import type { Smbios } from './smbios.js';

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
  /**
   * Its instance-id has all digits of its uuid (`mdserver.instance_id = uuid`). Without it, it has 17,
   * as in versions up to 1.0.0, where two could be the same: a guest keeps the one that it has.
   */
  readonly fullId?: true | undefined;
  /**
   * Since when its domain has been uploaded without an interface on the network, in Unix seconds;
   * undefined if it has one.
   */
  readonly leftNetwork?: number | undefined;
  /** Undefined if it is not known, as for domains that versions up to 1.0.0 took. */
  readonly smbios?: Smbios | undefined;
  /**
   * The password that the guest has set and reported, encrypted with a public key of its own and in
   * base64: see `isEncryptedPassword`.
   */
  readonly password?: string | undefined;
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

/** As in Nova (nova/api/metadata/password.py), in bytes: an RSA key of 4096 bits makes 684. */
export const maxPasswordBytes = 1020;

/** Whether the text can be an encrypted password: printable base64, and not too long. */
export function isEncryptedPassword(text: string): boolean {
  return text.length <= maxPasswordBytes && /^[A-Za-z0-9+/]+={0,2}$/.test(text);
}

/** The instance has reported a password before, which counts until its record goes. */
export class PasswordSetError extends Error {}

/** The details with the encrypted password that the guest reports. Throws PasswordSetError. */
export function withPassword(details: Details, password: string): Details {
  if (details.password !== undefined) {
    throw new PasswordSetError('this instance has set its password already');
  }
  return { ...details, password };
}
