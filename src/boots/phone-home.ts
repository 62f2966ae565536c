import type { HostKeys } from '../instances/details.js';

const maxNameLength = 255;
const maxKeys = 10;
const maxFields = 50;

/** The form is not a valid phone_home report; the message says why. */
export class PhoneHomeError extends Error {}

const keyTypes = 'ssh-(?:ed25519|rsa|dss)|ecdsa-sha2-nistp(?:256|384|521)';
const publicKey = new RegExp(`^(${keyTypes}) +([A-Za-z0-9+/]{16,4000}={0,3})(?: [^\\n]*)?\\n?$`);

const knownField = /^(?:instance_id|hostname|fqdn|pub_key_[a-z0-9]+)$/;

/** A host name from the form; null if it is missing, or cloud-init did not know it ("N/A"). */
function nameField(fields: URLSearchParams, field: string): string | null {
  const text = fields.get(field)?.trim() ?? '';
  if (text === '' || text === 'N/A' || text === 'None') return null;
  if (text.length > maxNameLength || !/^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$/.test(text)) {
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
  if (fields.size > maxFields) throw new PhoneHomeError(`more than ${maxFields} fields`);
  if (![...fields.keys()].some((field) => knownField.test(field))) {
    throw new PhoneHomeError("this is not a form from cloud-init's phone_home module");
  }
  const keys: string[] = [];
  for (const [field, text] of fields) {
    if (!field.startsWith('pub_key_') || text === 'N/A' || text === 'None' || text === '') continue;
    const [, type, data] = publicKey.exec(text) ?? [];
    if (type === undefined) throw new PhoneHomeError(`${field} is not an SSH public key`);
    const key = `${type} ${data}`;
    if (!keys.includes(key)) keys.push(key);
  }
  if (keys.length > maxKeys) throw new PhoneHomeError(`more than ${maxKeys} keys`);
  return {
    at,
    hostname: nameField(fields, 'hostname'),
    fqdn: nameField(fields, 'fqdn'),
    keys: keys.sort(),
  };
}
