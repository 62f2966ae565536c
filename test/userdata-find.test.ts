import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs, { chmodSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import {
  candidatesOf,
  findUserdata,
  isNoUserdata,
  linkProblems,
  MissingFileError,
  missingDefault,
  UserdataError,
} from '../src/userdata/find.js';
import { builtInUserdata, TemplateError } from '../src/userdata/template.js';
import { createUserdata, type UserdataConfig } from '../src/userdata/userdata.js';
import { temporaryFolder } from './support/cleanup.js';
import { rowName } from './support/rows.js';

const mac = '52:54:00:3a:cf:02';

/** A folder with a `userdata` folder and these files in it; for others to read, too. */
function folderWith(t: TestContext, files: Readonly<Record<string, string | Buffer>>): string {
  const folder = temporaryFolder(t, { 'userdata/': '', ...files });
  chmodSync(folder, 0o755);
  return folder;
}

interface Query {
  readonly folder: string;
  readonly directory?: string;
  readonly name?: string;
  readonly prefix?: string;
  readonly suffixes?: readonly string[];
  readonly defaultTemplate?: string;
  readonly builtIn?: boolean;
  readonly refused?: boolean;
}

/**
 * What is found, in short: a path relative to the folder or the kind, then what was refused. Throws what
 * findUserdata throws.
 */
function lookFor(query: Query): string[] {
  const { folder, directory = 'userdata', name = 'web1', prefix, suffixes = ['', '.yaml'] } = query;
  const defaultTemplate = query.defaultTemplate && join(folder, query.defaultTemplate);
  const { builtIn = true, refused = false } = query;
  const location = { directory: join(folder, directory), suffixes, defaultTemplate, builtIn };
  const candidates = candidatesOf(location, { name, mac, prefix, refused });
  const source = findUserdata(candidates);
  const found = source === 'built-in' ? source : isNoUserdata(source) ? 'none' : source.path;
  return [found, ...candidates.warnings].map((text) => text.replaceAll(`${folder}/`, ''));
}

/** The message of the error that a search gives. */
function problemOf(query: Query): string {
  try {
    return assert.fail(`found ${lookFor(query)}`);
  } catch (error) {
    if (error instanceof UserdataError) return error.message.replaceAll(`${query.folder}/`, '');
    throw error;
  }
}

/** Runs as a user that may not do everything, which root may. */
function asOrdinaryUser<T>(work: () => T): T {
  if (process.geteuid?.() !== 0) return work();
  process.seteuid?.(65534);
  try {
    return work();
  } finally {
    process.seteuid?.(0);
  }
}

test('name before MAC, each with each suffix in order, then the default, then the built-in', (t) => {
  const files = [
    ...['userdata/web1', 'userdata/web1.yaml', `userdata/${mac}`, `userdata/${mac}.yaml`],
    'base.yaml',
  ];
  const folder = folderWith(t, Object.fromEntries(files.map((file) => [file, ''])));
  for (const file of files) {
    assert.deepEqual(lookFor({ folder, defaultTemplate: 'base.yaml' }), [file]);
    rmSync(join(folder, file));
  }
  assert.deepEqual(lookFor({ folder }), ['built-in']);
  assert.deepEqual(lookFor({ folder, builtIn: false }), ['none']);
});

test('without the built-in template, every file and the default template count as before', (t) => {
  const folder = folderWith(t, { 'userdata/web1': '', 'base.yaml': '' });
  assert.deepEqual(lookFor({ folder, builtIn: false }), ['userdata/web1']);
  const others = { folder, builtIn: false, name: 'web2' };
  assert.deepEqual(lookFor({ ...others, defaultTemplate: 'base.yaml' }), ['base.yaml']);
});

test('a domain that says "none" has no user-data, whatever files there are', (t) => {
  const folder = folderWith(t, {
    ...{ 'userdata/web1': '', [`userdata/${mac}`]: '', 'userdata/db': '', 'base.yaml': '' },
  });
  for (const query of [{}, { prefix: 'db' }, { prefix: '../db' }, { name: '..' }]) {
    assert.deepEqual(lookFor({ folder, refused: true, defaultTemplate: 'base.yaml', ...query }), [
      'none',
    ]);
  }
});

test('only the suffixes that are set are tried', (t) => {
  const folder = folderWith(t, {
    'userdata/web1': '',
    'userdata/web1.cfg': '',
    'userdata/web1.yaml': '',
    'userdata/db-01.yaml': '',
  });
  const suffixes = ['.cfg', '.yaml'];
  assert.deepEqual(lookFor({ folder, suffixes }), ['userdata/web1.cfg']);
  assert.deepEqual(lookFor({ folder, suffixes, name: 'db-01' }), ['userdata/db-01.yaml']);
});

test('a prefix is the only thing that is looked for', (t) => {
  const folder = folderWith(t, {
    'userdata/web1': '',
    [`userdata/${mac}`]: '',
    'userdata/testing.yaml': '',
    'userdata/roles/db.yaml': '',
    'base.yaml': '',
  });
  const prefixed = (prefix: string) => lookFor({ folder, prefix, defaultTemplate: 'base.yaml' });
  assert.deepEqual(prefixed('testing'), ['userdata/testing.yaml']);
  assert.deepEqual(prefixed('no-such'), ['none']);
  assert.deepEqual(prefixed('roles/db'), ['userdata/roles/db.yaml'], 'as in Python');
  assert.deepEqual(prefixed('roles'), ['none']);
});

test('a name that leads out of the directory or to a hidden file is refused, with a reason', async (t) => {
  const folder = folderWith(t, {
    'secret.yaml': '',
    'userdata-2/a': '',
    'userdata/sub/a': '',
    'userdata/a..b': '',
    'userdata/.bashrc': '',
    'userdata/.git/config': '',
    'userdata/sub/.ssh/key': '',
    'userdata/sub/.hidden': '',
    'userdata/sub/.yaml': '',
  });
  const reason = (name: string, why: string) =>
    `user-data of ${JSON.stringify(name)}: ignored: the name ${why}`;
  for (const [name, why] of [
    ['../secret', 'contains ".."'],
    ['..', 'contains ".."'],
    ['sub/../../secret', 'contains ".."'],
    ['../userdata-2/a', 'contains ".."'],
    ['web1\0', 'contains a NUL character'],
    ['.bashrc', 'has a part that begins with "."'],
    ['.', 'has a part that begins with "."'],
    ['.git/config', 'has a part that begins with "."'],
    ['sub/.ssh/key', 'has a part that begins with "."'],
    ['sub/.hidden', 'has a part that begins with "."'],
    ['./sub/a', 'has a part that begins with "."'],
  ] as const) {
    await t.test(rowName(name), () => {
      assert.deepEqual(lookFor({ folder, name }), ['built-in', reason(name, why)]);
      assert.deepEqual(lookFor({ folder, prefix: name }), ['none', reason(name, why)]);
    });
  }
  const absolute = join(folder, 'secret');
  const [kind, why] = lookFor({ folder, prefix: absolute });
  assert.equal(kind, 'none');
  assert.match(why ?? '', /is an absolute path$/);
  const name = 'sub/a';
  assert.deepEqual(lookFor({ folder, name }), ['built-in', reason(name, 'contains "/"')]);
  assert.deepEqual(lookFor({ folder, prefix: 'sub/' }), ['none', reason('sub/', 'ends with "/"')]);
  for (const harmless of ['', 'x'.repeat(5000), 'web1\n', '%2e%2e']) {
    await t.test(rowName(harmless), () => {
      assert.deepEqual(lookFor({ folder, prefix: harmless }), ['none']);
    });
  }
  assert.deepEqual(lookFor({ folder, name: 'a..b' }), ['userdata/a..b']);
});

test('links may lead anywhere inside the directory, and nowhere else', async (t) => {
  const folder = folderWith(t, {
    'secret.yaml': '',
    'userdata/shared/base': '',
    'userdata-2/a': '',
  });
  const link = (target: string, path: string) => symlinkSync(target, join(folder, path));
  link('shared/base', 'userdata/inside');
  link('../secret.yaml', 'userdata/outside');
  link('../userdata-2/a', 'userdata/sibling');
  link('loop', 'userdata/loop');
  link('no-such', 'userdata/dangling');
  link('shared', 'userdata/folder');
  link('../userdata-2', 'userdata/away');
  link('outside', 'userdata/twice');
  link('userdata', 'linked');
  link('../userdata/shared/base', 'userdata/by-the-link');

  assert.deepEqual(lookFor({ folder, name: 'inside' }), ['userdata/inside']);
  assert.deepEqual(lookFor({ folder, name: 'by-the-link' }), ['userdata/by-the-link']);
  assert.deepEqual(lookFor({ folder, directory: 'linked', name: 'inside' }), ['linked/inside']);
  const outside = [
    ['outside', 'secret.yaml'],
    ['sibling', 'userdata-2/a'],
    ['twice', 'secret.yaml'],
  ].map(
    ([name, target]) =>
      `userdata/${name}: the link points to ${target}, outside userdata: put a file there in its place`,
  );
  const loop = 'userdata/loop: the link points to itself: put a file there in its place';
  for (const [index, name] of ['outside', 'sibling', 'twice'].entries()) {
    await t.test(name, () => assert.equal(problemOf({ folder, name }), outside[index]));
  }
  assert.equal(problemOf({ folder, name: 'loop' }), loop);
  assert.match(
    problemOf({ folder, prefix: 'away/a' }),
    /points to userdata-2\/a, outside userdata/,
  );
  assert.deepEqual(lookFor({ folder, name: 'dangling' }), ['built-in']);
  assert.deepEqual(lookFor({ folder, name: 'folder' }), ['built-in']);
  assert.deepEqual(lookFor({ folder, prefix: 'folder/base' }), ['userdata/folder/base']);

  const away = 'userdata/away: the link points to userdata-2, outside userdata';
  assert.deepEqual(
    linkProblems(join(folder, 'userdata'))
      .map(({ message }) => message.replaceAll(`${folder}/`, ''))
      .sort(),
    [`${away}: put a file there in its place`, loop, ...outside].sort(),
  );
  assert.deepEqual(linkProblems(join(folder, 'no-such')), []);
});

test('folders and FIFOs are no files, a directory that is missing has none', (t) => {
  const folder = folderWith(t, { 'userdata/web1/x': '', 'userdata/db.yaml': '', file: '' });
  execFileSync('mkfifo', [join(folder, 'userdata/db')]);
  symlinkSync('db', join(folder, 'userdata/fifo-link'));
  assert.deepEqual(lookFor({ folder }), ['built-in']);
  assert.deepEqual(lookFor({ folder, name: 'db' }), ['userdata/db.yaml']);
  assert.deepEqual(lookFor({ folder, name: 'fifo-link' }), ['built-in']);
  assert.deepEqual(lookFor({ folder, directory: 'no-such' }), ['built-in']);
  assert.deepEqual(lookFor({ folder, directory: 'file' }), ['built-in']);
  assert.deepEqual(lookFor({ folder, directory: 'no-such', prefix: 'db' }), ['none']);
});

test('a default template may be anywhere, and has to be a file', (t) => {
  const folder = folderWith(t, { 'base.yaml': '' });
  symlinkSync('base.yaml', join(folder, 'link.yaml'));
  execFileSync('mkfifo', [join(folder, 'fifo')]);
  assert.deepEqual(lookFor({ folder, defaultTemplate: 'link.yaml' }), ['link.yaml']);
  const failure = (defaultTemplate: string, problem: string) =>
    assert.throws(() => lookFor({ folder, defaultTemplate }), {
      constructor: UserdataError,
      message: `${join(folder, defaultTemplate)}: ${problem} (set by mdserver.default_template)`,
    });
  failure('userdata', 'is not a regular file');
  failure('fifo', 'is not a regular file');
  assert.throws(() => lookFor({ folder, defaultTemplate: 'no-such' }), {
    constructor: MissingFileError,
    message: `${join(folder, 'no-such')}: no such file (set by mdserver.default_template)`,
  });
});

interface SetUp {
  readonly folder: string;
  readonly logged: string[];
  /** The user-data of the instance, as text or as bytes; undefined where there is none. */
  readonly serve: (name: string, prefix?: string) => string | Buffer | undefined;
  config: UserdataConfig;
}

function setUp(
  t: TestContext,
  files: Readonly<Record<string, string | Buffer>>,
  defaultTemplate?: string,
): SetUp {
  const folder = folderWith(t, files);
  const logged: string[] = [];
  const log = {
    error: (message: string) => logged.push(`error ${message.replaceAll(`${folder}/`, '')}`),
    warn: (message: string) => logged.push(`warn ${message.replaceAll(`${folder}/`, '')}`),
  };
  const config: UserdataConfig = {
    publicKeys: [{ name: 'default', key: 'ssh-ed25519 AAAA' }],
    templateData: new Map([['foo', 'bar']]),
    mdserver: {
      userdata_dir: join(folder, 'userdata'),
      userdata_suffixes: ['', '.yaml'],
      default_template: defaultTemplate && join(folder, defaultTemplate),
      builtin_template: true,
      password: 'pass',
      vendor_data: undefined,
    },
  };
  const parts: SetUp = { folder, logged, config, serve };
  const { userdata } = createUserdata({ config: () => parts.config, log });
  function serve(name: string, prefix?: string) {
    const metadata: Record<string, string> =
      prefix === undefined ? {} : { userdata_prefix: prefix };
    const none = { uuid: undefined, ipv4: undefined, ipv6: undefined, location: undefined };
    return userdata({ ...none, name, mac, metadata })?.().body;
  }
  return parts;
}

test("serves an instance's own file, the default one or the built-in one", (t) => {
  const { serve } = setUp(
    t,
    {
      'userdata/web1':
        'by name\n{{hostname}} {{foo}} {{public_key_default}} {{mdserver_password}}\n',
      'userdata/testing.yaml': 'by prefix\n{{hostname}}\n',
      'userdata/empty': '',
      'base.yaml': 'base for {{hostname}}\n',
    },
    'base.yaml',
  );
  assert.equal(serve('web1'), 'by name\nweb1 bar ssh-ed25519 AAAA pass\n');
  assert.equal(serve('web1', ''), serve('web1'), 'an empty prefix is none');
  assert.equal(serve('pref', 'testing'), 'by prefix\npref\n');
  assert.equal(serve('web1', 'no-such'), undefined);
  assert.equal(serve('plain'), 'base for plain\n');
  assert.equal(serve('empty'), '');
  const { serve: serveBare } = setUp(t, {});
  assert.equal(serveBare('web1'), builtInUserdata);
});

test('in place of a default template that is missing comes the built-in one, with a warning, until there is one', (t) => {
  const parts = setUp(t, { 'userdata/db': 'own' }, 'base');
  assert.equal(parts.serve('db'), 'own');
  assert.deepEqual(parts.logged, []);
  assert.equal(parts.serve('web1'), builtInUserdata);
  assert.equal(parts.serve('web2'), builtInUserdata);
  const warning =
    'base: no such file (set by mdserver.default_template): the built-in template takes its place';
  assert.deepEqual(parts.logged, [`warn ${warning}`]);
  assert.equal(missingDefault('base'), warning);
  assert.equal(missingDefault(undefined), undefined);

  writeFileSync(join(parts.folder, 'base'), 'of {{hostname}}');
  assert.equal(parts.serve('web1'), 'of web1');
  assert.equal(missingDefault(join(parts.folder, 'base')), undefined);
});

test('without the built-in template, a default template that is missing is an error', (t) => {
  const parts = setUp(t, {}, 'base');
  const { mdserver } = parts.config;
  parts.config = { ...parts.config, mdserver: { ...mdserver, builtin_template: false } };
  assert.throws(() => parts.serve('web1'), MissingFileError);
});

test('a change of a file is seen at the next request, also one of the same size', (t) => {
  const { serve, folder } = setUp(t, {});
  const path = join(folder, 'userdata/web1');
  for (let count = 0; count < 200; count += 1) {
    const text = String(count).padStart(4, '0');
    writeFileSync(path, `${text} {{hostname}}`);
    assert.equal(serve('web1'), `${text} web1`);
    assert.equal(serve('web1'), `${text} web1`);
  }
  writeFileSync(`${path}.new`, 'renamed');
  renameSync(`${path}.new`, path);
  assert.equal(serve('web1'), 'renamed');
  rmSync(path);
  writeFileSync(`${path}.yaml`, 'yaml');
  assert.equal(serve('web1'), 'yaml');
});

test('a file that is kept is seen to change, too', (t) => {
  const { serve, folder } = setUp(t, { 'userdata/web1': 'one {{foo}}' });
  const path = join(folder, 'userdata/web1');
  // Only a file that is old enough is not read again: its change time cannot be set, the clock can.
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 60_000 });
  assert.equal(serve('web1'), 'one bar');
  assert.equal(serve('web1'), 'one bar');
  writeFileSync(path, 'twos {{foo}}');
  assert.equal(serve('web1'), 'twos bar');
  utimesSync(path, 1_500_000_000, 1_500_000_000);
  assert.equal(serve('web1'), 'twos bar');
  writeFileSync(`${path}.new`, 'tres {{foo}}');
  utimesSync(`${path}.new`, 1_500_000_000, 1_500_000_000);
  renameSync(`${path}.new`, path);
  assert.equal(serve('web1'), 'tres bar', 'of the same size and time');
});

test('a template that is kept is compiled anew when a file that it includes changes, comes or goes', (t) => {
  const { serve, folder } = setUp(t, {
    'userdata/web1': "{{% include('outer') }}",
    'userdata/outer': "a {{% include('inner') }}",
    'userdata/inner': 'one {{foo}}',
  });
  const inner = join(folder, 'userdata/inner');
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 60_000 });
  assert.equal(serve('web1'), 'a one bar');
  assert.equal(serve('web1'), 'a one bar');
  writeFileSync(inner, 'two {{foo}}');
  assert.equal(serve('web1'), 'a two bar');
  rmSync(inner);
  assert.throws(() => serve('web1'), /outer:1: include\('inner'\): .*no such file \(in .*web1:1\)/);
  writeFileSync(inner, 'new {{foo}}');
  assert.equal(serve('web1'), 'a new bar');
});

test('a file is read at each request while it is young, and once when it is old', (t) => {
  const { serve } = setUp(t, { 'userdata/web1': 'one {{foo}}' });
  const { mock } = t.mock.method(fs, 'readFileSync');
  syncBuiltinESMExports();
  t.after(() => {
    mock.restore();
    syncBuiltinESMExports();
  });
  const reads = () => {
    mock.resetCalls();
    for (let count = 0; count < 3; count += 1) assert.equal(serve('web1'), 'one bar');
    return mock.callCount();
  };
  // File systems count time in steps: two changes within one look like one.
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() });
  assert.equal(reads(), 3);
  t.mock.timers.tick(60_000);
  assert.equal(reads(), 1);
  assert.equal(reads(), 0);
});

test('a file that is not UTF-8 text is served unchanged, text with LF at the end of each line', (t) => {
  const packed = gzipSync('#cloud-config {{hostname}}\n'.repeat(100));
  const latin1 = Buffer.from('# caf\xe9 {{hostname}}\n', 'latin1');
  const large = `${'#'.repeat(79)}\r\n`.repeat(13_000);
  const { serve } = setUp(t, {
    'userdata/packed': packed,
    'userdata/latin1': latin1,
    'userdata/bom': '\ufeff#cloud-config\r\n{{hostname}}\r\n\0é\u2028',
    'userdata/large': `${large}{{hostname}}`,
  });
  assert.deepEqual(serve('packed'), packed);
  assert.deepEqual(serve('latin1'), latin1);
  assert.equal(serve('bom'), '\ufeff#cloud-config\nbom\n\0é\u2028');
  assert.ok(large.length > 1024 * 1024);
  assert.equal(serve('large')?.toString(), `${large.replaceAll('\r\n', '\n')}large`);
});

test('a problem with a file is logged once, until the file changes', (t) => {
  const { serve, folder, logged } = setUp(t, { 'userdata/web1': 'a\n{{nope}}\n' });
  const path = join(folder, 'userdata/web1');
  const expected = (line: number) =>
    `error userdata/web1:${line}: unknown name "nope" in {{nope}}: set it in [template-data], or correct the name`;
  for (let count = 0; count < 3; count += 1) assert.throws(() => serve('web1'), TemplateError);
  assert.deepEqual(logged.splice(0), [expected(2)]);
  writeFileSync(path, 'a\n\n{{nope}}\n');
  for (let count = 0; count < 3; count += 1) assert.throws(() => serve('web1'), TemplateError);
  assert.deepEqual(logged.splice(0), [expected(3)]);
  writeFileSync(path, '{{if x}}');
  for (let count = 0; count < 3; count += 1) assert.throws(() => serve('web1'), TemplateError);
  assert.equal(logged.length, 1);
  assert.match(logged[0] ?? '', /^error userdata\/web1:1: \{\{if x\}\} is not JavaScript: /);
  writeFileSync(path, 'mended {{hostname}}');
  assert.equal(serve('web1'), 'mended web1');
});

test('an unreadable file is an error, never silently the next one', (t) => {
  const { serve, folder, logged } = setUp(
    t,
    { 'userdata/web1': 'own', 'userdata/web1.yaml': 'next', 'base.yaml': 'base' },
    'base.yaml',
  );
  const problem = 'mdserver is not allowed to read it: give its user read permission';
  chmodSync(join(folder, 'userdata/web1'), 0);
  asOrdinaryUser(() => {
    assert.throws(() => serve('web1'), UserdataError);
    assert.throws(() => serve('web1'), UserdataError);
    assert.throws(() => serve('x', 'web1'), UserdataError);
  });
  assert.deepEqual(logged.splice(0), [`error userdata/web1: ${problem}`]);
  chmodSync(join(folder, 'userdata/web1'), 0o644);
  asOrdinaryUser(() => assert.equal(serve('web1'), 'own'));
  chmodSync(join(folder, 'userdata'), 0);
  asOrdinaryUser(() => {
    assert.throws(() => serve('other'), UserdataError);
    assert.throws(() => serve('other', 'prefixed'), UserdataError, 'not "none": that is a 404');
  });
  assert.deepEqual(logged, [
    `error userdata/other: ${problem}`,
    `error userdata/prefixed: ${problem}`,
  ]);
  chmodSync(join(folder, 'userdata'), 0o755);
});

test('a file over the size that is served is an error that says so', (t) => {
  const { serve, logged } = setUp(t, {
    'userdata/text': Buffer.alloc(4 * 1024 * 1024 + 1, 'a'),
    'userdata/binary': Buffer.alloc(16 * 1024 * 1024 + 1, 0xff),
    'userdata/fits': Buffer.alloc(16 * 1024 * 1024, 0xff),
  });
  for (const name of ['text', 'text', 'binary', 'binary']) {
    assert.throws(() => serve(name), UserdataError);
  }
  assert.deepEqual(logged, [
    'error userdata/text: is too long: 4194305 bytes, the limit for text is 4194304',
    'error userdata/binary: is too long: 16777217 bytes, the limit is 16777216',
  ]);
  assert.equal(serve('fits')?.length, 16 * 1024 * 1024);
});

test('a link out of the directory is an error, not another template, and is logged once', (t) => {
  const { serve, folder, logged } = setUp(t, { 'secret.yaml': 'secret', 'userdata/web1.yaml': '' });
  symlinkSync('../secret.yaml', join(folder, 'userdata/web1'));
  for (let count = 0; count < 3; count += 1) {
    assert.throws(() => serve('web1'), UserdataError);
    assert.equal(serve('x', '../secret'), undefined);
  }
  assert.deepEqual(logged, [
    'error userdata/web1: the link points to secret.yaml, outside userdata: put a file there in its place',
    'warn user-data of "../secret": ignored: the name contains ".."',
  ]);
});

test('a new configuration is in force at once', (t) => {
  const parts = setUp(t, { 'userdata/web1': '{{foo}}', 'other/web1': 'other {{hostname}}' });
  assert.equal(parts.serve('web1'), 'bar');
  parts.config = { ...parts.config, templateData: new Map([['foo', 'new']]) };
  assert.equal(parts.serve('web1'), 'new');
  const mdserver = { ...parts.config.mdserver, userdata_dir: join(parts.folder, 'other') };
  parts.config = { ...parts.config, mdserver };
  assert.equal(parts.serve('web1'), 'other web1');

  writeFileSync(join(parts.folder, 'other/web1'), '{{nope}}');
  assert.throws(() => parts.serve('web1'), TemplateError);
  parts.config = { ...parts.config };
  assert.throws(() => parts.serve('web1'), TemplateError);
  assert.equal(parts.logged.length, 2, 'a reload says again what is wrong');
});

test('changes a template makes to its data last for the request only, and never reach other guests', (t) => {
  const site = setUp(t, {
    'userdata/web1':
      "{{hostname}}{{% hostname = 'changed'; it.extra = 'x'; }} {{hostname}} {{foo}}",
    'userdata/web2': "{{% instance.name = 'other'; }}",
    'userdata/web3': "{{% public_keys.default = 'other'; }}",
    'userdata/web4': "{{% instance.metadata.role = 'other'; }}",
    'userdata/web5': '{{extra}}',
  });
  for (const _ of [1, 2]) assert.equal(site.serve('web1'), 'web1 changed bar');
  for (const name of ['web2', 'web3', 'web4']) {
    assert.throws(() => site.serve(name), /userdata\/web\d:1: .*(read only|not extensible)/);
  }
  assert.throws(() => site.serve('web5'), /unknown name "extra"/);
});

test('thousands of files can be served in turn, each with its own content', (t) => {
  const names = Array.from({ length: 1200 }, (_, number) => `vm${number}`);
  const files = names.map((name) => [`userdata/${name}`, `${name} {{hostname}}`] as const);
  const { serve } = setUp(t, Object.fromEntries(files));
  for (const name of [...names, ...names.slice(0, 50)])
    assert.equal(serve(name), `${name} ${name}`);
});
