import { constants, createPrivateKey, type KeyObject, privateDecrypt } from 'node:crypto';
import type { InstanceDetails } from '../../control/api.js';
import { controlCharacters, operand } from '../../text.js';
import { instancePath } from '../client.js';
import { defineCommand } from '../command.js';
import { connect } from '../connection.js';
import { CommandError, exitCodes } from '../errors.js';
import { readInput } from '../input.js';
import { print, printJson } from '../output.js';

/** An RSA private key in PEM. Throws CommandError with what to do. */
function readPrivateKey(file: string): KeyObject {
  const text = readInput(file);
  // OpenSSL reads neither OpenSSH's own form nor, without its passphrase, a protected key.
  const asPem = `make an unprotected copy in PEM, and remove it afterwards: cp ${operand(file)} key.pem && ssh-keygen -p -N '' -m PEM -f key.pem`;
  const refuse = (problem: string) => new CommandError(`${file} ${problem}`, exitCodes.failed);
  if (text.includes('OPENSSH PRIVATE KEY')) throw refuse(`is in OpenSSH's own format: ${asPem}`);
  if (/^(?:-+BEGIN ENCRYPTED |Proc-Type: .*ENCRYPTED)/m.test(text.toString())) {
    throw refuse(`is protected by a passphrase: ${asPem}`);
  }
  let key: KeyObject;
  try {
    key = createPrivateKey(text);
  } catch (error) {
    throw refuse(`is not a private key in PEM: ${(error as Error).message}`);
  }
  if (key.asymmetricKeyType === 'rsa') return key;
  throw refuse('is not an RSA key: only those decrypt');
}

/**
 * Decrypts a password as `nova get-password` does: base64, RSA with the padding of PKCS #1 v1.5 (RFC 8017
 * 7.2.2), UTF-8. Undefined if the key is another one than it was encrypted for.
 */
export function decryptPassword(encrypted: string, key: KeyObject): string | undefined {
  try {
    // Node refuses to remove this padding (CVE-2023-46809), which matters to servers only.
    const padding = constants.RSA_NO_PADDING;
    const block = privateDecrypt({ key, padding }, Buffer.from(encrypted, 'base64'));
    const end = block.indexOf(0, 2);
    if (block[0] !== 0 || block[1] !== 2 || end < 10) return undefined;
    const text = new TextDecoder('utf-8', { fatal: true }).decode(block.subarray(end + 1));
    return controlCharacters.test(text) ? undefined : text;
  } catch {
    // Too long for the key, or no UTF-8.
    return undefined;
  }
}

export const password = defineCommand({
  name: 'password',
  usage: ['NAME'],
  operands: [1, 1],
  completes: ['instance', 'none'],
  options: {
    key: {
      short: 'k',
      argument: 'FILE',
      completes: 'file',
      explanation: 'Decrypt it with the RSA private key in FILE.',
    },
  },
  summary: 'Print the password that a Windows guest has set.',
  help: [
    'cloudbase-init sets a random password, encrypts it with a public key of the instance, which has to be an RSA key, and reports it to mdserver. With --key, prints the password; without it, prints it encrypted, in base64.',
    'The exit status is 1 if the guest has reported none.',
  ],
  examples: [['mdserverctl password win1 --key ~/.ssh/id_rsa', '']],
  run: async ([name = ''], options) => {
    const instance = await connect(options).get<InstanceDetails>(instancePath(name));
    const { password: encrypted, public_keys } = instance;
    if (encrypted === null) {
      throw new CommandError(
        `${instance.name} has reported no password: cloudbase-init does it once, at its first boot`,
        exitCodes.failed,
      );
    }
    const text =
      options.key === undefined
        ? encrypted
        : decryptPassword(encrypted, readPrivateKey(options.key));
    if (text === undefined) {
      throw new CommandError(
        `${options.key} does not decrypt the password: it was encrypted with a public key that the instance had then; now it has ${public_keys.join(', ') || 'none'}`,
        exitCodes.failed,
      );
    }
    if (options.json) printJson({ password: text });
    else print(`${text}\n`);
    return exitCodes.ok;
  },
});
