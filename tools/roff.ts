/** Escapes the text so that roff prints it unchanged (groff_char(7)). */
export function escaped(text: string): string {
  return text
    .replace(/\\/g, '\\(rs')
    .replace(/-/g, '\\-')
    .replace(/'/g, '\\(aq')
    .replace(/`/g, '\\(ga')
    .replace(/\^/g, '\\(ha')
    .replace(/~/g, '\\(ti')
    .replace(/"/g, '\\(dq')
    .replace(/[^\0-\x7f]/gu, (character) => {
      const code = character.codePointAt(0) ?? 0;
      return `\\[u${code.toString(16).toUpperCase().padStart(4, '0')}]`;
    })
    .replace(/^\./gm, '\\&.');
}

/** Text that is typed or shown literally. */
export const bold = (text: string) => `\\fB${escaped(text)}\\fR`;
/** A placeholder. */
export const italic = (text: string) => `\\fI${escaped(text)}\\fR`;

/** A usage line: placeholders, which are words in capitals, in italics and the rest in bold. */
export function synopsis(text: string): string {
  return text
    .split(/((?<![-A-Za-z])[A-Z]+(?![a-z]))/)
    .map((part, index) => (part === '' ? '' : index % 2 === 1 ? italic(part) : bold(part)))
    .join('');
}

/** A paragraph of text. */
export const paragraph = (text: string) => `.PP\n${escaped(text)}\n`;
/** The heading of a section. */
export const section = (title: string) => `.SH "${escaped(title)}"\n`;
/** The heading of a subsection. */
export const subsection = (title: string) => `.SS "${escaped(title)}"\n`;

/** A term, which is roff, and its explanation, which is text. */
export function definition(term: string, ...paragraphs: readonly string[]): string {
  const [first = '', ...rest] = paragraphs.map(escaped);
  return `.TP\n${term}\n${first}\n${rest.map((text) => `.IP\n${text}\n`).join('')}`;
}

/** Lines that are not filled. */
export function example(lines: readonly string[]): string {
  return `.PP\n.RS 4\n.nf\n${lines.map((line) => `${escaped(line)}\n`).join('')}.fi\n.RE\n`;
}

/** The head of a page. */
export function pageHead(
  name: string,
  manualSection: number,
  date: string,
  source: string,
  summary: string,
): string {
  return `.\\" Generated from the tables in the code (npm run generate): do not edit.
.TH "${escaped(name.toUpperCase())}" "${manualSection}" "${escaped(date)}" "${escaped(source)}" "mdserver"
.nh
.ad l
${section('NAME')}${escaped(name)} \\- ${escaped(summary)}
`;
}

/** The section SEE ALSO: `mdserver(8), mdserver.conf(5)`. */
export function seeAlso(...pages: readonly (readonly [name: string, section: number])[]): string {
  const names = pages.map(([name, number]) => `${bold(name)}(${number})`);
  return `${section('SEE ALSO')}${names.join(',\n')}\n`;
}
