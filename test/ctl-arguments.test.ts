import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { type Invocation, readArguments } from '../src/ctl/arguments.js';
import { type Command, defineCommand, globalOptions } from '../src/ctl/command.js';
import { commands } from '../src/ctl/commands/index.js';
import { UsageError } from '../src/ctl/errors.js';

/** The global options when none is given. */
const none = { config: undefined, socket: undefined, json: false, help: false, version: false };

/** What is to run, by the command's name. */
function invocation(line: readonly string[], known?: readonly Command[]) {
  const read = readArguments(line, known) as Invocation;
  return { command: read.command.name, operands: read.operands, options: read.options };
}

function usageError(line: readonly string[]): string {
  try {
    readArguments(line);
  } catch (error) {
    if (error instanceof UsageError) return error.message;
    throw error;
  }
  return 'no error';
}

for (const line of [
  '--json --socket /run/x.sock render web1 meta-data',
  'render --socket=/run/x.sock web1 --json meta-data',
  'render web1 meta-data --socket /run/x.sock --json',
]) {
  test(`options can stand anywhere: ${line}`, () => {
    assert.deepEqual(invocation(line.split(' ')), {
      command: 'render',
      operands: ['web1', 'meta-data'],
      options: { ...none, 'as-xml': undefined, json: true, socket: '/run/x.sock' },
    });
  });
}

test('a command gets its own options and the global ones, and no others', () => {
  assert.deepEqual(invocation(['sync', '--prune', '-y', '-c', 'test:///default']), {
    command: 'sync',
    operands: [],
    options: { ...none, prune: true, yes: true, connect: 'test:///default' },
  });
  assert.deepEqual(invocation(['render', '--as-xml', '-', 'tree', '--config', 'a.conf']), {
    command: 'render',
    operands: ['tree'],
    options: { ...none, 'as-xml': '-', config: 'a.conf' },
  });
  assert.deepEqual(invocation(['show', 'a']), { command: 'show', operands: ['a'], options: none });
});

test('a line in the table of a command is enough for an option: it is typed, read and in --help', async () => {
  let received: readonly [string | undefined, boolean] | undefined;
  const example = defineCommand({
    name: 'example',
    usage: [''],
    operands: [0, 0],
    completes: [],
    options: {
      colour: { argument: 'NAME', explanation: 'Use this colour.' },
      loud: { short: 'l', explanation: 'Be loud.' },
    },
    summary: 'Show that options need no second list.',
    help: [],
    examples: [['mdserverctl example', '']],
    run: async (_operands, options) => {
      // These types come from the table: the compiler refuses any other.
      const colour: string | undefined = options.colour;
      const loud: boolean = options.loud;
      // @ts-expect-error: an option with an argument is text, not a switch.
      const wrong: boolean = options.colour;
      // @ts-expect-error: this command has no such option.
      const unknown: unknown = options.prune;
      assert.deepEqual([wrong, unknown], [colour, undefined]);
      received = [colour, loud];
      return 0;
    },
  });
  const read = readArguments(['example', '--colour', 'red', '-l'], [example]) as Invocation;
  assert.equal(await read.command.run(read.operands, read.options), 0);
  assert.deepEqual(received, ['red', true]);
  const help = readArguments(['example', '--help'], [example]);
  assert.ok('print' in help);
  assert.match(help.print, /^ {2}--colour NAME +Use this colour\.$/m);
});

test('an option of several commands is the same in all of them, as the parser needs it', () => {
  const seen = new Map<string, unknown>(Object.entries(globalOptions));
  for (const { name, options } of commands) {
    for (const [option, entry] of Object.entries(options)) {
      assert.equal(seen.get(option) ?? entry, entry, `--${option} of ${name}`);
      seen.set(option, entry);
    }
  }
});

test('"-" is an operand, and after "--" everything is', () => {
  assert.deepEqual(invocation(['upload', '-']).operands, ['-']);
  assert.deepEqual(invocation(['remove', '--', '--yes', '-x']), {
    command: 'remove',
    operands: ['--yes', '-x'],
    options: { ...none, yes: false, connect: undefined },
  });
});

const usageErrors: [line: string[], message: string | RegExp][] = [
  [[], 'no command given; see mdserverctl --help'],
  [['lst'], 'unknown command "lst", did you mean list?'],
  [['frobnicate'], 'unknown command "frobnicate"; see mdserverctl --help'],
  [['constructor'], 'unknown command "constructor"; see mdserverctl --help'],
  [['list', '--frob'], "Unknown option '--frob'; see mdserverctl --help"],
  [['list', '--prune'], 'list has no option --prune; see mdserverctl list --help'],
  [['list', 'web1'], 'too many arguments: mdserverctl list; see mdserverctl list --help'],
  [['show'], 'too few arguments: mdserverctl show NAME; see mdserverctl show --help'],
  [['remove'], 'too few arguments: mdserverctl remove NAME...; see mdserverctl remove --help'],
  [['list', '--socket='], '--socket needs a value; see mdserverctl list --help'],
  [['list', '--socket'], /^Option '--socket <value>' argument missing; see /],
];
for (const [line, message] of usageErrors) {
  test(`a wrong command line is reported in one line that helps: "${line.join(' ')}"`, () => {
    if (typeof message === 'string') assert.equal(usageError(line), message);
    else assert.match(usageError(line), message);
  });
}

const renderErrors: [line: string[], message: string][] = [
  [['render'], 'render needs a NAME; see mdserverctl render --help'],
  [
    ['render', 'web1', 'userdata'],
    '"userdata" is not one of user-data, meta-data, vendor-data, network-config, tree; see mdserverctl render --help',
  ],
  [
    ['render', 'web1', 'tree', '--as-xml', 'x'],
    '--as-xml takes the place of NAME; see mdserverctl render --help',
  ],
];
for (const [line, message] of renderErrors) {
  test(`render reports wrong operands before it connects: "${line.join(' ')}"`, async () => {
    const { command, operands, options } = readArguments(line) as Invocation;
    await assert.rejects(command.run(operands, options), { name: 'UsageError', message });
  });
}

test('--help lists every command', () => {
  const overall = readArguments(['--help']);
  assert.ok('print' in overall);
  for (const { name, summary } of commands) {
    assert.match(overall.print, new RegExp(`^  ${name}\\b.*${summary}$`, 'm'));
  }
});

for (const { name, options, examples } of commands) {
  test(`${name} --help shows its options and examples, in at most 100 columns`, () => {
    const own = readArguments([name, '--help']);
    assert.ok('print' in own);
    assert.ok(own.print.startsWith(`Usage: mdserverctl ${name}`));
    for (const option of Object.keys({ ...options, ...globalOptions })) {
      assert.ok(own.print.includes(`--${option}`), option);
    }
    for (const [example] of examples) assert.ok(own.print.includes(example), example);
    for (const line of own.print.split('\n')) assert.ok(line.length <= 100, line);
  });
}

test('--help and --version are answered before operands are counted', () => {
  assert.ok('print' in readArguments(['show', '--help']));
  const version = readArguments(['--version']);
  assert.ok('print' in version);
  assert.match(version.print, /^mdserverctl \d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)\n$/);
});

/** The modules that a built module loads when it is loaded, with itself. */
function loadedModules(module: URL, loaded = new Set<string>()): ReadonlySet<string> {
  if (loaded.has(module.href)) return loaded;
  loaded.add(module.href);
  for (const [, name = ''] of readFileSync(module, 'utf8').matchAll(/ from '([^']+)';/g)) {
    if (name.startsWith('.')) loadedModules(new URL(name, module), loaded);
    else loaded.add(name);
  }
  return loaded;
}

test('commands start quickly: what only check or a terminal needs is not loaded with them', () => {
  const loaded = [...loadedModules(new URL('../src/ctl/main.js', import.meta.url))];
  assert.ok(loaded.some((name) => name.endsWith('/src/ctl/commands/check.js')));
  const packages = /^(?:fastify|eta|yaml|string-width)$/;
  for (const heavy of [/\/checks\//, /\/http\//, /\/userdata\//, packages]) {
    assert.deepEqual(
      loaded.filter((name) => heavy.test(name)),
      [],
    );
  }
});
