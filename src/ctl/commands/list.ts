import type { InstanceSummary } from '../../control/api.js';
import { defineCommand } from '../command.js';
import { connect } from '../connection.js';
import { exitCodes } from '../errors.js';
import {
  durationText,
  print,
  printJson,
  type Style,
  stdoutStyle,
  table,
  timeText,
} from '../output.js';

const outcomeColours = new Map([
  ['failed', 'red'],
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
  const rows = instances.map(({ name, ipv4, ipv6, mac, location, last_update, last_boot }) => [
    name,
    ipv4 ?? ipv6,
    mac,
    location,
    last_update && lastSeen(last_update),
    last_boot?.outcome,
  ]);
  const heading = ['NAME', 'ADDRESS', 'MAC', 'LOCATION', 'LAST SEEN', 'LAST BOOT'];
  return table(style, heading, rows, (text, column) =>
    column === 5 ? outcomeColours.get(text as 'failed') : undefined,
  );
}

export const list = defineCommand({
  name: 'list',
  usage: [''],
  operands: [0, 0],
  completes: [],
  options: {},
  summary: 'List the instances.',
  help: [
    'Prints one line for each instance: name, address, MAC address, location, when its domain was last uploaded, and how far its last boot got.',
    'The last boot is one of: started (no activity yet), address (got its address by DHCP), asking (asked for metadata), configured (got its user-data, or there is none for it), failed (its user-data could not be rendered, or its token was refused), home (phoned home), ended (was stopped before it asked for anything). mdserver keeps boots in memory: "-" means that it has seen none since it started.',
  ],
  examples: [['mdserverctl list | cut -f 1,2', 'names and addresses, for a script']],
  run: async (_operands, options) => {
    const instances = await connect(options).get<InstanceSummary[]>('/instances');
    if (options.json) printJson(instances);
    else print(await instanceTable(stdoutStyle, instances, Date.now() / 1000));
    return exitCodes.ok;
  },
});
