import { Script } from 'node:vm';
// The core has no file access: an include() in a template cannot read another file.
import { Eta } from 'eta/core';
import { maxIncludes } from '../bottle/language.js';
import { int, notConfigured, repr } from '../bottle/values.js';
import {
  defaultKey,
  type PublicKey,
  type TemplateValue,
  type templateFunctions,
} from '../config/options.js';
import { servedName } from '../instances/host-names.js';
import { keysOf } from '../instances/settings.js';
import { jsonText, shellWord, truncate, yamlText } from '../text.js';
import { doubleMeaning, doubleMeaningOfStatement, newForms } from './meanings.js';
import { formOfFunction, formOfMethod, isPythonFunction } from './python-forms.js';
import {
  type DoubtfulLine,
  type Include,
  isOurs,
  keepsBraces,
  parseSource,
  type Tag,
  TemplateError,
  tagCounter,
  tokensOf,
} from './source.js';

export { TemplateError };

/** The values that a template can use, by name. Has no prototype, which would add names. */
export type TemplateData = Readonly<Record<string, unknown>>;

/** Renders a template. Throws TemplateError. */
export type Template = ((data: TemplateData) => string) & {
  /** Whether the text depends on nothing but the data: not on the time, chance or other state. */
  readonly isPure?: boolean;
};

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
    data[`public_key_${defaultKey}`] = notConfigured;
    // A loop over the keys does not meet it: it is none.
    Object.defineProperty(keys, defaultKey, { value: notConfigured });
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

/** For the position in a template without tags, which is never needed. */
const unknownTag: Tag = { file: '', line: 1, code: '', prints: true, isJavaScript: true };

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

/**
 * The text for a value that a tag prints. Throws for what Python printed as another text, unless the
 * template says that it is JavaScript, and as stringifyValue does.
 */
export function printValue(
  value: unknown,
  { isJavaScript, code }: Pick<Tag, 'isJavaScript' | 'code'>,
): string {
  const text = stringifyValue(value);
  if (isJavaScript || typeof value === 'string') return text;
  const short = truncate(code, 40);
  const operand = /^[\w.]+$/.test(code) ? short : `(${short})`;
  const refused = (problem: string) => new Error(`${problem}; ${isOurs}`);
  if (value === true) {
    throw refused(
      `is true, which Python printed as True: write {{String(${short})}}, or {{${operand} ? 'yes' : 'no'}}`,
    );
  }
  if (value === false) {
    throw refused(
      `is false, which Python printed as False: write {{${operand} || ''}} to print nothing, or {{String(${short})}}`,
    );
  }
  if (Array.isArray(value)) {
    throw refused(
      `is a list, which Python printed as ['a', 'b']: write {{yaml(${short})}}, or {{${operand}.join(', ')}}`,
    );
  }
  // Python prints 1e+16 where JavaScript prints 10000000000000000, and 0.00001 as 1e-05.
  if (typeof value === 'number' && !isPrintedAlike(value)) {
    throw refused(`is a number that Python printed otherwise: write {{String(${short})}}`);
  }
  return text;
}

function isPrintedAlike(value: number): boolean {
  if (Number.isInteger(value)) return Number.isSafeInteger(value);
  return Math.abs(value) >= 1e-4 && Math.abs(value) < 1e15;
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
        throw new Error('is an object: print one of its properties, or write {{yaml(…)}}');
      }
      return String(value);
    }
  }
}

function collapseSpaces(text: string): string {
  return text.replace(/\s+/g, ' ').trim();
}

function problemText(text: string): string {
  return truncate(collapseSpaces(text), 300);
}

/** The tag as a message shows it. */
function tagText({ code, prints }: Tag): string {
  return `{{${prints ? '' : '% '}${truncate(collapseSpaces(code), 60)}}}`;
}

/** What to do about a name that a tag uses and nobody knows. */
function nameAdvice(name: string, { code }: Tag): string {
  const form = formOfFunction(name);
  if (form !== undefined) return `write ${form}`;
  const advice = 'set it in [template-data], or correct the name';
  return /^[A-Za-z_$][\w$]*$/.test(code) ? advice : `${advice}; ${keepsBraces}`;
}

/** The message for an error that a tag's code threw. */
function runtimeProblem(tag: Tag, error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const forms = tag.prints ? newForms(tag.code) : undefined;
  const unknown = error instanceof ReferenceError && /^(.+) is not defined$/.exec(message)?.[1];
  // A name of JavaScript or of the generated code, not of the template data.
  const leaked =
    tag.code in Object.prototype || /^\w+: is a function/.test(`${tag.code}: ${message}`);
  const name = unknown || (leaked && tag.prints ? tag.code : undefined);
  if (name !== undefined) {
    const advice = isPythonFunction(name) && forms ? `write ${forms}` : nameAdvice(name, tag);
    return `${problemText(`unknown name "${name}" in ${tagText(tag)}`)}: ${advice}`;
  }
  const method = /(?:^|\.)(\w+) is not a function$/.exec(message)?.[1];
  const advice = forms ?? (method && (formOfMethod(method) ?? formOfFunction(method)));
  return problemText(`${tagText(tag)} ${message}`) + (advice ? `; write ${advice}` : '');
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
    const tag = tags[Number(number)] ?? first;
    const forms = tag.prints ? newForms(tag.code) : undefined;
    const advice = forms === undefined ? `; ${keepsBraces}` : `; write ${forms}`;
    return { tag, problem: `is not JavaScript: ${message}${tag.prints ? advice : ''}` };
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

/** A file that a template includes, or why there is none. */
export type Part =
  | { readonly path: string; readonly source: string }
  | { readonly problem: string };

/** What the compilation of a template depends on. */
export interface CompileOptions {
  /** Makes the text for a value that a tag prints. */
  readonly print?: (value: unknown, tag: Tag) => string;
  /** Finds a file that the template includes, by its name in userdata_dir. */
  readonly part?: (name: string) => Part;
  /** The template is JavaScript, whatever its first line says. */
  readonly isJavaScript?: boolean;
}

/** Of a template with all that it includes, in characters. */
const maxLength = 4 * 1024 * 1024;

/** A template with the files that it includes in place. */
interface Expanded {
  readonly pieces: readonly (string | Tag)[];
  readonly doubtful: readonly DoubtfulLine[];
}

/** Puts the files in place that a template includes, each in a block. Throws TemplateError. */
function expand(
  whole: string,
  file: string,
  part: (name: string) => Part,
  isJavaScript: boolean,
): Expanded {
  const pieces: (string | Tag)[] = [];
  const doubtful: DoubtfulLine[] = [];
  const countTag = tagCounter();
  let length = 0;

  function addFile(source: string, path: string, ancestors: readonly string[]): void {
    length += source.length;
    const parsed = parseSource(source, path, countTag, isJavaScript);
    for (const one of parsed.doubtful) doubtful.push(one);
    for (const piece of parsed.pieces) {
      if (typeof piece === 'object' && 'include' in piece) addPart(piece, [...ancestors, path]);
      else pieces.push(piece);
    }
  }

  function addPart({ file: by, line, include }: Include, ancestors: readonly string[]): void {
    const found = part(include);
    const name = `include('${include}')`;
    const refused = (problem: string) => new TemplateError(by, line, `${name}: ${problem}`);
    if ('problem' in found) throw refused(found.problem);
    if (ancestors.includes(found.path)) throw refused('the file includes itself');
    if (ancestors.length > maxIncludes) throw refused(`is more than ${maxIncludes} files deep`);
    if (length + found.source.length > maxLength) {
      throw refused(`the template is longer than ${maxLength} characters with what it includes`);
    }
    const block = { file: by, line, prints: false, isJavaScript: true };
    pieces.push({ ...block, code: '{' });
    try {
      addFile(found.source, found.path, ancestors);
    } catch (error) {
      if (!(error instanceof TemplateError) || error.file === by) throw error;
      throw new TemplateError(error.file, error.line, `${error.problem} (in ${by}:${line})`);
    }
    pieces.push({ ...block, code: '}' });
  }

  addFile(whole, file, []);
  return { pieces, doubtful };
}

/** Throws TemplateError if a tag means one thing in Python and another in JavaScript. */
function refuseDoubleMeaning(tag: Tag): void {
  if (tag.isJavaScript) return;
  const problem = tag.prints ? doubleMeaning(tag.code) : doubleMeaningOfStatement(tag.code);
  if (problem === undefined) return;
  throw new TemplateError(
    tag.file,
    tag.line,
    `${tagText(tag)} ${truncate(problem, 300)}; ${isOurs}`,
  );
}

/** Throws TemplateError if a line is a statement of Bottle, because the template has all of its names. */
function refuseStatements(doubtful: readonly DoubtfulLine[], data: TemplateData): void {
  const isPythons = (name: string) =>
    isPythonFunction(name) ||
    (name in data &&
      name !== 'instance' &&
      !Object.values(functions).includes(data[name] as never));
  for (const { file, line, text, names } of doubtful) {
    if (!names.every(isPythons)) continue;
    const problem = `"${truncate(text.trim(), 40)}" is a Bottle statement, because ${names.join(' and ')} is in the data: take the line out, or put a backslash before it if it is text`;
    throw new TemplateError(file, line, problem);
  }
}

/**
 * Compiles a template: `{{name}}` and `{{!name}}` print a value unescaped, `{{% … }}` is JavaScript, a
 * line that begins with `\%` loses the backslash, and everything else is literal text. Throws
 * TemplateError for a syntax error, for a line that is a Bottle statement, and for a tag that meant
 * something else in Bottle.
 */
export function compileTemplate(
  source: string,
  file: string,
  {
    print = printValue,
    part = () => ({ problem: 'no such file' }),
    isJavaScript = false,
  }: CompileOptions = {},
): Template {
  const { pieces, doubtful } = expand(source, file, part, isJavaScript);
  const tags = pieces.filter((piece) => typeof piece !== 'string');
  if (tags.length === 0) {
    const text = pieces.join('');
    return (data) => {
      refuseStatements(doubtful, data);
      return text;
    };
  }
  for (const tag of tags) refuseDoubleMeaning(tag);
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
    const body = pieces.map((piece) => {
      if (typeof piece === 'string') return singleQuotedContent(piece);
      // Without a semicolon, a statement that begins with "[" or "(" would go on with what is before it.
      const val = piece.prints ? interpolation(piece.code) : `;${piece.code}`;
      return { t: piece.prints ? 'i' : 'e', val, lineNo: number++ };
    });
    // In Eta's own `with`, its helpers (output, block, …) would hide data with their names. In the
    // strict function, assigning to an unknown name is an error; it does not create a global.
    const open = { t: 'e', val: 'with (it) { (() => { "use strict";', lineNo: 0 };
    return [open, ...body, { t: 'e', val: '})(); }', lineNo: tags.length - 1 }];
  };
  eta.RuntimeErr = (error: unknown, _source, number) => {
    const tag = tags[number] ?? unknownTag;
    throw new TemplateError(tag.file, tag.line, runtimeProblem(tag, error));
  };
  let render: ReturnType<typeof eta.compile>;
  try {
    render = eta.compile('');
  } catch (error) {
    // Eta's message contains all of the generated code.
    if (!(error instanceof Error)) throw error;
    const { tag, problem } = syntaxProblem(tags, eta.compileToString(''));
    throw new TemplateError(tag.file, tag.line, `${tagText(tag)} ${collapseSpaces(problem)}`);
  }
  const isPure = tags.every(({ code }) => isPureCode(code));
  return Object.assign(
    (data: TemplateData) => {
      refuseStatements(doubtful, data);
      return render.call(eta, data, {});
    },
    { isPure },
  );
}
