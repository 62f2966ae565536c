import { closestMatch } from 'leven';
import { tableOptions, valueText } from '../../config/load.js';
import type { Config, Option } from '../../config/options.js';
import { controlSocketPath } from '../../control/socket.js';
import { defineCommand } from '../command.js';
import { readConfiguration } from '../connection.js';
import { exitCodes, UsageError } from '../errors.js';
import { note, printExactly, printJson } from '../output.js';

const optionsByName: ReadonlyMap<string, Option> = new Map(
  Array.from(tableOptions(), ({ name, option }) => [name, option]),
);

const secretNames = [...optionsByName].filter(([, { secret }]) => secret).map(([name]) => name);

/** The value that mdserver uses, as written, on one line; undefined if there is none. */
function effectiveValue(config: Config, name: string): string | undefined {
  if (name === 'mdserver.control_socket') return controlSocketPath(config);
  // As a number also where the configuration has a netmask.
  if (name === 'dnsmasq.net_prefix') return String(config.dnsmasq.net_prefix);
  return valueText(config, name);
}

/** The options without the secret ones, with the values that mdserver uses, as `mdserverctl config` prints them. */
export function effectiveValues(
  config: Config,
): (readonly [name: string, value: string | undefined])[] {
  return [...optionsByName.keys()]
    .filter((name) => !secretNames.includes(name))
    .map((name) => [name, effectiveValue(config, name)]);
}

/** Throws UsageError, which suggests the closest name, if no option has the name. */
function requireOption(name: string): void {
  if (optionsByName.has(name)) return;
  const names = [...optionsByName.keys()];
  const key = name.slice(name.lastIndexOf('.') + 1);
  const near =
    closestMatch(name, names, { maxDistance: 3 }) ??
    names.find((candidate) => candidate.endsWith(`.${key}`));
  const hint = near === undefined ? '; see mdserver.conf(5)' : `, did you mean ${near}?`;
  throw new UsageError(`unknown option "${name}"${hint}`);
}

export const config = defineCommand({
  name: 'config',
  usage: ['[SECTION.KEY...]'],
  operands: [0, Number.POSITIVE_INFINITY],
  completes: ['config-option'],
  options: {},
  summary: 'Print the effective values of the configuration.',
  help: [
    'Reads the configuration as mdserver does, with the included files, [DEFAULT] and the defaults. mdserver need not be running; if it is, it keeps its values until you reload or restart it.',
    'Prints a line "section.key=value" for each option. If you name options, prints only their values, one per line in the given order. An option that is not set has an empty value, except mdserver.control_socket, whose value is the path in use. A netmask in dnsmasq.net_prefix is printed as the prefix length. A list that spans several lines is printed on one line. With --json, prints an object from "section.key" to value, null if it is not set.',
    `Prints ${secretNames.join(', ')} only if you name it. Never prints [public-keys], [template-data] and [dhcp-options].`,
  ],
  examples: [
    ['mdserverctl config', 'every option but the password'],
    ['mdserverctl config mdserver.port dnsmasq.run_dir', 'these two values'],
  ],
  run: async (operands, options) => {
    operands.forEach(requireOption);
    const named = operands.length > 0;
    const { config: values, warnings } = readConfiguration(options);
    warnings.forEach(note);
    const rows = named
      ? operands.map((name) => [name, effectiveValue(values, name)] as const)
      : effectiveValues(values);
    if (options.json) {
      printJson(Object.fromEntries(rows.map(([name, value]) => [name, value ?? null])));
    } else {
      printExactly(
        rows.map(([name, value = '']) => `${named ? '' : `${name}=`}${value}\n`).join(''),
      );
    }
    return exitCodes.ok;
  },
});
