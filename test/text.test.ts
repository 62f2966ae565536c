import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import {
  controlCharacters,
  deceptiveCharacters,
  jsonText,
  operand,
  printable,
  printableLines,
  quoted,
  shellWord,
  yamlText,
} from '../src/text.js';
import { repository } from './support/daemon.js';
import { missing, python } from './support/parts.js';

/** Texts that mean something else in YAML, JSON or a shell if they are not quoted. */
const hostileTexts = [
  ...['', ' ', ' a ', 'yes', 'no', 'on', '~', 'null', 'true', '1', '0123', '1e3', '0x1f', '1_0'],
  ...['1:30', '52:54:00:12:34:56', '2026-11-26', '.inf', '.nan', '=', '<<', '-', '---', '...'],
  ...['a: b', 'a:', 'a #b', '#a', '- a', '? a', '[a', '{a', ']', '}', ',', '|', '>', '%a', '@a'],
  ...[
    '*a',
    '&a',
    '!a',
    '!!binary aGk=',
    '`a`',
    '"',
    "'",
    "it's",
    '"a"',
    "'a'",
    '\\',
    'a\\n',
    '\\u2028',
  ],
  ...['a\nb', 'a\r\nb', '\n', 'a\tb', '\ta', 'a\0b', 'a\x1b[2Jb', 'a\x7f\x9fb', 'a\x85b: c #'],
  ...['guest3\u2028bootcmd: [[sh, -c, id]] #', 'a\u2029b', '\ufeffa', 'a\u202eb', 'a\u200bb'],
  ...[
    'a\u{e0061}b',
    'a\ufffe',
    'a\u{10ffff}',
    '🦆',
    '❤\ufe0f',
    'größe',
    '$(id)',
    '$x',
    '; id',
    '!!',
  ],
];

/** What PyYAML's safe loader, which cloud-init uses, reads from each text. */
function readByPyYaml(texts: readonly string[]): unknown[] {
  const program =
    'import json, sys, yaml\nprint(json.dumps([yaml.safe_load(text) for text in json.load(sys.stdin)]))';
  return JSON.parse(
    execFileSync(python, ['-c', program], { input: JSON.stringify(texts), encoding: 'utf8' }),
  );
}

test('control characters end lines or control a terminal, deceptive ones are hidden as well', () => {
  for (const lineEnd of [
    '\n',
    '\r',
    '\v',
    '\f',
    '\x1c',
    '\x1d',
    '\x1e',
    '\x85',
    '\u2028',
    '\u2029',
  ]) {
    assert.match(lineEnd, controlCharacters, `U+${lineEnd.charCodeAt(0).toString(16)}`);
    assert.match(lineEnd, deceptiveCharacters);
  }
  for (const hidden of ['\u202e', '\u200b', '\u00ad', '\ufeff', '\u{e0061}', '\ufe0f', '\ud800']) {
    assert.doesNotMatch(hidden, controlCharacters);
    assert.match(hidden, deceptiveCharacters);
  }
  for (const plain of [' ', '\u00a0', 'é', 'e\u0301', '日本', '🦆', '🧑🏽', 'नमस्ते', '\\', '"']) {
    assert.doesNotMatch(plain, deceptiveCharacters, plain);
  }
});

test('printable text is one line that shows what is hidden', () => {
  assert.equal(
    printable('a\nb\r\x1b[2J\u2028\u202e\u{e0061}\ud800é🦆'),
    'a\\nb\\u000d\\u001b[2J\\u2028\\u202e\\udb40\\udc61\\ud800é🦆',
  );
  assert.equal(printableLines('a:\n\tb\r\n\x1b[2J\u2028'), 'a:\n\tb\\u000d\n\\u001b[2J\\u2028');
  assert.equal(quoted('a\u202e"'), '"a\\u202e\\""');
});

test('JSON is printable and says the same', () => {
  const value = { 'a\u2028': hostileTexts, b: [1, null, true, { c: '\u{e0061}\ud800' }] };
  for (const text of [jsonText(value), jsonText(value, 2)]) {
    assert.deepEqual(JSON.parse(text), value);
    assert.doesNotMatch(text.replaceAll('\n', ''), deceptiveCharacters);
  }
});

test('YAML 1.1 and 1.2 read a quoted text as it was', () => {
  for (const text of hostileTexts) {
    const yaml = `a: ${yamlText(text)}\n`;
    assert.doesNotMatch(yaml.trimEnd(), deceptiveCharacters);
    assert.deepEqual(parse(yaml), { a: text });
    assert.deepEqual(parse(yaml, { version: '1.1' }), { a: text });
  }
  const value = { list: hostileTexts, number: 1, yes: true, none: null };
  assert.deepEqual(parse(yamlText(value)), value);
  assert.equal(yamlText('a\ud800b\\ud800'), '"a\\ufffdb\\\\ud800"');
});

test('PyYAML reads a quoted text as it was', { skip: missing('yaml') }, () => {
  assert.deepEqual(
    readByPyYaml(hostileTexts.map((text) => `- ${yamlText(text)}\n- [${yamlText({ a: text })}]\n`)),
    hostileTexts.map((text) => [text, [{ a: text }]]),
  );
});

test('a shell reads a quoted text as one word', () => {
  const texts = hostileTexts.filter((text) => !text.includes('\0'));
  const printed = execFileSync('sh', ['-c', `printf '%s\\0' ${texts.map(shellWord).join(' ')}`], {
    encoding: 'utf8',
  });
  assert.deepEqual(printed.split('\0').slice(0, -1), texts);
  assert.throws(() => shellWord('a\0b'), /contains NUL/);
});

test('a name in a command that is shown is quoted if a shell needs that', () => {
  assert.deepEqual(
    ['web1', 'db.example.org', 'web 1', '$(id)', "it's", '-x', '-x y'].map(operand),
    ['web1', 'db.example.org', "'web 1'", "'$(id)'", "'it'\\''s'", '-- -x', "-- '-x y'"],
  );
});

test("the libvirt hook escapes the same characters, as one file without this program's modules", () => {
  const hook = readFileSync(join(repository, 'hooks/qemu.ts'), 'utf8');
  const [, pattern] = /const deceptiveCharacters =\s*\/(.*)\/gu;/.exec(hook) ?? [];
  assert.equal(pattern, deceptiveCharacters.source);
});
