import { Script } from 'node:vm';
// The core has no file access: an include() in a template cannot read another file.
import { Eta } from 'eta/core';
import { int, repr } from '../bottle/values.js';
import {
  defaultKey,
  type PublicKey,
  type TemplateValue,
  type templateFunctions,
} from '../config/options.js';
import { servedName } from '../instances/host-names.js';
import { keysOf } from '../instances/settings.js';
import { jsonText, shellWord, truncate, yamlText } from '../text.js';

/** The values that a template can use, by name. Has no prototype, which would add names. */
export type TemplateData = Readonly<Record<string, unknown>>;

/** Renders a template. Throws TemplateError. */
export type Template = ((data: TemplateData) => string) & {
  /** Whether the text depends on nothing but the data: not on the time, chance or other state. */
  readonly isPure?: boolean;
};

/** A template cannot be compiled or rendered; the message is one line for the log. */
export class TemplateError extends Error {
  constructor(
    readonly file: string,
    /** The line in the template, counted from 1. */
    readonly line: number,
    problem: string,
  ) {
    super(`${file}:${line}: ${problem}`);
  }
}

/** The part of an instance that templates can use. */
export interface TemplateInstance {
  readonly name: string;
  readonly uuid: string | undefined;
  readonly mac: string | undefined;
  readonly ipv4: string | undefined;
  readonly ipv6: string | undefined;
  readonly location: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
}

/** The part of the configuration that templates can use. */
export interface TemplateConfig {
  readonly publicKeys: readonly PublicKey[];
  readonly templateData: ReadonlyMap<string, TemplateValue>;
  readonly password: string | undefined;
}

/**
 * The user-data of an instance without a template. It names neither the host nor its keys: cloud-init takes both
 * from the metadata of each datasource, and the names there are those in DNS.
 */
export const builtInUserdata = '#cloud-config\nmanage_etc_hosts: true\n';

/** Limits, so that no template keeps the server busy for long. Lengths are in characters. */
const maxTagLength = 65_536;
const maxTags = 10_000;
const maxStatementLength = 1000;

/**
 * The functions of templates: some quote a value for where it is printed, some are Python's, for converted
 * templates. `[template-data]` may have the same names, which then count: templates from before there were
 * functions stay as they are.
 */
export const functions: Readonly<
  Record<(typeof templateFunctions)[number], (value: unknown) => string | number>
> = Object.freeze({
  yaml: (value) => yamlText(printed(value)),
  json: (value) => jsonText(printed(value)),
  sh: (value) => shellWord(stringifyValue(value)),
  int,
  repr,
});

/** The value. Throws if it is neither an object nor something that can be printed bare. */
function printed(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) stringifyValue(value);
  return value;
}

/** What templates get for the key `default` if the configuration has none, as in the Python server. */
const noDefaultKey = '__NOT_CONFIGURED__';

function withoutPrototype(entries: object): Record<string, unknown> {
  return Object.assign(Object.create(null), entries);
}

/** Names that the generated code uses. interpolation() handles data with these names. */
const hiddenNames = Object.freeze({ __proto__: null, __eta: true, it: true });

/**
 * The data for an instance's template. Its objects are frozen, but a template can assign to its names,
 * so each rendering needs its own object that inherits from this one.
 */
export function templateData(
  { publicKeys, templateData, password }: TemplateConfig,
  instance: TemplateInstance,
): TemplateData {
  const { uuid, mac, ipv4, ipv6, location, metadata } = instance;
  const served = servedName(instance);
  const data: Record<string | symbol, unknown> = withoutPrototype(functions);
  data[Symbol.unscopables] = hiddenNames;
  for (const [name, value] of templateData) data[name] = value;
  const keys = withoutPrototype({});
  if (!publicKeys.some(({ name }) => name === defaultKey)) {
    data[`public_key_${defaultKey}`] = noDefaultKey;
    // A loop over the keys does not meet it: it is none.
    Object.defineProperty(keys, defaultKey, { value: noDefaultKey });
  }
  // A key that the instance does not have is a name without a value.
  for (const { name } of publicKeys) data[`public_key_${name}`] = undefined;
  for (const { name, key } of keysOf(instance, publicKeys)) {
    keys[name] = key;
    data[`public_key_${name}`] = key;
  }
  data['public_keys'] = Object.freeze(keys);
  data['hostname'] = served;
  if (password !== undefined) data['mdserver_password'] = password;
  const facts = { __proto__: null, name: served, uuid, mac, ipv4, ipv6, location };
  const own = { metadata: Object.freeze(withoutPrototype(metadata)) };
  data['instance'] = Object.freeze(Object.assign(facts, own));
  return data;
}

/** A tag of a template: `{{code}}` prints a value, `{{% code }}` is a statement or part of one. */
export interface Tag {
  readonly line: number;
  readonly code: string;
  readonly prints: boolean;
}

/** For the position in a template without tags, which is never needed. */
const unknownTag: Tag = { line: 1, code: '', prints: true };

const comment = String.raw`[ \t]*(?:#.*)?$`;
/** Statements of Bottle templates (the text after the "%") and how to write them here. */
const bottleStatements: readonly (readonly [RegExp, string])[] = [
  [new RegExp(`^(if)\\b.*:${comment}`), '{{% if (…) { }}'],
  [new RegExp(`^(elif)\\b.*:${comment}`), '{{% } else if (…) { }}'],
  [new RegExp(`^(else)\\s*:${comment}`), '{{% } else { }}'],
  [new RegExp(`^(for)\\b(?=.*\\sin\\b).*:${comment}`), '{{% for (const … of …) { }}'],
  [new RegExp(`^(while)\\b.*:${comment}`), '{{% while (…) { }}'],
  [new RegExp(`^(end)${comment}`), '{{% } }}'],
  [/^(#)/, '{{% /* … */ }}'],
  [/^([A-Za-z_]\w*(?:\s*,\s*[A-Za-z_]\w*)*)\s*=(?!=)/, '{{% let … = … }}'],
  [
    /^([A-Za-z_][\w.]*(?:\[[^\]]*\])?)\s*(?:[-+*/%&|^]|\/\/|\*\*|<<|>>)?=(?!=)/,
    '{{% … = … }} in JavaScript',
  ],
  [new RegExp(`^(try|finally)\\s*:${comment}`), '{{% … }} in JavaScript'],
  [new RegExp(`^(except|with|def|class)\\b.*:${comment}`), '{{% … }} in JavaScript'],
  [new RegExp(`^(pass|break|continue)${comment}`), '{{% … }} in JavaScript'],
  [/^(import)\s+[\w.]+(?:\s+as\s+\w+)?(?:\s*,\s*[\w.]+)*\s*$/, '{{% … }} in JavaScript'],
  [/^(from)\s+[\w.]+\s+import\s/, '{{% … }} in JavaScript'],
  [/^(include|rebase)\s*\(/, 'the text of that template'],
  [/^(setdefault|print|[A-Za-z_]\w*(?:\.\w+)+)\s*\(.*\)\s*$/, '{{% … }} in JavaScript'],
];

const anyStatement = new RegExp(bottleStatements.map(([{ source }]) => source).join('|'));

/**
 * The problem with a line that is a statement in Bottle templates; undefined for text such as
 * `%wheel ALL=(ALL) ALL`. `opener` is the line's "%" or "<%", `code` the rest of it.
 */
function bottleProblem(opener: string, code: string): string | undefined {
  const trimmed = code.replace(/^[ \t]+/, '').trimEnd();
  // One regular expression rules out nearly all lines of text, faster than sixteen.
  if (!anyStatement.test(trimmed)) return undefined;
  for (const [pattern, newForm] of bottleStatements) {
    const word = pattern.exec(trimmed)?.[1];
    if (word === undefined) continue;
    const asText = opener === '%' ? '\\%' : "{{'<%'}}";
    return `"${opener} ${word}" is a Bottle statement: write ${newForm}, or ${asText} if the line is text`;
  }
  return undefined;
}

/**
 * Like bottleProblem, for the line whose opener is at `start`. `lastBlockEnd` is the position of the
 * template's last `%>`.
 */
function problemAt(
  source: string,
  opener: string,
  start: number,
  lastBlockEnd: number,
): string | undefined {
  const newline = source.indexOf('\n', start);
  const end = newline < 0 ? source.length : newline;
  if (end - start > maxStatementLength) return undefined;
  const code = source.slice(start + opener.length, end);
  if (opener === '%') return bottleProblem(opener, code);
  if (code.trim() === '' && lastBlockEnd > end) {
    return `"<%" opens a Bottle block: write {{% … }} in JavaScript, or {{'<%'}} if the line is text`;
  }
  return bottleProblem(opener, code.replace(/%>\s*$/, ''));
}

// An unpaired quote is a separate token; the JavaScript compiler reports it.
const tokens =
  /'(?:[^'\\\n]|\\[\s\S])*'|"(?:[^"\\\n]|\\[\s\S])*"|`(?:[^`\\]|\\[\s\S])*`|\/\*(?:[\s\S]*?\*\/|[\s\S]*)|\/\/(?:(?!\}\})[^\n])*|[{}]|[^'"`/{}]+|['"`/]/y;

/** A regular expression on one line. In a character class, "/" needs a backslash. */
const regularExpression = /\/(?:[^/\\\n]|\\.)+\//y;

/** Splits JavaScript into tokens, as far as that is needed to find its braces. */
function* tokensOf(text: string): Generator<readonly [position: number, token: string]> {
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
 * Splits a template into text and tags. Eta's own parser changes line ends, removes "-" and "_" next
 * to braces, and can take minutes for a file; this one takes linear time. Throws TemplateError.
 */
function parseTemplate(source: string, file: string): (string | Tag)[] {
  const found: (string | Tag)[] = [];
  const marks = /\{\{|(?<=^|\n)[ \t]*(?:\\?%|<%)/g;
  const lastBlockEnd = source.lastIndexOf('%>');
  let text = '';
  let taken = 0;
  let tags = 0;
  let line = 1;
  let counted = 0;
  for (let mark = marks.exec(source); mark !== null; mark = marks.exec(source)) {
    for (;;) {
      const newline = source.indexOf('\n', counted);
      if (newline < 0 || newline >= mark.index) break;
      counted = newline + 1;
      line += 1;
    }
    const after = marks.lastIndex;
    const opener = mark[0].trimStart();
    if (opener === '\\%') {
      text += source.slice(taken, after - 2);
      taken = after - 1;
    } else if (opener === '{{') {
      const inside = source.slice(after, after + maxTagLength);
      const length = contentLength(inside);
      if (length === undefined) {
        const problem = `"{{" has no "}}" within ${maxTagLength} characters: add it, or write {{'{{'}} if the braces are text`;
        throw new TemplateError(file, line, problem);
      }
      tags += 1;
      if (tags > maxTags) {
        throw new TemplateError(
          file,
          line,
          `more than ${maxTags} tags: use a loop, or split the template`,
        );
      }
      text += source.slice(taken, mark.index);
      if (text !== '') found.push(text);
      text = '';
      const [, sign, code = ''] = /^([%!]?)([\s\S]*)$/.exec(inside.slice(0, length).trim()) ?? [];
      found.push({ line, code: code.trim(), prints: sign !== '%' });
      taken = after + length + 2;
      marks.lastIndex = taken;
    } else {
      const problem = problemAt(source, opener, after - opener.length, lastBlockEnd);
      if (problem !== undefined) throw new TemplateError(file, line, problem);
    }
  }
  text += source.slice(taken);
  if (text !== '') found.push(text);
  return found;
}

function isExpression(code: string): boolean {
  try {
    new Function(`"use strict"; return (${code}\n)`);
    return true;
  } catch {
    return false;
  }
}

/** Expressions that look like a name in the data but have a meaning in JavaScript. */
const reservedNames = new Set(['it', '__eta', 'this', 'null', 'true', 'false']);

/**
 * The JavaScript expression for a tag that prints. Names that JavaScript does not allow also work if
 * the tag contains nothing else: `{{public_key_my-key}}`, `{{class}}`.
 */
function interpolation(code: string): string {
  // The newline ends a comment in the code.
  const expression = `(${code}\n)`;
  if (!/^[\w$.-]+$/.test(code)) return expression;
  const valid = isExpression(code);
  if (valid && /^[A-Za-z_$][\w$]*$/.test(code) && !reservedNames.has(code)) return expression;
  const name = JSON.stringify(code);
  const otherwise = valid
    ? expression
    : `(() => { throw new ReferenceError(${JSON.stringify(`${code} is not defined`)}) })()`;
  return `(${name} in it ? it[${name}] : ${otherwise})`;
}

/** The text for a JavaScript string in single quotes, without the quotes. */
function singleQuotedContent(text: string): string {
  return JSON.stringify(text).slice(1, -1).replaceAll("'", "\\'");
}

/** The text for a value. Throws for values whose text would be useless, such as an object. */
export function stringifyValue(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return value;
    case 'number':
      if (Number.isNaN(value)) throw new Error('is not a number');
      return String(value);
    case 'boolean':
    case 'bigint':
      return String(value);
    case 'undefined':
      throw new Error("has no value here: write {{… ?? ''}} to print nothing instead");
    case 'function':
    case 'symbol':
      throw new Error(`is a ${typeof value}, which cannot be printed`);
    case 'object': {
      if (value === null) return stringifyValue(undefined);
      const prototype: unknown = Object.getPrototypeOf(value);
      if (prototype === null || prototype === Object.prototype) {
        throw new Error('is an object: print one of its properties');
      }
      return String(value);
    }
  }
}

function collapseSpaces(text: string): string {
  return text.replace(/\s+/g, ' ').trim();
}

function problemText(text: string): string {
  return truncate(collapseSpaces(text), 200);
}

/** The tag as a message shows it. */
function tagText({ code, prints }: Tag): string {
  return `{{${prints ? '' : '% '}${truncate(collapseSpaces(code), 60)}}}`;
}

/** The message for an error that a tag's code threw. */
function runtimeProblem(tag: Tag, error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const unknown = error instanceof ReferenceError && /^(.+) is not defined$/.exec(message)?.[1];
  // A name of JavaScript or of the generated code, not of the template data.
  const leaked =
    tag.code in Object.prototype || /^\w+: is a function/.test(`${tag.code}: ${message}`);
  const name = unknown || (leaked && tag.prints ? tag.code : undefined);
  if (name === undefined) return problemText(`${tagText(tag)} ${message}`);
  return problemText(
    `unknown name "${name}" in ${tagText(tag)}: set it in [template-data], or correct the name`,
  );
}

/** The tag with an unbalanced brace, and the problem. */
function unbalanced(tags: readonly Tag[]): { tag: Tag; problem: string } | undefined {
  const open: Tag[] = [];
  for (const tag of tags.filter(({ prints }) => !prints)) {
    for (const [, token] of tokensOf(tag.code)) {
      if (token === '{') open.push(tag);
      else if (token === '}' && open.pop() === undefined) {
        return { tag, problem: 'closes a block that no tag opens' };
      }
    }
  }
  const last = open.at(-1);
  return last && { tag: last, problem: 'opens a block that no tag closes: add {{% } }}' };
}

/** The tag with a syntax error, and the problem. */
function syntaxProblem(tags: readonly Tag[], code: string): { tag: Tag; problem: string } {
  const first = tags[0] ?? unknownTag;
  try {
    new Script(`(function(it, options) {${code}\n})`, { filename: 'template' });
  } catch (error) {
    const imbalance = unbalanced(tags);
    if (imbalance !== undefined) return imbalance;
    const { message, stack = '' } = error as Error;
    // The stack begins with the position in the generated code, in which Eta records the current tag.
    const place = Number(/^template:(\d+)/.exec(stack)?.[1] ?? 0);
    const before = code.split('\n', place).join('\n');
    const number = [...before.matchAll(/^__eta\.line=(\d+)$/gm)].at(-1)?.[1];
    return { tag: tags[Number(number)] ?? first, problem: `is not JavaScript: ${message}` };
  }
  return { tag: first, problem: 'or a later tag is not JavaScript' };
}

/** Globals whose results depend on their arguments only. Buffer can show old memory: see otherSources. */
const pureGlobals = new Set([
  ...['Object', 'Array', 'String', 'Number', 'Boolean', 'BigInt', 'Set', 'Map', 'RegExp', 'Error'],
  ...['JSON', 'Math', 'Buffer', 'parseInt', 'parseFloat', 'isNaN', 'isFinite', 'atob', 'btoa'],
  ...['encodeURIComponent', 'decodeURIComponent', 'encodeURI', 'decodeURI', 'escape', 'unescape'],
  ...['undefined', 'NaN', 'Infinity'],
]);
/** Other words that lead to something outside the data. */
const otherSources = [
  'random',
  'allocUnsafe',
  'allocUnsafeSlow',
  'constructor',
  'import',
  'arguments',
];
const impureWords = new Set([
  ...Object.getOwnPropertyNames(globalThis).filter((name) => !pureGlobals.has(name)),
  ...[...otherSources, '__proto__', 'prototype', 'it', 'options', '__eta', 'require', 'this'],
]);

/**
 * Whether the code of a tag uses nothing but the template data, as far as its words tell. When in
 * doubt it does not: a word counts in a string or as a property, too, and so does an escape.
 */
function isPureCode(code: string): boolean {
  if (code.includes('\\u')) return false;
  return !(code.match(/[A-Za-z_$][\w$]*/g) ?? []).some((word) => impureWords.has(word));
}

/** Hides the names of Object.prototype, where unknown names would be found otherwise. */
const shadowedGlobals = `let ${Object.getOwnPropertyNames(Object.prototype).join(', ')};`;

/**
 * Compiles a template: `{{name}}` and `{{!name}}` print a value unescaped, `{{% … }}` is JavaScript, a
 * line that begins with `\%` loses the backslash, and everything else is literal text. `print` makes
 * the text for a value that a tag prints. Throws TemplateError for a syntax error or a line that is a
 * Bottle statement.
 */
export function compileTemplate(
  source: string,
  file: string,
  print: (value: unknown, tag: Tag) => string = stringifyValue,
): Template {
  const parts = parseTemplate(source, file);
  const tags = parts.filter((part) => typeof part !== 'string');
  if (tags.length === 0) {
    const text = parts.join('');
    return () => text;
  }
  for (const tag of tags) {
    if (tag.prints && tag.code === '') {
      const problem = "{{}} is empty: write {{'{{}}'}} if the braces are text";
      throw new TemplateError(file, tag.line, problem);
    }
  }
  const eta = new Eta({
    autoEscape: false,
    autoFilter: true,
    // Eta calls it as a method of the object in which it records the current tag.
    filterFunction(this: { readonly line: number }, value: unknown) {
      return print(value, tags[this.line] ?? unknownTag);
    },
    // Makes the generated code record the current tag: lineNo is the number of a tag, not a line.
    debug: true,
    functionHeader: shadowedGlobals,
  });
  eta.parse = () => {
    let number = 0;
    const body = parts.map((part) => {
      if (typeof part === 'string') return singleQuotedContent(part);
      const val = part.prints ? interpolation(part.code) : part.code;
      return { t: part.prints ? 'i' : 'e', val, lineNo: number++ };
    });
    // In Eta's own `with`, its helpers (output, block, …) would hide data with their names. In the
    // strict function, assigning to an unknown name is an error; it does not create a global.
    const open = { t: 'e', val: 'with (it) { (() => { "use strict";', lineNo: 0 };
    return [open, ...body, { t: 'e', val: '})(); }', lineNo: tags.length - 1 }];
  };
  eta.RuntimeErr = (error: unknown, _source, number) => {
    const tag = tags[number] ?? unknownTag;
    throw new TemplateError(file, tag.line, runtimeProblem(tag, error));
  };
  let render: ReturnType<typeof eta.compile>;
  try {
    render = eta.compile('');
  } catch (error) {
    // Eta's message contains all of the generated code.
    if (!(error instanceof Error)) throw error;
    const { tag, problem } = syntaxProblem(tags, eta.compileToString(''));
    throw new TemplateError(file, tag.line, problemText(`${tagText(tag)} ${problem}`));
  }
  const isPure = tags.every(({ code }) => isPureCode(code));
  return Object.assign((data: TemplateData) => render.call(eta, data, {}), { isPure });
}
