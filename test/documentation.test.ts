import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { options } from '../src/config/options.js';
import { commands } from '../src/ctl/commands/index.js';
import { generatedFiles } from '../tools/generated-files.js';
import { escaped, synopsis } from '../tools/roff.js';
import { temporaryFolder } from './support/cleanup.js';
import { repository } from './support/daemon.js';
import { missing } from './support/parts.js';

function committed(path: string): string {
  return readFileSync(join(repository, path), 'utf8');
}

const pages = [...generatedFiles.keys()].filter((path) => path.includes('/man/'));

for (const [path, text] of generatedFiles) {
  test(`${path} is up to date with the tables in the code`, () => {
    assert.equal(committed(path), text(), 'write it again: npm run generate');
  });
}

for (const path of pages) {
  test(`${path} is formatted without warnings`, { skip: missing('groff') }, () => {
    const file = join(repository, path);
    const formatted = spawnSync('groff', ['-ww', '-b', '-man', '-Tutf8', file], {
      encoding: 'utf8',
    });
    assert.deepEqual([formatted.status, formatted.stderr], [0, '']);
  });
}

/** The formatted page, without emphasis and with single blanks. */
function read(path: string): string {
  const args = ['-man', '-Tascii', '-P-cbou', join(repository, path)];
  return spawnSync('groff', args, { encoding: 'utf8' }).stdout.replace(/\s+/g, ' ');
}

test('the formatted pages have every command and every option', {
  skip: missing('groff'),
}, () => {
  const control = read('etc/man/mdserverctl.1');
  for (const { name, summary } of commands) {
    assert.ok(control.includes(`${name} mdserverctl ${name} `), name);
    assert.ok(control.includes(summary), summary);
  }
  const configuration = read('etc/man/mdserver.conf.5');
  for (const [name, entries] of Object.entries(options)) {
    assert.ok(configuration.includes(` [${name}] `), name);
    for (const key of Object.keys(entries)) assert.ok(configuration.includes(` ${key} `), key);
  }
});

test('text in a page is printed unchanged, even if it looks like a roff command', () => {
  assert.equal(
    escaped('.a\n\'b \\fB "-x" ~^` é'),
    '\\&.a\n\\(aqb \\(rsfB \\(dq\\-x\\(dq \\(ti\\(ha\\(ga \\[u00E9]',
  );
});

test('capitals are placeholders in a usage line, but not after a hyphen', () => {
  assert.equal(synopsis('-V, --version'), '\\fB\\-V, \\-\\-version\\fR');
  assert.equal(
    synopsis('-c, --connect URI [SECTION.KEY...]'),
    '\\fB\\-c, \\-\\-connect \\fR\\fIURI\\fR\\fB [\\fR\\fISECTION\\fR\\fB\\&.\\fR\\fIKEY\\fR\\fB\\&...]\\fR',
  );
});

// ---- bash completion ----

const completion = join(repository, 'etc/bash-completion/mdserverctl');

test('the completion passes shellcheck', {
  skip: missing('shellcheck'),
}, () => {
  const checked = spawnSync('shellcheck', [completion], { encoding: 'utf8' });
  assert.deepEqual([checked.status, checked.stdout], [0, '']);
});

/** The completions that bash offers for the last word, with a mdserverctl that lists two instances. */
function offered(t: TestContext, ...words: string[]): string[] {
  const folder = temporaryFolder(t);
  const stub = join(folder, 'mdserverctl');
  writeFileSync(
    stub,
    `#!/bin/sh\nprintf '%s\\n' "$*" >${folder}/asked\nprintf 'web1\\t10.0.0.1\\nweb 2\\t-\\n'\n`,
  );
  chmodSync(stub, 0o755);
  writeFileSync(join(folder, 'domain.xml'), '');
  const script = `. ${completion}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _mdserverctl; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const args = ['--norc', '-c', script, 'bash', 'mdserverctl', ...words];
  const env = { ...process.env, PATH: `${folder}:${process.env['PATH']}` };
  const bash = spawnSync('bash', args, { encoding: 'utf8', cwd: folder, env });
  assert.equal(bash.stderr, '');
  return bash.stdout.split('\n').filter((line) => line !== '');
}

test('bash completes commands, options, instances, documents, settings and files', (t) => {
  assert.deepEqual(
    offered(t, ''),
    commands.map(({ name }) => name),
  );
  assert.deepEqual(offered(t, '--json', 'sh'), ['show']);
  assert.deepEqual(offered(t, 'sync', '--pr'), ['--prune']);
  assert.deepEqual(offered(t, 'list', '--pr'), []);
  assert.deepEqual(offered(t, 'show', ''), ['web1', 'web\\ 2']);
  assert.deepEqual(offered(t, 'show', 'web1', ''), []);
  assert.deepEqual(offered(t, 'remove', 'a', 'b', 'web1'), ['web1']);
  assert.deepEqual(offered(t, 'render', 'web1', ''), [
    'user-data',
    'meta-data',
    'vendor-data',
    'network-config',
    'tree',
  ]);
  assert.deepEqual(offered(t, 'upload', 'dom'), ['domain.xml']);
  assert.deepEqual(offered(t, '--socket', '/x', 'render', '--as-xml', 'dom'), ['domain.xml']);
  assert.deepEqual(offered(t, 'sync', '-c', 'qemu:///se'), ['qemu:///session']);
  assert.deepEqual(offered(t, 'config', 'mdserver.port', 'dnsmasq.run'), ['dnsmasq.run_dir']);
});
