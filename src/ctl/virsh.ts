import { mapConcurrently } from './concurrency.js';
import { CommandError, exitCodes } from './errors.js';
import { firstLine, runProgram } from './programs.js';

/** Runs virsh with these arguments and returns its output. Throws CommandError with virsh's message. */
export type Virsh = (...args: string[]) => Promise<string>;

/** The connection URI of libvirt's system instance. */
export const defaultConnection = 'qemu:///system';

/** How many virsh processes run at a time. */
export const maxVirshProcesses = 4;

/** Returns a function that runs virsh with a connection URI. */
export function virshAt(uri: string): Virsh {
  return async (...args) => {
    const result = await runProgram('virsh', ['--connect', uri, ...args]);
    if (result === undefined) {
      throw new CommandError('virsh is not installed: install libvirt-clients', exitCodes.failed);
    }
    if (result.status !== 0) {
      throw new CommandError(`virsh (${uri}): ${firstLine(result.stderr)}`, exitCodes.failed);
    }
    return result.stdout;
  };
}

function linesOf(text: string): string[] {
  return text.split('\n').filter((line) => line !== '');
}

/** The domains of a libvirt connection. Pass virsh the uuids: it would read a name of digits as an ID. */
export interface Domains {
  readonly uuids: readonly string[];
  readonly names: readonly string[];
}

/** All domains, running or not. Throws CommandError. */
export async function listDomains(virsh: Virsh): Promise<Domains> {
  const uuids = linesOf(await virsh('list', '--all', '--uuid'));
  const names = linesOf(await virsh('list', '--all', '--name'));
  return { uuids, names };
}

/** The name of the running domain that has the MAC address. Throws CommandError. */
export async function domainWithMac(virsh: Virsh, mac: string): Promise<string | undefined> {
  const uuids = linesOf(await virsh('list', '--uuid'));
  const matches = await mapConcurrently(uuids, maxVirshProcesses, async (uuid) => {
    try {
      const interfaces = await virsh('domiflist', uuid);
      return interfaces.toLowerCase().includes(mac) ? uuid : undefined;
    } catch (error) {
      // The domain stopped in the meantime.
      if (error instanceof CommandError) return undefined;
      throw error;
    }
  });
  const uuid = matches.find((match) => match !== undefined);
  return uuid === undefined ? undefined : linesOf(await virsh('domname', uuid))[0];
}
