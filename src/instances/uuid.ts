declare const checked: unique symbol;

/** A UUID in lower case, 8-4-4-4-12. */
export type Uuid = string & { readonly [checked]: 'uuid' };

/**
 * The text as a UUID; undefined if it is not one. Like libvirt, accepts upper case and missing
 * hyphens.
 */
export function parseUuid(text: string): Uuid | undefined {
  const digits = text.trim().toLowerCase().replaceAll('-', '');
  const parts = /^([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})$/.exec(digits);
  return parts ? (parts.slice(1).join('-') as Uuid) : undefined;
}

/** The first 17 hexadecimal digits, as many as EC2's identifiers have. */
export function shortId(hexadecimal: string): string {
  return hexadecimal.replaceAll('-', '').slice(0, 17);
}
