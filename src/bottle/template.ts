import type { SimpleStatement } from './python.js';
import {
  type BlockHeader,
  type Line,
  openBrackets,
  PythonSyntaxError,
  parseStatement,
} from './python.js';

/**
 * A parser for Bottle's templates (bottle.SimpleTemplate of 0.12). Bottle turns a template into Python,
 * with an indent that its keywords and `end` count; this one reads it as that Python would run.
 */

/** Something in a template that Bottle refuses, or that cannot be converted. */
export class TemplateProblem extends Error {
  constructor(
    /** Counted from 1. */
    readonly line: number,
    message: string,
  ) {
    super(message);
  }
}

/** `{{code}}`, as it stands between the braces. */
export interface PrintedTag {
  readonly line: number;
  readonly source: string;
}

/** The text between two lines of code. */
export interface TextNode {
  readonly kind: 'text';
  readonly line: number;
  readonly pieces: readonly (string | PrintedTag)[];
}

/** What a template is made of, in order. */
export type TemplateNode =
  | TextNode
  | {
      readonly kind: 'statement';
      readonly line: number;
      /** The Python of the whole line. */
      readonly text: string;
      readonly statement: SimpleStatement;
    }
  | {
      readonly kind: 'block';
      readonly line: number;
      readonly text: string;
      readonly header: BlockHeader;
      readonly body: readonly TemplateNode[];
    };

/** What Bottle writes into its Python: a line of code, or a text that is printed. */
type Item = { readonly line: number; readonly column: number } & (
  | { readonly code: string }
  | { readonly text: TextNode }
);

// These four follow Bottle, but for "." and "^", which in JavaScript know more line ends.
const string =
  /[urbURB]?(?:''(?!')|""(?!")|'{6}|"{6}|'(?:[^\\']|\\[^\n])+?'|"(?:[^\\"]|\\[^\n])+?"|'{3}(?:[^\\]|\\[^\n])+?'{3}|"{3}(?:[^\\]|\\[^\n])+?"{3})/
    .source;
const codeToken = new RegExp(
  [
    `(${string})`,
    '(#[^\\n]*)',
    '([[{(])',
    '([\\]})])',
    '((?<![^\\n])[ \\t]*(?:if|for|while|with|try|def|class)\\b)',
    '((?<![^\\n])[ \\t]*(?:elif|else|except|finally)\\b)',
    '((?:(?<![^\\n])|;)[ \\t]*end[ \\t]*(?=(?:%>[ \\t]*)?(?![^\\n])|;|#))',
    '(%>[ \\t]*(?![^\\n]))',
    '(\\n)',
  ].join('|'),
);
const codeStart = /(?<![^\n])[ \t]*(\\?)(<%|%)(%?)/;
const printedTag = new RegExp(`\\{\\{((?:${string}|[^'"\\n])*?)\\}\\}`, 'g');

/** The lines of code and the texts of a template, in order. Throws TemplateProblem. */
function itemsOf(source: string): Item[] {
  const items: Item[] = [];
  let offset = 0;
  let indent = 0;
  let line = 1;
  let counted = 0;
  let text = '';
  let textLine = 1;
  let brackets = 0;

  const lineAt = (position: number) => {
    for (;;) {
      const newline = source.indexOf('\n', counted);
      if (newline < 0 || newline >= position) return line;
      counted = newline + 1;
      line += 1;
    }
  };
  const addText = (more: string) => {
    if (text === '') textLine = lineAt(offset);
    text += more;
  };
  const flushText = () => {
    if (text === '') return;
    const pieces = piecesOf(text, textLine);
    items.push({
      line: textLine,
      column: Math.max(0, indent),
      text: { kind: 'text', line: textLine, pieces },
    });
    text = '';
  };

  const readCode = (start: number, block: boolean) => {
    let inBlock = block;
    let code = '';
    // Bottle 0.12 and 0.13 indent a line that has both a keyword and "end" differently.
    let shift12 = 0;
    let shift13 = 0;
    offset = start;
    for (;;) {
      const codeLine = lineAt(offset);
      const write = () => {
        const column = Math.max(0, indent + shift12);
        if (code.trim() === '') return;
        if (column !== Math.max(0, indent + shift13)) {
          throw new TemplateProblem(
            codeLine,
            'versions of Bottle disagree about "end" on this line: write it on a line of its own',
          );
        }
        items.push({ line: codeLine, column, code: code.trim() });
      };
      const rest = source.slice(offset);
      const match = codeToken.exec(rest);
      if (match === null) {
        code += rest;
        write();
        offset = source.length;
        return;
      }
      code += rest.slice(0, match.index);
      offset += match.index + match[0].length;
      const [, quoted, comment, opens, closes, begins, continues, ends, blockEnd] = match;
      const keyword = begins ?? continues;
      if (keyword !== undefined && (code !== '' || brackets > 0)) code += keyword;
      else if (quoted !== undefined) code += quoted;
      else if (comment !== undefined) {
        if (/coding[:=]/.test(comment)) {
          throw new TemplateProblem(
            codeLine,
            'Bottle may take this comment for the name of an encoding: remove it',
          );
        }
        if (inBlock && comment.trim().endsWith('%>')) inBlock = false;
      } else if (opens !== undefined) {
        brackets += 1;
        code += opens;
      } else if (closes !== undefined) {
        brackets = Math.max(0, brackets - 1);
        code += closes;
      } else if (keyword !== undefined) {
        code = keyword;
        shift12 = -1;
        shift13 -= 1;
        if (begins !== undefined) indent += 1;
      } else if (ends !== undefined) {
        indent -= 1;
        shift13 += 1;
      } else if (blockEnd !== undefined) {
        if (inBlock) inBlock = false;
        else code += blockEnd;
      } else {
        write();
        code = '';
        shift12 = 0;
        shift13 = 0;
        if (!inBlock) return;
      }
    }
  };

  for (;;) {
    const rest = source.slice(offset);
    const match = codeStart.exec(rest);
    if (match === null) {
      addText(rest);
      break;
    }
    addText(rest.slice(0, match.index));
    const start = offset + match.index + match[0].length;
    const [, backslash, opener = '', percent = ''] = match;
    if (backslash === '' && percent === '') {
      flushText();
      readCode(start, opener === '<%');
      continue;
    }
    const newline = source.indexOf('\n', start);
    const end = newline < 0 ? source.length : newline + 1;
    if (backslash === '') {
      throw new TemplateProblem(
        lineAt(start),
        `"${opener}%" is an escape in Bottle 0.12, and code in 0.13: write "\\${opener}"`,
      );
    }
    if (/[ \t]/.test(match[0])) {
      throw new TemplateProblem(
        lineAt(start),
        `versions of Bottle disagree about the spaces before "\\${opener}": write {{'${opener}'}} in place of \\${opener}`,
      );
    }
    if (end < source.length) {
      throw new TemplateProblem(
        lineAt(start),
        `Bottle 0.12 loses the first character of the line after "\\${opener}", 0.13 does not: write {{'${opener}'}} in place of \\${opener}`,
      );
    }
    addText(opener + percent + source.slice(start, end));
    offset = end;
  }
  flushText();
  return items;
}

/** Splits a text at its `{{…}}`. Two backslashes at its end join it to what follows, as in Bottle. */
function piecesOf(text: string, firstLine: number): (string | PrintedTag)[] {
  const pieces: (string | PrintedTag)[] = [];
  let position = 0;
  let line = firstLine;
  const skip = (part: string) => {
    line += part.split('\n').length - 1;
  };
  for (const match of text.matchAll(printedTag)) {
    const before = text.slice(position, match.index);
    if (before !== '') pieces.push(before);
    skip(before);
    pieces.push({ line, source: match[1] ?? '' });
    skip(match[0]);
    position = match.index + match[0].length;
  }
  const rest = text.slice(position).replace(/\\\\\n$/, '');
  if (rest !== '') pieces.push(rest);
  return pieces;
}

/** A line of code with the lines that its brackets join to it. */
type LogicalLine = Item & { readonly parsed?: Line; readonly python?: string };

/** The statement that Bottle 0.12 makes of its old form `include NAME`. */
function modernInclude(code: string): string {
  const [keyword, name, more] = code.split(/\s+/);
  if ((keyword !== 'include' && keyword !== 'rebase') || name === undefined) return code;
  return `${keyword}(${JSON.stringify(name)}${more === undefined ? '' : `, ${more}`})`;
}

function logicalLines(items: readonly Item[]): LogicalLine[] {
  const lines: LogicalLine[] = [];
  for (let index = 0; index < items.length; index += 1) {
    const item = items[index];
    if (item === undefined) break;
    if (!('code' in item)) {
      lines.push(item);
      continue;
    }
    let { code } = item;
    const { line } = item;
    try {
      for (; openBrackets(code); index += 1) {
        const next = items[index + 1];
        if (next === undefined || !('code' in next)) {
          throw new TemplateProblem(line, 'a bracket is not closed');
        }
        code += `\n${next.code}`;
      }
      if (code.endsWith('\\')) {
        throw new TemplateProblem(line, 'a backslash joins this line to the next: write one line');
      }
      const python = modernInclude(code).trim();
      lines.push({ ...item, parsed: parseStatement(python), python });
    } catch (error) {
      if (!(error instanceof PythonSyntaxError)) throw error;
      throw new TemplateProblem(line, error.message);
    }
  }
  return lines;
}

/**
 * The tree of a Bottle template with line ends LF. Throws TemplateProblem for what Bottle refuses, and
 * for what its versions 0.12 and 0.13 read differently.
 */
export function parseBottleTemplate(source: string): TemplateNode[] {
  const lines = logicalLines(itemsOf(source));
  let position = 0;
  const block = (column: number, enclosing: readonly number[]): TemplateNode[] => {
    const nodes: TemplateNode[] = [];
    for (let item = lines[position]; item !== undefined; item = lines[position]) {
      const { line } = item;
      if (item.column < column && enclosing.includes(item.column)) return nodes;
      if (item.column !== column) {
        throw new TemplateProblem(
          line,
          'the blocks do not fit: an "end" is missing, or one is too many',
        );
      }
      position += 1;
      if ('text' in item) {
        nodes.push(item.text);
        continue;
      }
      const { header, statements = [] } = item.parsed ?? {};
      const { python: text = '' } = item;
      const simple = statements.map((statement) => ({
        ...{ kind: 'statement' as const, line, text, statement },
      }));
      if (header === undefined) {
        nodes.push(...simple);
        continue;
      }
      const next = lines[position];
      if (simple.length === 0 && (next === undefined || next.column <= column)) {
        throw new TemplateProblem(line, 'the block is empty: write "pass" in it, or remove it');
      }
      const body = simple.length > 0 ? simple : block(next?.column ?? 0, [...enclosing, column]);
      nodes.push({ kind: 'block', line, text, header, body });
    }
    return nodes;
  };
  return block(0, []);
}
