import {
  type Expression,
  ifPython,
  type Line,
  parseStatement,
  type SimpleStatement,
} from '../bottle/python.js';
import { truncate } from '../text.js';
import { isPythonFunction } from './python-forms.js';

/** What a line is that Bottle takes for Python, as far as it can be. */
export type BottleLine =
  /** It is a statement: how to write it here. */
  | { readonly problem: string }
  /** It is text, such as `%packages`, unless all of these are names that the template has. */
  | { readonly names: readonly string[] };

/** In characters, of one statement. */
const maxStatementLength = 65_536;
const maxContinuationLines = 50;

/** How many lines may be read as the rest of statements, in all of a template: each is parsed several times. */
export const maxReadLines = 10_000;

/** Counts the lines that are read as the rest of statements. */
export interface ReadLines {
  count: number;
}

const inJavaScript = '{{% … }} in JavaScript';

/** Whether Python goes on to the next line: in brackets, in a text of three quotes, or after a backslash. */
function isUnfinished(code: string): boolean {
  if (/'''|"""|\\$/.test(code)) return true;
  const outside = code.replace(/'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"/g, '');
  return (outside.match(/[([{]/g) ?? []).length > (outside.match(/[)\]}]/g) ?? []).length;
}

/** The code of a statement that begins with this line: alone, then with the lines after it. */
function* candidatesOf(
  source: string,
  start: number,
  end: number,
  opener: string,
  read: ReadLines,
) {
  let code = source.slice(start, end).trim();
  yield code;
  let next = end + 1;
  for (let count = 0; count < maxContinuationLines && isUnfinished(code); count += 1) {
    if (next >= source.length || next - start > maxStatementLength) return;
    read.count += 1;
    if (read.count > maxReadLines) return;
    const newline = source.indexOf('\n', next);
    const lineEnd = newline < 0 ? source.length : newline;
    const line = source.slice(next, lineEnd).replace(opener === '%' ? /^[ \t]*%/ : /%>.*$/, '');
    code = `${code}\n${line}`;
    yield code;
    next = lineEnd + 1;
  }
}

/** The names that an expression is made of, if it is nothing else: `packages`, `include / tmp / part`. */
function namesIn(expression: Expression): string[] | undefined {
  if (expression.kind === 'name') return [expression.name];
  if (expression.kind !== 'binary' || !/^[-/]$/.test(expression.operator)) return undefined;
  const [left, right] = [namesIn(expression.left), namesIn(expression.right)];
  return left && right && [...left, ...right];
}

/** How to write an expression that stands alone. */
function expressionForm(expression: Expression): string {
  if (expression.kind !== 'call' || expression.function.kind !== 'name') return inJavaScript;
  const [argument] = expression.positional;
  if (expression.function.name === 'rebase') return 'the text of that template';
  if (expression.function.name === 'setdefault') {
    return "{{% let name = it['name'] ?? 'default' }}";
  }
  if (expression.function.name !== 'include') return inJavaScript;
  const name = argument?.kind === 'string' ? argument.value : 'FILE';
  return `{{% include('${name}') }}`;
}

function statementForm(statement: SimpleStatement | undefined): string {
  if (statement?.kind === 'expression') return expressionForm(statement.expression);
  if (statement?.kind !== 'assignment') return inJavaScript;
  const { operator, targets } = statement;
  const isNew = targets.every(({ kind }) => kind === 'name' || kind === 'tuple' || kind === 'list');
  return operator === undefined && isNew ? '{{% let … = … }}' : '{{% … = … }} in JavaScript';
}

/** How to write a statement here. */
function newForm({ header, statements }: Line): string {
  switch (header?.kind) {
    case 'if':
    case 'while':
      return `{{% ${header.kind} (…) { }}`;
    case 'elif':
      return '{{% } else if (…) { }}';
    case 'else':
      return '{{% } else { }}';
    case 'for':
      return '{{% for (const … of …) { }}';
    case 'block':
      return inJavaScript;
    case undefined:
      return statementForm(statements[0]);
  }
}

/** `% include NAME` of Bottle 0.12. An absolute path is kickstart's, which names no template of Bottle. */
const oldInclude = /^(?:include|rebase)[ \t]+["']?(?!\/)([\w./-]+)/;

const keywords =
  'and|as|assert|async|await|break|case|class|continue|def|del|elif|else|except|finally|for|from|global|if|import|in|is|lambda|match|nonlocal|not|or|pass|raise|return|try|while|with|yield|None|True|False';
/** Most text, such as a line of sudoers, has two words side by side. This is faster than to parse it. */
const words = new RegExp(
  `^(?!(?:${keywords})\\b)[A-Za-z_]\\w*[ \\t]+(?!(?:${keywords})\\b)[A-Za-z_]`,
);
/** A name alone, which need not be parsed either. */
const name = new RegExp(`^(?!(?:${keywords})$)[A-Za-z_]\\w*$`);

/**
 * What the line whose opener, `%` or `<%`, ends at `start` may be in a Bottle template; undefined if it
 * cannot be Python. `end` is the end of the line, `lastBlockEnd` the position of the source's last `%>`.
 * `read` is for all of the template.
 */
export function bottleLine(
  source: string,
  opener: '%' | '<%',
  start: number,
  end: number,
  lastBlockEnd: number,
  read: ReadLines,
): BottleLine | undefined {
  if (end - start > maxStatementLength) return undefined;
  const whole = source.slice(start, end).trim();
  const refused = (advice: string): BottleLine => {
    const asText = opener === '%' ? '\\%' : '\\<%';
    const line = truncate(whole === '' ? opener : `${opener} ${whole}`, 40);
    return {
      problem: `"${line}" is a Bottle statement: ${advice}, or write ${asText} if the line is text; mdserverctl convert does it`,
    };
  };
  const close = opener === '<%' ? source.slice(start, end).indexOf('%>') : -1;
  const codeEnd = close < 0 ? end : start + close;
  const code = source.slice(start, codeEnd).trim();
  if (opener === '%' && code.startsWith('%')) return refused('write \\% for one %');
  if (code === '' && opener === '<%' && close < 0) {
    return lastBlockEnd > end ? refused(`write ${inJavaScript}`) : undefined;
  }
  if (code === '') return refused('take it out');
  if (code.startsWith('#')) return refused('write {{% /* … */ }}');
  if (/^end[ \t]*(?:#.*)?$/.test(code)) return refused('write {{% } }}');
  const include = oldInclude.exec(code)?.[1];
  if (include !== undefined) return refused(`write {{% include('${include}') }}`);
  if (words.test(code)) return undefined;
  if (name.test(code) && !isPythonFunction(code)) return { names: [code] };
  for (const candidate of candidatesOf(source, start, codeEnd, opener, read)) {
    // Bottle takes a backslash at the end of a statement.
    const line = ifPython(parseStatement, candidate.replace(/\\$/, ''));
    if (line === undefined) continue;
    const names = line.header === undefined ? namesOf(line.statements) : undefined;
    if (names !== undefined && !names.every(isPythonFunction)) return { names };
    return refused(`write ${newForm(line)}`);
  }
  if (read.count > maxReadLines) {
    return {
      problem: `too many lines with "${opener}" and an open bracket: {{% language javascript }} as the first line says that they are text`,
    };
  }
  return undefined;
}

function namesOf([statement, ...others]: readonly SimpleStatement[]): string[] | undefined {
  if (others.length > 0 || statement?.kind !== 'expression') return undefined;
  return namesIn(statement.expression);
}
