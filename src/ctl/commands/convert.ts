import { defaultConfigFile } from '../../usage.js';
import type { BottleAnswer } from '../bottle.js';
import { defineCommand, writeOption } from '../command.js';
import type { Comparison } from '../comparison.js';
import { readConfiguration } from '../connection.js';
import type { ConvertedFile } from '../conversion.js';
import { CommandError, exitCodes } from '../errors.js';
import { counted, note, printExactly, printJson, stdoutStyle, table } from '../output.js';

/** What became of a file: the words of the JSON output. */
interface Report {
  readonly file: string;
  readonly result: 'converted' | 'unchanged' | 'refused' | 'different';
  /** The file that was written; null if none was. */
  readonly written: string | null;
  readonly problems: readonly { readonly line: number; readonly problem: string }[];
  /** Null if there is no Bottle to compare with. */
  readonly comparison: Omit<Comparison, 'file'> | null;
}

function linesOf(answer: BottleAnswer): string[] {
  return 'output' in answer ? answer.output.split(/(?<=\n)/) : [`error: ${answer.error}\n`];
}

/** The lines in which two answers differ: Bottle's with "-", ours with "+". */
function differenceText(bottle: BottleAnswer, own: BottleAnswer): string {
  const [before, after] = [linesOf(bottle), linesOf(own)];
  let start = 0;
  while (start < before.length && before[start] === after[start]) start += 1;
  let same = 0;
  const shorter = Math.min(before.length, after.length) - start;
  while (same < shorter && before.at(-1 - same) === after.at(-1 - same)) same += 1;
  const changed = [
    ...before.slice(start, before.length - same).map((line) => `-${line}`),
    ...after.slice(start, after.length - same).map((line) => `+${line}`),
  ].map((line) => (line.endsWith('\n') ? line : `${line}\n\\ No newline at end of file\n`));
  return `@@ line ${start + 1} @@\n${changed.join('')}`;
}

/** The rows of a file in the output: what became of it, the file, and more about it. */
function rowsOf({ file, result, written, problems, comparison }: Report): string[][] {
  if (result === 'refused') {
    return problems.map(({ line, problem }) => [result, `${file}:${line}`, problem]);
  }
  const compared =
    comparison === null
      ? ''
      : comparison.different > 0
        ? `the text differs from Bottle ${comparison.bottle} for ${comparison.different} of ${counted(comparison.instances, 'instance')}`
        : `the same text as Bottle ${comparison.bottle} for ${counted(comparison.instances, 'instance')}`;
  return [[result, written ?? file, compared]];
}

export const convert = defineCommand({
  name: 'convert',
  usage: ['FILE...'],
  operands: [1, Number.POSITIVE_INFINITY],
  completes: ['file'],
  options: { write: writeOption },
  summary: 'Convert templates of the Python md_server.',
  help: [
    'Writes each template that it can convert to FILE.new, to look at. With --write, puts it in the place of FILE. A template that means the same in both languages stays as it is.',
    'Refuses what it cannot prove to give the same text: one line for each place, with the reason and what to write. Then it writes nothing for that file, and the exit status is 1.',
    "Where python3-bottle is installed, renders each template before and after for every instance of the database, and shows the first difference; a file that differs is not written. Bottle's escaping of HTML (& as &amp;) does not count: templates here print values as they are. Templates are code: root renders them as mdserver's user (dnsmasq.user).",
  ],
  examples: [
    ['mdserverctl convert /etc/mdserver/userdata/*', 'writes FILE.new for each'],
    ['mdserverctl convert --write /etc/mdserver/userdata/web1', 'keeps the old one as web1.bottle'],
  ],
  run: async (operands, options) => {
    const loaded = readConfiguration(options);
    // Imported here, because it needs the templates' side of mdserver: the other commands start faster.
    const { compareAsDaemon, convertFile, leftovers, replaceTemplate, writeNew } = await import(
      '../conversion.js'
    );
    // A pattern such as userdata/* finds them the second time.
    const [left, files] = [true, false].map((is) =>
      operands.filter((file) => leftovers.test(file) === is),
    ) as [string[], string[]];
    for (const file of left)
      note(`left out ${file}: it is from an earlier conversion, or a backup`);
    const converted = files.map((file) => convertFile(file, loaded));
    const templates = converted.filter((one) => one.result === 'converted');
    const configFile = options.config ?? defaultConfigFile;
    const compared = await compareAsDaemon(templates, loaded, configFile);
    const comparisons = new Map<string, Comparison>();
    if ('problem' in compared) note(`not compared: ${compared.problem}`);
    else for (const one of compared.comparisons) comparisons.set(one.file, one);

    const reports: Report[] = [];
    const write = options.write ? replaceTemplate : writeNew;
    for (const one of converted)
      reports.push(await reportOf(one, comparisons.get(one.file), write));
    if (options.json) printJson(reports);
    else {
      printExactly(await table(stdoutStyle, ['RESULT', 'FILE', ''], reports.flatMap(rowsOf)));
      for (const { file, comparison } of reports) {
        if (comparison?.first === undefined) continue;
        const { name, bottle, own } = comparison.first;
        printExactly(
          `\n--- ${file} for ${name}, from Bottle\n+++ here\n${differenceText(bottle, own)}`,
        );
      }
    }
    const isGood = reports.every(({ result }) => result === 'converted' || result === 'unchanged');
    return isGood ? exitCodes.ok : exitCodes.failed;
  },
});

/** Writes a converted template, and tells what became of it. Throws CommandError. */
async function reportOf(
  converted: ConvertedFile,
  compared: Comparison | undefined,
  write: (file: string, text: string) => Promise<string>,
): Promise<Report> {
  const { file, result } = converted;
  const nothing = { file, written: null, problems: [], comparison: null };
  if (result === 'refused') return { ...nothing, result, problems: converted.problems };
  if (result === 'binary') return { ...nothing, result: 'unchanged' };
  const { file: _, ...comparison } = compared ?? { file };
  const about = { ...nothing, comparison: 'bottle' in comparison ? comparison : null };
  if (compared !== undefined && compared.different > 0) return { ...about, result: 'different' };
  if (converted.after === converted.before) return { ...about, result: 'unchanged' };
  try {
    return { ...about, result, written: await write(file, converted.after) };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const isKept = code === 'EEXIST' && message.includes(`${file}.bottle`);
    const problem = isKept
      ? `${file}.bottle is there from an earlier conversion: remove it, or move it away`
      : `cannot write the converted template: ${message}`;
    throw new CommandError(problem, exitCodes.failed);
  }
}
