import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { libvirtEnvironment } from './fixtures/hook/as-libvirt.js';
import { installedHook, layPackage } from './fixtures/hook/installed.js';
import { suiteScope, temporaryFolder } from './support/cleanup.js';
import { missing } from './support/parts.js';

const folder = temporaryFolder(suiteScope());
const calls = join(folder, 'calls');
/** The hook as system-integration.sh installs it, with a program in place of Node that writes down its arguments. */
const hook = join(folder, 'hook');

before(() => {
  const installed = installedHook(layPackage(folder), join(folder, 'root'));
  const recorder = join(folder, 'recorder');
  writeFileSync(recorder, `#!/bin/sh\nprintf '%s\\0' "$@" >>${calls}\n`, { mode: 0o755 });
  const text = installed.replace(/ \S+ "\$0"/, ` ${recorder} "$0"`);
  assert.notEqual(text, installed);
  writeFileSync(hook, text, { mode: 0o755 });
  // What a name with an asterisk would become if the shell looked at it.
  mkdirSync(join(folder, 'here'));
  for (const file of ['a', 'mds', 'prepare']) writeFileSync(join(folder, 'here', file), '');
});

/** Calls the hook by way of other commands, and gives the arguments that Node would get; none if it is not started. */
function startedWith(args: readonly string[], ...way: string[]): string[] {
  rmSync(calls, { force: true });
  const [command = '', ...rest] = [...way, hook, ...args];
  const { status, stdout, stderr } = spawnSync(command, rest, {
    cwd: join(folder, 'here'),
    env: libvirtEnvironment,
    encoding: 'utf8',
    input: '<domain/>',
    timeout: 20_000,
  });
  assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: '', stderr: '' });
  try {
    return readFileSync(calls, 'utf8').split('\0').slice(0, -1);
  } catch {
    return [];
  }
}

/** All operations of libvirt's hooks of guests and of networks, with whether there is something to do. */
const operations: [operation: string, subOperation: string, starts: boolean][] = [
  ['prepare', 'begin', true],
  ['migrate', 'begin', true],
  ['restore', 'begin', true],
  ['reconnect', 'begin', true],
  ['attach', 'begin', true],
  ['release', 'end', true],
  ['port-created', 'begin', true],
  ['start', 'begin', false],
  ['started', 'begin', false],
  ['stopped', 'end', false],
  ['release', 'begin', false],
  ['prepare', 'end', false],
  ['updated', 'begin', false],
  ['port-deleted', 'begin', false],
  ['plugged', 'begin', false],
  ['unplugged', 'begin', false],
  ['*', 'begin', false],
  ['', '', false],
];

const names = [
  'web',
  'mds',
  '',
  '-',
  '-n',
  '--help',
  '*',
  '[a-z]',
  '?',
  'a b',
  ' prepare begin ',
  'x prepare begin y',
  '"',
  "'",
  "'; echo bad; '",
  '$(echo bad)',
  '`echo bad`',
  '$IFS',
  '\\',
  '~',
  'a\nprepare begin ',
  ';;',
  ') ;; esac; echo bad; case x in x',
  '(',
  '!',
  'wéb 日本 🦆',
  'x'.repeat(255),
];

describe('the first line of the hook', () => {
  for (const [shell, skip] of [
    [[], false],
    [['bash'], false],
    [['busybox', 'sh'], missing('busybox')],
  ] as const) {
    it(`starts Node for what is to be done alone, with the same arguments${shell.length > 0 ? ` (${shell.join(' ')})` : ''}`, {
      skip,
    }, () => {
      for (const name of names) {
        for (const [operation, subOperation, starts] of operations) {
          const args = [name, operation, subOperation, '-'];
          assert.deepEqual(
            startedWith(args, ...shell),
            starts ? [hook, ...args] : [],
            JSON.stringify(args),
          );
        }
      }
    });
  }

  it('takes a name of any bytes, and any reason', () => {
    const bytes = ['sh', '-c', 'exec "$0" "$(printf "\\377*\\200")" prepare begin "a  b*"'];
    const [, name, ...rest] = startedWith([], ...bytes);
    assert.equal(name, '\ufffd*\ufffd');
    assert.deepEqual(rest, ['prepare', 'begin', 'a  b*']);
    const release = ['web', 'release', 'end', 'from snapshot'];
    assert.deepEqual(startedWith(release), [hook, ...release]);
  });

  for (const args of [[], ['web'], ['web', 'prepare'], ['web', 'release']]) {
    it(`leaves at once with the arguments ${JSON.stringify(args)}`, () => {
      assert.deepEqual(startedWith(args), []);
    });
  }
});
