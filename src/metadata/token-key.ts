import { readFileSync } from 'node:fs';
import { limitMode, replaceFiles } from '../files.js';
import { newTokenKey, tokenKeyLength } from './tokens.js';

/** The key file cannot be used; the message says what to do. */
export class TokenKeyError extends Error {}

/**
 * Reads the session token key from its file, one line of hexadecimal digits; creates the file,
 * readable by its owner only, if there is none. Throws TokenKeyError, and the file system's error if
 * the file cannot be written.
 */
export async function readTokenKey(path: string): Promise<Buffer> {
  let text: string;
  try {
    limitMode(path, 0o600);
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT')
      throw new TokenKeyError(`the session token key cannot be read: ${message}`);
    const key = newTokenKey();
    await replaceFiles([{ path, content: `${key.toString('hex')}\n`, mode: 0o600 }]);
    return key;
  }
  const digits = text.trim();
  // Buffer.from silently stops at the first bad digit.
  if (digits.length !== 2 * tokenKeyLength || !/^[0-9a-f]*$/i.test(digits)) {
    throw new TokenKeyError(
      `${path} is not a key of ${2 * tokenKeyLength} hexadecimal digits: remove it, and mdserver makes a new one`,
    );
  }
  return Buffer.from(digits, 'hex');
}
