import {
  at,
  type Code,
  expression,
  levels,
  printed,
  quote,
  Refusal,
  shown,
  sure,
  textConstant,
} from './code.js';
import { text, typeName } from './types.js';

/** The text of an integer or of a text, as JavaScript code. */
function bare(value: Code): Code {
  const result = printed(value);
  if (result.type.kind === 'text') return sure(result);
  return expression(`String(${sure(result).code})`, levels.member, text);
}

/** Digits of a natural number in another base. */
const bases: Readonly<Record<string, number>> = { x: 16, o: 8, b: 2 };

/** `format(value, specification)` of Python, for texts and integers. Throws Refusal. */
export function formatted(value: Code, specification: string, conversion?: string): Code {
  if (conversion !== undefined && conversion !== 's') {
    if (value.type.kind === 'integer') return formatted(bare(value), specification);
    throw new Refusal(`!${conversion} has no counterpart`);
  }
  const source = conversion === 's' ? bare(value) : value;
  if (specification === '') return bare(source);
  const [, fill, align, sign, alternate, zero, width, grouping, precision, type = ''] =
    /^(?:(.)?([<>=^]))?([+ -])?(#)?(0)?(\d+)?([,_])?(?:\.(\d+))?([a-zA-Z%])?$/.exec(
      specification,
    ) ?? [];
  const unknown = new Refusal(
    `the format "${specification}" of ${shown(value)} has no counterpart`,
  );
  if (
    !/^(?:(.)?([<>=^]))?([+ -])?(#)?(0)?(\d+)?([,_])?(?:\.(\d+))?([a-zA-Z%])?$/.test(specification)
  )
    throw unknown;
  if (sign !== undefined || alternate !== undefined || grouping !== undefined) throw unknown;
  if (align === '=' || align === '^') throw unknown;
  const size = Number(width ?? 0);
  if (size > 10_000) throw unknown;
  const { kind } = source.type;
  if (kind === 'text') {
    if (zero !== undefined || (type !== '' && type !== 's')) throw unknown;
    let result = bare(source);
    if (precision !== undefined) {
      if (source.type.kind !== 'text' || !source.type.plain) throw unknown;
      result = expression(
        `${at(levels.member, result)}.slice(0, ${precision})`,
        levels.member,
        text,
      );
    }
    return padded(result, source, align === '>' ? 'padStart' : 'padEnd', size, fill);
  }
  if (kind !== 'integer')
    throw new Refusal(
      `${shown(value)} is ${typeName(value.type)}, and its format has no counterpart`,
    );
  if (precision !== undefined) throw unknown;
  const isNatural = source.type.kind === 'integer' && source.type.natural;
  let result = bare(source);
  const base = bases[type.toLowerCase()];
  if (base !== undefined) {
    if (!isNatural) throw unknown;
    result = expression(
      `${at(levels.member, sure(source))}.toString(${base})`,
      levels.member,
      text,
    );
    if (/^\d/.test(source.code)) throw unknown;
    if (type === 'X') result = expression(`${result.code}.toUpperCase()`, levels.member, text);
  } else if (type !== '' && type !== 'd' && type !== 'n') throw unknown;
  if (zero !== undefined && align === undefined) {
    if (!isNatural)
      throw new Refusal(`${shown(value)} may be negative, and the format fills it with zeros`);
    return padded(result, source, 'padStart', size, '0');
  }
  return padded(
    result,
    source,
    align === '<' ? 'padEnd' : 'padStart',
    size,
    fill ?? (zero === undefined ? undefined : '0'),
  );
}

function padded(
  result: Code,
  source: Code,
  own: 'padStart' | 'padEnd',
  width: number,
  fill: string | undefined,
): Code {
  if (width <= 1) return result;
  if (source.type.kind === 'text' && !source.type.plain) {
    throw new Refusal(
      `${shown(source)} may have characters of which Python and JavaScript count different numbers`,
    );
  }
  const filling = fill === undefined || fill === ' ' ? '' : `, ${quote(fill)}`;
  return expression(`${at(levels.member, result)}.${own}(${width}${filling})`, levels.member, text);
}

/** The texts one after the other. */
export function concatenated(parts: readonly (string | Code)[]): Code {
  const found = parts.filter((part) => part !== '');
  if (found.every((part) => typeof part === 'string')) return textConstant(found.join(''));
  const [first] = found;
  if (found.length === 1 && typeof first === 'object') return first;
  const codes = found.map((part) => (typeof part === 'string' ? part : part.code));
  if (codes.some((code) => code.includes('`'))) {
    const items = found.map((part) => (typeof part === 'string' ? quote(part) : part.code));
    return expression(`[${items.join(', ')}].join('')`, levels.member, typeOf(found));
  }
  const pieces = found.map((part) => {
    if (typeof part === 'object') return `\${${part.code}}`;
    return quote(part)
      .slice(1, -1)
      .replaceAll("\\'", "'")
      .replaceAll('`', '\\`')
      .replaceAll('${', '\\${');
  });
  return expression(`\`${pieces.join('')}\``, levels.member, typeOf(found));
}

function typeOf(parts: readonly (string | Code)[]): Code['type'] {
  const isPlain = parts.every((part) => {
    const { type } = typeof part === 'string' ? textConstant(part) : part;
    return type.kind === 'text' && type.plain;
  });
  return { kind: 'text', plain: isPlain };
}

/** `template.format(…)`. Throws Refusal. */
export function format(
  template: string,
  positional: readonly Code[],
  named: ReadonlyMap<string, Code>,
): Code {
  const parts: (string | Code)[] = [];
  let next = 0;
  let position = 0;
  const field = /\{\{|\}\}|\{([^{}!:]*)(?:!([a-z]))?(?::([^{}]*))?\}|[{}]/g;
  for (const match of template.matchAll(field)) {
    parts.push(template.slice(position, match.index));
    position = match.index + match[0].length;
    const [all, name, conversion, specification = ''] = match;
    if (all === '{{' || all === '}}') {
      parts.push(all.slice(1));
      continue;
    }
    if (name === undefined) throw new Refusal('the format has a field that has no counterpart');
    const value = /^\d*$/.test(name)
      ? positional[name === '' ? next++ : Number(name)]
      : named.get(name);
    if (value === undefined)
      throw new Refusal(`the format has the field "${name}", for which there is no value`);
    parts.push(formatted(value, specification, conversion));
  }
  parts.push(template.slice(position));
  return concatenated(parts);
}

/** `template % values`. Throws Refusal. */
export function percentFormat(template: string, values: readonly Code[]): Code {
  const parts: (string | Code)[] = [];
  let next = 0;
  let position = 0;
  for (const match of template.matchAll(/%(?:%|([-0]*)(\d+)?([sdixXor])|)/g)) {
    parts.push(template.slice(position, match.index));
    position = match.index + match[0].length;
    const [all, flags = '', width = '', type] = match;
    if (all === '%%') {
      parts.push('%');
      continue;
    }
    const value = values[next++];
    if (type === undefined) throw new Refusal('the format after "%" has no counterpart');
    if (value === undefined) throw new Refusal('the format needs more values');
    const align = flags.includes('-') ? '<' : '>';
    if (type === 's') parts.push(formatted(bare(value), width === '' ? '' : `${align}${width}`));
    else if (type === 'r') throw new Refusal('%r has no counterpart');
    else {
      if (value.type.kind !== 'integer')
        throw new Refusal(`${shown(value)} is ${typeName(value.type)}, not an integer`);
      const zero = flags.includes('0') && align === '>' ? '0' : '';
      const base = type === 'i' ? 'd' : type;
      parts.push(
        formatted(value, `${zero === '' && width !== '' ? align : ''}${zero}${width}${base}`),
      );
    }
  }
  if (next < values.length) throw new Refusal('the format has fewer fields than values');
  parts.push(template.slice(position));
  return concatenated(parts);
}
