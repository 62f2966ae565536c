import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { IncomingMessage, RequestListener } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { fairTurns, firstPiece, maxPieceBytes, pacedServers } from '../src/http/connections.js';
import { connectionRoom } from '../src/http/listen.js';
import { closing, eventually } from './support/daemon.js';

// ---- turns ----

test('each peer has one turn in each turn of the event loop, whatever it has waiting', () => {
  const turns: (() => void)[] = [];
  const newTurns = fairTurns((turn) => turns.push(turn));
  const peers = new Map(['a', 'b', 'c'].map((name) => [name, newTurns()]));
  const served: string[] = [];
  const ask = (name: string) => {
    const peer = peers.get(name.slice(0, 1));
    if (peer?.take()) served.push(name);
    else peer?.wait(() => void served.push(name));
  };
  const servedSince = () => served.splice(0).join(' ');
  const nextTurn = () => {
    const [turn] = turns.splice(0);
    turn?.();
    return servedSince();
  };
  // The first of a peer does not wait.
  ask('a1');
  ask('a2');
  ask('a3');
  ask('b1');
  assert.equal(servedSince(), 'a1 b1');
  assert.equal(turns.length, 1);
  assert.equal(nextTurn(), 'a2');
  ask('c1');
  ask('b2');
  assert.equal(servedSince(), 'c1 b2');
  assert.equal(nextTurn(), 'a3');
  assert.equal(nextTurn(), '');
  // Nothing turns when nobody waits.
  assert.equal(turns.length, 0);
  ask('a4');
  assert.equal(servedSince(), 'a4');
});

/** All pieces of what arrives in these chunks. */
function piecesOf(chunks: readonly Buffer[]): Buffer[] {
  const pieces: Buffer[] = [];
  let line = 0;
  for (const chunk of chunks) {
    for (let rest = chunk; rest.length > 0; ) {
      const piece = firstPiece(rest, line);
      pieces.push(rest.subarray(0, piece.end));
      rest = rest.subarray(piece.end);
      ({ line } = piece);
    }
  }
  return pieces;
}

test('a piece ends behind the first blank line, also if chunks or lines end within its line end', () => {
  const messages = [
    'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
    'GET /a HTTP/1.1\nHost: x\n\n',
    'POST /\r\n\r\n',
  ];
  const bytes = Buffer.from(messages.join(''));
  assert.deepEqual(piecesOf([bytes]).map(String), messages);
  const everyByte = Array.from(bytes, (byte) => Buffer.from([byte]));
  assert.equal(Buffer.concat(piecesOf(everyByte)).toString(), bytes.toString());
  for (let cut = 1; cut < bytes.length; cut += 1) {
    const pieces = piecesOf([bytes.subarray(0, cut), bytes.subarray(cut)]).map(String);
    assert.equal(pieces.join(''), messages.join(''));
    const ends = messages.map((_, index) => messages.slice(0, index + 1).join('').length);
    const lengths = pieces.map((_, index) => pieces.slice(0, index + 1).join('').length);
    assert.deepEqual(
      ends.filter((end) => !lengths.includes(end)),
      [],
      `cut at ${cut}`,
    );
  }
});

test('property: pieces are the bytes in their order, none longer than 16 KiB or with two blank lines', () => {
  const text = fc.oneof(
    fc.constantFrom('\n', '\r', '\r\n', '\r\n\r\n', '\n\n', 'GET / HTTP/1.1', ': '),
    fc.string({ maxLength: 20 }),
    fc.nat(40_000).map((length) => 'y'.repeat(length)),
  );
  const chunk = fc
    .array(text, { minLength: 1, maxLength: 20 })
    .map((texts) => Buffer.from(texts.join('')));
  fc.assert(
    fc.property(fc.array(chunk, { maxLength: 8 }), (chunks) => {
      const pieces = piecesOf(chunks);
      assert.ok(Buffer.concat(pieces).equals(Buffer.concat(chunks)));
      for (const piece of pieces) {
        assert.ok(piece.length <= maxPieceBytes);
        assert.ok(!/\n\r?\n[\s\S]/.test(piece.toString('latin1')));
      }
    }),
  );
});

// ---- servers ----

const host = '127.0.0.1';

interface Served {
  readonly port: number;
  readonly refused: string[];
}

async function serve(
  t: TestContext,
  handler: RequestListener,
  { perPeer = 1000, maxConnections = 1000 } = {},
): Promise<Served> {
  const refused: string[] = [];
  const makeServer = pacedServers({
    peerOf: (remote = '') => ({ key: remote, maxConnections: perPeer }),
    maxConnections,
    refused: (remote, reason) => refused.push(`${remote}: ${reason}`),
  });
  const server = makeServer({}, handler).listen(0, host);
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  await once(server, 'listening');
  return { port: (server.address() as AddressInfo).port, refused };
}

function connectTo({ port }: Served, localAddress = host): Socket {
  return connect({ host, port, localAddress }).setEncoding('latin1');
}

/** Everything that the server sends to these bytes until it closes the connection. */
async function conversation(served: Served, ...parts: (string | Buffer)[]): Promise<string> {
  const socket = connectTo(served);
  socket.setNoDelay();
  let received = '';
  socket.on('data', (text) => (received += text));
  const closed = closing(socket);
  for (const part of parts) {
    socket.write(part);
    // So that the parts arrive as parts.
    await new Promise((resolve) => setImmediate(resolve));
  }
  await closed;
  return received;
}

const bodies = (text: string) =>
  [...text.matchAll(/\r\n\r\n(\[[^\]]*\])/g)].map(([, body]) => body);

/** Answers with `[METHOD PATH BODY-LENGTH]`. */
async function describe(request: IncomingMessage): Promise<string> {
  let length = 0;
  for await (const chunk of request) length += (chunk as Buffer).length;
  return `[${request.method} ${request.url} ${length}]`;
}

const describing: RequestListener = (request, response) => {
  void describe(request).then((text) => response.end(text));
};

test('requests that are sent ahead are taken one at a time and answered in their order', async (t) => {
  let inProgress = 0;
  let most = 0;
  const served = await serve(t, (request, response) => {
    inProgress += 1;
    most = Math.max(most, inProgress);
    setImmediate(() => {
      inProgress -= 1;
      response.end(`[${request.url}]`);
    });
  });
  const paths = Array.from({ length: 500 }, (_, index) => `/${index}`);
  const requests = paths.map((path) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`).join('');
  const last = 'GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n';
  const received = await conversation(served, requests + last);
  assert.deepEqual(
    bodies(received),
    [...paths, '/last'].map((path) => `[${path}]`),
  );
  assert.equal(most, 1);
});

test('a body that completes behind an unanswered request begins one more request, no chain of them', async (t) => {
  let begun = 0;
  const served = await serve(t, (request, response) => {
    begun += 1;
    request.resume();
    if (request.url === '/other') response.end();
  });
  const socket = connectTo(served);
  const post = 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n';
  socket.write(`${post}${`abcde${post}`.repeat(100)}`);
  await eventually('the first requests have begun', () => begun >= 2);
  for (let index = 0; index < 20; index += 1) {
    const received = await conversation(
      served,
      'GET /other HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
    );
    assert.match(received, /^HTTP\/1\.1 200 /);
  }
  assert.equal(begun, 22);
  socket.destroy();
});

test('a connection is closed with the answer to its thousandth request', async (t) => {
  const served = await serve(t, (_request, response) => response.end('[]'));
  const received = await conversation(served, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(1100));
  const answers = received.split(/(?=HTTP\/1\.1 )/);
  assert.deepEqual(
    answers.map((answer) => answer.slice(0, 12)),
    Array(1000).fill('HTTP/1.1 200'),
  );
  assert.match(answers.at(-1) ?? '', /^Connection: close\r$/m);
});

test('a peer that takes no answers gets no more of its requests served', async (t) => {
  let begun = 0;
  const answer = Buffer.alloc(8 * 1024 * 1024);
  const served = await serve(t, (_request, response) => {
    begun += 1;
    response.end(answer);
  });
  const socket = connectTo(served);
  socket.pause();
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(1000));
  await eventually('the first request has begun', () => begun === 1);
  // Others are served meanwhile, which gives the connection many turns.
  for (let index = 0; index < 20; index += 1) {
    const other = connectTo(served);
    other.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await once(other, 'data');
    other.destroy();
  }
  assert.equal(begun, 21);
  socket.resume();
  await eventually('the next ones follow', () => begun > 25);
  socket.destroy();
});

test('no more than a little of what a peer sends ahead is taken, however long it sends', async (t) => {
  const message = Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  const ahead: number[] = [];
  const served = await serve(t, (request, response) => {
    ahead.push(request.socket.bytesRead - (ahead.length + 1) * message.length);
    setImmediate(() => response.end());
  });
  const socket = connectTo(served);
  socket.resume();
  socket.on('error', () => {});
  for (let index = 0; index < 300; index += 1)
    socket.write(Buffer.alloc(1000 * message.length, message));
  await closing(socket);
  assert.equal(ahead.length, 1000);
  assert.ok(Math.max(...ahead) <= 256 * 1024, `${Math.max(...ahead)} bytes`);
});

test('any division of the bytes gives the same requests', async (t) => {
  const served = await serve(t, describing);
  const body = fc.constantFrom(
    '',
    'x',
    '\r\n\r\n',
    'a\r\n\r\nGET / HTTP/1.1\r\n\r\n',
    'y'.repeat(40_000),
  );
  const request = fc
    .tuple(fc.constantFrom('GET', 'POST', 'PUT'), body, fc.boolean())
    .map(([method, content, chunked]) => {
      const head = `${method} /${method} HTTP/1.1\r\nHost: x\r\n`;
      const length = `[${method} /${method} ${content.length}]`;
      if (!chunked) return [`${head}Content-Length: ${content.length}\r\n\r\n${content}`, length];
      const chunk = content === '' ? '' : `${content.length.toString(16)}\r\n${content}\r\n`;
      return [`${head}Transfer-Encoding: chunked\r\n\r\n${chunk}0\r\n\r\n`, length];
    });
  await fc.assert(
    fc.asyncProperty(
      fc.array(request, { minLength: 1, maxLength: 6 }),
      fc.array(fc.nat(60_000), { maxLength: 8 }),
      async (requests, cuts) => {
        const last = 'GET /end HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n';
        const bytes = requests.map(([text]) => text).join('') + last;
        const places = [0, ...cuts.filter((cut) => cut < bytes.length), bytes.length];
        places.sort((a, b) => a - b);
        const parts = places.slice(1).map((end, index) => bytes.slice(places[index], end));
        const received = await conversation(served, ...parts.filter((part) => part !== ''));
        assert.deepEqual(bodies(received), [...requests.map(([, text]) => text), '[GET /end 0]']);
      },
    ),
    { numRuns: 100 },
  );
});

test('clients that close their sending side, or speak HTTP/1.0, get their answers', async (t) => {
  const served = await serve(t, describing);
  const socket = connectTo(served);
  let received = '';
  socket.on('data', (text) => (received += text));
  socket.end('GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n');
  await closing(socket);
  assert.deepEqual(bodies(received), ['[GET /a 0]', '[GET /b 0]']);
  assert.deepEqual(bodies(await conversation(served, 'GET /c HTTP/1.0\r\n\r\n')), ['[GET /c 0]']);
});

test('a body that is read slowly arrives whole, also if the client closes its sending side', async (t) => {
  let read = 0;
  let most = 0;
  const served = await serve(t, (request, response) => {
    const answer = async () => {
      let length = 0;
      // Time for the client to send all of it, if it were taken.
      await new Promise((resolve) => setTimeout(resolve, 50));
      for await (const chunk of request) {
        length += (chunk as Buffer).length;
        most = Math.max(most, request.socket.bytesRead - read);
        read += (chunk as Buffer).length;
      }
      response.end(`[${length}]`);
    };
    void answer();
  });
  const length = 2_000_000;
  const head = `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${length}\r\n\r\n`;
  const next = 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc';
  const socket = connectTo(served);
  let received = '';
  socket.on('data', (text) => (received += text));
  socket.end(head + 'x'.repeat(length) + next);
  await closing(socket);
  assert.deepEqual(bodies(received), [`[${length}]`, '[3]']);
  // Meanwhile, the rest stays with the client.
  assert.ok(most < 512 * 1024, `${most} bytes`);
});

test('requests that Node answers itself, unread and half closed, end no server', async (t) => {
  const served = await serve(t, describing);
  for (const line of [
    'Expect: nothing',
    'Transfer-Encoding: chunked\r\nContent-Length: 1',
    'X: y',
  ]) {
    const host = line === 'X: y' ? '' : 'Host: x\r\n';
    const socket = connectTo(served).on('error', () => {});
    socket.pause();
    const closed = closing(socket);
    socket.end(`GET / HTTP/1.1\r\n${host}${line}\r\n\r\n`.repeat(40_000));
    await new Promise((resolve) => setTimeout(resolve, 50));
    socket.resume();
    await closed;
  }
  const last = 'GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n';
  assert.deepEqual(bodies(await conversation(served, last)), ['[GET /a 0]']);
});

test('a client that goes away in the middle of a body ends its request', async (t) => {
  let aborted = 0;
  const served = await serve(t, (request) => {
    request.resume().on('error', () => (aborted += 1));
  });
  for (const end of ['end', 'resetAndDestroy'] as const) {
    const socket = connectTo(served).on('error', () => {});
    socket.write('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf');
    await once(socket, 'connect');
    await new Promise((resolve) => setTimeout(resolve, 50));
    socket[end]();
  }
  await eventually('both are noticed', () => aborted === 2);
});

test('an upgrade and a tunnel are not granted', async (t) => {
  const served = await serve(t, describing);
  const upgrade = 'Connection: Upgrade, close\r\nUpgrade: websocket\r\n';
  const received = await conversation(served, `GET /a HTTP/1.1\r\nHost: x\r\n${upgrade}\r\n`);
  assert.match(received, /^HTTP\/1\.1 200 /);
  assert.equal(await conversation(served, 'CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n'), '');
});

test('the addresses of a connection are known after it was reset', async (t) => {
  const requests: IncomingMessage[] = [];
  const served = await serve(t, (request) => requests.push(request));
  const socket = connectTo(served, '127.0.0.7');
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await eventually('the request has arrived', () => requests.length === 1);
  const { localPort } = socket;
  socket.resetAndDestroy();
  await eventually('the connection is closed', () => requests[0]?.socket.destroyed === true);
  const { remoteAddress, remotePort, localAddress } = requests[0]?.socket ?? {};
  assert.deepEqual([remoteAddress, remotePort, localAddress], ['127.0.0.7', localPort, host]);
});

test('connections above the limit of a peer, or of all, are closed at once', async (t) => {
  const served = await serve(t, describing, { perPeer: 2, maxConnections: 3 });
  const open = async (from: string) => {
    const socket = connectTo(served, from);
    await once(socket, 'connect');
    return socket;
  };
  const isServed = async (socket: Socket) => {
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    const [event] = await Promise.race([
      once(socket, 'data').then(() => ['data']),
      once(socket, 'close').then(
        () => ['close'],
        () => ['close'],
      ),
      once(socket, 'end').then(() => ['close']),
    ]);
    return event === 'data';
  };
  const first = [await open('127.0.0.2'), await open('127.0.0.2')];
  for (const socket of first) assert.equal(await isServed(socket), true);
  assert.equal(await isServed(await open('127.0.0.2')), false);
  assert.equal(await isServed(await open('127.0.0.3')), true);
  assert.equal(await isServed(await open('127.0.0.4')), false);
  assert.deepEqual(served.refused, [
    '127.0.0.2: 127.0.0.2 has 2 connections already',
    '127.0.0.4: there are 3 connections already',
  ]);
  // Closed ones do not count.
  for (const socket of first) socket.destroy();
  await eventually('there is room again', async () => isServed(await open('127.0.0.2')));
});

test('connections leave descriptors for files, the control socket and child processes', () => {
  const limits = (soft: string) =>
    `Limit                     Soft Limit           Hard Limit           Units     
Max processes             94000                94000                processes 
Max open files            ${soft.padEnd(20)} 1048576              files     
`;
  assert.equal(connectionRoom(limits('65536')), 65_408);
  assert.equal(connectionRoom(limits('100')), 50);
  assert.equal(connectionRoom(limits('unlimited')), Number.POSITIVE_INFINITY);
});
