import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PythonSyntaxError, parseExpression, parseStatement } from '../src/bottle/python.js';

function isPython(line: string): boolean {
  try {
    parseStatement(line);
    return true;
  } catch (error) {
    assert.ok(error instanceof PythonSyntaxError, `${line}: ${String(error)}`);
    return false;
  }
}

const python = [
  ...[
    'if foo:',
    'if(foo):',
    'if foo: y = 1; z = 2',
    'elif not a in b:',
    'else: # no',
    'while x<1:',
  ],
  ...['for k, (a, b) in d.items():', 'for(i) in [1]:', 'for x in 1, 2: pass', 'try:', 'finally:'],
  ...[
    'except (A, B) as e:',
    'with open("f") as f, g:',
    'def f(a, *, b=1, **c) -> int:',
    'class A(B):',
  ],
  ...[
    'async def f():',
    'match foo:',
    'case [1, *_]:',
    'match = 1',
    'match(1)',
    'import os, sys as s',
  ],
  ...[
    'from . import x',
    'from a.b import (c as d, e,)',
    'from os import *',
    'del a, b[0]',
    'assert a, b',
  ],
  ...['global q', 'raise X from y', 'return', 'yield 1', 'pass; break', 'x: int = 5', 'x: int'],
  ...[
    'a = b = 1, 2',
    'a, = [1]',
    '*a, b = c',
    '[a, b] = c',
    'a.b[c] //= 2',
    'x = yield',
    'lambda: 1',
  ],
  ...[
    'packages',
    '5',
    '-5',
    '"x"',
    '{foo}',
    '{}',
    '{**a, "b": 1}',
    'a[1:2, ::3]',
    'a[:]',
    '(yield)',
  ],
  ...[
    'f(a, *b, c=1, **d)',
    'f(x for x in y)',
    '[x async for x in y if z if w]',
    '{k: v for k in d}',
  ],
  ...[
    'a if b else c if d else e',
    'not a == b',
    '1 < 2 < 3',
    'a is not b not in c',
    '-2 ** -2',
    'a @ b',
  ],
  ...[
    '"a" \'b\' u"c"',
    "b'x' b'y'",
    "r'\\d'",
    "'''a\nb'''",
    '"\\N{BULLET}"',
    '1_000',
    '0x_f',
    '1e3j',
    '.5',
  ],
  ...[
    'f"{a!r:>{w}}" f"{{}}"',
    'f\'{a["b"]}\'',
    '(a :=\n 1)',
    '...',
    'é = 1',
    'lambda *a, b=1, **c: 0',
  ],
];
const notPython = [
  ...['wheel ALL=(ALL) NOPASSWD: ALL', 'sudo ALL=(ALL:ALL) ALL', 'TAG ! tag:x', '@x', '=x', ':x'],
  ...[
    '.x',
    ',',
    '(foo)s',
    'if',
    'if x',
    'end x',
    'else',
    'elif:',
    'for x y:',
    'a = ',
    '= a',
    '1 = a',
  ],
  ...[
    'f() = 1',
    'a + b = 1',
    'a += b += c',
    'x y',
    '(a',
    'a)',
    '[a',
    "'a",
    '"""a"',
    'a === b',
    '!a',
  ],
  ...['a && b', 'a || b', 'a ? b : c', 'a => b', '`a`', '/a/', 'a++', '01', '1a', '0b2', '$x'],
  ...[
    'f(a=1, b)',
    'f(x for x in y, 1)',
    'f(1, x for x in y)',
    "f'{a'",
    "f'}'",
    "f'{}'",
    "f'{a!x}'",
  ],
  ...[
    "'\\x1'",
    "'\\U00110000'",
    "b'a' 'b'",
    'lambda x',
    'import',
    'from x',
    'import a.',
    'None = 1',
  ],
  ...[
    'class',
    'def f:',
    '',
    '# only a comment',
    ';',
    'a;;b',
    'is a',
    'not',
    'a not b',
    '{1: 2, 3}',
  ],
];

test('a line is taken for Python if Python would take it', () => {
  assert.deepEqual(
    python.filter((line) => !isPython(line)),
    [],
  );
});

test('a line is not taken for Python if Python would refuse it', () => {
  assert.deepEqual(notPython.filter(isPython), []);
});

test('text that is nested without end is an error, and no exhausted stack', () => {
  for (const open of ['(', '[', '{', '-', 'not ', 'lambda: ', 'a[', 'f(', '1 if 2 else ', '2**']) {
    assert.equal(isPython(open.repeat(100_000)), false, open);
  }
});

/** The tree without positions. */
function tree(text: string): unknown {
  const plain = (_key: string, value: unknown) => {
    if (typeof value === 'bigint') return `${value}n`;
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
    return Object.fromEntries(
      Object.entries(value).filter(([key]) => key !== 'start' && key !== 'end'),
    );
  };
  return JSON.parse(JSON.stringify(parseExpression(text), plain));
}

test('operators bind as in Python', () => {
  const integer = (value: number) => ({ kind: 'integer', value: `${value}n` });
  const binary = (left: unknown, operator: string, right: unknown) => ({
    ...{ kind: 'binary', operator, left, right },
  });
  const negative = (operand: unknown) => ({ kind: 'unary', operator: '-', operand });
  assert.deepEqual(
    tree('1 - 2 - 3 * 4'),
    binary(binary(integer(1), '-', integer(2)), '-', binary(integer(3), '*', integer(4))),
  );
  assert.deepEqual(tree('-2 ** 3'), negative(binary(integer(2), '**', integer(3))));
  assert.deepEqual(
    tree('2 ** 3 ** 4'),
    binary(integer(2), '**', binary(integer(3), '**', integer(4))),
  );
  assert.deepEqual(tree('1 < 2 is not 3'), {
    kind: 'comparison',
    first: integer(1),
    rest: [
      ['<', integer(2)],
      ['is not', integer(3)],
    ],
  });
});

test('escapes in strings mean what they mean in Python', () => {
  const value = (text: string) => (tree(text) as { value: string }).value;
  assert.equal(value(String.raw`'\n\t\\\'\"\x41\u00e9\U0001f600\101\0'`), '\n\t\\\'"Aé😀A\0');
  assert.equal(value(String.raw`'\d\.\q'`), '\\d\\.\\q');
  assert.equal(
    value(String.raw`r'\n' "\
x"`),
    '\\nx',
  );
});
