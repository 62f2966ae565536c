import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readArguments, UsageError } from '../src/ctl/arguments.js';
import { commandTable } from '../src/ctl/commands.js';

const none = {
  config: undefined,
  socket: undefined,
  json: false,
  yes: false,
  prune: false,
  connect: undefined,
  'as-xml': undefined,
};

function refusal(...args: string[]): string {
  try {
    readArguments(args);
  } catch (error) {
    if (error instanceof UsageError) return error.message;
    throw error;
  }
  return 'it was taken';
}

test('options stand before and after a command, with and without an equals sign', () => {
  const expected = {
    command: 'render',
    operands: ['web1', 'meta-data'],
    options: { ...none, json: true, socket: '/run/x.sock' },
  };
  for (const line of [
    '--json --socket /run/x.sock render web1 meta-data',
    'render --socket=/run/x.sock web1 --json meta-data',
    'render web1 meta-data --socket /run/x.sock --json',
  ]) {
    assert.deepEqual(readArguments(line.split(' ')), expected, line);
  }
});

test('every option of every command is read', () => {
  assert.deepEqual(readArguments(['sync', '--prune', '-y', '-c', 'test:///default']), {
    command: 'sync',
    operands: [],
    options: { ...none, prune: true, yes: true, connect: 'test:///default' },
  });
  assert.deepEqual(readArguments(['render', '--as-xml', '-', 'tree', '--config', 'a.conf']), {
    command: 'render',
    operands: ['tree'],
    options: { ...none, 'as-xml': '-', config: 'a.conf' },
  });
});

test('"-" is an operand, and after "--" everything is', () => {
  assert.deepEqual(readArguments(['upload', '-']), {
    command: 'upload',
    operands: ['-'],
    options: none,
  });
  assert.deepEqual(readArguments(['remove', '--', '--yes', '-x']), {
    command: 'remove',
    operands: ['--yes', '-x'],
    options: none,
  });
});

test('what is wrong with a command line is said in one line that names the way on', () => {
  const refusals: [string[], string][] = [
    [[], 'no command given, see mdserverctl --help'],
    [['lst'], 'unknown command "lst", did you mean list?'],
    [['frobnicate'], 'unknown command "frobnicate", see mdserverctl --help'],
    [['constructor'], 'unknown command "constructor", see mdserverctl --help'],
    [['list', '--frob'], "Unknown option '--frob'; see mdserverctl --help"],
    [['list', '--prune'], 'list has no option --prune, see mdserverctl list --help'],
    [['list', 'web1'], 'too many arguments: mdserverctl list; see mdserverctl list --help'],
    [['show'], 'too few arguments: mdserverctl show NAME; see mdserverctl show --help'],
    [['remove'], 'too few arguments: mdserverctl remove NAME...; see mdserverctl remove --help'],
    [['render'], 'render needs a NAME, see mdserverctl render --help'],
    [
      ['render', 'web1', 'userdata'],
      '"userdata" is none of user-data, meta-data, vendor-data, network-config, tree; see mdserverctl render --help',
    ],
    [
      ['render', 'web1', 'tree', '--as-xml', 'x'],
      '--as-xml stands in place of NAME, see mdserverctl render --help',
    ],
    [['list', '--socket='], '--socket needs a value, see mdserverctl list --help'],
  ];
  for (const [args, message] of refusals) assert.equal(refusal(...args), message);
  assert.match(refusal('list', '--socket'), /^Option '--socket <value>' argument missing; see /);
});

test('--help names every command, and that of a command its options and examples', () => {
  const overall = readArguments(['--help']);
  assert.ok('print' in overall);
  for (const [name, { summary, options, examples }] of commandTable) {
    assert.match(overall.print, new RegExp(`^  ${name}\\b.*${summary}$`, 'm'));
    const own = readArguments([name, '--help']);
    assert.ok('print' in own);
    assert.ok(own.print.startsWith(`Usage: mdserverctl ${name}`));
    for (const option of [...options, 'json']) assert.ok(own.print.includes(`--${option}`));
    for (const [example] of examples) assert.ok(own.print.includes(example));
    for (const line of own.print.split('\n')) assert.ok(line.length <= 100, line);
  }
});

test('--help and --version are answered before operands are counted', () => {
  assert.ok('print' in readArguments(['show', '--help']));
  const version = readArguments(['--version']);
  assert.ok('print' in version);
  assert.match(version.print, /^mdserverctl \d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)\n$/);
});
