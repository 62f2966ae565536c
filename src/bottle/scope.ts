import { type Code, levels, quote, Refusal } from './code.js';
import type { Expression } from './python.js';
import { anyText, either, isPlain, none, type Type, text, typeName } from './types.js';
import { notConfigured } from './values.js';

/** A value that the Python server gave to templates. */
export type PythonValue = string | number | boolean | null | { readonly [name: string]: string };

/** A name that the template has bound: its name in JavaScript, and what is known of its value. */
export interface Variable {
  readonly code: string;
  readonly type: Type;
  /** On some ways through the template, nothing has been assigned: Python fails then. */
  readonly unsure?: boolean;
}

/** The names that an expression can use. */
export interface Scope {
  /** The Python text that is being converted, for messages. */
  readonly text: string;
  readonly variables: ReadonlyMap<string, Variable>;
  readonly data: ReadonlyMap<string, PythonValue>;
  /** What conditions have shown about names of the data. */
  readonly known: ReadonlyMap<string, Type>;
  /** All of the tag or statement: setdefault() can be that, but not a part of it. */
  readonly whole?: Expression;
}

/** Words that cannot be names in JavaScript, or mean something else in a template. */
const reservedWords = new Set(
  (
    'arguments await break case catch class const continue debugger default delete do else enum eval export extends ' +
    'false finally for function if implements import in instanceof interface it let new null package private ' +
    'protected public return static super switch this throw true try typeof undefined var void while with yield ' +
    'NaN Infinity __eta'
  ).split(' '),
);

/** Whether JavaScript takes the name for a variable of the template, and for nothing else. */
export function isFreeName(name: string): boolean {
  return /^[A-Za-z_]\w*$/.test(name) && !reservedWords.has(name) && !(name in globalThis);
}

/** Functions of our templates that converted code uses. */
const ownFunctions: ReadonlySet<string> = new Set(['int', 'repr']);

/** Bottle's own functions, which hide data of the same name. */
export const bottleFunctions: ReadonlySet<string> = new Set([
  ...['get', 'setdefault', 'defined', 'include', 'rebase', '_rebase'],
  ...['_stdout', '_printlist', '_str', '_escape'],
]);

/** Functions of Python that a template can call, and that a name of its own would hide. */
const pythonFunctions = new Set(
  (
    'abs all any bool chr dict enumerate eval exec filter float format hex int isinstance len list map max min next oct ' +
    'ord print range repr reversed round set sorted str sum tuple type zip'
  ).split(' '),
);

/** Throws Refusal if the template cannot bind the name. */
export function requireBindable(name: string, { data }: Scope): void {
  if (!pythonFunctions.has(name) || data.has(name)) return;
  throw new Refusal(`"${name}" is a function of Python: take another name`);
}

/** Names that Python's templates have and ours do not: see pythonNames. */
export const pythonOnly: ReadonlySet<string> = new Set(['_config_items_', 'catchall', 'autojson']);

/** The type of a value of the data. */
export function dataType(name: string, value: PythonValue): Type {
  if (typeof value === 'string') {
    // Each instance has another name: it is a host name here.
    return name === 'hostname' || isPlain(value) ? text : anyText;
  }
  if (value === null) return either([none, text]);
  if (value === false) return either([{ kind: 'false' }, text]);
  if (typeof value === 'object') {
    const isPlainText = Object.entries(value).every((entry) => entry.every(isPlain));
    // JavaScript changes the order of such keys.
    if (Object.keys(value).some((key) => /^\d+$/.test(key))) return { kind: 'printable' };
    const of: Type = { kind: 'text', plain: isPlainText };
    const partial = value['default'] === notConfigured;
    const about = { plainKeys: isPlainText, isData: true, ...(partial && { partial }) };
    return { kind: 'dictionary', of, ...about };
  }
  return { kind: 'printable' };
}

/** The code of a name. Throws Refusal. */
export function lookUp(name: string, scope: Scope): Code {
  const variable = scope.variables.get(name);
  if (variable !== undefined) {
    const { code, type, unsure = false } = variable;
    if (type.kind === 'refused') throw new Refusal('');
    return { code, level: levels.member, type, simple: true, unsure };
  }
  if (pythonOnly.has(name)) throw new Refusal(`"${name}" has no counterpart: write its value`);
  if (bottleFunctions.has(name)) throw new Refusal(`"${name}" is a function of Bottle`);
  const known = scope.known.get(name);
  const value = scope.data.get(name);
  if (known === undefined && value === undefined) {
    throw new Refusal(`unknown name "${name}", for which Python fails, too`);
  }
  const type = known ?? dataType(name, value ?? null);
  const code = isFreeName(name) ? name : `it[${quote(name)}]`;
  // A domain may choose its keys.
  const unsure = name.startsWith('public_key_');
  return { code, level: levels.member, type, simple: true, unsure };
}

/** The parts of the target of a loop or an assignment: names, or names in a tuple. */
export function targetNames(target: Expression): readonly string[] | undefined {
  if (target.kind === 'name') return [target.name];
  if (target.kind !== 'tuple' && target.kind !== 'list') return undefined;
  const names = target.items.map((item) => (item.kind === 'name' ? item.name : undefined));
  if (!names.every((name) => name !== undefined)) return undefined;
  // JavaScript takes no name twice.
  return new Set(names).size === names.length ? names : undefined;
}

/** A name for JavaScript that nothing else has. */
export function freshName(name: string, scope: Scope): string {
  const taken = new Set([
    ...scope.data.keys(),
    ...[...scope.variables.values()].map(({ code }) => code),
  ]);
  let fresh = name.replace(/[^A-Za-z0-9_]/g, '_');
  while (
    !isFreeName(fresh) ||
    ownFunctions.has(fresh) ||
    fresh in Object.prototype ||
    (fresh !== name && taken.has(fresh))
  ) {
    fresh += '_';
  }
  return fresh;
}

/** Binds the target to items of the type. */
export function bind(
  target: Expression,
  item: Type,
  scope: Scope,
): { pattern: string; scope: Scope; names: readonly string[] } {
  const names = targetNames(target);
  if (names === undefined)
    throw new Refusal('the target of "for" is neither a name nor names in a tuple');
  const types = target.kind === 'name' ? [item] : partTypes(item, names.length);
  const variables = new Map(scope.variables);
  const codes = names.map((name, index) => {
    const code = freshName(name, scope);
    variables.set(name, { code, type: types[index] ?? item });
    return code;
  });
  const pattern = target.kind === 'name' ? (codes[0] ?? '') : `[${codes.join(', ')}]`;
  return { pattern, scope: { ...scope, variables }, names };
}

/** The types of the parts into which a value of the type is taken apart. */
function partTypes(type: Type, count: number): readonly Type[] {
  if (type.kind === 'tuple' && type.items.length === count) return type.items;
  throw new Refusal(`${typeName(type)} is taken apart into ${count} names`);
}

/** What is known if the condition is true, or false. */
export function narrowed(condition: Expression, holds: boolean, scope: Scope): Scope {
  if (condition.kind === 'unary' && condition.operator === 'not') {
    return narrowed(condition.operand, !holds, scope);
  }
  if (condition.kind === 'logic') {
    if ((condition.operator === 'and') !== holds) return scope;
    return narrowed(condition.right, holds, narrowed(condition.left, holds, scope));
  }
  if (condition.kind === 'comparison') {
    const [[operator, right] = ['', undefined]] = condition.rest;
    const isNone = right?.kind === 'constant' && right.value === null;
    if (condition.rest.length !== 1 || !isNone || condition.first.kind !== 'name') return scope;
    return without(condition.first.name, (operator === 'is') !== holds ? ['none'] : [], scope);
  }
  if (!holds) return scope;
  if (condition.kind === 'name') return without(condition.name, ['none', 'false'], scope);
  const name = definedName(condition);
  if (name === undefined || scope.variables.has(name) || scope.data.has(name)) return scope;
  return { ...scope, known: new Map([...scope.known, [name, anyText]]) };
}

/** The scope in which the name's value has none of these kinds. */
function without(name: string, kinds: readonly Type['kind'][], scope: Scope): Scope {
  const variable = scope.variables.get(name);
  const value = scope.data.get(name);
  const type = variable?.type ?? (value === undefined ? undefined : dataType(name, value));
  if (type?.kind !== 'either') return scope;
  const rest = either(type.of.filter(({ kind }) => !kinds.includes(kind)));
  if (variable === undefined) return { ...scope, known: new Map([...scope.known, [name, rest]]) };
  return {
    ...scope,
    variables: new Map([...scope.variables, [name, { ...variable, type: rest }]]),
  };
}

/** The name that `defined('name')` asks for. */
function definedName(call: Expression): string | undefined {
  if (call.kind !== 'call' || call.function.kind !== 'name' || call.function.name !== 'defined')
    return undefined;
  const [argument] = call.positional;
  return argument?.kind === 'string' ? argument.value : undefined;
}
