import { chmodSync, existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { exited } from './cleanup.js';
import { eventually } from './daemon.js';
import type { Namespace } from './netns.js';

/** How ISC's DHCP client asks. */
export interface DhclientSettings {
  /** Its dhclient.conf(5). */
  readonly configuration: string;
  /** Its dhclient.leases(5): what it knows from before. */
  readonly leases?: string;
  /** Whether it gives its address back in the end. */
  readonly release?: boolean;
}

/**
 * Asks for an address in a guest. Gives what dhclient has its script set (`new_ip_address` and so
 * on, without the `new_`), and undefined where it is given no address.
 */
export async function runDhclient(
  guest: Namespace,
  folder: string,
  family: '-4' | '-6',
  { configuration, leases = '', release = false }: DhclientSettings,
): Promise<Readonly<Record<string, string>> | undefined> {
  const home = mkdtempSync(join(folder, 'dhclient-'));
  const file = (name: string) => join(home, name);
  writeFileSync(file('conf'), configuration);
  writeFileSync(file('leases'), leases);
  // In two steps, so that what is there is whole.
  const script = `#!/bin/sh\nenv > ${home}/new && mv ${home}/new ${home}/$reason\n`;
  writeFileSync(file('script'), script);
  chmodSync(file('script'), 0o755);
  const files = ['-cf', file('conf'), '-sf', file('script'), '-lf', file('leases')];
  const options = [family, ...files, '-pf', file('pid')];
  // In the foreground: whatever happens, it ends with the guest.
  const client = guest.start('dhclient', [...options, '-1', '-d', 'eth0']);
  const bound = file(family === '-6' ? 'BOUND6' : 'BOUND');
  await eventually(
    'dhclient has an address or gives up',
    () => existsSync(bound) || client.exitCode !== null,
  );
  if (client.exitCode !== null) return undefined;
  // With -r it ends the one that runs.
  if (release) await guest.run('dhclient', [...options, '-r', 'eth0']);
  client.kill('SIGKILL');
  await exited(client);
  const lines = readFileSync(bound, 'utf8').split('\n');
  const given = lines.filter((line) => line.startsWith('new_'));
  return Object.fromEntries(given.map((line) => line.slice(4).split(/=(.*)/s).slice(0, 2)));
}
