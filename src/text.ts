/** A character of the BMP in JavaScript's notation (`\u001b`), which JSON and YAML read, too. */
export function unicodeEscape(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

/**
 * Lines of at most `width` characters where words allow it, each after `indent`; all but the first
 * after `hanging`, where that is another.
 */
export function wrapped(text: string, width: number, indent = '', hanging = indent): string[] {
  const [first = '', ...words] = text.split(' ');
  const lines: string[] = [];
  let line = indent + first;
  for (const word of words) {
    if (line.length + 1 + word.length <= width) {
      line += ` ${word}`;
    } else {
      lines.push(line);
      line = hanging + word;
    }
  }
  return [...lines, line];
}
