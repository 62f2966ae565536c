import assert from 'node:assert/strict';
import { test } from 'node:test';
import { userdataProblems } from '../src/ctl/checks/cloud-config.js';
import { hookTarget } from '../src/ctl/checks/hook.js';
import { builtInUserdata } from '../src/userdata/template.js';

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
  'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b"\n\n--b\n',
  'From nobody Thu Nov 26 12:00:00 2026\nSubject: x\nMIME-Version: 1.0\n',
  '#include-once\nhttp://a\n',
  '#part-handler\ndef handle_part():\n  pass\n',
  '#cloud-boothook\n#!/bin/sh\n',
  '#cloud-config-jsonp\n[]\n',
  '#upstart-job\nstart on startup\n',
  '#!/bin/sh\n#cloud-config\n',
  '<powershell>\nusers: 1\n</powershell>\n',
  // Talos, with its documents of one setting each.
  'version: v1alpha1\nmachine:\n  type: worker\n',
  '# Talos\n---\nmachine: {}\ncluster: {}\n',
  'apiVersion: v1alpha1\nkind: HostnameConfig\nhostname: a\n',
  // Bottlerocket.
  '# a comment\n[settings.kubernetes]\ncluster-name = "a"\n',
  'settings.motd = "hello"\n',
  // NixOS, with and without its channels.
  '### https://nixos.org/channels/nixos-26.05 nixos\n{ config, pkgs, ... }: { }\n',
  '{ config, pkgs, ... }:\n{\n  networking.hostName = "a";\n}\n',
  // Butane, and EC2Launch of Windows.
  'variant: fcos\nversion: 1.5.0\npasswd:\n  users: []\n',
  'version: 1.1\ntasks: []\n',
  // Other systems of network devices.
  'hostname="a"\nios-config-1="username a"\n',
  '%EOS-STARTUP-CONFIG-START%\nhostname a\n',
  '<?xml version="1.0"?>\n<opnsense/>\n',
  Buffer.from([0x1f, 0x8b, 8, 0xff]),
]) {
  test(`user-data that a client accepts has no problem: ${JSON.stringify(String(text))}`, () => {
    assert.deepEqual(userdataProblems(text), []);
  });
}

for (const line of [
  '# cloud-config',
  'hostname: a',
  '#cloudconfig',
  '#Cloud_Config',
  'cloud-config',
  'packages:',
  '# a comment\nusers: []',
  '---\nwrite_files: []',
  '# a comment\n#cloud-config',
]) {
  test(`a first line that cloud-init does not recognise is a warning that quotes it: ${line}`, () => {
    const [first] = line.split('\n');
    assert.deepEqual(userdataProblems(`${line}\nb: [\n`), [
      {
        level: 'warning',
        text: `cloud-init does not recognise the first line, ${JSON.stringify(first)} (cloud-config begins with "#cloud-config")`,
      },
    ]);
  });
}

for (const [text, what] of [
  ['\ufeff#cloud-config\na: 1\n', 'what begins with a byte-order mark: save the file without it'],
  [
    '\nContent-Type: multipart/mixed; boundary="b"\nMIME-Version: 1.0\n',
    'MIME that begins with a blank line or a space',
  ],
] as const) {
  test(`what cloud-init does not recognise for what is before it is a warning: ${JSON.stringify(text)}`, () => {
    assert.deepEqual(userdataProblems(text), [
      { level: 'warning', text: `cloud-init does not recognise ${what}` },
    ]);
  });
}

test('YAML that does not parse is one failure, with its line', () => {
  const [problem, ...others] = userdataProblems('#cloud-config\nusers:\n  - a\n - b\nc: 1\n');
  assert.deepEqual(others, []);
  assert.equal(problem?.level, 'failure');
  assert.match(problem?.text ?? '', /^YAML, line 4 of the rendered text: /);
});

for (const yaml of ['a: [1', 'a: *x', 'a: "x', '\ta: 1', 'just text']) {
  test(`cloud-config that PyYAML would reject is a failure: ${JSON.stringify(yaml)}`, () => {
    const problems = userdataProblems(`#cloud-config\n${yaml}\n`);
    assert.deepEqual(
      problems.map(({ level }) => level),
      ['failure'],
    );
  });
}

test('cloud-config that is not a mapping is a failure, a duplicate key is a warning', () => {
  assert.deepEqual(userdataProblems('#cloud-config\n- a\n'), [
    { level: 'failure', text: 'YAML: cloud-config must be a mapping (key: value)' },
  ]);
  assert.deepEqual(userdataProblems('#cloud-config\na: 1\na: 2\n'), [
    { level: 'warning', text: 'YAML, line 3 of the rendered text: Map keys must be unique' },
  ]);
});

test('aliases that expand without bound are a failure', () => {
  const levels = Array.from({ length: 12 }, (_, index) =>
    index === 0
      ? 'a0: &a0 [x, x, x, x, x, x, x, x]'
      : `a${index}: &a${index} [${Array(8).fill(`*a${index - 1}`)}]`,
  );
  assert.equal(userdataProblems(`#cloud-config\n${levels.join('\n')}\n`)[0]?.level, 'failure');
});

test("the built-in template's own text is cloud-config", () => {
  assert.deepEqual(userdataProblems(builtInUserdata), []);
});

test("mdserver's hook is recognised by its lines, that of earlier releases as well", () => {
  const unknown = { socket: undefined, spool: undefined, starts: undefined, network: undefined };
  const old = "#!/bin/sh\nconst uploadUrl = 'http://169.254.169.254:80/instance-upload';\n";
  assert.deepEqual(hookTarget(old), unknown);
  const socket = '/run/mdserver/control.sock';
  const later = `const controlSocket = '${socket}';\n`;
  assert.deepEqual(hookTarget(`${old}${later}`), { ...unknown, socket });
  const spool = "const spoolFolder = '/srv/spool';\n";
  const hook = (network: string) =>
    `#!/bin/sh\n':' //; case "$2 $3 $1" in 'port-created begin ${network}) ;; *) exit 0 ;; esac; /usr/bin/timeout -s KILL 5 /usr/bin/node "$0" "$@"; exit 0\n${later}${spool}`;
  const starts = '/usr/bin/timeout';
  const now = { socket, spool: '/srv/spool', starts };
  assert.deepEqual(hookTarget(hook("'*")), { ...now, network: undefined });
  assert.deepEqual(hookTarget(hook("mds'")), { ...now, network: 'mds' });
  assert.equal(hookTarget('#!/bin/sh\nexit 0\n'), undefined);
});
