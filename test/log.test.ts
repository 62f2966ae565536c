import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { printable } from '../src/text.js';
import { temporaryFolder } from './support/cleanup.js';
import { eventually, mainFile } from './support/daemon.js';
import { domainXml, loopbackConfiguration } from './support/samples.js';
import { startSite } from './support/site.js';

const address = '127.133.0.1';
const logModule = new URL('../src/log.js', import.meta.url).href;

/** A line of the log: time, level, text. */
const lineForm =
  /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (TRACE|DEBUG|INFO |WARN |ERROR|FATAL) (.*)$/;

function linesOf(text: string): string[] {
  assert.ok(text === '' || text.endsWith('\n'), 'ends in the middle of a line');
  return text === '' ? [] : text.slice(0, -1).split('\n');
}

/** Level and text of each line. */
function entriesOf(text: string): string[] {
  return linesOf(text).map((line) => {
    const [, level, message] = lineForm.exec(line) ?? assert.fail(`no line of the log: ${line}`);
    return `${level?.trim()} ${message}`;
  });
}

interface Levels {
  readonly base?: string;
  readonly stream?: string;
  readonly file?: string;
  readonly debug?: boolean;
  readonly logfile?: string;
}

/** Runs a program that logs, and gives what came of it; `log`, `logging`, `config` are there for it. */
function runLogging(t: TestContext, body: string, levels: Levels = {}) {
  const folder = temporaryFolder(t);
  const { base = 'info', stream = 'info', file = 'debug', debug = false } = levels;
  const logfile = levels.logfile ?? join(folder, 'log');
  const config = { mdserver: { logfile, debug }, loglevels: { base, stream, file } };
  const program = `
    import * as fs from 'node:fs';
    import { startLogging } from ${JSON.stringify(logModule)};
    const config = ${JSON.stringify(config)};
    const logging = startLogging(config);
    const { log } = logging;
    ${body}
  `;
  const { status, signal, stdout, stderr } = spawnSync(
    process.execPath,
    ['--input-type=module', '--eval', program],
    { encoding: 'utf8', cwd: folder, maxBuffer: 64 * 1024 * 1024, timeout: 60_000 },
  );
  const written = existsSync(join(folder, 'log')) ? readFileSync(join(folder, 'log'), 'utf8') : '';
  return { status, signal, stdout, stderr, written };
}

const everyLevel = `for (const level of ['debug', 'info', 'warn', 'error', 'fatal']) log[level](level);`;

const ends = [
  { name: 'process.exit', code: 'process.exit(3);', status: 3 },
  { name: 'an uncaught throw', code: `throw new Error('uncaught');`, status: 1 },
  {
    name: 'an unhandled rejection',
    code: `void Promise.reject(new Error('unhandled')); await new Promise((t) => {});`,
    status: 1,
  },
  { name: 'running out of work', code: '', status: 0 },
];
for (const { name, code, status } of ends) {
  test(`no line is lost, and all are in order, when the process ends by ${name}`, (t) => {
    // Some 4 MB in one turn of the event loop.
    const run = runLogging(
      t,
      `for (let n = 0; n < 20_000; n++) log.info('line ' + n + ' ' + 'x'.repeat(200)); ${code}`,
    );
    assert.equal(run.status, status, run.stderr);
    const expected = Array.from({ length: 20_000 }, (_, n) => `INFO line ${n} ${'x'.repeat(200)}`);
    for (const text of [run.written, run.stdout]) {
      const entries = entriesOf(text);
      assert.equal(entries.length, expected.length);
      assert.ok(entries.every((entry, index) => entry === expected[index]));
    }
  });
}

const levelCases: [string, Levels, string, string][] = [
  ['by default', {}, 'info warn error fatal', 'info warn error fatal'],
  ['base opened', { base: 'debug' }, 'info warn error fatal', 'debug info warn error fatal'],
  ['base is the floor', { base: 'error', stream: 'debug' }, 'error fatal', 'error fatal'],
  [
    'stream and file apart',
    { base: 'debug', stream: 'fatal', file: 'warn' },
    'fatal',
    'warn error fatal',
  ],
  [
    'debug=yes wins everywhere',
    { base: 'error', stream: 'error', file: 'error', debug: true },
    'debug info warn error fatal',
    'debug info warn error fatal',
  ],
];
for (const [name, levels, stream, file] of levelCases) {
  test(`levels: ${name}`, (t) => {
    const run = runLogging(t, everyLevel, levels);
    const shown = (text: string) => entriesOf(text).map((entry) => entry.split(' ')[1]);
    assert.deepEqual(shown(run.stdout), stream.split(' '));
    assert.deepEqual(shown(run.written), file.split(' '));
  });
}

test('levels can be changed while it runs, for the lines that follow', (t) => {
  const run = runLogging(
    t,
    `
    ${everyLevel}
    logging.setLevels({ ...config, loglevels: { base: 'debug', stream: 'fatal', file: 'debug' } });
    ${everyLevel}
    logging.setLevels(config);
    ${everyLevel}
  `,
  );
  const shown = (text: string) => entriesOf(text).map((entry) => entry.split(' ')[1]);
  const some = ['info', 'warn', 'error', 'fatal'];
  assert.deepEqual(shown(run.stdout), [...some, 'fatal', ...some]);
  assert.deepEqual(shown(run.written), [...some, 'debug', ...some, ...some]);
});

test('no text can forge a line or speak to a terminal, and errors stay one line', (t) => {
  const run = runLogging(
    t,
    `
    let all = '';
    for (let code = 0; code < 0x300; code++) all += String.fromCharCode(code);
    log.info(all + '\\u2028\\u2029end');
    log.info('a\\n2026-01-01T00:00:00.000Z ERROR forged');
    log.error({ err: new Error('two\\r\\nlines') }, 'failed:');
    log.error({ err: 'a\\ntext' }, 'failed:');
    log.error(new Error('alone'));
  `,
  );
  assert.equal(run.written, run.stdout);
  assert.doesNotMatch(run.written, /[\0-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]/);
  const entries = entriesOf(run.written);
  assert.equal(entries.length, 5);
  assert.match(entries[0] ?? '', /^INFO \\u0000\\u0001.*\\n.*\\u001b.* !"#.*~\\u007f.*ÿ.*end$/);
  assert.equal(entries[1], 'INFO a\\n2026-01-01T00:00:00.000Z ERROR forged');
  assert.match(entries[2] ?? '', /^ERROR failed: Error: two\\u000d\\nlines\\n {4}at /);
  assert.equal(entries[3], 'ERROR failed: a\\ntext');
  assert.match(entries[4] ?? '', /^ERROR Error: alone\\n {4}at /);
});

test('printable leaves printable text alone', () => {
  const text = 'web1 "é" 日本 \\n %0a 😀';
  assert.equal(printable(text), text);
});

test('a file that cannot be opened is reported once, and gets the lines when it can', (t) => {
  const logs = join(temporaryFolder(t, { logs: 'no folder' }), 'logs');
  const run = runLogging(
    t,
    `
    const turn = () => new Promise((resolve) => setTimeout(resolve, 20));
    log.info('one'); await turn();
    log.info('two'); await turn();
    log.info(logging.problems().join('|'));
    fs.rmSync(${JSON.stringify(logs)});
    log.info('three'); await turn();
    log.info(JSON.stringify(logging.problems()));
  `,
    { logfile: join(logs, 'log') },
  );
  assert.equal(run.status, 0, run.stderr);
  const problem = `the log file cannot be written: EEXIST: file already exists, mkdir '${logs}'`;
  const lines = [
    'INFO one',
    `ERROR ${problem}`,
    'INFO two',
    `INFO ${problem} (journalctl -u mdserver has the lines)`,
    'INFO three',
    'INFO []',
  ];
  assert.deepEqual(entriesOf(run.stdout), lines);
  assert.deepEqual(entriesOf(readFileSync(join(logs, 'log'), 'utf8')), lines);
});

test('after a rename the new file gets the lines, even if opening it failed a few times', (t) => {
  const folder = temporaryFolder(t);
  const logs = join(folder, 'logs');
  mkdirSync(logs);
  const run = runLogging(
    t,
    `
    const turn = () => new Promise((resolve) => setTimeout(resolve, 20));
    log.info('one'); await turn();
    fs.renameSync(${JSON.stringify(logs)}, ${JSON.stringify(`${logs}.old`)});
    log.info('two'); await turn();
    for (let n = 0; n < 3; n++) {
      try { logging.reopen(); } catch (error) { log.info(error.code); }
      await turn();
    }
    fs.mkdirSync(${JSON.stringify(logs)});
    logging.reopen(); log.info('three');
    await turn();
    // What is open now must stay open: nothing may close the old descriptor twice.
    logging.reopen(); const files = [1, 2, 3].map(() => fs.openSync('/dev/null')); await turn();
    for (const file of files) fs.closeSync(file);
    log.info('four');
  `,
    { logfile: join(logs, 'log') },
  );
  assert.equal(run.status, 0, run.stderr);
  assert.deepEqual(entriesOf(run.stdout), [
    'INFO one',
    'INFO two',
    'INFO ENOENT',
    'INFO ENOENT',
    'INFO ENOENT',
    'INFO three',
    'INFO four',
  ]);
  const old = entriesOf(readFileSync(join(`${logs}.old`, 'log'), 'utf8'));
  assert.deepEqual(old.slice(0, 2), ['INFO one', 'INFO two']);
  assert.deepEqual(entriesOf(readFileSync(join(logs, 'log'), 'utf8')), ['INFO three', 'INFO four']);
});

test('a log file that can never be written is reported once and affects nothing else', (t) => {
  const run = runLogging(
    t,
    `for (let n = 0; n < 30_000; n++) { log.info('line ' + n); if (n % 100 === 0) await 0; }
     await new Promise((resolve) => setTimeout(resolve, 50));
     log.info('last');`,
    { logfile: '/dev/full' },
  );
  assert.equal(run.status, 0, run.stderr);
  const entries = entriesOf(run.stdout);
  const failures = entries.filter((entry) => entry.startsWith('ERROR'));
  assert.equal(failures.length, 1);
  assert.match(failures[0] ?? '', /^ERROR the log file cannot be written: ENOSPC/);
  assert.equal(entries.length, 30_002);
  assert.equal(entries.at(-1), 'INFO last');
});

test('nothing that a guest or a domain sends forges a line of the daemon', async (t) => {
  const { daemon, folder } = await startSite(t, address, { mdserver: 'debug = yes' });
  const forged = '2026-01-01T00:00:00.000Z ERROR forged';
  await daemon.upload(domainXml(1).replace('vm1', `a&#10;${forged}`));
  await daemon.upload(domainXml(1).replace('vm1', `b&#x9b;&#x2028;${forged}`));
  await daemon.upload(`<domain><name>x\n${forged}\n</nam`);
  await daemon.upload(`<${forged}\r\n${forged}`);
  await daemon.ask(`/latest/%0a${forged.replaceAll(' ', '%20')}`);
  await daemon.ask('/', { headers: { 'user-agent': `tab\t${forged}` } });
  // As it comes from the wire: bytes that node's own client does not send.
  const socket = connect({ host: address, port: daemon.port, localAddress: '127.133.0.9' });
  const agent = `\x7f\x80\x9b31m\x85${forged}`;
  socket.end(
    Buffer.from(
      `GET /latest/\x80\x85\xff HTTP/1.1\r\nHost: localhost\r\nUser-Agent: ${agent}\r\nConnection: close\r\n\r\n`,
      'latin1',
    ),
  );
  socket.resume();
  await once(socket, 'close');
  assert.equal(await daemon.stop(), 0);
  for (const text of [daemon.output(), readFileSync(join(folder, 'mdserver.log'), 'utf8')]) {
    for (const entry of entriesOf(text)) assert.ok(!entry.startsWith('ERROR'), entry);
    assert.doesNotMatch(text, /[\0-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]/);
  }
});

test('the last lines before the end by SIGTERM are in both logs', async (t) => {
  const { daemon, folder } = await startSite(t, address);
  assert.equal(await daemon.stop(), 0);
  for (const text of [daemon.output(), readFileSync(join(folder, 'mdserver.log'), 'utf8')]) {
    assert.deepEqual(entriesOf(text).slice(-2), [
      'INFO SIGTERM: mdserver is stopping',
      'INFO mdserver has stopped',
    ]);
  }
});

test('a failed start is in the log file', (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'mdserver.conf');
  writeFileSync(file, loopbackConfiguration(address, folder).replace('{port}', '1'));
  writeFileSync(join(folder, 'db.json'), '{');
  const { status } = spawnSync(process.execPath, [mainFile, file]);
  assert.notEqual(status, 0);
  const last = entriesOf(readFileSync(join(folder, 'mdserver.log'), 'utf8')).at(-1) ?? '';
  assert.match(last, /^FATAL .*db\.json: not JSON: .*repair it/);
});

test('standard output without a reader does not end the daemon', async (t) => {
  const { daemon, folder } = await startSite(t, address);
  daemon.process.stdout?.destroy();
  daemon.process.stderr?.destroy();
  for (let n = 0; n < 20; n++) assert.equal((await daemon.ask(`/?${n}`)).status, 200);
  assert.equal((await daemon.upload(domainXml(1))).status, 200);
  assert.equal(await daemon.stop(), 0);
  const text = readFileSync(join(folder, 'mdserver.log'), 'utf8');
  for (let n = 0; n < 20; n++) assert.match(text, new RegExp(`GET /\\?${n} 200`));
  assert.match(text, /mdserver has stopped\n$/);
});

test('a full disk under the log file stops neither start, service, reload nor end', async (t) => {
  const { daemon } = await startSite(t, address, { logfile: '/dev/full' });
  for (let n = 0; n < 50; n++) assert.equal((await daemon.ask(`/?${n}`)).status, 200);
  daemon.process.kill('SIGHUP');
  await daemon.printed('read the configuration again');
  assert.equal((await daemon.upload(domainXml(1))).status, 200);
  assert.equal(await daemon.stop(), 0);
  assert.equal(daemon.output().split('the log file cannot be written').length - 1, 1);
  assert.match(daemon.output(), /mdserver has stopped\n$/);
});

test('the file is closed after each reopening: descriptors do not grow', async (t) => {
  const { daemon, folder } = await startSite(t, address);
  const log = join(folder, 'mdserver.log');
  const descriptors = () =>
    readdirSync(`/proc/${daemon.process.pid}/fd`).flatMap((name) => {
      try {
        return [readlinkSync(`/proc/${daemon.process.pid}/fd/${name}`)];
      } catch {
        return [];
      }
    });
  for (let n = 1; n <= 5; n++) {
    renameSync(log, `${log}.${n}`);
    daemon.process.kill('SIGHUP');
    await eventually(
      'the reload is in the new log file',
      () => existsSync(log) && readFileSync(log, 'utf8').includes('read the configuration again'),
    );
  }
  await daemon.ask('/');
  assert.deepEqual(
    descriptors().filter((path) => path.startsWith(log)),
    [log],
  );
});
