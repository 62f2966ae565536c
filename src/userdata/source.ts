import { guestParts, languageLine } from '../bottle/language.js';
import { bottleLine } from './bottle-lines.js';

/** A template cannot be compiled or rendered; the message is one line for the log. */
export class TemplateError extends Error {
  constructor(
    readonly file: string,
    /** The line in the template, counted from 1. */
    readonly line: number,
    readonly problem: string,
  ) {
    super(`${file}:${line}: ${problem}`);
  }
}

/** A tag of a template: `{{code}}` prints a value, `{{% code }}` is a statement or part of one. */
export interface Tag {
  readonly file: string;
  readonly line: number;
  readonly code: string;
  readonly prints: boolean;
  /** Its file says that it is JavaScript: what means something else in Python is meant so. */
  readonly isJavaScript: boolean;
}

/** The place of another file's text: `{{% include('part.yaml') }}`. */
export interface Include {
  readonly file: string;
  readonly line: number;
  readonly include: string;
}

/** A line of text that is a statement of Bottle if the template has all of the names. */
export interface DoubtfulLine {
  readonly file: string;
  readonly line: number;
  readonly text: string;
  readonly names: readonly string[];
}

/** What a template consists of. */
export interface ParsedSource {
  readonly pieces: readonly (string | Tag | Include)[];
  readonly doubtful: readonly DoubtfulLine[];
}

/** Limits, so that no template keeps the server busy for long. Lengths are in characters. */
const maxTagLength = 65_536;
const maxTags = 10_000;

/** Counts the tags of a template and of the files that it includes. Throws TemplateError at the limit. */
export function tagCounter(): (file: string, line: number) => void {
  let tags = 0;
  return (file, line) => {
    tags += 1;
    if (tags <= maxTags) return;
    throw new TemplateError(
      file,
      line,
      `more than ${maxTags} tags: use a loop, or split the template`,
    );
  };
}

/** How to keep the braces of another language. Completes a sentence. */
export const keepsBraces = '{{% raw }} before and {{% endraw }} after it keep braces that are text';

/** How to go on with a template that was JavaScript from its beginning. Completes a sentence. */
export const isOurs = '{{% language javascript }} as the first line allows it';

// The compiler reports an unpaired quote, which is a token of its own here.
const tokens =
  /'(?:[^'\\\n]|\\[\s\S])*'|"(?:[^"\\\n]|\\[\s\S])*"|`(?:[^`\\]|\\[\s\S])*`|\/\*(?:[\s\S]*?\*\/|[\s\S]*)|\/\/(?:(?!\}\})[^\n])*|[{}]|[^'"`/{}]+|['"`/]/y;

/** A regular expression on one line. In a character class, "/" needs a backslash. */
const regularExpression = /\/(?:[^/\\\n]|\\.)+\//y;

/** Splits JavaScript into tokens, as far as that is needed to find its braces. */
export function* tokensOf(text: string): Generator<readonly [position: number, token: string]> {
  let position = 0;
  // The last character that is not a space tells a regular expression from a division.
  let before = '(';
  while (position < text.length) {
    tokens.lastIndex = position;
    regularExpression.lastIndex = position;
    const plain = tokens.exec(text)?.[0];
    if (plain === undefined) return;
    const opens = plain === '/' && /[(,=:[!&|?{};+*%~^<>-]/.test(before);
    const token = (opens ? regularExpression.exec(text)?.[0] : undefined) ?? plain;
    yield [position, token];
    position += token.length;
    before = token.trimEnd().at(-1) ?? before;
  }
}

/**
 * The length of the tag content at the start of the text; undefined if no `}}` ends it. A `}}` in a
 * string, a comment or an object (`{a: {b: 1}}`) does not end it.
 */
function contentLength(text: string): number | undefined {
  const prints = !/^\s*%/.test(text);
  let braces = 0;
  for (const [position, token] of tokensOf(text)) {
    if (token === '{') braces += 1;
    if (token !== '}') continue;
    // The braces of a statement need not be balanced: `{{% if (x) { }}`.
    if (text.startsWith('}}', position) && (braces === 0 || !prints)) return position;
    braces = Math.max(0, braces - 1);
  }
  return undefined;
}

/**
 * The place of a statement's tag: with the whole line if nothing else is on it, so that it leaves no
 * empty line behind.
 */
function placeOf(source: string, start: number, end: number): [start: number, end: number] {
  let from = start;
  while (from > 0 && /[ \t]/.test(source.charAt(from - 1))) from -= 1;
  let to = end;
  while (to < source.length && /[ \t]/.test(source.charAt(to))) to += 1;
  const isAlone =
    (from === 0 || source[from - 1] === '\n') && (to === source.length || source[to] === '\n');
  return isAlone ? [from, to + 1] : [start, end];
}

/** Whether a tag at `start` is meant for a regular expression in another file: `\\d{{4}}`. */
function isRepetition(source: string, start: number, code: string): boolean {
  return (
    /^\d+(?:,\d*)?$/.test(code) &&
    /(?:[\])}.*]|\\\w)$/.test(source.slice(Math.max(0, start - 2), start))
  );
}

const endRaw = /\{\{%[ \t]*endraw[ \t]*\}\}/g;
const includeForm = /^include\s*\(\s*(?:'([^'\\\n]*)'|"([^"\\\n]*)")\s*\)\s*;?$/;

/**
 * Splits a template into text, tags and the places of other files. Eta's own parser changes line ends,
 * removes "-" and "_" next to braces, and can take minutes for a file; this one takes linear time.
 * Text has LF alone, as Python read it. Throws TemplateError, also for a line that is a statement of
 * Bottle, unless the first line, or the caller, says that the template is JavaScript.
 */
export function parseSource(
  whole: string,
  file: string,
  countTag: (file: string, line: number) => void,
  isAllJavaScript: boolean,
): ParsedSource {
  const { language, length: markLength } = languageLine(whole);
  if (language === 'none') return { pieces: [whole.slice(markLength)], doubtful: [] };
  if (language !== undefined && language !== 'javascript') {
    throw new TemplateError(file, 1, `the language is javascript or none, not ${language}`);
  }
  const isJavaScript = isAllJavaScript || language === 'javascript';
  const source = whole.slice(markLength).replace(/\r\n?/g, '\n');
  const pieces: (string | Tag | Include)[] = [];
  const doubtful = new Map<string, DoubtfulLine>();
  const marks = isJavaScript ? /\{\{|(?<=^|\n)[ \t]*\\<?%/g : /\{\{|(?<=^|\n)[ \t]*\\?<?%/g;
  const lastBlockEnd = source.lastIndexOf('%>');
  const read = { count: 0 };
  const guests = guestParts(source);
  let guest = 0;
  let text = '';
  let taken = 0;
  let line = markLength > 0 ? 2 : 1;
  let counted = 0;

  function fail(problem: string): never {
    throw new TemplateError(file, line, problem);
  }

  /** Adds a piece, after the text before it. */
  function add(piece: Tag | Include | undefined, start: number, end: number): void {
    text += source.slice(taken, start);
    taken = Math.max(taken, Math.min(end, source.length));
    marks.lastIndex = taken;
    if (piece === undefined) return;
    if (text !== '') pieces.push(text);
    text = '';
    pieces.push(piece);
  }

  function takeRaw(start: number, end: number): void {
    const [from, to] = placeOf(source, start, end);
    endRaw.lastIndex = end;
    const close = endRaw.exec(source);
    if (close === null) fail('{{% raw }} has no {{% endraw }}: add it');
    const [closeStart, closeEnd] = placeOf(source, close.index, endRaw.lastIndex);
    add(undefined, from, to);
    text += source.slice(taken, Math.max(taken, closeStart));
    taken = Math.max(taken, closeEnd);
    marks.lastIndex = taken;
  }

  function takeStatement(code: string, start: number, end: number): void {
    if (code === 'raw') {
      takeRaw(start, end);
      return;
    }
    if (code === 'endraw') fail('{{% endraw }} has no {{% raw }} before it');
    if (/^language\b[ \t]*\w*$/.test(code)) {
      fail('{{% language … }} has to be the first line, and alone on it');
    }
    const [from, to] = placeOf(source, start, end);
    if (!/^include\s*\(/.test(code)) {
      add({ file, line, code, prints: false, isJavaScript }, from, to);
      return;
    }
    const [, single, double] = includeForm.exec(code) ?? [];
    const include = single ?? double;
    if (include === undefined) {
      fail("include() takes the name of a file of userdata_dir in quotes: include('part.yaml')");
    }
    add({ file, line, include }, from, to);
  }

  function takeTag(start: number, inside: number): void {
    const content = source.slice(inside, inside + maxTagLength);
    const length = contentLength(content);
    if (length === undefined) {
      const problem = `"{{" has no "}}" within ${maxTagLength} characters: add it, or write {{'{{'}} if the braces are text`;
      fail(`${problem}; ${keepsBraces}`);
    }
    countTag(file, line);
    const end = inside + length + 2;
    const [, sign, rest = ''] = /^([%!]?)([\s\S]*)$/.exec(content.slice(0, length).trim()) ?? [];
    const code = rest.trim();
    if (sign === '%') {
      takeStatement(code, start, end);
      return;
    }
    if (code === '') fail(`{{}} is empty: write {{'{{}}'}} if the braces are text`);
    if (!isJavaScript && content.slice(0, length).includes('\n')) {
      const problem = 'a tag on more than one line was text in Bottle: write it on one line';
      fail(`${problem}; ${keepsBraces}; ${isOurs}`);
    }
    if (!isJavaScript && isRepetition(source, start, code)) {
      fail(`{{${code}}} after a regular expression prints ${code}: ${keepsBraces}; ${isOurs}`);
    }
    add({ file, line, code, prints: true, isJavaScript }, start, end);
  }

  function takeLine(opener: '%' | '<%', start: number): void {
    const newline = source.indexOf('\n', start);
    const end = newline < 0 ? source.length : newline;
    const found = bottleLine(source, opener, start, end, lastBlockEnd, read);
    if (found === undefined) return;
    if ('problem' in found) fail(found.problem);
    const { names } = found;
    const key = names.join(' ');
    // One line tells the same as all.
    if (!doubtful.has(key)) {
      doubtful.set(key, { file, line, text: opener + source.slice(start, end), names });
    }
  }

  for (let mark = marks.exec(source); mark !== null; mark = marks.exec(source)) {
    while (guests[guest] !== undefined && (guests[guest]?.[1] ?? 0) <= mark.index) guest += 1;
    const [guestStart, guestEnd] = guests[guest] ?? [source.length, source.length];
    if (mark.index >= guestStart) {
      marks.lastIndex = guestEnd;
      continue;
    }
    for (;;) {
      const newline = source.indexOf('\n', counted);
      if (newline < 0 || newline >= mark.index) break;
      counted = newline + 1;
      line += 1;
    }
    const after = marks.lastIndex;
    const opener = mark[0].trimStart();
    if (opener === '{{') takeTag(mark.index, after);
    else if (opener.startsWith('\\')) {
      text += source.slice(taken, after - opener.length);
      taken = after - opener.length + 1;
    } else takeLine(opener === '%' ? '%' : '<%', after);
  }
  text += source.slice(taken);
  if (text !== '') pieces.push(text);
  return { pieces, doubtful: [...doubtful.values()] };
}
