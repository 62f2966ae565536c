import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, rmdirSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { before, type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import fc from 'fast-check';
import { pino } from 'pino';
import { configFrom } from '../src/config/load.js';
import { createDaemon } from '../src/daemon.js';
import { buildApp } from '../src/http/app.js';
import type { Subscriber } from '../src/instances/registry.js';
import { atEnd, suiteScope, temporaryFolder } from './support/cleanup.js';
import { run } from './support/ctl.js';
import { closing, type Daemon, type RequestOptions, sendThenRead } from './support/daemon.js';
import { missing } from './support/parts.js';
import { rowName } from './support/rows.js';
import { domainXml, loopbackConfiguration } from './support/samples.js';
import { startSite } from './support/site.js';

const address = '127.135.0.1';
const stranger = '127.136.0.9';
const key = (name: string) => `ssh-ed25519 AAAA ${name}`;

const sections = `[public-keys]\ndefault = ${key('default')}\nzoe = ${key('zoe')}`;

// ---- the rules, without a socket ----

/** The app with an empty database in a network of 5 addresses, and what it logs. */
async function testApp(t: TestContext) {
  const folder = temporaryFolder(t);
  const { config } = configFrom(
    loopbackConfiguration(address, folder, {
      // Without a socket there is no process at the other end.
      mdserver: 'upload_from = host',
      sections,
      prefix: 29,
    }).replace('{port}', '80'),
  );
  const lines: string[] = [];
  const log = pino(
    { level: 'info' },
    { write: (line: string) => lines.push(JSON.parse(line).msg) },
  );
  const parts = await createDaemon(() => config, log);
  const app = buildApp(parts);
  atEnd(t, () => app.close());
  const { registry } = parts;
  lines.length = 0;
  const upload = (payload: string | Buffer, headers = {}, remoteAddress: string = address) =>
    app.inject({ method: 'POST', url: '/instance-upload', payload, headers, remoteAddress });
  const uploaded = async (number: number): Promise<string> => {
    const answer = await upload(domainXml(number), { accept: 'application/json' });
    assert.equal(answer.statusCode, 200, answer.body);
    return answer.json().mds_ipv4;
  };
  return { folder, app, registry, lines, upload, uploaded };
}

/** Asserts that an error is one plain line. */
function assertPlainLine(answer: { headers: Record<string, unknown>; body: string }): void {
  assert.match(String(answer.headers['content-type']), /^text\/plain\b/);
  assert.match(answer.body, /^[^\n\r]+\n$/);
}

test('the caller is the peer, whatever the headers say', async (t) => {
  const { app, uploaded } = await testApp(t);
  const [one, two] = [await uploaded(1), await uploaded(2)];
  const url = '/latest/meta-data/hostname';
  const forgeries = [
    'x-forwarded-for',
    'x-real-ip',
    'forwarded',
    'x-client-ip',
    'true-client-ip',
    'x-forwarded-host',
    'x-original-url',
    'x-rewrite-url',
    'x-http-method-override',
  ];
  for (const name of forgeries) {
    for (const value of [two, `for=${two}`, `${two}, ${one}`, address, '127.0.0.1', '/service/']) {
      await t.test(`${name}: ${value}`, async () => {
        const headers = { [name]: value };
        const known = await app.inject({ url, headers, remoteAddress: one });
        assert.deepEqual([known.statusCode, known.body], [200, 'vm1']);
        const unknown = await app.inject({ url, headers, remoteAddress: stranger });
        assert.equal(unknown.statusCode, 404);
        const local = await app.inject({
          url: '/service/configuration',
          headers,
          remoteAddress: one,
        });
        assert.equal(local.statusCode, 404);
      });
    }
  }
  const mapped = await app.inject({ url, remoteAddress: `::ffff:${two}` });
  assert.equal(mapped.body, 'vm2');
});

test('a caller that is not an instance gets 404 below every version, and one log line', async (t) => {
  const { app, lines, uploaded } = await testApp(t);
  await uploaded(1);
  const requests: { method: 'GET' | 'HEAD' | 'PUT'; url: string }[] = [
    { method: 'GET', url: '/latest' },
    { method: 'GET', url: '/latest/' },
    { method: 'GET', url: '/1.0/meta-data/' },
    { method: 'GET', url: '/2009-04-04/meta-data/hostname' },
    { method: 'GET', url: '/latest/meta-data/public-keys/0/openssh-key' },
    { method: 'GET', url: '/latest/user-data' },
    { method: 'GET', url: '/latest/nothing/of/the/kind' },
    { method: 'HEAD', url: '/latest/user-data' },
    { method: 'PUT', url: '/latest/api/token' },
  ];
  for (const remoteAddress of [stranger, address, '127.0.0.1', '::1', 'fe80::1%eth0']) {
    for (const request of requests) {
      await t.test(`${request.method} ${request.url} from ${remoteAddress}`, async () => {
        lines.length = 0;
        const headers = { 'x-aws-ec2-metadata-token-ttl-seconds': '60' };
        const answer = await app.inject({ ...request, headers, remoteAddress });
        const what = `${request.method} ${request.url} from ${remoteAddress}`;
        assert.equal(answer.statusCode, 404, what);
        if (request.method !== 'HEAD') assert.equal(answer.body, 'not found\n', what);
        assert.equal(lines.length, 1, lines.join('\n'));
        assert.ok(lines[0]?.includes(remoteAddress) && lines[0].includes(request.url), lines[0]);
        assert.match(lines[0] ?? '', /no instance has this address/);
      });
    }
  }
});

test('one instance gets nothing of another one, and each request is one log line', async (t) => {
  const { app, lines, uploaded } = await testApp(t);
  const [one, two] = [await uploaded(1), await uploaded(2)];
  lines.length = 0;
  for (const [from, name] of [
    [one, 'vm1'],
    [two, 'vm2'],
  ] as const) {
    const answer = await app.inject({ url: '/latest/meta-data/hostname', remoteAddress: from });
    assert.equal(answer.body, name);
  }
  assert.equal(lines.length, 2);
  assert.match(lines[0] ?? '', new RegExp(`^${one} vm1 GET /latest/meta-data/hostname 200 `));
});

test('an upload with too much metadata is refused, and the database does not grow', async (t) => {
  const { upload, registry } = await testApp(t);
  const metadata = `<e:x xmlns:e="urn:md_server:domain_metadata">${'x'.repeat(16 * 1024)}</e:x>`;
  const xml = domainXml(1).replace('</domain>', `<metadata>${metadata}</metadata></domain>`);
  const { statusCode, body } = await upload(xml);
  assert.deepEqual(
    [statusCode, body],
    [
      400,
      "the domain's metadata for mdserver has 16385 bytes, names and values together: at most 16384 are allowed\n",
    ],
  );
  assert.equal(registry.instances.byName.size, 0);
});

test('a removed instance is a stranger from then on', async (t) => {
  const { app, registry, uploaded } = await testApp(t);
  const remoteAddress = await uploaded(1);
  await registry.remove('vm1');
  const answer = await app.inject({ url: '/latest/meta-data/hostname', remoteAddress });
  assert.equal(answer.statusCode, 404);
});

test('uploads are taken from this host only', async (t) => {
  const { registry, upload, uploaded } = await testApp(t);
  const guest = await uploaded(1);
  for (const from of [guest, stranger, '10.0.0.1', '::2', '127.0.0.2', '::ffff:127.0.0.2']) {
    await t.test(`from ${from}`, async () => {
      const headers = {
        'x-forwarded-for': '127.0.0.1',
        host: 'localhost',
        forwarded: 'for=127.0.0.1',
      };
      const answer = await upload(domainXml(2), headers, from);
      assert.equal(answer.statusCode, 401);
      assertPlainLine(answer);
    });
  }
  assert.deepEqual([...registry.instances.byName.keys()], ['vm1']);
  for (const [index, from] of [address, '127.0.0.1', '::1', '::ffff:127.0.0.1'].entries()) {
    await t.test(`from ${from}`, async () => {
      assert.equal((await upload(domainXml(index + 2), {}, from)).statusCode, 200);
    });
  }
});

test('an upload answers nothing, or JSON where that is asked for', async (t) => {
  const { upload } = await testApp(t);
  for (const accept of [undefined, '*/*', 'text/html', 'application/xml']) {
    await t.test(rowName(accept), async () => {
      const answer = await upload(domainXml(1), accept === undefined ? {} : { accept });
      assert.deepEqual([answer.statusCode, answer.body], [200, '']);
      assert.equal(answer.headers['content-length'], '0');
    });
  }
  for (const accept of ['application/json', 'text/plain;q=0.1, application/json']) {
    await t.test(rowName(accept), async () => {
      const answer = await upload(domainXml(1), { accept });
      assert.match(String(answer.headers['content-type']), /^application\/json\b/);
      assert.equal(answer.json().domain_name, 'vm1');
    });
  }
});

test('a refused upload says why in one plain line and stores nothing', async (t) => {
  const { folder, registry, upload, uploaded } = await testApp(t);
  const bodies: [number, string | Buffer][] = [
    [400, ''],
    [400, 'hello'],
    [400, '{"domain": 1}'],
    [400, '<domain>'],
    [400, '<domain></domain><domain></domain>'],
    [400, `<!DOCTYPE d [<!ENTITY a "b">]>${domainXml(9)}`],
    [400, domainXml(9).replace('vm9', '../vm9')],
    [400, domainXml(9).replace('vm9', 'a&#10;b')],
    [400, domainXml(9).replaceAll('domain>', '__proto__>')],
    [400, '<'.repeat(100_000)],
    [400, '<a>'.repeat(100_000)],
    [400, Buffer.from([0xff, 0xfe, 0x3c, 0x00])],
    [413, ' '.repeat(1024 * 1024 + 1)],
    [422, domainXml(9, { network: 'default' })],
    [422, '<domain><name>x</name><uuid>8f1b3b52-6a0e-4c57-9d0c-3f3c2b000009</uuid></domain>'],
  ];
  for (const [status, body] of bodies) {
    for (const accept of ['*/*', 'application/json']) {
      await t.test(rowName(status, body, accept), async () => {
        const answer = await upload(body, { accept });
        assert.equal(answer.statusCode, status, String(body).slice(0, 60));
        assertPlainLine(answer);
      });
    }
  }
  assert.equal(registry.instances.byName.size, 0);

  const blocked: Subscriber = {
    files: () => [{ path: join(folder, 'blocked'), content: '' }],
    changed: () => {},
  };
  registry.subscribe(blocked);
  mkdirSync(join(folder, 'blocked'));
  const answer = await upload(domainXml(1));
  assert.equal(answer.statusCode, 500);
  assertPlainLine(answer);
  assert.match(answer.body, /^nothing was stored: EISDIR.*blocked/);
  rmdirSync(join(folder, 'blocked'));

  for (const number of [1, 2, 3, 4, 5]) await uploaded(number);
  const full = await upload(domainXml(6));
  assert.equal(full.statusCode, 503);
  assertPlainLine(full);
  assert.match(full.body, /no address left in 127\.135\.0\.0\/29 for vm6/);
  assert.equal((await upload(domainXml(5))).statusCode, 200, 'a known one needs no new address');
  assert.equal(registry.instances.byName.size, 5);
});

// ---- the daemon, from the wire ----

const scope = suiteScope();
let daemon: Daemon;
let guest: string;
let other: string;

before(async () => {
  // Some of these clients close their end too early to have a user: test/peers.test.ts is about that.
  ({ daemon } = await startSite(scope, address, { sections, mdserver: 'upload_from = host' }));
  const addressOf = async (number: number): Promise<string> => {
    const answer = await daemon.upload(domainXml(number), { accept: 'application/json' });
    return JSON.parse(answer.text).mds_ipv4;
  };
  [guest, other] = [await addressOf(1), await addressOf(2)];
});

function socketFrom(from: string): Socket {
  const socket = connect({ host: address, port: daemon.port, localAddress: from });
  // A server may close on a client that is still sending.
  socket.on('error', () => {});
  return socket;
}

/** All that comes until the connection is closed. */
function collected(socket: Socket): Promise<string> {
  let received = '';
  socket.setEncoding('latin1').on('data', (chunk) => (received += chunk));
  return new Promise((resolve) => socket.on('close', () => resolve(received)));
}

/** All that comes back for the bytes and the end of them. */
function raw(bytes: string | Buffer, from: string = guest): Promise<string> {
  const socket = socketFrom(from);
  socket.end(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
  return collected(socket);
}

/** All that comes back for an upload, until the daemon closes. */
function rawUpload(headers: string, body: string): Promise<string> {
  const socket = socketFrom(address);
  socket.write(Buffer.from(post(`${headers}Connection: close\r\n`, body), 'latin1'));
  return collected(socket);
}

/** The status codes of the answers, `100 Continue` left out. */
function statuses(received: string): number[] {
  return [...received.matchAll(/HTTP\/1\.1 (\d{3}) /g)]
    .map(([, code]) => Number(code))
    .filter((code) => code !== 100);
}

const getAs = (path: string, asking: RequestOptions = {}) =>
  daemon.ask(path, { from: guest, ...asking });

test('folders and leaves answer with and without a slash, slashes run together, nothing redirects', async (t) => {
  const { text: versions } = await getAs('/');
  assert.match(versions, /^1\.0\n[\s\S]*\nlatest$/);
  const places: [string, string | RegExp][] = [
    ['/latest', /^meta-data\/$/m],
    ['/2009-04-04', /^meta-data\/$/m],
    ['/latest/meta-data', /^public-keys\/$/m],
    ['/latest/meta-data/public-keys', '0=default\n1=zoe'],
    ['/latest/meta-data/public-keys/0', 'openssh-key'],
    ['/latest/meta-data/public-keys/1/openssh-key', key('zoe')],
    ['/latest/meta-data/public-keys/default/openssh-key', key('default')],
    ['/latest/meta-data/public-keys/zoe/openssh-key', key('zoe')],
    ['/latest/meta-data/hostname', 'vm1'],
    ['/latest/user-data', /^#cloud-config\n/],
    ['/service/name', 'mdserver'],
    ['/service', /^ec2_versions$/m],
  ];
  for (const [path, expected] of places) {
    for (const form of [
      path,
      `${path}/`,
      `${path}//`,
      `/${path.replaceAll('/', '//')}`,
      `${path}?a=/`,
    ]) {
      await t.test(rowName(form), async () => {
        const { status, text, headers } = await getAs(form);
        assert.equal(status, 200);
        if (typeof expected === 'string') assert.equal(text, expected);
        else assert.match(text, expected);
        const type = path.endsWith('user-data') ? 'application/octet-stream' : 'text/plain';
        assert.equal(headers['content-type'], type);
        assert.equal(headers.location, undefined);
      });
    }
  }
  for (const form of ['//', '///', '/?x', '/#x'])
    assert.equal((await getAs(form)).text, versions, form);
});

test('a path that does not exist is 404 in one plain line', async (t) => {
  const paths = [
    '/favicon.ico',
    '/1999-01-01/meta-data/',
    '/LATEST/meta-data/',
    '/latest/meta-data/nothing',
    '/latest/meta-data/hostname/more',
    '/latest/meta-data/hostname/hostname',
    '/latest/meta-data/public-keys/2/openssh-key',
    '/latest/meta-data/public-keys/00/openssh-key',
    '/latest/meta-data/public-keys/-1',
    '/latest/meta-data/public-keys/0=zoe',
    '/latest/user-data/x',
    '/service/configuration',
    '/service/repo_version',
    '/instance-upload',
    ...[
      '__proto__',
      'constructor',
      'toString',
      'hasOwnProperty',
      'valueOf',
      'entries',
      'size',
    ].flatMap((name) => [
      `/${name}`,
      `/${name}/meta-data/`,
      `/latest/${name}`,
      `/latest/${name}/${name}`,
      `/latest/meta-data/${name}`,
      `/latest/meta-data/public-keys/${name}`,
      `/latest/meta-data/public-keys/${name}/openssh-key`,
      `/latest/meta-data/public-keys/0/${name}`,
      `/service/${name}`,
    ]),
  ];
  for (const path of paths) {
    await t.test(rowName(path), async () => {
      const { status, text, headers } = await getAs(path);
      assert.equal(status, 404);
      assertPlainLine({ headers, body: text });
    });
  }
});

test('a HEAD is a GET without the body', async (t) => {
  for (const path of ['/', '/latest/meta-data/', '/latest/user-data', '/service/name', '/none']) {
    await t.test(rowName(path), async () => {
      const get = await getAs(path);
      const head = await getAs(path, { method: 'HEAD' });
      assert.equal(head.status, get.status);
      assert.equal(head.text, '');
      assert.equal(head.headers['content-length'], String(get.body.length));
      assert.equal(head.headers['content-type'], get.headers['content-type']);
    });
  }
});

test('each answer is whole and current, whatever part or condition a request names', async () => {
  const path = '/latest/user-data';
  const { body, headers: plain } = await getAs(path);
  const conditions: Record<string, string>[] = [
    { range: 'bytes=0-3' },
    { range: 'bytes=1000000-' },
    { 'if-none-match': '*' },
    { 'if-none-match': '"1"' },
    { 'if-modified-since': 'Thu, 26 Nov 2099 00:00:00 GMT' },
    { 'if-match': '"1"' },
    { 'accept-encoding': 'gzip' },
    { accept: 'application/json' },
  ];
  for (const asked of conditions) {
    const { status, body: again, headers } = await getAs(path, { headers: asked });
    const what = JSON.stringify(asked);
    assert.deepEqual([status, again.equals(body)], [200, true], what);
    const names = Object.keys(headers).filter((name) => name !== 'date');
    assert.deepEqual(
      names,
      Object.keys(plain).filter((name) => name !== 'date'),
      what,
    );
  }
});

test('a connection is kept for HTTP/1.1, and for HTTP/1.0 where the client asks for it', async () => {
  const asked = 'GET /latest/meta-data/hostname HTTP/';
  const kept = async (request: string) => {
    const headers = (await raw(request)).split('\r\n\r\n')[0]?.toLowerCase() ?? '';
    return headers.split('\r\n').filter((line) => /^(connection|keep-alive):/.test(line));
  };
  const keeping = ['connection: keep-alive', 'keep-alive: timeout=5'];
  assert.deepEqual(await kept(`${asked}1.1\r\nHost: localhost\r\n\r\n`), keeping);
  assert.deepEqual(await kept(`${asked}1.0\r\nConnection: keep-alive\r\n\r\n`), keeping);
  assert.deepEqual(await kept(`${asked}1.0\r\n\r\n`), ['connection: close']);
  const closing = `${asked}1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`;
  assert.deepEqual(await kept(closing), ['connection: close']);
});

test('a wrong method is refused in one plain line', async (t) => {
  const methods = ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE', 'PROPFIND'];
  for (const method of methods) {
    for (const path of ['/latest/meta-data/hostname', '/', '/service/name', '/latest/user-data/']) {
      await t.test(`${method} ${path}`, async () => {
        const { status, text, headers } = await getAs(path, { method });
        assert.ok(status === 404 || status === 405, `${method} ${path}: ${status}`);
        assertPlainLine({ headers, body: text });
      });
    }
  }
  for (const method of ['PUT', 'DELETE', 'PATCH']) {
    await t.test(`${method} /instance-upload`, async () => {
      const asking = { method, body: domainXml(1), from: address };
      assert.equal((await daemon.ask('/instance-upload', asking)).status, 404);
    });
  }
});

/** Request targets, and what the guest gets for them. */
const targets: [string, number, string?][] = [
  ['/latest/../latest/meta-data/hostname', 404],
  ['/latest/meta-data/../user-data', 404],
  ['/../../etc/passwd', 404],
  ['/latest/./meta-data/hostname', 404],
  ['/latest/%2e%2e/latest/meta-data/hostname', 404],
  ['/latest/meta-data/%2E%2E/%2e%2e/etc/passwd', 404],
  ['/latest/meta-data%2fhostname', 404],
  ['/latest%2Fmeta-data%2Fhostname', 404],
  ['/latest/meta-data/public-keys/0%2fopenssh-key', 404],
  ['/latest/meta-data\\hostname', 404],
  ['/latest/meta-data%5chostname', 404],
  ['/latest/meta-data/hostname;a=b', 404],
  ['/latest/meta-data/%00', 404],
  ['/latest/meta-data/hostname%00', 404],
  ['/latest/meta-data/hostname%0d%0aX: y', 400],
  ['/latest/meta-data/hostname%0d%0a', 404],
  ['/latest/meta-data/\0', 400],
  ['/latest/meta-data/%ff', 400],
  ['/latest/%c3%28/%', 400],
  ['/%', 400],
  ['/%zz/x', 400],
  ['/latest/user-data?%ff', 200],
  ['/l%61test/meta-data/h%6fstname', 200, 'vm1'],
  [`/latest/meta-data/${'x'.repeat(8192)}`, 404],
  [`/${'x'.repeat(8192)}`, 404],
  [`/latest/meta-data/${'%41'.repeat(2730)}`, 404],
  [`/latest${'/'.repeat(8000)}meta-data/hostname`, 200, 'vm1'],
  [`/latest/meta-data${'/x'.repeat(4000)}`, 404],
  [`/latest/${'../'.repeat(2700)}`, 404],
  [`/${'x'.repeat(65536)}`, 431],
  [`http://${address}/latest/meta-data/hostname`, 200, 'vm1'],
  ['http://169.254.169.254/latest/meta-data/hostname', 200, 'vm1'],
  [`HTTP://localhost:1//latest/meta-data/hostname?x`, 200, 'vm1'],
  ['http://localhost', 200],
  ['http://localhost?/latest', 200],
  ['http://x/latest/meta-data/hostname', 421],
  ['ftp://localhost/latest/meta-data/hostname', 404],
  ['http:///latest/meta-data/hostname', 400],
  ['*', 404],
  ['latest/meta-data/hostname', 400],
  ['169.254.169.254:80', 400],
  ['', 400],
];
for (const [target, status, body] of targets) {
  const shown = target.length > 60 ? `${target.slice(0, 40)}… (${target.length})` : target;
  test(`request target ${JSON.stringify(shown)} is answered ${status}`, async () => {
    const received = await raw(
      `GET ${target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`,
    );
    const [answered, ...more] = statuses(received);
    assert.deepEqual(more, []);
    if (status === 431) {
      // The rest of what is sent meets a closed socket, and that can outrun the answer.
      assert.ok(answered === status || received === '', received);
    } else if (status === 400 || (status === 404 && !target.startsWith('/'))) {
      // Refused, by node's parser or by the router: which of them does not matter.
      assert.ok(answered === 400 || answered === 404, received);
    } else {
      assert.equal(answered, status, received);
    }
    if (body !== undefined) assert.ok(received.endsWith(`\r\n\r\n${body}`), received);
    // What does not get past node's parser gets its empty answer.
    if (status === 404 || (status === 400 && target.startsWith('/%'))) {
      assert.match(received, /\r\ncontent-type: text\/plain\r\n/i);
      assert.match(received, /\r\n\r\n[^\n]+\n$/);
    }
    assert.doesNotMatch(received, /^location:/im);
    assert.doesNotMatch(received, /root:/);
  });
}

test('CONNECT, upgrades and other protocols are turned away', async (t) => {
  assert.deepEqual(statuses(await raw('CONNECT x:443 HTTP/1.1\r\nHost: localhost\r\n\r\n')), []);
  const options = await raw('OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n');
  assert.ok([400, 404].includes(statuses(options)[0] ?? 0), options);
  const upgrade = `GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`;
  assert.deepEqual(statuses(await raw(upgrade)), [200]);
  const h2 = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
  const tls = Buffer.from('16030100c8010000c403030000', 'hex');
  const others: (string | Buffer)[] = [
    '',
    '\r\n\r\n',
    '\0',
    'SSH-2.0-x\r\n',
    h2,
    tls,
    'GET /',
    'x'.repeat(99_999),
  ];
  for (const bytes of others) {
    await t.test(rowName(bytes), async () => {
      const received = await raw(bytes);
      assert.ok(received === '' || /^HTTP\/1\.1 4\d\d /.test(received), received.slice(0, 200));
    });
  }
});

test('the version of HTTP and the Host header', async () => {
  const path = '/latest/meta-data/hostname';
  const old = await raw(`GET ${path} HTTP/1.0\r\n\r\n`);
  assert.match(old, /^HTTP\/1\.1 200 OK\r\n[\s\S]*\r\n\r\nvm1$/);
  assert.deepEqual(statuses(await raw(`GET ${path} HTTP/1.1\r\n\r\n`)), [400]);
  assert.deepEqual(statuses(await raw(`GET ${path} HTTP/1.1\r\nHost:\r\n\r\n`)), [400]);
  assert.deepEqual(statuses(await raw(`GET ${path} HTTP/1.1\r\nHost: ]:[//\r\n\r\n`)), [400]);
  assert.deepEqual(statuses(await raw(`GET ${path} HTTP/9.9\r\nHost: localhost\r\n\r\n`)), [400]);
  assert.deepEqual(
    statuses(await raw(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n bad\r\n\r\n`)),
    [400],
  );
});

test('requests in a pipeline are answered in order, and a body of a GET is not a request', async () => {
  const get = (path: string, headers = '', body = '') =>
    `GET ${path} HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n${body}`;
  const pipeline = Array.from({ length: 50 }, (_, index) =>
    get(index % 2 === 0 ? '/latest/meta-data/hostname' : '/none'),
  );
  const answered = statuses(await raw(pipeline.join('')));
  assert.deepEqual(
    answered,
    pipeline.map((_, index) => (index % 2 === 0 ? 200 : 404)),
  );
  const inner = get('/none');
  const withBody = get('/latest/meta-data/hostname', `Content-Length: ${inner.length}\r\n`, inner);
  assert.deepEqual(statuses(await raw(withBody + get('/'))), [200, 200]);
});

const post = (headers: string, body: string) =>
  `POST /instance-upload HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n${body}`;

function chunked(body: string, size: number): string {
  const chunks = body.match(new RegExp(`.{1,${size}}`, 'gs')) ?? [];
  const lines = chunks.map((chunk) => `${chunk.length.toString(16)}\r\n${chunk}\r\n`);
  return `${lines.join('')}0\r\n\r\n`;
}

const chunkedHeader = 'Transfer-Encoding: chunked\r\n';

test('a body whose length is not clear is refused', async (t) => {
  const xml = domainXml(3);
  const length = `Content-Length: ${xml.length}\r\n`;
  const smuggled = `0\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n`;
  const cases = [
    post(length + length.replace(/\d+/, '1'), xml),
    post(length + length, xml),
    post(length + chunkedHeader, chunked(xml, 100)),
    post(chunkedHeader + length, chunked(xml, 100)),
    post(`Content-Length: 5\r\n${chunkedHeader}`, smuggled),
    post('Content-Length: -1\r\n', xml),
    post('Content-Length: 1e3\r\n', xml),
    post(`Content-Length: 99999999999999999999\r\n`, xml),
    post('Transfer-Encoding: chunked, identity\r\n', chunked(xml, 100)),
    post('Transfer-Encoding: gzip\r\n', xml),
    post(chunkedHeader, `zz\r\n${xml}`),
    post(chunkedHeader, `-5\r\n${xml}`),
    post(chunkedHeader, `ffffffffffffffffff\r\n${xml}`),
    post(`Content-Length : ${xml.length}\r\n`, xml),
    // Less than was promised.
    post(length, xml.slice(0, 50)),
    post(chunkedHeader, chunked(xml, 100).slice(0, 150)),
  ];
  for (const request of cases) {
    await t.test(rowName(request), async () => {
      const received = await raw(request, address);
      const [status = 0, ...more] = statuses(received);
      assert.ok((status === 0 || status === 400) && more.length === 0, `${request}\n\n${received}`);
    });
  }
  const names = (await daemon.ask('/service/name')).status;
  assert.equal(names, 200);
});

test('bodies in chunks, in dribbles and after 100-continue are taken', async (t) => {
  for (const size of [1, 7, 1000]) {
    await t.test(`in chunks of ${size}`, async () => {
      const received = await rawUpload(chunkedHeader, chunked(domainXml(4), size));
      assert.deepEqual(statuses(received), [200]);
    });
  }
  const xml = domainXml(4);
  const expecting = `Content-Length: ${xml.length}\r\nExpect: 100-continue\r\n`;
  const received = await rawUpload(expecting, xml);
  assert.match(received, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK\r\n/);
  const nonsense = `Content-Length: ${xml.length}\r\nExpect: a miracle\r\n`;
  assert.deepEqual(statuses(await rawUpload(nonsense, xml)), [417]);

  const socket = socketFrom(address);
  const dribbled = collected(socket);
  const whole = post(`Content-Length: ${xml.length}\r\nConnection: close\r\n`, xml);
  for (const part of whole.match(/.{1,40}/gs) ?? []) {
    socket.write(part);
    await pause(1);
  }
  assert.deepEqual(statuses(await dribbled), [200]);
});

test('headers that are too many or too long are refused', async (t) => {
  const cases = [
    `X: ${'y'.repeat(20_000)}\r\n`,
    `${'X'.repeat(20_000)}: y\r\n`,
    Array.from({ length: 3000 }, (_, index) => `X-${index}: y\r\n`).join(''),
    `Cookie: ${'a=b; '.repeat(5000)}\r\n`,
  ];
  for (const headers of cases) {
    await t.test(rowName(headers), async () => {
      const received = await raw(`GET / HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`);
      assert.deepEqual(statuses(received), [431]);
    });
  }
  for (const headers of [
    'No colon\r\n',
    ': no name\r\n',
    'X: a\0b\r\n',
    'X\0: a\r\n',
    'X Y: a\r\n',
  ]) {
    await t.test(rowName(headers), async () => {
      const received = await raw(`GET / HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`);
      assert.deepEqual(statuses(received), [400]);
    });
  }
  const harmless = 'X: \x80\xff\r\n__proto__: x\r\nconstructor: y\r\nAccept: \xff\r\n';
  assert.deepEqual(
    statuses(await raw(`GET / HTTP/1.1\r\nHost: localhost\r\n${harmless}\r\n`)),
    [200],
  );
});

const limit = 1024 * 1024;

test('a long body is refused before it is read, but for an upload and a report of an instance', async (t) => {
  const long = 'Content-Length: 1048575\r\n';
  const chunked = 'Transfer-Encoding: chunked\r\n';
  for (const [from, line, framing, status] of [
    [guest, 'PUT /latest/api/token', long, 413],
    [guest, 'POST /latest/meta-data/', long, 413],
    [guest, 'DELETE /nothing', long, 413],
    [guest, 'POST /phone-home', long, 413],
    [guest, 'GET /latest/meta-data/hostname', long, 200],
    [guest, 'GET /latest/meta-data/hostname', chunked, 200],
    [guest, 'POST /instance-upload', long, 401],
    [guest, 'POST /instance-upload', chunked, 401],
    [stranger, 'PUT /latest/api/token', long, 413],
    [stranger, 'POST /phone-home', long, 404],
    [stranger, 'POST /phone-home', chunked, 404],
    [address, 'POST /phone-home', long, 404],
  ] as const) {
    await t.test(rowName(from, line, framing), async () => {
      const socket = socketFrom(from);
      // The body never comes: an answer shows that nobody waits for it.
      socket.write(`${line} HTTP/1.1\r\nHost: localhost\r\n${framing}\r\n`);
      const [received] = await once(socket, 'data');
      assert.deepEqual(statuses(String(received)), [status]);
      socket.destroy();
    });
  }
  for (const line of ['PUT /latest/api/token', 'POST /nothing']) {
    await t.test(rowName(line, chunked), async () => {
      const socket = socketFrom(guest);
      const answered = collected(socket);
      const chunk = `400\r\n${'x'.repeat(1024)}\r\n`;
      socket.write(`${line} HTTP/1.1\r\nHost: localhost\r\n${chunked}\r\n${chunk}${chunk}`);
      // The connection is closed, since more would come.
      assert.deepEqual(statuses(await answered), [413]);
    });
  }
});

test('a body of one byte more than 1 MiB is 413, one of 1 MiB is read', async () => {
  const xml = domainXml(5);
  const exact = xml + ' '.repeat(limit - xml.length);
  const taken = await daemon.upload(exact);
  assert.deepEqual([taken.status, taken.text], [200, '']);
  assert.deepEqual(statuses(await rawUpload(chunkedHeader, chunked(exact, 50_000))), [200]);

  for (let attempt = 0; attempt < 10; attempt++) {
    const tooLong = await daemon.upload(`${exact} `);
    assert.equal(tooLong.status, 413);
    assertPlainLine({ headers: tooLong.headers, body: tooLong.text });
    const received = await rawUpload(chunkedHeader, chunked(`${exact} `, 50_000));
    assert.deepEqual(statuses(received), [413]);
  }
  const announced = await rawUpload(`Content-Length: ${limit + 1}\r\n`, '');
  assert.deepEqual(statuses(announced), [413]);
});

test('a client that sends its whole body before it reads gets the 413, with the size and the limit', async () => {
  const body = ' '.repeat(10 * limit);
  const told = (size: string) =>
    `\r\n\r\nthe body is too large: it has ${size} bytes, and at most 1048576 are allowed\n`;
  for (let attempt = 0; attempt < 5; attempt++) {
    const sent = (headers: string, text: string) =>
      sendThenRead(socketFrom(address), post(`${headers}Connection: close\r\n`, text));
    const whole = await sent(`Content-Length: ${body.length}\r\n`, body);
    assert.deepEqual(statuses(whole), [413]);
    assert.ok(whole.endsWith(told('10485760')), whole);
    const pieces = await sent(chunkedHeader, chunked(body, 50_000));
    assert.deepEqual(statuses(pieces), [413]);
    assert.ok(pieces.endsWith(told('more than 1048576')), pieces);
  }
  assert.match(
    daemon.output(),
    /WARN {2}refused POST \/instance-upload: the body is too large: it has 10485760 bytes, /,
  );
});

test('a client that goes on sending behind its 413 is cut off', async () => {
  const where = { host: address, port: daemon.port, localAddress: address };
  const socket = connect({ ...where, allowHalfOpen: true });
  const closed = closing(socket);
  let received = '';
  socket.on('data', (chunk) => (received += chunk));
  socket.write(post(chunkedHeader, ''));
  const chunk = chunked('x'.repeat(2 ** 16), 2 ** 16).replace(/0\r\n\r\n$/, '');
  let sent = 0;
  while (!socket.destroyed && sent < 2 ** 28) {
    sent += chunk.length;
    const isFull = !socket.write(chunk);
    if (isFull) await Promise.race([closed, new Promise((done) => socket.once('drain', done))]);
  }
  // Half open, it would otherwise not notice that its peer has gone.
  socket.end();
  await closed;
  assert.deepEqual(statuses(received), [413]);
  // Behind 16 MiB, what the kernel has, and what comes between two looks at that.
  assert.ok(sent > 2 ** 24 && sent < 2 ** 28, `${sent} bytes`);
});

test('curl shows the 413, with and without Expect: 100-continue', {
  skip: missing('curl'),
}, async (t) => {
  const folder = temporaryFolder(t, { 'large.xml': 'x'.repeat(20 * limit) });
  for (const how of [
    ['-d', `@${folder}/large.xml`],
    ['--data-binary', `@${folder}/large.xml`, '-H', 'Expect: 100-continue'],
    ['--data-binary', `@${folder}/large.xml`, '-H', 'Expect:', '-H', 'Connection: close'],
  ]) {
    await t.test(rowName(...how.slice(2)), async () => {
      const url = `http://${address}:${daemon.port}/instance-upload`;
      const curl = await run('curl', ['-sS', '-w', '%{http_code}', ...how, url]);
      assert.deepEqual(curl, {
        status: 0,
        stdout:
          'the body is too large: it has 20971520 bytes, and at most 1048576 are allowed\n413',
        stderr: '',
      });
    });
  }
});

test('an upload from another host is 401 before its body is read', async (t) => {
  for (const from of [guest, other, stranger]) {
    await t.test(`from ${from}`, async () => {
      const socket = socketFrom(from);
      socket.setEncoding('latin1');
      socket.write(post(`Content-Length: ${50 * limit}\r\n`, '<domain>'));
      const [received] = await once(socket, 'data');
      assert.deepEqual(statuses(received), [401]);
      socket.destroy();
    });
  }
  const whole = await daemon.ask('/instance-upload', {
    from: guest,
    method: 'POST',
    body: domainXml(6),
  });
  assert.equal(whole.status, 401);
  assertPlainLine({ headers: whole.headers, body: whole.text });
});

const contentTypes = [
  undefined,
  '',
  'application/x-www-form-urlencoded',
  'multipart/form-data; boundary=x',
  'multipart/form-data',
  'application/json',
  'application/json; charset=utf-8',
  'text/xml',
  'application/xml; charset="utf-8"',
  'text/plain',
  'application/octet-stream',
  'APPLICATION/XML',
  'xml',
  '*',
  '/',
  'a/b/c',
  'text/xml;;;=',
  'ÿþ',
  `text/${'x'.repeat(8000)}`,
];
for (const type of contentTypes) {
  test(`an upload of the type ${JSON.stringify(type?.slice(0, 50) ?? 'none')} is taken`, async () => {
    const xml = domainXml(7);
    const typed = type === undefined ? '' : `Content-Type: ${type}\r\n`;
    const received = await rawUpload(`${typed}Content-Length: ${xml.length}\r\n`, xml);
    assert.match(received, /^HTTP\/1\.1 200 OK\r\n[\s\S]*\r\n\r\n$/, received);
    const empty = await rawUpload(`${typed}Content-Length: 0\r\n`, '');
    assert.match(empty, /^HTTP\/1\.1 400 [\s\S]*\r\n\r\nthe body is empty: [^\n]*\n$/, empty);
  });
}

test('only a form without line breaks gets the hint that curl -d joins words', async (t) => {
  const joined = domainXml(8).replaceAll('\n', '').replace('<domain ', '<domain');
  const form = 'application/x-www-form-urlencoded';
  const hint = ' (curl -d removes newlines and so joins words; --data-binary keeps them)\n';
  for (const [body, type, isHinted] of [
    [joined, form, true],
    [joined, `${form}; charset=utf-8`, true],
    [joined, 'application/xml', false],
    [`${joined}\n`, form, false],
    [joined.replace("<domaintype='kvm'>", '<domain><a></b>'), form, false],
  ] as const) {
    await t.test(rowName(body, type), async () => {
      const answer = await daemon.upload(body, { 'content-type': type });
      assert.equal(answer.status, 400);
      assertPlainLine({ headers: answer.headers, body: answer.text });
      assert.equal(answer.text.endsWith(hint), isHinted, answer.text);
    });
  }
});

test('an upload as curl -d sends it is taken', async () => {
  const body = domainXml(8).replaceAll('\n', '');
  const headers = { 'content-type': 'application/x-www-form-urlencoded' };
  assert.equal((await daemon.upload(body, headers)).status, 200);
});

test('an upload whose client goes away in the middle harms nobody', async () => {
  for (let attempt = 0; attempt < 20; attempt++) {
    const socket = socketFrom(address);
    socket.write(post(`Content-Length: ${limit}\r\n`, domainXml(9)));
    await once(socket, 'connect');
    await pause(attempt % 4);
    if (attempt % 2 === 0) socket.resetAndDestroy();
    else socket.destroy();
  }
  // Gone before the answer: what arrived whole is stored all the same.
  const socket = socketFrom(address);
  const xml = domainXml(10);
  socket.write(post(`Content-Length: ${xml.length}\r\n`, xml), () => socket.resetAndDestroy());
  await once(socket, 'close');
  assert.equal((await daemon.upload(domainXml(11))).status, 200);
});

test('clients that send their headers slowly do not block others', async () => {
  const slow = Array.from({ length: 200 }, () => socketFrom(guest));
  await Promise.all(slow.map((socket) => once(socket, 'connect')));
  for (const [index, socket] of slow.entries()) {
    socket.write(index % 2 === 0 ? 'GET /latest/meta-data/hostname HTTP/1.1\r\nX' : 'G');
  }
  for (let n = 0; n < 20; n++) {
    for (const socket of slow) socket.write('x');
    assert.equal((await getAs('/latest/meta-data/hostname', { from: other })).text, 'vm2');
  }
  assert.equal((await daemon.upload(domainXml(12))).status, 200);
  for (const socket of slow) socket.destroy();
});

test('as many connections as a guest may have at once are answered; further ones are closed', async () => {
  const sockets = await Promise.all(
    Array.from({ length: 128 }, async (_, index) => {
      const socket = socketFrom(index % 2 === 0 ? guest : other);
      await once(socket, 'connect');
      return socket;
    }),
  );
  const tooMany = socketFrom(guest);
  await closing(tooMany);
  const answers = await Promise.all(
    sockets.map(async (socket) => {
      let received = '';
      socket.setEncoding('latin1').on('data', (chunk) => (received += chunk));
      const closed = once(socket, 'close');
      socket.write(
        'GET /latest/meta-data/hostname HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n',
      );
      await closed;
      return received.slice(received.indexOf('\r\n\r\n') + 4);
    }),
  );
  assert.deepEqual(
    answers,
    sockets.map((_, index) => (index % 2 === 0 ? 'vm1' : 'vm2')),
  );
});

test('no input ends the process or makes it answer 500', async () => {
  const piece = fc.oneof(
    fc.constantFrom('/', '//', '%', '%00', '%ff', '..', '*', '?', '#', 'latest', 'meta-data', ' '),
    fc.constantFrom(
      '\r\n',
      '\n',
      '\0',
      ':',
      ' HTTP/1.1',
      'Host: localhost\r\n',
      'Content-Length: 3\r\n',
    ),
    fc.constantFrom(
      'Transfer-Encoding: chunked\r\n',
      'GET ',
      'POST ',
      '/instance-upload',
      'user-data',
    ),
    fc.string({ unit: 'binary', maxLength: 8 }),
  );
  const text = fc.array(piece, { maxLength: 20 }).map((pieces) => pieces.join(''));
  const wellFormed = text.map(
    (target) =>
      `GET /${target.replace(/[\s\0]/g, '')} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`,
  );
  await fc.assert(
    fc.asyncProperty(fc.oneof(text, wellFormed), fc.boolean(), async (request, local) => {
      const received = await raw(Buffer.from(request), local ? address : guest);
      assert.ok(
        statuses(received).every((status) => status < 500),
        received,
      );
    }),
    { numRuns: 400 },
  );
});

test('after all this the daemon still serves, has logged no error and stops cleanly', async () => {
  assert.deepEqual([daemon.process.exitCode, daemon.process.signalCode], [null, null]);
  assert.equal((await daemon.ask('/latest/meta-data/hostname', { from: guest })).text, 'vm1');
  assert.equal(await daemon.stop(), 0);
  assert.deepEqual(daemon.output().match(/.* (ERROR|FATAL) .*/g), null);
  assert.doesNotMatch(daemon.output(), /^\s+at /m, 'a stack trace');
});
