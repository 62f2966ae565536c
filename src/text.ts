/** A character of the BMP as a JavaScript escape (`\u001b`), which is valid in JSON and YAML too. */
export function unicodeEscape(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

/**
 * The text on one line: control characters (C0, DEL, C1) and Unicode's line ends in JavaScript's
 * notation, so that they can neither start a new line nor control a terminal.
 */
export function escapeControls(text: string): string {
  return text.replace(/[\0-\x1f\x7f-\x9f\u2028\u2029]/g, (character) =>
    character === '\n' ? '\\n' : unicodeEscape(character),
  );
}

/** The text, or its first `length` characters and an ellipsis. */
export function truncate(text: string, length = 80): string {
  return text.length > length ? `${text.slice(0, length)}…` : text;
}

/** A name or a value in a message: in double quotes, and not too long. */
export function quoted(text: string): string {
  return JSON.stringify(truncate(text));
}

/**
 * Breaks the text into lines of at most `width` characters, unless a word is longer. The first line
 * begins with `indent`, the others with `hanging`.
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
