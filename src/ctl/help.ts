import { wrapped } from '../text.js';
import {
  type CommandName,
  commandNamed,
  commandTable,
  exitCodeMeanings,
  globalOptions,
  type OptionName,
  optionNamed,
} from './commands.js';

const width = 90;

/** `-c, --connect URI`, as help and manual show an option. */
export function optionForm(name: OptionName): string {
  const { short, argument } = optionNamed(name);
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

function optionList(names: readonly OptionName[]): string {
  return definitions(names.map((name) => [optionForm(name), optionNamed(name).explanation]));
}

/** The text of `mdserverctl --help`. */
export function overallHelp(): string {
  return `Usage: mdserverctl [OPTION...] COMMAND [ARGUMENT...]

Asks and tells the mdserver of this host, through its control socket.

Commands; "mdserverctl COMMAND --help" says more:
${definitions([...commandTable].map(([name, { usage, summary }]) => [`${name} ${usage[0]}`.trimEnd(), summary]))}
Options:
${optionList(globalOptions)}
On a terminal there are columns and colours (not with NO_COLOR set); elsewhere lines with tabs
between, for scripts. Exit status:
${definitions(exitCodeMeanings.map(([code, meaning]) => [String(code), meaning]))}
See mdserverctl(1), mdserver.conf(5), mdserver(8).
`;
}

/** The text of `mdserverctl COMMAND --help`. */
export function commandHelp(name: CommandName): string {
  const { usage, summary, help, options, examples } = commandNamed(name);
  const forms = usage.map((form) => `mdserverctl ${name} ${form}`.trimEnd());
  const shownOptions = [...options, ...globalOptions];
  return `Usage: ${forms.join('\n       ')}

${[summary, ...help].map((paragraph) => wrapped(paragraph, width).join('\n')).join('\n\n')}

Options:
${optionList(shownOptions)}
Examples:
${definitions(examples)}`;
}
