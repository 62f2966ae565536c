import { writeError } from '../systemd.js';
import { jsonText, printable, printableLines } from '../text.js';

/** How output looks: columns and spans of time for a person, lines with tabs for a script. */
export interface Style {
  readonly terminal: boolean;
  readonly colour: boolean;
}

const terminal = process.stdout.isTTY === true;
/** The style of standard output. */
export const stdoutStyle: Style = { terminal, colour: terminal && !process.env['NO_COLOR'] };

/** Prints on standard output. */
export function print(text: string | Buffer): void {
  process.stdout.write(text);
}

/** Prints the text as it is, and on a terminal so that it cannot control it. */
export function printExactly(text: string | Buffer): void {
  print(terminal ? printableLines(text.toString()) : text);
}

/** Prints a value as indented JSON on standard output. */
export function printJson(value: unknown): void {
  print(`${jsonText(value, 2)}\n`);
}

/** Prints a line on standard error, away from the output that a script may read. */
export function note(text: string): void {
  writeError(4, `mdserverctl: ${printable(text)}\n`);
}

const colours = { bold: 1, red: 31, green: 32, yellow: 33 } as const;
/** The name of a colour, or bold. */
export type Colour = keyof typeof colours;

/** The text in a colour, if the style has colours. */
export function coloured(style: Style, colour: Colour, text: string): string {
  return style.colour ? `\x1b[${colours[colour]}m${text}\x1b[0m` : text;
}

const noValue = '-';

/** A value in a table. */
export type Cell = string | number | null | undefined;

/** Returns the colour of a cell; undefined for none. */
export type CellColour = (text: string, column: number) => Colour | undefined;

/**
 * Rows as text: on a terminal in columns under a heading (none if it is empty), elsewhere with tabs
 * between the cells and no heading. An empty cell is shown as "-".
 */
export async function table(
  style: Style,
  heading: readonly string[],
  rows: readonly (readonly Cell[])[],
  colourOf: CellColour = () => undefined,
): Promise<string> {
  const cells = rows.map((row) => row.map((cell) => printable(String(cell ?? '') || noValue)));
  if (!style.terminal) return cells.map((row) => `${row.join('\t')}\n`).join('');
  if (cells.length === 0) return '';
  // Loaded here, since it would slow down the start of every command and only columns need it.
  const { default: stringWidth } = await import('string-width');
  const lines = heading.length === 0 ? cells : [heading, ...cells];
  const widths = (lines[0] ?? []).map((_, column) =>
    lines.reduce((widest, row) => Math.max(widest, stringWidth(row[column] ?? '')), 0),
  );
  const line = (row: readonly string[], colourOfCell: CellColour) =>
    row
      .map((cell, column) => {
        const colour = colourOfCell(cell, column);
        const last = column === row.length - 1;
        const fill = last ? '' : ' '.repeat((widths[column] ?? 0) - stringWidth(cell) + 2);
        return (colour === undefined ? cell : coloured(style, colour, cell)) + fill;
      })
      .join('');
  return lines.map((row) => `${line(row, row === heading ? () => 'bold' : colourOf)}\n`).join('');
}

/** A time in Unix seconds: local time on a terminal, UTC as in RFC 3339 elsewhere. */
export function timeText(style: Style, seconds: number): string {
  const at = new Date(seconds * 1000);
  if (!style.terminal) return at.toISOString().replace(/\.\d+Z$/, 'Z');
  const local = new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString();
  return local.slice(0, 19).replace('T', ' ');
}

const units = [
  [86_400, 'day'],
  [3600, 'hour'],
  [60, 'minute'],
  [1, 'second'],
] as const;

/** A duration in seconds, in its largest unit: `3 minutes`. */
export function durationText(seconds: number): string {
  const [size, unit] = units.find(([length]) => seconds >= length) ?? [1, 'second'];
  return counted(Math.max(0, Math.floor(seconds / size)), unit);
}

/** `1 instance`, `2 instances`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** The first five items in words, and how many more there are. */
export function listed<T>(items: readonly T[], text: (item: T) => string): string {
  const first = items.slice(0, 5).map(text);
  const more = items.length - first.length;
  return `${first.join(', ')}${more === 0 ? '' : ` and ${more} more`}`;
}
