import type { HostKeys } from '../instances/details.js';

const longestName = 255;
const mostKeys = 10;
const mostFields = 50;

/** A form that is not a valid report of phone_home; the message says why. */
export class PhoneHomeError extends Error {}

const keyTypes = 'ssh-(?:ed25519|rsa|dss)|ecdsa-sha2-nistp(?:256|384|521)';
const publicKey = new RegExp(`^(${keyTypes}) +([A-Za-z0-9+/]{16,8000}={0,3})(?: [^\\n]*)?\\n?$`);

const knownField = /^(?:instance_id|hostname|fqdn|pub_key_[a-z0-9]+)$/;

/** A host name from the form; null if it has none, or cloud-init knew none ("N/A"). */
function nameField(fields: URLSearchParams, field: string): string | null {
  const text = fields.get(field)?.trim() ?? '';
  if (text === '' || text === 'N/A' || text === 'None') return null;
  if (text.length > longestName || !/^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$/.test(text)) {
    throw new PhoneHomeError(`${field} is not a host name`);
  }
  return text;
}

/**
 * The host keys in a report of cloud-init's phone_home module: a form with `instance_id`,
 * `hostname`, `fqdn` and `pub_key_TYPE` fields. Throws PhoneHomeError.
 */
export function parsePhoneHome(body: string, at: number): HostKeys {
  const fields = new URLSearchParams(body);
  if (fields.size > mostFields) throw new PhoneHomeError(`more than ${mostFields} fields`);
  if (![...fields.keys()].some((field) => knownField.test(field))) {
    throw new PhoneHomeError("this is not a form of cloud-init's phone_home module");
  }
  const keys: string[] = [];
  for (const [field, text] of fields) {
    if (!field.startsWith('pub_key_') || text === 'N/A' || text === 'None' || text === '') continue;
    const [, type, data] = publicKey.exec(text) ?? [];
    if (type === undefined) throw new PhoneHomeError(`${field} is not an ssh public key`);
    const key = `${type} ${data}`;
    if (!keys.includes(key)) keys.push(key);
  }
  if (keys.length > mostKeys) throw new PhoneHomeError(`more than ${mostKeys} keys`);
  return {
    at,
    hostname: nameField(fields, 'hostname'),
    fqdn: nameField(fields, 'fqdn'),
    keys: keys.sort(),
  };
}
