import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { configFrom, loadConfig } from '../src/config/load.js';
import { type Option, options } from '../src/config/options.js';
import { exampleConfig } from '../tools/example-config.js';
import { temporaryFolder } from './support/cleanup.js';
import { repository } from './support/daemon.js';

const shipped = readFileSync(new URL('../../etc/mdserver/mdserver.conf', import.meta.url), 'utf8');
const example = exampleConfig();

test('the shipped mdserver.conf has the defaults, no public keys and no warnings', () => {
  const { config, warnings } = configFrom(shipped);
  const { config: defaults } = configFrom('');
  assert.deepEqual(warnings, []);
  assert.deepEqual(config._include_, { directories: ['/etc/mdserver/conf.d'], files: undefined });
  assert.deepEqual({ ...config, _include_: 0, texts: 0 }, { ...defaults, _include_: 0, texts: 0 });
});

test('the README gives its SSH key with commands that the shipped mdserver.conf accepts', (t) => {
  const readme = readFileSync(join(repository, 'README.md'), 'utf8');
  const [, commands = ''] =
    /^```\n(tee [\s\S]*?)systemctl reload mdserver\n```$/m.exec(readme) ?? [];
  const folder = temporaryFolder(t, { 'etc/mdserver/conf.d/': '' });
  const file = join(folder, 'etc/mdserver/mdserver.conf');
  writeFileSync(file, shipped);
  const script = commands.replaceAll('/etc/mdserver', `${folder}/etc/mdserver`);
  const done = spawnSync('sh', ['-ec', script], { encoding: 'utf8' });
  assert.deepEqual([done.status, done.stderr], [0, '']);
  const { config, warnings } = loadConfig(file, folder);
  assert.deepEqual(warnings, []);
  assert.deepEqual(
    config.publicKeys.map(({ name, key }) => [name, key]),
    [['default', 'ssh-ed25519 AAAA... you@your-desk']],
  );
});

for (const page of readdirSync(join(repository, 'docs'))) {
  const text = readFileSync(join(repository, 'docs', page), 'utf8');
  for (const [, section = ''] of text.matchAll(/^```ini\n([\s\S]*?)^```$/gm)) {
    test(`what docs/${page} shows is right in a file beside the shipped one: ${section}`, (t) => {
      const folder = temporaryFolder(t, { 'etc/mdserver/conf.d/shown.conf': section });
      const file = join(folder, 'etc/mdserver/mdserver.conf');
      writeFileSync(file, shipped);
      const { warnings } = loadConfig(file, folder);
      // It is in the shipped file already, and counts there only.
      const isMain = section.startsWith('[_include_]');
      assert.equal(warnings.length, isMain ? 1 : 0, warnings.join());
    });
  }
}

test('it has every option of the table, in its section', () => {
  const sections = new Map(
    example
      .split(/^(?=\[)/m)
      .slice(1)
      .map((text) => [/^\[(.*)\]/.exec(text)?.[1], text]),
  );
  assert.deepEqual(
    [...sections.keys()].sort(),
    [...Object.keys(options), 'public-keys', 'template-data', 'dhcp-options'].sort(),
  );
  for (const [section, table] of Object.entries(options)) {
    const written = [...(sections.get(section) ?? '').matchAll(/^(?:# )?([\w-]+) =/gm)];
    assert.deepEqual(
      written.map((match) => match[1]),
      Object.keys(table),
      section,
    );
  }
});

test('removing the comment signs leaves every option at its default', () => {
  const commented = /^# (\S+ =.*(?:\n# {5}\S.*)*)$/gm;
  const text = example.replace(commented, (comment) => comment.replace(/^# /gm, ''));
  const { config, warnings } = configFrom(text);
  const { config: defaults } = configFrom('');
  assert.deepEqual(warnings, []);
  for (const section of Object.keys(options) as (keyof typeof options)[]) {
    const expected = {
      ...defaults[section],
      ...(section === 'service' && { location: '', version: '', release_date: '', hostname: '' }),
      ...(section === '_include_' && { directories: ['/etc/mdserver/conf.d'] }),
    };
    assert.deepEqual(config[section], expected, section);
  }
  assert.equal(config.publicKeys.length, 1);
  assert.deepEqual(
    [...config.templateData],
    [
      ['proxy', 'http://10.122.0.1:3128/'],
      // As in Python's templates.
      ['domain', 0],
      ['port', '80'],
    ],
  );
});

test('it does not depend on the host or the release, and is at most 80 columns wide', () => {
  const inWords = Object.entries<Readonly<Record<string, Option>>>(options).flatMap(
    ([section, table]) =>
      Object.entries(table)
        .filter(([, { defaultInWords }]) => defaultInWords !== undefined)
        .map(([key]) => `${section}.${key}`),
  );
  assert.deepEqual(inWords, [
    'mdserver.control_socket',
    'service.location',
    'service.version',
    'service.release_date',
    'service.hostname',
    'metadata-defaults.availability-zone',
    'metadata-defaults.instance-type',
    'metadata-defaults.region',
  ]);
  assert.match(
    example,
    /Default: the short\n# name of the host\.\n#\n# location =\n\n.*\n#\n# version =\n/,
  );
  assert.deepEqual(
    example.split('\n').filter((line) => line.length > 80),
    [],
  );
});
