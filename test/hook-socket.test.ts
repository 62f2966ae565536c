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
  ownerXml,
  portXml,
  receiver,
  silent,
} from './fixtures/hook/as-libvirt.js';
import { installedHook, layPackage, nowhere } from './fixtures/hook/installed.js';
import { suiteScope, temporaryFolder } from './support/cleanup.js';
import { listenWhileFull } from './support/control-socket.js';
import { eventually } from './support/daemon.js';
import { missing } from './support/parts.js';
import { domainXml, uuid } from './support/samples.js';
import { type Site, startSite } from './support/site.js';

const folder = temporaryFolder(suiteScope());
/** The hook as system-integration.sh installs it; each test fills in its own socket. */
let installed = '';

before(() => {
  chmodSync(folder, 0o755);
  installed = installedHook(layPackage(folder), join(folder, 'root'));
});

let count = 0;
/** A new folder that other users may enter. */
function place(): string {
  count += 1;
  const path = join(folder, `place-${count}`);
  mkdirSync(path, { mode: 0o755 });
  return path;
}

function hookFor(socket: string): string {
  const text = installed.replace(`'${nowhere.socket}'`, `'${socket}'`);
  assert.ok(text.includes(`'${socket}'`));
  const path = join(place(), 'qemu');
  writeFileSync(path, text, { mode: 0o755 });
  chmodSync(path, 0o755);
  return path;
}

/** A server in place of mdserver, and a hook for it. */
async function server(t: TestContext, answer?: (response: ServerResponse) => void) {
  const path = join(place(), 'control.sock');
  return { received: await receiver(t, path, answer), path, hook: hookFor(path) };
}

const release = ['web', 'release', 'end', '-'];
describe('the hook and the control socket', { concurrency: 4 }, () => {
  for (const operation of ['prepare', 'migrate', 'restore', 'reconnect', 'attach']) {
    it(`posts the domain at "${operation} begin", byte for byte, with the operation, and prints nothing`, async (t) => {
      const { received, hook } = await server(t);
      assert.deepEqual(await call([hook, 'web', operation, 'begin', '-'], domain), silent);
      assert.deepEqual(received, [
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
    });
  }

  it('posts a domain larger than the buffers of a pipe or a socket', async (t) => {
    const { received, hook } = await server(t);
    const large = Buffer.alloc(1024 * 1024, 'x');
    assert.deepEqual(await call([hook, ...begin], large), silent);
    assert.ok(received[0]?.body.equals(large));
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
      const { received, hook } = await server(t);
      assert.deepEqual(await call([hook, ...args], domain), silent);
      assert.deepEqual(received, []);
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
    it(`says why it could not upload when the socket ${what}`, async () => {
      const path = join(place(), 'control.sock');
      await prepare(path);
      const { code, stdout, stderr } = await call([hookFor(path), ...begin], domain);
      assert.deepEqual([code, stdout], [0, '']);
      assert.match(
        stderr,
        new RegExp(
          `^mdserver-hook: web \\(prepare\\) was not uploaded to ${path}: connect E[A-Z]+ ${path}; not kept: .*\n$`,
        ),
      );
    });
  }

  it('says that it may not use the socket', { skip: missing('netns', 'setpriv') }, async (t) => {
    const { received, path, hook } = await server(t);
    chmodSync(path, 0o660);
    const nobody = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'];
    assert.deepEqual(
      await call([hook, ...begin], domain, ...nobody),
      lost(path, `connect EACCES ${path}`),
    );
    assert.deepEqual(await call([hook, ...release], domain, ...nobody), silent);
    assert.deepEqual(received, []);
  });

  // ---- an answer on the socket is final ----

  it('accepts a 422: the guest is not on the network', async (t) => {
    const { hook } = await server(t, (response) => response.writeHead(422).end('no interface\n'));
    assert.deepEqual(await call([hook, ...begin], domain), silent);
  });

  for (const status of [400, 413, 500, 503]) {
    it(`reports a ${status}`, async (t) => {
      const { hook, path } = await server(t, (response) => response.writeHead(status).end('why\n'));
      assert.deepEqual(
        await call([hook, ...begin], domain),
        (status < 500 ? complaint : lost)(path, `mdserver answered ${status} why`),
      );
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
      const hook = hookFor(path);
      const large = Buffer.alloc(1024 * 1024, 'x');
      assert.deepEqual(
        await call([hook, ...begin], large),
        lost(path, 'not finished after 3500 ms'),
      );
      assert.deepEqual(await call([hook, ...release], undefined), silent);
    });
  }

  for (const [what, seconds] of [
    ['tries a socket again whose queue is full, until it takes the upload', 1],
    ['gives up on a socket whose queue stays full, within its limit', 60],
  ] as const) {
    it(what, { skip: missing('python') }, async (t) => {
      const path = join(place(), 'control.sock');
      await listenWhileFull(t, path, seconds);
      const hook = hookFor(path);
      const expected = seconds === 1 ? silent : lost(path, `connect EAGAIN ${path}`);
      assert.deepEqual(await call([hook, ...begin], domain), expected);
      assert.deepEqual(await call([hook, ...release], domain), silent);
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
      const hook = hookFor(path);
      const { code, stdout, stderr } = await call([hook, ...begin], domain);
      assert.deepEqual([code, stdout], [0, '']);
      assert.equal(stderr.split('\n').length, 2, stderr);
      assert.ok(
        stderr.startsWith(`mdserver-hook: web (prepare) was not uploaded to ${path}: `),
        stderr,
      );
      assert.deepEqual(await call([hook, ...release], domain), silent);
    });
  }

  // ---- the release of a guest ----

  for (const name of ['web', 'a "b"\\', 'wéb 日本 🦆', '', '-x', '{"kind":"x"}', '\n']) {
    it(`reports the release of ${JSON.stringify(name)} with the uuid of its XML, and prints nothing`, async (t) => {
      const { received, hook } = await server(t);
      const xml = domainXml(1, { name: 'another' });
      assert.deepEqual(await call([hook, name, 'release', 'end', 'shutdown'], xml), silent);
      const body = JSON.stringify({ kind: 'released', name, uuid: uuid(1) });
      assert.deepEqual(received, [
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
      const { received, hook } = await server(t);
      assert.deepEqual(await call([hook, 'web', 'release', 'end', reason], domainXml(1)), silent);
      assert.deepEqual(
        received.map(({ body }) => JSON.parse(body.toString())),
        [{ kind: 'released', name: 'web', uuid: uuid(1), ...failed }],
      );
    });
  }

  for (const [what, xml] of [
    ['without XML', ''],
    ['with XML that has no uuid', '<domain><name>web</name><uuid/></domain>'],
  ] as const) {
    it(`reports a release ${what} by the name alone`, async (t) => {
      const { received, hook } = await server(t);
      assert.deepEqual(await call([hook, ...release], xml), silent);
      assert.deepEqual(
        received.map(({ body }) => JSON.parse(body.toString())),
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
      const { hook } = await server(t, answer);
      assert.deepEqual(await call([hook, ...release], domain), silent);
    });
  }

  it('prints nothing when there is no socket to report a release to', async () => {
    assert.deepEqual(await call([hookFor('/nonexistent/x.sock'), ...release], domain), silent);
  });

  // ---- with mdserver itself ----

  /** A hook for an mdserver that has its state in the folder. */
  function hookOf({ folder: own, socket }: Pick<Site, 'folder' | 'socket'>): string {
    const text = installed
      .replace(`'${nowhere.socket}'`, `'${socket}'`)
      .replace(`'${nowhere.spool}'`, `'${own}/spool'`);
    const hook = join(own, 'hook');
    writeFileSync(hook, text, { mode: 0o755 });
    return hook;
  }

  it('begins a boot record at a start and ends it at a release, with TCP closed to uploads', async (t) => {
    const site = await startSite(t, '127.144.0.1', { mdserver: 'upload_over_tcp = no' });
    const { daemon, socket, json } = site;
    const hook = hookOf(site);
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
    assert.equal(await daemon.stop(), 0);
    const down = await call([hook, ...begin], xml);
    assert.deepEqual([down.code, down.stdout], [0, '']);
    assert.ok(
      down.stderr.includes(`was not uploaded to ${socket}: connect ENOENT ${socket}; kept in `),
    );
    assert.deepEqual(await call([hook, ...release], xml), silent);
  });

  it('reports an XML that is too large for mdserver, and keeps nothing of it', async (t) => {
    const site = await startSite(t, '127.144.2.1');
    const { folder: own, socket } = site;
    const xml = `${domainXml(1)}<!--${' '.repeat(3 * 1024 * 1024)}-->`;
    const reason = `mdserver answered 413 the body is too large: it has ${xml.length} bytes, and at most 1048576 are allowed`;
    assert.deepEqual(await call([hookOf(site), ...begin], xml), complaint(socket, reason));
    assert.deepEqual(readdirSync(join(own, 'spool')), []);
  });

  it('tells names apart that differ in blanks, whether mdserver runs or not', async (t) => {
    const site = await startSite(t, '127.144.3.1');
    const hook = hookOf(site);
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
    const { daemon, folder: own } = site;
    const hook = hookOf(site);
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
