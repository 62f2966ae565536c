import { wrapped } from '../text.js';
import { type Command, type CommandOption, globalOptions, type OptionTable } from './command.js';
import { exitCodeMeanings } from './errors.js';

const width = 90;

/** `-c, --connect URI`, as help and manual show an option. */
export function optionForm(name: string, { short, argument }: CommandOption): string {
  return `${short === undefined ? '' : `-${short}, `}--${name}${argument === undefined ? '' : ` ${argument}`}`;
}

/** Two columns, the second one wrapped. */
function definitions(rows: readonly (readonly [string, string])[]): string {
  const indent = Math.max(...rows.map(([term]) => term.length)) + 4;
  return rows
    .map(([term, text]) => {
      const [first = '', ...rest] = wrapped(text, width - indent);
      return [
        `  ${term.padEnd(indent - 2)}${first}`,
        ...rest.map((line) => ' '.repeat(indent) + line),
      ]
        .map((line) => `${line.trimEnd()}\n`)
        .join('');
    })
    .join('');
}

function optionList(table: OptionTable): string {
  return definitions(
    Object.entries(table).map(([name, option]) => [optionForm(name, option), option.explanation]),
  );
}

/** The text of `mdserverctl --help`. */
export function overallHelp(commands: readonly Command[]): string {
  return `Usage: mdserverctl [OPTION...] COMMAND [ARGUMENT...]

Shows and manages the instances of the mdserver on this host, through its control socket.

Commands ("mdserverctl COMMAND --help" shows more):
${definitions(commands.map(({ name, usage, summary }) => [`${name} ${usage[0]}`.trimEnd(), summary]))}
Options:
${optionList(globalOptions)}
On a terminal, output is in columns and in colour (unless NO_COLOR is set). Elsewhere it is one
line per item, with tabs between the values, for scripts.

Exit status:
${definitions(exitCodeMeanings.map(([code, meaning]) => [String(code), meaning]))}
See mdserverctl(1), mdserver.conf(5), mdserver(8).
`;
}

/** The text of `mdserverctl COMMAND --help`. */
export function commandHelp({ name, usage, summary, help, options, examples }: Command): string {
  const forms = usage.map((form) => `mdserverctl ${name} ${form}`.trimEnd());
  return `Usage: ${forms.join('\n       ')}

${[summary, ...help].map((paragraph) => wrapped(paragraph, width).join('\n')).join('\n\n')}

Options:
${optionList({ ...options, ...globalOptions })}
Examples:
${definitions(examples)}`;
}
