import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener, type ServerResponse } from 'node:http';
import { createServer as createSocketServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { before, describe, it, type TestContext } from 'node:test';
import {
  begin,
  complaint,
  domain,
  ended,
  libvirtEnvironment,
  listen,
  lost,
  type Outcome,
  silent,
} from './fixtures/hook/as-libvirt.js';
import { installedHook, layPackage, nowhere } from './fixtures/hook/installed.js';
import { suiteScope, temporaryFolder } from './support/cleanup.js';

const folder = temporaryFolder(suiteScope());
/** The hook as system-integration.sh installs it; each test fills in the socket of its own server. */
let installed = '';

before(() => {
  installed = installedHook(layPackage(folder), join(folder, 'root'));
});

let count = 0;
function hookFor(socket: string, change = (text: string): string => text): string {
  count += 1;
  const place = join(folder, `hooks-${count}`);
  mkdirSync(place);
  const path = join(place, 'qemu');
  const text = installed.replace(`'${nowhere.socket}'`, `'${socket}'`);
  assert.notEqual(text, installed);
  writeFileSync(path, change(text), { mode: 0o755 });
  chmodSync(path, 0o755);
  return path;
}

function newSocket(): string {
  count += 1;
  return join(folder, `${count}.sock`);
}

interface Upload {
  readonly line: string;
  readonly type: string | undefined;
  readonly accept: string | undefined;
  readonly body: Buffer;
}

/** A server in place of mdserver: the uploads it received; `answer` sends the answer. */
async function receiver(
  context: TestContext,
  answer: (response: ServerResponse) => void = (response) => response.end(),
) {
  const uploads: Upload[] = [];
  const listener: RequestListener = (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('error', () => undefined);
    request.on('end', () => {
      uploads.push({
        line: `${request.method} ${request.url}`,
        type: request.headers['content-type'],
        accept: request.headers.accept,
        body: Buffer.concat(chunks),
      });
      answer(response);
    });
  };
  const socket = newSocket();
  await listen(context, createServer(listener), socket);
  return { uploads, socket };
}

/** A server that does not speak HTTP. */
async function rawServer(context: TestContext, serve: (socket: Socket) => void): Promise<string> {
  const socket = newSocket();
  await listen(context, createSocketServer(serve), socket);
  return socket;
}

/** Runs the hook as libvirt does. Without XML, its standard input never ends. */
function call(
  path: string,
  args: readonly string[],
  xml: Buffer | undefined,
  environment: Record<string, string> = libvirtEnvironment,
): Promise<Outcome> {
  const hook = spawn(path, args, { env: environment });
  const outcome = ended(hook);
  if (xml !== undefined) hook.stdin.end(xml);
  return outcome;
}

describe('the installed hook', { concurrency: 4 }, () => {
  it('uploads the domain byte for byte, without an Accept header, and prints nothing', async (t) => {
    const { uploads, socket } = await receiver(t);
    assert.deepEqual(await call(hookFor(socket), begin, domain), silent);
    assert.deepEqual(uploads, [
      {
        line: 'POST /instance-upload',
        type: 'application/xml',
        accept: undefined,
        body: domain,
      },
    ]);
  });

  it('uploads a domain larger than a pipe buffer', async (t) => {
    const { uploads, socket } = await receiver(t);
    const large = Buffer.alloc(1024 * 1024, 'x');
    assert.deepEqual(await call(hookFor(socket), begin, large), silent);
    assert.equal(uploads.length, 1);
    assert.ok(uploads[0]?.body.equals(large));
  });

  const uploaded = ['prepare', 'migrate', 'restore', 'reconnect', 'attach'];
  for (const operation of uploaded) {
    it(`uploads at ${operation} begin`, async (t) => {
      const { uploads, socket } = await receiver(t);
      assert.deepEqual(
        await call(hookFor(socket), ['web', operation, 'begin', '-'], domain),
        silent,
      );
      assert.equal(uploads.length, 1);
    });
  }

  const others = [
    ['web', 'start', 'begin', '-'],
    ['web', 'started', 'begin', '-'],
    ['web', 'stopped', 'end', '-'],
    ['web', 'release', 'end', '-'],
    ['web', 'release', 'end', '-', 'shutdown'],
    ['web', 'prepare', 'end', '-'],
    ['web', 'migrate', 'end', '-'],
    ['web', 'Prepare', 'begin', '-'],
    ['web', 'toString', 'begin', '-'],
    ['web', '--version', 'begin', '-'],
    ['--inspect-brk', 'start', 'begin', '-'],
    ['web', 'prepare'],
    ['', '', '', ''],
    [],
  ];
  for (const args of others) {
    it(`does not wait for the XML at "${args.join(' ')}"`, async (t) => {
      const { uploads, socket } = await receiver(t);
      assert.deepEqual(await call(hookFor(socket), args, undefined), silent);
      assert.deepEqual(uploads, []);
    });
  }

  it('prints nothing for a guest that is not on the network (422)', async (t) => {
    const { socket } = await receiver(t, (response) =>
      response.writeHead(422).end('no interface\n'),
    );
    assert.deepEqual(await call(hookFor(socket), begin, domain), silent);
  });

  for (const status of [400, 401, 404, 413, 500, 503]) {
    it(`reports the reason for a ${status} and lets the guest start`, async (t) => {
      const { socket } = await receiver(t, (response) =>
        response.writeHead(status).end('why: x\n'),
      );
      assert.deepEqual(
        await call(hookFor(socket), begin, domain),
        (status === 400 || status === 413 ? complaint : lost)(
          socket,
          `mdserver answered ${status} why: x`,
        ),
      );
    });
  }

  it('shortens an error page to one line without control characters', async (t) => {
    const page = `<html>\n\u001b[31m${'x'.repeat(100_000)}`;
    const { socket } = await receiver(t, (response) => response.writeHead(500).end(page));
    assert.deepEqual(
      await call(hookFor(socket), begin, domain),
      lost(socket, `mdserver answered 500 <html>\\u000a\\u001b[31m${'x'.repeat(288)}`),
    );
  });

  it('does not follow a redirect', async (t) => {
    const { uploads, socket } = await receiver(t, (response) =>
      response.writeHead(307, { location: '/elsewhere' }).end(),
    );
    assert.deepEqual(
      await call(hookFor(socket), begin, domain),
      lost(socket, 'mdserver answered 307 '),
    );
    assert.equal(uploads.length, 1);
  });

  it('exits 0 when nothing listens', async () => {
    const socket = newSocket();
    assert.deepEqual(
      await call(hookFor(socket), begin, domain),
      lost(socket, `connect ENOENT ${socket}`),
    );
  });

  it('gives up on a server that accepts the connection and never answers', async (t) => {
    const socket = await rawServer(t, () => undefined);
    assert.deepEqual(
      await call(hookFor(socket), begin, domain),
      lost(socket, 'not finished after 3500 ms'),
    );
  });

  it('gives up on headers that never end', async (t) => {
    const socket = await rawServer(t, (connection) => {
      connection.write('HTTP/1.1 200 OK\r\nx: ');
      const trickle = setInterval(() => connection.write('y'), 50);
      connection.on('close', () => clearInterval(trickle));
    });
    assert.deepEqual(
      await call(hookFor(socket), begin, domain),
      lost(socket, 'not finished after 3500 ms'),
    );
  });

  for (const [status, reason] of [
    [200, undefined],
    [500, 'mdserver answered 500 y'],
  ] as const) {
    it(`does not wait for the end of a ${status} that never ends`, async (t) => {
      const { socket } = await receiver(t, (response) => {
        response.writeHead(status);
        response.write('y');
        const trickle = setInterval(() => response.write('y'), 50);
        response.on('close', () => clearInterval(trickle));
      });
      assert.deepEqual(
        await call(hookFor(socket), begin, domain),
        reason === undefined ? silent : lost(socket, reason),
      );
    });
  }

  const strange: [string, string, RegExp][] = [
    ['is no web server', 'SSH-2.0-OpenSSH_9.2\r\n\r\n', /what answers is not mdserver/],
    [
      'sends more headers than fit',
      `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(100_000)}`,
      /what answers is not mdserver/,
    ],
    ['hangs up at once', '', /socket hang up|ECONNRESET|EPIPE/],
    [
      'hangs up within its headers',
      'HTTP/1.1 200 OK\r\nx',
      /socket hang up|Parse Error|ECONNRESET/,
    ],
    [
      'hangs up within an error',
      'HTTP/1.1 500 No\r\ncontent-length: 9\r\n\r\n',
      /mdserver answered 500 ;|aborted|ECONNRESET/,
    ],
    [
      'changes protocols',
      'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n',
      /./,
    ],
  ];
  for (const [title, bytes, reason] of strange) {
    it(`exits 0 when the server ${title}`, async (t) => {
      const socket = await rawServer(t, (connection) => {
        connection.once('data', () => connection.end(bytes));
      });
      const outcome = await call(hookFor(socket), begin, domain);
      assert.deepEqual({ code: outcome.code, stdout: outcome.stdout }, { code: 0, stdout: '' });
      const [line = '', ...rest] = outcome.stderr.split('\n');
      assert.deepEqual(rest, ['']);
      assert.match(line, reason);
    });
  }

  it('gives up on a standard input that never ends', async (t) => {
    const { uploads, socket } = await receiver(t);
    assert.deepEqual(
      await call(hookFor(socket), begin, undefined),
      complaint(socket, 'not finished after 3500 ms'),
    );
    assert.deepEqual(uploads, []);
  });

  it('reads no more than 4 MiB', async (t) => {
    const { uploads, socket } = await receiver(t);
    assert.deepEqual(
      await call(hookFor(socket), begin, Buffer.alloc(16 * 1024 * 1024, 'x')),
      complaint(socket, 'the XML has more than 4194304 bytes'),
    );
    assert.deepEqual(uploads, []);
  });

  it('uploads nothing without XML', async (t) => {
    const { uploads, socket } = await receiver(t);
    assert.deepEqual(
      await call(hookFor(socket), begin, Buffer.alloc(0)),
      complaint(socket, 'no XML on standard input'),
    );
    assert.deepEqual(uploads, []);
  });

  for (const [title, redirection, stderr] of [
    ['a closed standard input', '<&-', true],
    ['a standard input that is a folder', '</', true],
    ['a standard input only to write to', '0>/dev/null', true],
    ['a closed standard error', '2>&- </dev/null', false],
    ['a full standard error', '2>/dev/full </dev/null', false],
    ['all of them closed', '<&- >&- 2>&-', false],
  ] as const) {
    it(`exits 0 with ${title}`, async (t) => {
      const { uploads, socket } = await receiver(t);
      const shell = ['-c', `exec "$0" "$@" ${redirection}`, hookFor(socket), ...begin];
      const outcome = await ended(spawn('/bin/sh', shell, { env: libvirtEnvironment }));
      assert.deepEqual({ code: outcome.code, stdout: outcome.stdout }, { code: 0, stdout: '' });
      assert.equal(outcome.stderr !== '', stderr);
      assert.deepEqual(uploads, []);
    });
  }

  it('uploads with a closed standard output', async (t) => {
    const { uploads, socket } = await receiver(t);
    const shell = ['-c', 'exec "$0" "$@" >&-', hookFor(socket), ...begin];
    const hook = spawn('/bin/sh', shell, { env: libvirtEnvironment });
    const outcome = ended(hook);
    hook.stdin.end(domain);
    assert.deepEqual(await outcome, silent);
    assert.equal(uploads.length, 1);
  });

  it('exits 0 and reports to syslog when nobody reads its standard error', async (t) => {
    const { socket } = await receiver(t, (response) => response.writeHead(500).end('x'));
    const { path, log } = loggerThat('printf "%s\\n" "$@" >"$0.log"');
    const hook = spawn(hookFor(socket), begin, {
      env: { ...libvirtEnvironment, PATH: `${path}:${libvirtEnvironment.PATH}` },
    });
    hook.stderr.destroy();
    const outcome = ended(hook);
    hook.stdin.end(domain);
    assert.deepEqual(await outcome, silent);
    assert.match(readFileSync(log, 'utf8'), /mdserver answered 500 x; not kept: .*\n$/);
  });

  /** A replacement for logger(1), to put first in PATH. */
  function loggerThat(does: string): { path: string; log: string } {
    count += 1;
    const path = join(folder, `bin-${count}`);
    mkdirSync(path);
    writeFileSync(join(path, 'logger'), `#!/bin/sh\n${does}\n`, { mode: 0o755 });
    return { path, log: join(path, 'logger.log') };
  }

  it('reports to syslog once, in one line, whatever the name of the domain is', async (t) => {
    const { socket } = await receiver(t, (response) => response.writeHead(500).end('x'));
    const { path, log } = loggerThat('printf "%s\\n" "$@" >>"$0.log"');
    const environment = { ...libvirtEnvironment, PATH: `${path}:${libvirtEnvironment.PATH}` };
    const name = '-p \n\u001b[2J\u009b\u2028$(id)\u00e9';
    const line = `-p \\u000a\\u001b[2J\\u009b\\u2028$(id)\u00e9 (prepare) was not uploaded to ${socket}: mdserver answered 500 x; not kept: ENOENT: no such file or directory, lstat '/nonexistent/spool'`;
    assert.deepEqual(
      await call(hookFor(socket), [name, 'prepare', 'begin', '-'], domain, environment),
      { code: 0, stdout: '', stderr: `mdserver-hook: ${line}\n` },
    );
    assert.equal(
      readFileSync(log, 'utf8'),
      ['-t', 'mdserver-hook', '-p', 'daemon.warning', '--', line, ''].join('\n'),
    );
  });

  it('reports nothing to syslog after a successful upload', async (t) => {
    const { socket } = await receiver(t);
    const { path, log } = loggerThat('echo called >"$0.log"');
    const environment = { ...libvirtEnvironment, PATH: `${path}:${libvirtEnvironment.PATH}` };
    assert.deepEqual(await call(hookFor(socket), begin, domain, environment), silent);
    assert.equal(existsSync(log), false);
  });

  it('does not wait for a logger that hangs', async (t) => {
    const { socket } = await receiver(t, (response) => response.writeHead(500).end('x'));
    const { path } = loggerThat('exec sleep 60');
    const environment = { ...libvirtEnvironment, PATH: `${path}:${libvirtEnvironment.PATH}` };
    assert.deepEqual(
      await call(hookFor(socket), begin, domain, environment),
      lost(socket, 'mdserver answered 500 x'),
    );
  });

  it('works without logger(1)', async (t) => {
    const { socket } = await receiver(t, (response) => response.writeHead(500).end('x'));
    assert.deepEqual(
      await call(hookFor(socket), begin, domain, { PATH: folder }),
      lost(socket, 'mdserver answered 500 x'),
    );
  });

  it('lets guests start when the node it was installed with no longer exists', async (t) => {
    const { socket } = await receiver(t);
    const hook = hookFor(socket, (text) => text.replace(/ \S+ "\$0"/, ' /gone/node "$0"'));
    const outcome = await call(hook, begin, domain);
    assert.deepEqual({ code: outcome.code, stdout: outcome.stdout }, { code: 0, stdout: '' });
    assert.match(outcome.stderr, /\/gone\/node/);
  });

  it('lets guests start when the hook itself is broken', async (t) => {
    const { socket } = await receiver(t);
    const hook = hookFor(socket, (text) => `${text}\n}`);
    const outcome = await call(hook, begin, domain);
    assert.deepEqual({ code: outcome.code, stdout: outcome.stdout }, { code: 0, stdout: '' });
    assert.match(outcome.stderr, /SyntaxError/);
  });
});
