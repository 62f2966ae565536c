import { type Case, isMet, isMoreBetter, type Result, ratioOf } from './cases.js';

const widths = [52, 12, 28, 6, 10, 3] as const;

function row(cells: readonly string[]): string {
  return `| ${cells.map((cell, index) => cell.padEnd(widths[index] ?? 0)).join(' | ')} |`;
}

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

function goalOf({ goal, unit, ...rest }: Case): string {
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
