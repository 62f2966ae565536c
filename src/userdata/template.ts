import { Script } from 'node:vm';
// The core has no file access: an include() in a template cannot read another file.
import { Eta } from 'eta/core';
import type { PublicKey } from '../config/options.js';
import { truncate } from '../text.js';

/** The names a template knows and their values; without a prototype, so that it knows no others. */
export type TemplateData = Readonly<Record<string, unknown>>;

/** Renders a template. Throws TemplateError. */
export type Template = (data: TemplateData) => string;

/** A template that cannot be used, or not with these data: one line for the log. */
export class TemplateError extends Error {
  constructor(
    readonly file: string,
    /** The line in the template, from 1. */
    readonly line: number,
    problem: string,
  ) {
    super(`${file}:${line}: ${problem}`);
  }
}

/** What a template may use of an instance. */
export interface TemplateInstance {
  readonly name: string;
  readonly uuid: string | undefined;
  readonly mac: string | undefined;
  readonly ipv4: string | undefined;
  readonly ipv6: string | undefined;
  readonly location: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
}

/** What a template may use of the configuration. */
export interface TemplateSettings {
  readonly publicKeys: readonly PublicKey[];
  readonly templateData: ReadonlyMap<string, string>;
  readonly password: string | undefined;
}

/** Used where an instance has no template of its own and there is no default one. */
export const builtInTemplate = `#cloud-config
hostname: {{hostname}}
local-hostname: {{hostname}}
fqdn: {{hostname}}.localdomain
manage_etc_hosts: true
{{%
  const keys = 'default' in public_keys ? [public_keys.default] : Object.values(public_keys);
  if (keys.length > 0) {
}}ssh_authorized_keys:
{{% for (const key of keys) { }}    - {{key}}
{{% } } }}`;

/** Bounds for a template, so that no file keeps the server busy for long. */
const longestTag = 65_536;
const mostTags = 10_000;
const longestStatement = 1000;

function withoutPrototype(entries: object): Record<string, unknown> {
  return Object.assign(Object.create(null), entries);
}

/** Names of the generated code: data of that name are found by `{{name}}`, see interpolation(). */
const hiddenNames = Object.freeze({ __proto__: null, __eta: true, it: true });

/**
 * The data for an instance's template. What is in an object of it cannot be changed; a name of it
 * can, so that each rendering needs an object of its own that inherits from this one.
 */
export function templateData(
  { publicKeys, templateData, password }: TemplateSettings,
  { name, uuid, mac, ipv4, ipv6, location, metadata }: TemplateInstance,
): TemplateData {
  const data: Record<string | symbol, unknown> = withoutPrototype({});
  data[Symbol.unscopables] = hiddenNames;
  for (const [name, value] of templateData) data[name] = value;
  const keys = withoutPrototype({});
  for (const { name, key } of publicKeys) {
    keys[name] = key;
    data[`public_key_${name}`] = key;
  }
  data['public_keys'] = Object.freeze(keys);
  data['hostname'] = name;
  if (password !== undefined) data['mdserver_password'] = password;
  const facts = { __proto__: null, name, uuid, mac, ipv4, ipv6, location };
  const own = { metadata: Object.freeze(withoutPrototype(metadata)) };
  data['instance'] = Object.freeze(Object.assign(facts, own));
  return data;
}

/** A tag of a template: `{{code}}` prints a value, `{{% code }}` is a statement or a part of one. */
interface Tag {
  readonly line: number;
  readonly code: string;
  readonly prints: boolean;
}

const comment = String.raw`[ \t]*(?:#.*)?$`;
/** What a line of Bottle's templates says after its "%", and how that is written here. */
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
 * The problem with a line that is a statement in Bottle's templates, or undefined for text, such as
 * `%wheel ALL=(ALL) ALL`. The opener is the line's "%" or "<%", the code what follows it.
 */
function bottleProblem(opener: string, code: string): string | undefined {
  const trimmed = code.replace(/^[ \t]+/, '').trimEnd();
  // Nearly all lines of text end here: one look is quicker than sixteen.
  if (!anyStatement.test(trimmed)) return undefined;
  for (const [pattern, newForm] of bottleStatements) {
    const word = pattern.exec(trimmed)?.[1];
    if (word === undefined) continue;
    const asText = opener === '%' ? '\\%' : "{{'<%'}}";
    return `"${opener} ${word}" is a statement in Bottle's form: write ${newForm}, or ${asText} where the line is text`;
  }
  return undefined;
}

/**
 * As bottleProblem, for the line from `start` on, which has its opener right there. The last block
 * end is where the template's last `%>` is.
 */
function problemAt(
  source: string,
  opener: string,
  start: number,
  lastBlockEnd: number,
): string | undefined {
  const newline = source.indexOf('\n', start);
  const end = newline < 0 ? source.length : newline;
  if (end - start > longestStatement) return undefined;
  const code = source.slice(start + opener.length, end);
  if (opener === '%') return bottleProblem(opener, code);
  if (code.trim() === '' && lastBlockEnd > end) {
    return `"<%" opens a block in Bottle's form: write {{% … }} in JavaScript, or {{'<%'}} where the line is text`;
  }
  return bottleProblem(opener, code.replace(/%>\s*$/, ''));
}

// A quote that opens no string stands for itself: JavaScript finds out what is wrong there.
const tokens =
  /'(?:[^'\\\n]|\\[\s\S])*'|"(?:[^"\\\n]|\\[\s\S])*"|`(?:[^`\\]|\\[\s\S])*`|\/\*(?:[\s\S]*?\*\/|[\s\S]*)|\/\/(?:(?!\}\})[^\n])*|[{}]|[^'"`/{}]+|['"`/]/y;

/** A regular expression on one line; a "/" in a class of it has to have a backslash. */
const regularExpression = /\/(?:[^/\\\n]|\\.)+\//y;

/** The tokens of JavaScript that matter for its braces, each with its place. */
function* tokensOf(text: string): Generator<readonly [position: number, token: string]> {
  let position = 0;
  // The last character that is no space: it tells a regular expression from a division.
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
 * The length of a tag's inside, which the text begins with, or undefined where no `}}` ends it.
 * A `}}` in a string, a comment or an object (`{a: {b: 1}}`) does not.
 */
function insideLength(text: string): number | undefined {
  const prints = !/^\s*%/.test(text);
  let braces = 0;
  for (const [position, token] of tokensOf(text)) {
    if (token === '{') braces += 1;
    if (token !== '}') continue;
    // The braces of a statement are seldom balanced: `{{% if (x) { }}`.
    if (text.startsWith('}}', position) && (braces === 0 || !prints)) return position;
    braces = Math.max(0, braces - 1);
  }
  return undefined;
}

/**
 * The texts and tags of a template, in order. Eta's own parser changes line ends, takes "-" and "_"
 * beside a brace away, and can take minutes for a file: this one reads each character once.
 * Throws TemplateError.
 */
function pieces(source: string, file: string): (string | Tag)[] {
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
      const inside = source.slice(after, after + longestTag);
      const length = insideLength(inside);
      if (length === undefined) {
        const problem = `"{{" has no "}}" within ${longestTag} characters: add it, or write {{'{{'}} where the braces are text`;
        throw new TemplateError(file, line, problem);
      }
      tags += 1;
      if (tags > mostTags) {
        throw new TemplateError(file, line, `more than ${mostTags} tags: use a loop, or split it`);
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

/** Expressions that look like a name of the data, and have a meaning of their own. */
const ownMeaning = new Set(['it', '__eta', 'this', 'null', 'true', 'false']);

/**
 * The JavaScript of a tag that prints. Names of data that are none in JavaScript work, too, where
 * they are all of the tag: `{{public_key_my-key}}`, `{{class}}`.
 */
function interpolation(code: string): string {
  // The newline ends a comment of the code's.
  const expression = `(${code}\n)`;
  if (!/^[\w$.-]+$/.test(code)) return expression;
  const valid = isExpression(code);
  if (valid && /^[A-Za-z_$][\w$]*$/.test(code) && !ownMeaning.has(code)) return expression;
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

/** A value as text. Throws for what prints as no operator wants it. */
function printed(value: unknown): string {
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
      throw new Error("has no value here: {{… ?? ''}} prints nothing then");
    case 'function':
    case 'symbol':
      throw new Error(`is a ${typeof value}, which cannot be printed`);
    case 'object': {
      if (value === null) return printed(undefined);
      const prototype: unknown = Object.getPrototypeOf(value);
      if (prototype === null || prototype === Object.prototype) {
        throw new Error('is an object: name one of its parts');
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

/** What to say of an error that a tag's code threw. */
function runtimeProblem(tag: Tag, error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const unknown = error instanceof ReferenceError && /^(.+) is not defined$/.exec(message)?.[1];
  // A name of the language or of the generated code that is none of the template's.
  const leaked =
    tag.code in Object.prototype || /^\w+: is a function/.test(`${tag.code}: ${message}`);
  const name = unknown || (leaked && tag.prints ? tag.code : undefined);
  if (name === undefined) return problemText(`${tagText(tag)} ${message}`);
  return problemText(
    `unknown name "${name}" in ${tagText(tag)}: set it in [template-data], or correct the name`,
  );
}

/** The tag whose brace has no partner, and what is wrong with it. */
function unbalanced(tags: readonly Tag[]): { tag: Tag; problem: string } | undefined {
  const open: Tag[] = [];
  for (const tag of tags.filter(({ prints }) => !prints)) {
    for (const [, token] of tokensOf(tag.code)) {
      if (token === '{') open.push(tag);
      else if (token === '}' && open.pop() === undefined) {
        return { tag, problem: 'closes a block that nothing opens' };
      }
    }
  }
  const last = open.at(-1);
  return last && { tag: last, problem: 'opens a block that nothing closes: add {{% } }}' };
}

/** The tag with a syntax error, and what the error is. */
function syntaxProblem(tags: readonly Tag[], code: string): { tag: Tag; problem: string } {
  const first = tags[0] ?? { line: 1, code: '', prints: true };
  try {
    new Script(`(function(it, options) {${code}\n})`, { filename: 'template' });
  } catch (error) {
    const wrong = unbalanced(tags);
    if (wrong !== undefined) return wrong;
    const { message, stack = '' } = error as Error;
    // The stack begins with the place in the generated code, where Eta notes the tag it is at.
    const place = Number(/^template:(\d+)/.exec(stack)?.[1] ?? 0);
    const before = code.split('\n', place).join('\n');
    const number = [...before.matchAll(/^__eta\.line=(\d+)$/gm)].at(-1)?.[1];
    return { tag: tags[Number(number)] ?? first, problem: `is not JavaScript: ${message}` };
  }
  return { tag: first, problem: 'or a later tag is not JavaScript' };
}

/** Unknown names must not be found in the prototype of the global object instead. */
const shadowedGlobals = `let ${Object.getOwnPropertyNames(Object.prototype).join(', ')};`;

/**
 * A template made ready: `{{name}}` and `{{!name}}` print a value as it is, `{{% … }}` is
 * JavaScript, a line that begins with `\%` loses the backslash; all else is text, byte for byte.
 * Throws TemplateError for a syntax error or a line in the form of a Bottle statement.
 */
export function compileTemplate(source: string, file: string): Template {
  const parts = pieces(source, file);
  const tags = parts.filter((part) => typeof part !== 'string');
  if (tags.length === 0) {
    const text = parts.join('');
    return () => text;
  }
  for (const tag of tags) {
    if (tag.prints && tag.code === '') {
      const problem = "{{}} names nothing: write {{'{{}}'}} where the braces are text";
      throw new TemplateError(file, tag.line, problem);
    }
  }
  const eta = new Eta({
    autoEscape: false,
    autoFilter: true,
    filterFunction: printed,
    // Has the generated code note which tag it is at. The numbers given here are not lines.
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
    // Eta's own `with` would have its helpers (output, block, …) hide data of their names. In the
    // strict function an assignment to an unknown name is an error, not a global for all guests.
    const open = { t: 'e', val: 'with (it) { (() => { "use strict";', lineNo: 0 };
    return [open, ...body, { t: 'e', val: '})(); }', lineNo: tags.length - 1 }];
  };
  eta.RuntimeErr = (error: unknown, _source, number) => {
    const tag = tags[number] ?? { line: 1, code: '', prints: true };
    throw new TemplateError(file, tag.line, runtimeProblem(tag, error));
  };
  let render: ReturnType<typeof eta.compile>;
  try {
    render = eta.compile('');
  } catch (error) {
    // Eta's message holds all of the generated code.
    if (!(error instanceof Error)) throw error;
    const { tag, problem } = syntaxProblem(tags, eta.compileToString(''));
    throw new TemplateError(file, tag.line, problemText(`${tagText(tag)} ${problem}`));
  }
  return (data) => render.call(eta, data, {});
}
