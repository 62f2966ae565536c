import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { bareValues } from '../src/ctl/checks/bare-values.js';
import { compileTemplate, templateData } from '../src/userdata/template.js';
import { missing, python } from './support/parts.js';

const none = { uuid: undefined, mac: undefined, ipv4: undefined, ipv6: undefined };

/** The expressions of the tags that are reported, after their lines. */
function found(
  source: string,
  { name = 'web1', note = 'plain', values = {} as Record<string, string>, mac = '' } = {},
): string[] {
  const instance = {
    ...none,
    name,
    ...(mac !== '' && { mac }),
    location: 'lab',
    metadata: { note },
  };
  const data = templateData(
    { publicKeys: [], templateData: new Map(Object.entries(values)), password: 'p#ss: "x"' },
    instance,
  );
  return bareValues(`#cloud-config\n${source}\n`, 'web1.yaml', data, instance).map(
    ({ line, code }) => `${line} ${code}`,
  );
}

const bareNote = ['2 instance.metadata.note'];

for (const note of [
  ...['yes', 'NO', '~', 'null', '1e3', '0123', '0x1f', '1:30', '2026-11-26', '.inf', '1_000'],
  ...['a: b', 'a #b', '*a', '&a b', '!a', '%a', '@a', '`a', '- a', '[a', '{a: b}', '|', '"a"', "'"],
  ...['a\nb: c', 'a\u2028b: c', 'a\x85b', 'a\x1b[2J', ' a', 'a ', 'a:', '#a'],
]) {
  test(`metadata that needs quoting is reported where it is printed bare: ${JSON.stringify(note)}`, () => {
    assert.deepEqual(found('note: {{instance.metadata.note}}', { note }), bareNote);
    assert.deepEqual(found('note: {{yaml(instance.metadata.note)}}', { note }), []);
    assert.deepEqual(found('note: {{json(instance.metadata.note)}}', { note }), []);
  });
}

for (const note of [
  'plain',
  'two words',
  'größe',
  '日本',
  'a-b_c.d',
  '10.122.0.2',
  '4096',
  '/x/y',
  'a:b',
  "it's",
]) {
  test(`metadata that YAML reads as it is needs no quotes: ${note}`, () => {
    assert.deepEqual(found('note: {{instance.metadata.note}}', { note }), []);
  });
}

test('the place decides what needs quoting', () => {
  const hostile = { note: 'say "a": \\ #b' };
  assert.deepEqual(found('a: "{{instance.metadata.note}}"', hostile), bareNote);
  assert.deepEqual(found("a: '{{instance.metadata.note}}'", hostile), []);
  assert.deepEqual(found('# {{instance.metadata.note}}\na: 1', hostile), []);
  assert.deepEqual(found('a: |\n  {{instance.metadata.note}}', hostile), []);
  assert.deepEqual(found('a: |\n  {{instance.metadata.note}}', { note: 'a\nb' }), [
    '3 instance.metadata.note',
  ]);
  assert.deepEqual(found('runcmd:\n  - [sh, -c, "x {{sh(instance.metadata.note)}}"]', hostile), [
    '3 sh(instance.metadata.note)',
  ]);
  assert.deepEqual(found("runcmd:\n  - {{yaml('x ' + sh(instance.metadata.note))}}", hostile), []);
  assert.deepEqual(found('{{instance.metadata.note}}: 1', { note: 'yes' }), bareNote);
});

test('a name stays text: numbers and MAC addresses that YAML 1.1 reads as numbers are reported', () => {
  assert.deepEqual(found('hostname: {{hostname}}', { name: '123' }), ['2 hostname']);
  assert.deepEqual(found('a: {{instance.mac}}', { mac: '52:54:00:12:34:56' }), ['2 instance.mac']);
  assert.deepEqual(found('a: {{instance.mac}}', { mac: '52:54:00:ab:cd:ef' }), []);
});

test("the operator's own values may be YAML, but must not be cut", () => {
  const values = { port: '8080', flag: 'yes', list: '[a, b]', text: '"a: b"', motd: 'a #b' };
  for (const name of ['port', 'flag', 'list', 'text']) {
    assert.deepEqual(found(`a: {{${name}}}`, { values }), []);
  }
  assert.deepEqual(found('a: {{motd}}', { values }), ['2 motd']);
  assert.deepEqual(found('password: {{mdserver_password}}'), ['2 mdserver_password']);
  assert.deepEqual(found("a:\n{{['x', 'y'].map((item) => '  - ' + item).join('\\n')}}"), []);
});

test('each tag is reported once, also from a loop and among others', () => {
  const source =
    'a:\n{{% for (const item of [instance.metadata.note, instance.metadata.note]) { }}  - {{item}}\n{{% } }}\nb: {{hostname}}\nc: {{yaml(hostname)}}';
  assert.deepEqual(found(source, { note: '*x', name: 'no' }), ['3 item', '5 hostname']);
});

test('PyYAML agrees on what is reported', { skip: missing('yaml') }, () => {
  const notes = ['yes', '1e3', '0123', 'a #b', '1:30', '2026-11-26', '=', 'y', 'a: b', '4096', 'x'];
  const source = 'a: {{instance.metadata.note}}';
  const program =
    "import sys, yaml\ntry:\n    print(yaml.safe_load(sys.stdin)['a'], end='')\nexcept yaml.YAMLError:\n    pass";
  for (const note of notes) {
    const text = compileTemplate(source, 'x')({ instance: { metadata: { note } } });
    const read = execFileSync(python, ['-c', program], { input: text, encoding: 'utf8' });
    if (read !== note) assert.deepEqual(found(source, { note }), bareNote, note);
  }
});
