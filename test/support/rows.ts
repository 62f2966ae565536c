/** The name of a table's row as a subtest: what is in its cells, each no longer than a line. */
export function rowName(...cells: readonly unknown[]): string {
  const texts = cells.map((cell) => {
    const value = Buffer.isBuffer(cell) ? cell.toString('latin1') : cell;
    const text = value instanceof RegExp ? String(value) : (JSON.stringify(value) ?? 'undefined');
    return text.length > 60 ? `${text.slice(0, 60)}… (${text.length})` : text;
  });
  return texts.join(', ');
}
