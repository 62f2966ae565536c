import { setTimeout } from 'node:timers/promises';
import type { Config } from '../../config/options.js';
import { controlSocketPath } from '../../control/socket.js';
import { controlClient, fetchHealth } from '../client.js';
import { defineCommand } from '../command.js';
import { readConfiguration } from '../connection.js';
import { CommandError, exitCodes } from '../errors.js';

/** Milliseconds. */
const limit = 60_000;
const interval = 100;

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

async function serves({ mdserver }: Config, socket: string): Promise<boolean> {
  // Imported here, so that other commands start without it.
  const { canConnect, connectAddress } = await import('../checks/network.js');
  const { listen_address: addresses, port } = mdserver;
  const connected = addresses.map((address) => canConnect(connectAddress(address), port));
  return (await Promise.all([answersOn(socket), ...connected])).includes(true);
}

export const wait = defineCommand({
  name: 'wait',
  usage: [''],
  operands: [0, 0],
  completes: ['none'],
  options: {},
  summary: 'Wait until mdserver serves.',
  help: [
    'Ends when mdserver answers on its control socket or on one of its addresses, at most after 60 seconds; by then it has written the files for dnsmasq. mdserver.service starts with it, so dnsmasq waits.',
    'The exit status is 3 if mdserver does not answer. With MAINPID in the environment, as systemd sets it, it does not wait for a process that has ended.',
  ],
  examples: [['mdserverctl wait && mdserverctl sync', 'after a start']],
  run: async (_operands, options) => {
    const end = Date.now() + limit;
    let problem = new CommandError('mdserver does not serve: see its log', exitCodes.unreachable);
    while (Date.now() < end && !mainHasEnded()) {
      try {
        const { config } = readConfiguration(options);
        if (await serves(config, options.socket ?? controlSocketPath(config))) return exitCodes.ok;
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
