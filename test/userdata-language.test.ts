import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compileTemplate, TemplateError, templateData } from '../src/userdata/template.js';
import { rowName } from './support/rows.js';

const data = templateData(
  {
    publicKeys: [{ name: 'default', key: 'ssh-ed25519 AAAA' }],
    templateData: new Map([
      ['num', '5'],
      ['list', 'a,b'],
    ]),
    password: undefined,
  },
  {
    name: 'web-01-prod',
    uuid: undefined,
    mac: undefined,
    ipv4: undefined,
    ipv6: undefined,
    location: undefined,
    metadata: { size: '4' },
  },
);

/** Renders a template that includes these files. */
function render(source: string, files: Readonly<Record<string, string>> = {}): string {
  const part = (name: string) => {
    const found = files[name];
    return found === undefined ? { problem: 'no such file' } : { path: name, source: found };
  };
  return compileTemplate(source, 'web1', { part })(Object.create(data));
}

function problem(source: string, files: Readonly<Record<string, string>> = {}): string {
  try {
    return assert.fail(`no error: ${render(source, files)}`);
  } catch (error) {
    if (error instanceof TemplateError) return error.message;
    throw error;
  }
}

const isOurs = '{{% language javascript }} as the first line allows it';

test('a statement alone on its line takes the line with it, one beside text takes nothing', () => {
  assert.equal(
    render("{{% let env = 'prod' }}\n#!/bin/sh\n \t{{% if (env) { }} \t\necho {{env}}\n  {{% } }}"),
    '#!/bin/sh\necho prod\n',
  );
  assert.equal(render('a {{% let x = 1 }}\n{{% x += 1 }}b\n{{% x }}{{x}}\n'), 'a \nb\n2\n');
  assert.equal(render('{{% /* of\ntwo lines */ }}\r\na\n'), 'a\n');
});

test('a statement that begins with a bracket is one of its own', () => {
  assert.equal(
    render("{{% let a, b }}{{% [a, b] = hostname.split('-') }}{{a}} {{b}}\n"),
    'web 01\n',
  );
  assert.equal(render('x{{% [1, 2].forEach((v) => v) }}y\n{{% (() => 1)() }}\nz'), 'xy\nz');
});

test('text has LF alone, unless the file is served as it is', () => {
  assert.equal(render('#!/bin/sh\r\necho {{hostname}}\r\rx'), '#!/bin/sh\necho web-01-prod\n\nx');
  assert.equal(
    render('{{% language none }}\r\na\r\n{{.Names}}\r% if x:'),
    'a\r\n{{.Names}}\r% if x:',
  );
});

test('what means something else in Python is refused with the form that is meant', async (t) => {
  const cases: [string, string, string][] = [
    ['{{4096 // 2}}', 'write Math.floor(4096 / 2)', '4096'],
    ["{{hostname.replace('-', '_')}}", "write hostname.replaceAll('-', '_')", 'web_01-prod'],
    ["{{hostname.replace('-', '$&')}}", "write hostname.split('-').join('$&')", 'web-01-prod'],
    [
      "{{list.split(',')}}",
      "write {{yaml(list.split(','))}}, or {{(list.split(',')).join(', ')}}",
      'a,b',
    ],
    ["{{list.split(',') + ['c']}}", "write [...list.split(','), ...['c']]", 'a,bc'],
    ["{{list.split(',', 1)[0]}}", "write list.split(',')", 'a'],
    ["{{num == '5'}}", "write {{String(num == '5')}}", 'true'],
    ['{{num == 5}}', 'write Number(num) for num, or === for ==', 'true'],
    ['{{3 > 2 > 1}}', 'write a < b && b < c', 'false'],
    ['{{num * 2}}', 'write Number(num) * 2 for a number, or num.repeat(2) for text', '10'],
    ['{{yaml(num * 2)}}', 'write Number(num) * 2 for a number', '10'],
    ['{{4096 / 2}}', 'write Math.floor(4096 / 2), or (4096 / 2).toFixed(1)', '2048'],
    ['{{1.0}}', "write '…' in quotes", '1'],
    ["{{'\\d'}}", 'write \\\\d for a backslash', 'd'],
    ["{{'\\T'}}", 'write \\\\T for a backslash', 'T'],
    ["{{'\\U00000041'}}", 'write \\\\U for a backslash', 'U00000041'],
    ["{{'\\N{DASH}'}}", 'write \\\\N for a backslash', 'N{DASH}'],
    ['{{1 << 40}}', 'write the number', '256'],
    ['{{10000000000000000}}', 'write {{String(10000000000000000)}}', '10000000000000000'],
    ['{{ hostname\n}}', 'write it on one line', 'web-01-prod'],
    [
      "{{% let x = hostname.replace('-', '_') }}{{x}}",
      "write hostname.replaceAll('-', '_')",
      'web_01-prod',
    ],
    ['{{% if (num == 5) { }}x{{% } }}', 'write Number(num) for num, or === for ==', 'x'],
  ];
  for (const [source, form, text] of cases) {
    await t.test(rowName(source), () => {
      const message = problem(`a\n${source}`);
      assert.ok(message.startsWith('web1:2: ') && message.includes(form), message);
      assert.ok(message.endsWith(`; ${isOurs}`), message);
      assert.equal(render(`{{% language javascript }}\na\n${source}`), `a\n${text}`);
    });
  }
});

test('what is JavaScript beyond doubt needs no first line', () => {
  assert.equal(
    render(
      "{{hostname.replace(/-/g, '_')}} {{Math.round(instance.metadata.size / 3)}} {{hostname.split('-').length === 3 ? 'a' : 'b'}} {{instance.metadata.size * 2}}",
    ),
    'web_01_prod 1 a 8',
  );
});

test('Python that is no JavaScript is an error with the new form', async (t) => {
  const cases: [string, string][] = [
    ['{{hostname.upper()}}', 'write x.toUpperCase() for x.upper(…)'],
    ["{{num or 'd'}}", 'write x || y for x or y'],
    ["{{'a' if num else 'b'}}", 'write c ? a : b for a if c else b'],
    ['{{len(hostname)}}', 'write x.length'],
    ["{{', '.join(list)}}", 'write y.join(x) for x.join(…)'],
    ["{{f'{hostname}'}}", "for f'…{x}…'"],
    ['{{hostname[0:3]}}', 'write x.slice(a, b) for x[a:b]'],
    ['{{hostname[-1]}}', 'write hostname.at(-1)'],
    ["{{hostname.split('-')[-1] + '.x'}}", "write hostname.split('-').at(-1)"],
    ['{{repr(1 in [5, 6])}}', 'write [5, 6].includes(1)'],
    ["{{-(['a'] == ['a'])}}", 'write the comparison of their parts'],
    ['{{True}}', 'for True'],
    ["{{u'x'}}", 'strings with prefixes'],
    ['{{% if (hostname.startswith(num)) { }}{{% } }}', 'write x.startsWith(y) for x.startswith(…)'],
    ['{{% if (len(hostname)) { }}{{% } }}', 'write x.length'],
  ];
  for (const [source, form] of cases) {
    await t.test(rowName(source), () => {
      const message = problem(source);
      assert.ok(message.includes(form), message);
      assert.ok(!message.includes('[template-data]'), message);
    });
  }
});

test('files are included where they stand, each with names and a language of its own', () => {
  const files = {
    'part.yaml': "{{% let x = 'part' }}\nx: {{x}} {{hostname}}\n",
    'db/outer': "{{% include('part.yaml') }}\n",
    raw: '{{% language none }}\n{{.Names}}\n',
    ours: '{{% language javascript }}\n{{4096 / 2}}\n',
  };
  assert.equal(
    render(
      "{{% let x = 'own' }}\n  {{% include('db/outer') }}\n{{% include(\"raw\"); }}\n{{% include('ours') }}\n{{x}}\n",
      files,
    ),
    'x: part web-01-prod\n{{.Names}}\n2048\nown\n',
  );
});

test('a file that cannot be included is an error with the line', () => {
  const chain = Object.fromEntries(
    Array.from({ length: 10 }, (_, depth) => [`p${depth}`, `{{% include('p${depth + 1}') }}`]),
  );
  assert.equal(problem("a\n{{% include('none') }}"), "web1:2: include('none'): no such file");
  assert.match(
    problem("{{% include('p0') }}", chain),
    /^p7:1: include\('p8'\): is more than 8 files deep/,
  );
  assert.match(
    problem("{{% include('a') }}", { a: "\n{{% include('b') }}", b: "{{% include('a') }}" }),
    /^b:1: include\('a'\): the file includes itself/,
  );
  assert.match(
    problem("{{% include('a') }}", { a: '\n% if x:' }),
    /^a:2: "% if x:" is a Bottle statement.*\(in web1:1\)$/,
  );
  assert.equal(
    problem("{{% include('a') }}", { a: '\n{{nope}}' }).slice(0, 23),
    'a:2: unknown name "nope',
  );
  assert.match(
    problem('{{% include(hostname) }}'),
    /^web1:1: include\(\) takes the name of a file/,
  );
  const long = { long: `${'x'.repeat(1_100_000)}` };
  assert.match(problem("{{% include('long') }}".repeat(4), long), /longer than 4194304 characters/);
  const many = { many: "{{% include('few') }}".repeat(200), few: '{{hostname}}'.repeat(200) };
  assert.match(problem("{{% include('many') }}", many), /more than 10000 tags/);
});

test('the first line, raw and endraw are errors where they mean nothing', () => {
  assert.equal(
    problem('{{% language python }}\n'),
    'web1:1: the language is javascript or none, not python',
  );
  assert.match(problem('a\n{{% language javascript }}\n'), /^web1:2: .* has to be the first line/);
  assert.match(problem('{{% raw }}\n{{x}}'), /^web1:1: .* has no \{\{% endraw \}\}/);
  assert.match(problem('a\n{{% endraw }}'), /^web1:2: .* has no \{\{% raw \}\} before it/);
});

test("jinja in a part of a MIME message or of an archive is the guest's, the other parts are ours", () => {
  const jinja = '## template: jinja\n#cloud-config\n---\nx: {{ v1.y }}\n% if x:\n';
  const mime = (name: string) =>
    `Content-Type: multipart/mixed; boundary="=B="\nMIME-Version: 1.0\n\n--=B=\nContent-Type: text/jinja2\n\n${jinja}--=B=\n\nx: ${name}\n--=B=--\n`;
  assert.equal(render(mime('{{hostname}}')), mime('web-01-prod'));
  const archive = (name: string) =>
    `#cloud-config-archive\n- type: text/jinja2\n  content: |\n${jinja.replace(/^/gm, '    ').trimEnd()}\n- content: |\n    x: ${name}\n`;
  assert.equal(render(archive('{{hostname}}')), archive('web-01-prod'));
});
