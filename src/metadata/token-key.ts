import { readFileSync } from 'node:fs';
import { limitMode, replaceFiles } from '../files.js';
import { tokenKeyLength } from './tokens.js';

/**
 * Reads the session token key from its file, one line of hexadecimal digits. If there is no file, it
 * makes one of `fresh()`, readable by its owner only. Throws an error that says what to do, and the
 * file system's error if the file cannot be written.
 */
export async function readTokenKey(path: string, fresh: () => Buffer): Promise<Buffer> {
  let text: string;
  try {
    limitMode(path, 0o600);
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT') throw new Error(`${path} cannot be read: ${message}`);
    const key = fresh();
    await replaceFiles([{ path, content: `${key.toString('hex')}\n`, mode: 0o600 }]);
    return key;
  }
  const digits = text.trim();
  // Buffer.from silently stops at the first bad digit.
  if (digits.length !== 2 * tokenKeyLength || !/^[0-9a-f]*$/i.test(digits)) {
    throw new Error(
      `${path} is not a key of ${2 * tokenKeyLength} hexadecimal digits: remove it, and mdserver makes a new one`,
    );
  }
  return Buffer.from(digits, 'hex');
}
