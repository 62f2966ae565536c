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
  Refusal,
  shown,
  sure,
  textConstant,
} from './code.js';
import { percentFormat } from './format.js';
import { itemType } from './methods.js';
import {
  alternatives,
  boolean,
  float,
  integer,
  join,
  listOf,
  natural,
  type Type,
  typeName,
} from './types.js';

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

/** The result of an operator between two values. Throws Refusal. */
export function binary(operator: string, first: Code, second: Code): Code {
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

/** The kinds of which values are equal if and only if JavaScript finds them equal by "===". */
const comparable = ['text', 'integer', 'float', 'boolean', 'false', 'none'];

/** The result of one comparison. Throws Refusal. */
export function compared(operator: string, left: Code, right: Code): Code {
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
