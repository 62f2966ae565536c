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
  noneConstant,
  quote,
  Refusal,
  shown,
  sure,
  textConstant,
  withFallback,
} from './code.js';
import { concatenated, formatted, percentFormat } from './format.js';
import { callFunction, sorted } from './functions.js';
import { asArray, callMethod, itemType, truth } from './methods.js';
import { binary, compared } from './operators.js';
import type { ComprehensionClause, Expression, FormatPart } from './python.js';
import {
  bind,
  bottleFunctions,
  isFreeName,
  lookUp,
  narrowed,
  pythonOnly,
  type Scope,
} from './scope.js';
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
  type Type,
  text,
  typeName,
  viewOf,
} from './types.js';

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
      return noneConstant;
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
  call: Extract<Expression, { kind: 'call' }>,
  scope: Scope,
): Code {
  const { positional, keywords } = call;
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
  if (pythonOnly.has(name)) throw new Refusal(`"${name}" has no counterpart: write its value`);
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
  const otherwise = fallback === undefined ? noneConstant : sure(convert(fallback, scope));
  const type = data === undefined && !scope.known.has(name) ? anyText : lookUp(name, scope).type;
  if (own === 'setdefault') {
    if (call !== scope.whole) throw new Refusal('setdefault() is a part of something else');
    if (otherwise.type.kind === 'none') throw new Refusal('setdefault() without a value');
    const code = withFallback(
      otherwise,
      (value) => `it.${name} ??= ${at(levels.conditional, value)}`,
    );
    return expression(`(${code})`, levels.member, join(type, otherwise.type));
  }
  // Where the data has the name, Python gives its value; None and False are values, too.
  return expression(
    withFallback(
      otherwise,
      (value) => `typeof ${name} === 'undefined' ? ${at(levels.conditional, value)} : ${name}`,
    ),
    levels.conditional,
    join(type, otherwise.type),
  );
}
