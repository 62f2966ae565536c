import { parseArgs } from 'node:util';
import { closestMatch } from 'leven';
import { ownVersion, releaseDate } from '../config/options.js';
import { type Command, type CommandOption, globalOptions, type OptionTable } from './command.js';
import { commands } from './commands/index.js';
import { UsageError } from './errors.js';
import { commandHelp, overallHelp } from './help.js';

/** A command to run. */
export interface Invocation {
  readonly command: Command;
  readonly operands: readonly string[];
  readonly options: Parameters<Command['run']>[1];
}

/** The options of all commands: they can come before the name of the command. */
function allOptions(known: readonly Command[]): OptionTable {
  return Object.assign({}, globalOptions, ...known.map(({ options }) => options));
}

function parserOption({ short, argument }: CommandOption) {
  return {
    type: argument === undefined ? ('boolean' as const) : ('string' as const),
    ...(short !== undefined && { short }),
  };
}

function parse(args: readonly string[], known: readonly Command[]) {
  const options = Object.fromEntries(
    Object.entries(allOptions(known)).map(([name, option]) => [name, parserOption(option)]),
  );
  try {
    return parseArgs({ args: [...args], allowPositionals: true, options });
  } catch (error) {
    const [problem] = (error as Error).message.split(/\. |\n/);
    throw new UsageError(`${problem}; see mdserverctl --help`);
  }
}

function findCommand(name: string, known: readonly Command[]): Command {
  const command = known.find((candidate) => candidate.name === name);
  if (command !== undefined) return command;
  const names = known.map((candidate) => candidate.name);
  const near = closestMatch(name, names, { maxDistance: 3 });
  const hint = near === undefined ? '; see mdserverctl --help' : `, did you mean ${near}?`;
  throw new UsageError(`unknown command "${name}"${hint}`);
}

/**
 * Parses a command line. Returns a command with its operands and options, or a text to print. Throws
 * UsageError.
 */
export function readArguments(
  args: readonly string[],
  known: readonly Command[] = commands,
): Invocation | { readonly print: string } {
  const { values, positionals } = parse(args, known);
  const [word, ...operands] = positionals;
  if (values['version'] === true) {
    return { print: `mdserverctl ${ownVersion} (${releaseDate})\n` };
  }
  if (word === undefined) {
    if (values['help'] === true) return { print: overallHelp(known) };
    throw new UsageError('no command given; see mdserverctl --help');
  }
  const command = findCommand(word, known);
  if (values['help'] === true) return { print: commandHelp(command) };

  const table: OptionTable = { ...globalOptions, ...command.options };
  const see = `see mdserverctl ${command.name} --help`;
  for (const [name, value] of Object.entries(values)) {
    if (!Object.hasOwn(table, name)) {
      throw new UsageError(`${command.name} has no option --${name}; ${see}`);
    }
    if (value === '') throw new UsageError(`--${name} needs a value; ${see}`);
  }
  const [min, max] = command.operands;
  if (operands.length < min || operands.length > max) {
    const problem = operands.length < min ? 'too few' : 'too many';
    const forms = command.usage.map((form) => `mdserverctl ${command.name} ${form}`.trimEnd());
    throw new UsageError(`${problem} arguments: ${forms.join(' or ')}; ${see}`);
  }
  const given = Object.entries(table).map(([name, { argument }]) => [
    name,
    argument === undefined ? values[name] === true : values[name],
  ]);
  // The types of CommandOptionValues follow from the same tables, which the compiler cannot know here.
  return { command, operands, options: Object.fromEntries(given) as Invocation['options'] };
}
