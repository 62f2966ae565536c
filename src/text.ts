/**
 * Control characters (C0, DEL, C1) and line ends: every character that ends a line in some language
 * (LF, VT, FF, CR, NEL and Python's U+001C to U+001E are among the control characters, U+2028 and
 * U+2029 are not).
 */
export const controlCharacters = /[\p{Cc}\p{Zl}\p{Zp}]/u;

/**
 * Control characters and line ends, and what a reader cannot see or sees in another order:
 * bidirectional controls, default-ignorable code points (zero width characters, U+FEFF, soft hyphen,
 * variation selectors, tag characters), interlinear annotations, noncharacters and lone surrogates.
 * No name needs one: an emoji is the same without its variation selector.
 */
export const deceptiveCharacters =
  /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}\p{Default_Ignorable_Code_Point}\ufff9-\ufffb\p{Noncharacter_Code_Point}\p{Cs}]/u;

const everyDeceptive = new RegExp(deceptiveCharacters, 'gu');

/** The UTF-16 code units of the text as escapes of JavaScript and JSON (`\u001b`). */
export function unicodeEscape(text: string): string {
  return text
    .split('')
    .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
    .join('');
}

/**
 * The text on one line, with its deceptive characters in JavaScript's notation: it can neither start
 * a new line nor control a terminal nor look like another text.
 */
export function printable(text: string): string {
  return text.replace(everyDeceptive, (character) =>
    character === '\n' ? '\\n' : unicodeEscape(character),
  );
}

/** Like printable, for a text of several lines: it keeps its line feeds and tabs. */
export function printableLines(text: string): string {
  return text.replace(everyDeceptive, (character) =>
    character === '\n' || character === '\t' ? character : unicodeEscape(character),
  );
}

/** The text of a number or a boolean, or a JSON document; throws for what has no JSON. */
function jsonOf(value: unknown, indent?: number): string {
  const text: string | undefined = JSON.stringify(value, null, indent);
  if (text === undefined) throw new TypeError(`is ${typeof value}, which has no JSON`);
  return text;
}

/** A value as JSON (RFC 8259), with the deceptive characters of its strings escaped. */
export function jsonText(value: unknown, indent?: number): string {
  return printableLines(jsonOf(value, indent));
}

/**
 * A value as YAML on one line, which YAML 1.1 (PyYAML) and 1.2 read alike: JSON's strings are YAML's
 * double-quoted ones (YAML 1.2, 1.3). A lone surrogate becomes U+FFFD, as in UTF-8.
 */
export function yamlText(value: unknown): string {
  return jsonOf(value)
    .replace(/\\(u[Dd][89A-Fa-f][0-9A-Fa-f]{2}|.)/g, (all, code: string) =>
      code.length > 1 ? '\\ufffd' : all,
    )
    .replace(everyDeceptive, (character) => {
      const code = character.codePointAt(0) ?? 0;
      return code > 0xffff ? `\\U${code.toString(16).padStart(8, '0')}` : unicodeEscape(character);
    });
}

/** The text as one word of a POSIX shell, in single quotes. Throws for NUL, which no word can have. */
export function shellWord(text: string): string {
  if (text.includes('\0')) throw new TypeError('contains NUL, which no shell word can contain');
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/**
 * A name as the operand of a command that somebody may copy into a shell: in single quotes only if it
 * needs them.
 */
export function operand(name: string): string {
  const word = /^[\w.,:@%+/=-]+$/.test(name) ? name : shellWord(name.replaceAll('\0', ''));
  return name.startsWith('-') ? `-- ${word}` : word;
}

/** The text, or its first `length` characters and an ellipsis. */
export function truncate(text: string, length = 80): string {
  return text.length > length ? `${text.slice(0, length)}…` : text;
}

/** A name or a value in a message: in double quotes, and not longer than `length` characters. */
export function quoted(text: string, length?: number): string {
  return jsonText(truncate(text, length));
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
