import { parseArgs } from 'node:util';
import { closestMatch } from 'leven';
import { ownVersion, releaseDate } from '../config/options.js';
import { documentNames } from '../control/api.js';
import {
  type CommandName,
  type CommandOption,
  commandNamed,
  commandOptions,
  commandTable,
  globalOptions,
  type OptionName,
} from './commands.js';
import { commandHelp, overallHelp } from './help.js';

/** A command line that means nothing; the message says why. */
export class UsageError extends Error {
  readonly code = 'USAGE';
}

/** The options as they were given; undefined or false for those that were not. */
export interface GivenOptions {
  readonly config: string | undefined;
  readonly socket: string | undefined;
  readonly json: boolean;
  readonly yes: boolean;
  readonly prune: boolean;
  readonly connect: string | undefined;
  readonly 'as-xml': string | undefined;
}

/** A command to be run, its operands counted and its options known to it. */
export interface Invocation {
  readonly command: CommandName;
  readonly operands: readonly string[];
  readonly options: GivenOptions;
}

const parserOptions = Object.fromEntries(
  Object.entries<CommandOption>(commandOptions).map(([name, { short, argument }]) => [
    name,
    {
      type: argument === undefined ? ('boolean' as const) : ('string' as const),
      ...(short !== undefined && { short }),
    },
  ]),
);

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], allowPositionals: true, options: parserOptions });
  } catch (error) {
    const [problem] = (error as Error).message.split(/\. |\n/);
    throw new UsageError(`${problem}; see mdserverctl --help`);
  }
}

function knownCommand(word: string): CommandName {
  if (commandTable.has(word)) return word as CommandName;
  const near = closestMatch(word, [...commandTable.keys()], { maxDistance: 3 });
  const hint = near === undefined ? 'see mdserverctl --help' : `did you mean ${near}?`;
  throw new UsageError(`unknown command "${word}", ${hint}`);
}

/**
 * What a command line asks for: a command, or a text to print. Throws UsageError.
 */
export function readArguments(args: readonly string[]): Invocation | { readonly print: string } {
  const { values, positionals } = parse(args);
  const [word, ...operands] = positionals;
  if (values['version'] === true) {
    return { print: `mdserverctl ${ownVersion} (${releaseDate})\n` };
  }
  if (word === undefined) {
    if (values['help'] === true) return { print: overallHelp() };
    throw new UsageError('no command given, see mdserverctl --help');
  }
  const command = knownCommand(word);
  if (values['help'] === true) return { print: commandHelp(command) };

  const { operands: counts, options, usage } = commandNamed(command);
  const see = `see mdserverctl ${command} --help`;
  for (const name of Object.keys(values) as OptionName[]) {
    if (!globalOptions.includes(name) && !options.includes(name)) {
      throw new UsageError(`${command} has no option --${name}, ${see}`);
    }
  }
  const [least, most] = counts;
  if (operands.length < least || operands.length > most) {
    const problem = operands.length < least ? 'too few' : 'too many';
    const forms = usage.map((form) => `mdserverctl ${command} ${form}`.trimEnd()).join(' or ');
    throw new UsageError(`${problem} arguments: ${forms}; ${see}`);
  }

  const text = (name: OptionName) => {
    const value = values[name];
    if (value === '') throw new UsageError(`--${name} needs a value, ${see}`);
    return typeof value === 'string' ? value : undefined;
  };
  const given: GivenOptions = {
    config: text('config'),
    socket: text('socket'),
    json: values['json'] === true,
    yes: values['yes'] === true,
    prune: values['prune'] === true,
    connect: text('connect'),
    'as-xml': text('as-xml'),
  };
  if (command === 'render') checkRender(operands, given['as-xml'] !== undefined, see);
  return { command, operands, options: given };
}

/** NAME [DOCUMENT]; with a file in place of NAME, [DOCUMENT]. */
function checkRender(operands: readonly string[], asXml: boolean, see: string): void {
  if (!asXml && operands.length === 0) throw new UsageError(`render needs a NAME, ${see}`);
  if (asXml && operands.length === 2) {
    throw new UsageError(`--as-xml stands in place of NAME, ${see}`);
  }
  const document = operands[asXml ? 0 : 1];
  if (document !== undefined && !(documentNames as readonly string[]).includes(document)) {
    throw new UsageError(`"${document}" is none of ${documentNames.join(', ')}; ${see}`);
  }
}
