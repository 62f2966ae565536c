import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { webPageRefusal } from '../src/http/web-pages.js';
import { suiteScope, temporaryFolder } from './support/cleanup.js';
import { type Daemon, startDaemon } from './support/daemon.js';
import { rowName } from './support/rows.js';
import { databaseRecord, loopbackConfiguration } from './support/samples.js';
import { startSite } from './support/site.js';

const ours = (host: string) =>
  ['2001:db8::1', '10.122.0.1', 'metadata.example.com', '192.0.2.7'].includes(host);

const taken: [hosts: string[], target?: string][] = [
  [[]],
  ...[
    ...['169.254.169.254', '169.254.169.254:80', '169.254.169.254:8773', '169.254.169.254:'],
    ...['[fd00:ec2::254]', '[fd00:ec2::254]:80', '[FD00:EC2:0::254]', '[fd00:ec2::254%br-mds]'],
    ...[
      '[2001:db8::1]:80',
      '[2001:DB8:0::1%br-mds]',
      '10.122.0.1',
      '[::ffff:10.122.0.1]',
      '169.254.169.254.',
      'localhost',
      'LocalHost.:8080',
    ],
    ...['instance-data', 'instance-data.:8773', 'INSTANCE-DATA'],
    ...['metadata.example.com', 'Metadata.Example.com.:81', '192.0.2.7:9'],
  ].map((host): [string[]] => [[host]]),
  [['localhost'], '/http://rebound.example/'],
  [[], 'http://localhost/'],
  // RFC 9112 3.2.2: the host of the target takes the place of the header.
  [['rebound.example'], 'http://169.254.169.254:80/latest/'],
  [['rebound.example'], 'HTTP://LOCALHOST?x'],
];
for (const [hosts, target = '/'] of taken) {
  test(`a request for ${rowName(hosts, target)} is taken`, () => {
    const rawHeaders = [...hosts.flatMap((host) => ['Host', host]), 'Accept', '*/*'];
    assert.equal(webPageRefusal({ rawHeaders, target }, ours), undefined);
  });
}

const refused: [status: number, hosts: string[], target?: string][] = [
  ...[
    ...['rebound.example', 'rebound.example:80', 'localhost.rebound.example', 'xlocalhost'],
    ...['169.254.169.254.rebound.example', '169.254.169.253', '127.0.0.1'],
    ...['0251.254.169.254', '0xa9fea9fe', '2852039166', '169.254.43518'],
    ...['[::1]', '[fd00:ec2::255]', '[::ffff:10.122.0.2]', 'localhost..', '.'],
    ...['instance-data.ec2.internal', 'example.com', 'com', '__proto__', 'constructor'],
  ].map((host): [number, string[]] => [421, [host]]),
  ...[
    ...[
      '',
      ' ',
      ':80',
      'localhost:http',
      'localhost:800000',
      'localhost:80:80',
      'a b',
      'a@localhost',
    ],
    ...['localhost@a', 'localhost/', 'localhost,rebound.example', 'localhost, localhost', '[::1'],
    ...['fd00:ec2::254', '[localhost]', '[]', '[169.254.169.254]', 'localhost\0', 'lоcalhost'],
    ...[
      'localhost#',
      'localhost?',
      'local%68ost',
      `${'a'.repeat(255)}.b`,
      '[::1]x',
      'http://localhost',
    ],
  ].map((host): [number, string[]] => [400, [host]]),
  [400, ['localhost', 'localhost']],
  [400, ['localhost', 'rebound.example']],
  [400, ['rebound.example', 'localhost']],
  [421, ['localhost'], 'http://rebound.example/latest/'],
  [421, ['localhost'], 'https://rebound.example'],
  [421, ['localhost'], 'ftp://rebound.example/'],
  [421, [], 'http://rebound.example/'],
  [400, ['localhost'], 'http:///latest/'],
  [400, ['localhost'], 'http://localhost@rebound.example/'],
  [400, ['localhost'], 'http://rebound.example\\@localhost/'],
];
for (const [status, hosts, target = '/'] of refused) {
  test(`a request for ${rowName(hosts, target)} is ${status}`, () => {
    const rawHeaders = hosts.flatMap((host) => ['hOST', host]);
    const refusal = webPageRefusal({ rawHeaders, target }, ours);
    assert.equal(refusal?.status, status, JSON.stringify(refusal));
    assert.match(refusal?.reason ?? '', /^[\x20-\x7e]+$/);
  });
}

for (const [name, value] of [
  ['Origin', 'http://rebound.example'],
  ['origin', 'null'],
  ['ORIGIN', ''],
  ['Origin', 'http://169.254.169.254'],
  ['Sec-Fetch-Site', 'none'],
  ['sec-fetch-site', 'cross-site'],
] as const) {
  test(`a request with ${name}: ${value} is 403, whatever its host`, () => {
    for (const host of ['169.254.169.254', 'rebound.example']) {
      const refusal = webPageRefusal(
        { rawHeaders: ['Host', host, name, value], target: '/' },
        ours,
      );
      assert.deepEqual(refusal, {
        status: 403,
        reason: `requests of web pages are refused (${name.toLowerCase()})`,
      });
    }
  });
}

test('on all addresses of the host, a request is for the address that it came to', async (t) => {
  const [one, other] = ['127.146.1.1', '127.146.1.2'];
  const folder = temporaryFolder(t);
  const configuration = loopbackConfiguration(one, folder).replace(one, '0.0.0.0');
  const daemon = await startDaemon(t, folder, configuration, other);
  assert.equal((await daemon.ask('/')).status, 200);
  const refused = await daemon.ask('/', { headers: { host: one } });
  assert.deepEqual(
    [refused.status, refused.text],
    [421, `${one} is not this server (see mdserver.host_names)\n`],
  );
});

describe('a daemon, asked by web pages', () => {
  const scope = suiteScope();
  const host = '127.146.0.1';
  const guest = '127.146.0.11';
  let daemon: Daemon;

  before(async () => {
    ({ daemon } = await startSite(scope, host, {
      records: [databaseRecord(1, { mds_ipv4: guest })],
      mdserver: 'metrics = yes\nhost_names = Prometheus.example.com, 192.0.2.7',
    }));
  });

  const requests: [method: string, path: string, from: string, without: number][] = [
    ['GET', '/', guest, 200],
    ['GET', '/latest/user-data', guest, 200],
    ['HEAD', '/latest/meta-data/', guest, 200],
    ['PUT', '/latest/api/token', guest, 400],
    ['GET', '/nocloud/user-data', guest, 200],
    ['GET', '/openstack/latest/meta_data.json', guest, 200],
    ['POST', '/phone-home', guest, 400],
    ['POST', '/instance-upload', host, 400],
    ['GET', '/service/name', guest, 200],
    ['GET', '/service/configuration', host, 200],
    ['GET', '/metrics', host, 200],
    ['GET', '/health', host, 503],
    ['GET', '/nothing', host, 404],
    ['OPTIONS', '/latest/user-data', guest, 404],
    ['OPTIONS', '/instance-upload', host, 404],
  ];
  for (const [method, path, from, without] of requests) {
    test(`${method} ${path} is 403 with Origin, 421 for another host, and never shared`, async () => {
      const answers = await Promise.all(
        [
          {},
          { origin: 'http://rebound.example' },
          { 'sec-fetch-site': 'cross-site' },
          { host: `rebound.example:${daemon.port}` },
          { host: 'prometheus.EXAMPLE.com' },
        ].map((headers) => daemon.ask(path, { method, from, headers: { ...headers } })),
      );
      assert.deepEqual(
        answers.map(({ status }) => status),
        [without, 403, 403, 421, without],
      );
      for (const { headers } of answers) {
        const sharing = Object.keys(headers).filter((name) => /^access-control-/.test(name));
        assert.deepEqual(sharing, []);
      }
      if (method === 'HEAD') return;
      const texts = answers.slice(1, 4).map(({ headers, text }) => [headers['content-type'], text]);
      assert.deepEqual(texts, [
        ['text/plain', 'requests of web pages are refused (origin)\n'],
        ['text/plain', 'requests of web pages are refused (sec-fetch-site)\n'],
        ['text/plain', 'rebound.example is not this server (see mdserver.host_names)\n'],
      ]);
    });
  }

  test('each refused request is one warning, which says what was refused and why', async () => {
    for (const [mark, headers, reason] of [
      ['mark-one', { host: 'rebound.example' }, '421 .*: rebound.example is not this server'],
      ['mark-two', { origin: 'null' }, '403 .*: requests of web pages are refused \\(origin\\)'],
    ] as const) {
      await daemon.ask(`/latest/${mark}`, { from: guest, headers });
      await daemon.printed(mark);
      const lines = daemon
        .output()
        .split('\n')
        .filter((line) => line.includes(mark));
      assert.equal(lines.length, 1, lines.join('\n'));
      assert.match(lines[0] ?? '', new RegExp(`WARN.* ${guest} - GET /latest/${mark} ${reason}`));
    }
  });
});
