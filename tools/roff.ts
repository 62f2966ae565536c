/** Text as roff prints it, character for character (groff_char(7)): nothing in it is a command. */
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

/** Words that people type or see as they stand. */
export const bold = (text: string) => `\\fB${escaped(text)}\\fR`;
/** What stands for something else. */
export const italic = (text: string) => `\\fI${escaped(text)}\\fR`;

/** A usage line: what is in capitals is italic, the rest bold. */
export function synopsis(text: string): string {
  return text
    .split(/([A-Z]+(?![a-z]))/)
    .map((part, index) => (part === '' ? '' : index % 2 === 1 ? italic(part) : bold(part)))
    .join('');
}

export const paragraph = (text: string) => `.PP\n${escaped(text)}\n`;
export const section = (title: string) => `.SH "${escaped(title)}"\n`;
export const subsection = (title: string) => `.SS "${escaped(title)}"\n`;

/** A term, in roff already, and what it means. */
export function definition(term: string, ...paragraphs: readonly string[]): string {
  const [first = '', ...rest] = paragraphs.map(escaped);
  return `.TP\n${term}\n${first}\n${rest.map((text) => `.IP\n${text}\n`).join('')}`;
}

/** Lines that are kept as they are. */
export function example(lines: readonly string[]): string {
  return `.PP\n.RS 4\n.nf\n${lines.map((line) => `${escaped(line)}\n`).join('')}.fi\n.RE\n`;
}

/** The head of a page. */
export function head(
  name: string,
  manualSection: number,
  date: string,
  source: string,
  summary: string,
): string {
  return `.\\" Made from the tables of the code: a change here is lost.
.TH "${escaped(name.toUpperCase())}" "${manualSection}" "${escaped(date)}" "${escaped(source)}" "mdserver"
.nh
.ad l
${section('NAME')}${escaped(name)} \\- ${escaped(summary)}
`;
}

/** "mdserver(8), mdserver.conf(5)". */
export function seeAlso(...pages: readonly (readonly [name: string, section: number])[]): string {
  const names = pages.map(([name, number]) => `${bold(name)}(${number})`);
  return `${section('SEE ALSO')}${names.join(',\n')}\n`;
}
