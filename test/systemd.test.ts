import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { temporaryFolder } from './support/cleanup.js';
import { mainFile } from './support/daemon.js';

const module = (name: string) => new URL(`../src/${name}.js`, import.meta.url).href;

/** What a program prints whose standard output or error is the journal, by its device and inode, as systemd says. */
function runInJournal(journal: 'stdout' | 'stderr', args: readonly string[], cwd = '/') {
  const descriptor = journal === 'stdout' ? 1 : 2;
  const script = `exec 3>&${descriptor}
    export JOURNAL_STREAM="$(stat -L -c %d:%i /proc/self/fd/3)"
    exec "$@"`;
  const { stdout, stderr, status } = spawnSync(
    'sh',
    ['-c', script, 'sh', process.execPath, ...args],
    { encoding: 'utf8', cwd },
  );
  return { stdout, stderr, status };
}

const logger = (folder: string) => `
  import { startLogging } from '${module('log')}';
  const { log } = startLogging({
    mdserver: { logfile: '${folder}/log', debug: true },
    loglevels: { base: 'debug', stream: 'debug', file: 'debug' },
  });
  for (const level of ['debug', 'info', 'warn', 'error', 'fatal']) log[level](level + ' of\\nguest');
  log.error(Object.assign(new Error('x'), { stack: 'Error: x\\n    at y' }));`;
const asModule = (code: string) => ['--input-type=module', '--eval', code];

test('the journal gets a priority for each line, and no second time; the file has both', (t) => {
  const folder = temporaryFolder(t);
  const run = runInJournal('stdout', asModule(logger(folder)));
  assert.deepEqual(run, {
    status: 0,
    stderr: '',
    stdout: `<7>debug of\\nguest
<6>info of\\nguest
<4>warn of\\nguest
<3>error of\\nguest
<2>fatal of\\nguest
<3>Error: x\\n    at y
`,
  });
  const file = readFileSync(join(folder, 'log'), 'utf8').split('\n');
  assert.match(file[3] ?? '', /^\d{4}-\d\d-\d\dT\S+Z ERROR error of\\nguest$/);
});

test('standard output that is not the journal keeps time and level, though another one is', (t) => {
  const { stdout } = runInJournal('stderr', asModule(logger(temporaryFolder(t))));
  assert.match(stdout, /^\S+Z DEBUG debug of\\nguest\n/);
  assert.doesNotMatch(stdout, /^</m);
});

test('each line on standard error has a priority in the journal, and only there', () => {
  const code = `
    import { writeError } from '${module('systemd')}';
    writeError(3, 'Error: x\\n    at y\\n\\n    at z\\n');
    writeError(4, 'warning\\n');`;
  const { stderr } = runInJournal('stderr', asModule(code));
  assert.equal(stderr, '<3>Error: x\n<3>    at y\n\n<3>    at z\n<4>warning\n');
  const elsewhere = runInJournal('stdout', asModule(code));
  assert.equal(elsewhere.stderr, 'Error: x\n    at y\n\n    at z\nwarning\n');
});

test('what a reload says of a bad configuration is an error in the journal, what it warns of a warning', (t) => {
  const folder = temporaryFolder(t);
  const check = (text: string) => {
    writeFileSync(join(folder, 'mdserver.conf'), text);
    const { stderr, status } = runInJournal('stderr', [
      mainFile,
      '--check',
      join(folder, 'mdserver.conf'),
    ]);
    return [status, stderr.replaceAll(folder, 'DIR')];
  };
  assert.deepEqual(check('port = 1\n'), [
    78,
    '<3>mdserver: DIR/mdserver.conf:1: expected a section header, such as [mdserver], before the first option\n',
  ]);
  const [status, said = ''] = check('[mdserver]\nbogus = 1\ndb_file = DIR/db.json\n');
  assert.equal(status, 0);
  assert.match(String(said), /^<4>mdserver: warning: [^\n]*bogus/);
  const ctl = runInJournal('stderr', [mainFile.replace('main.js', 'ctl/main.js'), 'bogus']);
  assert.match(ctl.stderr, /^<3>mdserverctl: [^\n]+\n$/);
});

/** Runs a program that tells systemd, with a systemd-notify that appends its arguments to a file. */
function runTelling(t: TestContext, systemdNotify: string, code: string, env = {}) {
  const folder = temporaryFolder(t, { 'systemd-notify': `#!/bin/sh\n${systemdNotify}\n` });
  chmodSync(join(folder, 'systemd-notify'), 0o755);
  const told = join(folder, 'told');
  const program = `
    import { setTimeout as pause } from 'node:timers/promises';
    import { feedWatchdog, systemdNotifier } from '${module('systemd')}';
    const notify = systemdNotifier((reason) => console.log(reason));
    ${code}`;
  const { stdout, stderr } = spawnSync(process.execPath, asModule(program), {
    encoding: 'utf8',
    cwd: folder,
    env: {
      PATH: `${folder}:${process.env['PATH']}`,
      NOTIFY_SOCKET: '/none',
      WATCHDOG_USEC: '200000',
      ...env,
    },
  });
  assert.equal(stderr, '');
  return { stdout, told: existsSync(told) ? readFileSync(told, 'utf8') : '' };
}

const record = 'for value; do printf "%s|" "$value"; done >>told; echo >>told';

test('systemd is told one thing at a time, and what is out of date is left out', (t) => {
  const { stdout, told } = runTelling(
    t,
    `${record}; sleep 0.3; echo end >>told`,
    `notify({ READY: '1', STATUS: 'a\\nSTOPPING=1' });
    await pause(50);
    notify({ STATUS: 'b' });
    notify({ WATCHDOG: '1' });
    notify({ WATCHDOG: '1', STATUS: 'c'.repeat(5000) });`,
  );
  assert.equal(stdout, '');
  const text = 'c'.repeat(1000);
  const [, ...lines] = /^(.*)\nend\n(.*)\nend\n$/.exec(told) ?? assert.fail(told);
  assert.deepEqual(
    lines.map((line) => line.split('|').sort()),
    [
      ['', 'READY=1', 'STATUS=a STOPPING=1'],
      ['', `STATUS=${text}`, 'WATCHDOG=1'],
    ],
  );
});

test('a systemd-notify that fails is reported once each time that it begins to', (t) => {
  const fails = 'if [ -e good ]; then exit 0; fi; echo broken >&2; exit 1';
  const { stdout } = runTelling(
    t,
    fails,
    `import { rmSync, writeFileSync } from 'node:fs';
    const tell = async () => { notify({ STATUS: 'a' }); await pause(300); };
    await tell(); await tell();
    writeFileSync('good', '');
    await tell();
    rmSync('good');
    await tell(); await tell();`,
  );
  const line = 'Command failed: systemd-notify STATUS=a broken\n';
  assert.equal(stdout, line + line);
});

test('the watchdog is fed at half of its time, as long as the event loop turns', (t) => {
  const feeding = `feedWatchdog(notify); await pause(550);`;
  const fed = runTelling(t, record, feeding).told.split('\n').length - 1;
  assert.ok(fed >= 3 && fed <= 5, `${fed} times`);
  const busy = `feedWatchdog(notify); const end = Date.now() + 550; while (Date.now() < end); process.exit();`;
  assert.equal(runTelling(t, record, busy).told, '');
});

test('no watchdog is fed where the unit has none, or it is for another process', (t) => {
  const feeding = `feedWatchdog(notify); await pause(300);`;
  for (const env of [{ WATCHDOG_USEC: '' }, { WATCHDOG_PID: '1' }]) {
    assert.equal(runTelling(t, record, feeding, env).told, '');
  }
  const silent = `console.log(notify)`;
  assert.equal(runTelling(t, record, silent, { NOTIFY_SOCKET: '' }).stdout, 'undefined\n');
});
