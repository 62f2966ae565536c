import {
  at,
  type Code,
  constantText,
  expectPlain,
  expectType,
  expectWhole,
  expression,
  levels,
  method,
  noneConstant,
  parameter,
  printed,
  quote,
  Refusal,
  shown,
  sure,
  textConstant,
  withFallback,
} from './code.js';
import { format } from './format.js';
import {
  boolean,
  integer,
  join as joinTypes,
  listOf,
  natural,
  type Type,
  text,
  typeName,
  viewOf,
} from './types.js';

/** The arguments of a call. */
export interface Arguments {
  readonly positional: readonly Code[];
  readonly named: ReadonlyMap<string, Code>;
}

type Method = (receiver: Code, args: readonly Code[], named: ReadonlyMap<string, Code>) => Code;

/** The literal text of an argument. */
function literal(argument: Code | undefined, what: string): string {
  if (typeof argument?.constant !== 'string') throw new Refusal(`${what} is not a literal string`);
  return argument.constant;
}

/** A literal text that is not empty, for which `split` and others are the same in both languages. */
function separator(argument: Code | undefined): string {
  const value = literal(argument, 'the separator');
  if (value === '') throw new Refusal('the separator is empty, which Python refuses');
  return quote(value);
}

/** A literal number that is not negative. */
function count(argument: Code | undefined, what: string): number {
  const constant = argument?.constant;
  if (typeof constant !== 'bigint' || constant < 0n || constant > 10_000n) {
    throw new Refusal(`${what} is not a literal number from 0 on`);
  }
  return Number(constant);
}

function textArgument(argument: Code | undefined): Code {
  if (argument === undefined) throw new Refusal('an argument is missing');
  expectType(argument, 'text', shown(argument));
  return sure(argument);
}

function onlyArguments(
  args: readonly Code[],
  named: ReadonlyMap<string, Code>,
  maximum: number,
): void {
  if (named.size > 0) throw new Refusal('the call has a named argument');
  if (args.length > maximum) throw new Refusal('the call has too many arguments');
}

/** Characters as a class of a regular expression. */
function characterClass(characters: string): string {
  const escaped = [...characters].map((character) => {
    if (/[A-Za-z0-9]/.test(character)) return character;
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
  return `[${escaped.join('')}]`;
}

/** strip, lstrip, rstrip. */
function strip(own: 'trim' | 'trimStart' | 'trimEnd'): Method {
  return (receiver, args, named) => {
    onlyArguments(args, named, 1);
    if (args[0] === undefined || args[0].constant === null) {
      expectPlain(receiver);
      return method(receiver, own, [], receiver.type);
    }
    const characters = literal(args[0], 'the set of characters');
    if (characters === '') return receiver;
    if ([...characters].some((character) => character.length > 1)) {
      throw new Refusal('the set of characters has one outside the Basic Multilingual Plane');
    }
    const set = characterClass(characters);
    const start = own === 'trimEnd' ? '' : `^${set}+`;
    const end = own === 'trimStart' ? '' : `${set}+$`;
    const pattern = [start, end].filter((part) => part !== '').join('|');
    return method(receiver, 'replace', [`/${pattern}/g`, "''"], receiver.type);
  };
}

/** A method of texts that asks whether they match a pattern. */
function matches(pattern: string): Method {
  return (receiver, args, named) => {
    onlyArguments(args, named, 0);
    expectPlain(receiver);
    return expression(`/${pattern}/.test(${sure(receiver).code})`, levels.member, boolean);
  };
}

/** startsWith or endsWith, with one text or a tuple of them. */
function affix(own: 'startsWith' | 'endsWith'): Method {
  return (receiver, args, named) => {
    onlyArguments(args, named, 1);
    const [argument] = args;
    if (argument?.type.kind === 'tuple') {
      if (!argument.type.items.every(({ kind }) => kind === 'text'))
        throw new Refusal(`${shown(argument)} is not all strings`);
      const value = at(levels.member, receiver);
      const part = parameter('part', value);
      const code = `${argument.code}.some((${part}) => ${value}.${own}(${part}))`;
      return expression(code, levels.member, boolean);
    }
    return method(receiver, own, [textArgument(argument).code], boolean);
  };
}

function pad(own: 'padStart' | 'padEnd'): Method {
  return (receiver, args, named) => {
    onlyArguments(args, named, 2);
    expectPlain(receiver);
    const fill = args[1] === undefined ? [] : [quote(literal(args[1], 'the fill character'))];
    return method(receiver, own, [String(count(args[0], 'the width')), ...fill], text);
  };
}

/** A change of case. */
function recase(own: 'toUpperCase' | 'toLowerCase'): Method {
  return (receiver, args, named) => {
    onlyArguments(args, named, 0);
    expectPlain(receiver);
    return method(receiver, own, [], text);
  };
}

function split(receiver: Code, args: readonly Code[], named: ReadonlyMap<string, Code>): Code {
  onlyArguments(args, named, 1);
  if (args[0] === undefined || args[0].constant === null) {
    expectPlain(receiver);
    const found = method(receiver, 'match', ['/\\S+/g'], listOf(text));
    return expression(`(${found.code} ?? [])`, levels.member, found.type);
  }
  return method(receiver, 'split', [separator(args[0])], listOf(receiver.type, true));
}

/** split and rsplit with the largest number of splits. */
function boundedSplit(own: 'split' | 'rsplit'): Method {
  return (receiver, args, named) => {
    const limit = named.get('maxsplit') ?? args[1];
    const others = new Map([...named].filter(([name]) => name !== 'maxsplit'));
    if (limit === undefined || limit.constant === -1n)
      return split(receiver, args.slice(0, 1), others);
    const times = count(limit, 'the number of splits');
    const mark = separator(args[0]);
    const whole = split(receiver, args.slice(0, 1), others);
    const pieces =
      own === 'split'
        ? `[...parts.slice(0, ${times}), parts.slice(${times}).join(${mark})]`
        : times === 0
          ? `[parts.join(${mark})]`
          : `[parts.slice(0, -${times}).join(${mark}), ...parts.slice(-${times})]`;
    const code = `((parts) => parts.length > ${times} ? ${pieces} : parts)(${whole.code})`;
    return expression(code, levels.member, whole.type);
  };
}

/** partition and rpartition. */
function partition(own: 'indexOf' | 'lastIndexOf'): Method {
  return (receiver, args, named) => {
    onlyArguments(args, named, 1);
    const mark = separator(args[0]);
    const none = own === 'indexOf' ? "[whole, '', '']" : "['', '', whole]";
    const length = literal(args[0], 'the separator').length;
    const code = `((whole, at = whole.${own}(${mark})) => at < 0 ? ${none} : [whole.slice(0, at), ${mark}, whole.slice(at + ${length})])(${sure(receiver).code})`;
    const part = receiver.type;
    return expression(code, levels.member, { kind: 'tuple', items: [part, part, part] });
  };
}

function replace(receiver: Code, args: readonly Code[], named: ReadonlyMap<string, Code>): Code {
  onlyArguments(args, named, 3);
  const from = textArgument(args[0]);
  const to = textArgument(args[1]);
  if (from.constant === '') throw new Refusal('the text to replace is empty');
  if (typeof from.constant !== 'string')
    throw new Refusal(`${shown(from)} is not a literal string`);
  // In a replacement, JavaScript gives "$" a meaning.
  const isLiteral = typeof to.constant === 'string' && !to.constant.includes('$');
  const replacement = isLiteral ? to.code : `() => ${at(levels.conditional, to)}`;
  const type: Type = {
    kind: 'text',
    plain:
      receiver.type.kind === 'text' &&
      receiver.type.plain &&
      to.type.kind === 'text' &&
      to.type.plain,
  };
  const limit = args[2]?.constant;
  if (args[2] === undefined || limit === -1n)
    return method(receiver, 'replaceAll', [from.code, replacement], type);
  if (limit === 1n) return method(receiver, 'replace', [from.code, replacement], type);
  throw new Refusal('the number of replacements is neither 1 nor left out');
}

/** capitalize and title: capitals where the pattern matches, small letters elsewhere. */
function capitals(pattern: string, change: string): Method {
  return (receiver, args, named) => {
    onlyArguments(args, named, 0);
    expectPlain(receiver);
    const small = method(receiver, 'toLowerCase', [], text);
    return method(small, 'replace', [pattern, change], text);
  };
}

/** find and rfind. */
function search(own: 'indexOf' | 'lastIndexOf'): Method {
  return (receiver, args, named) => {
    onlyArguments(args, named, 1);
    expectPlain(receiver);
    return method(receiver, own, [textArgument(args[0]).code], integer);
  };
}

/** removeprefix and removesuffix. */
function cut(own: 'startsWith' | 'endsWith'): Method {
  return (receiver, args, named) => {
    onlyArguments(args, named, 1);
    const part = literal(args[0], 'the text to remove');
    const { length } = part;
    const rest = own === 'startsWith' ? `slice(${length})` : `slice(0, whole.length - ${length})`;
    const code = `((whole) => whole.${own}(${quote(part)}) ? whole.${rest} : whole)(${sure(receiver).code})`;
    return expression(code, levels.member, receiver.type);
  };
}

function splitLines(receiver: Code, args: readonly Code[], named: ReadonlyMap<string, Code>): Code {
  onlyArguments(args, named, 0);
  expectPlain(receiver);
  const lines = method(receiver, 'split', ['/\\r\\n|\\r|\\n/'], listOf(text));
  const code = `((lines) => (lines.at(-1) === '' ? lines.slice(0, -1) : lines))(${lines.code})`;
  return expression(code, levels.member, lines.type);
}

function countOf(receiver: Code, args: readonly Code[], named: ReadonlyMap<string, Code>): Code {
  onlyArguments(args, named, 1);
  const parts = method(receiver, 'split', [separator(args[0])], listOf(text));
  return expression(`${parts.code}.length - 1`, levels.sum, natural);
}

function joined(receiver: Code, args: readonly Code[], named: ReadonlyMap<string, Code>): Code {
  onlyArguments(args, named, 1);
  const [items] = args;
  if (items === undefined) throw new Refusal('join needs a list of strings');
  const of = itemType(items);
  if (of !== undefined && of.kind !== 'text') {
    throw new Refusal(
      `join needs a list of strings, and ${shown(items)} is ${typeName(items.type)}`,
    );
  }
  const plain = receiver.type.kind === 'text' && receiver.type.plain && of?.plain === true;
  return method(asArray(items), 'join', [sure(receiver).code], { kind: 'text', plain });
}

function zeroFilled(receiver: Code, args: readonly Code[], named: ReadonlyMap<string, Code>): Code {
  onlyArguments(args, named, 1);
  expectPlain(receiver);
  const width = count(args[0], 'the width');
  const change = `(_, sign, rest) => sign + rest.padStart(${width} - sign.length, '0')`;
  return method(receiver, 'replace', ['/^([+-]?)(.*)$/s', change], text);
}

const textMethods: ReadonlyMap<string, Method> = new Map<string, Method>([
  ['upper', recase('toUpperCase')],
  ['lower', recase('toLowerCase')],
  ['casefold', recase('toLowerCase')],
  ['capitalize', capitals('/^[a-z]/', '(first) => first.toUpperCase()')],
  ['title', capitals('/[a-z]+/g', '(word) => word[0].toUpperCase() + word.slice(1)')],
  ['strip', strip('trim')],
  ['lstrip', strip('trimStart')],
  ['rstrip', strip('trimEnd')],
  ['split', boundedSplit('split')],
  ['rsplit', boundedSplit('rsplit')],
  ['splitlines', splitLines],
  ['partition', partition('indexOf')],
  ['rpartition', partition('lastIndexOf')],
  ['replace', replace],
  ['startswith', affix('startsWith')],
  ['endswith', affix('endsWith')],
  ['removeprefix', cut('startsWith')],
  ['removesuffix', cut('endsWith')],
  ['find', search('indexOf')],
  ['rfind', search('lastIndexOf')],
  ['count', countOf],
  ['join', joined],
  ['ljust', pad('padEnd')],
  ['rjust', pad('padStart')],
  ['zfill', zeroFilled],
  ['isdigit', matches('^[0-9]+$')],
  ['isdecimal', matches('^[0-9]+$')],
  ['isnumeric', matches('^[0-9]+$')],
  ['isalpha', matches('^[A-Za-z]+$')],
  ['isalnum', matches('^[A-Za-z0-9]+$')],
  ['isupper', matches('^[^a-z]*[A-Z][^a-z]*$')],
  ['islower', matches('^[^A-Z]*[a-z][^A-Z]*$')],
  ['isspace', matches('^\\s+$')],
  [
    'format',
    (receiver, args, named) => {
      if (typeof receiver.constant !== 'string')
        throw new Refusal('the format is not a literal string');
      return format(receiver.constant, args, named);
    },
  ],
]);

const dictionaryMethods: ReadonlyMap<string, Method> = new Map<string, Method>([
  [
    'get',
    (receiver, args, named) => {
      onlyArguments(args, named, 2);
      const [key, otherwise] = args;
      if (key === undefined || key.type.kind !== 'text')
        throw new Refusal('the key is not a string');
      if (receiver.type.kind !== 'dictionary') throw new Refusal('no dictionary');
      const fallback = otherwise === undefined ? undefined : sure(otherwise);
      const type = receiver.type.of;
      const found = `${at(levels.member, receiver)}[${sure(key).code}]`;
      const other = fallback ?? noneConstant;
      return {
        code: withFallback(other, (value) => `(${found} ?? ${at(levels.sum, value)})`),
        level: levels.member,
        type: type === undefined ? other.type : joinTypes(type, other.type),
      };
    },
  ],
  ['keys', (receiver, args, named) => entries(receiver, args, named, 'keys')],
  ['values', (receiver, args, named) => entries(receiver, args, named, 'values')],
  ['items', (receiver, args, named) => entries(receiver, args, named, 'entries')],
]);

function entries(
  receiver: Code,
  args: readonly Code[],
  named: ReadonlyMap<string, Code>,
  own: 'keys' | 'values' | 'entries',
): Code {
  onlyArguments(args, named, 0);
  if (receiver.type.kind !== 'dictionary') throw new Refusal('no dictionary');
  expectWhole(receiver);
  const { of, plainKeys } = receiver.type;
  const key: Type = { kind: 'text', plain: plainKeys };
  const value = of ?? text;
  const item: Type = {
    keys: key,
    values: value,
    entries: { kind: 'tuple' as const, items: [key, value] },
  }[own];
  return expression(
    `Object.${own}(${sure(receiver).code})`,
    levels.member,
    viewOf(item, 'view of a dictionary'),
  );
}

/** Methods of lists that do not change them. */
const listMethods: ReadonlyMap<string, Method> = new Map<string, Method>([
  [
    'copy',
    (receiver, args, named) => {
      onlyArguments(args, named, 0);
      return { ...receiver, code: `[...${receiver.code}]`, level: levels.member, simple: false };
    },
  ],
]);

/** The call of a method of a value. Throws Refusal. */
export function callMethod(receiver: Code, name: string, { positional, named }: Arguments): Code {
  const { kind } = receiver.type;
  if (kind === 'refused') throw new Refusal('');
  const table = { text: textMethods, dictionary: dictionaryMethods, list: listMethods }[
    kind as 'text'
  ];
  const found = table?.get(name);
  if (found === undefined) {
    throw new Refusal(
      `.${name}() of ${shown(receiver)}, which is ${typeName(receiver.type)}, is not known`,
    );
  }
  return found(receiver, positional, named);
}

/** The type of what a loop over the value gets; undefined for the empty list. Throws Refusal. */
export function itemType(value: Code): Type | undefined {
  const { type } = value;
  if (type.kind === 'refused') throw new Refusal('');
  if (type.kind === 'list' || type.kind === 'view') return type.of;
  if (type.kind === 'tuple')
    return type.items.length === 0 ? undefined : type.items.reduce(joinTypes);
  expectWhole(value);
  if (type.kind === 'dictionary') return { kind: 'text', plain: type.plainKeys };
  if (type.kind !== 'text')
    throw new Refusal(`${shown(value)} is ${typeName(type)}, which has no items`);
  expectPlain(value);
  return text;
}

/** The items of the value as an array. */
export function asArray(value: Code): Code {
  const certain = sure(value);
  const { kind } = value.type;
  if (kind === 'dictionary')
    return expression(`Object.keys(${certain.code})`, levels.member, value.type);
  if (kind === 'text') return expression(`[...${certain.code}]`, levels.member, value.type);
  return certain;
}

/** The JavaScript that tells whether Python takes the value for true. */
export function truth(value: Code): Code {
  const certain = sure(value);
  const { type } = value;
  switch (type.kind) {
    case 'refused':
      throw new Refusal('');
    case 'text':
    case 'integer':
    case 'float':
    case 'boolean':
    case 'false':
    case 'none':
      return certain;
    case 'list':
    case 'tuple':
      return expression(`${at(levels.member, certain)}.length > 0`, levels.relation, boolean);
    case 'view':
      if (!type.sized) break;
      return expression(`${at(levels.member, certain)}.length > 0`, levels.relation, boolean);
    case 'dictionary':
      expectWhole(value);
      return expression(`Object.keys(${certain.code}).length > 0`, levels.relation, boolean);
    case 'either':
      if (
        type.of.every(({ kind }) => ['text', 'integer', 'boolean', 'false', 'none'].includes(kind))
      )
        return certain;
      break;
    case 'printable':
    case 'module':
  }
  throw new Refusal(`whether ${shown(value)} is true is unknown: it is ${typeName(type)}`);
}

/** str(value). */
export function toText(value: Code): Code {
  const result = printed(value);
  if (value.constant !== undefined && value.constant !== null)
    return textConstant(constantText(value.constant));
  if (value.type.kind === 'text') return sure(value);
  if (result.type.kind === 'text') return result;
  return expression(`String(${sure(result).code})`, levels.member, text);
}
