import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { createServer as createSocketServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { before, describe, it, type TestContext } from 'node:test';
import type { BootRecord, InstanceDetails, InstanceSummary } from '../src/control/api.js';
import {
  begin,
  call,
  complaint,
  domain,
  listen,
  lost,
  noSpool,
  ownerXml,
  portXml,
  receiver,
  silent,
  uploadUrl,
} from './fixtures/hook/as-libvirt.js';
import { installedHook, layPackage, nowhere } from './fixtures/hook/installed.js';
import { suiteScope, temporaryFolder } from './support/cleanup.js';
import { listenWhileFull } from './support/control-socket.js';
import { eventually } from './support/daemon.js';
import { missing } from './support/parts.js';
import { domainXml, uuid } from './support/samples.js';
import { type Site, startSite } from './support/site.js';

const folder = temporaryFolder(suiteScope());
let packageRoot = '';
/** The hook as system-integration.sh installs it; each test fills in its own socket and port. */
let installed = '';

const install = (name: string, configuration: string) =>
  installedHook(packageRoot, join(folder, name), configuration);

before(() => {
  chmodSync(folder, 0o755);
  packageRoot = layPackage(folder);
  installed = install('plain', nowhere);
});

let count = 0;
/** A new folder that other users may enter. */
function place(): string {
  count += 1;
  const path = join(folder, `place-${count}`);
  mkdirSync(path, { mode: 0o755 });
  return path;
}

function hookFor(socket: string, port: number): string {
  const text = installed
    .replace("'/nonexistent/control.sock'", `'${socket}'`)
    .replace('127.0.0.1:65535', `127.0.0.1:${port}`);
  assert.ok(text.includes(`'${socket}'`) && text.includes(`127.0.0.1:${port}`));
  const path = join(place(), 'qemu');
  writeFileSync(path, text, { mode: 0o755 });
  chmodSync(path, 0o755);
  return path;
}

/** A server on a Unix socket and one on TCP, as mdserver usually has, and a hook for both. */
async function bothWays(t: TestContext, answer?: (response: ServerResponse) => void) {
  const path = join(place(), 'control.sock');
  const socket = await receiver(t, path, answer);
  const tcp = await receiver(t, undefined);
  return {
    socket: socket.received,
    tcp: tcp.received,
    path,
    port: tcp.port,
    hook: hookFor(path, tcp.port),
  };
}

const release = ['web', 'release', 'end', '-'];
describe('the hook and the control socket', { concurrency: 4 }, () => {
  it('is installed with the socket of the configuration', () => {
    const socketOf = (text: string) => /^const controlSocket = '(.*)';$/m.exec(text)?.[1];
    assert.equal(socketOf(install('default', '')), '/var/run/mdserver/control.sock');
    assert.equal(
      socketOf(install('run-dir', '[dnsmasq]\nrun_dir = /run/mds\n')),
      '/run/mds/control.sock',
    );
    assert.equal(
      socketOf(
        install(
          'own',
          '[mdserver]\ncontrol_socket = /srv/mds.sock\n[dnsmasq]\nrun_dir = /run/mds\n',
        ),
      ),
      '/srv/mds.sock',
    );
  });

  for (const operation of ['prepare', 'migrate', 'restore', 'reconnect', 'attach']) {
    it(`posts the domain at "${operation} begin", byte for byte, with the operation, and prints nothing`, async (t) => {
      const { socket, tcp, hook } = await bothWays(t);
      assert.deepEqual(await call([hook, 'web', operation, 'begin', '-'], domain), silent);
      assert.deepEqual(socket, [
        {
          line: 'POST /instance-upload',
          headers: {
            'content-type': 'application/xml',
            'content-length': String(domain.length),
            'x-libvirt-operation': operation,
            connection: 'close',
          },
          body: domain,
        },
      ]);
      assert.deepEqual(tcp, []);
    });
  }

  it('posts a domain larger than the buffers of a pipe or a socket', async (t) => {
    const { socket, hook } = await bothWays(t);
    const large = Buffer.alloc(1024 * 1024, 'x');
    assert.deepEqual(await call([hook, ...begin], large), silent);
    assert.ok(socket[0]?.body.equals(large));
  });

  for (const args of [
    ['web', 'start', 'begin', '-'],
    ['web', 'started', 'begin', '-'],
    ['web', 'stopped', 'end', '-'],
    ['web', 'release', 'begin', '-'],
    ['web', 'prepare', 'end', '-'],
    ['web', 'release'],
    [],
  ]) {
    it(`posts nothing at "${args.join(' ')}"`, async (t) => {
      const { socket, tcp, hook } = await bothWays(t);
      assert.deepEqual(await call([hook, ...args], domain), silent);
      assert.deepEqual([...socket, ...tcp], []);
    });
  }

  // ---- without a usable socket ----

  const absent: [string, (path: string) => void | Promise<void>][] = [
    ['does not exist', () => undefined],
    ['is in a folder that does not exist', (path) => rmSync(join(path, '..'), { recursive: true })],
    [
      'is below a file',
      (path) => {
        rmSync(join(path, '..'), { recursive: true });
        writeFileSync(join(path, '..'), 'x');
      },
    ],
    ['is a regular file', (path) => writeFileSync(path, 'x')],
    [
      'was left behind by a killed mdserver',
      async (path) => {
        const program = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`;
        await once(spawn(process.execPath, ['-e', program, path]), 'exit');
        assert.ok(existsSync(path));
      },
    ],
  ];
  for (const [what, prepare] of absent) {
    it(`posts over TCP when the socket ${what}`, async (t) => {
      const path = join(place(), 'control.sock');
      await prepare(path);
      const { received, port } = await receiver(t, undefined);
      assert.deepEqual(await call([hookFor(path, port), ...begin], domain), silent);
      assert.equal(received.length, 1);
      assert.deepEqual(
        [received[0]?.line, received[0]?.headers['x-libvirt-operation'], received[0]?.body],
        ['POST /instance-upload', 'prepare', domain],
      );
    });
  }

  it('posts over TCP when it may not use the socket', {
    skip: missing('netns', 'setpriv'),
  }, async (t) => {
    const { socket, tcp, path, hook } = await bothWays(t);
    chmodSync(path, 0o660);
    const nobody = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'];
    assert.deepEqual(await call([hook, ...begin], domain, ...nobody), silent);
    assert.deepEqual([socket.length, tcp.length], [0, 1]);
    assert.deepEqual(tcp[0]?.body, domain);
    assert.deepEqual(await call([hook, ...release], domain, ...nobody), silent);
    assert.deepEqual([socket.length, tcp.length], [0, 1]);
  });

  it('reports the answer over TCP when the socket does not exist', async (t) => {
    const { port } = await receiver(t, undefined, (response) =>
      response.writeHead(401).end('no\n'),
    );
    assert.deepEqual(
      await call([hookFor('/nonexistent/x.sock', port), ...begin], domain),
      lost(uploadUrl(port), 'mdserver answered 401 no'),
    );
  });

  it('posts the domain to no other host that has the address', async () => {
    const path = join(place(), 'qemu');
    const elsewhere = 'http://192.0.2.1:80/instance-upload';
    writeFileSync(path, installed.replace('127.0.0.1:65535', '192.0.2.1:80'), { mode: 0o755 });
    assert.deepEqual(
      await call([path, ...begin], domain),
      lost(elsewhere, 'bind EADDRNOTAVAIL 192.0.2.1'),
    );
  });

  // ---- an answer on the socket is final ----

  it('accepts a 422: the guest is not on the network', async (t) => {
    const { tcp, hook } = await bothWays(t, (response) =>
      response.writeHead(422).end('no interface\n'),
    );
    assert.deepEqual(await call([hook, ...begin], domain), silent);
    assert.deepEqual(tcp, []);
  });

  for (const status of [400, 413, 500, 503]) {
    it(`reports a ${status}, and does not try again over TCP`, async (t) => {
      const { tcp, hook, path } = await bothWays(t, (response) =>
        response.writeHead(status).end('why\n'),
      );
      assert.deepEqual(
        await call([hook, ...begin], domain),
        (status < 500 ? complaint : lost)(path, `mdserver answered ${status} why`),
      );
      assert.deepEqual(tcp, []);
    });
  }

  // ---- an mdserver that hangs ----

  const hanging: [string, (socket: Socket) => void][] = [
    ['never answers', () => undefined],
    ['never reads', (socket) => socket.pause()],
    [
      'sends headers that never end',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\nx: ');
        const trickle = setInterval(() => socket.write('y'), 50);
        socket.on('close', () => clearInterval(trickle));
      },
    ],
  ];
  for (const [what, serve] of hanging) {
    it(`gives up on a socket that ${what}, and reports it only for an upload`, async (t) => {
      const path = join(place(), 'control.sock');
      await listen(t, createSocketServer(serve), path);
      const { received, port } = await receiver(t, undefined);
      const hook = hookFor(path, port);
      const large = Buffer.alloc(1024 * 1024, 'x');
      assert.deepEqual(
        await call([hook, ...begin], large),
        lost(path, 'not finished after 3500 ms'),
      );
      assert.deepEqual(await call([hook, ...release], undefined), silent);
      assert.deepEqual(received, []);
    });
  }

  for (const [what, seconds] of [
    ['tries a socket again whose queue is full, until it takes the upload', 1],
    ['gives up on a socket whose queue stays full, within its limit', 60],
  ] as const) {
    it(what, { skip: missing('python') }, async (t) => {
      const path = join(place(), 'control.sock');
      await listenWhileFull(t, path, seconds);
      const { received, port } = await receiver(t, undefined);
      const hook = hookFor(path, port);
      const expected = seconds === 1 ? silent : lost(path, `connect EAGAIN ${path}`);
      assert.deepEqual(await call([hook, ...begin], domain), expected);
      assert.deepEqual(await call([hook, ...release], domain), silent);
      assert.deepEqual(received, []);
    });
  }

  const broken: [string, string][] = [
    ['hangs up at once', ''],
    ['is no web server', 'SSH-2.0-OpenSSH_9.2\r\n\r\n'],
    ['hangs up within its headers', 'HTTP/1.1 200 OK\r\nx'],
    ['sends more headers than fit', `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(100_000)}`],
    ['changes protocols', 'HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n'],
  ];
  for (const [what, bytes] of broken) {
    it(`exits 0 when the program on the socket ${what}`, async (t) => {
      const path = join(place(), 'control.sock');
      await listen(
        t,
        createSocketServer((socket) => socket.once('data', () => socket.end(bytes))),
        path,
      );
      const { received, port } = await receiver(t, undefined);
      const hook = hookFor(path, port);
      const { code, stdout, stderr } = await call([hook, ...begin], domain);
      assert.deepEqual([code, stdout], [0, '']);
      assert.equal(stderr.split('\n').length, 2, stderr);
      assert.ok(
        stderr.startsWith(`mdserver-hook: web (prepare) was not uploaded to ${path}: `),
        stderr,
      );
      assert.deepEqual(await call([hook, ...release], domain), silent);
      assert.deepEqual(received, []);
    });
  }

  // ---- the release of a guest ----

  for (const name of ['web', 'a "b"\\', 'wéb 日本 🦆', '', '-x', '{"kind":"x"}', '\n']) {
    it(`reports the release of ${JSON.stringify(name)} with the uuid of its XML, and prints nothing`, async (t) => {
      const { socket, tcp, hook } = await bothWays(t);
      const xml = domainXml(1, { name: 'another' });
      assert.deepEqual(await call([hook, name, 'release', 'end', 'shutdown'], xml), silent);
      const body = JSON.stringify({ kind: 'released', name, uuid: uuid(1) });
      assert.deepEqual(socket, [
        {
          line: 'POST /events',
          headers: {
            'content-type': 'application/json',
            'content-length': String(Buffer.byteLength(body)),
            connection: 'close',
          },
          body: Buffer.from(body),
        },
      ]);
      assert.deepEqual(tcp, []);
    });
  }

  // libvirt before 10.5 gives "-" as the reason.
  for (const [reason, failed] of [
    ['-', {}],
    ['destroyed', {}],
    ['crashed', {}],
    ['from snapshot', {}],
    ['failed', { failed: true }],
  ] as const) {
    it(`reports a release for the reason "${reason}"${'failed' in failed ? ' as a failed start' : ''}`, async (t) => {
      const { socket, hook } = await bothWays(t);
      assert.deepEqual(await call([hook, 'web', 'release', 'end', reason], domainXml(1)), silent);
      assert.deepEqual(
        socket.map(({ body }) => JSON.parse(body.toString())),
        [{ kind: 'released', name: 'web', uuid: uuid(1), ...failed }],
      );
    });
  }

  for (const [what, xml] of [
    ['without XML', ''],
    ['with XML that has no uuid', '<domain><name>web</name><uuid/></domain>'],
  ] as const) {
    it(`reports a release ${what} by the name alone`, async (t) => {
      const { socket, hook } = await bothWays(t);
      assert.deepEqual(await call([hook, ...release], xml), silent);
      assert.deepEqual(
        socket.map(({ body }) => JSON.parse(body.toString())),
        [{ kind: 'released', name: 'web' }],
      );
    });
  }

  for (const [what, answer] of [
    ['404', (response: ServerResponse) => response.writeHead(404).end('x')],
    ['500', (response: ServerResponse) => response.writeHead(500).end('x')],
    ['an answer that never ends', (response: ServerResponse) => response.write('x')],
  ] as const) {
    it(`prints nothing when the answer to a release is ${what}`, async (t) => {
      const { hook } = await bothWays(t, answer);
      assert.deepEqual(await call([hook, ...release], domain), silent);
    });
  }

  it('prints nothing and posts nothing over TCP when there is no socket to report a release to', async (t) => {
    const { received, port } = await receiver(t, undefined);
    assert.deepEqual(
      await call([hookFor('/nonexistent/x.sock', port), ...release], domain),
      silent,
    );
    assert.deepEqual(received, []);
  });

  // ---- with mdserver itself ----

  /** A hook for an mdserver that has its state in the folder. */
  function hookOf(own: string, socket: string, server: string): string {
    const text = installed
      .replace("'/nonexistent/control.sock'", `'${socket}'`)
      .replace(`'${noSpool}'`, `'${own}/spool'`)
      .replace('127.0.0.1:65535', server);
    const hook = join(own, 'hook');
    writeFileSync(hook, text, { mode: 0o755 });
    return hook;
  }

  it('begins a boot record at a start and ends it at a release, with TCP closed to uploads', async (t) => {
    const address = '127.144.0.1';
    const {
      daemon,
      folder: own,
      socket,
      json,
    } = await startSite(t, address, {
      mdserver: 'upload_over_tcp = no',
    });
    const hook = hookOf(own, socket, `${address}:${daemon.port}`);
    const xml = domainXml(1, { name: 'web' });
    const boots = async () =>
      ((await json('/instances/web')).body as InstanceDetails).boots.map(
        ({ by, ended: end, outcome }: BootRecord) => [by, end !== null, outcome],
      );
    assert.deepEqual(await call([hook, ...begin], xml), silent);
    assert.deepEqual(await boots(), [['prepare', false, 'started']]);
    assert.deepEqual(await call([hook, 'other', 'release', 'end', '-'], domainXml(2)), silent);
    assert.deepEqual(await boots(), [['prepare', false, 'started']]);
    assert.deepEqual(await call([hook, ...release], xml), silent);
    assert.deepEqual(await boots(), [['prepare', true, 'ended']]);
    assert.deepEqual(await call([hook, 'web', 'reconnect', 'begin', '-'], xml), silent);
    assert.deepEqual(await boots(), [
      ['reconnect', false, 'started'],
      ['prepare', true, 'ended'],
    ]);
    // libvirt runs the hook for guests on other networks, too.
    const elsewhere = xml.replace("'mds'", "'default'");
    assert.deepEqual(await call([hook, ...begin], elsewhere), silent);
    // Without a running mdserver, neither the socket nor TCP works.
    assert.equal(await daemon.stop(), 0);
    const down = await call([hook, ...begin], xml);
    assert.deepEqual([down.code, down.stdout], [0, '']);
    assert.match(
      down.stderr,
      /was not uploaded to http:\/\/127\.144\.0\.1:\d+\/instance-upload: connect ECONNREFUSED .*; kept in /,
    );
    assert.deepEqual(await call([hook, ...release], xml), silent);
  });

  it('reports an XML that is too large for mdserver, and keeps nothing of it', async (t) => {
    const { daemon, folder: own, socket } = await startSite(t, '127.144.2.1');
    const server = `127.144.2.1:${daemon.port}`;
    const xml = `${domainXml(1)}<!--${' '.repeat(3 * 1024 * 1024)}-->`;
    const reason = `mdserver answered 413 the body is too large: it has ${xml.length} bytes, and at most 1048576 are allowed`;
    const hook = hookOf(own, socket, server);
    assert.deepEqual(await call([hook, ...begin], xml), complaint(socket, reason));
    const overTcp = hookOf(own, '/nonexistent/control.sock', server);
    const url = `http://${server}/instance-upload`;
    assert.deepEqual(await call([overTcp, ...begin], xml), complaint(url, reason));
    assert.deepEqual(readdirSync(join(own, 'spool')), []);
  });

  it('tells names apart that differ in blanks, whether mdserver runs or not', async (t) => {
    const site = await startSite(t, '127.144.3.1');
    const hook = hookOf(site.folder, site.socket, `127.144.3.1:${site.daemon.port}`);
    const names = ['sp1', 'sp1 ', ' sp1', 'sp  1'];
    const tell = (index: number, ...operation: string[]) => {
      const name = names[index] ?? '';
      return call([hook, name, ...operation], domainXml(index + 1, { name }));
    };
    const recorded = async ({ json }: Site) =>
      ((await json('/instances')).body as InstanceSummary[])
        .map(({ name, uuid: id }) => [name, id])
        .sort();
    const known = (...which: number[]) =>
      which.map((index) => [names[index], uuid(index + 1)]).sort();
    assert.equal(await site.daemon.stop(), 0);
    for (const index of names.keys()) await tell(index, 'prepare', 'begin', '-');
    assert.equal(readdirSync(join(site.folder, 'spool')).length, names.length);
    const again = await site.restart();
    const spoolIsEmpty = () => readdirSync(join(site.folder, 'spool')).length === 0;
    await eventually('the spool is taken in', spoolIsEmpty);
    assert.deepEqual(await recorded(again), known(0, 1, 2, 3));
    assert.deepEqual(await tell(1, 'release', 'end', 'failed'), silent);
    assert.deepEqual(await recorded(again), known(0, 2, 3));
    assert.deepEqual(await tell(1, 'prepare', 'begin', '-'), silent);
    assert.deepEqual(await recorded(again), known(0, 1, 2, 3));
  });

  it('tells mdserver of what happened while it was down, and of interfaces that came later', async (t) => {
    const site = await startSite(t, '127.144.1.1');
    const { daemon, folder: own, socket } = site;
    const hook = hookOf(own, socket, `127.144.1.1:${daemon.port}`);
    const attached = (number: number) => [
      hook,
      'mds',
      'port-created',
      'begin',
      '-',
      portXml(number, ownerXml(`vm${number}`, number)),
    ];
    const start = (number: number) => [
      hook,
      `vm${number}`,
      'prepare',
      'begin',
      '-',
      domainXml(number, { metadata: { userdata_prefix: 'web' } }),
    ];
    const fail = (number: number) => [
      hook,
      `vm${number}`,
      'release',
      'end',
      'failed',
      domainXml(number),
    ];
    const tell = async (...all: string[][]) => {
      for (const parts of all) {
        const { code, stdout } = await call(parts.slice(0, -1), parts.at(-1));
        assert.deepEqual([code, stdout], [0, '']);
      }
    };
    const recorded = async ({ json }: Site) =>
      ((await json('/instances')).body as InstanceSummary[]).map(({ name }) => name).sort();
    await tell(start(1), attached(1), attached(2), start(3), fail(3));
    assert.deepEqual(await recorded(site), ['vm1', 'vm2']);
    assert.equal(await daemon.stop(), 0);
    await tell(start(4), attached(4), attached(5), start(6), attached(6), fail(6), start(2));
    assert.equal(readdirSync(join(own, 'spool')).length, 4);
    const again = await site.restart();
    const spoolIsEmpty = () => readdirSync(join(own, 'spool')).length === 0;
    await eventually('the spool is taken in', spoolIsEmpty);
    assert.deepEqual(await recorded(again), ['vm1', 'vm2', 'vm4', 'vm5']);
    // The upload of vm4 counts, though its interface was kept after it.
    const { metadata } = (await again.json('/instances/vm4')).body as InstanceDetails;
    assert.deepEqual(metadata, { userdata_prefix: 'web' });
  });
});
