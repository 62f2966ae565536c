import assert from 'node:assert/strict';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Namespace } from './netns.js';

/** What a DHCP server has given a client, by udhcpc's names. */
export type Lease = Readonly<Record<string, string>>;

/**
 * Asks for a lease as cloud images do: with the classless routes. `folder` is one for what the test
 * leaves. Undefined where none is given.
 */
export async function askForLease(
  { folder }: { readonly folder: string },
  guest: Namespace,
  ...more: string[]
): Promise<Lease | undefined> {
  const script = join(folder, `udhcpc-${guest.name}`);
  const dump = `${script}.env`;
  writeFileSync(script, `#!/bin/sh\nif [ "$1" = bound ]; then env > ${dump}; fi\n`);
  chmodSync(script, 0o755);
  const options = ['staticroutes', 'domain', 'search'].flatMap((name) => ['-O', name]);
  const { status, stderr } = await guest.run(
    'udhcpc',
    ['-f', '-n', '-q', '-t', '3', '-T', '1', '-i', 'eth0', '-s', script, ...options, ...more],
    { PATH: process.env['PATH'] },
  );
  if (status !== 0) {
    assert.match(stderr, /no lease/);
    return undefined;
  }
  const lines = readFileSync(dump, 'utf8').trimEnd().split('\n');
  const pairs = lines.map((line) => line.split(/=(.*)/s).slice(0, 2) as [string, string]);
  const ours = ['PATH', 'PWD', 'SHLVL', 'OLDPWD', '_', 'interface'];
  return Object.fromEntries(pairs.filter(([name]) => !ours.includes(name)));
}

/** Sets the guest's address and routes as a client does that knows classless routes (RFC 3442). */
export function useLease(guest: Namespace, lease: Lease): void {
  guest.ip(`address add ${lease['ip']}/${lease['mask']} dev eth0`);
  const words = (lease['staticroutes'] ?? '').split(' ');
  for (let index = 0; index + 1 < words.length; index += 2) {
    guest.ip(`route add ${words[index]} via ${words[index + 1]}`);
  }
}
