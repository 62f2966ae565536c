/** What a file of userdata_dir says about itself, for those who render it and those who convert it. */

/** The first line of a template that is JavaScript without doubt. */
export const javaScriptMark = '{{% language javascript }}';

/** How deep files may include each other. */
export const maxIncludes = 8;

const languageMark = /^\{\{%[ \t]*language[ \t]+(\S+?)[ \t]*\}\}[ \t]*(?:\r\n?|\n|$)/;

/** What the first line says about the language, and its length with its line end; 0 if it says nothing. */
export function languageLine(start: string): { language: string | undefined; length: number } {
  const [mark = '', language] = languageMark.exec(start) ?? [];
  return { language, length: mark.length };
}

/** cloud-init's own templates: cloud-init replaces their double braces in the guest. */
const guestTemplate = /## template:[ \t]*jinja/i;

/** Whether the file begins with a template of cloud-init, which skips blank lines. */
export function isGuestTemplate(start: string): boolean {
  return /^\s*## template:[ \t]*jinja/i.test(start);
}

/**
 * Where there are templates of cloud-init in parts of the source: a MIME message, or a
 * `#cloud-config-archive`.
 */
export function guestParts(source: string): readonly (readonly [start: number, end: number])[] {
  if (!guestTemplate.test(source)) return [];
  const isArchive = /^\s*#cloud-config-archive\b/.test(source);
  const isMime = /^(?:[\w-]+:.*\n(?:[ \t].*\n)*)*content-type:[ \t]*multipart\//i.test(source);
  if (!isArchive && !isMime) return [];
  const boundaries = Array.from(
    source.matchAll(/\bboundary=(?:"([^"\n]+)"|([^\s";]+))/gi),
    ([, quoted, bare]) => `\n--${quoted ?? bare}`,
  );
  const found: [number, number][] = [];
  const lines = /(?<=^|\n)([ \t]*)## template:[ \t]*jinja/gi;
  for (let line = lines.exec(source); line !== null; line = lines.exec(source)) {
    // In an archive the part is a block of YAML: it ends before a line with a smaller indent.
    const unindented = new RegExp(`\\n(?![ \\t]*\\n)(?!${line[1]})`);
    const rest = source.slice(line.index);
    const ends = isArchive
      ? [rest.search(unindented)]
      : boundaries.map((boundary) => rest.indexOf(boundary));
    const length = Math.min(rest.length, ...ends.filter((end) => end >= 0).map((end) => end + 1));
    lines.lastIndex = line.index + length;
    found.push([line.index, lines.lastIndex]);
  }
  return found;
}
