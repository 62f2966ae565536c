import { setTimeout } from 'node:timers/promises';
import { readLastGood } from '../../config/last-good.js';
import type { Config } from '../../config/options.js';
import { unitStateFolder } from '../../config/unit.js';
import { controlSocketPath } from '../../control/socket.js';
import { controlClient, fetchHealth } from '../client.js';
import { defineCommand, type GlobalOptions } from '../command.js';
import { readConfiguration } from '../connection.js';
import { CommandError, exitCodes } from '../errors.js';

/** Milliseconds. libvirt starts after mdserver.service, so it waits for this: less than the unit's TimeoutStartSec=. */
const limit = 15_000;
const interval = 100;
/** For which the addresses do not count: uploads are taken on the control socket, which comes after them. */
const socketTime = 5000;

/** Whether the process that systemd names in MAINPID has ended; false if it names none. */
function mainHasEnded(): boolean {
  const pid = process.env['MAINPID'];
  if (!pid) return false;
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

async function answersOn(socket: string): Promise<boolean> {
  try {
    await fetchHealth(controlClient(socket));
    return true;
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    return false;
  }
}

/** Whether mdserver accepts connections on one of its addresses. */
async function serves({ mdserver }: Config): Promise<boolean> {
  // Imported here, so that other commands start without it.
  const { canConnect, connectAddress } = await import('../checks/network.js');
  const { listen_address: addresses, port } = mdserver;
  const connected = addresses.map((address) => canConnect(connectAddress(address), port));
  return (await Promise.all(connected)).includes(true);
}

/**
 * The configurations that mdserver may run with: that in the file, and the last good one, which a
 * unit's mdserver starts with if the file has an error. Throws CommandError if there is none.
 */
function configurations(options: GlobalOptions): Config[] {
  const folder = unitStateFolder();
  const lastGood = folder === undefined ? undefined : readLastGood(folder)?.config;
  const others = lastGood === undefined ? [] : [lastGood];
  try {
    return [readConfiguration(options).config, ...others];
  } catch (error) {
    if (others.length === 0) throw error;
    return others;
  }
}

export const wait = defineCommand({
  name: 'wait',
  usage: [''],
  operands: [0, 0],
  completes: ['none'],
  options: {},
  summary: 'Wait until mdserver serves.',
  help: [
    'Ends when mdserver answers on its control socket, at most after 15 seconds; by then it has written the files for dnsmasq and takes uploads, whether its addresses are there or not. If there is no control socket after 5 seconds, an answer on one of the addresses is enough. mdserver.service starts with it, so dnsmasq and libvirt wait.',
    'The exit status is 3 if mdserver does not answer. With MAINPID in the environment, as systemd sets it, it does not wait for a process that has ended.',
  ],
  examples: [['mdserverctl wait && mdserverctl sync', 'after a start']],
  run: async (_operands, options) => {
    const start = Date.now();
    let problem = new CommandError('mdserver does not serve: see its log', exitCodes.unreachable);
    while (Date.now() < start + limit && !mainHasEnded()) {
      try {
        for (const config of configurations(options)) {
          if (await answersOn(options.socket ?? controlSocketPath(config))) return exitCodes.ok;
          if (Date.now() > start + socketTime && (await serves(config))) return exitCodes.ok;
        }
      } catch (error) {
        // mdserver has the same error. If this ended first, systemd would not see its exit status.
        if (!(error instanceof CommandError) || !process.env['MAINPID']) throw error;
        problem = error;
      }
      await setTimeout(interval);
    }
    throw problem;
  },
});
