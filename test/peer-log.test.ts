import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { limitedLog } from '../src/http/peer-log.js';
import { atEnd } from './support/cleanup.js';
import { closing, type Daemon, eventually } from './support/daemon.js';
import { databaseRecord } from './support/samples.js';
import { startSite } from './support/site.js';

/** A limited log that knows 10.0.0.x, the lines that it wrote, and a clock. */
function logOf(t: TestContext, level = 'info') {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const lines: string[] = [];
  const write = (json: string) => {
    const { level: value, msg } = JSON.parse(json);
    lines.push(`${pino.levels.labels[value]} ${msg}`);
  };
  const log = limitedLog(pino({ level }, { write }), (address) => address.startsWith('10.0.0.'));
  return {
    log,
    /** The lines since the last call. */
    written: () => lines.splice(0),
    second: () => t.mock.timers.tick(1000),
  };
}

test('a peer writes 400 lines at once and 20 in each second, and one says how many more there were', (t) => {
  const { log, written, second } = logOf(t);
  const flood = () => {
    for (let number = 0; number < 800; number++) log('info', '10.0.0.1', () => `line ${number}`);
  };
  const lines = (count: number) =>
    Array.from({ length: count }, (_, number) => `info line ${number}`);
  flood();
  assert.deepEqual(written(), lines(400));
  for (let time = 0; time < 3; time++) {
    second();
    assert.deepEqual(written(), [`info 10.0.0.1: ${time === 0 ? 400 : 780} more in this second`]);
    flood();
    assert.deepEqual(written(), lines(20));
  }
  second();
  written();
  for (let time = 0; time < 20; time++) second();
  assert.deepEqual(written(), [], 'nothing more is said of a peer that is quiet');
  flood();
  assert.deepEqual(written(), lines(400), 'after a quiet time');
});

test('a flood of one peer hides no line of another one, and says how many warnings it hid', (t) => {
  const { log, written, second } = logOf(t);
  for (let number = 0; number < 450; number++) {
    log(number % 10 === 0 ? 'warn' : 'info', '10.0.0.1', () => 'x');
  }
  assert.equal(written().length, 400);
  log('warn', '10.0.0.2', () => 'refused');
  log('error', undefined, () => 'failed');
  assert.deepEqual(written(), ['warn refused', 'error failed']);
  second();
  assert.deepEqual(written(), ['warn 10.0.0.1: 50 more in this second, 5 of them warnings']);
});

test('all addresses of no instance are one peer', (t) => {
  const { log, written, second } = logOf(t);
  for (let number = 0; number < 5000; number++) log('warn', `fe80::${number}`, () => 'x');
  assert.equal(written().length, 400);
  second();
  assert.deepEqual(written(), [
    'warn addresses of no instance: 4600 more in this second, 4600 of them warnings',
  ]);
});

test('a line below the level of the log is neither made nor counted', (t) => {
  const { log, written, second } = logOf(t, 'warn');
  for (let number = 0; number < 500; number++) {
    log('info', '10.0.0.1', () => assert.fail('made'));
  }
  log('warn', '10.0.0.1', () => 'refused');
  second();
  assert.deepEqual(written(), ['warn refused']);
});

// ---- the daemon ----

const guest = '127.147.0.11';

function startWithGuest(t: TestContext) {
  const records = [databaseRecord(1, { mds_ipv4: guest })];
  return startSite(t, '127.147.0.1', { records });
}

/** Sends bytes from the guest's address, and waits until the connection is closed. */
async function send(daemon: Daemon, bytes: string, { reset = false } = {}): Promise<void> {
  const socket = connect({ host: daemon.host, port: daemon.port, localAddress: guest });
  const closed = closing(socket);
  await once(socket, 'connect');
  socket.write(bytes, () => {
    if (reset) socket.resetAndDestroy();
  });
  socket.resume();
  await closed;
}

const logged = (daemon: Daemon) =>
  daemon
    .output()
    .split('\n')
    .flatMap((line) => (/ (?:INFO|WARN) +(127\.147\.0\.11.*)$/.exec(line) ?? []).slice(1));

test('no user agent passes for another request, and long ones and long URLs are cut', async (t) => {
  const { daemon } = await startWithGuest(t);
  const agents = ['10.9.9.9 web1 GET /latest/user-data 200 curl', 'a" 200 "b', 'x'.repeat(5000)];
  for (const agent of agents) {
    await daemon.ask('/none', { from: guest, headers: { 'user-agent': agent } });
  }
  await daemon.ask(`/${'y'.repeat(5000)}`, { from: guest });
  await eventually('all are logged', () => logged(daemon).length === 4);
  assert.deepEqual(logged(daemon), [
    `${guest} - GET /none 404 "10.9.9.9 web1 GET /latest/user-data 200 curl"`,
    `${guest} - GET /none 404 "a\\" 200 \\"b"`,
    `${guest} - GET /none 404 "${'x'.repeat(200)}…"`,
    `${guest} - GET /${'y'.repeat(199)}… 404 -`,
  ]);
});

test('what is no HTTP request leaves a line with its address', async (t) => {
  const { daemon } = await startWithGuest(t);
  await send(daemon, 'nonsense\r\n\r\n');
  await send(daemon, `GET / HTTP/1.1\r\nHost: ${daemon.host}\r\nX: ${'y'.repeat(20_000)}\r\n\r\n`);
  await eventually('both are logged', () => logged(daemon).length === 2);
  const [first = '', second = ''] = logged(daemon);
  assert.match(first, /^127\.147\.0\.11 - no valid request: 400 Bad Request: Parse Error: /);
  assert.match(
    second,
    /^127\.147\.0\.11 - no valid request: 431 Request Header Fields Too Large: Parse Error: /,
  );
});

test('no request is logged without an address, whatever its connection did', async (t) => {
  const { daemon } = await startWithGuest(t);
  const asking = `GET /latest/meta-data/hostname HTTP/1.1\r\nHost: ${daemon.host}\r\n\r\n`;
  // The daemon sees these connections only after their end.
  daemon.process.kill('SIGSTOP');
  for (let time = 0; time < 20; time++) await send(daemon, asking.repeat(3), { reset: true });
  daemon.process.kill('SIGCONT');
  for (let time = 0; time < 20; time++) await send(daemon, asking.repeat(3), { reset: true });
  await daemon.ask('/last', { from: guest });
  await daemon.printed('GET /last');
  assert.doesNotMatch(daemon.output(), /undefined/);
});

test('a flood of requests is a few lines that count every one that was taken', async (t) => {
  const { daemon } = await startWithGuest(t);
  const asking = `GET /none HTTP/1.1\r\nHost: ${daemon.host}\r\n`;
  // More than the thousand that a connection may have: it is closed before the others are read.
  const socket = connect({ host: daemon.host, port: daemon.port, localAddress: guest });
  atEnd(t, () => socket.destroy());
  const closed = closing(socket);
  socket.resume();
  socket.write(`${asking}\r\n`.repeat(1200));
  const counted = () => {
    const numbers = logged(daemon).map((line) => Number(/: (\d+) more in/.exec(line)?.[1] ?? 1));
    return numbers.reduce((sum, number) => sum + number, 0);
  };
  await eventually('all requests are counted', () => counted() >= 1000);
  socket.destroy();
  await closed;
  const lines = logged(daemon).length;
  assert.ok(lines >= 400 && lines < 900, String(lines));
  assert.equal(counted(), 1000);
});
