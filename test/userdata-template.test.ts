import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compileTemplate, TemplateError, templateData } from '../src/userdata/template.js';
import { rowName } from './support/rows.js';

const key = 'ssh-ed25519 AAAAC3Nza ops@lab';

function dataOf({
  keys = { default: key } as Record<string, string>,
  values = {} as Record<string, string>,
  password = undefined as string | undefined,
  metadata = {} as Record<string, string>,
} = {}) {
  return templateData(
    {
      publicKeys: Object.entries(keys).map(([name, text]) => ({ name, key: text })),
      templateData: new Map(Object.entries(values)),
      password,
    },
    {
      name: 'web1',
      uuid: '00000002-b581-4ecd-b60e-a9942ad18879',
      mac: '52:54:00:3a:cf:02',
      ipv4: '10.122.0.2',
      ipv6: undefined,
      location: 'lab',
      metadata,
    },
  );
}

function render(source: string, data = dataOf()): string {
  return compileTemplate(source, 'web1.yaml')(data);
}

/** The message of the TemplateError that a template gives; its file and line are checked. */
function problem(source: string, data = dataOf()): string {
  try {
    render(source, data);
  } catch (error) {
    assert.ok(error instanceof TemplateError);
    assert.equal(error.file, 'web1.yaml');
    assert.ok(error.message.startsWith(`web1.yaml:${error.line}: `), error.message);
    assert.ok(!/[\n\r]/.test(error.message), 'one line');
    assert.ok(error.message.length < 400, error.message);
    return error.message.slice('web1.yaml:'.length);
  }
  return assert.fail(`no error: ${source}`);
}

test('renders what Python rendered', () => {
  assert.equal(
    render(
      "#cloud-config\nssh_authorized_keys:\n  - {{public_key_default}}\n  - {{public_key_zoe}}\n  - {{public_keys['adam']}}\n",
      dataOf({
        keys: { default: key, zoe: 'ssh-rsa AAAAB3 zoe@lab', adam: 'ecdsa AAAAE2Vj adam' },
      }),
    ),
    `#cloud-config\nssh_authorized_keys:\n  - ${key}\n  - ssh-rsa AAAAB3 zoe@lab\n  - ecdsa AAAAE2Vj adam\n`,
  );
  const values = {
    foo: 'bar',
    proxy: 'http://10.0.0.1:3128/?a=b',
    prefix: 'vm-',
    domain: 'example.com',
  };
  assert.equal(
    render(
      '#cloud-config\nhostname: {{hostname}}\npassword: {{mdserver_password}}\nfoo: {{foo}}\nproxy: {{proxy}}\nprefix: {{prefix}}\ndomain: {{domain}}\nliteral: { a: $HOME, b: `date`, c: \\n }\n',
      dataOf({ values, password: '$6$salt$hash/with.chars' }),
    ),
    '#cloud-config\nhostname: web1\npassword: $6$salt$hash/with.chars\nfoo: bar\nproxy: http://10.0.0.1:3128/?a=b\nprefix: vm-\ndomain: example.com\nliteral: { a: $HOME, b: `date`, c: \\n }\n',
  );
});

test("without a key named default, templates get Python's word for it, and a loop over the keys does not meet it", () => {
  const loop = '{{% for (const name in public_keys) { }}{{name}} {{% } }}';
  const both = "{{public_key_default}} {{public_keys['default']}} ";
  const word = '__NOT_CONFIGURED__';
  for (const [data, expected] of [
    [dataOf({ keys: {} }), `${word} ${word} `],
    [dataOf({ keys: { ops: 'k' } }), `${word} ${word} ops `],
    [dataOf({ keys: { ops: 'k' }, metadata: { public_keys: 'none' } }), `${word} ${word} `],
    [dataOf({ keys: { default: 'k' } }), 'k k default '],
  ] as const) {
    assert.equal(render(both + loop, data), expected);
  }
});

test('values are printed as they are', () => {
  const values = { html: `a&b <c> "d" 'e'`, js: '$' + "{x} `y` \\n '", lines: 'a\r\nb\n' };
  for (const [name, value] of Object.entries(values)) {
    assert.equal(render(`-{{${name}}}-`, dataOf({ values })), `-${value}-`);
    assert.equal(render(`-{{!${name}}}-{{ ! ${name} }}`, dataOf({ values })), `-${value}-${value}`);
  }
  assert.equal(render("{{1 + 1}} {{true}} {{0}} {{''}} {{['a', 'b']}}"), '2 true 0  a,b');
});

test('the instance can be used, its metadata included', () => {
  assert.equal(
    render(
      "{{instance.name}} {{instance.uuid}} {{instance.mac}} {{instance['ipv4']}} {{instance.ipv6 ?? 'none'}} {{instance.location}} {{instance.metadata.role}}",
      dataOf({ metadata: { role: 'db' } }),
    ),
    'web1 00000002-b581-4ecd-b60e-a9942ad18879 52:54:00:3a:cf:02 10.122.0.2 none lab db',
  );
});

test('code: conditions, loops, local names, optional names', () => {
  assert.equal(
    render("{{% if (hostname === 'web1') { }}yes{{% } else { }}no{{% } }}\n{{%if(0){}}x{{%}   }}"),
    'yes\n',
  );
  assert.equal(
    render(
      '{{% for (const [k, v] of Object.entries(public_keys)) { }}\n  - {{k}}={{v}}\n{{% } }}.',
      dataOf({ keys: { b: '1', a: '2' } }),
    ),
    '\n  - b=1\n\n  - a=2\n.',
  );
  assert.equal(render('{{% const hostname = 1; }}{{hostname}}'), '1', 'a local name wins');
  assert.equal(
    render("{{% if (typeof mdserver_password !== 'undefined') { }}x{{% } }}{{'foo' in it}}"),
    'false',
  );
  assert.equal(render('a{{% return }}b'), 'a');
  assert.equal(render("{{% // it's a note }}a{{% /* }} */ }}b{{hostname // name }}"), 'abweb1');
});

test('braces: two as text, "}}" in strings, comments and objects', () => {
  assert.equal(render("{{'{{'}}"), '{{');
  assert.equal(render("{{'}}'}} {{\"a}}\" + '\\'}}'}} {{`}}\n`}}"), "}} a}}'}} }}\n");
  assert.equal(render('{{ {a: {b: 1}}.a.b }}}} {a: {{hostname}}}'), '1}} {a: web1}');
  assert.equal(render("{{ hostname.replace(/'/g, '') }} don't"), "web1 don't");
});

test('"_" and "-" beside a brace are no trim marks', () => {
  const values = { _x: '1', x_: '2', n: '3' };
  assert.equal(
    render(' {{_x}} \n {{x_}} \n {{-n}} \n{{- n}}\n', dataOf({ values })),
    ' 1 \n 2 \n -3 \n-3\n',
  );
});

test('any name in the data works as a whole tag, whatever it means in JavaScript', async (t) => {
  const names = [
    ...['output', 'capture', 'captureAsync', 'block', 'blockAsync', 'include', 'layout', 'options'],
    ...['__eta', 'it', 'this', 'class', 'default', 'let', 'public', 'null', 'true', 'arguments'],
    ...['eval', 'constructor', 'toString', '__proto__', 'undefined', 'process', 'my-key', 'a.b'],
    ...['2nd', 'name', 'length', 'valueOf'],
  ];
  const templateValues = new Map(names.map((name) => [name, `value of ${name}`]));
  const instance = { uuid: undefined, mac: undefined, ipv4: undefined, ipv6: undefined };
  const data = templateData(
    { publicKeys: [], templateData: templateValues, password: undefined },
    { ...instance, name: 'web1', location: undefined, metadata: {} },
  );
  for (const name of names) {
    await t.test(name, () => {
      assert.equal(
        render(`a{{${name}}}b{{ !${name} }}{{hostname}}`, data),
        `avalue of ${name}bvalue of ${name}web1`,
      );
    });
  }
  assert.equal(render('{{public_key_my-key}}', dataOf({ keys: { 'my-key': 'k' } })), 'k');
  assert.equal(render("{{it['my-key']}}", data), 'value of my-key');
});

test('an unknown name is an error with name and line', async (t) => {
  for (const name of [
    ...['foo', 'constructor', 'toString', 'valueOf', '__proto__', 'hasOwnProperty', 'include'],
    ...['output', 'class', 'default', 'mdserver_password', 'public_key_no-such', 'None'],
  ]) {
    await t.test(name, () => {
      const message = problem(`a\r\nb\n\n${name === 'foo' ? '' : '{{hostname}}'} {{${name}}}\n`);
      const first = name === 'public_key_no-such' ? 'public_key_no' : name;
      assert.equal(
        message,
        `4: unknown name "${first}" in {{${name}}}: set it in [template-data], or correct the name`,
      );
    });
  }
  assert.match(
    problem('{{hostname}}\n{{get("x")}}'),
    /^2: unknown name "get" in \{\{get\("x"\)\}\}/,
  );
});

test('a value that cannot be printed is an error, not "undefined", "NaN" or "[object Object]"', () => {
  assert.equal(
    problem("\n{{public_keys['zoe']}}"),
    "2: {{public_keys['zoe']}} has no value here: write {{… ?? ''}} to print nothing instead",
  );
  assert.match(problem('{{instance.ipv6}}'), /^1: \{\{instance\.ipv6\}\} has no value/);
  assert.match(problem('{{null}}'), /^1: \{\{null\}\} has no value/);
  assert.match(problem('{{public_keys.constructor}}'), /has no value/);
  assert.match(problem('{{constructor.name}}'), /^1: \{\{constructor\.name\}\} Cannot read/);
  assert.match(problem('{{instance.metadata.toString}}'), /has no value/);
  assert.equal(problem('{{hostname - 1}}'), '1: {{hostname - 1}} is not a number');
  assert.equal(
    problem('{{public_keys}}'),
    '1: {{public_keys}} is an object: print one of its properties',
  );
  assert.match(problem('{{hostname.trim}}'), /is a function, which cannot be printed/);
});

test("an exception in a template's code is an error with the line", () => {
  assert.equal(
    problem('a\n{{% if (1) { }}\n{{hostname.upper()}}{{% } }}'),
    '3: {{hostname.upper()}} hostname.upper is not a function',
  );
  assert.equal(problem("\n{{% throw 'st\\nop' }}"), "2: {{% throw 'st\\nop'}} st op");
  assert.match(problem('\n{{% x = 1 }}'), /^2: unknown name "x" in \{\{% x = 1\}\}/);
  assert.match(problem('{{% const f = () => f(); f() }}'), /^1: .*call stack/);
});

test('templates cannot change what other guests get', () => {
  const data = dataOf();
  problem('{{% leaked = 1 }}', data);
  assert.match(problem('{{leaked}}'), /unknown name/);
  assert.equal(render("{{% hostname = 'other' }}{{hostname}}"), 'other');
  assert.equal(render('{{hostname}}'), 'web1');
});

test('a syntax error names the line and the tag, and shows no generated code', async (t) => {
  const cases: [string, RegExp][] = [
    ['a\n{{if x}}\n', /^2: \{\{if x\}\} is not JavaScript: /],
    [
      "a\n\n{{'a' if x else 'b'}}{{hostname}}\n{{hostname}}",
      /^3: \{\{'a' if x else 'b'\}\} is not /,
    ],
    ['{{hostname}}\n{{hostname +}}', /^2: \{\{hostname \+\}\} is not JavaScript: /],
    ['{{hostname;}}', /^1: \{\{hostname;\}\} is not JavaScript: /],
    ["{{hostname}}\n{{don't}}\n", /^2: \{\{don't\}\} is not JavaScript: /],
    ['{{% if (x { }}\n{{% } }}', /^1: \{\{% if \(x \{\}\} is not JavaScript: /],
    ['\n{{% if (1) { }}\n{{hostname}}\n', /^2: \{\{% if \(1\) \{\}\} opens a block that no tag /],
    ['{{hostname}}\n{{% } }}\n', /^2: \{\{% \}\}\} closes a block that no tag opens/],
    ['x\n{{hostname\n', /^2: "\{\{" has no "\}\}"/],
    ['x\n{{}}', /^2: \{\{\}\} is empty/],
    ['x\n{{ \n }}', /^2: \{\{\}\} is empty/],
    [`{{${'('.repeat(60_000)}}}`, /^1: /],
  ];
  for (const [source, expected] of cases) {
    await t.test(rowName(source), () => {
      const message = problem(source);
      assert.match(message, expected);
      assert.ok(!message.includes('__eta'), message);
    });
  }
});

test('a line that begins with \\% loses the backslash and nothing else', () => {
  assert.equal(
    render(
      '\\% if x:\n \t\\%wheel\r\n\\\\% a\na \\% b\n{{hostname}}\\% c\n\\%{{hostname}}\n\\<% d',
    ),
    '% if x:\n \t%wheel\r\n\\\\% a\na \\% b\nweb1\\% c\n%web1\n\\<% d',
  );
});

test("a line that is a statement of Bottle's is an error with line and new form", async (t) => {
  const cases: [string, string][] = [
    ['% if x:', '{{% if (…) { }}'],
    ["%if x == 'a:b': # note", '{{% if (…) { }}'],
    ['  % elif x:', '{{% } else if (…) { }}'],
    ['% else:', '{{% } else { }}'],
    ['%else :', '{{% } else { }}'],
    ['\t% for k, v in public_keys.items():', '{{% for (const … of …) { }}'],
    ['% while True:', '{{% while (…) { }}'],
    ['% end', '{{% } }}'],
    ['%end', '{{% } }}'],
    ['% end # if', '{{% } }}'],
    ['% x = hostname', '{{% let … = … }}'],
    ['% x, y = 1, 2', '{{% let … = … }}'],
    ['% x += 1', '{{% … = … }} in JavaScript'],
    ["% d['a'] = 1", '{{% … = … }} in JavaScript'],
    ['%# a comment', '{{% /* … */ }}'],
    ['% import os.path as p', '{{% … }} in JavaScript'],
    ['% from os import path', '{{% … }} in JavaScript'],
    ["% include('base.yaml')", 'the text of that template'],
    ['% rebase("base.yaml", x=1)', 'the text of that template'],
    ["% setdefault('x', 1)", '{{% … }} in JavaScript'],
    ['% list.append(1)', '{{% … }} in JavaScript'],
    ['% def f():', '{{% … }} in JavaScript'],
    ['% try:', '{{% … }} in JavaScript'],
    ['% except KeyError:', '{{% … }} in JavaScript'],
    ['% pass', '{{% … }} in JavaScript'],
    ['<% if x: %>', '{{% if (…) { }}'],
    ['<% x = 1', '{{% let … = … }}'],
    ['<%\nimport os\n%>', '{{% … }} in JavaScript'],
  ];
  for (const [line, form] of cases) {
    await t.test(rowName(line), () => {
      for (const end of ['', '\n', '\r\n']) {
        const message = problem(`{{hostname}}\r\n\n${line}${end}`);
        assert.ok(message.startsWith('3: "'), message);
        assert.ok(message.includes(` write ${form}, or `), `${line}: ${message}`);
      }
    });
  }
  assert.equal(
    problem('% if x:'),
    `1: "% if" is a Bottle statement: write {{% if (…) { }}, or \\% if the line is text`,
  );
});

test('other lines with "%" are text', async (t) => {
  const lines = [
    '%wheel ALL=(ALL) NOPASSWD: ALL',
    '%sudo   ALL=(ALL:ALL) ALL',
    '% wheel ALL = NOPASSWD: ALL',
    ...[
      '%',
      '%%',
      '% ',
      '%include /tmp/part',
      '%packages',
      '%endif',
      '%if 0%{?fedora}',
      '% x == y',
    ],
    ...['%d items', '% for the record', '% ending', '%{x}', '100 %', 'a % if x:', '%elsewhere:'],
    ...['<%= erb %>', '<%- if x -%>', '<html>', '<%', '{% if x %}', '{# note #}', '% end of it'],
  ];
  for (const line of lines) {
    await t.test(rowName(line), () => {
      for (const text of [line, `${line}\r\n`, `a\n  ${line}\n`]) assert.equal(render(text), text);
      assert.equal(render(`{{hostname}}\n${line}`), `web1\n${line}`);
    });
  }
});

/** Text with all that might be taken for something else, and none of what is. */
const plainText = fc
  .array(
    fc.oneof(
      fc.string({ unit: 'binary', maxLength: 8 }),
      fc.constantFrom(
        ...[
          '\n',
          '\r\n',
          '\r',
          '\n\n',
          ' ',
          '\t',
          '  ',
          '$',
          '$',
          '{x}',
          '`',
          '\\',
          "'",
          '"',
          '\\n',
        ],
        ...[
          '{% if x %}',
          '{# x #}',
          '<%= x %>',
          '}}',
          '{ {',
          '{',
          '%',
          '%wheel ALL=(ALL) ALL',
          '-',
        ],
        ...[
          '_',
          '\u2028',
          '\u2029',
          '\ufeff',
          '\0',
          '#',
          '/*',
          '//',
          '<%~',
          '-%>',
          '&',
          '$&',
          "$'",
        ],
      ),
    ),
  )
  .map((items) => items.join(''))
  .filter((text) => !text.includes('{{'))
  .filter(
    (text) =>
      !/(^|\n)[ \t]*(\\%|<?%[ \t]*[\w#]|<%\s*(\n|$))/.test(text.replaceAll('wheel ALL', '')),
  );

test('text reaches the guest byte for byte, with and without tags beside it', () => {
  fc.assert(
    fc.property(plainText, plainText, (before, after) => {
      assert.equal(render(before), before);
      fc.pre(!before.endsWith('{'));
      assert.equal(render(`${before}{{hostname}}${after}`), `${before}web1${after}`);
      fc.pre(!/^\s*[\\<%]/.test(after));
      const statement = `${before}{{% if (true) { }}${after}{{% } }}.`;
      fc.pre(!after.endsWith('{'));
      assert.equal(render(statement), `${before}${after}.`);
    }),
    { numRuns: 500 },
  );
});

test('any value is printed as it is', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (value) => {
      assert.equal(render('a{{x}}b{{!x}}', dataOf({ values: { x: value } })), `a${value}b${value}`);
    }),
  );
});

test('every source gives a text or a TemplateError', () => {
  const pieces = [
    '{{',
    '}}',
    '{{%',
    '}',
    '{',
    '(',
    ')',
    "'",
    '"',
    '`',
    '/',
    '/*',
    '*/',
    '//',
    '\\',
  ];
  const more = [
    '\n',
    ' ',
    'hostname',
    '!',
    '-',
    '_',
    'it',
    '.',
    ',',
    '1',
    '%',
    '\\%',
    'x',
    '\u2028',
  ];
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...pieces, ...more), { maxLength: 30 }), (items) => {
      try {
        assert.equal(typeof render(items.join('')), 'string');
      } catch (error) {
        assert.ok(error instanceof TemplateError, String(error));
        assert.ok(!/[\n\r]/.test(error.message));
      }
    }),
    { numRuns: 1000 },
  );
});

test('no file content keeps the server busy', { timeout: 60_000 }, async (t) => {
  const size = 4 * 1024 * 1024;
  const filled = (text: string) => text.repeat(Math.floor(size / text.length));
  const texts = [' ', '\n', ' \n', '\r\n', '\\', "'", '%\n', '%a\n', ': ', '  %x\n', '}', '<%\n'];
  for (const text of texts.map(filled)) {
    await t.test(rowName(text), () => {
      assert.equal(render(text), text);
      assert.equal(render(`{{hostname}}\n${text}`), `web1\n${text}`);
    });
  }
  assert.equal(render(filled('\\%\n')), '%\n'.repeat(Math.floor(size / 3)));
  const insides = [
    'a ',
    ' ',
    "'",
    '"',
    '`',
    '/',
    '/*',
    '//',
    '\\',
    '{',
    'a+',
    '{{',
    '(',
    '(/',
    '(/[',
  ];
  for (const inside of insides) {
    await t.test(rowName(inside), () => {
      assert.match(problem(`{{${filled(inside)}`), /^1: "\{\{" has no "\}\}" within 65536 char/);
      problem(`{{x${inside.repeat(16_000)}y}}`);
    });
  }
  const long = `% for ${filled(' in')}`;
  assert.equal(render(long), long);
  assert.equal(render('{{hostname}}\n'.repeat(10_000)), 'web1\n'.repeat(10_000));
  assert.match(problem('{{x}}\n'.repeat(10_001)), /^10001: more than 10000 tags/);
  assert.match(problem(`${'{{hostname}}\n'.repeat(9_000)}{{a b}}`), /^9001: \{\{a b\}\} is not /);
});

test('a value is quoted for YAML, JSON and shells', () => {
  const metadata = { note: `it's "a": b #\n\u2028bootcmd: [id]` };
  const quoted = (source: string) => render(source, dataOf({ metadata, keys: { a: 'k' } }));
  assert.equal(
    quoted('note: {{yaml(instance.metadata.note)}}'),
    String.raw`note: "it's \"a\": b #\n\u2028bootcmd: [id]"`,
  );
  assert.equal(
    quoted('{"note": {{json(instance.metadata.note)}}}'),
    String.raw`{"note": "it's \"a\": b #\n\u2028bootcmd: [id]"}`,
  );
  assert.equal(
    quoted('echo {{sh(instance.metadata.note)}}'),
    `echo 'it'\\''s "a": b #\n\u2028bootcmd: [id]'`,
  );
  assert.equal(quoted("- {{yaml('echo ' + sh(hostname))}}"), `- "echo 'web1'"`);
  assert.equal(
    quoted('{{yaml(public_keys)}} {{yaml(1)}} {{json([true])}} {{sh(2)}}'),
    `{"a":"k"} 1 [true] '2'`,
  );
});

test('what cannot be printed cannot be quoted either', () => {
  for (const name of ['yaml', 'json', 'sh']) {
    assert.equal(
      problem(`{{${name}(instance.ipv6)}}`),
      `1: {{${name}(instance.ipv6)}} has no value here: write {{… ?? ''}} to print nothing instead`,
    );
    assert.match(problem(`{{${name}(0 / 0)}}`), /is not a number$/);
    assert.match(problem(`{{${name}(${name})}}`), /is a function, which cannot be printed$/);
  }
  assert.match(problem("{{sh('a\\0')}}"), /contains NUL/);
});

test('template data with the name of a function hides the function from files', () => {
  const data = dataOf({ values: { yaml: 'a', sh: 'b' } });
  assert.equal(render('{{yaml}} {{sh}} {{json(1)}}', data), 'a b 1');
});

test("an old record's name with line ends reaches templates as a host name", () => {
  const data = templateData(
    { publicKeys: [], templateData: new Map(), password: undefined },
    {
      name: 'guest3\u2028bootcmd: [[sh, -c, id]] #',
      uuid: undefined,
      mac: undefined,
      ipv4: undefined,
      ipv6: undefined,
      location: undefined,
      metadata: {},
    },
  );
  assert.equal(
    render('{{hostname}} {{instance.name}}', data),
    'guest3-bootcmd-sh--c-id guest3-bootcmd-sh--c-id',
  );
});
