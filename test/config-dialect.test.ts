import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { ConfigError, parseConfigFile } from '../src/config/dialect.js';
import { missing, python } from './support/parts.js';
import { rowName } from './support/rows.js';

/** Sections with their keys and values in order, or that the text was refused. */
type Outcome = readonly (readonly [string, readonly (readonly [string, string])[]])[] | 'refused';

const skip = missing('python');

// Files are opened as ConfigParser.read opens them: all line ends become "\n".
const oracle = `
import configparser, io, json, sys
outcomes = []
for text in json.load(sys.stdin):
    parser = configparser.ConfigParser()
    try:
        parser.read_file(io.TextIOWrapper(io.BytesIO(text.encode()), encoding='utf-8'), 'test')
        outcomes.append([[name, parser.items(name)] for name in parser.sections()])
    except configparser.Error:
        outcomes.append('refused')
json.dump(outcomes, sys.stdout)
`;

function pythonOutcomes(texts: readonly string[]): Outcome[] {
  const run = spawnSync(python, ['-X', 'utf8', '-c', oracle], {
    input: JSON.stringify(texts),
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  assert.equal(run.stderr, '');
  return JSON.parse(run.stdout) as Outcome[];
}

/** The message of the refusal, which has to be one line of the right error that names the file. */
function refusal(text: string): string {
  try {
    parseConfigFile(text, 'test.conf');
  } catch (error) {
    assert.ok(error instanceof ConfigError, `not a ConfigError: ${error}`);
    assert.match(error.message, /^test\.conf:\d+: [^\0-\x1f\x7f-\x9f\u2028\u2029]+$/);
    return error.message;
  }
  return assert.fail(`not refused: ${JSON.stringify(text)}`);
}

function ownOutcome(text: string): Outcome {
  try {
    return [...parseConfigFile(text, 'test.conf')].map(
      ([section, entries]) =>
        [section, [...entries].map(([key, { value }]) => [key, value] as const)] as const,
    );
  } catch {
    refusal(text);
    return 'refused';
  }
}

const one = (key: string, value: string): Outcome => [['s', [[key, value]]]];

/** What it protects, the text, what it has to give. */
const cases: readonly (readonly [string, string, Outcome])[] = [
  ['a plain option', '[s]\nk = v\n', one('k', 'v')],
  ['a "#" in a value belongs to it', '[s]\nk = p#ss', one('k', 'p#ss')],
  ['a " #" in a value belongs to it', '[s]\nk = p # ss', one('k', 'p # ss')],
  [
    'a ";" in a value belongs to it',
    '[s]\nk = command="a; b" ssh-rsa AAAA u@h',
    one('k', 'command="a; b" ssh-rsa AAAA u@h'),
  ],
  ['a value may start with a comment sign', '[s]\nk = #v', one('k', '#v')],
  ['double quotes are kept', '[s]\nk = "v"', one('k', '"v"')],
  ['single quotes are kept', "[s]\nk = 'v'", one('k', "'v'")],
  ['a lone quote is kept', '[s]\nk = "', one('k', '"')],
  ['quotes that JSON reads are kept', '[s]\nk = "a\\nb"', one('k', '"a\\nb"')],
  ['backslashes are kept', '[s]\nk = a\\;\\#\\\\b\\', one('k', 'a\\;\\#\\\\b\\')],
  ['true stays text', '[s]\nk = true', one('k', 'true')],
  ['false stays text', '[s]\nk = false', one('k', 'false')],
  ['null stays text', '[s]\nk = null', one('k', 'null')],
  ['123 stays text', '[s]\nk = 123', one('k', '123')],
  ['"true" keeps its quotes', '[s]\nk = "true"', one('k', '"true"')],
  ['keys are lower case', '[s]\nMiXed = V', one('mixed', 'V')],
  ['keys outside of ASCII are lower case', '[s]\nÉΣİß = V', one('éσi̇ß', 'V')],
  ['section names stand as they are', '[S s]\nk = v', [['S s', [['k', 'v']]]]],
  ['spaces in brackets belong to the name', '[ s ]\nk = v', [[' s ', [['k', 'v']]]]],
  ['":" separates', '[s]\nk: v', one('k', 'v')],
  ['the first of ":" and "=" separates', '[s]\nk: a=b', one('k', 'a=b')],
  ['the first of "=" and ":" separates', '[s]\nk = a:b', one('k', 'a:b')],
  ['a second "=" belongs to the value', '[s]\nk == v', one('k', '= v')],
  ['no spaces are needed', '[s]\nk=v', one('k', 'v')],
  ['spaces in keys', '[s]\na key = v', one('a key', 'v')],
  ['white space around is stripped', '[s]\nk \t = \t v \t ', one('k', 'v')],
  ['an empty value', '[s]\nk =', one('k', '')],
  ['an empty value with ":"', '[s]\nk:   ', one('k', '')],
  [
    'empty values stay apart',
    '[s]\na =\nb =\n',
    [
      [
        's',
        [
          ['a', ''],
          ['b', ''],
        ],
      ],
    ],
  ],
  ['a whole line comment', '# c\n[s]\n; c\nk = v\n#c', one('k', 'v')],
  ['an indented comment', '[s]\n  # c\nk = v\n  ; c\n', one('k', 'v')],
  ['a continuation', '[s]\nk = a\n  b\n\tc', one('k', 'a\nb\nc')],
  ['a continuation of an empty value', '[s]\nk =\n  a\n  b', one('k', '\na\nb')],
  ['a blank line inside a value', '[s]\nk = a\n\n  b', one('k', 'a\n\nb')],
  [
    'blank lines after a value are not its',
    '[s]\nk = a\n\n\n[t]',
    [
      ['s', [['k', 'a']]],
      ['t', []],
    ],
  ],
  ['a line of spaces inside a value', '[s]\nk = a\n   \n  b', one('k', 'a\n\nb')],
  ['a comment inside a value', '[s]\nk = a\n# c\n  b', one('k', 'a\nb')],
  ['an indented comment inside a value', '[s]\nk = a\n  # c\n  b', one('k', 'a\nb')],
  ['comment and blank inside a value', '[s]\nk = a\n\n; c\n\n  b', one('k', 'a\n\n\nb')],
  ['a continuation that looks like an option', '[s]\nk = a\n  x = b', one('k', 'a\nx = b')],
  ['a continuation that looks like a section', '[s]\nk = a\n  [t]', one('k', 'a\n[t]')],
  [
    'options indented alike',
    '[s]\n  a = 1\n  b = 2',
    [
      [
        's',
        [
          ['a', '1'],
          ['b', '2'],
        ],
      ],
    ],
  ],
  [
    'indentation that lessens',
    '[s]\n  a = 1\n b = 2\n   3',
    [
      [
        's',
        [
          ['a', '1'],
          ['b', '2\n3'],
        ],
      ],
    ],
  ],
  ['an indented section', '  [s]\nk = v', one('k', 'v')],
  ['an indented option after a section', '[s]\n    k = v', one('k', 'v')],
  ['a comment behind a section', '[s] ; note\nk = v', one('k', 'v')],
  ['text behind a section with a "]"', '[s] x ] y\nk = v', [['s] x ', [['k', 'v']]]]],
  ['a section with brackets', '[a[0]]\nk = v', [['a[0]', [['k', 'v']]]]],
  [
    'dots in a section',
    '[a.b]\nk = v\n[a]\nb = w',
    [
      ['a.b', [['k', 'v']]],
      ['a', [['b', 'w']]],
    ],
  ],
  [
    'dots in a key',
    '[s]\na.b.c = v\na = w',
    [
      [
        's',
        [
          ['a.b.c', 'v'],
          ['a', 'w'],
        ],
      ],
    ],
  ],
  [
    'k[] is a key',
    '[s]\nk[] = a\nk = b',
    [
      [
        's',
        [
          ['k[]', 'a'],
          ['k', 'b'],
        ],
      ],
    ],
  ],
  [
    '[k] = v is a section',
    '[s]\n[k] = v',
    [
      ['s', []],
      ['k', []],
    ],
  ],
  ['[] = v is an option', '[s]\n[] = v', one('[]', 'v')],
  ['[]] is a section', '[]]\nk = v', [[']', [['k', 'v']]]]],
  ['__proto__ is a key', '[s]\n__proto__ = v', one('__proto__', 'v')],
  ['__proto__ is a section', '[__proto__]\nk = v', [['__proto__', [['k', 'v']]]]],
  [
    'constructor and toString are names',
    '[constructor]\nconstructor = v\ntoString = w',
    [
      [
        'constructor',
        [
          ['constructor', 'v'],
          ['tostring', 'w'],
        ],
      ],
    ],
  ],
  [
    'numbers are names',
    '[2]\n10 = a\n9 = b\n[1]',
    [
      [
        '2',
        [
          ['10', 'a'],
          ['9', 'b'],
        ],
      ],
      ['1', []],
    ],
  ],
  ['a section with nothing in it', '[s]', [['s', []]]],
  ['nothing at all', '', []],
  ['comments only', '# a\n\n; b\n', []],
  ['CRLF', '[s]\r\nk = a\r\n  b\r\n\r\n  c\r\n', one('k', 'a\nb\n\nc')],
  ['CR alone', '[s]\rk = a\r  b\r', one('k', 'a\nb')],
  ['mixed line ends', '[s]\r\nk = a\n  b\r  c', one('k', 'a\nb\nc')],
  ['tabs count as indentation', '[s]\n\tk = v\n\t\tw', one('k', 'v\nw')],
  ['form feed and vertical tab are white space', '[s]\n\fk\v= v\f\n', one('k', 'v')],
  ['Python strips U+001C to U+001F and U+0085', '[s]\nk = \x1c\x85v\x1f\n', one('k', 'v')],
  ['they indent, too', '[s]\nk = a\n\x1cb', one('k', 'a\nb')],
  ['a no-break space is white space', '[s]\nk\xa0=\xa0v\u3000', one('k', 'v')],
  ['a mark inside the text is none', '[s]\nk = \ufeffv\ufeff', one('k', '\ufeffv\ufeff')],
  ['U+2028 and U+2029 inside a value', '[s]\nk = a\u2028b\u2029c', one('k', 'a\u2028b\u2029c')],
  ['U+0085 inside a value', '[s]\nk = a\x85b', one('k', 'a\x85b')],
  ['NUL and other control characters', '[s]\nk\0 = a\0b\x01\x7f', one('k\0', 'a\0b\x01\x7f')],
  ['text of all sorts', '[é]\nschlüssel = 日本 👍', [['é', [['schlüssel', '日本 👍']]]]],
  ['%% is %', '[s]\nk = 50%% of %%(x)s %%%%', one('k', '50% of %(x)s %%')],
  ['%% over a line end is two', '[s]\nk = a%\n %b', 'refused'],
  ['$ is a character', '[s]\nk = $6$salt$x $(y)', one('k', '$6$salt$x $(y)')],
  ['a single % is refused', '[s]\nk = 50% off', 'refused'],
  ['a % at the end is refused', '[s]\nk = 50%', 'refused'],
  ['three % are refused', '[s]\nk = %%%', 'refused'],
  ['%( without an end is refused', '[s]\nk = %(x', 'refused'],
  ['a reference to no key is refused', '[s]\nk = %(x)s', 'refused'],
  ['a single % in a key is not', '[s]\n50% = v', one('50%', 'v')],
  ['a key twice is refused', '[s]\nk = a\nk = b', 'refused'],
  ['a key twice in other case is refused', '[s]\nk = a\nK : b', 'refused'],
  ['a section twice is refused', '[s]\na = 1\n[t]\n[s]\nb = 2', 'refused'],
  [
    'sections in other case are two',
    '[s]\n[S]',
    [
      ['s', []],
      ['S', []],
    ],
  ],
  ['a key with no separator is refused', '[s]\nkey', 'refused'],
  ['a value that is not indented is refused', '[s]\nk = a\nb', 'refused'],
  ['text before the first section is refused', 'k = v\n[s]', 'refused'],
  ['[] is no section', '[]\nk = v', 'refused'],
  ['a section that is not closed is refused', '[s]\n[t', 'refused'],
  ['an empty key is refused', '[s]\n = v', 'refused'],
  ['an empty key with ":" is refused', '[s]\n: v', 'refused'],
  [
    '[DEFAULT] stands in every section, first and overridden',
    '[a]\nx = 1\ny = 2\n[DEFAULT]\ny = 9\nz = 8\n[b]',
    [
      [
        'a',
        [
          ['y', '2'],
          ['z', '8'],
          ['x', '1'],
        ],
      ],
      [
        'b',
        [
          ['y', '9'],
          ['z', '8'],
        ],
      ],
    ],
  ],
  [
    '[DEFAULT] may come twice',
    '[DEFAULT]\na = 1\n[s]\n[DEFAULT]\nb = 2',
    [
      [
        's',
        [
          ['a', '1'],
          ['b', '2'],
        ],
      ],
    ],
  ],
  ['a key twice in [DEFAULT] is refused', '[DEFAULT]\na = 1\n[DEFAULT]\na = 2', 'refused'],
  [
    '[default] is another section',
    '[default]\na = 1\n[s]',
    [
      ['default', [['a', '1']]],
      ['s', []],
    ],
  ],
  ['[DEFAULT] alone gives nothing', '[DEFAULT]\na = 1', []],
  ['a bad % in [DEFAULT] counts where it is read', '[DEFAULT]\na = %\n[s]', 'refused'],
  ['a bad % in [DEFAULT] that is overridden', '[DEFAULT]\na = %\n[s]\na = 1', one('a', '1')],
  ['a bad % in [DEFAULT] that nobody reads', '[DEFAULT]\na = %', []],
  ['a continuation in [DEFAULT]', '[DEFAULT]\na = 1\n  2\n[s]', one('a', '1\n2')],
  ['a very long line', `[s]\nk = ${'x'.repeat(100_000)}`, one('k', 'x'.repeat(100_000))],
];

/** Where we differ from Python on purpose. */
const differences: readonly {
  reason: string;
  text: string;
  python: Outcome;
  own: Outcome;
}[] = [
  {
    reason: 'editors leave a byte-order mark, and the operator cannot see it',
    text: '\ufeff[s]\nk = v',
    python: 'refused',
    own: one('k', 'v'),
  },
  {
    reason: 'references to other keys are refused, so that no password is made up from a "%("',
    text: '[s]\na = 1\nb = %(a)s',
    python: [
      [
        's',
        [
          ['a', '1'],
          ['b', '1'],
        ],
      ],
    ],
    own: 'refused',
  },
];

for (const [name, text, expected] of cases) {
  test(`the dialect: ${name}`, () => {
    assert.deepEqual(ownOutcome(text), expected);
  });
}

test("Python's ConfigParser gives the same for every case of the dialect", { skip }, async (t) => {
  const outcomes = pythonOutcomes(cases.map(([, text]) => text));
  for (const [index, [name, , expected]] of cases.entries()) {
    await t.test(name, () => {
      assert.deepEqual(outcomes[index], expected);
    });
  }
});

test('the differences from Python are exactly the listed ones', { skip }, async (t) => {
  const outcomes = pythonOutcomes(differences.map(({ text }) => text));
  for (const [index, { reason, text, python: theirs, own }] of differences.entries()) {
    await t.test(reason, () => {
      assert.deepEqual(outcomes[index], theirs);
      assert.deepEqual(ownOutcome(text), own);
    });
  }
});

const names = fc.constantFrom('a', 'B', 'b', 'a.b', 'k[]', '__proto__', 'DEFAULT', 'x y', 'é', '1');
const separators = fc.constantFrom('=', ' = ', ':', ': ', '\t=\t', ' :\f');
// No "(", because references are a listed difference.
const pieces = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom('v', 'true', 'null', '7', 'p#ss', ' ', '  ', '%%', '=') },
  fc.constantFrom(
    ...['%', '#', ';', '"', "'", '\\', '[', ']', ':', '\t', '\f', '\v', '\0', '\x1c', '\x1f'],
    ...['\x85', '\xa0', '\u2028', '\u2029', '\u3000', '\ufeff', 'İ', 'Σ', '日', '👍', '[]', ' ;'],
  ),
);
const values = fc.array(pieces, { maxLength: 6 }).map((parts) => parts.join(''));
const indents = fc.constantFrom('', '', '', '', ' ', '  ', '\t', '\x1c', '\xa0');
const lines = fc.oneof(
  { weight: 2, arbitrary: fc.tuple(indents, names).map(([indent, name]) => `${indent}[${name}]`) },
  { weight: 1, arbitrary: fc.tuple(names, values).map(([name, value]) => `[${name}]${value}`) },
  { weight: 8, arbitrary: fc.tuple(indents, names, separators, values).map((p) => p.join('')) },
  {
    weight: 3,
    arbitrary: fc.tuple(fc.constantFrom(' ', '   ', '\t'), values).map((p) => p.join('')),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(indents, fc.constantFrom('#', ';'), values).map((p) => p.join('')),
  },
  { weight: 2, arbitrary: fc.constantFrom('', '', '  ', '\t') },
  { weight: 1, arbitrary: values },
);
const endings = fc.constantFrom('\n', '\n', '\n', '\r\n', '\r');
const texts = fc
  .tuple(
    fc.constantFrom('[s]\n', '[s]\n', '[s]\n', '[t]\r\n', ''),
    fc.array(fc.tuple(lines, endings), { maxLength: 7 }),
  )
  .map(([start, rest]) => start + rest.flat().join(''))
  .filter((text) => !text.startsWith('\ufeff') && !text.includes('%('));

test("generated texts read as Python's ConfigParser reads them", { skip }, () => {
  const sample = [
    ...fc.sample(texts, 1500),
    ...fc.sample(
      fc.array(pieces, { maxLength: 20 }).map((parts) => `[s]\n${parts.join('')}`),
      300,
    ),
    ...fc.sample(
      fc.string({ unit: 'binary', maxLength: 40 }).filter((text) => !/%\(|^\ufeff/.test(text)),
      200,
    ),
  ];
  const outcomes = pythonOutcomes(sample);
  for (const [index, text] of sample.entries()) {
    assert.deepEqual(ownOutcome(text), outcomes[index], JSON.stringify(text));
  }
  const read = outcomes.filter((outcome) => outcome !== 'refused' && outcome.length > 0);
  assert.ok(read.length > 300, `only ${read.length} of the texts could be read`);
});

test('a value comes with the file and the line of its key', () => {
  const text = '\ufeff# c\r\n[DEFAULT]\r\nd = 1\r\n\r\n[s]\r\na = x\r\n  y\r\n\r\nb: z\r\n';
  assert.deepEqual(
    parseConfigFile(text, 'dir/test.conf'),
    new Map([
      [
        's',
        new Map([
          ['d', { value: '1', file: 'dir/test.conf', line: 3 }],
          ['a', { value: 'x\ny', file: 'dir/test.conf', line: 6 }],
          ['b', { value: 'z', file: 'dir/test.conf', line: 9 }],
        ]),
      ],
    ]),
  );
});

test('a refusal says in one line where and what to do, and repeats no value', async (t) => {
  const messages = [
    [
      'k = v',
      'test.conf:1: expected a section header, such as [mdserver], before the first option',
    ],
    [
      '[s]\nhunter2',
      'test.conf:2: expected "key = value" or "[section]"; indent a line that continues a value',
    ],
    ['[s]\n = hunter2', 'test.conf:2: expected a key before the "="'],
    [
      '[s]\n\n[t]\n[s]',
      'test.conf:4: section [s] already exists on line 1: move the options there, or to a file in /etc/mdserver/conf.d',
    ],
    ['[s]\nk=1\n\nK=2', 'test.conf:4: s.k is already set on line 2: remove one of the two'],
    [
      '[s]\nk = hunter%2',
      'test.conf:2: s.k: single "%" at character 7 of the value: write "%%" for a literal "%"',
    ],
    [
      '[s]\nk = %(hunter)s',
      'test.conf:2: s.k: reference to another key ("%(") at character 1 of the value: write the value itself, or "%%(" for a literal "%("',
    ],
    [
      '[s\x1b[1m\u2028]\n[s\x1b[1m\u2028]',
      'test.conf:2: section [s\\u001b[1m\\u2028] already exists on line 1: move the options there, or to a file in /etc/mdserver/conf.d',
    ],
  ] as const;
  for (const [text, message] of messages) {
    await t.test(rowName(text), () => {
      assert.equal(refusal(text), message);
    });
  }
});

test('big and hostile files are read or refused without getting stuck', () => {
  const million = 1_000_000;
  const spaces = ' '.repeat(4 * million);
  assert.deepEqual(ownOutcome(`[s]\nk = a${spaces}b${spaces}\n${spaces}\n${spaces}c`), [
    ['s', [['k', `a${spaces}b\n\nc`]]],
  ]);
  assert.deepEqual(ownOutcome(`[s]\nk${spaces}= v`), one('k', 'v'));
  assert.deepEqual(ownOutcome(`[s]\nk = ${'%%'.repeat(million)}`), one('k', '%'.repeat(million)));
  assert.deepEqual(ownOutcome(`[s]\nk = v${'\n'.repeat(million)}`), one('k', 'v'));
  assert.deepEqual(
    ownOutcome(`[s]\nk = v${'\n x'.repeat(million)}`),
    one('k', `v${'\nx'.repeat(million)}`),
  );
  assert.deepEqual(ownOutcome(`${'['.repeat(million)}s]`), [[`${'['.repeat(million - 1)}s`, []]]);
  assert.equal(ownOutcome(`[s]\n${'['.repeat(million)}`), 'refused');
  assert.equal(ownOutcome(`${'\0'.repeat(million)}`), 'refused');
  const many = Array.from({ length: 100_000 }, (_, index) => [`k${index}`, 'v'] as const);
  assert.deepEqual(ownOutcome(`[s]\n${many.map((pair) => pair.join('=')).join('\n')}`), [
    ['s', many],
  ]);
});
