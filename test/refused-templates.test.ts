import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Health, InstanceDetails, RenderedDocument } from '../src/control/api.js';
import type { Finding } from '../src/ctl/checks/finding.js';
import { keptTemplates } from '../src/userdata/kept.js';
import { refusalLines } from '../src/userdata/refused.js';
import type { TemplateInstance } from '../src/userdata/template.js';
import { createUserdata, type UserdataConfig } from '../src/userdata/userdata.js';
import { temporaryFolder } from './support/cleanup.js';
import { eventually } from './support/daemon.js';
import { databaseRecord, mac, uuid } from './support/samples.js';
import { type Site as RunningSite, startSite } from './support/site.js';

// A version of a template that does not render is refused: the last one that did stays in force.

const inForce = 'the last version that rendered is in force';

function instanceOf(
  number: number,
  { name = `web${number}`, ...changes }: Partial<TemplateInstance> = {},
): TemplateInstance {
  const none = { ipv4: undefined, ipv6: undefined, location: undefined, metadata: {} };
  return { ...none, name, uuid: uuid(number), mac: mac(number), ...changes };
}

const web1 = instanceOf(1);

/** A daemon's rendering of templates, which `restart` begins anew with the same folder. */
function setUp(t: TestContext, files: Readonly<Record<string, string | Buffer>>) {
  const folder = temporaryFolder(t, { 'userdata/': '', ...files });
  const lines: string[] = [];
  const note = (line: string) => lines.push(line.replaceAll(`${folder}/`, ''));
  const log = { error: note, warn: note };
  const settings = {
    config: {
      publicKeys: [{ name: 'ops', key: 'ssh-ed25519 AAAA one' }],
      templateData: new Map([['proxy', 'one.example']]),
      mdserver: {
        userdata_dir: join(folder, 'userdata'),
        userdata_suffixes: [''],
        default_template: join(folder, 'default'),
        builtin_template: true,
        password: 'one',
        vendor_data: join(folder, 'vendor'),
      },
    } as UserdataConfig,
  };
  const start = () => {
    const kept = keptTemplates(join(folder, 'state/db.json'), log);
    return { kept, ...createUserdata({ config: () => settings.config, log, kept }) };
  };
  let running = start();
  return {
    folder,
    lines,
    settings,
    write: (path: string, content: string | Buffer) => {
      // As a new file: a test may write twice within the resolution of the file system's clock.
      writeFileSync(join(folder, 'new'), content);
      rmSync(join(folder, path), { force: true, recursive: true });
      renameSync(join(folder, 'new'), join(folder, path));
    },
    serve: (instance: TemplateInstance) => {
      const rendering = running.userdata(instance)?.();
      return rendering === undefined ? 'none' : String(rendering.body);
    },
    problemOf: (instance: TemplateInstance) =>
      running.userdata(instance)?.().problem?.replaceAll(`${folder}/`, ''),
    vendor: (instance: TemplateInstance) => String(running.vendorData(instance).body),
    restart: async () => {
      await running.kept.written();
      running = start();
    },
    written: () => running.kept.written(),
    refusals: (...instances: TemplateInstance[]) =>
      refusalLines(
        running.refusals(new Map(instances.map((instance) => [instance.name, instance]))),
      ).map((line) => line.replaceAll(`${folder}/`, '')),
  };
}

type Site = ReturnType<typeof setUp>;

/** What is done to the template `userdata/web1`, which rendered before, and how the problem is told. */
const faults: readonly (readonly [string, (site: Site) => void, RegExp])[] = [
  [
    'an unknown name',
    ({ write }) => write('userdata/web1', 'new {{nobody}}'),
    /^userdata\/web1:1: unknown name "nobody" in \{\{nobody\}\}/,
  ],
  [
    'a syntax error',
    ({ write }) => write('userdata/web1', 'a\n{{% if (}}'),
    /^userdata\/web1:2: \{\{% if \(\}\} is not JavaScript/,
  ],
  [
    'a statement of Bottle',
    ({ write }) => write('userdata/web1', '% if x:\n'),
    /^userdata\/web1:1: "% if x:" is a Bottle statement/,
  ],
  [
    'a text that is too long',
    ({ write }) => write('userdata/web1', Buffer.alloc(4 * 1024 * 1024 + 1, 'x')),
    /^userdata\/web1: is too long/,
  ],
  [
    'a file that is too long',
    ({ write }) => write('userdata/web1', Buffer.alloc(16 * 1024 * 1024 + 1, 0xff)),
    /^userdata\/web1: is too long/,
  ],
  [
    'a link that leaves the folder',
    ({ write, folder }) => {
      write('outside', 'from outside');
      rmSync(join(folder, 'userdata/web1'));
      symlinkSync('../outside', join(folder, 'userdata/web1'));
    },
    /^userdata\/web1: the link points to outside, outside userdata/,
  ],
  [
    'a link to itself',
    ({ folder }) => {
      rmSync(join(folder, 'userdata/web1'));
      symlinkSync('web1', join(folder, 'userdata/web1'));
    },
    /^userdata\/web1: the link points to itself/,
  ],
  [
    'a folder that its name leads through and that became a loop',
    ({ folder }) => {
      renameSync(join(folder, 'userdata'), join(folder, 'moved'));
      symlinkSync('userdata', join(folder, 'userdata'));
    },
    /^userdata\/web1: /,
  ],
  [
    'a value of [template-data] that is gone',
    ({ settings }) => {
      settings.config = { ...settings.config, templateData: new Map() };
    },
    /^userdata\/web1:1: unknown name "proxy" in \{\{proxy\}\}/,
  ],
  [
    'a key that is gone',
    ({ settings }) => {
      settings.config = { ...settings.config, publicKeys: [] };
    },
    /^userdata\/web1:1: unknown name "public_key_ops"/,
  ],
  [
    'a password that is gone',
    ({ settings }) => {
      const { mdserver } = settings.config;
      settings.config = { ...settings.config, mdserver: { ...mdserver, password: undefined } };
    },
    /^userdata\/web1:1: unknown name "mdserver_password"/,
  ],
];

const template = '{{hostname}} {{proxy}} {{public_key_ops}} {{mdserver_password}}';
const text = 'web1 one.example ssh-ed25519 AAAA one one';

for (const [what, happen, problem] of faults) {
  test(`the last version that rendered stays in force after ${what}, over a restart, too`, async (t) => {
    const site = setUp(t, { 'userdata/web1': template });
    const { serve, problemOf, restart, lines } = site;
    assert.equal(serve(web1), text);
    assert.equal(problemOf(web1), undefined);
    happen(site);
    for (const when of ['at once', 'again', 'after a restart', 'after another one']) {
      if (when.startsWith('after')) await restart();
      assert.equal(serve(web1), text, when);
      assert.match(problemOf(web1) ?? '', problem, when);
    }
    const told = lines.filter((line) => line.endsWith(`; ${inForce}`));
    assert.deepEqual(lines, told);
    assert.equal(lines.length, 3, 'once in each run of the daemon');
    for (const line of lines) assert.match(line, problem);
  });
}

test('a file that mdserver may no longer read is served as it last was', async (t) => {
  if (process.geteuid?.() !== 0) return t.skip('needs root, to become another user');
  const site = setUp(t, { 'userdata/web1': template });
  chmodSync(site.folder, 0o777);
  process.seteuid?.(65534);
  try {
    assert.equal(site.serve(web1), text);
    await site.written();
    process.seteuid?.(0);
    chmodSync(join(site.folder, 'userdata/web1'), 0o600);
    process.seteuid?.(65534);
    assert.equal(site.serve(web1), text);
    await site.restart();
    assert.equal(site.serve(web1), text);
  } finally {
    process.seteuid?.(0);
  }
  assert.deepEqual(
    new Set(site.lines),
    new Set([
      `userdata/web1: mdserver is not allowed to read it: give its user read permission; ${inForce}`,
    ]),
  );
});

test('the last version is rendered with the values of now, where it renders with them', async (t) => {
  const { serve, write, settings, restart } = setUp(t, { 'userdata/web1': template });
  serve(web1);
  await restart();
  write('userdata/web1', '{{broken}}');
  settings.config = { ...settings.config, templateData: new Map([['proxy', 'two.example']]) };
  assert.equal(serve(web1), text.replace('one.example', 'two.example'));
  assert.equal(
    serve({ ...web1, metadata: { role: 'db' } }),
    text.replace('one.example', 'two.example'),
  );
});

test('a file that a template includes counts: a change is seen, and the last version has its last text', async (t) => {
  const { serve, problemOf, write, restart, folder } = setUp(t, {
    'userdata/web1': "{{% include('part') }}\n",
  });
  assert.throws(() => serve(web1), /include\('part'\): .*userdata\/part: no such file/);
  write('userdata/part', 'first {{hostname}}\n');
  assert.equal(serve(web1), 'first web1\n');
  write('userdata/part', 'second {{hostname}}\n');
  assert.equal(serve(web1), 'second web1\n');
  await restart();
  write('userdata/part', '\n{{nope}}\n');
  assert.equal(serve(web1), 'second web1\n');
  assert.match(problemOf(web1) ?? '', /^userdata\/part:2: unknown name "nope"/);
  rmSync(join(folder, 'userdata/part'));
  assert.equal(serve(web1), 'second web1\n');
  symlinkSync('../outside', join(folder, 'userdata/part'));
  write('outside', 'from outside');
  assert.match(problemOf(web1) ?? '', /include\('part'\): .*the link points to/);
});

test('what mdserver 1.0 has kept is rendered as it was, though it would be refused now', async (t) => {
  const source = "{{hostname.replace('w', 'W')}} {{true}}\n";
  const { serve, problemOf, write, restart, folder } = setUp(t, { 'userdata/web1': 'x' });
  serve(web1);
  await restart();
  const [name = ''] = readdirSync(join(folder, 'state/templates'));
  const kept = join(folder, 'state/templates', name);
  const { path, versions } = JSON.parse(readFileSync(kept, 'utf8').split('\n')[0] ?? '');
  const { parts, ...older } = versions[0];
  assert.deepEqual(parts, []);
  const about = { path, versions: [{ ...older, bytes: source.length }] };
  writeFileSync(kept, `${JSON.stringify(about)}\n${source}`);
  await restart();
  write('userdata/web1', source);
  assert.equal(serve(web1), 'Web1 true\n');
  assert.match(problemOf(web1) ?? '', /replaces all in Python.*\{\{% language javascript \}\}/);
});

test('each instance gets the last version that rendered for it', async (t) => {
  const { serve, write, restart, refusals } = setUp(t, { default: 'first {{hostname}}' });
  const db = instanceOf(2, { name: 'db', metadata: { role: 'db' } });
  const other = instanceOf(3, { name: 'other' });
  assert.deepEqual([serve(db), serve(other)], ['first db', 'first other']);
  write('default', 'second {{hostname}} {{instance.metadata.role}}');
  assert.deepEqual([serve(db), serve(other)], ['second db db', 'first other']);
  write('default', 'third {{hostname}} {{nothing}}');
  await restart();
  assert.deepEqual([serve(db), serve(other)], ['second db db', 'first other']);
  assert.deepEqual(refusals(db, other), [
    `default:1: unknown name "nothing" in {{nothing}}: set it in [template-data], or correct the name; ${inForce} for 2 instances, such as db`,
  ]);
});

test('a template that never rendered is an error, and so it is told', async (t) => {
  const { serve, write, refusals, lines } = setUp(t, { 'userdata/web1': '{{first}}' });
  assert.throws(() => serve(web1), /unknown name "first"/);
  write('userdata/web1', '{{second}}');
  assert.throws(() => serve(web1), /unknown name "second"/);
  assert.deepEqual(refusals(web1), [
    'userdata/web1:1: unknown name "second" in {{second}}: set it in [template-data], or correct the name; 500 for web1',
  ]);
  assert.deepEqual(
    lines.map((line) => line.slice(0, 37)),
    ['userdata/web1:1: unknown name "first"', 'userdata/web1:1: unknown name "second'],
  );
});

test('vendor-data stays in force, too', async (t) => {
  const { vendor, write, restart, refusals, folder } = setUp(t, { vendor: 'good {{hostname}}' });
  assert.equal(vendor(web1), 'good web1');
  await restart();
  write('vendor', '{{bad}}');
  assert.equal(vendor(web1), 'good web1');
  assert.match(refusals(web1).join(), /^vendor:1: .* for web1$/);
  rmSync(join(folder, 'vendor'));
  assert.equal(vendor(web1), 'good web1');
  assert.match(
    refusals(web1).join(),
    /^vendor: no such file \(set by mdserver.vendor_data\); .* for web1$/,
  );
});

test('a file that is no text stays in force byte for byte', async (t) => {
  const bytes = Buffer.from([0x1f, 0x8b, 0, 10, 0xff, 13, 10]);
  const { serve, write, restart, folder } = setUp(t, { 'userdata/web1': bytes });
  assert.equal(serve(web1), bytes.toString());
  write('userdata/web1', 'a text {{bad}}');
  await restart();
  assert.equal(serve(web1), bytes.toString());
  const [file = ''] = readdirSync(join(folder, 'state/templates'));
  assert.ok(readFileSync(join(folder, 'state/templates', file)).includes(bytes));
});

test('a template that is deleted, or another prefix, is a change and no fault', async (t) => {
  const site = setUp(t, {
    'userdata/web1': 'own',
    'userdata/role': 'role',
    default: 'default',
  });
  assert.equal(site.serve(web1), 'own');
  rmSync(join(site.folder, 'userdata/web1'));
  await site.restart();
  assert.equal(site.serve(web1), 'default');
  const role = instanceOf(1, { metadata: { userdata_prefix: 'role' } });
  assert.equal(site.serve(role), 'role');
  rmSync(join(site.folder, 'userdata/role'));
  assert.equal(site.serve(role), 'none');
  assert.deepEqual([site.refusals(web1), site.lines], [[], []]);
});

test('a new machine never gets what was written for the one whose name or MAC address it has', async (t) => {
  const first = setUp(t, { 'userdata/web1': 'secret of the first', default: 'default' });
  assert.equal(first.serve(web1), 'secret of the first');
  first.write('userdata/web1', '{{bad}}');
  assert.equal(first.serve(web1), 'secret of the first');
  for (const when of ['at once', 'after a restart']) {
    assert.throws(() => first.serve(instanceOf(9, { name: 'web1' })), /unknown name "bad"/, when);
    await first.restart();
  }
  assert.equal(first.serve(web1), 'secret of the first');
  // Nor when it has a version of its own, which no longer renders.
  const role = instanceOf(9, { name: 'web1', metadata: { role: 'db' } });
  first.write('userdata/web1', '{{instance.metadata.role}}');
  assert.equal(first.serve(role), 'db');
  assert.throws(() => first.serve({ ...role, metadata: {} }), /metadata.role/);
  await first.restart();
  assert.throws(() => first.serve({ ...role, metadata: {} }), /metadata.role/);

  const address = 'userdata/52:54:00:00:00:01';
  const second = setUp(t, { [address]: 'secret of the address' });
  assert.equal(second.serve(web1), 'secret of the address');
  second.write(address, '{{bad}}');
  assert.throws(() => second.serve(instanceOf(9, { mac: mac(1) })), /unknown name "bad"/);
});

test('a problem ends when the file is mended, without a request, and with an instance that is gone', async (t) => {
  const web2 = instanceOf(2);
  const { serve, write, refusals, settings } = setUp(t, { default: '{{proxy}}' });
  const known = () => refusals(web1, web2);
  serve(web1);
  serve(web2);
  write('default', '{{bad}}');
  serve(web1);
  assert.match(known().join(), /"bad".* for web1$/);
  serve(web2);
  assert.match(known().join(), /"bad".* for 2 instances, such as web1$/);
  assert.match(refusals(web2).join(), /"bad".* for web2$/, 'web1 is removed');
  serve(web1);
  write('default', '\n{{worse}}');
  assert.match(known().join(), /^default:2: .*"worse"/, 'another problem');
  write('default', '{{proxy}}');
  assert.deepEqual(known(), []);

  settings.config = { ...settings.config, templateData: new Map() };
  serve(web1);
  assert.match(known().join(), /"proxy".* for web1$/);
  settings.config = { ...settings.config, templateData: new Map([['proxy', 'x']]) };
  assert.deepEqual(known(), []);
});

test('very many instances with one problem are one line, and end with it', (t) => {
  const { serve, write, refusals } = setUp(t, { default: 'good' });
  const all = Array.from({ length: 200 }, (_, index) => instanceOf(index));
  for (const instance of all) serve(instance);
  write('default', '{{bad}}');
  for (const instance of all) serve(instance);
  assert.match(refusals(...all).join(), /; .* for 200 instances, such as web\d+$/);
  write('default', 'good');
  assert.deepEqual(refusals(...all), []);
});

test('kept versions are for the daemon alone, and few', async (t) => {
  const { serve, write, written, folder } = setUp(t, { 'userdata/web1': 'first' });
  mkdirSync(join(folder, 'state/templates'), { recursive: true });
  chmodSync(join(folder, 'state/templates'), 0o777);
  for (let number = 1; number <= 30; number += 1) {
    write('userdata/web1', `version ${number} {{mdserver_password}}`);
    serve(web1);
    await written();
  }
  const kept = join(folder, 'state/templates');
  assert.equal(lstatSync(kept).mode & 0o777, 0o700);
  const names = readdirSync(kept);
  assert.equal(names.length, 1);
  const file = join(kept, names[0] ?? '');
  assert.equal(lstatSync(file).mode & 0o777, 0o600);
  const found = readFileSync(file, 'utf8').match(/version \d+/g);
  assert.deepEqual(
    found,
    Array.from({ length: 10 }, (_, index) => `version ${30 - index}`),
  );
});

test('a version is written once: not for each request, restart or reload', async (t) => {
  const { serve, settings, restart, written, folder } = setUp(t, { 'userdata/web1': template });
  serve(web1);
  await written();
  const kept = join(folder, 'state/templates');
  const file = join(kept, readdirSync(kept)[0] ?? '');
  const { ino } = lstatSync(file);
  serve(web1);
  serve({ ...web1, metadata: { changed: 'yes' } });
  await restart();
  serve(web1);
  settings.config = { ...settings.config };
  serve(web1);
  await written();
  assert.equal(lstatSync(file).ino, ino);
});

/** What somebody else may have put in place of the file of kept versions. */
const foreignFiles: readonly (readonly [string, (file: string) => void, RegExp])[] = [
  [
    'that others can write',
    (file) => chmodSync(file, 0o622),
    /belongs to user \d+ and has the mode/,
  ],
  [
    'of another user',
    (file) => chownSync(file, 12345, 12345),
    /belongs to user 12345 and has the mode 0600, so others can write it: remove it$/,
  ],
  [
    'behind a link',
    (file) => {
      renameSync(file, `${file}.real`);
      symlinkSync(`${file}.real`, file);
    },
    /ELOOP/,
  ],
  [
    'that is a folder',
    (file) => {
      rmSync(file);
      mkdirSync(file);
    },
    /is not a regular file/,
  ],
  [
    'that is cut off',
    (file) => writeFileSync(file, readFileSync(file).subarray(0, -1)),
    /another length/,
  ],
  ['that is none', (file) => writeFileSync(file, 'x'), /JSON/],
];
for (const [what, change, problem] of foreignFiles) {
  test(`a file ${what} is no kept version`, async (t) => {
    if (what === 'of another user' && process.geteuid?.() !== 0) return t.skip('needs root');
    const { serve, write, restart, folder, lines } = setUp(t, { 'userdata/web1': 'good' });
    serve(web1);
    await restart();
    const kept = join(folder, 'state/templates');
    change(join(kept, readdirSync(kept)[0] ?? ''));
    write('userdata/web1', '{{bad}}');
    assert.throws(() => serve(web1), /unknown name "bad"/);
    assert.match(lines[0] ?? '', problem);
    assert.match(
      lines[0] ?? '',
      /^ignored state\/templates\/\w+, which has earlier versions of userdata\/web1: /,
    );
  });
}

test('the folder of kept versions may be no link: nothing is read or written there', async (t) => {
  const { serve, write, written, folder, lines } = setUp(t, {
    'userdata/web1': 'good',
    'elsewhere/': '',
    'state/': '',
  });
  chmodSync(join(folder, 'elsewhere'), 0o755);
  symlinkSync('../elsewhere', join(folder, 'state/templates'));
  assert.equal(serve(web1), 'good');
  await written();
  assert.equal(lstatSync(join(folder, 'elsewhere')).mode & 0o777, 0o755);
  assert.deepEqual(readdirSync(join(folder, 'elsewhere')), []);
  assert.deepEqual(lines, [
    'cannot keep the version of userdata/web1 that rendered: state/templates is not a folder: remove it',
  ]);
  write('userdata/web1', '{{bad}}');
  assert.throws(() => serve(web1), /unknown name "bad"/);
});

test('what cannot be kept harms no answer, and is logged once', async (t) => {
  const { serve, written, folder, lines } = setUp(t, {
    'userdata/web1': 'one',
    'userdata/web2': 'two',
    'state/templates': 'a file in the way',
  });
  assert.deepEqual([serve(web1), serve(instanceOf(2))], ['one', 'two']);
  await written();
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? '', /^cannot keep the version of userdata\/web1 that rendered: EEXIST/);
  rmSync(join(folder, 'state/templates'));
});

/** Runs mdserverctl to its end. */
async function ctl({ folder }: RunningSite, ...args: string[]) {
  const program = fileURLToPath(new URL('../src/ctl/main.js', import.meta.url));
  const child = spawn(
    process.execPath,
    [program, '--config', join(folder, 'mdserver.conf'), ...args],
    { timeout: 120_000, killSignal: 'SIGKILL' },
  );
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk) => (stdout += chunk));
  child.stderr.on('data', (chunk) => (stderr += chunk));
  child.stdin.end();
  const [status] = await once(child, 'close');
  return { status, stdout, stderr };
}

test('a daemon that is restarted with a broken template serves the last version, and every tool says so', async (t) => {
  const addresses = ['127.141.0.8', '127.141.0.9'] as const;
  const before = await startSite(t, '127.141.0.1', {
    records: addresses.map((mds_ipv4, index) => databaseRecord(index + 1, { mds_ipv4 })),
    userdata: { good: '#cloud-config\nhostname: {{yaml(hostname)}}\n' },
    mdserver: 'default_template = @DIR@/userdata/good',
    dnsmasq: 'user = root',
  });
  const ask = ({ daemon }: RunningSite, from: string) => daemon.ask('/latest/user-data', { from });
  const good = (number: number) => `#cloud-config\nhostname: "vm${number}"\n`;
  for (const [index, address] of addresses.entries()) {
    assert.equal((await ask(before, address)).text, good(index + 1));
  }
  const kept = join(before.folder, 'templates');
  await eventually('the version is kept', () => {
    return existsSync(kept) && readdirSync(kept).some((name) => !name.startsWith('.'));
  });
  const template = join(before.folder, 'userdata/good');
  writeFileSync(template, '#cloud-config\nhostname: {{hostnam}}\n');

  const site = await before.restart();
  const { daemon, json } = site;
  for (const [index, address] of addresses.entries()) {
    const { status, text: body } = await ask(site, address);
    assert.deepEqual([status, body], [200, good(index + 1)]);
  }
  const problem = `${template}:2: unknown name "hostnam" in {{hostnam}}: set it in [template-data], or correct the name`;
  const logged = daemon.output().split('\n');
  const errors = logged.filter((line) => line.includes('hostnam"'));
  assert.equal(errors.length, 1);
  assert.ok(errors[0]?.endsWith(`ERROR ${problem}; ${inForce}`), errors[0]);
  const problems = async () => ((await json('/health')).body as Health).problems;
  const line = `${problem}; ${inForce} for 2 instances, such as vm1`;
  assert.ok((await problems()).includes(line), (await problems()).join('\n'));
  const refused = async () =>
    /^mdserver_templates_refused .*$/m.exec((await site.ask('/metrics')).text)?.[0];
  assert.equal(await refused(), 'mdserver_templates_refused 1');
  const details = (await json('/instances/vm1')).body as InstanceDetails;
  const { at: _at, ...answered } = details.boots[0]?.userdata ?? { at: 0 };
  const bytes = good(1).length;
  assert.deepEqual(answered, { status: 200, file: template, bytes, earlier: true });
  assert.equal(details.boots[0]?.outcome, 'configured');
  const rendered = (await json('/instances/vm1/user-data')).body as RenderedDocument;
  assert.deepEqual(rendered, {
    file: template,
    found: true,
    reason: null,
    encoding: 'utf-8',
    body: good(1),
    problem,
  });
  assert.deepEqual(await ctl(site, 'render', 'vm1'), {
    status: 1,
    stdout: good(1),
    stderr: `mdserverctl: ${problem}; ${inForce}\n`,
  });
  const { stdout: explained } = await ctl(site, 'explain', 'vm1');
  assert.match(explained, /user-data from an earlier version of \S+good$/m);
  const { stdout: checked } = await ctl(site, 'check', '--json');
  const findings = (JSON.parse(checked) as Finding[]).filter(({ check }) => check === 'user-data');
  assert.deepEqual(
    findings.filter(({ level }) => level === 'failure').map(({ text: found }) => found),
    [`${problem}; ${inForce} (2 instances, such as vm1)`],
  );

  writeFileSync(template, good(1));
  assert.ok(!(await problems()).some((text) => text.includes(template)));
  assert.equal(await refused(), 'mdserver_templates_refused 0');
  assert.equal((await ctl(site, 'render', 'vm2')).status, 0);
});

test('beyond the limits, what rendered longest ago goes first, and paths keep one version', async (t) => {
  const folder = temporaryFolder(t);
  const database = join(folder, 'db.json');
  const problems: string[] = [];
  const log = { warn: (line: string) => problems.push(line) };
  const settings = { publicKeys: [], templateData: new Map(), password: undefined };
  const start = (limits: { paths: number; bytes: number }) => {
    const kept = keptTemplates(database, log, limits);
    const version = (text: string) => ({
      source: Buffer.from(text),
      parts: [],
      settings,
      machine: undefined,
    });
    return {
      keep: async (path: string, text: string) => {
        kept.keep(path, version(text));
        await kept.written();
        // Files are used one after the other, as their times tell.
        await wait(20);
      },
      sources: (path: string) => kept.versions(path).map(({ source }) => source.toString()),
    };
  };
  const first = start({ paths: 3, bytes: 1_000_000 });
  for (const path of ['a', 'b', 'c']) await first.keep(path, `text of ${path}`);
  const second = start({ paths: 3, bytes: 1_000_000 });
  await second.keep('a', 'text of a');
  await second.keep('d', 'text of d');
  const left = start({ paths: 3, bytes: 800 });
  const all = () =>
    ['a', 'b', 'c', 'd'].map((path) => start({ paths: 9, bytes: 1e6 }).sources(path));
  assert.deepEqual(all(), [['text of a'], [], ['text of c'], ['text of d']]);
  await left.keep('d', 'x'.repeat(500));
  await left.keep('d', 'y'.repeat(500));
  assert.deepEqual(all(), [['text of a'], [], [], ['y'.repeat(500)]]);
  await left.keep('d', 'z'.repeat(5000));
  assert.deepEqual(all(), [[], [], [], ['z'.repeat(5000)]]);
  assert.deepEqual(problems, []);
});
