import { printable } from '../../text.js';
import { defaultConfigFile } from '../../usage.js';
import { defineCommand, writeOption } from '../command.js';
import { pathPrefix } from '../connection.js';
import { exitCodes } from '../errors.js';
import type { Fate, MigrationFinding } from '../migration/finding.js';
import { coloured, counted, note, print, printJson, stdoutStyle } from '../output.js';

const colours = {
  stays: 'green',
  replaced: 'green',
  converted: 'green',
  differs: 'yellow',
  convert: 'red',
  decide: 'red',
} as const satisfies Record<Fate, string>;

function place({ file, line }: MigrationFinding): string {
  return line === undefined ? file : `${file}:${line}`;
}

/** A line of the output for scripts: columns with tabs between them. */
export function findingColumns(finding: MigrationFinding): string {
  return [finding.fate, place(finding), finding.text].map(printable).join('\t');
}

/** On a terminal, the fates are in a column. */
function findingLine(finding: MigrationFinding): string {
  if (!stdoutStyle.terminal) return `${findingColumns(finding)}\n`;
  const { fate, text } = finding;
  return `${coloured(stdoutStyle, colours[fate], fate.padEnd(9))}  ${printable(`${place(finding)}: ${text}`)}\n`;
}

/** What has to be done before anything is replaced. */
export function stepsBefore(findings: readonly MigrationFinding[]): string[] {
  const count = (fate: Fate) => findings.filter((finding) => finding.fate === fate).length;
  const toDecide = count('decide');
  const toConvert = count('convert');
  return [
    ...(toDecide > 0 ? [`${counted(toDecide, 'thing')} to decide first`] : []),
    ...(toConvert > 0
      ? [`${counted(toConvert, 'template')} to convert: mdserverctl migrate --write`]
      : []),
  ];
}

export const migrate = defineCommand({
  name: 'migrate',
  usage: ['[CONFIG]'],
  operands: [0, 1],
  completes: ['file'],
  options: { write: writeOption },
  summary: 'Say what becomes of an installation of the Python md_server.',
  help: [
    'Reads the configuration of the Python md_server, its database, its templates and its units, hooks and programs on this host. Prints one line for each part, with file and line, that begins with what becomes of it: it stays; it is replaced by system-integration.sh, which keeps it as FILE.md_server; it is converted; it differs, which works, but not as before; convert, what --write converts; decide, what you have to change first.',
    'The exit status is 1 if something would break: if there is a line that begins with "convert" or "decide". Writes nothing without --write. system-integration.sh runs this first where it finds the Python md_server, and replaces nothing unless the exit status is 0.',
    'docs/migration.md has the way to mdserver, and back.',
  ],
  examples: [
    ['mdserverctl migrate', 'what would become of everything'],
    ['mdserverctl migrate --write', 'converts the templates'],
  ],
  run: async ([operand], options) => {
    // Imported here, because it needs most of mdserver: the other commands start faster.
    const { migration } = await import('../migration/migration.js');
    const file = operand ?? options.config ?? defaultConfigFile;
    const findings: MigrationFinding[] = [];
    for await (const finding of migration(file, { prefix: pathPrefix, write: options.write })) {
      findings.push(finding);
      if (!options.json) print(findingLine(finding));
    }
    if (options.json) printJson(findings);
    const todo = stepsBefore(findings);
    todo.forEach(note);
    return todo.length > 0 ? exitCodes.failed : exitCodes.ok;
  },
});
