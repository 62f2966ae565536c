import {
  at,
  booleanConstant,
  type Code,
  expectPlain,
  expectType,
  expression,
  floatConstant,
  integerConstant,
  levels,
  parameter,
  printed,
  quote,
  Refusal,
  shown,
  sure,
  textConstant,
} from './code.js';
import { concatenated, formatted, percentFormat } from './format.js';
import { asArray, callMethod, itemType, toText, truth } from './methods.js';
import type { ComprehensionClause, Expression, FormatPart } from './python.js';
import {
  alternatives,
  anyText,
  boolean,
  either,
  float,
  integer,
  isPlain,
  join,
  listOf,
  natural,
  none,
  type Type,
  text,
  typeName,
  viewOf,
} from './types.js';

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
const ownFunctions = new Set(['int', 'repr']);

/** Bottle's own functions, which hide data of the same name. */
const bottleFunctions = new Set([
  ...['get', 'setdefault', 'defined', 'include', 'rebase', '_rebase'],
  ...['_stdout', '_printlist', '_str', '_escape'],
]);

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
    return { kind: 'dictionary', of: { kind: 'text', plain: isPlainText }, plainKeys: isPlainText };
  }
  return { kind: 'printable' };
}

/** The code of a name. Throws Refusal. */
function lookUp(name: string, scope: Scope): Code {
  const variable = scope.variables.get(name);
  if (variable !== undefined) {
    const { code, type, unsure = false } = variable;
    if (type.kind === 'refused') throw new Refusal('');
    return { code, level: levels.member, type, simple: true, unsure };
  }
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

/** The JavaScript of a Python expression. Throws Refusal. */
export function convert(source: Expression, scope: Scope): Code {
  return { ...convertKind(source, scope), python: scope.text.slice(source.start, source.end) };
}

function convertKind(source: Expression, scope: Scope): Code {
  switch (source.kind) {
    case 'name':
      return lookUp(source.name, scope);
    case 'string':
      return textConstant(source.value);
    case 'integer':
      return integerConstant(source.value);
    case 'float':
      return floatConstant(source.value);
    case 'constant':
      if (source.value !== null) return booleanConstant(source.value);
      return { code: 'null', level: levels.member, type: none, simple: true, constant: null };
    case 'f-string':
      return concatenated(source.parts.map((part) => formatPart(part, scope)));
    case 'list':
    case 'tuple':
      return items(source.kind, source.items, scope);
    case 'dictionary':
      return dictionary(source.entries, scope);
    case 'unary':
      return unary(source.operator, source.operand, scope);
    case 'binary':
      if (
        source.operator === '%' &&
        source.left.kind === 'string' &&
        source.right.kind === 'tuple'
      ) {
        const values = source.right.items.map((item) => convert(item, scope));
        return percentFormat(source.left.value, values);
      }
      return binary(source.operator, convert(source.left, scope), convert(source.right, scope));
    case 'comparison':
      return comparison(source.first, source.rest, scope);
    case 'logic':
      return logic(source, scope);
    case 'conditional': {
      const condition = truth(convert(source.condition, scope));
      const then = sure(convert(source.then, narrowed(source.condition, true, scope)));
      const otherwise = sure(convert(source.otherwise, narrowed(source.condition, false, scope)));
      return expression(
        `${at(levels.or, condition)} ? ${at(levels.conditional, then)} : ${at(levels.conditional, otherwise)}`,
        levels.conditional,
        join(then.type, otherwise.type),
      );
    }
    case 'subscript':
      return subscript(convert(source.object, scope), source.index, scope);
    case 'call':
      return call(source, scope);
    case 'comprehension':
      return comprehension(source, scope);
    case 'attribute': {
      const object = convert(source.object, scope);
      throw new Refusal(`.${source.name} of ${shown(object)} has no counterpart`);
    }
    case 'set':
    case 'slice':
    case 'lambda':
    case 'starred':
    case 'assignment expression':
      throw new Refusal(`a ${source.kind} has no counterpart: rewrite it in JavaScript`);
    case 'other':
      throw new Refusal(`${source.what} has no counterpart: rewrite it in JavaScript`);
  }
}

function formatPart(part: FormatPart, scope: Scope): string | Code {
  if (typeof part === 'string') return part;
  const format = (part.format ?? []).map((piece) => {
    if (typeof piece !== 'string') throw new Refusal('a format in a format has no counterpart');
    return piece;
  });
  // Positions in an f-string do not count from the start of the text.
  return formatted(convert(part.value, { ...scope, text: '' }), format.join(''), part.conversion);
}

function items(kind: 'list' | 'tuple', sources: readonly Expression[], scope: Scope): Code {
  const found = sources.map((item) => sure(convert(item, scope)));
  const code = `[${found.map((item) => at(levels.conditional, item)).join(', ')}]`;
  const types = found.map(({ type }) => type);
  if (kind === 'tuple') return expression(code, levels.member, { kind, items: types });
  const of = types.length === 0 ? undefined : types.reduce(join);
  return expression(code, levels.member, listOf(of, types.length > 0));
}

function dictionary(
  entries: readonly (readonly [Expression | undefined, Expression])[],
  scope: Scope,
): Code {
  const parts = entries.map(([key, value]) => {
    if (key?.kind !== 'string')
      throw new Refusal('a key of the dictionary is not a literal string');
    if (/^\d+$/.test(key.value))
      throw new Refusal('JavaScript changes the order of keys that are numbers');
    return { key: key.value, value: sure(convert(value, scope)) };
  });
  const codes = parts.map(({ key, value }) => `[${quote(key)}]: ${at(levels.conditional, value)}`);
  const types = parts.map(({ value }) => value.type);
  return expression(`{ ${['__proto__: null', ...codes].join(', ')} }`, levels.member, {
    kind: 'dictionary',
    of: types.length === 0 ? undefined : types.reduce(join),
    plainKeys: parts.every(({ key }) => isPlain(key)),
  });
}

function unary(operator: string, operand: Expression, scope: Scope): Code {
  const value = convert(operand, scope);
  const { constant } = value;
  if (operator === 'not') {
    if (typeof constant === 'boolean') return booleanConstant(!constant);
    return expression(`!${at(levels.unary, truth(value))}`, levels.unary, boolean);
  }
  if (typeof constant === 'bigint') {
    return integerConstant(operator === '-' ? -constant : operator === '~' ? ~constant : constant);
  }
  if (typeof constant === 'number' && operator !== '~') {
    return floatConstant(operator === '-' ? -constant : constant);
  }
  if (operator === '~') throw new Refusal('"~" has no counterpart here');
  if (value.type.kind !== 'integer' && value.type.kind !== 'float') {
    throw new Refusal(`"${operator}" of ${shown(value)}, which is ${typeName(value.type)}`);
  }
  if (operator === '+') return sure(value);
  const type = value.type.kind === 'float' ? float : integer;
  return expression(`-${at(levels.member, sure(value))}`, levels.unary, type);
}

/** The result for two literals; undefined if it has to be computed when the template runs. */
function folded(operator: string, left: Code, right: Code): Code | undefined {
  const [a, b] = [left.constant, right.constant];
  if (typeof a === 'string' && typeof b === 'string' && operator === '+')
    return textConstant(a + b);
  if (operator === '*') {
    if (typeof a === 'string' && typeof b === 'bigint') return repeated(a, b);
    if (typeof b === 'string' && typeof a === 'bigint') return repeated(b, a);
  }
  if (typeof a === 'bigint' && typeof b === 'bigint') return foldedIntegers(operator, a, b);
  const numbers = [a, b].map((value) => {
    if (typeof value === 'number') return value;
    return typeof value === 'bigint' && Number.isSafeInteger(Number(value))
      ? Number(value)
      : undefined;
  });
  const [x, y] = numbers;
  if (x === undefined || y === undefined) return undefined;
  if (operator === '+') return floatConstant(x + y);
  if (operator === '-') return floatConstant(x - y);
  if (operator === '*') return floatConstant(x * y);
  if (operator === '/' && y !== 0) return floatConstant(x / y);
  throw new Refusal(`"${operator}" of floats has no counterpart`);
}

function repeated(value: string, times: bigint): Code {
  if (times > 10_000n) throw new Refusal('the string is repeated too often');
  return textConstant(value.repeat(Math.max(0, Number(times))));
}

function foldedIntegers(operator: string, a: bigint, b: bigint): Code {
  const remainder = b === 0n ? 0n : ((a % b) + b) % b;
  switch (operator) {
    case '+':
      return integerConstant(a + b);
    case '-':
      return integerConstant(a - b);
    case '*':
      return integerConstant(a * b);
    case '|':
      return integerConstant(a | b);
    case '&':
      return integerConstant(a & b);
    case '^':
      return integerConstant(a ^ b);
    case '//':
      if (b !== 0n) return integerConstant((a - remainder) / b);
      break;
    case '%':
      if (b !== 0n) return integerConstant(remainder);
      break;
    case '/':
      if (b !== 0n && [a, b].every((value) => Number.isSafeInteger(Number(value)))) {
        return floatConstant(Number(a) / Number(b));
      }
      break;
    case '**':
      if (b >= 0n && b <= 1000n && a <= 1_000_000n && a >= -1_000_000n)
        return integerConstant(a ** b);
      break;
    case '<<':
      if (b >= 0n && b <= 1000n) return integerConstant(a << b);
      break;
    case '>>':
      if (b >= 0n && b <= 1000n) return integerConstant(a >> b);
      break;
  }
  throw new Refusal(`"${operator}" of these numbers has no counterpart`);
}

function isNumber({ kind }: Type): boolean {
  return kind === 'integer' || kind === 'float';
}

function binary(operator: string, first: Code, second: Code): Code {
  const known = folded(operator, first, second);
  if (known !== undefined) return known;
  if (operator === '%' && typeof first.constant === 'string')
    return percent(first.constant, second);
  const [left, right] = [sure(first), sure(second)];
  const [a, b] = [left.type, right.type];
  if (a.kind === 'refused' || b.kind === 'refused') throw new Refusal('');
  const mismatch = new Refusal(
    `"${operator}" of ${shown(left)}, which is ${typeName(a)}, and ${shown(right)}, which is ${typeName(b)}`,
  );
  if (operator === '+' && a.kind === 'text' && b.kind === 'text') {
    const type: Type = { kind: 'text', plain: a.plain && b.plain };
    return expression(`${at(levels.sum, left)} + ${at(levels.sum + 1, right)}`, levels.sum, type);
  }
  if (operator === '+' && a.kind === 'list' && b.kind === 'list') {
    const of = a.of === undefined ? b.of : b.of === undefined ? a.of : join(a.of, b.of);
    return expression(
      `[...${at(levels.conditional, left)}, ...${at(levels.conditional, right)}]`,
      levels.member,
      listOf(of, a.filled || b.filled),
    );
  }
  if (operator === '*') {
    if (a.kind === 'text' && b.kind === 'integer') return times(left, right);
    if (a.kind === 'integer' && b.kind === 'text') return times(right, left);
    if (
      a.kind === 'list' &&
      typeof second.constant === 'bigint' &&
      second.constant >= 0n &&
      second.constant <= 1000n
    ) {
      const code = `Array(${second.constant}).fill(${at(levels.conditional, left)}).flat()`;
      if (a.of?.kind !== 'list' && a.of?.kind !== 'tuple')
        return expression(code, levels.member, listOf(a.of));
    }
  }
  if (!isNumber(a) || !isNumber(b)) throw mismatch;
  const isFloat = a.kind === 'float' || b.kind === 'float';
  const areNatural = a.kind === 'integer' && b.kind === 'integer' && a.natural && b.natural;
  const type = isFloat ? float : areNatural ? natural : integer;
  switch (operator) {
    case '+':
      return expression(`${at(levels.sum, left)} + ${at(levels.sum + 1, right)}`, levels.sum, type);
    case '-':
      return expression(
        `${at(levels.sum, left)} - ${at(levels.sum + 1, right)}`,
        levels.sum,
        isFloat ? float : integer,
      );
    case '*':
      return expression(
        `${at(levels.product, left)} * ${at(levels.product + 1, right)}`,
        levels.product,
        type,
      );
  }
  // By zero, Python ends with an error.
  const isSafeDivisor = typeof second.constant === 'bigint' && second.constant !== 0n;
  if (!isSafeDivisor) throw new Refusal(`"${operator}" by ${shown(right)}, which may be 0`);
  const quotient = `${at(levels.product, left)} / ${at(levels.product + 1, right)}`;
  if (operator === '/') return expression(quotient, levels.product, float);
  if (operator === '//' && !isFloat)
    return expression(`Math.floor(${quotient})`, levels.member, type);
  if (operator === '%' && areNatural) {
    return expression(
      `${at(levels.product, left)} % ${at(levels.product + 1, right)}`,
      levels.product,
      natural,
    );
  }
  throw mismatch;
}

function times(value: Code, count: Code): Code {
  const isNatural = count.type.kind === 'integer' && count.type.natural;
  const number = isNatural ? count.code : `Math.max(0, ${count.code})`;
  const type: Type = value.type;
  return expression(`${at(levels.member, value)}.repeat(${number})`, levels.member, type);
}

/** `template % value`, for a value that is no tuple. */
function percent(template: string, value: Code): Code {
  const kinds = alternatives(value.type).map(({ kind }) => kind);
  if (kinds.includes('tuple') || kinds.includes('dictionary')) {
    throw new Refusal(
      `"%" with ${shown(value)}, which is ${typeName(value.type)}, has no counterpart`,
    );
  }
  return percentFormat(template, [value]);
}

const relations = new Set(['<', '>', '<=', '>=']);

function comparison(
  first: Expression,
  rest: readonly (readonly [string, Expression])[],
  scope: Scope,
): Code {
  const operands = [first, ...rest.map(([, operand]) => operand)].map((operand) =>
    convert(operand, scope),
  );
  if (operands.slice(1, -1).some(({ simple }) => simple !== true)) {
    throw new Refusal(
      'a comparison of three values has one in the middle that is no name and no literal',
    );
  }
  const parts = rest.map(([operator], index) => {
    const [left, right] = operands.slice(index, index + 2);
    if (left === undefined || right === undefined) throw new Refusal('no comparison');
    return compared(operator, left, right);
  });
  const [only] = parts;
  if (only !== undefined && parts.length === 1) return only;
  if (parts.every(({ constant }) => typeof constant === 'boolean')) {
    return booleanConstant(parts.every(({ constant }) => constant === true));
  }
  return expression(
    parts.map((part) => at(levels.and + 1, part)).join(' && '),
    levels.and,
    boolean,
  );
}

/** The kinds of which values are equal if and only if JavaScript finds them equal by "===". */
const comparable = ['text', 'integer', 'float', 'boolean', 'false', 'none'];

function compared(operator: string, left: Code, right: Code): Code {
  if (operator === 'in' || operator === 'not in')
    return contained(operator === 'not in', left, right);
  const [a, b] = [left.constant, right.constant];
  if (relations.has(operator)) {
    const [x, y] = [sure(left), sure(right)];
    const areTexts = x.type.kind === 'text' && y.type.kind === 'text';
    if (areTexts) for (const text of [x, y]) expectPlain(text);
    else if (!isNumber(x.type) || !isNumber(y.type)) {
      throw new Refusal(
        `"${operator}" of ${shown(x)}, which is ${typeName(x.type)}, and ${shown(y)}, which is ${typeName(y.type)}`,
      );
    }
    if (typeof a === 'bigint' && typeof b === 'bigint') {
      return booleanConstant(
        { '<': a < b, '>': a > b, '<=': a <= b, '>=': a >= b }[operator] ?? false,
      );
    }
    return expression(
      `${at(levels.relation, x)} ${operator} ${at(levels.relation + 1, y)}`,
      levels.relation,
      boolean,
    );
  }
  const isIdentity = operator === 'is' || operator === 'is not';
  if (isIdentity && b !== null && typeof b !== 'boolean')
    throw new Refusal(`"${operator}" only has a counterpart with None`);
  if (
    isIdentity &&
    typeof b === 'boolean' &&
    alternatives(left.type).some(
      ({ kind }) => kind !== 'boolean' && kind !== 'false' && kind !== 'text',
    )
  ) {
    throw new Refusal(`"${operator}" only has a counterpart with None`);
  }
  const [x, y] = [sure(left), sure(right)];
  const kinds = [...alternatives(x.type), ...alternatives(y.type)].map(({ kind }) => kind);
  if (kinds.includes('refused')) throw new Refusal('');
  const isNegative = operator === '!=' || operator === 'is not';
  if (kinds.every((kind) => comparable.includes(kind))) {
    // In Python, True is 1.
    const hasBoolean = kinds.includes('boolean') || kinds.includes('false');
    if (hasBoolean && kinds.some((kind) => kind === 'integer' || kind === 'float')) {
      throw new Refusal(`${shown(x)} and ${shown(y)}: a number is compared with True or False`);
    }
    if (a !== undefined && b !== undefined && a !== null && b !== null) {
      const isEqual =
        typeof a === typeof b
          ? a === b
          : Number(a) === Number(b) && typeof a !== 'string' && typeof b !== 'string';
      return booleanConstant(isEqual !== isNegative);
    }
    const sign = isNegative ? '!==' : '===';
    return expression(
      `${at(levels.equality, x)} ${sign} ${at(levels.equality + 1, y)}`,
      levels.equality,
      boolean,
    );
  }
  if (y.constant === null && kinds.every((kind) => kind !== 'module')) {
    return expression(
      `${at(levels.equality, x)} ${isNegative ? '!==' : '==='} null`,
      levels.equality,
      boolean,
    );
  }
  throw new Refusal(
    `"${operator}" of ${shown(x)}, which is ${typeName(x.type)}, and ${shown(y)}, which is ${typeName(y.type)}`,
  );
}

function contained(isNegative: boolean, item: Code, container: Code): Code {
  const value = sure(item);
  const box = sure(container);
  const { type } = box;
  let code: string;
  if (type.kind === 'text') {
    expectType(value, 'text', shown(value));
    code = `${at(levels.member, box)}.includes(${value.code})`;
  } else if (type.kind === 'dictionary') {
    expectType(value, 'text', shown(value));
    code = `Object.hasOwn(${box.code}, ${value.code})`;
  } else {
    const of = itemType(box);
    const kinds = [...alternatives(value.type), ...(of === undefined ? [] : alternatives(of))].map(
      ({ kind }) => kind,
    );
    if (!kinds.every((kind) => kind === 'text' || kind === 'integer' || kind === 'none')) {
      throw new Refusal(`"in" of ${shown(box)}, which is ${typeName(type)}`);
    }
    code = `${at(levels.member, box)}.includes(${value.code})`;
  }
  return isNegative
    ? expression(`!${code}`, levels.unary, boolean)
    : expression(code, levels.member, boolean);
}

function logic(
  { operator, left, right }: Extract<Expression, { kind: 'logic' }>,
  scope: Scope,
): Code {
  const first = sure(convert(left, scope));
  const second = sure(convert(right, narrowed(left, operator === 'and', scope)));
  const types = alternatives(first.type);
  const scalar = ['text', 'integer', 'boolean', 'false', 'none'];
  const isList = first.type.kind === 'list' || first.type.kind === 'dictionary';
  if (isList && first.simple === true) {
    const [then, otherwise] = operator === 'or' ? [first, second] : [second, first];
    const code = `${at(levels.or, truth(first))} ? ${at(levels.conditional, then)} : ${at(levels.conditional, otherwise)}`;
    return expression(code, levels.conditional, join(first.type, second.type));
  }
  if (!types.every(({ kind }) => scalar.includes(kind))) {
    if (types.some(({ kind }) => kind === 'refused')) throw new Refusal('');
    throw new Refusal(`"${operator}" after ${shown(first)}, which is ${typeName(first.type)}`);
  }
  if (operator === 'or') {
    const rest = types.filter(({ kind }) => kind !== 'none' && kind !== 'false');
    const type = rest.length === 0 ? second.type : join(either(rest), second.type);
    return expression(`${at(levels.or, first)} || ${at(levels.or + 1, second)}`, levels.or, type);
  }
  const rest = types.map((type): Type => (type.kind === 'boolean' ? { kind: 'false' } : type));
  return expression(
    `${at(levels.and, first)} && ${at(levels.and + 1, second)}`,
    levels.and,
    join(either(rest), second.type),
  );
}

/** An index as a number, if it is a literal that JavaScript can use. */
function literalIndex(index: Code): number | undefined {
  const { constant } = index;
  return typeof constant === 'bigint' && Number.isSafeInteger(Number(constant))
    ? Number(constant)
    : undefined;
}

function subscript(object: Code, index: Expression, scope: Scope): Code {
  const { type } = object;
  if (type.kind === 'refused') throw new Refusal('');
  if (index.kind === 'slice') return slice(object, index, scope);
  const key = convert(index, scope);
  if (type.kind === 'dictionary') {
    expectType(key, 'text', shown(key));
    const code = `${at(levels.member, object)}[${sure(key).code}]`;
    if (type.of === undefined) throw new Refusal(`${shown(object)} is empty`);
    return { code, level: levels.member, type: type.of, unsure: true };
  }
  if (type.kind !== 'list' && type.kind !== 'text' && type.kind !== 'tuple') {
    throw new Refusal(`${shown(object)} is ${typeName(type)}, which has no index`);
  }
  expectType(key, 'integer', shown(key));
  if (type.kind === 'text') expectPlain(object);
  const position = literalIndex(key);
  if (type.kind === 'tuple') {
    const item = position === undefined ? undefined : type.items.at(position);
    if (item === undefined) throw new Refusal('the index of a tuple is no literal number in it');
    const code = (position ?? 0) < 0 ? `.at(${position})` : `[${position}]`;
    return expression(`${at(levels.member, object)}${code}`, levels.member, item);
  }
  const of = type.kind === 'text' ? text : type.of;
  if (of === undefined) throw new Refusal(`${shown(object)} is empty`);
  const isNatural = key.type.kind === 'integer' && key.type.natural;
  const code = isNatural ? `[${sure(key).code}]` : `.at(${sure(key).code})`;
  const isThere = type.kind === 'list' && type.filled && (position === 0 || position === -1);
  return {
    code: `${at(levels.member, object)}${code}`,
    level: levels.member,
    type: of,
    unsure: !isThere,
  };
}

function slice(
  object: Code,
  { from, to, step }: Extract<Expression, { kind: 'slice' }>,
  scope: Scope,
): Code {
  const { type } = object;
  if (type.kind === 'text') expectPlain(object);
  else if (type.kind !== 'list')
    throw new Refusal(`a slice of ${shown(object)}, which is ${typeName(type)}`);
  const ends = [from, to].map((end) => (end === undefined ? undefined : convert(end, scope)));
  for (const end of ends)
    if (end !== undefined && end.constant !== null) expectType(end, 'integer', shown(end));
  const [first, last] = ends.map((end) =>
    end === undefined || end.constant === null ? undefined : sure(end).code,
  );
  const result: Type = type.kind === 'text' ? text : listOf(type.of);
  const by = step === undefined ? undefined : convert(step, scope).constant;
  if (by === -1n && first === undefined && last === undefined) {
    const array = asArray(object);
    const items = type.kind === 'list' ? `[...${at(levels.member, array)}]` : array.code;
    const code = `${items}.reverse()${type.kind === 'text' ? ".join('')" : ''}`;
    return expression(code, levels.member, result);
  }
  if (by !== undefined && by !== null && by !== 1n)
    throw new Refusal('a slice with this step has no counterpart');
  const args = last === undefined ? (first === undefined ? '' : first) : `${first ?? '0'}, ${last}`;
  return expression(`${at(levels.member, object)}.slice(${args})`, levels.member, result);
}

/** The parts of the target of a loop or an assignment: names, or names in a tuple. */
export function targetNames(target: Expression): readonly string[] | undefined {
  if (target.kind === 'name') return [target.name];
  if (target.kind !== 'tuple' && target.kind !== 'list') return undefined;
  const names = target.items.map((item) => (item.kind === 'name' ? item.name : undefined));
  return names.every((name) => name !== undefined) ? names : undefined;
}

/** A name for JavaScript that nothing else has. */
export function freshName(name: string, scope: Scope): string {
  const taken = new Set([
    ...scope.data.keys(),
    ...[...scope.variables.values()].map(({ code }) => code),
  ]);
  let fresh = name;
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

function comprehension(source: Extract<Expression, { kind: 'comprehension' }>, scope: Scope): Code {
  const { form, element, value, clauses } = source;
  if (form === 'set') throw new Refusal('a set has no counterpart');
  const build = (index: number, inner: Scope): Code => {
    const clause = clauses[index];
    if (clause === undefined) {
      if (form !== 'dictionary') return sure(convert(element, inner));
      const [key, entry] = [convert(element, inner), convert(value ?? element, inner)];
      expectType(key, 'text', shown(key));
      throw new Refusal(`a comprehension of a dictionary has no counterpart: ${shown(entry)}`);
    }
    const isLast = index === clauses.length - 1;
    const { array, pattern, scope: bound } = filtered(clause, inner);
    const result = build(index + 1, bound);
    const type = isLast ? listOf(result.type) : result.type;
    // [x for x in list if …]
    if (isLast && result.code === pattern) return expression(array, levels.member, type);
    const own = isLast ? 'map' : 'flatMap';
    const code = `${array}.${own}((${pattern}) => ${at(levels.conditional, result)})`;
    return expression(code, levels.member, type);
  };
  const result = build(0, scope);
  if (form === 'generator') {
    const of = result.type.kind === 'list' ? result.type.of : undefined;
    return { ...result, type: viewOf(of, 'generator') };
  }
  const [only] = clauses;
  // A list of its own, even if nothing is left out or changed.
  const isCopy =
    clauses.length === 1 &&
    only?.conditions.length === 0 &&
    element.kind === 'name' &&
    only.target.kind === 'name' &&
    element.name === only.target.name;
  return isCopy ? { ...result, code: `[...${result.code}]` } : result;
}

/** The items of a clause of a comprehension that meet its conditions. */
function filtered(clause: ComprehensionClause, scope: Scope) {
  const iterable = convert(clause.iterable, scope);
  const item = itemType(iterable);
  if (item === undefined) throw new Refusal(`${shown(iterable)} is empty`);
  let { pattern, scope: bound } = bind(clause.target, item, scope);
  let array = at(levels.member, asArray(iterable));
  for (const condition of clause.conditions) {
    const test = truth(convert(condition, bound));
    array = `${array}.filter((${pattern}) => ${at(levels.conditional, test)})`;
    bound = narrowed(condition, true, bound);
  }
  return { array, pattern, scope: bound };
}

function call(source: Extract<Expression, { kind: 'call' }>, scope: Scope): Code {
  const target = source.function;
  if (source.positional.some(({ kind }) => kind === 'starred'))
    throw new Refusal('a call with "*" has no counterpart');
  const values = () => ({
    positional: source.positional.map((argument) => convert(argument, scope)),
    named: new Map(
      source.keywords.map(([name, value]) => {
        if (name === undefined) throw new Refusal('a call with "**" has no counterpart');
        return [name, convert(value, scope)];
      }),
    ),
  });
  if (target.kind === 'attribute') {
    const receiver = convert(target.object, scope);
    return callMethod(receiver, target.name, values());
  }
  if (target.kind !== 'name') throw new Refusal('only a function with a name can be called');
  const { name } = target;
  if (scope.variables.has(name) || (scope.data.has(name) && !bottleFunctions.has(name))) {
    throw new Refusal(`"${name}" is no function here`);
  }
  if (name === 'get' || name === 'defined' || name === 'setdefault') {
    return bottleFunction(name, source, scope);
  }
  const { positional, named } = values();
  if (name === 'sorted') return sorted(positional, named);
  if (named.size > 0) throw new Refusal(`${name}() has a named argument`);
  const result = callFunction(name, positional, scope);
  if (result === undefined)
    throw new Refusal(`${name}() has no counterpart here: rewrite it in JavaScript`);
  return result;
}

/** get, defined and setdefault, which Bottle gives to templates. */
function bottleFunction(
  own: 'get' | 'defined' | 'setdefault',
  { positional, keywords }: Extract<Expression, { kind: 'call' }>,
  scope: Scope,
): Code {
  const [argument, fallback] = positional;
  if (argument?.kind !== 'string' || keywords.length > 0 || positional.length > 2) {
    throw new Refusal(`the name in ${own}() is no literal string`);
  }
  const { value: name } = argument;
  const variable = scope.variables.get(name);
  const data = scope.data.get(name);
  if (name.includes('.')) {
    throw new Refusal(
      `${own}('${name}') is an option: add it to _config_items_ in [template-data], and use its name without the section`,
    );
  }
  if (!isFreeName(name) || bottleFunctions.has(name))
    throw new Refusal(`"${name}" is a word of JavaScript`);
  if (variable?.unsure === true || (variable !== undefined && own === 'setdefault')) {
    throw new Refusal(`"${name}" is a name that the template binds`);
  }
  if (variable !== undefined && own === 'get') return lookUp(name, scope);
  // What the configuration has, has a value.
  if (own === 'get' && fallback === undefined && typeof data === 'string')
    return lookUp(name, scope);
  if (own === 'defined') {
    if (variable !== undefined) return booleanConstant(true);
    return expression(`typeof ${name} !== 'undefined'`, levels.equality, boolean);
  }
  const otherwise =
    fallback === undefined
      ? { code: 'null', level: levels.member, type: none }
      : sure(convert(fallback, scope));
  const type = data === undefined && !scope.known.has(name) ? anyText : lookUp(name, scope).type;
  if (own === 'setdefault') {
    if (otherwise.type.kind === 'none') throw new Refusal('setdefault() without a value');
    const code = `(it.${name} ??= ${at(levels.conditional, otherwise)})`;
    return expression(code, levels.member, join(type, otherwise.type));
  }
  // Where the data has the name, Python gives its value; None and False are values, too.
  return expression(
    `typeof ${name} === 'undefined' ? ${at(levels.conditional, otherwise)} : ${name}`,
    levels.conditional,
    join(type, otherwise.type),
  );
}

function sorted(positional: readonly Code[], named: ReadonlyMap<string, Code>): Code {
  const [list] = positional;
  if (list === undefined || positional.length > 1) throw new Refusal('sorted() needs one argument');
  const reverse = named.get('reverse');
  if (named.size > (reverse === undefined ? 0 : 1))
    throw new Refusal('sorted() with a key has no counterpart');
  if (reverse !== undefined && typeof reverse.constant !== 'boolean')
    throw new Refusal('reverse is neither True nor False');
  const of = itemType(list);
  const isText = of?.kind === 'text' && of.plain;
  if (of !== undefined && !isText && of.kind !== 'integer')
    throw new Refusal(`${typeName(of)} is sorted differently`);
  const order = of?.kind === 'integer' ? '(a, b) => a - b' : '';
  const code = `[...${at(levels.conditional, asArray(list))}].sort(${order})${reverse?.constant === true ? '.reverse()' : ''}`;
  const filled = list.type.kind === 'list' && list.type.filled;
  return expression(code, levels.member, listOf(of, filled));
}

function needsOwnFunction(name: string, scope: Scope): void {
  if (scope.data.has(name))
    throw new Refusal(`[template-data] has a "${name}", which hides the function that is needed`);
}

function callFunction(name: string, args: readonly Code[], scope: Scope): Code | undefined {
  const [first, second] = args;
  const only = args.length === 1 ? first : undefined;
  switch (name) {
    case 'len': {
      if (only === undefined) return undefined;
      const { kind } = only.type;
      if (kind === 'text') expectPlain(only);
      else if (
        kind === 'view' &&
        !['range', 'view of a dictionary'].includes(only.type.kind === 'view' ? only.type.what : '')
      )
        return undefined;
      else itemType(only);
      const array = kind === 'text' ? only : asArray(only);
      return expression(`${at(levels.member, array)}.length`, levels.member, natural);
    }
    case 'str':
      if (args.length === 0) return textConstant('');
      return only && toText(only);
    case 'repr': {
      if (
        only === undefined ||
        !alternatives(only.type).every((type) =>
          ['text', 'list', 'integer', 'boolean'].includes(type.kind),
        )
      )
        return undefined;
      needsOwnFunction('repr', scope);
      printed({ ...only, type: listOf(only.type) });
      return expression(`repr(${sure(only).code})`, levels.member, anyText);
    }
    case 'int':
      if (only === undefined) return undefined;
      if (only.type.kind === 'integer') return only;
      if (only.type.kind === 'float')
        return expression(`Math.trunc(${only.code})`, levels.member, integer);
      if (only.type.kind !== 'text') return undefined;
      needsOwnFunction('int', scope);
      return expression(`int(${sure(only).code})`, levels.member, integer);
    case 'bool':
      return only && expression(`Boolean(${truth(only).code})`, levels.member, boolean);
    case 'abs':
      if (only?.type.kind !== 'integer') return undefined;
      if (typeof only.constant === 'bigint')
        return integerConstant(only.constant < 0n ? -only.constant : only.constant);
      return expression(`Math.abs(${sure(only).code})`, levels.member, natural);
    case 'list':
    case 'tuple':
      if (args.length === 0 && name === 'list')
        return expression('[]', levels.member, listOf(undefined));
      if (only === undefined || name === 'tuple') return undefined;
      return expression(
        `[...${at(levels.conditional, asArray(only))}]`,
        levels.member,
        listOf(itemType(only), only.type.kind === 'list' && only.type.filled),
      );
    case 'reversed':
      if (only === undefined || (only.type.kind !== 'list' && only.type.kind !== 'text'))
        return undefined;
      return expression(
        `[...${at(levels.conditional, sure(only))}].reverse()`,
        levels.member,
        viewOf(itemType(only), 'reversed list'),
      );
    case 'enumerate': {
      if (first === undefined || args.length > 2) return undefined;
      const start = second === undefined ? 0n : second.constant;
      if (typeof start !== 'bigint' || start < 0n) return undefined;
      const of = itemType(first);
      if (of === undefined) return undefined;
      const number = start === 0n ? 'index' : `index + ${start}`;
      const code = `${at(levels.member, asArray(first))}.map((item, index) => [${number}, item])`;
      return expression(
        code,
        levels.member,
        viewOf({ kind: 'tuple', items: [natural, of] }, 'enumeration'),
      );
    }
    case 'range':
      return range(args);
    case 'any':
    case 'all': {
      if (only === undefined) return undefined;
      const of = itemType(only);
      if (of !== undefined && !['text', 'integer', 'boolean'].includes(of.kind)) return undefined;
      const own = name === 'any' ? 'some' : 'every';
      return expression(
        `${at(levels.member, asArray(only))}.${own}(Boolean)`,
        levels.member,
        boolean,
      );
    }
    case 'sum': {
      const of = only && itemType(only);
      if (only === undefined || of?.kind !== 'integer') return undefined;
      return expression(
        `${at(levels.member, asArray(only))}.reduce((sum, item) => sum + item, 0)`,
        levels.member,
        of,
      );
    }
    case 'max':
    case 'min': {
      const types = only === undefined ? args.map(({ type }) => type) : [itemType(only)];
      if (types.length === 0 || !types.every((type) => type?.kind === 'integer')) return undefined;
      if (only !== undefined && !(only.type.kind === 'list' && only.type.filled)) return undefined;
      const values =
        only === undefined ? args.map((value) => sure(value).code) : [`...${asArray(only).code}`];
      const type = types.map((one): Type => one ?? integer).reduce(join);
      return expression(`Math.${name}(${values.join(', ')})`, levels.member, type);
    }
    case 'dict':
      return args.length === 0 ? dictionary([], scope) : undefined;
    default:
      return undefined;
  }
}

function range(args: readonly Code[]): Code | undefined {
  const of = args.every(({ type }) => type.kind === 'integer' && type.natural) ? natural : integer;
  if (args.length === 0 || !args.every(({ type }) => type.kind === 'integer')) return undefined;
  const numbers = args.map(({ constant }) =>
    typeof constant === 'bigint' ? Number(constant) : undefined,
  );
  const type = viewOf(of, 'range');
  if (args.length === 3) {
    const [start = 0, stop = 0, step = 0] = numbers;
    if (numbers.includes(undefined) || step === 0) return undefined;
    const values: number[] = [];
    for (let value = start; step > 0 ? value < stop : value > stop; value += step) {
      if (values.length === 50) return undefined;
      values.push(value);
    }
    return expression(
      `[${values.join(', ')}]`,
      levels.member,
      viewOf(values.every((value) => value >= 0) ? natural : integer, 'range'),
    );
  }
  const [start, stop] = args.length === 1 ? [undefined, args[0]] : args;
  if (stop === undefined) return undefined;
  const isNatural = stop.type.kind === 'integer' && stop.type.natural;
  if (start === undefined || start.constant === 0n) {
    const length = isNatural ? sure(stop).code : `Math.max(0, ${sure(stop).code})`;
    return expression(`[...Array(${length}).keys()]`, levels.member, viewOf(natural, 'range'));
  }
  const first = sure(start);
  if (first.simple !== true) return undefined;
  const difference = `${at(levels.sum, sure(stop))} - ${at(levels.sum + 1, first)}`;
  const index = parameter('index', first.code);
  const other = parameter('_', first.code);
  const code = `Array.from({ length: Math.max(0, ${difference}) }, (${other}, ${index}) => ${at(levels.sum, first)} + ${index})`;
  return expression(code, levels.member, type);
}
