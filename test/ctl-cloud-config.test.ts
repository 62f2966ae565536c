import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hookTarget } from '../src/ctl/check-host.js';
import { userdataProblems } from '../src/ctl/cloud-config.js';
import { builtInTemplate } from '../src/userdata/template.js';

test('what cloud-init, Ignition and cloudbase-init take has no problem', () => {
  for (const text of [
    '',
    '#cloud-config\n',
    '#cloud-config\nhostname: a\nusers: [default]\n',
    '\n  #Cloud-Config\na: 1\n',
    '#!/bin/sh\nfoo: [\n',
    '#include\nhttp://a\n',
    '## template: jinja\n#cloud-config\na: {{ v1 }}: [\n',
    '#cloud-config-archive\n- a: [\n',
    'Content-Type: multipart/mixed\n',
    '{"ignition": {}}',
    '#ps1_sysnative\nfoo\n',
    '#cloud-config\na: yes\nb: 0755\nc: !!binary aGk=\nd: &x 1\ne: *x\n',
  ]) {
    assert.deepEqual(userdataProblems(text), [], text);
  }
  assert.deepEqual(userdataProblems(Buffer.from([0x1f, 0x8b, 8, 0xff])), []);
});

test('a first line that means nothing is a warning that shows it', () => {
  const expected = (line: string) => [
    {
      level: 'warning',
      text: `the first line is ${JSON.stringify(line)}: cloud-init takes it for nothing it knows (cloud-config begins with "#cloud-config")`,
    },
  ];
  for (const line of ['# cloud-config', 'hostname: a', '#cloudconfig']) {
    assert.deepEqual(userdataProblems(`${line}\nb: 1\n`), expected(line));
  }
});

test('YAML that does not parse is a failure at its line', () => {
  const [problem, ...others] = userdataProblems('#cloud-config\nusers:\n  - a\n - b\nc: 1\n');
  assert.deepEqual(others, []);
  assert.equal(problem?.level, 'failure');
  assert.match(problem?.text ?? '', /^YAML, line 4 of the result: /);
  assert.equal(userdataProblems('#cloud-config\na: [1\n')[0]?.level, 'failure');
  assert.equal(userdataProblems('#cloud-config\na: *x\n')[0]?.level, 'failure');
  assert.equal(userdataProblems('#cloud-config\na: "x\n')[0]?.level, 'failure');
  assert.equal(userdataProblems('#cloud-config\n\ta: 1\n')[0]?.level, 'failure');
});

test('cloud-config that is no mapping is a failure, a key given twice a warning', () => {
  assert.deepEqual(userdataProblems('#cloud-config\n- a\n'), [
    { level: 'failure', text: 'YAML: cloud-config has to be a mapping (key: value)' },
  ]);
  assert.equal(userdataProblems('#cloud-config\njust text\n')[0]?.level, 'failure');
  assert.deepEqual(userdataProblems('#cloud-config\na: 1\na: 2\n'), [
    { level: 'warning', text: 'YAML, line 3 of the result: Map keys must be unique' },
  ]);
});

test('aliases that grow without end are refused, quickly', () => {
  const levels = Array.from({ length: 12 }, (_, index) =>
    index === 0
      ? 'a0: &a0 [x, x, x, x, x, x, x, x]'
      : `a${index}: &a${index} [${Array(8).fill(`*a${index - 1}`)}]`,
  );
  assert.equal(userdataProblems(`#cloud-config\n${levels.join('\n')}\n`)[0]?.level, 'failure');
});

test("the built-in template's own text is cloud-config", () => {
  assert.deepEqual(
    userdataProblems(builtInTemplate.split('{{%')[0]?.replaceAll(/\{\{\w+\}\}/g, 'a') ?? ''),
    [],
  );
});

test("mdserver's hook is known by the lines that system-integration.sh fills in", () => {
  const url = 'http://169.254.169.254:80/instance-upload';
  const socket = '/run/mdserver/control.sock';
  const old = `#!/bin/sh\nconst uploadUrl = '${url}';\n`;
  assert.deepEqual(hookTarget(old), { url, socket: undefined });
  assert.deepEqual(hookTarget(`${old}const controlSocket = '${socket}';\n`), { url, socket });
  assert.equal(hookTarget('#!/bin/sh\nexit 0\n'), undefined);
});
