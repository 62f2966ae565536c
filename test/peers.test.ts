import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { endianness } from 'node:os';
import { dirname } from 'node:path';
import { before, describe, type TestContext, test } from 'node:test';
import { type IpAddress, parseIp } from '../src/network.js';
import { peerUid, type TcpEnd, uidInTcpTables } from '../src/peers.js';
import { atEnd, exited, killAtEnd, suiteScope } from './support/cleanup.js';
import { closing, type Daemon, eventually } from './support/daemon.js';
import { missing } from './support/parts.js';
import { domainXml } from './support/samples.js';
import { type Site, startSite } from './support/site.js';

function end(address: string, port: number): TcpEnd {
  return { address: parseIp(address) as IpAddress, port };
}

// ---- the tables' text, as the kernel of a little-endian machine prints it ----

const head =
  '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     \n';
const tail = '1 0000000000000000 20 4 30 10 -1                    \n';

describe('the lines of /proc/net/tcp', { skip: endianness() !== 'LE' && 'big-endian' }, () => {
  const own = end('127.0.0.1', 80);
  const peer = end('127.0.0.1', 0x9c40);
  const line = (local: string, remote: string, state: string, uid: number, inode: number) =>
    `   7: ${local} ${remote} ${state} 00000000:00000000 02:000A7D8C 00000000 ${String(uid).padStart(5)}        0 ${inode} ${tail}`;
  const [ownText, peerText] = ['0100007F:0050', '0100007F:9C40'];
  const ours = line(ownText, peerText, '01', 998, 700);
  const mapped = (text: string) => `0000000000000000FFFF0000${text}`;

  const rows: [what: string, lines: string[], uid: number | undefined][] = [
    ['the line of the peer, not our own', [ours, line(peerText, ownText, '01', 1000, 701)], 1000],
    ['root', [line(peerText, ownText, '01', 0, 701), ours], 0],
    ['a large uid', [line(peerText, ownText, '01', 4294967294, 701)], 4294967294],
    ['no line', [ours], undefined],
    ['an empty table', [], undefined],
    ['a socket that was closed', [ours, line(peerText, ownText, '01', 0, 0)], undefined],
    ['a mapped line', [line(mapped(peerText), mapped(ownText), '01', 1000, 701)], 1000],
    [
      'two lines for one connection',
      [
        line(peerText, ownText, '01', 0, 701),
        line(mapped(peerText), mapped(ownText), '01', 1000, 702),
      ],
      undefined,
    ],
    ['a half-mapped line', [line(mapped(peerText), ownText, '01', 0, 701)], undefined],
    ['another port', [line('0100007F:9C41', ownText, '01', 0, 701)], undefined],
    ['another service', [line(peerText, '0100007F:0051', '01', 0, 701)], undefined],
    ['another address', [line('0200007F:9C40', ownText, '01', 0, 701)], undefined],
    ...['02', '03', '04', '05', '06', '07', '08', '09', '0A', '0B', '0C'].map(
      (state): [string, string[], undefined] => [
        `the state ${state}`,
        [line(peerText, ownText, state, 0, 701)],
        undefined,
      ],
    ),
  ];
  for (const [what, lines, uid] of rows) {
    test(`${what}: ${uid}`, () => {
      assert.equal(uidInTcpTables(head + lines.join(''), own, peer), uid);
    });
  }

  test('tables that have the line twice, or lack it, are read again: three times at most', async () => {
    const root = line(peerText, ownText, '01', 0, 701);
    const socket = {
      ...{ destroyed: false, localAddress: '127.0.0.1', localPort: 80 },
      ...{ remoteAddress: '127.0.0.1', remotePort: 0x9c40 },
    };
    const uidOf = async (...tables: string[]) => {
      const uid = await peerUid(socket, async () => head + tables.shift());
      return [uid, tables.length];
    };
    assert.deepEqual(await uidOf(root, root), [0, 1]);
    assert.deepEqual(await uidOf(root + root, root), [0, 0]);
    assert.deepEqual(await uidOf(ours, root + ours + root, root), [0, 0]);
    assert.deepEqual(await uidOf(ours, ours, ours, root), [undefined, 1]);
  });

  test('an IPv6 address is four words', () => {
    const [local, remote] = [
      'B80D01200000000067452301EFCDAB89:1F90',
      '000080FE000000000000000001000000:0050',
    ];
    const table = `${head}${line(local, remote, '01', 5, 9)}`;
    const found = uidInTcpTables(
      table,
      end('fe80::1', 80),
      end('2001:db8::123:4567:89ab:cdef', 8080),
    );
    assert.equal(found, 5);
  });
});

// ---- real processes ----

const asNobody = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'];

/** A connection of another process, under this uid if it is not ours, to a server of ours. */
async function connected(
  t: TestContext,
  listen: string,
  to: string,
  prefix: readonly string[] = [],
  script = 'socket.on("error", () => {})',
): Promise<{ socket: Socket; child: ChildProcess; server: Server }> {
  const server = createServer({ allowHalfOpen: true }).listen(0, listen);
  atEnd(t, () => server.close());
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  const code = `const socket = require('node:net').connect(${port}, '${to}', () => { ${script} });`;
  const [command = '', ...args] = [...prefix, process.execPath, '-e', code];
  const child = spawn(command, args, { stdio: ['pipe', 'inherit', 'inherit'] });
  killAtEnd(t, child);
  const [socket] = (await once(server, 'connection')) as [Socket];
  socket.on('error', () => undefined);
  atEnd(t, () => socket.destroy());
  return { socket, child, server };
}

const rootOnly = { skip: missing('root', 'setpriv') };

describe('the user at the other end', rootOnly, () => {
  for (const [listen, to] of [
    ['127.147.0.1', '127.147.0.1'],
    ['127.147.0.1', '::ffff:127.147.0.1'],
    ['::1', '::1'],
    ['::', '127.0.0.1'],
    ['::', '::ffff:127.0.0.1'],
    ['::', '::1'],
  ] as const) {
    test(`from ${to} to a server on ${listen}`, async (t) => {
      const root = await connected(t, listen, to);
      assert.equal(await peerUid(root.socket), 0);
      const nobody = await connected(t, listen, to, asNobody);
      assert.equal(await peerUid(nobody.socket), 65534);
    });
  }

  test('of a process that has ended nothing is known, though its line is still there', async (t) => {
    const { socket, child } = await connected(t, '127.147.0.1', '127.147.0.1', asNobody);
    assert.equal(await peerUid(socket), 65534);
    child.kill('SIGKILL');
    await exited(child);
    const port = `:${socket.remotePort?.toString(16).toUpperCase().padStart(4, '0')}`;
    await eventually('its line has no inode', () =>
      readFileSync('/proc/self/net/tcp', 'latin1')
        .split('\n')
        .map((line) => line.trim().split(/ +/))
        .some(([, local, , , , , , , , inode]) => local?.endsWith(port) && inode === '0'),
    );
    assert.equal(await peerUid(socket), undefined);
  });

  test('of a process that has closed its end nothing is known', async (t) => {
    for (const script of ['socket.end()', 'socket.destroy()', 'socket.resetAndDestroy()']) {
      const { socket } = await connected(t, '127.147.0.1', '127.147.0.1', asNobody, script);
      socket.resume();
      const gone = script === 'socket.end()' ? once(socket, 'end') : closing(socket);
      if (script === 'socket.destroy()') await once(socket, 'end');
      else await gone;
      assert.equal(await peerUid(socket), undefined, script);
    }
  });
});

// ---- uploads ----

const host = '127.147.0.1';
const sentence = (who: string) =>
  `uploads over TCP are accepted from root only, not from ${who}: use sudo curl, or mdserverctl upload (as root or in the group mdserver), or set mdserver.upload_from = host\n`;

describe('uploads over TCP', { skip: missing('netns', 'root', 'setpriv', 'curl') }, () => {
  const scope = suiteScope();
  let site: Site;
  let daemon: Daemon;

  before(async () => {
    site = await startSite(scope, host);
    ({ daemon } = site);
  });

  /** Uploads as the seed's users do; what curl prints, then the status. */
  function curl(prefix: readonly string[], number: number, to: string = host): string {
    const [command = '', ...args] = [
      ...prefix,
      ...['curl', '-s', '--noproxy', '*', '-m', '20', '-w', '%{http_code}', '-d', '@-'],
      `http://${to}:${daemon.port}/instance-upload`,
    ];
    return spawnSync(command, args, { input: domainXml(number), encoding: 'utf8' }).stdout;
  }
  const names = async () => {
    const { body } = await site.json('/instances');
    return (body as { name: string }[]).map(({ name }) => name);
  };

  test('root may, another user is told how, and mdserver stores nothing', async () => {
    assert.equal(curl([], 1), '200');
    assert.equal(curl(asNobody, 2), `${sentence('uid 65534')}401`);
    assert.equal(curl(asNobody, 2, `[::ffff:${host}]`), `${sentence('uid 65534')}401`);
    assert.deepEqual(await names(), ['vm1']);
    await daemon.printed(`refused an upload from 127.0.0.1: ${sentence('uid 65534').trim()}`);
  });

  test('a client that closes its end at once is not taken for root', async () => {
    const script = `const net = require('node:net');
      const body = ${JSON.stringify(domainXml(3))};
      const head = 'POST /instance-upload HTTP/1.1\\r\\nHost: ${host}\\r\\nContent-Length: ' + body.length + '\\r\\n\\r\\n';
      for (const close of ['end', 'destroySoon']) {
        const socket = net.connect(${daemon.port}, '${host}', () => { socket.write(head + body); socket[close](); });
        socket.on('error', () => {});
      }`;
    const [command = '', ...args] = [...asNobody, process.execPath, '-e', script];
    for (let round = 0; round < 5; round += 1) assert.equal(spawnSync(command, args).status, 0);
    await eventually('all are refused', () => {
      return daemon.output().split('refused an upload from 127.0.0.1').length > 10;
    });
    assert.deepEqual(await names(), ['vm1']);
  });

  test('upload_from = host takes uploads of every user of the host', async () => {
    ({ daemon } = await site.restart('upload_from = host'));
    assert.equal(curl(asNobody, 4), '200');
    ({ daemon } = await site.restart('upload_from = host\nupload_over_tcp = no'));
    assert.equal(
      curl([], 5),
      'uploads are accepted on the control socket only (mdserver.upload_over_tcp = no)\n401',
    );
  });

  test('the users are known with ProcSubset=pid, as the unit has it', async (t) => {
    const mounted = 'mount -t proc -o subset=pid proc /proc && exec "$@"';
    ({ daemon } = await startSite(t, '127.147.0.3', {
      start: (command, args) =>
        spawn('unshare', ['--mount', 'sh', '-c', mounted, 'sh', command, ...args], {
          stdio: ['ignore', 'pipe', 'pipe'],
        }),
    }));
    const subset = readFileSync(`/proc/${daemon.process.pid}/mountinfo`, 'utf8');
    assert.match(subset, / \/proc .*subset=pid/);
    assert.equal(curl([], 6, '127.147.0.3'), '200');
    assert.equal(curl(asNobody, 7, '127.147.0.3'), `${sentence('uid 65534')}401`);
  });

  test('the user who started the daemon may', async (t) => {
    ({ daemon } = await startSite(t, '127.147.0.2', {
      start: (command, args) => {
        execFileSync('chown', ['-R', '65534', dirname(args.at(-1) ?? '')]);
        const [setpriv = '', ...others] = [...asNobody, command, ...args];
        return spawn(setpriv, others, { stdio: ['ignore', 'pipe', 'pipe'] });
      },
    }));
    assert.equal(curl(asNobody, 6, '127.147.0.2'), '200');
    assert.equal(curl([], 7, '127.147.0.2'), '200');
    const other = ['setpriv', '--reuid', '65533', '--regid', '65533', '--clear-groups'];
    assert.equal(curl(other, 8, '127.147.0.2'), `${sentence('uid 65533')}401`);
  });
});
