import type { InstanceSummary } from '../../control/api.js';
import type { ControlClient } from '../client.js';
import { connectOption, defineCommand } from '../command.js';
import { connect, readConfigurationIfPossible } from '../connection.js';
import { CommandError, exitCodes } from '../errors.js';
import {
  type GuestNetwork,
  guestNetwork,
  instanceFinder,
  lacksDatasource,
  runningGuests,
  uploadRemedy,
} from '../guests.js';
import {
  counted,
  durationText,
  listed,
  note,
  print,
  printJson,
  type Style,
  stdoutStyle,
  table,
  timeText,
} from '../output.js';
import { defaultConnection, listDomains, virshAt } from '../virsh.js';

const outcomeColours = new Map([
  ['failed', 'red'],
  ['no-address', 'yellow'],
  ['start-failed', 'red'],
  ['left network', 'yellow'],
  ['home', 'green'],
  ['configured', 'green'],
] as const);

/** The output of `mdserverctl list`; `now` in Unix seconds. */
export function instanceTable(
  style: Style,
  instances: readonly InstanceSummary[],
  now: number,
): Promise<string> {
  const lastSeen = (at: number) =>
    style.terminal ? `${durationText(now - at)} ago` : timeText(style, at);
  const rows = instances.map((instance) => [
    instance.name,
    instance.ipv4 ?? instance.ipv6,
    instance.mac,
    instance.location,
    instance.last_update && lastSeen(instance.last_update),
    instance.left_network === null ? instance.last_boot?.outcome : 'left network',
    instance.datasource === 'none' && !lacksDatasource(instance) ? null : instance.datasource,
  ]);
  const heading = ['NAME', 'ADDRESS', 'MAC', 'LOCATION', 'LAST SEEN', 'LAST BOOT', 'DATASOURCE'];
  return table(style, heading, rows, (text, column) =>
    column === 5
      ? outcomeColours.get(text as 'failed')
      : column === 6 && text === 'none'
        ? 'yellow'
        : undefined,
  );
}

/** Seconds. A libvirtd that hangs must not hold up the list. */
const libvirtTimeLimit = 2;

/** Names the domains that run on the network without a record; says nothing if there are none. */
async function noteUnknownDomains(
  control: ControlClient,
  instances: readonly InstanceSummary[],
  network: GuestNetwork,
  uri: string,
): Promise<void> {
  try {
    const virsh = virshAt(uri, libvirtTimeLimit);
    const instanceOf = instanceFinder(instances);
    const domains = (await listDomains(virsh)).filter((domain) => !instanceOf(domain));
    const guests = await runningGuests(virsh, domains, network);
    const found = guests.filter(({ macs }) => macs.length > 0).map(({ domain }) => domain);
    if (found.length === 0) return;
    // A domain that started in the meantime has a record by now.
    const instanceNow = instanceFinder(await control.get<InstanceSummary[]>('/instances'));
    const unknown = found.filter((domain) => !instanceNow(domain));
    if (unknown.length === 0) return;
    note(
      `${counted(unknown.length, 'running domain')} on the network without a record: ${listed(unknown, ({ name }) => name)}: ${uploadRemedy(unknown)}`,
    );
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    note(`cannot look for running domains without a record: ${error.message}`);
  }
}

export const list = defineCommand({
  name: 'list',
  usage: [''],
  operands: [0, 0],
  completes: [],
  options: { connect: connectOption },
  summary: 'List the instances.',
  help: [
    'Prints one line for each instance: name, address, MAC address, location, when its domain was last uploaded, how far its last boot got, and which datasource its domain names for cloud-init.',
    'The last boot is one of: started (no activity yet), no-address (asked for an address and has none), address (got its address by DHCP), asking (asked for metadata), configured (got its user-data, or there is none for it), failed (its user-data could not be rendered, or its token was refused), home (phoned home), ended (was stopped before it asked for anything), start-failed (libvirt could not start it). "left network" means that its domain has no interface on the network any more: see mdserverctl sync --prune. mdserver keeps boots in memory: "-" means that it has seen none since it started.',
    'The datasource is ec2, nocloud or openstack. "none" means that cloud-init in most images will look nowhere, and that the guest has not asked yet: mdserverctl explain has the line that mends it. "-" means that it is not known, or not needed.',
    'On a terminal, a last line on standard error names the running domains of libvirt that are on the network and have no record. A libvirt that does not answer within 2 seconds is not waited for.',
  ],
  examples: [['mdserverctl list | cut -f 1,2', 'names and addresses, for a script']],
  run: async (_operands, options) => {
    const control = connect(options);
    const instances = await control.get<InstanceSummary[]>('/instances');
    if (options.json) printJson(instances);
    else print(await instanceTable(stdoutStyle, instances, Date.now() / 1000));
    // Scripts, and the completion in bash, get the list at once and nothing else.
    if (process.stderr.isTTY) {
      const network = guestNetwork(readConfigurationIfPossible(options));
      await noteUnknownDomains(control, instances, network, options.connect ?? defaultConnection);
    }
    return exitCodes.ok;
  },
});
