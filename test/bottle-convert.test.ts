import assert from 'node:assert/strict';
import { test } from 'node:test';
import { convertTemplate, type PythonValue } from '../src/bottle/convert.js';
import { javaScriptMark } from '../src/bottle/language.js';

const names: ReadonlyMap<string, PythonValue> = new Map<string, PythonValue>([
  ['hostname', 'web-01'],
  ['public_keys', { default: 'ssh-ed25519 AAAA me', 'my-key': 'ssh-rsa BBBB you' }],
  ['public_key_default', 'ssh-ed25519 AAAA me'],
  ['role', 'db'],
  ['pkgs', 'vim, git'],
  ['mem', '4096'],
  ['motd', 'Grüße'],
  ['default', 'word of JavaScript'],
  ['domain', false],
  ['mdserver.password', null],
]);
const parts = new Map([
  ['common.yaml', 'COMMON {{hostname}}\n'],
  ['uses-role.yaml', '{{role}}\n'],
  ['broken.yaml', 'a\n{{nosuch}}\n'],
  ['loop.yaml', "% include('loop.yaml')\n"],
]);

function convert(source: string) {
  return convertTemplate(source, {
    names,
    part(name) {
      const text = parts.get(name);
      return text === undefined ? undefined : { name, source: text };
    },
  });
}

/** The converted template without the mark in its first line. */
function converted(source: string): string {
  const conversion = convert(source);
  assert.ok('text' in conversion, JSON.stringify(conversion));
  assert.equal(conversion.changed, true);
  assert.ok(conversion.text.startsWith(`${javaScriptMark}\n`), conversion.text);
  return conversion.text.slice(javaScriptMark.length + 1);
}

/** The problems, as LINE: PROBLEM. */
function refusal(source: string): string {
  const conversion = convert(source);
  assert.ok('problems' in conversion, JSON.stringify(conversion));
  return conversion.problems.map(({ line, problem }) => `${line}: ${problem}`).join('; ');
}

const same = [
  'no tags at all\n',
  '{{hostname}} {{ role }} {{!pkgs}}\n',
  '{{public_keys[\'my-key\']}} {{ public_keys["default"] }}\n',
  "{{'{{.Names}}'}} %\n",
  '{{default}}\n',
  '#!/bin/sh\r\necho {{hostname}}\r\n',
];
for (const source of same) {
  test(`a template that means the same in both languages stays: ${JSON.stringify(source)}`, () => {
    const conversion = convert(source);
    const isText = /['{]\{\{?\./.test(source);
    if (isText) assert.ok('text' in conversion);
    else assert.deepEqual(conversion, { text: source, changed: false });
  });
}

test('a template that says that it is ours stays', () => {
  for (const mark of ['{{% language javascript }}', '{{%language none}} ']) {
    const source = `${mark}\n% if x\n{{x.replace('a', 'b')}}\n`;
    assert.deepEqual(convert(source), { text: source, changed: false });
  }
});

const expressions: readonly (readonly [python: string, javaScript: string])[] = [
  ["hostname.replace('-', '_')", "hostname.replaceAll('-', '_')"],
  ["hostname.replace('-', '$&')", "hostname.replaceAll('-', () => '$&')"],
  ["hostname.split('-')[0]", "hostname.split('-')[0]"],
  ["hostname.split('-')[1]", "hostname.split('-')[1]"],
  ["'x' + hostname.split('-')[1]", "'x' + hostname.split('-')[1].valueOf()"],
  [
    "hostname.split('-', 1)[-1]",
    "((parts) => parts.length > 1 ? [...parts.slice(0, 1), parts.slice(1).join('-')] : parts)(hostname.split('-')).at(-1)",
  ],
  ["hostname.split('-')", "repr(hostname.split('-'))"],
  ['hostname.upper()', 'hostname.toUpperCase()'],
  ['hostname[:3]', 'hostname.slice(0, 3)'],
  ['hostname[-1]', 'hostname.at(-1)'],
  ["role == 'db'", "role === 'db' ? 'True' : 'False'"],
  ['not role', "(!role ? 'True' : 'False')"],
  ["'a' if role == 'db' else 'b'", "role === 'db' ? 'a' : 'b'"],
  ["domain or 'localdomain'", "domain || 'localdomain'"],
  ['domain', "domain === false ? 'False' : domain"],
  ["get('zone', 'eu')", "typeof zone === 'undefined' ? 'eu' : zone"],
  ["get('role', 'eu')", "typeof role === 'undefined' ? 'eu' : role"],
  ["'y' if defined('zone') else 'n'", "typeof zone !== 'undefined' ? 'y' : 'n'"],
  ["zone if defined('zone') else 'n'", "typeof zone !== 'undefined' ? zone : 'n'"],
  ['int(mem) // 2', 'Math.floor(int(mem) / 2)'],
  ['int(mem) * 2', 'int(mem) * 2'],
  ['len(pkgs)', 'pkgs.length'],
  ['role * 2', 'role.repeat(2)'],
  ["'web' in hostname", "hostname.includes('web') ? 'True' : 'False'"],
  ["role in ('db', 'web')", "['db', 'web'].includes(role) ? 'True' : 'False'"],
  ["', '.join(sorted(public_keys))", "[...Object.keys(public_keys)].sort().join(', ')"],
  [
    "','.join(k.upper() for k in pkgs.split(', ') if k)",
    "pkgs.split(', ').filter((k) => k).map((k) => k.toUpperCase()).join(',')",
  ],
  ["f'{hostname}-{int(mem):>6}'", `\`\${hostname}-\${String(int(mem)).padStart(6)}\``],
  ["'%s.%s' % (hostname, role)", `\`\${hostname}.\${role}\``],
  ["'{}/{}'.format(hostname, role)", `\`\${hostname}/\${role}\``],
  ["public_keys.get('adam', 'none')", "(public_keys['adam'] ?? 'none')"],
  ['default + role', "it['default'] + role"],
  ["1 if 'a' < hostname < 'z' else 0", "'a' < hostname && hostname < 'z' ? 1 : 0"],
];
for (const [python, javaScript] of expressions) {
  test(`{{${python}}} becomes {{${javaScript}}}`, () => {
    assert.equal(converted(`{{!${python}}}\n`), `{{${javaScript}}}\n`);
  });
}

test('what Python computes from literals alone becomes text', () => {
  const source =
    "{{4096 / 2}} {{7 // 2}} {{-7 % 3}} {{10 ** 21}} {{1e16}} {{int(1e16)}} {{'-' * 3}} {{3 > 2 > 1}} {{u'x'}}\n";
  assert.equal(
    converted(source),
    '2048.0 3 2 1000000000000000000000 1e+16 10000000000000000 --- True x\n',
  );
});

test('statements become JavaScript on lines of their own', () => {
  const source = `#cloud-config
% n = 1
% for i, key in enumerate(public_keys.values()):
  % if key.startswith('ssh-rsa'):
  - {{key}}
  % elif role == 'db': n = 2
  % else:
  - {{i}} {{n}}
  % end
% end
<%
  env = 'prod' if 'prod' in hostname else 'dev'
%>
env: {{env}}
% include('common.yaml')
`;
  assert.equal(
    converted(source),
    `{{% let n, env; }}
#cloud-config
{{% n = 1 }}
{{% for (const [i, key] of Object.values(public_keys).map((item, index) => [index, item])) { }}
{{% if (key.startsWith('ssh-rsa')) { }}
  - {{key}}
{{% } else if (role === 'db') { }}
{{% n = 2 }}
{{% } else { }}
  - {{i}} {{n}}
{{% } }}
{{% } }}
{{% env = hostname.includes('prod') ? 'prod' : 'dev' }}
env: {{env}}
{{% include('common.yaml') }}
`,
  );
});

test('text that means something in our language is written so that it is text', () => {
  assert.equal(
    converted('{{hostname} a\n{{ b\n\\% c'),
    "{{'{{'}}hostname} a\n{{'{{'}} b\n{{'%'}} c",
  );
});

test('a name that only one branch binds stays an error where Python has one', () => {
  const source = "% if role == 'web':\n% port = 80\n% end\n{{port}} {{port + 1}}\n";
  assert.equal(
    converted(source),
    "{{% let port; }}\n{{% if (role === 'web') { }}\n{{% port = 80 }}\n{{% } }}\n{{port}} {{port.valueOf() + 1}}\n",
  );
});

test('the keys of a host without a default key are not counted, because Python has one more', () => {
  const public_keys = { adam: 'ssh-rsa BBBB you', default: '__NOT_CONFIGURED__' };
  const options = { names: new Map([['public_keys', public_keys]]), part: () => undefined };
  const of = (source: string) => convertTemplate(source, options);
  assert.deepEqual(of("{{public_keys['default']}}{{public_keys['adam']}}\n"), {
    text: "{{public_keys['default']}}{{public_keys['adam']}}\n",
    changed: false,
  });
  const problem = 'public_keys has no key "default" here, and __NOT_CONFIGURED__ in Python';
  for (const code of ['len(public_keys)', 'public_keys', "','.join(public_keys.values())"]) {
    assert.deepEqual(of(`{{${code}}}\n`), {
      problems: [
        {
          line: 1,
          problem:
            code === 'public_keys'
              ? 'public_keys is a dictionary, which cannot be printed in the same way'
              : problem,
        },
      ],
    });
  }
  assert.deepEqual(of('% for key in public_keys:\n{{key}}\n% end\n'), {
    problems: [{ line: 1, problem }],
  });
});

test('an entry of a dictionary that is True is printed as Python prints it', () => {
  assert.equal(
    converted("% d = {'a': role == 'db'}\n{{d['a']}}\n"),
    "{{% let d; }}\n{{% d = { __proto__: null, ['a']: role === 'db' } }}\n{{d['a'].valueOf() ? 'True' : 'False'}}\n",
  );
});

const refused: readonly (readonly [python: string, problem: string])[] = [
  ['{{nosuch}}', '1: unknown name "nosuch", for which Python fails, too'],
  ['{{mem + 1}}', '1: "+" of mem, which is a string, and 1, which is an integer'],
  [
    "{{get('zone')}}",
    "1: get('zone') may be None, which Bottle 0.12 prints as None and 0.13 as nothing: write (… or '')",
  ],
  [
    '{{int(mem) / 2}}',
    '1: int(mem) / 2 is a float, which JavaScript prints differently: make it an integer by int(…) or //',
  ],
  ['{{motd.upper()}}', '1: motd may have characters for which Python and JavaScript differ'],
  [
    "{{get('mdserver.password')}}",
    "1: get('mdserver.password') is an option: add it to _config_items_ in [template-data], and use its name without the section",
  ],
  ['% import yaml\n', '1: the module "yaml" has no counterpart'],
  [
    '% import socket\n{{socket.gethostname()}}',
    '2: .gethostname() of socket, which is a module, is not known',
  ],
  [
    '% try:\nx\n% except: pass\n% end\n',
    '1: "try" has no counterpart here: rewrite it in JavaScript; 3: "except" has no counterpart here: rewrite it in JavaScript',
  ],
  ['% if role:\n', '1: the block is empty: write "pass" in it, or remove it'],
  ['%wheel ALL=(ALL) ALL\n', '1: invalid Python at "ALL": unexpected'],
  [
    "% x = ''\n% for k in [[1]]:\n% x += k\n% end\n{{x}}\n",
    '3: "+" of x, which is a string, and k, which is a list',
  ],
  ["{{get('zone', 'a') + setdefault('zone', 'b')}}", '1: setdefault() is a part of something else'],
  ["% include('none.yaml')\n", "1: include('none.yaml'): there is no such file in userdata_dir"],
  [
    "% include('broken.yaml')\n",
    '1: broken.yaml:2: unknown name "nosuch", for which Python fails, too',
  ],
  ["% include('loop.yaml')\n", /more than 8 files include each other$/.source],
  [
    "% role = [1]\n% include('uses-role.yaml')\n",
    '2: uses-role.yaml uses "role", which this template binds',
  ],
  ['% x = [1]\n% y = x + 1\n{{y}}', '2: "+" of x, which is a list, and 1, which is an integer'],
  [
    'a\n\\% b\nc\n',
    '2: Bottle 0.12 loses the first character of the line after "\\%", 0.13 does not: write {{\'%\'}} in place of \\%',
  ],
  [
    '#cloud-config-archive\n- content: |\n    ## template: jinja\n    x: {{hostname}}\n',
    '3: this part is a Jinja template for the guest here, and is served as it is: remove this line if mdserver is to render it',
  ],
  [
    '## template: jinja\n{{hostname}}\n',
    '1: this is a Jinja template for the guest here, and is served as it is: remove its first line if mdserver is to render it',
  ],
];
for (const [source, problem] of refused) {
  test(`${JSON.stringify(source)} is refused, with the reason`, () => {
    if (problem.endsWith('$')) assert.match(refusal(source), new RegExp(problem));
    else assert.equal(refusal(source), problem);
  });
}

test("names in the converter's own functions do not hide those of the template", () => {
  const source = "% for part in pkgs.split(', '):\n{{part.startswith(('v', 'g'))}}\n% end\n";
  assert.equal(
    converted(source),
    "{{% for (const part of pkgs.split(', ')) { }}\n{{['v', 'g'].some((part_) => part.startsWith(part_)) ? 'True' : 'False'}}\n{{% } }}\n",
  );
  assert.equal(
    converted("% parts = 'a-b'.split('-')\n% a, b = parts\n{{a}}\n"),
    "{{% let parts, a, b; }}\n{{% parts = 'a-b'.split('-') }}\n{{% { const parts_ = parts; if (parts_.length !== 2) throw new Error('needs 2 parts'); [a, b] = parts_; } }}\n{{a}}\n",
  );
  assert.equal(
    converted("% for pkgs in pkgs.split(', '):\n{{pkgs}}\n% end\n"),
    "{{% for (pkgs of pkgs.split(', ')) { }}\n{{pkgs}}\n{{% } }}\n",
  );
});
