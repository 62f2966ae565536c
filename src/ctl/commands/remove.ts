import type { InstanceDetails, InstanceSummary } from '../../control/api.js';
import { printable } from '../../text.js';
import { AnswerError, type ControlClient, instancePath } from '../client.js';
import { connectOption, defineCommand, yesOption } from '../command.js';
import { mapConcurrently } from '../concurrency.js';
import { connect, readConfigurationIfPossible } from '../connection.js';
import { CommandError, exitCodes } from '../errors.js';
import { instanceFinder, isHere } from '../guests.js';
import { confirm, requireConfirmation } from '../input.js';
import {
  counted,
  note,
  print,
  printJson,
  type Style,
  stdoutStyle,
  table,
  timeText,
} from '../output.js';
import { defaultConnection, listDomains, virshAt } from '../virsh.js';

/** An instance to remove. */
interface Removal {
  readonly name: string;
  /** Whether libvirt says that its guest does not run: its address is then free for another one. */
  readonly gone: boolean;
}

/** Removes the instances and prints each one, unless the output is JSON. Returns the removed ones and an exit status. */
export async function removeInstances(
  control: ControlClient,
  removals: readonly Removal[],
  json: boolean,
): Promise<{ removed: InstanceSummary[]; status: number }> {
  const removed: InstanceSummary[] = [];
  let status: number = exitCodes.ok;
  for (const { name, gone } of removals) {
    try {
      const path = `${instancePath(name)}${gone ? '?guest=gone' : ''}`;
      const instance = await control.remove<InstanceSummary>(path);
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

/** Seconds. */
const libvirtTimeLimit = 10;

/** Which guests of instances run, as far as libvirt says. */
interface GuestStates {
  readonly running: ReadonlySet<InstanceSummary>;
  /** Those of which libvirt says that they do not run. */
  readonly gone: ReadonlySet<InstanceSummary>;
  /** Why libvirt could not be asked; undefined if it was. */
  readonly problem?: string;
}

/** Asks libvirt, which knows nothing of the guests of another location than `here`. */
async function statesOf(
  instances: readonly InstanceSummary[],
  uri: string,
  here: string | undefined,
): Promise<GuestStates> {
  try {
    const domains = await listDomains(virshAt(uri, libvirtTimeLimit));
    const instanceOf = instanceFinder(instances);
    const found = new Set(domains.filter((domain) => domain.running).map(instanceOf));
    return {
      running: new Set(instances.filter((instance) => found.has(instance))),
      gone: new Set(instances.filter((one) => !found.has(one) && isHere(one, here))),
    };
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    return { running: new Set(), gone: new Set(), problem: error.message };
  }
}

/** What the removal does to guests that run or may run: a line each. */
function removalNotes(
  style: Style,
  instances: readonly InstanceSummary[],
  { running, gone, problem }: GuestStates,
): string[] {
  return instances.flatMap((instance) => {
    if (gone.has(instance)) return [];
    const { name, location, last_boot } = instance;
    const held = 'its address goes to no other guest until it stops, or its lease ends';
    if (running.has(instance)) {
      return [
        `${name} runs: it loses DHCP, DNS and metadata until its next start, when the hook adds it again; ${held}`,
      ];
    }
    const why = problem ?? `its record has the location ${location}`;
    return [
      typeof last_boot?.ended === 'number'
        ? `libvirt does not tell whether ${name} runs (${why}); mdserver saw it stop at ${timeText(style, last_boot.ended)}`
        : `libvirt does not tell whether ${name} runs (${why}); ${held}`,
    ];
  });
}

export const remove = defineCommand({
  name: 'remove',
  usage: ['NAME...'],
  operands: [1, Number.POSITIVE_INFINITY],
  completes: ['instance'],
  options: { yes: yesOption, connect: connectOption },
  summary: 'Remove instances.',
  help: [
    'Frees the names at once, in DHCP and in DNS. For dnsmasq.lease_len seconds, the addresses go to another instance only if no other address is free. Does not touch the domain itself: when it starts again, the hook adds the instance again; within that time, with the same addresses.',
    'Asks libvirt whether the guests run, and says what one that runs loses. Its address goes to no other instance until it stops or its lease ends, not even if no other is free. The same holds if libvirt cannot be asked.',
    'Asks for confirmation on a terminal; without a terminal, --yes is required. If some of the names do not exist, the others are removed and the exit status is 4.',
  ],
  examples: [['mdserverctl remove --yes web1 web2', 'without asking']],
  run: async (operands, options) => {
    requireConfirmation('remove', options.yes);
    const control = connect(options);
    const names = [...new Set(operands)];
    const instances = await findInstances(control, names);
    const here = readConfigurationIfPossible(options)?.service.location;
    const askLibvirt = () => statesOf(instances, options.connect ?? defaultConnection, here);
    let states = await askLibvirt();
    for (const line of removalNotes(stdoutStyle, instances, states)) note(line);
    const running = new Set([...states.running].map(({ name }) => name));
    const labels = names.map((name) => (running.has(name) ? `${name} (running)` : name));
    const what =
      labels.length === 1
        ? labels[0]
        : `${counted(names.length, 'instance')}: ${labels.join(', ')}`;
    if (!options.yes) {
      if (!(await confirm(printable(`Remove ${what}?`)))) {
        note('nothing was removed');
        return exitCodes.failed;
      }
      // A guest may have started before the answer.
      states = await askLibvirt();
    }
    const gone = new Set([...states.gone].map(({ name }) => name));
    const removals = names.map((name) => ({ name, gone: gone.has(name) }));
    const { removed, status } = await removeInstances(control, removals, options.json);
    if (options.json) printJson(removed);
    return status;
  },
});

/** The instances of these names. The removal tells of names that do not exist. */
async function findInstances(
  control: ControlClient,
  names: readonly string[],
): Promise<InstanceSummary[]> {
  const found = await mapConcurrently(names, 8, async (name) => {
    try {
      return await control.get<InstanceDetails>(instancePath(name));
    } catch (error) {
      if (error instanceof AnswerError && error.status === 404) return undefined;
      throw error;
    }
  });
  return found.filter((instance) => instance !== undefined);
}
