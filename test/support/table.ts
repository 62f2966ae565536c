/** A column: its heading and its width. A negative width means right-aligned. */
export type Column = readonly [heading: string, width: number];

/** Prints a row of a table. */
export function printRow(columns: readonly Column[], cells: readonly string[]): void {
  const padded = columns.map(([, width], index) => {
    const cell = cells[index] ?? '';
    return width < 0 ? cell.padStart(-width) : cell.padEnd(width);
  });
  process.stdout.write(`${padded.join('  ').trimEnd()}\n`);
}

/** Prints the headings of a table. */
export function printHeadings(columns: readonly Column[]): void {
  const headings = columns.map(([heading]) => heading);
  printRow(columns, headings);
}
