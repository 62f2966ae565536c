import { defaultConfigFile } from '../usage.js';

/** What bash completes for an operand or an option's argument. */
export type Completion = 'instance' | 'document' | 'config-option' | 'file' | 'uri' | 'none';

/** An option on the command line. */
export interface CommandOption {
  readonly short?: string;
  /** The placeholder for its argument; an option without one is a switch. */
  readonly argument?: string;
  readonly completes?: Completion;
  readonly explanation: string;
}

/** Options by their long name, without the hyphens. */
export type OptionTable = Readonly<Record<string, CommandOption>>;

/** The value of each option of a table: text, or undefined if it was not given; true or false for a switch. */
export type CommandOptionValues<T extends OptionTable> = {
  readonly [K in keyof T]: T[K] extends { readonly argument: string }
    ? string | undefined
    : boolean;
};

/** The options of every command; they can stand before and after the command's name. */
export const globalOptions = {
  config: {
    argument: 'FILE',
    completes: 'file',
    explanation: `Use this configuration of mdserver (default: ${defaultConfigFile}).`,
  },
  socket: {
    argument: 'PATH',
    completes: 'file',
    explanation: 'Use this control socket instead of the one in the configuration.',
  },
  json: { explanation: 'Print JSON.' },
  help: { short: 'h', explanation: 'Show this help or, after the name of a command, its help.' },
  version: { short: 'V', explanation: 'Show the version.' },
} as const satisfies OptionTable;

/** The values of the options of every command. */
export type GlobalOptions = CommandOptionValues<typeof globalOptions>;

/** An option of the commands that talk to libvirt. */
export const connectOption = {
  short: 'c',
  argument: 'URI',
  completes: 'uri',
  explanation: 'Connect to libvirt at URI (default: qemu:///system).',
} as const satisfies CommandOption;

/** An option of the commands that convert templates. */
export const writeOption = {
  short: 'w',
  explanation:
    'Put each converted template in the place of the old one, which stays as FILE.bottle.',
} as const satisfies CommandOption;

/** An option of the commands that remove instances. */
export const yesOption = {
  short: 'y',
  explanation: 'Remove without asking.',
} as const satisfies CommandOption;

/** What `--help`, the manual page and the completion say about a command. */
interface CommandDescription {
  readonly name: string;
  /** What follows the name, one entry for each way to call the command. */
  readonly usage: readonly string[];
  /** The smallest and the largest number of operands. */
  readonly operands: readonly [number, number];
  /** For each operand; the last entry is for all further ones. */
  readonly completes: readonly Completion[];
  readonly summary: string;
  /** Paragraphs. */
  readonly help: readonly string[];
  readonly examples: readonly (readonly [command: string, explanation: string])[];
}

/** A command of mdserverctl, with its options in addition to the global ones. */
interface CommandDefinition<T extends OptionTable> extends CommandDescription {
  readonly options: T;
  /** Returns the exit status. Throws CommandError. */
  run(
    operands: readonly string[],
    options: GlobalOptions & CommandOptionValues<T>,
  ): Promise<number>;
}

/** A command in the list of all commands, where the types of its own options are not known. */
export interface Command extends CommandDescription {
  readonly options: OptionTable;
  run(
    operands: readonly string[],
    options: GlobalOptions & Readonly<Record<string, string | boolean | undefined>>,
  ): Promise<number>;
}

/**
 * A command whose `run` gets its options typed by its own table. It fits into the list of commands
 * because `run` is a method: TypeScript lets its parameters be narrower there. readArguments passes
 * each command the options of its table.
 */
export function defineCommand<const T extends OptionTable>(
  definition: CommandDefinition<T>,
): Command {
  return definition;
}
