import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compileTemplate, TemplateError, templateData } from '../src/userdata/template.js';
import { rowName } from './support/rows.js';

const key = 'ssh-ed25519 AAAAC3Nza ops@lab';
const javascript = '{{% language javascript }}\n';

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
  assert.equal(render("{{1 + 1}} {{0}} {{''}}"), '2 0 ');
  assert.equal(render(`${javascript}{{true}} {{['a', 'b']}} {{4096 / 2}}`), 'true a,b 2048');
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
    '  - b=1\n  - a=2\n.',
  );
  assert.equal(render('{{% const hostname = 1; }}{{hostname}}'), '1', 'a local name wins');
  assert.equal(
    render(
      "{{% if (typeof mdserver_password !== 'undefined') { }}x{{% } }}{{String('foo' in it)}}",
    ),
    'false',
  );
  assert.equal(render('a{{% return }}b'), 'a');
  assert.equal(render("{{% // it's a note }}a{{% /* }} */ }}b"), 'ab');
  assert.equal(render(`${javascript}{{hostname // name }}`), 'web1');
});

test('braces: two as text, "}}" in strings, comments and objects', () => {
  assert.equal(render("{{'{{'}}"), '{{');
  assert.equal(render("{{'}}'}} {{\"a}}\" + '\\'}}'}} {{`}}`}}"), "}} a}}'}} }}");
  assert.equal(render(`${javascript}{{\`}}\n\`}}`), '}}\n');
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
    ...['foo', 'constructor', 'toString', 'valueOf', '__proto__', 'hasOwnProperty'],
    ...['output', 'class', 'default', 'mdserver_password'],
  ]) {
    await t.test(name, () => {
      assert.equal(
        problem(`a\r\nb\n\n${name === 'foo' ? '' : '{{hostname}}'} {{${name}}}\n`),
        `4: unknown name "${name}" in {{${name}}}: set it in [template-data], or correct the name`,
      );
    });
  }
});

test('an unknown name of another language is an error that says how to keep the braces', async (t) => {
  const keeps = '{{% raw }} before and {{% endraw }} after it keep braces that are text';
  const cases: [string, string][] = [
    [
      '{{ v1.local_hostname }}',
      '"v1" in {{v1.local_hostname}}: set it in [template-data], or correct the name; ',
    ],
    [
      '{{public_key_no-such}}',
      '"public_key_no" in {{public_key_no-such}}: set it in [template-data], or correct the name; ',
    ],
    [
      `\${{ secrets.KEY }}`,
      '"secrets" in {{secrets.KEY}}: set it in [template-data], or correct the name; ',
    ],
    [
      'docker ps --format "{{.Names}}"',
      '".Names" in {{.Names}}: set it in [template-data], or correct the name; ',
    ],
    ['{{range .}}', "{{range .}} is not JavaScript: Unexpected token ')'; "],
    [
      "awk '{{print $1}'",
      `"{{" has no "}}" within 65536 characters: add it, or write {{'{{'}} if the braces are text; `,
    ],
    ['a\\d{{4}}', '{{4}} after a regular expression prints 4: '],
    ['[a-z]{{2,4}}', '{{2,4}} after a regular expression prints 2,4: '],
  ];
  for (const [source, expected] of cases) {
    await t.test(rowName(source), () => {
      const message = problem(source).replace(/^1: (?:unknown name )?/, '');
      assert.ok(message.startsWith(expected + keeps), message);
      const kept = `a\n  {{% raw }} \n${source}\n  {{%endraw}}\n{{hostname}}`;
      assert.equal(render(kept), `a\n${source}\nweb1`);
      assert.equal(render(`{{% language none }}\n${source}`), source);
    });
  }
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
    '1: {{public_keys}} is an object: print one of its properties, or write {{yaml(…)}}',
  );
  assert.match(problem('{{hostname.trim}}'), /is a function, which cannot be printed/);
});

test("an exception in a template's code is an error with the line", () => {
  assert.equal(
    problem('a\n{{% if (1) { }}\n{{hostname.upper()}}{{% } }}'),
    '3: {{hostname.upper()}} hostname.upper is not a function; write x.toUpperCase() for x.upper(…)',
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

test('a line that begins with \\% or \\<% loses the backslash and nothing else', () => {
  const source =
    '\\% if x:\n \t\\%wheel\n\\\\% a\na \\% b\n{{hostname}}\\% c\n\\%{{hostname}}\n\\<% d %>\n  \\<%';
  const text = '% if x:\n \t%wheel\n\\\\% a\na \\% b\nweb1\\% c\n%web1\n<% d %>\n  <%';
  assert.equal(render(source), text);
  assert.equal(render(javascript + source), text);
});

test("a line that is a statement of Bottle's is an error with line and new form", async (t) => {
  const inJavaScript = 'write {{% … }} in JavaScript';
  const cases: [string, string][] = [
    ['% if x:', 'write {{% if (…) { }}'],
    ["%if x == 'a:b': # note", 'write {{% if (…) { }}'],
    ['% if (x and\n%   y):', 'write {{% if (…) { }}'],
    ['% if x:\\', 'write {{% if (…) { }}'],
    ['% if x: y = 1; end', 'write {{% if (…) { }}'],
    ['  % elif x:', 'write {{% } else if (…) { }}'],
    ['% else:', 'write {{% } else { }}'],
    ['%else :', 'write {{% } else { }}'],
    ['\t% for k, v in public_keys.items():', 'write {{% for (const … of …) { }}'],
    ['% while True:', 'write {{% while (…) { }}'],
    ['% end', 'write {{% } }}'],
    ['%end', 'write {{% } }}'],
    ['% end # if', 'write {{% } }}'],
    ['% x = hostname', 'write {{% let … = … }}'],
    ['% x, y = 1, 2', 'write {{% let … = … }}'],
    ['% [x, y] = 1, 2', 'write {{% let … = … }}'],
    ['% x = """a\nb"""', 'write {{% let … = … }}'],
    ['% x += 1', 'write {{% … = … }} in JavaScript'],
    ["% d['a'] = 1", 'write {{% … = … }} in JavaScript'],
    ['%# a comment', 'write {{% /* … */ }}'],
    ['%', 'take it out'],
    ['   %  ', 'take it out'],
    ['%% x', 'write \\% for one %'],
    ['% import os.path as p', inJavaScript],
    ['% import os  # for the path', inJavaScript],
    ['% from os import path', inJavaScript],
    ["% include('base.yaml')", "write {{% include('base.yaml') }}"],
    ['% include common', "write {{% include('common') }}"],
    ['% rebase("base.yaml", x=1)', 'write the text of that template'],
    ["% setdefault('x', 1)", "write {{% let name = it['name'] ?? 'default' }}"],
    ['% list.append(1)', inJavaScript],
    ['% len(hostname)', inJavaScript],
    ['% del foo', inJavaScript],
    ['% def f():', inJavaScript],
    ['% try:', inJavaScript],
    ['% except KeyError:', inJavaScript],
    ['% pass', inJavaScript],
    ['% x == y', inJavaScript],
    ['%{x}', inJavaScript],
    ['%5', inJavaScript],
    ['%"x"', inJavaScript],
    ['% print', inJavaScript],
    ['<% if x: %>', 'write {{% if (…) { }}'],
    ['<% x = 1', 'write {{% let … = … }}'],
    ['<% import os; y = 1 %>', inJavaScript],
    ['<%\nimport os\n%>', inJavaScript],
    ['<% x = [\n1]\n%>', 'write {{% let … = … }}'],
  ];
  for (const [line, form] of cases) {
    await t.test(rowName(line), () => {
      for (const end of ['', '\n', '\r\n']) {
        const message = problem(`{{hostname}}\r\n\n${line}${end}`);
        assert.ok(message.startsWith('3: "'), message);
        assert.ok(message.includes(` is a Bottle statement: ${form}, or write `), message);
      }
      assert.equal(render(`${javascript}{{hostname}}\n${line}\n`), `web1\n${line}\n`);
    });
  }
  assert.equal(
    problem('% if x:'),
    '1: "% if x:" is a Bottle statement: write {{% if (…) { }}, or write \\% if the line is text; mdserverctl convert does it',
  );
});

test('other lines with "%" are text', async (t) => {
  const lines = [
    ...[
      '%wheel ALL=(ALL) NOPASSWD: ALL',
      '%sudo   ALL=(ALL:ALL) ALL',
      '% wheel ALL = NOPASSWD: ALL',
    ],
    ...[
      '%include /tmp/part',
      '%packages',
      '%pre-install',
      '%endif',
      '%if 0%{?fedora}',
      '%setup -q',
    ],
    ...['%d items', '% for the record', '% ending', '100 %', 'a % if x:', '%elsewhere:'],
    ...['<%= erb %>', '<%- if x -%>', '<html>', '<%', '{% if x %}', '{# note #}', '% end of it'],
  ];
  for (const line of lines) {
    await t.test(rowName(line), () => {
      for (const text of [line, `${line}\n`, `a\n  ${line}\n`]) assert.equal(render(text), text);
      assert.equal(render(`{{hostname}}\n${line}`), `web1\n${line}`);
    });
  }
});

test('a line with a name alone is text, unless the template has the name', async (t) => {
  const values = { packages: 'x', pre: 'y', install: 'z' };
  for (const line of ['%packages', ' % packages', '%pre-install', '<% packages %>', '%hostname']) {
    await t.test(line, () => {
      assert.match(
        problem(`a\n${line}\n`, dataOf({ values })),
        /^2: "<?% ?.*" is a Bottle statement, because .* in the data: take the line out, or put a backslash before it if it is text$/,
      );
    });
  }
  // Python had no such names.
  for (const line of ['%instance', '%yaml', '%pre-upgrade']) {
    assert.equal(render(`${line}\n{{hostname}}`, dataOf({ values })), `${line}\nweb1`);
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
  .filter((text) => !/(^|[\n\r])[ \t]*(?:\\<?%|<%|%(?!wheel ALL=))/.test(text));

test('text reaches the guest as it is but for its line ends, with and without tags beside it', () => {
  const served = (text: string) => text.replace(/\r\n?/g, '\n');
  fc.assert(
    fc.property(plainText, plainText, (before, after) => {
      assert.equal(render(before), served(before));
      fc.pre(!before.endsWith('{'));
      assert.equal(
        render(`${before}{{hostname}}${after}`),
        `${served(before)}web1${served(after)}`,
      );
      fc.pre(!/^\s*[\\<%]/.test(after));
      fc.pre(!/(?:^|\n)[ \t]*$/.test(served(before)) && !after.endsWith('{'));
      const statement = `${before}{{% if (true) { }}${after}{{% } }}.`;
      assert.equal(render(statement), `${served(before)}${served(after)}.`);
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
  const texts = [' ', '\n', ' \n', '\\', "'", '%a\n', ': ', '  %x\n', '}', '%x y\n'];
  for (const text of texts.map(filled)) {
    await t.test(rowName(text), () => {
      assert.equal(render(text), text);
      assert.equal(render(`{{hostname}}\n${text}`), `web1\n${text}`);
    });
  }
  assert.equal(render(filled('\r\n')), '\n'.repeat(size / 2));
  assert.match(problem(filled('%x(\n')), /^\d+: too many lines with "%" and an open bracket: /);
  assert.match(problem(filled('%\n')), /^1: "%" is a Bottle statement/);
  assert.equal(render(filled('{{% raw }}{{% endraw }}').slice(0, 23 * 9000)), '');
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
