/**
 * Templates of Bottle at random: those that operators write, and nasty ones. Most render with the names of
 * `templateHosts`; one in a few has an error in Python, too.
 */

/** A source of random choices. The same seed gives the same ones. */
export interface Chance {
  /** A whole number from 0 to below the limit. */
  below(limit: number): number;
  /** Whether something that happens once in so many times happens now. */
  once(times: number): boolean;
  pick<T>(items: readonly [T, ...T[]]): T;
}

/** Chance by Tommy Ettinger's mulberry32. */
export function chanceOf(seed: number): Chance {
  let state = seed;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (limit: number) => Math.floor(next() * limit);
  return {
    below,
    once: (times) => below(times) === 0,
    pick: (items) => items[below(items.length)] ?? items[0],
  };
}

/** The type of an expression, as far as the generator wants one. */
type Type = 'text' | 'integer' | 'float' | 'flag' | 'texts' | 'integers' | 'keys';

/** What the templates of the hosts below have. */
const dataNames = {
  text: [
    ...['hostname', 'public_key_default', 'public_key_adam', 'foo', 'num', 'empty', 'list', 'role'],
    ...['html', 'quotes', 'unicode', 'spaces', 'net_name', 'size', 'yaml', 'var'],
  ],
  keys: ['public_keys'],
  flag: ['prefix', 'use_dns'],
} as const;

/** A position in a template: the variables that are set there, and how deep expressions may become. */
interface Scope {
  readonly chance: Chance;
  readonly variables: Map<string, Type>;
  readonly depth: number;
  readonly inLoop: boolean;
}

function deeper(scope: Scope): Scope {
  return { ...scope, depth: scope.depth - 1 };
}

/** Names of Python's that mean something in JavaScript or in our templates, and ordinary ones. */
const variableNames = [
  ...['x', 'y', 'z', 'item', 'items', 'name', 'i', 'n', 'key', 'value', 'total', 'result', 'env'],
  ...['x', 'y', 'i', 'k', 'v', 'p', 'l', 's', '_', 'a1', 'camelCase', 'é'],
  ...['new', 'var', 'let', 'const', 'this', 'it', 'function', 'typeof', 'delete', 'void', 'switch'],
  ...['undefined', 'constructor', 'toString', '__proto__', 'eval', 'arguments', 'NaN', 'instance'],
  ...[
    'hostname',
    'foo',
    'json',
    'sh',
    'yaml',
    'print',
    'str',
    'options',
    '__eta',
    'Object',
    'null',
  ],
] as unknown as readonly [string, ...string[]];

const literals = [
  ...["''", '""', "'a'", '"b"', "'web'", "'-'", "','", "', '", "' '", "'.'", "'x y'", "'prod'"],
  ...["'it\\'s'", '"a\\"b"', '"it\'s"', "'\"'", "'a\\nb'", "'tab\\there'", "'back\\\\slash'"],
  ...["'\\x41'", "'\\u00e9'", "'\\101'", "'\\0'", "'\\d'", "'\\.'", "'\\a'", "'\\N{BULLET}'"],
  ...["'é ☃ 片'", "'😀'", "'ß'", "'İ'", "'<b>&'", "'#no'", "'//x'", "'/*'", "'`'", "'${'"],
  ...[
    "'{{'",
    "'}}'",
    "'{{ x }}'",
    "'%'",
    "'<%'",
    "'%>'",
    "'% if x:'",
    "'{'",
    "'}'",
    "'5'",
    "'007'",
  ],
  ...["'-5'", "'1.5'", "' 7 '", "'1_0'", "r'\\n'", "r'\\d+'", "u'x'", "R'a\\b'", "'a' 'b'"],
  ...['\'a\' "b"', "'''x'''", '"""y"""', "'''it's'''", "'a b  c'", "'\\\\'", "'end'", "'if'"],
  ...["'ABC'", "'aBc dEf'", "'a-b-c'", "'a,b,,c'", "'-a-'", "'\\r'", "'\\x85'", "'\\u2028'"],
] as unknown as readonly [string, ...string[]];

const integerLiterals = [
  ...['0', '1', '2', '3', '5', '7', '10', '-1', '-2', '-7', '16', '1024', '4096', '0x1f', '0o17'],
  ...['0b11', '1_000', '2147483648', '9007199254740993', '12345678901234567890', '00'],
] as unknown as readonly [string, ...string[]];

const smallIntegers = ['0', '1', '2', '3', '-1', '-2', '4'] as const;
const floatLiterals = [
  '1.0',
  '0.5',
  '1.5',
  '2.5',
  '-0.5',
  '1e3',

  '1e-7',
  '.5',
  '3.',
] as const;

function variableOf(scope: Scope, type: Type): string | undefined {
  const names = [...scope.variables].flatMap(([name, its]) => (its === type ? [name] : []));
  const [first, ...others] = names;
  return first === undefined ? undefined : scope.chance.pick([first, ...others]);
}

/** An expression of the type: a name, a literal, or one made of others. */
function expression(scope: Scope, type: Type): string {
  const { chance, depth } = scope;
  const variable = chance.once(3) ? variableOf(scope, type) : undefined;
  if (variable !== undefined) return variable;
  if (depth > 0 && chance.once(14)) {
    const inner = deeper(scope);
    const [then, otherwise] = [expression(inner, type), expression(inner, type)];
    return `${then} if ${condition(inner)} else ${otherwise}`;
  }
  if (depth > 0 && chance.once(20)) {
    const inner = deeper(scope);
    return `${operand(inner, type)} ${chance.pick(['or', 'and'])} ${operand(inner, type)}`;
  }
  return makers[type](depth > 0 ? deeper(scope) : scope, depth <= 0 || chance.once(3));
}

/** An expression that can stand beside an operator or before a dot. */
function operand(scope: Scope, type: Type): string {
  const text = expression(scope, type);
  return /^[\w.]+$/.test(text) && !/^\d/.test(text) ? text : `(${text})`;
}

/** Before a dot: mostly a name, as operators write. */
function subject(scope: Scope, type: Type): string {
  const literal = /^['"].*['"]$/;
  const text = expression(scope, type);
  return /^[A-Za-z_]\w*(?:\(\)|\.\w+\(\))*$/.test(text) || literal.test(text) ? text : `(${text})`;
}

function condition(scope: Scope): string {
  const { chance } = scope;
  if (chance.once(4)) return expression(scope, chance.pick(['text', 'integer', 'texts', 'keys']));
  return expression(scope, 'flag');
}

function any(scope: Scope): string {
  const types = ['text', 'text', 'text', 'text', 'integer', 'integer', 'flag', 'texts'] as const;
  const rare = ['float', 'integers', 'keys', 'integer'] as const;
  return expression(
    scope,
    scope.chance.once(8) ? scope.chance.pick(rare) : scope.chance.pick(types),
  );
}

function index({ chance }: Scope): string {
  return chance.pick(smallIntegers);
}

function slice({ chance }: Scope): string {
  const bound = () => (chance.once(2) ? '' : chance.pick(smallIntegers));
  const step = chance.once(5) ? `:${chance.pick(['', '1', '2', '-1', '-2'])}` : '';
  return `[${bound()}:${bound()}${step}]`;
}

const formats = [
  ...[
    '',
    ':>5',
    ':<6',
    ':^7',
    ':*^9',
    ':05',
    ':x',
    ':d',
    ':,',
    '!r',
    '!s',
    ':.2',
    ':s',
    ':+',
    ':02d',
  ],
  ...[':.1f', ':08.3f', '!a', ':%', ':e', ':b', ':#x', ':10'],
] as unknown as readonly [string, ...string[]];

function formatted(scope: Scope): string {
  const { chance } = scope;
  const quote = chance.pick(['"', "'"]);
  const value = () => {
    const text = chance.once(2) ? expression(scope, 'text') : any(scope);
    const plain = text.includes(quote) || /[\\#{}]/.test(text) ? 'hostname' : text;
    const separate = /^[\w.]+$/.test(plain) ? plain : `(${plain})`;
    return `{${separate}${chance.once(3) ? chance.pick(formats) : ''}}`;
  };
  const between = () =>
    chance.pick(['', '-', ' ', ': ', '{{', '}}', 'é', '.', '\\n', '%', '`', '$']);
  return `f${quote}${between()}${value()}${between()}${chance.once(2) ? value() : ''}${quote}`;
}

function percent(scope: Scope): string {
  const { chance } = scope;
  switch (chance.below(6)) {
    case 0:
      return `'%s' % ${operand(scope, 'text')}`;
    case 1:
      return `'%s-%s' % (${any(scope)}, ${any(scope)})`;
    case 2:
      return `'%d%%' % ${operand(scope, 'integer')}`;
    case 3:
      return `'${chance.pick(['%03d', '%5d', '%-5d', '%x', '%i', '%+d'])}' % ${operand(scope, 'integer')}`;
    case 4:
      return `'${chance.pick(['%5s', '%-5s', '%r', '%.2s'])}|' % ${operand(scope, 'text')}`;
    default:
      return `'%(a)s %(b)s' % {'a': ${any(scope)}, 'b': ${any(scope)}}`;
  }
}

function method(scope: Scope): string {
  const { chance } = scope;
  const of = subject(scope, 'text');
  const argument = () => expression(scope, 'text');
  const literal = () => chance.pick(literals);
  switch (chance.below(16)) {
    case 0:
      return `${of}.${chance.pick(['upper', 'lower', 'strip', 'title', 'capitalize', 'swapcase'])}()`;
    case 1:
    case 2:
      return `${of}.replace(${literal()}, ${literal()}${chance.once(4) ? `, ${index(scope)}` : ''})`;
    case 3:
      return `${of}.${chance.pick(['strip', 'lstrip', 'rstrip'])}(${chance.once(2) ? literal() : ''})`;
    case 4:
    case 5:
      return `${of}.split(${chance.once(4) ? '' : literal()})[${index(scope)}]`;
    case 6:
      return `${of}.${chance.pick(['split', 'rsplit'])}(${literal()}, ${index(scope)})[${index(scope)}]`;
    case 7:
      return `${of}.${chance.pick(['partition', 'rpartition'])}(${literal()})[${index(scope)}]`;
    case 8:
      return `${literal()}.join(${expression(scope, 'texts')})`;
    case 9:
      return `${of}.${chance.pick(['zfill', 'center', 'ljust', 'rjust'])}(${chance.pick(['3', '12', '15'])})`;
    case 10:
      return `${of}.${chance.pick(['removeprefix', 'removesuffix'])}(${literal()})`;
    case 11:
      return `${chance.pick(["'{}'", "'{}-{}'", "'{0}{1}{0}'", "'{:>5}|{!r}'", "'{{{}}}'"])}.format(${any(scope)}, ${any(scope)})`;
    case 12:
      return `${literal()}.join([${argument()}, ${argument()}])`;
    case 13:
      return `${of}.${chance.pick(['splitlines()', 'expandtabs()', 'casefold()', 'encode()', 'format()'])}`;
    case 14:
      return `${of}.${chance.pick(['ljust', 'center', 'rjust'])}(8, ${chance.pick(["'*'", "'0'", "'☃'"])})`;
    default:
      return `${literal()}.join(${chance.pick(['c', 'c.upper()', "c + 'x'"])} for c in ${operand(scope, 'text')})`;
  }
}

const makers: Readonly<Record<Type, (scope: Scope, simple: boolean) => string>> = {
  text: (scope, simple) => {
    const { chance } = scope;
    if (simple) {
      return chance.once(3) ? chance.pick(literals) : chance.pick(dataNames.text);
    }
    switch (chance.below(16)) {
      case 0:
        return `${operand(scope, 'text')}[${index(scope)}]`;
      case 1:
        return `${operand(scope, 'text')}${slice(scope)}`;
      case 2:
        return `${operand(scope, 'text')} + ${operand(scope, 'text')}`;
      case 3:
        return `${operand(scope, 'text')} * ${chance.pick(smallIntegers)}`;
      case 4:
      case 5:
        return formatted(scope);
      case 6:
        return percent(scope);
      case 7:
        return `str(${any(scope)})`;
      case 8:
        return `public_keys[${chance.pick(["'default'", "'adam'", "'my-key'", "'nosuch'"])}]`;
      case 9:
        return `public_keys.get(${chance.pick(["'default'", "'nosuch'"])}, ${expression(scope, 'text')})`;
      case 10:
        return `get(${chance.pick(["'foo'", "'empty'", "'nosuch'", "'dnsmasq.gateway'"])}, ${expression(scope, 'text')})`;
      case 11:
        return chance.pick([
          ...([
            "get('foo')",
            "get('role')",
            'repr(foo)',
            'repr(quotes)',
            "setdefault('zone', 'eu')",
          ] as const),
          ...['hex(255)', 'oct(8)', 'bin(5)', 'chr(65)', 'sorted(list)[0]', 'max(foo, role)'],
        ] as unknown as readonly [string, ...string[]]);
      default:
        return method(scope);
    }
  },
  integer: (scope, simple) => {
    const { chance } = scope;
    if (simple) return chance.once(4) ? 'int(num)' : chance.pick(integerLiterals);
    const operators = [
      '+',
      '-',
      '*',
      '//',
      '%',
      '+',
      '*',
      '//',
      '<<',
      '>>',
      '&',
      '|',
      '^',
    ] as const;
    switch (chance.below(9)) {
      case 0:
        return `len(${expression(scope, chance.pick(['text', 'texts', 'keys']))})`;
      case 1:
        return `int(${chance.once(3) ? expression(scope, 'float') : chance.pick(['num', 'size', "'12'", "' 7 '", "'1_0'", "'-3'", "'0x1f', 16"])})`;
      case 2:
        return `${subject(scope, 'text')}.${chance.pick(['count', 'find', 'index', 'rfind'])}(${chance.pick(literals)})`;
      case 3:
        return `${chance.pick(['abs', 'sum', 'max', 'min'])}(${chance.once(2) ? expression(scope, 'integers') : expression(scope, 'integer')})`;
      case 4:
        return `${chance.pick(['max', 'min'])}(${expression(scope, 'integer')}, ${expression(scope, 'integer')})`;
      case 5:
        return `${chance.pick(['-', '~', '+'])}${operand(scope, 'integer')}`;
      case 6:
        return `${operand(scope, 'integer')} ** ${chance.pick(['2', '3', '10', '0', '-1'])}`;
      default:
        return `${operand(scope, 'integer')} ${chance.pick(operators)} ${chance.once(2) ? chance.pick(integerLiterals.slice(0, 9) as [string, ...string[]]) : operand(scope, 'integer')}`;
    }
  },
  float: (scope, simple) => {
    const { chance } = scope;
    if (simple) return chance.pick(floatLiterals);
    switch (chance.below(4)) {
      case 0:
        return `${operand(scope, 'integer')} / ${operand(scope, 'integer')}`;
      case 1:
        return `${operand(scope, 'float')} ${chance.pick(['+', '-', '*', '/', '//', '%', '**'])} ${operand(scope, 'integer')}`;
      case 2:
        return `round(${expression(scope, 'float')}, ${index(scope)})`;
      default:
        return `float(${chance.pick(['num', "'1.5'", "'7'", '3'])})`;
    }
  },
  flag: (scope, simple) => {
    const { chance } = scope;
    if (simple) {
      return chance.pick([
        ...[
          'True',
          'False',
          'foo',
          'empty',
          "role == 'db'",
          "hostname.startswith('web')",
          'prefix',
        ],
        ...["'prod' in hostname", "defined('foo')", "defined('nosuch')", 'use_dns', 'not empty'],
        ...[
          "hostname == 'web-01-prod'",
          "role != 'web'",
          "role in ('db', 'web')",
          'num',
          'public_keys',
        ],
        ...[
          "get('nosuch')",
          "get('foo')",
          'empty is None',
          "num == '5'",
          'num == 5',
          "'adam' in public_keys",
        ],
      ] as unknown as readonly [string, ...string[]]);
    }
    const compare = ['==', '!=', '<', '>', '<=', '>='] as const;
    const type = chance.pick(['text', 'text', 'integer', 'float', 'texts', 'flag'] as const);
    switch (chance.below(9)) {
      case 0:
        return `not ${operand(scope, chance.pick(['flag', 'text', 'integer', 'texts']))}`;
      case 1:
        return `${operand(scope, 'flag')} ${chance.pick(['and', 'or'])} ${operand(scope, 'flag')}`;
      case 2:
        return `${operand(scope, type)} ${chance.pick(compare)} ${operand(scope, type)}`;
      case 3:
        return `${operand(scope, 'text')} ${chance.pick(['in', 'not in'])} ${operand(scope, chance.pick(['text', 'texts', 'keys']))}`;
      case 4:
        return `${subject(scope, 'text')}.${chance.pick(['startswith', 'endswith'])}(${chance.once(4) ? "('a', 'web')" : chance.pick(literals)})`;
      case 5:
        return `${subject(scope, 'text')}.${chance.pick(['isdigit', 'isalpha', 'isalnum', 'isupper', 'islower', 'isspace', 'isnumeric', 'isidentifier'])}()`;
      case 6:
        return `${operand(scope, chance.pick(['text', 'flag', 'keys']))} ${chance.pick(['is', 'is not'])} None`;
      case 7:
        return `${operand(scope, 'integer')} ${chance.pick(compare)} ${operand(scope, 'integer')} ${chance.pick(compare)} ${operand(scope, 'integer')}`;
      default:
        return chance.pick([
          ...[
            'bool(foo)',
            'bool(empty)',
            'bool([])',
            'any([empty, foo])',
            'all([foo, num])',
            '1 in [1, 2]',
          ],
          ...[
            "'' in foo",
            'num == int(num)',
            "any(k == 'adam' for k in public_keys)",
            '1 == 1.0',
            'True == 1',
          ],
          ...[
            'isinstance(foo, str)',
            '[1] == [1]',
            "foo == 'bar' == role",
            'None == empty',
            '(1, 2) == (1, 2)',
          ],
        ] as unknown as readonly [string, ...string[]]);
    }
  },
  texts: (scope, simple) => {
    const { chance } = scope;
    if (simple) {
      return chance.pick([
        ...[
          "list.split(',')",
          "['a', 'b']",
          "hostname.split('-')",
          '[]',
          "['x']",
          'spaces.split()',
        ],
        ...["foo.split('nosuch')", '[foo, role]', 'sorted(public_keys)', "['it\\'s', \"q\"]"],
        ...[
          "list.split(', ')",
          "empty.split(',')",
          'empty.split()',
          "('a', 'b')",
          'public_keys.keys()',
        ],
      ] as unknown as readonly [string, ...string[]]);
    }
    switch (chance.below(10)) {
      case 0:
        return `sorted(${expression(scope, 'texts')}${chance.once(4) ? ', reverse=True' : ''})`;
      case 1:
        return `${operand(scope, 'texts')}${slice(scope)}`;
      case 2:
        return `${operand(scope, 'texts')} + ${operand(scope, 'texts')}`;
      case 3:
      case 4:
        return `[${chance.pick(['p', 'p.upper()', 'p.strip()', "p + '!'", "f'{p}-x'", "'%s' % p"])} for p in ${operand(scope, 'texts')}${chance.once(2) ? ` if ${chance.pick(['p', "p != 'a'", 'len(p) > 1', "'a' in p"])}` : ''}]`;
      case 5:
        return `${operand(scope, 'texts')} * ${index(scope)}`;
      case 6:
        return chance.pick([
          `tuple(${expression(scope, chance.pick(['texts', 'text', 'keys']))})`,
          `[*${operand(scope, 'texts')}]`,
        ]);
      case 7:
        return `${subject(scope, 'text')}.splitlines()`;
      case 8:
        return `[${any(scope)}, ${any(scope)}]`;
      default:
        return `${subject(scope, 'text')}.split(${chance.once(5) ? '' : chance.pick(literals)})`;
    }
  },
  integers: (scope, simple) => {
    const { chance } = scope;
    if (simple)
      return chance.pick([
        '[1, 2, 3]',
        'range(3)',
        '[]',
        'range(1, 4)',
        'range(5, 0, -2)',
        '(4, 2)',
      ]);
    switch (chance.below(4)) {
      case 0:
        return `[int(n) for n in ${chance.pick(["'1,2,3'.split(',')", "['4', '5']"])}]`;
      case 1:
        return `[n * ${index(scope)} for n in ${operand(scope, 'integers')}]`;
      case 2:
        return `sorted(${expression(scope, 'integers')})`;
      default:
        return `[${expression(scope, 'integer')}, ${expression(scope, 'integer')}]`;
    }
  },
  keys: ({ chance }, simple) => {
    if (simple) return 'public_keys';
    return chance.pick([
      "{'a': 'b'}",
      '{}',
      'public_keys',
      "{'a': foo, 'b': role}",
      'dict(public_keys)',
      '{k: v for k, v in public_keys.items()}',
    ]);
  },
};

const lines = [
  ...[
    'plain text',
    'a: b',
    '  - item',
    '',
    '',
    '# comment',
    '#!/bin/sh',
    '#cloud-config',
    '  x: y',
    '---',
  ],
  ...[
    'tab\there',
    '\tindented',
    'trailing  ',
    'é ☃ 片 😀',
    "it's",
    '"quoted"',
    '`tick`',
    '$x $(z) ${',
  ],
  ...[
    'back\\slash',
    '\\n \\t \\\\',
    'ends with \\',
    'ends with \\\\',
    '\\',
    '\\\\',
    '{ x }',
    '{',
    '}',
    '}}',
  ],
  ...[
    'a }} b',
    '{% x %}',
    '{# c #}',
    '{%',
    '%}',
    'a % b',
    '100%',
    'a %if x',
    'a <% b %> c',
    '%>',
    '<b>&amp;',
  ],
  ...[
    '{{hostname}',
    '{hostname}}',
    '{ {hostname} }',
    "awk '{{print $1}' f",
    '{{"}}',
    'a\u000bb',
    'a\fb',
    'a\u0085b',
  ],
  ...[
    'a\u2028b',
    'a\u0000b',
    '\ufeffx',
    '{"a": {"b": {}}}',
    "''' x",
    '"""',
    'x # y',
    '//',
    '/* x */',
    '\\{{foo}}',
  ],
  ...[
    '%%',
    '%% x',
    '\\% x',
    '\\%% y',
    '  \\% z',
    '\\<% x',
    '%wheel ALL=(ALL) ALL',
    '%packages',
    '%5',
    '{{ x',
  ],
] as unknown as readonly [string, ...string[]];

/** A line of text with values in it. */
function textLine(scope: Scope): string {
  const { chance } = scope;
  if (chance.once(4)) return chance.pick(lines);
  const before = chance.pick(['', '', 'a', 'key: ', '  - ', '- "', "'", '$', '#', '\\', 'é', '{ ']);
  const after = chance.pick(['', '', '', 'b', '"', ' z', '}', '\\', '.', ' # c', '  ']);
  const tag = () => {
    const [open, close] = chance.pick([
      ['{{', '}}'],
      ['{{', '}}'],
      ['{{ ', ' }}'],
      ['{{!', '}}'],
      ['{{! ', ' }}'],
    ]);
    return `${open}${any(scope)}${close}`;
  };
  const second = chance.once(3) ? `${chance.pick(['', ' ', '-', ', '])}${tag()}` : '';
  return `${before}${tag()}${second}${after}`;
}

/** How a line of code begins. */
function opener({ chance }: Scope): string {
  return chance.pick(['% ', '% ', '% ', '% ', '%', '  % ', '\t%', '%  ', '%\t']);
}

function ending({ chance }: Scope): string {
  return chance.pick(['', '', '', '', '', '', ' ', ' # comment', '  # if x:', "  # it's"]);
}

const freshTypes = [
  'text',
  'text',
  'text',
  'integer',
  'integer',
  'flag',
  'texts',
  'keys',
  'integers',
  'float',
] as const;

function newVariable({ chance, variables }: Scope, type: Type): string {
  const name = chance.pick(variableNames);
  variables.set(name, type);
  return name;
}

/** An assignment, without its opener. */
function assignment(scope: Scope): string {
  const { chance } = scope;
  switch (chance.below(10)) {
    case 0: {
      const name = variableOf(scope, 'integer');
      if (name !== undefined)
        return `${name} ${chance.pick(['+=', '-=', '*=', '//='])} ${expression(scope, 'integer')}`;
      break;
    }
    case 1: {
      const name = variableOf(scope, 'text');
      if (name !== undefined) return `${name} += ${expression(scope, 'text')}`;
      break;
    }
    case 2: {
      const value = expression(scope, 'texts');
      return `${newVariable(scope, 'text')}, ${newVariable(scope, 'text')} = ${chance.pick([`(${value})[:2]`, "hostname.split('-')[:2]", "'a', 'b'", 'foo, role', "hostname.split('-', 1)"])}`;
    }
    case 3: {
      const name = variableOf(scope, 'texts');
      if (name !== undefined) {
        const value = expression(scope, 'text');
        return chance.pick([
          `${name}.append(${value})`,
          `${name} += [${value}]`,
          `${newVariable(scope, 'texts')} = ${name}`,
        ]);
      }
      break;
    }
    case 4:
      return `setdefault('${chance.pick(['zone', 'foo', 'empty'])}', ${expression(scope, 'text')})`;
    case 5: {
      const name = variableOf(scope, 'keys');
      if (name !== undefined)
        return `${name}['${chance.pick(['a', 'new'])}'] = ${expression(scope, 'text')}`;
      break;
    }
    default:
      break;
  }
  const type = chance.pick(freshTypes);
  const value = expression(scope, type);
  return `${newVariable(scope, type)} = ${value}`;
}

/** What `for` runs over: the target and the iterable. */
function iteration(scope: Scope): string {
  const { chance } = scope;
  switch (chance.below(9)) {
    case 0: {
      const over = chance.pick([
        'range(3)',
        'range(2, 4)',
        'range(int(num))',
        'range(0)',
        'range(6, 0, -2)',
        '[1, 2]',
      ]);
      return `${newVariable(scope, 'integer')} in ${over}`;
    }
    case 1:
      return `${newVariable(scope, 'text')}, ${newVariable(scope, 'text')} in ${chance.pick(['public_keys.items()', 'sorted(public_keys.items())', "[('a', 'b')]", "zip(['a', 'b'], ['c'])"])}`;
    case 2: {
      const over = expression(scope, 'texts');
      return `${newVariable(scope, 'integer')}, ${newVariable(scope, 'text')} in enumerate(${over}${chance.once(3) ? ', 1' : ''})`;
    }
    case 3:
      return `${newVariable(scope, 'text')} in ${chance.pick(['public_keys', 'public_keys.values()', 'sorted(public_keys)', 'public_keys.keys()', 'hostname'])}`;
    case 4:
      return `${newVariable(scope, 'integer')} in ${expression(scope, 'integers')}`;
    default: {
      const over = expression(scope, 'texts');
      return `${newVariable(scope, 'text')} in ${over}`;
    }
  }
}

/** Some lines, each with its end. */
function body(scope: Scope, most: number): string[] {
  const { chance } = scope;
  return Array.from({ length: 1 + chance.below(most) }, () => piece(scope)).flat();
}

function block(scope: Scope): string[] {
  const { chance } = scope;
  const inner = deeper(scope);
  const code = (text: string) => `${opener(scope)}${text}${ending(scope)}`;
  const end = code('end');
  if (chance.once(2)) {
    const result = [code(`if ${condition(inner)}:`), ...body(inner, 2)];
    while (chance.once(4)) result.push(code(`elif ${condition(inner)}:`), ...body(inner, 2));
    if (chance.once(2)) result.push(code('else:'), ...body(inner, 2));
    return [...result, end];
  }
  if (chance.once(12)) {
    return [
      code('c = 0'),
      code(`while c < ${chance.pick(['0', '2', '3'])}:`),
      ...body({ ...inner, inLoop: true }, 2),
      code('c += 1'),
      end,
    ];
  }
  const header = code(`for ${iteration(inner)}:`);
  const loop = [header, ...body({ ...inner, inLoop: true }, 2)];
  if (chance.once(12)) loop.push(code('else:'), ...body(inner, 1));
  return [...loop, end];
}

/** One line, or several that belong together. */
function piece(scope: Scope): string[] {
  const { chance, depth } = scope;
  switch (chance.below(14)) {
    case 0:
    case 1:
      return depth > 0 ? block(scope) : [textLine(scope)];
    case 2:
    case 3:
      return [`${opener(scope)}${assignment(scope)}${ending(scope)}`];
    case 4:
      switch (chance.below(9)) {
        case 0:
          return [`<% ${assignment(scope)} %>`];
        case 1:
          return ['<%', assignment(scope), `  ${assignment(scope)}`.replace(/^ {2}/, ''), '%>'];
        case 2:
          return [`${opener(scope)}# a comment`];
        case 3:
          return [
            `${opener(scope)}include('${chance.pick(['common', 'loop', 'assigns', 'nosuch'])}')`,
          ];
        case 4:
          return [
            `${opener(scope)}${chance.pick(['pass', 'import os', '"text"', 'x', 'foo.upper()', ''])}`,
          ];
        case 5:
          return scope.inLoop
            ? [
                `${opener(scope)}if ${condition(scope)}:`,
                `${opener(scope)}${chance.pick(['break', 'continue'])}`,
                '% end',
              ]
            : [];
        case 6:
          return ['<%', `if ${condition(scope)}:`, `  ${assignment(scope)}`, 'end', '%>'];
        case 7:
          return [`${opener(scope)}${assignment(scope)}; ${assignment(scope)}`];
        default:
          return [
            `${opener(scope)}if (${condition(scope)} and`,
            `${opener(scope).replace('%', ' ')}${expression(scope, 'flag')}):`,
            textLine(scope),
            '% end',
          ];
      }
    default:
      return [textLine(scope)];
  }
}

/** A template at random. */
export function bottleTemplate(chance: Chance): string {
  const scope = {
    chance,
    variables: new Map<string, Type>(),
    depth: 1 + chance.below(3),
    inLoop: false,
  };
  const lineEnd = chance.once(25) ? '\r\n' : '\n';
  const all = body(scope, 4);
  // Bottle takes a text in one line without marks for the name of a file.
  const isName = all.length < 2;
  return all.join(lineEnd) + (chance.once(12) && !isName ? '' : lineEnd);
}

const sharedConfig = `
[public-keys]
adam = ssh-rsa BBBB adam@x
my-key = ssh-rsa CCCC k
`;

function host(
  instance: string,
  values: Readonly<Record<string, string>>,
  options: string,
  key: string,
) {
  const data = Object.entries(values)
    .map(([name, value]) => `${name} = ${value}\n`)
    .join('');
  const items = 'dnsmasq.prefix,dnsmasq.use_dns,dnsmasq.net_name';
  return {
    instance,
    config: `${sharedConfig}default = ${key}\n[template-data]\n${data}_config_items_ = ${items}\n${options}`,
    files: {
      common: 'COMMON {{hostname}}\n',
      loop: '% for k in public_keys:\n{{k}}\n% end\n',
      assigns: '% zone = foo\n',
    },
  };
}

/**
 * Hosts whose templates have the same names with values of the same types: a template is converted with the
 * names of one and rendered with those of another, since hosts and configurations change.
 */
export const templateHosts = [
  host(
    'web-01-prod',
    {
      ...{ foo: 'bar', num: '5', empty: '', list: 'a,b,c', role: 'db', html: `<b>&"'` },
      ...{
        quotes: `it's "q"`,
        unicode: 'é☃片😀',
        spaces: 'a  b c',
        size: '1024',
        yaml: 'yes',
        var: 'v',
      },
    },
    '',
    'ssh-ed25519 AAAAdef me@host',
  ),
  host(
    'db_2.example.org',
    {
      ...{ foo: '0', num: '3', empty: '', list: 'x, y', role: 'web', html: '&lt;i&gt;' },
      ...{ quotes: `"'\\`, unicode: 'İßŉǅ', spaces: '', size: '0', yaml: '007', var: '{{x}}' },
    },
    '',
    'ssh-rsa AAAA=',
  ),
] as const;
