import {
  at,
  type Code,
  expectPlain,
  expression,
  integerConstant,
  levels,
  parameter,
  printed,
  Refusal,
  sure,
  textConstant,
} from './code.js';
import { asArray, itemType, toText, truth } from './methods.js';
import type { Scope } from './scope.js';
import {
  alternatives,
  anyText,
  boolean,
  integer,
  join,
  listOf,
  natural,
  type Type,
  typeName,
  viewOf,
} from './types.js';

/** sorted(list, reverse=…). Throws Refusal. */
export function sorted(positional: readonly Code[], named: ReadonlyMap<string, Code>): Code {
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

/** The call of one of Python's functions; undefined if it has no counterpart. Throws Refusal. */
export function callFunction(name: string, args: readonly Code[], scope: Scope): Code | undefined {
  const [first, second] = args;
  const only = args.length === 1 ? first : undefined;
  switch (name) {
    case 'len': {
      if (only === undefined) return undefined;
      const { type } = only;
      if (type.kind === 'view' && !type.sized) return undefined;
      if (type.kind === 'text') expectPlain(only);
      else itemType(only);
      const array = type.kind === 'text' ? only : asArray(only);
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
      if (typeof only.constant === 'number' && Number.isFinite(only.constant)) {
        return integerConstant(BigInt(Math.trunc(only.constant)));
      }
      if (only.type.kind !== 'text' && only.type.kind !== 'float') return undefined;
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
      if (args.length > 0) return undefined;
      return expression('{ __proto__: null }', levels.member, {
        kind: 'dictionary',
        of: undefined,
        plainKeys: true,
      });
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
