/** What the converter knows about a value of a template. */
export type Type =
  /** `plain`: only printable ASCII, tabs and line ends, for which Python and JavaScript agree. */
  | { readonly kind: 'text'; readonly plain: boolean }
  /** `natural`: not negative. */
  | { readonly kind: 'integer'; readonly natural: boolean }
  | { readonly kind: 'float' | 'boolean' | 'false' | 'none' }
  /** `of` is undefined for the empty list; `filled`: has at least one item. */
  | { readonly kind: 'list'; readonly of: Type | undefined; readonly filled: boolean }
  /** Something that is only good for a loop, such as a range or an enumeration; `sized`: it has a length. */
  | {
      readonly kind: 'view';
      readonly of: Type | undefined;
      readonly what: string;
      readonly sized: boolean;
    }
  | { readonly kind: 'tuple'; readonly items: readonly Type[] }
  /**
   * Keys are text. `partial`: our dictionary does not show all that Python's has. `isData`: it is the data's, which
   * cannot be changed.
   */
  | {
      readonly kind: 'dictionary';
      readonly of: Type | undefined;
      readonly plainKeys: boolean;
      readonly partial?: boolean;
      readonly isData?: boolean;
    }
  | { readonly kind: 'either'; readonly of: readonly Type[] }
  /** A value that can only be printed, such as a number of the configuration. */
  | { readonly kind: 'printable' }
  | { readonly kind: 'module'; readonly name: string }
  /** The value of something that was refused: a problem has been reported. */
  | { readonly kind: 'refused' };

export const text: Type = { kind: 'text', plain: true };
export const anyText: Type = { kind: 'text', plain: false };
export const integer: Type = { kind: 'integer', natural: false };
export const natural: Type = { kind: 'integer', natural: true };
export const float: Type = { kind: 'float' };
export const boolean: Type = { kind: 'boolean' };
export const alwaysFalse: Type = { kind: 'false' };
export const none: Type = { kind: 'none' };
export const refused: Type = { kind: 'refused' };

/** Python's views that have a length; the others are true even if they are empty. */
const sizedViews: ReadonlySet<string> = new Set(['range', 'view of a dictionary']);

export function viewOf(of: Type | undefined, what: string): Type {
  return { kind: 'view', of, what, sized: sizedViews.has(what) };
}

export function listOf(of: Type | undefined, filled = false): Type {
  return { kind: 'list', of, filled };
}

/** Whether all characters of the text are plain. */
export function isPlain(value: string): boolean {
  return /^[\t\n\r -~]*$/.test(value);
}

export function sameType(a: Type | undefined, b: Type | undefined): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function optional(a: Type | undefined, b: Type | undefined): Type | undefined {
  return a === undefined ? b : b === undefined ? a : join(a, b);
}

/** The type of a value that has the one or the other type. */
export function join(a: Type, b: Type): Type {
  if (sameType(a, b)) return a;
  if (a.kind === 'refused' || b.kind === 'refused') return refused;
  if (a.kind === 'text' && b.kind === 'text') return { kind: 'text', plain: a.plain && b.plain };
  if (a.kind === 'integer' && b.kind === 'integer') {
    return { kind: 'integer', natural: a.natural && b.natural };
  }
  if (a.kind === 'false' && b.kind === 'boolean') return b;
  if (a.kind === 'boolean' && b.kind === 'false') return a;
  if (a.kind === 'list' && b.kind === 'list') {
    return listOf(optional(a.of, b.of), a.filled && b.filled);
  }
  if (a.kind === 'dictionary' && b.kind === 'dictionary') {
    const plainKeys = a.plainKeys && b.plainKeys;
    const partial = a.partial === true || b.partial === true;
    const isData = a.isData === true || b.isData === true;
    const about = { ...(partial && { partial }), ...(isData && { isData }) };
    return { kind: 'dictionary', of: optional(a.of, b.of), plainKeys, ...about };
  }
  if (a.kind === 'tuple' && b.kind === 'tuple' && a.items.length === b.items.length) {
    return {
      kind: 'tuple',
      items: a.items.map((item, index) => join(item, b.items[index] ?? item)),
    };
  }
  return either([...alternatives(a), ...alternatives(b)]);
}

/** The types that a value may have. */
export function alternatives(type: Type): readonly Type[] {
  return type.kind === 'either' ? type.of : [type];
}

/** The type that is one of these. */
export function either(types: readonly Type[]): Type {
  const found: Type[] = [];
  for (const type of types) {
    const index = found.findIndex(
      ({ kind }) => kind === type.kind && kind !== 'tuple' && kind !== 'view',
    );
    const other = found[index];
    if (other === undefined) {
      if (!found.some((known) => sameType(known, type))) found.push(type);
    } else found[index] = join(other, type);
  }
  const [first = refused] = found;
  if (found.length === 1) return first;
  // In one order, so that equal types are equal as text.
  return { kind: 'either', of: found.sort((a, b) => (a.kind < b.kind ? -1 : 1)) };
}

/** The type in words, with its article. */
export function typeName(type: Type): string {
  switch (type.kind) {
    case 'text':
      return 'a string';
    case 'integer':
      return 'an integer';
    case 'float':
      return 'a float';
    case 'boolean':
      return 'True or False';
    case 'false':
      return 'False';
    case 'none':
      return 'None';
    case 'view':
      return `a ${type.what}`;
    case 'list':
    case 'tuple':
    case 'dictionary':
    case 'module':
      return `a ${type.kind}`;
    case 'either':
      return type.of.map(typeName).join(' or ');
    case 'printable':
      return 'a value of the configuration';
    case 'refused':
      return 'unknown';
  }
}
