/**
 * A parser for the Python that Bottle templates contain: expressions, and statements of one logical
 * line (The Python Language Reference, version 3.11). It decides whether a text is Python at all, and
 * gives the converter a tree.
 */

/** The text is not Python; the message is the reason. */
export class PythonSyntaxError extends Error {}

/** Where an expression is in the text that was parsed. */
interface Position {
  readonly start: number;
  readonly end: number;
}

/** A piece of an f-string: text, or a value with its conversion (`!r`) and format (`:>10`). */
export type FormatPart =
  | string
  | {
      readonly value: Expression;
      readonly conversion: string | undefined;
      readonly format: readonly FormatPart[] | undefined;
    };

/** `for target in iterable if condition…` of a comprehension. */
export interface ComprehensionClause {
  readonly target: Expression;
  readonly iterable: Expression;
  readonly conditions: readonly Expression[];
}

export type Expression = Position &
  (
    | { readonly kind: 'name'; readonly name: string }
    | { readonly kind: 'string'; readonly value: string }
    | { readonly kind: 'f-string'; readonly parts: readonly FormatPart[] }
    | { readonly kind: 'integer'; readonly value: bigint }
    | { readonly kind: 'float'; readonly value: number }
    | { readonly kind: 'constant'; readonly value: true | false | null }
    | { readonly kind: 'list' | 'tuple' | 'set'; readonly items: readonly Expression[] }
    | {
        readonly kind: 'dictionary';
        /** Without a key: `**value`. */
        readonly entries: readonly (readonly [key: Expression | undefined, value: Expression])[];
      }
    | { readonly kind: 'attribute'; readonly object: Expression; readonly name: string }
    | {
        readonly kind: 'call';
        readonly function: Expression;
        readonly positional: readonly Expression[];
        /** Without a name: `**value`. */
        readonly keywords: readonly (readonly [name: string | undefined, value: Expression])[];
      }
    | { readonly kind: 'subscript'; readonly object: Expression; readonly index: Expression }
    | {
        readonly kind: 'slice';
        readonly from: Expression | undefined;
        readonly to: Expression | undefined;
        readonly step: Expression | undefined;
      }
    | { readonly kind: 'unary'; readonly operator: string; readonly operand: Expression }
    | {
        readonly kind: 'binary';
        readonly operator: string;
        readonly left: Expression;
        readonly right: Expression;
      }
    | {
        readonly kind: 'comparison';
        readonly first: Expression;
        readonly rest: readonly (readonly [operator: string, operand: Expression])[];
      }
    | {
        readonly kind: 'logic';
        readonly operator: 'and' | 'or';
        readonly left: Expression;
        readonly right: Expression;
      }
    | {
        readonly kind: 'conditional';
        readonly condition: Expression;
        readonly then: Expression;
        readonly otherwise: Expression;
      }
    | { readonly kind: 'lambda'; readonly body: Expression }
    | {
        readonly kind: 'comprehension';
        readonly form: 'list' | 'set' | 'dictionary' | 'generator';
        readonly element: Expression;
        /** Of a dictionary: the value, with the key as `element`. */
        readonly value: Expression | undefined;
        readonly clauses: readonly ComprehensionClause[];
      }
    | { readonly kind: 'starred'; readonly value: Expression }
    | { readonly kind: 'assignment expression'; readonly name: string; readonly value: Expression }
    /** Python that has no place in a template, such as `await` or a number with a `j`. */
    | { readonly kind: 'other'; readonly what: string }
  );

/** A statement that is complete in itself. */
export type SimpleStatement =
  | { readonly kind: 'expression'; readonly expression: Expression }
  | {
      readonly kind: 'assignment';
      readonly targets: readonly Expression[];
      /** Of `+=` and its like. */
      readonly operator: string | undefined;
      readonly value: Expression;
    }
  | { readonly kind: 'import'; readonly modules: readonly string[] }
  | { readonly kind: 'pass' }
  /** Any other: `del`, `assert`, `raise`, `break`, `from … import …` and more. */
  | { readonly kind: 'keyword'; readonly keyword: string };

/** The line that begins a block. */
export type BlockHeader =
  | { readonly kind: 'if' | 'elif' | 'while'; readonly condition: Expression }
  | { readonly kind: 'else' }
  | { readonly kind: 'for'; readonly target: Expression; readonly iterable: Expression }
  /** `try`, `except`, `finally`, `with`, `def`, `class`, `match`, `case`, `async`. */
  | { readonly kind: 'block'; readonly keyword: string };

/** One logical line: statements separated by `;`, or a header with what follows it on the line. */
export interface Line {
  readonly header: BlockHeader | undefined;
  readonly statements: readonly SimpleStatement[];
}

const keywords = new Set(
  (
    'False None True and as assert async await break class continue def del elif else except finally ' +
    'for from global if import in is lambda nonlocal not or pass raise return try while with yield'
  ).split(' '),
);

interface Token extends Position {
  readonly kind: 'name' | 'number' | 'string' | 'operator' | 'newline' | 'end';
  readonly text: string;
}

const stringPrefix = /(?:[rR][bBfF]?|[bBfF][rR]?|[uU])?/.source;
const stringBody = [
  /'''(?:[^\\]|\\[\s\S])*?'''/,
  /"""(?:[^\\]|\\[\s\S])*?"""/,
  /'(?!'')(?:[^'\\\n]|\\[\s\S])*'/,
  /"(?!"")(?:[^"\\\n]|\\[\s\S])*"/,
]
  .map(({ source }) => source)
  .join('|');
const tokenPatterns: readonly (readonly [Token['kind'] | 'space', RegExp])[] = [
  ['space', /(?:[ \t\f]|\\\n|#[^\n]*)+/y],
  ['newline', /\n/y],
  ['string', new RegExp(`${stringPrefix}(?:${stringBody})`, 'y')],
  [
    'number',
    /0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+|(?:\d(?:_?\d)*)?\.\d(?:_?\d)*(?:[eE][+-]?\d(?:_?\d)*)?[jJ]?|\d(?:_?\d)*\.?(?:[eE][+-]?\d(?:_?\d)*)?[jJ]?/y,
  ],
  ['name', /[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{Mn}\p{Mc}\p{Nd}\p{Pc}]*/uy],
  [
    'operator',
    /\*\*=|\/\/=|>>=|<<=|\.\.\.|[-+*/%&|^@=!<>:]=|\*\*|\/\/|>>|<<|->|[-+*/%@&|^~<>()[\]{},:.;=]/y,
  ],
];

/** The tokens of a text; line ends inside brackets are space, as in Python. */
function tokensOf(text: string): Token[] {
  const found: Token[] = [];
  let depth = 0;
  let position = 0;
  next: while (position < text.length) {
    for (const [kind, pattern] of tokenPatterns) {
      pattern.lastIndex = position;
      const match = pattern.exec(text)?.[0];
      if (match === undefined) continue;
      const start = position;
      position += match.length;
      if (kind === 'space' || (kind === 'newline' && depth > 0)) continue next;
      if (kind === 'operator' && /[([{]/.test(match)) depth += 1;
      if (kind === 'operator' && /[)\]}]/.test(match)) depth -= 1;
      if (kind === 'number') checkNumber(match, text[position]);
      found.push({ kind, text: match, start, end: position });
      continue next;
    }
    throw new PythonSyntaxError(`"${[...text.slice(position)][0]}" is not Python`);
  }
  found.push({ kind: 'end', text: '', start: position, end: position });
  return found;
}

function checkNumber(number: string, next: string | undefined): void {
  if (/^0[\d_]*[1-9]/.test(number) && /^[\d_]+$/.test(number)) {
    throw new PythonSyntaxError(`"${number}" begins with 0`);
  }
  if (next !== undefined && /[\p{L}\p{Nd}_]/u.test(next)) {
    // Python takes "1if x else y", with a warning.
    throw new PythonSyntaxError(`a name follows "${number}" without a space`);
  }
}

const escapes = new Map([
  ...([
    ['a', '\x07'],
    ['b', '\b'],
    ['f', '\f'],
    ['n', '\n'],
    ['r', '\r'],
    ['t', '\t'],
  ] as const),
  ...([
    ['v', '\v'],
    ['\n', ''],
    ['\\', '\\'],
    ["'", "'"],
    ['"', '"'],
  ] as const),
]);

/** The text of a string literal's body; undefined where it names a character (`\N{…}`). */
function unescaped(body: string): string | undefined {
  let unknown = false;
  const value = body.replace(
    /\\(?:([0-7]{1,3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([\s\S]))/g,
    (all, octal, hex, short, long, single) => {
      if (octal !== undefined) return String.fromCodePoint(Number.parseInt(octal, 8));
      const code = hex ?? short ?? long;
      if (code !== undefined) {
        const point = Number.parseInt(code, 16);
        if (point > 0x10ffff) throw new PythonSyntaxError(`"${all}" is no character`);
        return String.fromCodePoint(point);
      }
      if (/[xuU]/.test(single)) throw new PythonSyntaxError(`"${all}" lacks digits`);
      if (single === 'N') unknown = true;
      // Python keeps the backslash of an escape that it does not know.
      return escapes.get(single) ?? all;
    },
  );
  return unknown ? undefined : value;
}

/** How deep expressions may be nested: a parser that calls itself must not exhaust the stack. */
const maxDepth = 200;

const comparisons = new Set(['<', '>', '==', '>=', '<=', '!=', 'in', 'is', 'not']);
/** Binary operators from the weakest to the strongest, but for `**`. */
const binaryOperators: readonly (readonly string[])[] = [
  ['|'],
  ['^'],
  ['&'],
  ['<<', '>>'],
  ['+', '-'],
  ['*', '/', '//', '%', '@'],
];
const augmented = new Set('+= -= *= /= //= %= @= &= |= ^= >>= <<= **='.split(' '));

class Parser {
  private readonly tokens: readonly Token[];
  private position = 0;
  private depth = 0;

  constructor(text: string) {
    this.tokens = tokensOf(text);
  }

  private get token(): Token {
    const token = this.tokens[this.position];
    if (token === undefined) throw new PythonSyntaxError('unexpected end');
    return token;
  }

  private is(...texts: string[]): boolean {
    const { kind, text } = this.token;
    return kind !== 'string' && texts.includes(text);
  }

  private take(...texts: string[]): boolean {
    const found = this.is(...texts) && this.token.kind !== 'end';
    if (found) this.position += 1;
    return found;
  }

  private expect(text: string): void {
    if (!this.take(text)) this.fail(`expected "${text}"`);
  }

  private fail(problem = 'unexpected'): never {
    const { kind, text } = this.token;
    const where = kind === 'end' ? 'the end' : kind === 'newline' ? 'the line end' : `"${text}"`;
    throw new PythonSyntaxError(`invalid Python at ${where}: ${problem}`);
  }

  private node<T extends object>(start: number, fields: T): T & Position {
    const end = this.tokens[this.position - 1]?.end ?? start;
    return { ...fields, start, end };
  }

  private name(): string {
    const { kind, text } = this.token;
    if (kind !== 'name' || keywords.has(text)) this.fail('expected a name');
    this.position += 1;
    return text;
  }

  end(): void {
    while (this.token.kind === 'newline') this.position += 1;
    if (this.token.kind !== 'end') this.fail();
  }

  // --- expressions -----------------------------------------------------------------------------

  /** An expression that stands for itself: in brackets, as an argument, as a condition. */
  expression(): Expression {
    const { start } = this.token;
    const value = this.conditional();
    if (!this.is(':=')) return value;
    if (value.kind !== 'name') this.fail();
    this.position += 1;
    return this.node(start, {
      kind: 'assignment expression' as const,
      name: value.name,
      value: this.conditional(),
    });
  }

  private conditional(): Expression {
    const { start } = this.token;
    this.depth += 1;
    if (this.depth > maxDepth) throw new PythonSyntaxError('is nested too deeply');
    try {
      if (this.take('lambda')) return this.lambda(start);
      const then = this.or();
      if (!this.take('if')) return then;
      const condition = this.or();
      this.expect('else');
      const otherwise = this.conditional();
      return this.node(start, { kind: 'conditional' as const, condition, then, otherwise });
    } finally {
      this.depth -= 1;
    }
  }

  private lambda(start: number): Expression {
    while (!this.is(':')) {
      if (!this.take('*', '**', '/')) {
        this.name();
        if (this.take('=')) this.conditional();
      } else if (this.token.kind === 'name') this.name();
      if (!this.take(',')) break;
    }
    this.expect(':');
    return this.node(start, { kind: 'lambda' as const, body: this.conditional() });
  }

  private or(): Expression {
    const { start } = this.token;
    let left = this.and();
    while (this.take('or')) {
      const right = this.and();
      left = this.node(start, { kind: 'logic' as const, operator: 'or' as const, left, right });
    }
    return left;
  }

  private and(): Expression {
    const { start } = this.token;
    let left = this.not();
    while (this.take('and')) {
      const right = this.not();
      left = this.node(start, { kind: 'logic' as const, operator: 'and' as const, left, right });
    }
    return left;
  }

  private not(): Expression {
    const { start } = this.token;
    if (!this.take('not')) return this.comparison();
    return this.node(start, {
      kind: 'unary' as const,
      operator: 'not',
      operand: this.nested(() => this.not()),
    });
  }

  private nested<T>(parse: () => T): T {
    this.depth += 1;
    if (this.depth > maxDepth) throw new PythonSyntaxError('is nested too deeply');
    const result = parse();
    this.depth -= 1;
    return result;
  }

  private comparison(): Expression {
    const { start } = this.token;
    const first = this.binary(0);
    const rest: [string, Expression][] = [];
    while (this.token.kind !== 'string' && comparisons.has(this.token.text)) {
      let operator = this.token.text;
      this.position += 1;
      if (operator === 'not') {
        this.expect('in');
        operator = 'not in';
      } else if (operator === 'is' && this.take('not')) operator = 'is not';
      rest.push([operator, this.binary(0)]);
    }
    if (rest.length === 0) return first;
    return this.node(start, { kind: 'comparison' as const, first, rest });
  }

  private binary(level: number): Expression {
    const operators = binaryOperators[level];
    if (operators === undefined) return this.factor();
    const { start } = this.token;
    let left = this.binary(level + 1);
    while (this.is(...operators)) {
      const operator = this.token.text;
      this.position += 1;
      const right = this.binary(level + 1);
      left = this.node(start, { kind: 'binary' as const, operator, left, right });
    }
    return left;
  }

  private factor(): Expression {
    const { start } = this.token;
    if (this.is('+', '-', '~')) {
      const operator = this.token.text;
      this.position += 1;
      const operand = this.nested(() => this.factor());
      return this.node(start, { kind: 'unary' as const, operator, operand });
    }
    if (this.take('await')) {
      this.primary();
      return this.node(start, { kind: 'other' as const, what: '"await"' });
    }
    const left = this.primary();
    if (!this.take('**')) return left;
    const right = this.nested(() => this.factor());
    return this.node(start, { kind: 'binary' as const, operator: '**', left, right });
  }

  private primary(): Expression {
    const { start } = this.token;
    let value = this.atom();
    for (;;) {
      if (this.take('.')) {
        const name = this.name();
        value = this.node(start, { kind: 'attribute' as const, object: value, name });
      } else if (this.take('(')) {
        const { positional, keywords } = this.arguments();
        value = this.node(start, { kind: 'call' as const, function: value, positional, keywords });
      } else if (this.take('[')) {
        const index = this.subscript();
        this.expect(']');
        value = this.node(start, { kind: 'subscript' as const, object: value, index });
      } else return value;
    }
  }

  private arguments() {
    const positional: Expression[] = [];
    const keywords: [string | undefined, Expression][] = [];
    while (!this.is(')')) {
      const { start } = this.token;
      if (this.take('**')) keywords.push([undefined, this.conditional()]);
      else if (this.take('*')) {
        const value = this.conditional();
        positional.push(this.node(start, { kind: 'starred' as const, value }));
      } else {
        const value = this.expression();
        if (value.kind === 'name' && this.take('=')) {
          keywords.push([value.name, this.conditional()]);
        } else if (this.is('for', 'async')) {
          const clauses = this.clauses();
          positional.push(this.comprehension(start, 'generator', value, undefined, clauses));
          if (positional.length + keywords.length > 1 || !this.is(')')) this.fail();
        } else if (keywords.length > 0) {
          throw new PythonSyntaxError('an argument without a name follows one with a name');
        } else positional.push(value);
      }
      if (!this.take(',')) break;
    }
    this.expect(')');
    return { positional, keywords };
  }

  private subscript(): Expression {
    const { start } = this.token;
    const first = this.oneSubscript();
    if (!this.is(',')) return first;
    const items = [first];
    while (this.take(',')) {
      if (this.is(']')) break;
      items.push(this.oneSubscript());
    }
    return this.node(start, { kind: 'tuple' as const, items });
  }

  private oneSubscript(): Expression {
    const { start } = this.token;
    const from = this.is(':') ? undefined : this.starred();
    if (!this.take(':')) {
      if (from === undefined) this.fail();
      return from;
    }
    const to = this.is(':', ']', ',') ? undefined : this.conditional();
    const step = this.take(':') && !this.is(']', ',') ? this.conditional() : undefined;
    return this.node(start, { kind: 'slice' as const, from, to, step });
  }

  private starred(): Expression {
    const { start } = this.token;
    if (!this.take('*')) return this.expression();
    return this.node(start, { kind: 'starred' as const, value: this.binary(0) });
  }

  /** Expressions separated by commas, a tuple if there is a comma; ends before one of `ends`. */
  private list(...ends: string[]): Expression {
    const { start } = this.token;
    const first = this.starred();
    if (!this.is(',')) {
      if (first.kind === 'starred') this.fail('"*" is only possible in a list');
      return first;
    }
    const items = [first];
    while (this.take(',')) {
      if (this.is(...ends) || this.token.kind === 'newline' || this.token.kind === 'end') break;
      items.push(this.starred());
    }
    return this.node(start, { kind: 'tuple' as const, items });
  }

  private comprehension(
    start: number,
    form: 'list' | 'set' | 'dictionary' | 'generator',
    element: Expression,
    value: Expression | undefined,
    clauses: readonly ComprehensionClause[],
  ): Expression {
    return this.node(start, { kind: 'comprehension' as const, form, element, value, clauses });
  }

  private clauses(): ComprehensionClause[] {
    const found: ComprehensionClause[] = [];
    for (;;) {
      this.take('async');
      if (!this.take('for')) break;
      const target = this.target();
      this.expect('in');
      const iterable = this.or();
      const conditions: Expression[] = [];
      while (this.take('if')) {
        conditions.push(this.is('lambda') ? this.conditional() : this.or());
      }
      found.push({ target, iterable, conditions });
    }
    if (found.length === 0) this.fail();
    return found;
  }

  /** The target of `for`. */
  private target(): Expression {
    const { start } = this.token;
    const items: Expression[] = [];
    let tuple = false;
    do {
      if (this.is('in')) break;
      const { start: itemStart } = this.token;
      const item = this.take('*')
        ? this.node(itemStart, { kind: 'starred' as const, value: this.primary() })
        : this.primary();
      checkTarget(item);
      items.push(item);
      tuple ||= this.is(',');
    } while (this.take(','));
    const [first] = items;
    if (first === undefined) this.fail('expected a name');
    return tuple ? this.node(start, { kind: 'tuple' as const, items }) : first;
  }

  private atom(): Expression {
    const { start, kind, text } = this.token;
    if (kind === 'string') return this.strings();
    if (kind === 'number') {
      this.position += 1;
      return this.node(start, numberValue(text));
    }
    if (kind === 'name') {
      if (this.take('True'))
        return this.node(start, { kind: 'constant' as const, value: true as const });
      if (this.take('False'))
        return this.node(start, { kind: 'constant' as const, value: false as const });
      if (this.take('None')) return this.node(start, { kind: 'constant' as const, value: null });
      return this.node(start, { kind: 'name' as const, name: this.name() });
    }
    if (this.take('...')) return this.node(start, { kind: 'other' as const, what: '"..."' });
    if (this.take('(')) return this.nested(() => this.parenthesis(start));
    if (this.take('[')) return this.nested(() => this.brackets(start));
    if (this.take('{')) return this.nested(() => this.braces(start));
    return this.fail();
  }

  private parenthesis(start: number): Expression {
    if (this.take(')')) return this.node(start, { kind: 'tuple' as const, items: [] });
    if (this.is('yield')) {
      this.yields();
      this.expect(')');
      return this.node(start, { kind: 'other' as const, what: '"yield"' });
    }
    const first = this.starred();
    if (this.is('for', 'async')) {
      const clauses = this.clauses();
      this.expect(')');
      return this.comprehension(start, 'generator', first, undefined, clauses);
    }
    if (!this.is(',')) {
      if (first.kind === 'starred') this.fail();
      this.expect(')');
      return { ...first, start, end: this.tokens[this.position - 1]?.end ?? start };
    }
    const items = [first];
    while (this.take(',')) {
      if (this.is(')')) break;
      items.push(this.starred());
    }
    this.expect(')');
    return this.node(start, { kind: 'tuple' as const, items });
  }

  private yields(): void {
    this.expect('yield');
    if (this.take('from')) this.conditional();
    else if (!this.is(')', ';') && this.token.kind !== 'newline' && this.token.kind !== 'end') {
      this.list(')', ';');
    }
  }

  private brackets(start: number): Expression {
    const items: Expression[] = [];
    while (!this.is(']')) {
      const item = this.starred();
      if (items.length === 0 && this.is('for', 'async')) {
        const clauses = this.clauses();
        this.expect(']');
        return this.comprehension(start, 'list', item, undefined, clauses);
      }
      items.push(item);
      if (!this.take(',')) break;
    }
    this.expect(']');
    return this.node(start, { kind: 'list' as const, items });
  }

  private braces(start: number): Expression {
    const entries: [Expression | undefined, Expression][] = [];
    const items: Expression[] = [];
    while (!this.is('}')) {
      if (this.take('**')) entries.push([undefined, this.binary(0)]);
      else {
        const first = this.starred();
        const value = this.take(':') ? this.conditional() : undefined;
        if (entries.length + items.length === 0 && this.is('for', 'async')) {
          const clauses = this.clauses();
          this.expect('}');
          const form = value === undefined ? 'set' : 'dictionary';
          return this.comprehension(start, form, first, value, clauses);
        }
        if (value === undefined) items.push(first);
        else entries.push([first, value]);
      }
      if (entries.length > 0 && items.length > 0) this.fail();
      if (!this.take(',')) break;
    }
    this.expect('}');
    if (items.length > 0) return this.node(start, { kind: 'set' as const, items });
    return this.node(start, { kind: 'dictionary' as const, entries });
  }

  /** String literals side by side are one string. */
  private strings(): Expression {
    const { start } = this.token;
    const parts: FormatPart[] = [];
    let other: string | undefined;
    let formatted = false;
    let bytes: boolean | undefined;
    for (; this.token.kind === 'string'; this.position += 1) {
      const [, prefix = '', quotes = ''] = /^([a-zA-Z]*)('''|"""|'|")/.exec(this.token.text) ?? [];
      const body = this.token.text.slice(prefix.length + quotes.length, -quotes.length);
      const isBytes = /b/i.test(prefix);
      if (bytes !== undefined && bytes !== isBytes) {
        throw new PythonSyntaxError('bytes and text stand side by side');
      }
      bytes = isBytes;
      if (isBytes) other = 'bytes';
      const raw = /r/i.test(prefix);
      if (/f/i.test(prefix)) {
        formatted = true;
        parts.push(...formatParts(body, raw, 0));
        continue;
      }
      const value = raw ? body : unescaped(body);
      if (value === undefined) other = '"\\N"';
      parts.push(value ?? '');
    }
    if (other !== undefined) return this.node(start, { kind: 'other' as const, what: other });
    if (formatted) return this.node(start, { kind: 'f-string' as const, parts });
    return this.node(start, { kind: 'string' as const, value: parts.join('') });
  }

  // --- statements ------------------------------------------------------------------------------

  line(): Line {
    const header = this.header();
    const statements: SimpleStatement[] = [];
    while (this.token.kind !== 'end' && this.token.kind !== 'newline') {
      statements.push(this.simple());
      if (!this.take(';')) break;
    }
    this.end();
    if (header === undefined && statements.length === 0) this.fail('expected a statement');
    return { header, statements };
  }

  private header(): BlockHeader | undefined {
    const keyword = this.token.kind === 'name' ? this.token.text : '';
    switch (keyword) {
      case 'if':
      case 'elif':
      case 'while': {
        this.position += 1;
        const condition = this.expression();
        this.expect(':');
        return { kind: keyword, condition };
      }
      case 'else':
      case 'try':
      case 'finally':
        this.position += 1;
        this.expect(':');
        return keyword === 'else' ? { kind: keyword } : { kind: 'block', keyword };
      case 'for': {
        this.position += 1;
        const target = this.target();
        this.expect('in');
        const iterable = this.list(':');
        this.expect(':');
        return { kind: 'for', target, iterable };
      }
      case 'async':
        this.position += 1;
        if (!this.is('def', 'for', 'with')) this.fail();
        this.header();
        return { kind: 'block', keyword };
      case 'except':
        this.position += 1;
        this.take('*');
        if (!this.is(':')) this.expression();
        if (this.take('as')) this.name();
        this.expect(':');
        return { kind: 'block', keyword };
      case 'with':
        this.position += 1;
        do {
          this.expression();
          if (this.take('as')) checkTarget(this.primary());
        } while (this.take(','));
        this.expect(':');
        return { kind: 'block', keyword };
      case 'def':
      case 'class':
        this.position += 1;
        this.name();
        if (this.is('(')) this.definition();
        else if (keyword === 'def') this.fail();
        if (keyword === 'def' && this.take('->')) this.expression();
        this.expect(':');
        return { kind: 'block', keyword };
      case 'match':
      case 'case':
        return this.match(keyword);
      default:
        return undefined;
    }
  }

  /** The parameters of `def`, or what a `class` inherits from. */
  private definition(): void {
    this.expect('(');
    while (!this.is(')')) {
      if (!this.take('/')) {
        const stars = this.take('*', '**');
        if (!stars || !this.is(',')) {
          this.conditional();
          if (this.take(':')) this.conditional();
          if (this.take('=')) this.conditional();
        }
      }
      if (!this.take(',')) break;
    }
    this.expect(')');
  }

  /** "match" and "case" are names, too. Returns undefined if this is not the begin of such a block. */
  private match(keyword: string): BlockHeader | undefined {
    const start = this.position;
    this.position += 1;
    try {
      this.list(':');
      if (keyword === 'case' && this.take('if')) this.expression();
      this.expect(':');
      if (this.token.kind === 'end' || this.token.kind === 'newline') {
        return { kind: 'block', keyword };
      }
    } catch (error) {
      if (!(error instanceof PythonSyntaxError)) throw error;
    }
    this.position = start;
    return undefined;
  }

  private simple(): SimpleStatement {
    const keyword = this.token.kind === 'name' ? this.token.text : '';
    switch (keyword) {
      case 'pass':
        this.position += 1;
        return { kind: 'pass' };
      case 'break':
      case 'continue':
        this.position += 1;
        return { kind: 'keyword', keyword };
      case 'del':
        this.position += 1;
        this.list(';');
        return { kind: 'keyword', keyword };
      case 'assert':
        this.position += 1;
        this.conditional();
        if (this.take(',')) this.conditional();
        return { kind: 'keyword', keyword };
      case 'raise':
      case 'return':
        this.position += 1;
        if (!this.is(';') && this.token.kind !== 'end' && this.token.kind !== 'newline') {
          this.list(';');
          if (keyword === 'raise' && this.take('from')) this.conditional();
        }
        return { kind: 'keyword', keyword };
      case 'global':
      case 'nonlocal':
        this.position += 1;
        do this.name();
        while (this.take(','));
        return { kind: 'keyword', keyword };
      case 'yield':
        this.yields();
        return { kind: 'keyword', keyword };
      case 'import':
        return this.import();
      case 'from':
        this.position += 1;
        while (this.take('.', '...'));
        if (!this.is('import')) this.dottedName();
        this.expect('import');
        if (!this.take('*')) this.importedNames();
        return { kind: 'keyword', keyword: 'from … import' };
      default:
        return this.assignment();
    }
  }

  private dottedName(): string {
    let name = this.name();
    while (this.take('.')) name += `.${this.name()}`;
    return name;
  }

  private importedNames(): void {
    const parenthesis = this.take('(');
    do {
      if (parenthesis && this.is(')')) break;
      this.name();
      if (this.take('as')) this.name();
    } while (this.take(','));
    if (parenthesis) this.expect(')');
  }

  private import(): SimpleStatement {
    this.position += 1;
    const modules: string[] = [];
    let renamed = false;
    do {
      modules.push(this.dottedName());
      if (this.take('as')) {
        this.name();
        renamed = true;
      }
    } while (this.take(','));
    return renamed ? { kind: 'keyword', keyword: 'import … as' } : { kind: 'import', modules };
  }

  private assignment(): SimpleStatement {
    const first = this.list('=', ';', ':');
    if (this.take(':')) {
      checkTarget(first);
      this.conditional();
      if (!this.take('=')) return { kind: 'keyword', keyword: 'a name with a type' };
      return { kind: 'assignment', targets: [first], operator: undefined, value: this.value() };
    }
    if (this.token.kind === 'operator' && augmented.has(this.token.text)) {
      const operator = this.token.text.slice(0, -1);
      this.position += 1;
      checkTarget(first);
      if (first.kind === 'tuple' || first.kind === 'list') this.fail();
      return { kind: 'assignment', targets: [first], operator, value: this.value() };
    }
    if (!this.is('=')) return { kind: 'expression', expression: first };
    const targets: Expression[] = [];
    let value = first;
    while (this.take('=')) {
      checkTarget(value);
      targets.push(value);
      value = this.value();
    }
    return { kind: 'assignment', targets, operator: undefined, value };
  }

  private value(): Expression {
    const { start } = this.token;
    if (!this.is('yield')) return this.list('=', ';');
    this.yields();
    return this.node(start, { kind: 'other' as const, what: '"yield"' });
  }
}

function checkTarget(target: Expression): void {
  const { kind } = target;
  if (kind === 'name' || kind === 'attribute' || kind === 'subscript') return;
  if (kind === 'starred') checkTarget(target.value);
  else if (kind === 'tuple' || kind === 'list') {
    for (const item of target.items) checkTarget(item);
  } else throw new PythonSyntaxError('the left side cannot be assigned to');
}

function numberValue(text: string) {
  const digits = text.replaceAll('_', '');
  if (/[jJ]$/.test(digits)) return { kind: 'other' as const, what: 'a complex number' };
  if (/^(?:0[xXoObB].*|\d+)$/.test(digits)) {
    return { kind: 'integer' as const, value: BigInt(digits) };
  }
  return { kind: 'float' as const, value: Number(digits) };
}

/** The parts of an f-string's body, or of a format in one. */
function formatParts(body: string, raw: boolean, level: number): FormatPart[] {
  const parts: FormatPart[] = [];
  let text = '';
  const flush = () => {
    const value = raw ? text : unescaped(text);
    if (value === undefined) throw new PythonSyntaxError('"\\N" in an f-string is not supported');
    if (value !== '') parts.push(value);
    text = '';
  };
  for (let position = 0; position < body.length; ) {
    const character = body[position] ?? '';
    if (
      (character === '{' || character === '}') &&
      body[position + 1] === character &&
      level === 0
    ) {
      text += character;
      position += 2;
    } else if (character === '}') {
      throw new PythonSyntaxError('an f-string has a single "}"');
    } else if (character === '{') {
      flush();
      if (level > 1) throw new PythonSyntaxError('an f-string is nested too deeply');
      const [field, end] = formatField(body, position + 1, raw, level);
      parts.push(field);
      position = end;
    } else {
      text += character;
      position += 1;
    }
  }
  flush();
  return parts;
}

/** The field of an f-string whose content begins at `start`, and the position after its brace. */
function formatField(
  body: string,
  start: number,
  raw: boolean,
  level: number,
): [Exclude<FormatPart, string>, number] {
  let depth = 0;
  let quote = '';
  let end = start;
  for (; end < body.length; end += 1) {
    const character = body[end] ?? '';
    // As in Python before 3.12.
    if (character === '\\' || character === '#') {
      throw new PythonSyntaxError(`an expression in an f-string has "${character}"`);
    }
    if (quote !== '') {
      if (character === quote) quote = '';
    } else if (character === "'" || character === '"') quote = character;
    else if ('([{'.includes(character)) depth += 1;
    else if (depth > 0 && ')]}'.includes(character)) depth -= 1;
    else if (depth === 0 && (character === '}' || character === ':')) break;
    else if (depth === 0 && character === '!' && body[end + 1] !== '=') break;
  }
  const code = body.slice(start, end);
  if (/(?<![=!<>])=\s*$/.test(code))
    throw new PythonSyntaxError('"=" in an f-string is not supported');
  const value = parseExpression(code);
  let conversion: string | undefined;
  if (body[end] === '!') {
    conversion = body[end + 1];
    if (conversion === undefined || !'rsa'.includes(conversion)) {
      throw new PythonSyntaxError('an f-string has a wrong conversion');
    }
    end += 2;
  }
  if (body[end] !== ':') {
    if (body[end] !== '}') throw new PythonSyntaxError('an f-string lacks a "}"');
    return [{ value, conversion, format: undefined }, end + 1];
  }
  let braces = 0;
  const formatStart = end + 1;
  for (end = formatStart; end < body.length; end += 1) {
    if (body[end] === '{') braces += 1;
    else if (body[end] === '}') {
      if (braces === 0) break;
      braces -= 1;
    }
  }
  if (body[end] !== '}') throw new PythonSyntaxError('an f-string lacks a "}"');
  const format = formatParts(body.slice(formatStart, end), raw, level + 1);
  return [{ value, conversion, format }, end + 1];
}

/** Whether a bracket is open at the end of the text, so that the next line belongs to it. Throws PythonSyntaxError. */
export function openBrackets(text: string): boolean {
  let depth = 0;
  for (const { kind, text: token } of tokensOf(text)) {
    if (kind !== 'operator') continue;
    if ('([{'.includes(token)) depth += 1;
    else if (')]}'.includes(token)) depth -= 1;
  }
  return depth > 0;
}

/** The expression that the text is. Throws PythonSyntaxError. */
export function parseExpression(text: string): Expression {
  const parser = new Parser(text.trim());
  const expression = parser.expression();
  parser.end();
  return expression;
}

/**
 * The statements of one logical line, such as `if x:`, `y = 1; z = 2` or `for k in keys: pass`. Bottle's
 * `end` is no statement. Throws PythonSyntaxError.
 */
export function parseStatement(text: string): Line {
  return new Parser(text.trim()).line();
}

/** What `parse` (parseExpression or parseStatement) gives for the text; undefined if that is not Python. */
export function ifPython<T>(parse: (text: string) => T, text: string): T | undefined {
  try {
    return parse(text);
  } catch (error) {
    if (error instanceof PythonSyntaxError) return undefined;
    throw error;
  }
}
