import { readFileSync } from 'node:fs';
import { replaceFiles } from '../files.js';
import { newTokenKey, tokenKeyLength } from './tokens.js';

/** A key file that cannot be used; the message says what to do. */
export class TokenKeyError extends Error {}

/**
 * The key that session tokens are made with, from its file: one line of hexadecimal digits. Made,
 * for its owner alone to read, where there is none yet. Throws TokenKeyError, and what the file
 * system says when it cannot be written.
 */
export async function readTokenKey(path: string): Promise<Buffer> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT') throw new TokenKeyError(`the key of session tokens: ${message}`);
    const key = newTokenKey();
    await replaceFiles([{ path, content: `${key.toString('hex')}\n`, mode: 0o600 }]);
    return key;
  }
  const digits = text.trim();
  // Buffer.from takes what comes before the first bad digit for the whole.
  if (digits.length !== 2 * tokenKeyLength || !/^[0-9a-f]*$/i.test(digits)) {
    throw new TokenKeyError(
      `${path} is no key of ${2 * tokenKeyLength} hexadecimal digits: remove it, and a new one is made`,
    );
  }
  return Buffer.from(digits, 'hex');
}
