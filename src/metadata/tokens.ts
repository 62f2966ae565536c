import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

/** The longest life of a session token in seconds (EC2, "Use IMDSv2": six hours). */
export const maxTokenLife = 21600;

/** The length of the key in bytes. */
export const tokenKeyLength = 32;

/** A new random key. */
export function newTokenKey(): Buffer {
  return randomBytes(tokenKeyLength);
}

function seal(key: Buffer, owner: string, expiry: string): Buffer {
  return createHmac('sha256', key).update(`${expiry}\0${owner}`).digest();
}

/**
 * A session token for its owner, valid until a time in Unix seconds: the time and an HMAC over both,
 * so that no token needs to be stored. It consists of letters, digits, `-`, `_` and `.`.
 */
export function makeToken(key: Buffer, owner: string, expiry: number): string {
  const time = expiry.toString(36);
  return `${time}.${seal(key, owner, time).toString('base64url')}`;
}

/** Whether the token was made for this owner and is valid at a time in Unix seconds. */
export function isValidToken(key: Buffer, owner: string, token: string, now: number): boolean {
  const [, time, text] = /^([0-9a-z]{1,9})\.([A-Za-z0-9_-]{43})$/.exec(token) ?? [];
  if (time === undefined || text === undefined) return false;
  const expected = seal(key, owner, time).toString('base64url');
  return timingSafeEqual(Buffer.from(text), Buffer.from(expected)) && now < parseInt(time, 36);
}

/** Parses the lifetime in seconds that a token is requested for; undefined if it is not 1 to 21600. */
export function tokenLife(header: string | string[] | undefined): number | undefined {
  if (typeof header !== 'string' || !/^\d{1,5}$/.test(header)) return undefined;
  const seconds = Number(header);
  return seconds >= 1 && seconds <= maxTokenLife ? seconds : undefined;
}
