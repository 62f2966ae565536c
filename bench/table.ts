import { cpus, release, totalmem } from 'node:os';
import { type Case, isMet, isMoreBetter, type Result, ratioOf } from './cases.js';

const widths = [52, 13, 28, 6, 10, 3] as const;

function row(cells: readonly string[]): string {
  return `| ${cells.map((cell, index) => cell.padEnd(widths[index] ?? 0)).join(' | ')} |`;
}

/** The machine and the run, on which all figures depend. */
export function circumstances(syncMilliseconds: number): string {
  const gigabytes = (totalmem() / 1e9).toFixed(0);
  const [kernel] = release().split('-');
  return `${cpus().length} cores (${cpus()[0]?.model ?? process.arch}), ${gigabytes} GB of memory, Linux ${kernel}, Node ${process.version.slice(1)}; a file of 4 KiB is on disk in ${syncMilliseconds.toFixed(1)} ms`;
}

/** What a reader has to know, below the table. */
export const legend = `
Ratio: mdserver's figure divided by the one beside it, from the same run. More is better for requests
(/s: in a second; /s CPU: in a second of the server's CPU time), less for time and memory.
Bare node: node:http alone, with the same answers. Plain writing: Node writes, syncs and renames files
as large as those of mdserver. docs/benchmarks.md says what each case is.`;

/** The first two lines of the table, which is Markdown. */
export const headings = [
  row(['case', 'mdserver', 'beside it', 'ratio', 'goal', 'met']),
  row(widths.map((width) => '-'.repeat(width))),
].join('\n');

const shortUnits: Readonly<Record<Case['unit'], string>> = {
  'requests/s': '/s',
  'requests per second of CPU': '/s CPU',
  ms: 'ms',
  'ms of CPU': 'ms CPU',
  MB: 'MB',
};

function figure(value: number, unit: Case['unit']): string {
  return `${value.toLocaleString('en', { maximumSignificantDigits: 3 })} ${shortUnits[unit]}`;
}

/** The goal of a case, as the table has it. */
export function goalOf({ goal, unit, ...rest }: Case): string {
  if (goal === undefined) return '';
  const sign = isMoreBetter({ unit, ...rest }) ? '≥' : '≤';
  return `${sign} ${goal.of === 'ratio' ? goal.value.toFixed(2) : figure(goal.value, unit)}`;
}

/** The line of a result. */
export function line(result: Result): string {
  const { of, mdserver, reference } = result;
  const met = isMet(result);
  return row([
    of.name,
    figure(mdserver, of.unit),
    `${of.reference}: ${figure(reference, of.unit)}`,
    ratioOf(result).toFixed(2),
    goalOf(of),
    met === undefined ? '' : met ? 'yes' : 'no',
  ]);
}
