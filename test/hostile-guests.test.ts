import assert from 'node:assert/strict';
import { symlinkSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import fc from 'fast-check';
import { suiteScope } from './support/cleanup.js';
import type { Answer, Daemon } from './support/daemon.js';
import { hostileRequests } from './support/hostile-requests.js';
import { rowName } from './support/rows.js';
import { domainXml } from './support/samples.js';
import { startSite } from './support/site.js';

// Two guests on one server. Whatever one of them sends, it gets nothing of the other's, no file of
// the host's, and no 5xx; and the server is there at the end.

const host = '127.142.0.1';
const addresses = { alpha: '127.142.0.11', beta: '127.142.0.12', stranger: '127.142.0.99' };
type Sender = keyof typeof addresses;
const senders = Object.keys(addresses) as Sender[];

const uuids = {
  alpha: 'a1fa0000-aaaa-4aaa-8aaa-aaaaaaaaaaaa',
  beta: 'be1a0000-bbbb-4bbb-8bbb-bbbbbbbbbbbb',
};
const macs = { alpha: '52:54:00:aa:aa:aa', beta: '52:54:00:bb:bb:bb' };

/** What only one of them may see; "host" is for nobody. */
const secrets: Record<'alpha' | 'beta' | 'host', string[]> = {
  alpha: ['alphaname', 'ALPHA-DATA', 'ALPHA-TAG', uuids.alpha, macs.alpha, addresses.alpha],
  beta: ['betaname', 'BETA-DATA', 'BETA-TAG', uuids.beta, macs.beta, addresses.beta],
  host: ['HOST-SECRET', 'PASSWORD-SECRET', 'root:x:', 'mdserver.conf', '/mdserver-test-'],
};

/** All that the sender sent itself may come back in an answer; nothing else of these may. */
function assertNothingLeaks(sender: Sender, sent: string, received: string): void {
  for (const [owner, texts] of Object.entries(secrets)) {
    if (owner === sender) continue;
    for (const text of texts) {
      assert.ok(
        !received.includes(text) || sent.includes(text),
        `${sender} sent ${JSON.stringify(sent.slice(0, 500))} and got ${owner}'s ${text}:\n${received}`,
      );
    }
  }
}

/** The domain of a guest, perhaps with more metadata. */
function xmlOf(name: 'alpha' | 'beta', metadata: Record<string, string> = {}): string {
  return domainXml(1, {
    name: `${name}name`,
    uuid: uuids[name],
    mac: macs[name],
    metadata: { ...metadata, Note: `${name.toUpperCase()}-TAG` },
  });
}

describe('hostile guests', () => {
  const scope = suiteScope();
  let daemon: Daemon;
  let folder: string;
  const tokens: Partial<Record<Sender, string>> = {};

  before(async () => {
    const records = (['alpha', 'beta'] as const).map((name) => ({
      domain_name: `${name}name`,
      domain_uuid: uuids[name],
      domain_metadata: { Note: `${name.toUpperCase()}-TAG` },
      mds_mac: macs[name],
      mds_ipv4: addresses[name],
    }));
    ({ daemon, folder } = await startSite(scope, host, {
      records,
      userdata: {
        alphaname: '#!/bin/sh\necho ALPHA-DATA\n',
        betaname: '#!/bin/sh\necho BETA-DATA\n',
        '.hidden': 'HOST-SECRET\n',
        '.git/config': 'HOST-SECRET\n',
      },
      mdserver: 'password = PASSWORD-SECRET',
      sections: `[public-keys]
default = ssh-ed25519 AAAA everybody@example.net
[template-data]
secret = HOST-SECRET`,
    }));
    writeFileSync(join(folder, 'secret'), 'HOST-SECRET\n');
    symlinkSync(join(folder, 'secret'), join(folder, 'userdata/link'));
    for (const name of ['alpha', 'beta'] as const) {
      const { status, text } = await daemon.ask('/latest/api/token', {
        method: 'PUT',
        from: addresses[name],
        headers: { 'x-aws-ec2-metadata-token-ttl-seconds': '21600' },
      });
      assert.equal(status, 200);
      tokens[name] = text;
    }
  });

  /** A request that has to be refused, or answered with the sender's own. */
  async function attack(
    sender: Sender,
    path: string,
    headers: Record<string, string> = {},
    method = 'GET',
  ): Promise<Answer> {
    const answer = await daemon.ask(path, { from: addresses[sender], headers, method });
    const sent = `${method} ${path} ${JSON.stringify(headers)}`;
    const received = `${answer.status} ${JSON.stringify(answer.headers)} ${answer.text}`;
    assertNothingLeaks(sender, sent, received);
    assert.ok(answer.status < 500, `${sent}: ${received}`);
    return answer;
  }

  /** Everything that the server says to these bytes, up to its end or a pause. */
  async function raw(sender: Sender, bytes: string | Buffer): Promise<string> {
    const socket = connect({ host, port: daemon.port, localAddress: addresses[sender] });
    let received = '';
    // A reset is an answer, too.
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1');
    });
    // What leaves the server waiting for more is given up: it has its own limit for that.
    socket.setTimeout(400, () => socket.destroy());
    socket.write(bytes);
    // Not events.once(): that rejects for a reset.
    await new Promise((resolve) => socket.once('close', resolve));
    assertNothingLeaks(sender, bytes.toString('latin1'), received);
    for (const [, status] of received.matchAll(/^HTTP\/1\.1 (\d{3})/gm)) {
      assert.ok(Number(status) < 500, `${bytes.toString('latin1').slice(0, 500)}: ${received}`);
    }
    return received;
  }

  const statuses = (received: string) =>
    [...received.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, status]) => Number(status));

  test('each guest gets its own, so that the other tests can find something', async () => {
    for (const name of ['alpha', 'beta'] as const) {
      const from = addresses[name];
      const data = await daemon.ask('/latest/user-data', { from });
      assert.equal(data.text, `#!/bin/sh\necho ${name.toUpperCase()}-DATA\n`);
      const note = await daemon.ask('/latest/meta-data/tags/instance/Note', { from });
      assert.equal(note.text, `${name.toUpperCase()}-TAG`);
      assert.throws(() =>
        assertNothingLeaks(name === 'alpha' ? 'beta' : 'alpha', 'GET /', data.text),
      );
    }
  });

  test('the token of another instance opens nothing', async (t) => {
    for (const path of ['/latest/user-data', '/nocloud/meta-data', '/openstack/latest/user_data']) {
      await t.test(rowName(path), async () => {
        const other = { 'x-aws-ec2-metadata-token': tokens.beta ?? '' };
        assert.equal((await attack('alpha', path, other)).status, 401);
        assert.equal((await attack('stranger', path, other)).status, 404);
      });
    }
    // Two headers are one with a comma, wherever the good one stands.
    for (const pair of [
      [tokens.alpha, tokens.beta],
      [tokens.beta, tokens.alpha],
      [tokens.alpha, ''],
    ]) {
      await t.test(rowName(pair), async () => {
        const lines = pair.map((token) => `X-aws-ec2-metadata-token: ${token}\r\n`).join('');
        const received = await raw(
          'alpha',
          `GET /latest/user-data HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n${lines}\r\n`,
        );
        assert.deepEqual(statuses(received), [401]);
      });
    }
  });

  test('no header lets a guest pose as another or as the host', async (t) => {
    const targets = [addresses.beta, host, '127.0.0.1', '::1', 'localhost', '169.254.169.254'];
    const names = [
      ...['X-Forwarded-For', 'X-Real-IP', 'X-Client-IP', 'True-Client-IP', 'CF-Connecting-IP'],
      ...['X-Cluster-Client-IP', 'X-Originating-IP', 'X-Remote-Addr', 'X-Forwarded-Host', 'Via'],
      ...['X-Forwarded-Server', 'Client-IP', 'Referer', 'From'],
      ...['X-Instance-ID', 'X-Instance-ID-Signature', 'X-Tenant-ID', 'X-Metadata-Provider'],
      ...['X-Original-URL', 'X-Rewrite-URL', 'X-HTTP-Method-Override', 'Userdata-Prefix'],
    ];
    const tries = names.flatMap((name) => targets.map((target) => ({ [name]: target })));
    tries.push(
      ...targets.map((target) => ({ Forwarded: `for=${target};by=${target};host=${target}` })),
      ...targets.map((target) => ({ 'X-Forwarded-For': `${target}, ${addresses.alpha}` })),
      { 'X-Instance-ID': 'betaname', 'X-Forwarded-For': addresses.beta },
      { 'X-Original-URL': '/service/configuration' },
      { 'Proxy-Authorization': 'Basic eDp5', Authorization: 'Basic eDp5', Cookie: 'a=b' },
    );
    for (const headers of tries) {
      await t.test(rowName(headers), async () => {
        const own = await attack('alpha', '/latest/user-data', headers);
        assert.deepEqual([own.status, own.text], [200, '#!/bin/sh\necho ALPHA-DATA\n']);
        const none = await attack('stranger', '/latest/user-data', headers);
        assert.deepEqual([none.status, none.text], [404, 'not found\n']);
        const local = await attack('alpha', '/service/configuration', headers);
        assert.equal(local.status, 404, JSON.stringify(headers));
        const forged = await daemon.ask('/instance-upload', {
          method: 'POST',
          from: addresses.alpha,
          headers,
          body: xmlOf('beta'),
        });
        assert.equal(forged.status, 401, JSON.stringify(headers));
      });
    }
  });

  test('a proxy that a guest runs gets no token for others', async (t) => {
    const life = { 'x-aws-ec2-metadata-token-ttl-seconds': '60' };
    for (const from of ['', addresses.beta, 'unknown']) {
      await t.test(rowName(from), async () => {
        const headers = { ...life, 'X-Forwarded-For': from };
        assert.equal((await attack('alpha', '/latest/api/token', headers, 'PUT')).status, 403);
      });
    }
  });

  const long = 'a'.repeat(8192);
  const paths = [
    // Out of the tree, and out of any folder.
    ...['/../../../../etc/passwd', '/latest/../../etc/passwd', '/..%2f..%2fetc%2fpasswd'],
    ...['/latest/user-data/../../../secret', '/latest/user-data/%2e%2e/%2e%2e/secret'],
    ...[
      '/latest/user-data/betaname',
      '/latest/user-data/../betaname',
      '/latest/user-data%2fbetaname',
    ],
    ...['/latest/user-data/link', '/latest/user-data?userdata_prefix=betaname'],
    ...[
      '/latest/user-data;userdata_prefix=betaname',
      '/latest/user-data%00',
      '/latest/%00user-data',
    ],
    ...['/nocloud/../latest', '/nocloud/../service/configuration', '/nocloud/%2e%2e/latest/'],
    ...['/nocloud/betaname/user-data', '/nocloud/user-data/betaname', '/nocloud/..%5c..%5csecret'],
    ...['/openstack/latest/../../', '/openstack/latest/%2e%2e%2f%2e%2e%2fsecret'],
    ...['/openstack/content/0000', '/openstack/latest/user_data/..%2fbetaname', '/openstack/../..'],
    ...['/latest/meta-data/%2e%2e/user-data', '/latest/./user-data', '/latest/.', '/latest/..'],
    ...['/latest/meta-data/..;/..;/service/configuration', '/service/../latest/user-data'],
    // Other machines by their names.
    ...[`/latest/meta-data/network/interfaces/macs/${macs.beta}/local-hostname`],
    ...[`/latest/meta-data/tags/instance/${uuids.beta}`, '/latest/meta-data/betaname'],
    ...['/latest/meta-data/public-keys/../tags', '/latest/meta-data/__proto__/entries'],
    ...['/latest/meta-data/constructor/prototype', '/latest/meta-data/toString', '/__proto__/'],
    ...['/constructor/meta-data', '/latest/__proto__', '/service/__proto__', '/service/toString'],
    // Bad escapes, other spellings and lengths.
    ...['/%', '/%zz', '/%ff', '/latest/%c0%ae%c0%ae/', '/latest/%e0%80%af', '/latest/%', '/%2e'],
    ...[
      '/%252e%252e/%252e%252e/secret',
      '/latest/%u002e',
      '/latest/%ed%a0%80',
      '/%00',
      '/%0d%0aX:%20y',
    ],
    ...[
      '/2009-04-04x/user-data',
      '/9999-99-99/user-data',
      '/latest%20/user-data',
      '/LATEST/user-data',
    ],
    ...['/0/user-data', '/-1/user-data', '/1.0.0/user-data', '/latest.json', '/1e999/'],
    ...[`/${long}`, `/latest/${long}`, `/latest/meta-data/public-keys/${long}/openssh-key`],
    ...[`/latest/meta-data/tags/instance/${long}`, `/nocloud/${long}`, `/openstack/${long}/x`],
    ...[`/${'a/'.repeat(4000)}`, `/${'%2f'.repeat(2600)}`, `/${'../'.repeat(2700)}secret`],
    ...[
      `/latest${'/'.repeat(8000)}user-data`,
      `/latest/user-data?${long}`,
      `/?${'&a=b'.repeat(2000)}`,
    ],
    // What others of this kind have had.
    ...[
      '/instance-upload',
      '/phone-home',
      '/metrics',
      '/admin',
      '/.env',
      '/debug/pprof',
      '/favicon.ico',
      '/*',
      '*',
    ],
    ...[
      '/latest/meta-data/iam/security-credentials/',
      '/computeMetadata/v1/',
      '/metadata/instance',
    ],
  ];

  test('no path leads to another guest or out of the tree', async (t) => {
    for (const path of paths) {
      await t.test(rowName(path), async () => {
        for (const sender of senders) {
          for (const method of ['GET', 'HEAD', 'PUT', 'POST', 'DELETE', 'OPTIONS', 'PATCH']) {
            await attack(sender, path, {}, method);
          }
        }
        // As they stand, too: Node's client tidies up nothing here, but another reader may.
        await raw('alpha', `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
      });
    }
    for (const path of [
      `/latest${'/'.repeat(8000)}user-data`,
      '/latest/user-data?x',
      '/latest/user%2Ddata',
    ]) {
      await t.test(rowName(path), async () => {
        assert.equal((await attack('alpha', path)).text, '#!/bin/sh\necho ALPHA-DATA\n');
      });
    }
  });

  const request = (target: string, ...headers: string[]) =>
    `GET ${target} HTTP/1.1\r\n${[...headers, 'Connection: close'].join('\r\n')}\r\n\r\n`;

  test('a target in absolute form is a path on this server, or refused', async (t) => {
    for (const authority of [
      ...[addresses.beta, host, 'betaname', '127.0.0.1', '[::1]:80', 'user:pass@betaname:1'],
      ...['betaname@127.0.0.1', '', '%00', 'a'.repeat(4000), '..'],
    ]) {
      for (const scheme of ['http', 'https', 'HTTP']) {
        const target = `${scheme}://${authority}/latest/user-data`;
        for (const hostLine of ['Host: localhost', `Host: ${addresses.beta}`]) {
          await t.test(rowName(target, hostLine), async () => {
            const received = await raw('alpha', request(target, hostLine));
            if (authority === host) assert.match(received, /ALPHA-DATA/);
            else assert.match(received, /^HTTP\/1.1 4(00|21) /);
            assert.doesNotMatch(await raw('stranger', request(target, hostLine)), /DATA/);
          });
        }
      }
    }
    for (const target of [
      ...['http://', 'http:', 'http:/', 'http:///', 'http://?', 'http://x?/latest/user-data'],
      ...[
        'ftp://x/latest/user-data',
        'file:///etc/passwd',
        'x',
        '*',
        'latest/user-data',
        '//',
        '?',
      ],
      ...['http://x/../../etc/passwd', 'http://x//latest//user-data', 'javascript:0', '\\\\x\\y'],
    ]) {
      await t.test(rowName(target), async () => {
        for (const sender of senders) {
          const received = await raw(sender, request(target, 'Host: localhost'));
          assert.equal(statuses(received).length, 1, `${target}: ${received}`);
        }
      });
    }
    const tunnel = await raw(
      'alpha',
      `CONNECT ${addresses.beta}:80 HTTP/1.1\r\nHost: localhost\r\n\r\n`,
    );
    assert.doesNotMatch(tunnel, / 200 /);
  });

  test("a smuggled request counts as the sender's own, or is refused", async () => {
    const inner = `GET /latest/user-data HTTP/1.1\r\nHost: ${addresses.beta}\r\nX-Forwarded-For: ${addresses.beta}\r\n\r\n`;
    const chunk = `${inner.length.toString(16)}\r\n${inner}\r\n0\r\n\r\n`;
    const length = `Content-Length: ${inner.length}`;
    const smuggled: string[] = [
      ...['GET', 'POST', 'PUT'].flatMap((method) => {
        const path = method === 'POST' ? '/instance-upload' : '/latest/api/token';
        const start = `${method} ${path} HTTP/1.1\r\nHost: localhost\r\n`;
        return [
          `${start}${length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${inner}`,
          `${start}Transfer-Encoding: chunked\r\n${length}\r\n\r\n${chunk}`,
          `${start}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`,
          `${start}Transfer-Encoding: xchunked\r\n${length}\r\n\r\n${inner}`,
          `${start}Transfer-Encoding: chunked, identity\r\n\r\n${chunk}`,
          `${start}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n${chunk}`,
          `${start}Transfer-Encoding : chunked\r\n\r\n${chunk}`,
          `${start}Transfer-Encoding:\x0bchunked\r\n\r\n${chunk}`,
          `${start}${length}\r\nContent-Length: 0\r\n\r\n${inner}`,
          `${start}Content-Length: 0, ${inner.length}\r\n\r\n${inner}`,
          `${start}Content-Length: +${inner.length}\r\n\r\n${inner}`,
          `${start}Content-Length: -1\r\n\r\n${inner}`,
          `${start}Content-Length: 0x10\r\n\r\n${inner}`,
          `${start}Content-Length: 99999999999999999999\r\n\r\n${inner}`,
          `${start}Content-Length: 0\r\n\r\n${inner}`,
          `${start}Content-Length: 0\n\n${inner}`,
          `${start}X: y\r\n z\r\n\r\n${inner}`,
          `${start}X: y\rGET /latest/user-data HTTP/1.1\r\n\r\n`,
          `${start}Expect: 100-continue\r\n${length}\r\n\r\n${inner}`,
          `${start}Expect: x\r\n\r\n${inner}`,
          `${start}Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAAA\r\n\r\n${inner}`,
          `${start}Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n${inner}`,
        ];
      }),
      // Many in a row, with names of others.
      inner.repeat(20),
    ];
    // Side by side: the server waits for the rest of some.
    const tries = smuggled.map(async (bytes) => {
      // Whatever of it was taken for a request was one of the sender's.
      assert.doesNotMatch(await raw('alpha', bytes), /BETA|betaname/);
      assert.doesNotMatch(await raw('stranger', bytes), /DATA/);
    });
    await Promise.all(tries);
  });

  test('bad versions, hosts, methods and lines are refused', async (t) => {
    const lines = [
      ...['GET /latest/user-data HTTP/0.9', 'GET /latest/user-data HTTP/2.0', 'GET / HTTP/1.1 x'],
      ...[
        'GET /latest/user-data HTTP/9.9',
        'GET /latest/user-data',
        'GET  /latest/user-data HTTP/1.1',
      ],
      ...[
        'get /latest/user-data HTTP/1.1',
        'G\0T / HTTP/1.1',
        'GET /\0 HTTP/1.1',
        'FOO / HTTP/1.1',
      ],
      ...[
        'PRI * HTTP/2.0\r\n\r\nSM',
        'TRACE / HTTP/1.1',
        'SOURCE / ICE/1.0',
        'GET /\x7f\xff HTTP/1.1',
      ],
      ...['GET / HTTP/1.1\r\nHost: a\r\nHost: b', 'GET / HTTP/1.1\r\nX', 'GET / HTTP/1.1\r\n: x'],
      ...[
        'GET / HTTP/1.1\r\nHost: \0',
        'GET / HTTP/1.1\r\nX: \x01\x02',
        'GET / HTTP/1.1\r\nX y: z',
      ],
      ...[
        '',
        '\r\n\r\n',
        '\0\0\0\0',
        '\x16\x03\x01\x02\x00\x01\x00',
        '{"a":1}',
        'SSH-2.0-x',
        'GET',
      ],
    ];
    for (const line of lines) {
      await t.test(rowName(line), async () => {
        for (const sender of senders) {
          const received = await raw(sender, `${line}\r\nConnection: close\r\n\r\n`);
          assert.ok(statuses(received).length <= 1, `${line}: ${received}`);
        }
      });
    }
    // A rebound web page sends its own name (test/web-pages.test.ts has the rule).
    for (const name of [addresses.beta, 'betaname', 'a'.repeat(5000), '[::1', '', '%']) {
      await t.test(rowName(name), async () => {
        const received = await raw('alpha', request('/latest/user-data', `Host: ${name}`));
        assert.match(received, /^HTTP\/1.1 4(00|21) /);
        assert.doesNotMatch(received, /DATA/);
      });
    }
  });

  test('endless headers are cut off', async (t) => {
    const many = Array.from({ length: 3000 }, (_, index) => `X-${index}: y`);
    for (const headers of [
      [`X: ${'a'.repeat(100_000)}`],
      [`${'X'.repeat(100_000)}: a`],
      [`X-aws-ec2-metadata-token: ${'a'.repeat(20_000)}`],
      [`User-Agent: ${'\x1b[31m'.repeat(10)}`],
      many,
    ]) {
      await t.test(rowName(headers), async () => {
        const received = await raw(
          'alpha',
          request('/latest/user-data', 'Host: localhost', ...headers),
        );
        // The answer may be lost in the reset that ends a connection with unread bytes.
        const [status = 431] = statuses(received);
        assert.ok([400, 401, 431].includes(status), received.slice(0, 300));
      });
    }
    const long = await raw('alpha', request(`/${'a'.repeat(200_000)}`, 'Host: localhost'));
    assert.equal(statuses(long)[0] ?? 431, 431);
  });

  test('a body is neither awaited nor kept, whatever length it announces', async (t) => {
    for (const length of ['1048577', '9999999999']) {
      for (const sender of senders) {
        await t.test(rowName(length, sender), async () => {
          const start = `POST /instance-upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${length}\r\n\r\n`;
          assert.deepEqual(statuses(await raw(sender, `${start}<domain>`)), [401]);
        });
      }
    }
    const put = `PUT /latest/api/token HTTP/1.1\r\nHost: localhost\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\nContent-Length: 9999999999\r\n\r\n`;
    assert.ok((statuses(await raw('alpha', put))[0] ?? 413) < 500);
  });

  test('a userdata_prefix that leads out of its folder, or to nothing, gives nothing', async (t) => {
    const prefixes = [
      ...['../secret', '..', '.', './secret', '/etc/passwd', `${folder}/secret`, 'x/../../secret'],
      ...['..%2fsecret', '%2e%2e/secret', 'userdata', '~/x', '$HOME', 'betaname/', 'no-such-file'],
      ...['.hidden', './betaname', '.git/config'],
    ];
    for (const prefix of prefixes) {
      await t.test(rowName(prefix), async () => {
        const xml = xmlOf('alpha', { userdata_prefix: prefix });
        assert.equal((await daemon.upload(xml)).status, 200);
        for (const path of ['/latest/user-data', '/openstack/latest/user_data']) {
          const { status, text } = await attack('alpha', path);
          assert.deepEqual([status, text], [404, 'not found\n']);
        }
        const seed = await attack('alpha', '/nocloud/user-data');
        assert.deepEqual([seed.status, seed.text], [200, '']);
        assert.doesNotMatch((await attack('alpha', '/latest/')).text, /user-data/);
      });
    }
    assert.equal((await daemon.upload(xmlOf('alpha'))).status, 200);
    assert.match((await attack('alpha', '/latest/user-data')).text, /ALPHA-DATA/);
  });

  test('a userdata_prefix that is a link out of the folder gives an error without details', async () => {
    assert.equal((await daemon.upload(xmlOf('alpha', { userdata_prefix: 'link' }))).status, 200);
    for (const path of ['/latest/user-data', '/openstack/latest/user_data', '/nocloud/user-data']) {
      const { status, text } = await daemon.ask(path, { from: addresses.alpha });
      assert.deepEqual([status, text], [500, 'internal error, see the log\n']);
    }
    await daemon.printed(
      `ERROR ${folder}/userdata/link: the link points to ${folder}/secret, outside `,
    );
    assert.equal((await daemon.upload(xmlOf('alpha'))).status, 200);
  });

  // ---- at random ----

  const names = ['alphaname', 'betaname', macs.beta, uuids.beta];
  const requests = hostileRequests([...names, ...Object.values(addresses), host]);

  test('property: no path, header and method gets another guest’s data or a 5xx', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...senders),
        requests.path,
        requests.headers,
        requests.method,
        async (sender, path, headers, verb) => {
          const { expect, ...others } = headers;
          void expect;
          await attack(sender, path, others, verb);
        },
      ),
      { numRuns: 1500 },
    );
  });

  test('property: no bytes at all get another guest’s data or a 5xx', async () => {
    // Many side by side, since each may have to be waited for.
    const batches = fc.sample(fc.array(requests.bytes, { minLength: 40, maxLength: 40 }), 12);
    for (const batch of batches) {
      await Promise.all(batch.map((bytes, index) => raw(senders[index % 3] ?? 'alpha', bytes)));
    }
  });

  test('after all this the server still serves, has logged no error and stops cleanly', async () => {
    for (const name of ['alpha', 'beta'] as const) {
      const { text } = await daemon.ask('/latest/user-data', { from: addresses[name] });
      assert.equal(text, `#!/bin/sh\necho ${name.toUpperCase()}-DATA\n`);
    }
    const lines = daemon.output().trimEnd().split('\n');
    // One line each, with nothing in it that a terminal would obey.
    for (const line of lines) {
      // The link out of the folder is the only error.
      if (line.includes(`ERROR ${folder}/userdata/link: `)) continue;
      assert.match(line, /^\d{4}-\d\d-\d\dT[\d:.]+Z (INFO |WARN ) [^\0-\x1f\x7f-\x9f]*$/);
    }
    assert.equal(await daemon.stop(), 0);
  });
});
