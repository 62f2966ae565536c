import type { InstanceSummary } from '../../control/api.js';
import { printable } from '../../text.js';
import { AnswerError, type ControlClient, instancePath } from '../client.js';
import { defineCommand, yesOption } from '../command.js';
import { connect } from '../connection.js';
import { exitCodes } from '../errors.js';
import { confirm, requireConfirmation } from '../input.js';
import { counted, note, print, printJson, stdoutStyle, table } from '../output.js';

/** Removes the instances and prints each one, unless the output is JSON. Returns the removed ones and an exit status. */
export async function removeInstances(
  control: ControlClient,
  names: readonly string[],
  json: boolean,
): Promise<{ removed: InstanceSummary[]; status: number }> {
  const removed: InstanceSummary[] = [];
  let status: number = exitCodes.ok;
  for (const name of names) {
    try {
      const instance = await control.remove<InstanceSummary>(instancePath(name));
      removed.push(instance);
      if (!json) print(await table(stdoutStyle, [], [['removed', instance.name, instance.ipv4]]));
    } catch (error) {
      if (!(error instanceof AnswerError)) throw error;
      note(`${name}: ${error.message}`);
      if (status !== exitCodes.failed) status = error.exitCode;
    }
  }
  return { removed, status };
}

export const remove = defineCommand({
  name: 'remove',
  usage: ['NAME...'],
  operands: [1, Number.POSITIVE_INFINITY],
  completes: ['instance'],
  options: { yes: yesOption },
  summary: 'Remove instances.',
  help: [
    'Frees the names at once, in DHCP and in DNS. For dnsmasq.lease_len seconds, the addresses go to another instance only if no other address is free. Does not touch the domain itself: when it starts again, the hook adds the instance again; within that time, with the same addresses.',
    'Asks for confirmation on a terminal; without a terminal, --yes is required. If some of the names do not exist, the others are removed and the exit status is 4.',
  ],
  examples: [['mdserverctl remove --yes web1 web2', 'without asking']],
  run: async (operands, options) => {
    requireConfirmation('remove', options.yes);
    const control = connect(options);
    const names = [...new Set(operands)];
    const what =
      names.length === 1 ? names[0] : `${counted(names.length, 'instance')} (${names.join(', ')})`;
    if (!options.yes && !(await confirm(printable(`Remove ${what}?`)))) {
      note('nothing was removed');
      return exitCodes.failed;
    }
    const { removed, status } = await removeInstances(control, names, options.json);
    if (options.json) printJson(removed);
    return status;
  },
});
