import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { configFrom } from '../src/config/load.js';
import { type Option, options } from '../src/config/options.js';
import { exampleConfig } from '../tools/example-config.js';

const shipped = readFileSync(new URL('../../etc/mdserver/mdserver.conf', import.meta.url), 'utf8');
const example = exampleConfig();

test('the shipped mdserver.conf has the defaults, no public keys and no warnings', () => {
  const { config, warnings } = configFrom(shipped);
  const { config: defaults } = configFrom('');
  assert.deepEqual(warnings, []);
  assert.deepEqual(config._include_, { directories: ['/etc/mdserver/conf.d'], files: undefined });
  assert.deepEqual({ ...config, _include_: 0, texts: 0 }, { ...defaults, _include_: 0, texts: 0 });
});

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
