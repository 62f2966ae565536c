import { alternatives, isPlain, none, type Type, typeName } from './types.js';
import { notConfigured } from './values.js';

/** The converter cannot prove that a text would stay the same; the message says why and what to write. */
export class Refusal extends Error {}

/** How strongly JavaScript's operators bind, where the converter needs to know it. */
export const levels = {
  conditional: 2,
  or: 3,
  and: 4,
  equality: 8,
  relation: 9,
  sum: 11,
  product: 12,
  unary: 14,
  member: 17,
} as const;

/** A JavaScript expression with what is known about its value. */
export interface Code {
  readonly code: string;
  readonly level: number;
  readonly type: Type;
  /** A name or a literal, which can be written twice. */
  readonly simple?: boolean;
  /** May be undefined where Python ends with an error: the index of a list that is too short, for one. */
  readonly unsure?: boolean;
  /** The value, if it is a literal in the template. */
  readonly constant?: string | bigint | number | boolean | null;
  /** The Python that it was made from; empty where that is not known. */
  readonly python?: string;
}

/** A JavaScript string literal. */
export function quote(value: string): string {
  const escaped = value.replace(/[\\'\u2028\u2029\ufeff\p{Cc}]/gu, (character) => {
    const known = { '\n': '\\n', '\r': '\\r', '\t': '\\t', '\\': '\\\\', "'": "\\'" }[character];
    return known ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
  return `'${escaped}'`;
}

/** The code in parentheses if it binds more weakly than the level. */
export function at(level: number, { code, level: own }: Code): string {
  return own < level ? `(${code})` : code;
}

/** The code of a value that is not undefined: where it would be, JavaScript throws, as Python does. */
export function sure(value: Code): Code {
  if (value.code === '') throw new Refusal('the number is too large');
  if (value.unsure !== true) return value;
  if (alternatives(value.type).some(({ kind }) => kind === 'none')) {
    throw new Refusal(`${shown(value)} may be None, or missing`);
  }
  // Ours has no prototype, and so no valueOf.
  if (alternatives(value.type).some(({ kind }) => kind === 'dictionary')) {
    throw new Refusal(`${shown(value)} may have no value`);
  }
  const { unsure: _, ...rest } = value;
  return {
    ...rest,
    code: `${at(levels.member, value)}.valueOf()`,
    level: levels.member,
    simple: false,
  };
}

/** An integer literal; one that JavaScript cannot hold has no code, and can only be printed. */
export function integerConstant(constant: bigint): Code {
  const isSafe = Number.isSafeInteger(Number(constant));
  return {
    code: isSafe ? String(constant) : '',
    level: constant < 0n ? levels.unary : levels.member - 1,
    type: { kind: 'integer', natural: constant >= 0n },
    simple: true,
    constant,
  };
}

export function textConstant(constant: string): Code {
  const type: Type = { kind: 'text', plain: isPlain(constant) };
  return { code: quote(constant), level: levels.member, type, simple: true, constant };
}

export function booleanConstant(constant: boolean): Code {
  return {
    code: String(constant),
    level: levels.member,
    type: { kind: 'boolean' },
    simple: true,
    constant,
  };
}

/** None. */
export const noneConstant: Code = {
  code: 'null',
  level: levels.member,
  type: none,
  simple: true,
  constant: null,
};

/** A float literal, which can only be printed or folded into another literal. */
export function floatConstant(constant: number): Code {
  const level = constant < 0 || Object.is(constant, -0) ? levels.unary : levels.member - 1;
  return { code: String(constant), level, type: { kind: 'float' }, simple: true, constant };
}

/** A call of a method of a value. Needs no `sure`: a method of undefined throws. */
export function method(receiver: Code, name: string, args: readonly string[], type: Type): Code {
  const code = `${at(levels.member, receiver)}.${name}(${args.join(', ')})`;
  return { code, level: levels.member, type };
}

/** A name for the parameter of a function that none of the codes in its body uses. */
export function parameter(name: string, ...codes: readonly string[]): string {
  const isUsed = codes.some((code) => new RegExp(`(?<![\\w$])${name}(?![\\w$])`).test(code));
  return isUsed ? parameter(`${name}_`, ...codes) : name;
}

/**
 * Code that may need another value. Python takes that one in any case, and fails if it cannot: so does the code, unless
 * it is a name or a literal.
 */
export function withFallback(fallback: Code, codeOf: (fallback: Code) => string): string {
  if (fallback.simple === true || fallback.constant !== undefined) return codeOf(fallback);
  const name = parameter('otherwise', codeOf(fallback));
  return `((${name}) => ${codeOf({ ...fallback, code: name, level: levels.member })})(${fallback.code})`;
}

export function expression(code: string, level: number, type: Type): Code {
  return { code, level, type };
}

export function expectType(value: Code, kind: Type['kind'], what: string): void {
  if (value.type.kind === 'refused') throw new Refusal('');
  if (value.type.kind !== kind) throw new Refusal(`${what} is ${typeName(value.type)}`);
}

/** Throws if a dictionary does not show all that Python's has. */
export function expectWhole(value: Code): void {
  if (value.type.kind !== 'dictionary' || value.type.partial !== true) return;
  throw new Refusal(`${shown(value)} has no key "default" here, and ${notConfigured} in Python`);
}

/** Throws if Python and JavaScript may disagree about the characters of a text. */
export function expectPlain(value: Code): void {
  expectType(value, 'text', shown(value));
  if (value.type.kind === 'text' && !value.type.plain) {
    throw new Refusal(`${shown(value)} may have characters for which Python and JavaScript differ`);
  }
}

/** The value as a message shows it. */
export function shown({ code, python }: Code): string {
  const text = (python || code).replace(/\s+/g, ' ');
  return text.length > 40 ? `${text.slice(0, 37)}…` : text;
}

/** Python's repr of a float. */
function floatText(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value < 0 ? '-inf' : 'inf';
  const [, sign = '', first = '', more = '', exponentText = '0'] =
    /^(-?)(\d)(?:\.(\d+))?e([+-]\d+)$/.exec(
      Object.is(value, -0) ? '-0e+0' : value.toExponential(),
    ) ?? [];
  const exponent = Number(exponentText);
  const digits = first + more;
  if (exponent < -4 || exponent >= 16) {
    const power = String(Math.abs(exponent)).padStart(2, '0');
    return `${sign}${first}${more === '' ? '' : `.${more}`}e${exponent < 0 ? '-' : '+'}${power}`;
  }
  if (exponent < 0) return `${sign}0.${'0'.repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, '0');
  return `${sign}${whole}.${digits.slice(exponent + 1) || '0'}`;
}

/** What Python prints for a literal; undefined for None, which Bottle's versions print differently. */
export function constantText(constant: NonNullable<Code['constant']>): string {
  if (typeof constant === 'boolean') return constant ? 'True' : 'False';
  return typeof constant === 'number' ? floatText(constant) : String(constant);
}

/** The text that Python prints for a value. Throws Refusal. */
export function printed(value: Code): Code {
  const { type, constant } = value;
  if (constant !== undefined && constant !== null) {
    const text = constantText(constant);
    return {
      ...value,
      code: quote(text),
      level: levels.member,
      type: { kind: 'text', plain: true },
      constant: text,
    };
  }
  const kinds = alternatives(type).map(({ kind }) => kind);
  if (kinds.includes('refused')) throw new Refusal('');
  if (kinds.includes('none')) {
    throw new Refusal(
      `${shown(value)} may be None, which Bottle 0.12 prints as None and 0.13 as nothing: write (… or '')`,
    );
  }
  if (kinds.every((kind) => kind === 'text' || kind === 'integer' || kind === 'printable'))
    return value;
  if (kinds.includes('float')) {
    throw new Refusal(
      `${shown(value)} is a float, which JavaScript prints differently: make it an integer by int(…) or //`,
    );
  }
  const { code, level } = sure(value);
  const own = { code, level, type };
  const result: Type = { kind: 'text', plain: false };
  if (kinds.every((kind) => kind === 'boolean' || kind === 'false')) {
    const words: Type = { kind: 'text', plain: true };
    return expression(`${at(levels.or, own)} ? 'True' : 'False'`, levels.conditional, words);
  }
  const isSimple = (kind: Type['kind']) => ['text', 'integer', 'printable'].includes(kind);
  if (kinds.every((kind) => kind === 'false' || isSimple(kind)) && value.simple === true) {
    return expression(`${code} === false ? 'False' : ${code}`, levels.conditional, result);
  }
  if (!kinds.some(isSimple) && isRepresentable(type)) {
    return expression(`repr(${code})`, levels.member, result);
  }
  throw new Refusal(
    `${shown(value)} is ${typeName(type)}, which cannot be printed in the same way`,
  );
}

/** Whether repr() of our templates gives what Python's repr() gives. */
export function isRepresentable(type: Type | undefined): boolean {
  if (type === undefined) return true;
  if (type.kind === 'dictionary' && type.partial === true) return false;
  if (type.kind === 'list' || type.kind === 'dictionary') return isRepresentable(type.of);
  if (type.kind === 'either') return type.of.every(isRepresentable);
  return ['text', 'integer', 'boolean', 'false', 'none'].includes(type.kind);
}
