import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import type { BootRecord, InstanceDetails, RenderedDocument } from '../src/control/api.js';
import { listenOnSocket } from '../src/control/socket.js';
import { atEnd, temporaryFolder } from './support/cleanup.js';
import { listenWhileFull } from './support/control-socket.js';
import { ask, closing, eventually, type RequestOptions, sendThenRead } from './support/daemon.js';
import { missing } from './support/parts.js';
import { rowName } from './support/rows.js';
import { blankBoot, domainXml, mac, uuid } from './support/samples.js';
import { type Setup, type Site, startSite } from './support/site.js';

const address = '127.140.0.1';

const web1 = {
  domain_name: 'web1',
  domain_uuid: '00000000-0000-4000-8000-000000000001',
  domain_metadata: { role: 'front' },
  mds_mac: '52:54:00:00:00:01',
  mds_ipv4: '127.140.0.8',
  mds_ipv6: null,
  first_seen: 1000.5,
  last_update: 2000.25,
  location: 'host1',
};
/** As Python's first records were: nothing but names. */
const old = { domain_name: 'old one', mds_ipv4: null };

/** The user-data of an instance with the userdata_prefix "gone". */
const absent = {
  file: null,
  found: false,
  reason:
    'mdserver.userdata_dir has no file for the userdata_prefix in the metadata of its domain, "gone"',
  encoding: 'utf-8',
  body: '',
  problem: null,
};

function start(t: TestContext, setup: Setup = {}): Promise<Site> {
  return startSite(t, address, {
    ...setup,
    dnsmasq: 'prefix = vm-\ndomain = example.org\nentry_order = base, domain',
    sections: `[public-keys]
default = ssh-ed25519 AAAA default
[service]
location = host1`,
  });
}

const upload = (body: string | Buffer, headers = {}) => ({ method: 'POST', body, headers });

/** The value with every time of today as the word TIME. */
function timeless(value: unknown): unknown {
  const text = JSON.stringify(value, (_key, item: unknown) =>
    typeof item === 'number' && item > 1_600_000_000 && item < 10_000_000_000 ? 'TIME' : item,
  );
  return JSON.parse(text);
}

/** A program that connects to a unix socket, sends nothing, and prints how that went. */
const knock = `const s = require('net').connect(process.argv[1]);
s.on('connect', () => { console.log('open'); process.exit(); });
s.on('error', (e) => console.log(e.code));`;

function knockAs(socket: string, ...identity: string[]): string {
  const { stdout, stderr } = spawnSync(
    'setpriv',
    [...identity, process.execPath, '-e', knock, socket],
    { encoding: 'utf8', cwd: '/' },
  );
  return stdout.trim() || stderr;
}

describe('the control socket', { concurrency: 4 }, () => {
  // First, since it waits for the daemon's own time limits while the others run.
  test('slow clients delay nobody, and are disconnected', async (t) => {
    const { json, socket } = await start(t, { records: [web1] });
    const closed = ['', 'GET /instances HTTP/1.1\r\nhost: x\r\n', 'G'].map((start) => {
      const client = connect(socket);
      const closed = closing(client);
      client.on('data', () => undefined);
      if (start !== '') client.write(start);
      return closed;
    });
    assert.deepEqual(await json('/instances'), { status: 200, body: [summary1] });
    await Promise.all(closed);
  });

  // ---- who may open it ----

  test('the socket can be opened by its owner and its group, and by nobody else', {
    skip: missing('netns', 'setpriv'),
  }, async (t) => {
    // A group of its own, and a umask that would let everybody in.
    const site = await start(t, {
      start: (command, args) =>
        spawn(
          'setpriv',
          [
            '--regid',
            '12345',
            '--clear-groups',
            'sh',
            '-c',
            'umask 0; exec "$@"',
            'sh',
            command,
            ...args,
          ],
          { stdio: ['ignore', 'pipe', 'pipe'] },
        ),
    });
    chmodSync(site.folder, 0o755);
    const { mode, gid } = statSync(site.socket);
    assert.deepEqual(
      { mode: (mode & 0o7777).toString(8), gid, isSocket: lstatSync(site.socket).isSocket() },
      { mode: '660', gid: 12345, isSocket: true },
    );
    const nobody = ['--reuid', '65534', '--regid', '65534'];
    assert.equal(knockAs(site.socket, ...nobody, '--clear-groups'), 'EACCES');
    assert.equal(knockAs(site.socket, ...nobody, '--groups', '12345'), 'open');
    assert.equal(knockAs(site.socket, '--clear-groups'), 'open');
  });

  // ---- what may be in its place ----

  test('a socket that a killed daemon left behind is replaced', async (t) => {
    const folder = temporaryFolder(t);
    const socket = join(folder, 'control.sock');
    const first = await start(t, { socket });
    first.daemon.process.kill('SIGKILL');
    await once(first.daemon.process, 'exit');
    assert.ok(lstatSync(socket).isSocket());
    assert.equal(
      spawnSync(process.execPath, ['-e', knock, socket], { encoding: 'utf8' }).stdout.trim(),
      'ECONNREFUSED',
    );

    const second = await start(t, { socket, records: [web1] });
    const { body } = await second.json('/instances');
    assert.deepEqual((body as object[]).length, 1);
  });

  test('a running daemon keeps its socket: a second one runs without', async (t) => {
    const first = await start(t, { records: [web1] });
    const second = await start(t, { socket: first.socket });
    assert.ok(
      second.daemon
        .output()
        .includes(`mdserverctl is not served: another mdserver uses ${first.socket}`),
    );
    assert.equal((await second.daemon.ask('/')).status, 200);
    assert.equal(await second.daemon.stop(), 0);
    // The first one's is still there, and still the first one's.
    const { status, body } = await first.json('/instances');
    assert.equal(status, 200);
    assert.equal((body as object[]).length, 1);
  });

  test('a socket whose owner is too busy to take a connection is not taken from it', {
    skip: missing('python'),
  }, async (t) => {
    const folder = temporaryFolder(t);
    const path = join(folder, 'control.sock');
    await listenWhileFull(t, path);
    const before = statSync(path).ino;
    const server = createServer();
    atEnd(t, () => server.close());
    await assert.rejects(listenOnSocket(server, path), {
      message: `another mdserver uses ${path}`,
    });
    assert.equal(statSync(path).ino, before);
  });

  for (const [what, put] of [
    ['a regular file', (path: string) => writeFileSync(path, 'precious')],
    ['a folder', (path: string) => mkdirSync(path)],
    ['a link that leads nowhere', (path: string) => symlinkSync('/nonexistent', path)],
  ] as const) {
    test(`${what} at the socket's path is left alone, and metadata is served`, async (t) => {
      const folder = temporaryFolder(t);
      const socket = join(folder, 'control.sock');
      put(socket);
      const before = lstatSync(socket);
      const { daemon } = await start(t, { socket });
      assert.ok(
        daemon.output().includes(`mdserverctl is not served: ${socket} exists and is not a socket`),
      );
      assert.equal((await daemon.ask('/')).status, 200);
      assert.equal(await daemon.stop(), 0);
      const now = lstatSync(socket);
      assert.deepEqual([now.ino, now.mode, now.size], [before.ino, before.mode, before.size]);
    });
  }

  test('a socket that cannot be created is logged, and metadata is served', async (t) => {
    const folder = temporaryFolder(t);
    // Longer than the kernel takes (unix(7)).
    const socket = join(folder, 'x'.repeat(120));
    const { daemon } = await start(t, { socket });
    assert.match(
      daemon.output(),
      /mdserverctl is not served: \/\S+x is too long for a socket: at most 107 bytes/,
    );
    assert.deepEqual(readdirSync(folder), []);
    assert.equal((await daemon.ask('/')).status, 200);
  });

  // ---- its routes ----

  const summary1 = {
    name: 'web1',
    uuid: web1.domain_uuid,
    mac: web1.mds_mac,
    ipv4: web1.mds_ipv4,
    ipv6: null,
    location: 'host1',
    hostname: 'web1.example.org',
    metadata: { role: 'front' },
    first_seen: 1000.5,
    last_update: 2000.25,
    last_boot: null,
    left_network: null,
    datasource: null,
  };
  const summaryOld = {
    name: 'old one',
    uuid: null,
    mac: null,
    ipv4: null,
    ipv6: null,
    location: null,
    hostname: 'old-one.example.org',
    metadata: {},
    first_seen: null,
    last_update: null,
    last_boot: null,
    left_network: null,
    datasource: null,
  };
  const keys1 = {
    at: 5.5,
    hostname: 'web1',
    fqdn: null,
    keys: ['ssh-ed25519 AAAAAAAAAAAAAAAAAAAA'],
  };
  const details1 = {
    hardware: { vcpus: 2, memoryKib: 1048576, architecture: 'x86_64' },
    hostKeys: [keys1],
  };

  test('GET /instances and /instances/NAME answer with everything known', async (t) => {
    const { json, ask } = await start(t, {
      records: [web1, old],
      details: { [web1.domain_uuid]: details1 },
    });
    assert.deepEqual(await json('/instances'), { status: 200, body: [summary1, summaryOld] });
    assert.deepEqual(await json('/instances/web1'), {
      status: 200,
      body: {
        ...summary1,
        public_keys: ['default'],
        warnings: [],
        no_userdata: null,
        hardware: { vcpus: 2, memory_kib: 1048576, architecture: 'x86_64' },
        smbios: null,
        instance_id: 'i-127.140.0.8',
        dns_names: ['web1', 'vm-web1.example.org'],
        boots: [],
        host_keys: [keys1],
        password: null,
      },
    });
    assert.deepEqual(await json('/instances/old%20one'), {
      status: 200,
      body: {
        ...summaryOld,
        public_keys: ['default'],
        warnings: [],
        no_userdata: null,
        hardware: { vcpus: null, memory_kib: null, architecture: null },
        smbios: null,
        instance_id: 'i-old one',
        dns_names: ['old-one', 'vm-old-one.example.org'],
        boots: [],
        host_keys: [],
        password: null,
      },
    });
    assert.match((await ask('/instances')).headers['content-type'] ?? '', /^application\/json/);
  });

  test("a boot record runs from the hook to the release, with the guest's requests", async (t) => {
    const { json, ask, daemon } = await start(t, {
      userdata: { vm7: '#cloud-config\n' },
      mdserver: 'default_template =',
    });
    const answer = await ask(
      '/instance-upload',
      upload(domainXml(7), { 'x-libvirt-operation': 'prepare', accept: 'application/json' }),
    );
    assert.equal(answer.status, 200);
    const { mds_ipv4: from } = JSON.parse(answer.text) as { mds_ipv4: string };
    const boot = async () => {
      const { body } = await json('/instances/vm7');
      return timeless((body as InstanceDetails).boots) as BootRecord[];
    };
    const fresh = { ...blankBoot, started: 'TIME' };
    assert.deepEqual(await boot(), [fresh]);

    const headers = { 'user-agent': 'Cloud-Init/22.4.2' };
    const token = await daemon.ask('/latest/api/token', {
      from,
      method: 'PUT',
      headers: { ...headers, 'x-aws-ec2-metadata-token-ttl-seconds': '60' },
    });
    const withToken = { ...headers, 'x-aws-ec2-metadata-token': token.text };
    await daemon.ask('/latest/meta-data/nothing', { from, headers: withToken });
    await daemon.ask('/latest/user-data', { from, headers: withToken });
    await daemon.ask('/latest/', { from, headers: { 'x-aws-ec2-metadata-token': 'forged' } });
    const asked = {
      ...fresh,
      outcome: 'configured',
      requests: 4,
      first_request: 'TIME',
      last_request: 'TIME',
      errors: ['404 /latest/meta-data/nothing', '401 /latest/'],
      user_agents: ['Cloud-Init/22.4.2'],
      kinds: ['ec2'],
      tokens: { given: 1, used: 2, refused: 1 },
    };
    const [seen] = await boot();
    const { file } = seen?.userdata ?? {};
    assert.match(String(file), /\/userdata\/vm7$/);
    assert.deepEqual(seen, { ...asked, userdata: { at: 'TIME', status: 200, file, bytes: 14 } });

    const release = { kind: 'released', name: 'vm7' };
    const event = (body: unknown) =>
      json('/events', {
        method: 'POST',
        body: JSON.stringify(body),
        headers: { 'content-type': 'application/json' },
      });
    assert.deepEqual(await event(release), { status: 200, body: {} });
    assert.equal((await boot())[0]?.ended, 'TIME');
    // A guest that is not ours: libvirt's hook reports every one.
    assert.deepEqual(await event({ ...release, name: 'other' }), { status: 200, body: {} });

    await ask('/instance-upload', upload(domainXml(7), { 'x-libvirt-operation': 'reconnect' }));
    assert.deepEqual((await boot())[0], { ...fresh, by: 'reconnect' });
    // An upload by hand is no boot, one that names another operation neither.
    await ask('/instance-upload', upload(domainXml(7)));
    await ask('/instance-upload', upload(domainXml(7), { 'x-libvirt-operation': 'started' }));
    assert.equal((await boot()).length, 2);
    const { body } = await json('/instances');
    assert.deepEqual(timeless((body as InstanceDetails[])[0]?.last_boot), {
      started: 'TIME',
      ended: null,
      outcome: 'started',
    });
  });

  /** What the hook posts when libvirt has released a guest. */
  const released = (about: object): RequestOptions => ({
    method: 'POST',
    body: JSON.stringify({ kind: 'released', ...about }),
    headers: { 'content-type': 'application/json' },
  });
  const prepare = { 'x-libvirt-operation': 'prepare' };

  test('a start that failed leaves no record behind that was not there before', async (t) => {
    const { ask, json } = await start(t);
    const put = async (number: number, operation?: string) => {
      const headers = operation === undefined ? {} : { 'x-libvirt-operation': operation };
      assert.equal((await ask('/instance-upload', upload(domainXml(number), headers))).status, 200);
    };
    const names = async () =>
      ((await json('/instances')).body as InstanceDetails[]).map(({ name }) => name);
    const boots = async (name: string) =>
      ((await json(`/instances/${name}`)).body as InstanceDetails).boots.map(
        ({ by, outcome }) => `${by} ${outcome}`,
      );
    const fail = (number: number) =>
      ask('/events', released({ name: `vm${number}`, uuid: uuid(number), failed: true }));
    // Known by an upload by hand; by a start that went well; made by this start; by a restored state.
    await put(1);
    await put(1, 'prepare');
    await put(2, 'prepare');
    await ask('/events', released({ name: 'vm2', uuid: uuid(2) }));
    await put(2, 'prepare');
    await put(3, 'prepare');
    await put(4, 'restore');
    await put(4, 'prepare');
    await put(5, 'prepare');
    for (const number of [1, 2, 3, 4]) assert.equal((await fail(number)).status, 200);
    assert.deepEqual(await names(), ['vm1', 'vm2', 'vm5']);
    assert.deepEqual(await boots('vm1'), ['prepare start-failed']);
    assert.deepEqual(await boots('vm2'), ['prepare start-failed', 'prepare ended']);
    // Again, of a boot that has ended, and of another domain that had the name.
    await fail(2);
    await ask('/events', released({ name: 'vm5', uuid: uuid(9), failed: true }));
    assert.deepEqual(await names(), ['vm1', 'vm2', 'vm5']);
    assert.deepEqual(await boots('vm5'), ['prepare started']);
    const { last_boot } = (await json('/instances/vm1')).body as InstanceDetails;
    assert.deepEqual(timeless(last_boot), {
      started: 'TIME',
      ended: 'TIME',
      outcome: 'start-failed',
    });
  });

  test('an address is given to another guest only when the first one is gone, as far as anybody says', async (t) => {
    for (const [what, before, query, after] of [
      ['it runs', prepare, '', 503],
      ['nobody saw it start', {}, '', 503],
      ['it runs, and the caller knows that it does not', prepare, '?guest=gone', 200],
      ['it has stopped', { ...prepare, stopped: 'yes' }, '', 200],
    ] as const) {
      await t.test(what, async (t) => {
        const { ask } = await start(t, { prefix: 30 });
        const { stopped, ...headers } = { stopped: '', ...before };
        await ask('/instance-upload', upload(domainXml(1), headers));
        if (stopped) await ask('/events', released({ name: 'vm1', uuid: uuid(1) }));
        assert.equal((await ask(`/instances/vm1${query}`, { method: 'DELETE' })).status, 200);
        assert.equal((await ask('/instance-upload', upload(domainXml(2)))).status, after);
      });
    }
    await t.test('the caller says something else', async (t) => {
      const { json } = await start(t, { records: [web1] });
      assert.deepEqual(await json('/instances/web1?guest=x', { method: 'DELETE' }), {
        status: 400,
        body: { error: 'guest can only be "gone"' },
      });
    });
  });

  const portXml = (number: number, changes: { name?: string; network?: string } = {}) =>
    `<hookData><network><name>${changes.network ?? 'mds'}</name></network><networkport>
       <owner><name>${changes.name ?? `vm${number}`}</name><uuid>${uuid(number)}</uuid></owner>
       <mac address='${mac(number)}'/></networkport></hookData>`;

  test('a port makes an instance of a domain that was never uploaded, and changes none that is known', async (t) => {
    const { ask, json, daemon } = await start(t, { records: [web1] });
    const before = (await json('/instances/web1')).body;
    assert.equal((await ask('/ports', upload(portXml(1, { name: 'web1' })))).text, '');
    assert.deepEqual((await json('/instances/web1')).body, before);

    for (const type of ['text/xml', 'application/x-www-form-urlencoded', undefined]) {
      const headers = type === undefined ? {} : { 'content-type': type };
      const { status, text } = await ask('/ports', upload(portXml(7), headers));
      assert.deepEqual({ status, text }, { status: 200, text: '' });
    }
    const made = (await json('/instances/vm7')).body as InstanceDetails;
    assert.deepEqual(timeless({ ...made, ipv4: null, instance_id: null }), {
      ...summary1,
      name: 'vm7',
      uuid: uuid(7),
      mac: mac(7),
      ipv4: null,
      hostname: 'vm7.example.org',
      first_seen: 'TIME',
      last_update: null,
      metadata: {},
      public_keys: ['default'],
      warnings: [],
      no_userdata: null,
      hardware: { vcpus: null, memory_kib: null, architecture: null },
      smbios: null,
      instance_id: null,
      dns_names: ['vm7', 'vm-vm7.example.org'],
      boots: [],
      host_keys: [],
      password: null,
    });
    const from = made.ipv4 ?? '';
    assert.equal((await daemon.ask('/latest/meta-data/hostname', { from })).text, 'vm7');
    await ask('/instance-upload', upload(domainXml(7, { metadata: { role: 'web' } })));
    const whole = (await json('/instances/vm7')).body as InstanceDetails;
    assert.deepEqual(
      [whole.ipv4, whole.metadata, whole.hardware.vcpus, whole.first_seen],
      [from, { role: 'web' }, 1, made.first_seen],
    );

    for (const [body, status, text] of [
      [portXml(8, { network: 'default' }), 422, /not on the network "mds"$/],
      [portXml(8, { name: 'vm7' }), 409, /has its name or MAC: upload the domain/],
      [domainXml(8), 400, /^the root element is <domain>/],
      ['', 400, /^the body is empty/],
    ] as const) {
      const answer = await ask('/ports', upload(body));
      assert.equal(answer.status, status);
      assert.match(answer.text.trimEnd(), text);
    }
    assert.deepEqual(
      ((await json('/instances')).body as InstanceDetails[]).map(({ name }) => name),
      ['web1', 'vm7'],
    );
    // Guests cannot say such things, nor can anybody over TCP.
    assert.equal((await daemon.ask('/ports', { method: 'POST', body: portXml(8) })).status, 404);
  });

  test('a known domain that has left the network is named: once in the log, and in its record', async (t) => {
    const site = await start(t, { records: [web1] });
    const { ask, json, daemon } = site;
    const left = () =>
      daemon
        .output()
        .split('\n')
        .filter((line) => line.includes('has left the network'));
    const without = domainXml(1, { name: 'web1', network: 'default' });
    const since = async ({ json }: Pick<Site, 'json'>) =>
      ((await json('/instances/web1')).body as InstanceDetails).left_network;
    assert.equal(await since({ json }), null);
    for (const _ of [1, 2, 3]) {
      assert.equal((await ask('/instance-upload', upload(without, prepare))).status, 422);
    }
    const at = await since({ json });
    assert.ok((at ?? 0) > 1_600_000_000);
    assert.equal(left().length, 1);
    assert.match(
      left()[0] ?? '',
      /web1 \(uuid .*\) has left the network: the domain "web1" has no interface on the network "mds" or the bridge "lo"\. Its record stays: .*mdserverctl sync --prune/,
    );
    // One that was never known is none.
    await ask('/instance-upload', upload(domainXml(5, { network: 'default' })));
    assert.equal(left().length, 1);

    const again = await site.restart();
    assert.equal(await since(again), at, 'after a restart');
    await again.ask('/instance-upload', upload(domainXml(1, { name: 'web1' })));
    assert.equal(await since(again), null);
  });

  test('an upload that changes the uuid, MAC or name of a running guest is a warning with both', async (t) => {
    const { ask, json, daemon } = await start(t);
    /** Uploads, and gives the warnings about it: the line that every upload has comes after them. */
    const put = async (number: number, changes: Parameters<typeof domainXml>[1], by?: string) => {
      const start = daemon.output().length;
      const since = () => daemon.output().slice(start).split('\n');
      const headers = by === undefined ? {} : { 'x-libvirt-operation': by };
      const { status } = await ask('/instance-upload', upload(domainXml(number, changes), headers));
      assert.equal(status, 200);
      await eventually('it is logged', () =>
        since().some((line) => / has the address /.test(line)),
      );
      return since().flatMap((line) => line.match(/an upload changed .*/) ?? []);
    };
    const changed = 'an upload changed an instance whose guest runs:';

    assert.deepEqual(await put(1, {}, 'prepare'), []);
    assert.deepEqual(await put(1, {}, 'reconnect'), []);
    assert.deepEqual(await put(1, { metadata: { userdata_prefix: 'x' } }), []);
    const { body } = await json('/instances/vm1');
    const { ipv4 } = body as { ipv4: string };
    const shown = (name: string, uuidNumber: number, macNumber: number) =>
      `${name} (uuid ${uuid(uuidNumber)}, MAC ${mac(macNumber)}, address ${ipv4})`;
    assert.deepEqual(await put(1, { mac: mac(2) }), [
      `${changed} ${shown('vm1', 1, 1)} is now ${shown('vm1', 1, 2)}`,
    ]);
    assert.deepEqual(await put(1, { name: 'vm2', mac: mac(2) }), [
      `${changed} ${shown('vm1', 1, 2)} is now ${shown('vm2', 1, 2)}`,
    ]);
    assert.deepEqual(await put(3, { name: 'vm2' }), [
      `${changed} ${shown('vm2', 1, 2)} is now ${shown('vm2', 3, 3)}`,
    ]);
    // Of the new uuid no guest has been seen, and one that has stopped may change.
    assert.deepEqual(await put(4, { name: 'vm2' }, 'prepare'), []);
    await ask('/events', {
      method: 'POST',
      body: JSON.stringify({ kind: 'released', name: 'vm2' }),
      headers: { 'content-type': 'application/json' },
    });
    assert.deepEqual(await put(5, { name: 'vm2' }, 'prepare'), []);
  });

  test('an upload on the socket answers as on TCP', async (t) => {
    const { ask, daemon } = await start(t);
    for (const [body, status] of [
      [domainXml(1), 200],
      ['<domain/>', 400],
      ['', 400],
      [domainXml(2).replace("network='mds'", "network='other'"), 422],
    ] as const) {
      await t.test(rowName(body), async () => {
        const overTcp = await daemon.upload(body);
        const overSocket = await ask('/instance-upload', upload(body));
        assert.deepEqual(
          [overSocket.status, overSocket.text, overSocket.headers['content-type']],
          [status, overTcp.text, overTcp.headers['content-type']],
        );
        assert.equal(overTcp.status, status);
      });
    }
  });

  test('an address is explained: whose it is, and when it was last turned away', async (t) => {
    const { json, daemon } = await start(t, { records: [web1] });
    const nobody = { instance: null, mac: null, mac_instance: null, last_refused: null };
    assert.deepEqual(await json('/addresses/127.140.0.8'), {
      status: 200,
      body: { ...nobody, address: '127.140.0.8', instance: 'web1' },
    });
    assert.deepEqual(await json('/addresses/127.140.0.9'), {
      status: 200,
      body: { ...nobody, address: '127.140.0.9' },
    });
    assert.equal((await daemon.ask('/latest/', { from: '127.140.0.9' })).status, 404);
    const { body } = await json('/addresses/127.140.0.9');
    assert.deepEqual(timeless(body), { ...nobody, address: '127.140.0.9', last_refused: 'TIME' });
    for (const bad of [
      'x',
      '1.2.3',
      '127.0.0.1%2f8',
      '%2e%2e',
      '-j',
      'fe80::1%25eth0',
      '%00',
      '1.2.3.4;id',
    ]) {
      await t.test(rowName(bad), async () => {
        assert.deepEqual(await json(`/addresses/${bad}`), {
          status: 400,
          body: { error: 'not an IP address' },
        });
      });
    }
  });

  test('an IPv6 address is looked up in its short form', { skip: missing('ip') }, async (t) => {
    const { json } = await start(t, { records: [web1] });
    const nobody = { instance: null, mac: null, mac_instance: null, last_refused: null };
    assert.deepEqual(await json('/addresses/fd00::0001'), {
      status: 200,
      body: { ...nobody, address: 'fd00::1' },
    });
  });

  // ---- removal ----

  test('a removed instance is gone from everywhere, its address is free, its tokens are worth nothing', async (t) => {
    // One address: whoever comes next has to wait for it.
    const site = await start(t, { prefix: 30 });
    const { json, ask, daemon, folder } = site;
    assert.equal(
      (await ask('/instance-upload', upload(domainXml(1), { 'x-libvirt-operation': 'prepare' })))
        .status,
      200,
    );
    const from = '127.140.0.2';
    const token = await daemon.ask('/latest/api/token', {
      from,
      method: 'PUT',
      headers: { 'x-aws-ec2-metadata-token-ttl-seconds': '60' },
    });
    assert.equal(token.status, 200);
    const headers = { 'x-aws-ec2-metadata-token': token.text };
    assert.equal((await daemon.ask('/latest/', { from, headers })).status, 200);
    assert.equal((await ask('/instance-upload', upload(domainXml(2)))).status, 503);

    const removed = await json('/instances/vm1', { method: 'DELETE' });
    assert.deepEqual(timeless(removed), {
      status: 200,
      body: {
        ...summary1,
        metadata: {},
        name: 'vm1',
        ipv4: from,
        hostname: 'vm1.example.org',
        first_seen: 'TIME',
        last_update: 'TIME',
        last_boot: { started: 'TIME', ended: null, outcome: 'asking' },
        datasource: 'none',
      },
    });
    const gone = { status: 404, body: { error: 'there is no instance vm1' } };
    assert.deepEqual(await json('/instances/vm1'), gone);
    assert.deepEqual(await json('/instances/vm1', { method: 'DELETE' }), gone);
    assert.deepEqual(await json('/instances'), { status: 200, body: [] });
    assert.equal(readFileSync(site.database, 'utf8'), '[]');
    const details = JSON.parse(readFileSync(join(folder, 'db.details.json'), 'utf8'));
    assert.deepEqual(timeless(details), {
      resting: [{ address: from, since: 'TIME', name: 'vm1', uuid: uuid(1), isGone: false }],
    });
    assert.equal(readFileSync(join(folder, 'dnsmasq', 'dhcp', 'mds.dhcp-hosts'), 'utf8'), '');
    assert.equal(readFileSync(join(folder, 'dnsmasq', 'dns', 'mds.dns-hosts'), 'utf8'), '');
    assert.equal((await daemon.ask('/latest/', { from, headers })).status, 404);

    // The guest may still run, until libvirt says that it does not.
    assert.equal((await ask('/instance-upload', upload(domainXml(2)))).status, 503);
    await json('/events', {
      method: 'POST',
      body: JSON.stringify({ kind: 'released', name: 'vm1', uuid: uuid(1) }),
      headers: { 'content-type': 'application/json' },
    });
    const next = await ask(
      '/instance-upload',
      upload(domainXml(2), { accept: 'application/json' }),
    );
    assert.equal((JSON.parse(next.text) as { mds_ipv4: string }).mds_ipv4, from);
    assert.equal((await daemon.ask('/latest/', { from, headers })).status, 401);
    assert.equal((await daemon.ask('/latest/', { from })).status, 200);
    // Nothing of the first one comes back with its name.
    await json('/instances/vm2?guest=gone', { method: 'DELETE' });
    await ask('/instance-upload', upload(domainXml(1)));
    const { body } = await json('/instances/vm1');
    assert.deepEqual((body as InstanceDetails).boots, []);
  });

  test('when two clients remove the same instance at once, one gets 404', async (t) => {
    const { json } = await start(t, { records: [web1, old] });
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => json('/instances/web1', { method: 'DELETE' })),
    );
    const byStatus = answers.map(({ status }) => status).sort();
    assert.deepEqual(byStatus, [200, ...Array<number>(7).fill(404)]);
    assert.deepEqual(await json('/instances'), { status: 200, body: [summaryOld] });
  });

  test('a removal that cannot be stored is answered 500, and the instance stays', async (t) => {
    const { json, folder, database, daemon } = await start(t, { records: [web1] });
    const before = readFileSync(database);
    rmSync(join(folder, 'dnsmasq', 'dns'), { recursive: true });
    writeFileSync(join(folder, 'dnsmasq', 'dns'), 'in the way');
    const { status, body } = await json('/instances/web1', { method: 'DELETE' });
    assert.equal(status, 500);
    assert.match((body as { error: string }).error, /^nothing was stored: ENOTDIR[^\n]*$/);
    assert.deepEqual(await json('/instances/web1').then((answer) => answer.status), 200);
    assert.deepEqual(readFileSync(database), before);
    assert.equal((await daemon.ask('/latest/', { from: web1.mds_ipv4 })).status, 200);
  });

  // ---- rendering ----

  const template =
    "#cloud-config\nhostname: {{hostname}}\nrole: {{instance.metadata.role ?? 'none'}}\n";
  const binary = Buffer.from([0x1f, 0x8b, 0xff, 0x00, 0x80]);

  test('a rendered document is what the guest gets, byte for byte, with the file it came from', async (t) => {
    const records = [
      web1,
      {
        ...web1,
        domain_name: 'plain',
        domain_uuid: '00000000-0000-4000-8000-000000000002',
        mds_mac: '52:54:00:00:00:02',
        mds_ipv4: '127.140.0.9',
      },
      {
        ...web1,
        domain_name: 'packed',
        domain_uuid: '00000000-0000-4000-8000-000000000003',
        mds_mac: '52:54:00:00:00:03',
        mds_ipv4: '127.140.0.10',
      },
      {
        ...web1,
        domain_name: 'none',
        domain_metadata: { userdata_prefix: 'gone' },
        domain_uuid: '00000000-0000-4000-8000-000000000004',
        mds_mac: '52:54:00:00:00:04',
        mds_ipv4: '127.140.0.11',
      },
    ];
    const { json, daemon, folder } = await start(t, {
      records,
      userdata: { 'web1.yaml': template, packed: binary },
      mdserver: 'network_config = yes',
    });
    const file = (name: string) => join(folder, 'userdata', name);
    const userdata = async (name: string) => json(`/instances/${name}/user-data`);
    assert.deepEqual(await userdata('web1'), {
      status: 200,
      body: {
        file: file('web1.yaml'),
        found: true,
        reason: null,
        encoding: 'utf-8',
        body: '#cloud-config\nhostname: web1\nrole: front\n',
        problem: null,
      },
    });
    assert.deepEqual(await userdata('packed'), {
      status: 200,
      body: {
        file: file('packed'),
        found: true,
        reason: null,
        encoding: 'base64',
        body: binary.toString('base64'),
        problem: null,
      },
    });
    assert.deepEqual(await userdata('none'), {
      status: 200,
      body: absent,
    });
    for (const { domain_name: name, mds_ipv4: from } of records) {
      for (const [document, path] of [
        ['user-data', '/latest/user-data'],
        ['user-data', '/nocloud/user-data'],
        ['meta-data', '/nocloud/meta-data'],
        ['vendor-data', '/nocloud/vendor-data'],
        ['network-config', '/nocloud/network-config'],
      ] as const) {
        await t.test(`${name}, ${path}`, async () => {
          const { status, body } = await json(`/instances/${name}/${document}`);
          assert.equal(status, 200);
          const { encoding, body: text } = body as RenderedDocument;
          const served = await daemon.ask(path, { from });
          const rendered = Buffer.from(text, encoding === 'base64' ? 'base64' : 'utf8');
          const expected = served.status === 404 ? Buffer.alloc(0) : served.body;
          assert.deepEqual(rendered, expected);
        });
      }
    }
    const tree = ((await json('/instances/web1/tree')).body as RenderedDocument).body;
    assert.deepEqual(await json('/instances/web1/tree'), {
      status: 200,
      body: { file: null, found: true, reason: null, encoding: 'utf-8', body: tree, problem: null },
    });
    const lines = tree.split('\n');
    for (const line of [
      'meta-data/hostname: web1',
      'meta-data/local-hostname: web1.example.org',
      'meta-data/instance-id: i-127.140.0.8',
      'meta-data/tags/instance/role: front',
      'user-data: (41 bytes)',
    ]) {
      assert.ok(lines.includes(line), `${line} is not in ${tree}`);
    }
  });

  test('rendering the XML of an instance that does not exist shows what it would get, and changes nothing', async (t) => {
    const { json, folder, database, daemon } = await start(t, {
      records: [web1],
      details: { [web1.domain_uuid]: details1 },
      userdata: { 'web1.yaml': template, 'new.yaml': template },
    });
    const files = [
      database,
      join(folder, 'db.details.json'),
      join(folder, 'dnsmasq', 'dhcp', 'mds.dhcp-hosts'),
      join(folder, 'dnsmasq', 'dns', 'mds.dns-hosts'),
    ];
    const state = () =>
      files.map((path) => [
        path,
        readFileSync(path, 'utf8'),
        statSync(path).ino,
        statSync(path).mtimeMs,
      ]);
    const before = [state(), (await json('/instances')).body, (await json('/instances/web1')).body];

    const render = (document: string, body: string, headers = {}) =>
      json(`/documents/${document}`, upload(body, headers));
    const rendered = {
      status: 200,
      body: {
        file: join(folder, 'userdata', 'new.yaml'),
        found: true,
        reason: null,
        encoding: 'utf-8',
        body: '#cloud-config\nhostname: new\nrole: none\n',
        problem: null,
      },
    };
    // With any content type, as for uploads.
    for (const type of [
      undefined,
      'application/xml',
      'text/plain',
      'application/json',
      'xml',
      'application/x-www-form-urlencoded',
    ]) {
      await t.test(`sent as ${type ?? 'no type'}`, async () => {
        const headers = type === undefined ? {} : { 'content-type': type };
        assert.deepEqual(
          await render('user-data', domainXml(99, { name: 'new' }), headers),
          rendered,
        );
      });
    }
    // A domain with the name, the uuid or the MAC of one that is there.
    for (const xml of [
      domainXml(98, { name: 'web1' }),
      domainXml(1, { name: 'new' }),
      domainXml(1, { name: 'web1' }),
    ]) {
      for (const document of ['user-data', 'meta-data', 'vendor-data', 'network-config', 'tree']) {
        assert.equal((await render(document, xml)).status, 200);
      }
    }
    const own = await render('meta-data', domainXml(1, { name: 'web1' }));
    assert.match((own.body as RenderedDocument).body, /^instance-id: "i-127\.140\.0\.8"\n/);
    const missingFile = await render(
      'user-data',
      domainXml(99, { name: 'new', metadata: { userdata_prefix: 'gone' } }),
    );
    assert.deepEqual(missingFile.body, absent);

    assert.deepEqual(
      [state(), (await json('/instances')).body, (await json('/instances/web1')).body],
      before,
    );
    assert.equal((await daemon.ask('/latest/', { from: web1.mds_ipv4 })).status, 200);
  });

  test('rendering for a network that is full is answered 503', async (t) => {
    const { json } = await start(t, {
      prefix: 30,
      records: [{ ...web1, mds_ipv4: '127.140.0.2' }],
    });
    assert.deepEqual(await json('/documents/user-data', upload(domainXml(5))), {
      status: 503,
      body: {
        error:
          'no address left in 127.140.0.0/30 for vm5: remove instances or widen dnsmasq.net_prefix',
      },
    });
  });

  test('a template error is answered 422, with its file and line', async (t) => {
    const { json, folder, daemon } = await start(t, {
      records: [web1],
      userdata: {
        web1: '#cloud-config\nx: {{nobody}}\n',
        big: '',
        new: 'a\nb\n{{1 +}}\n',
        vendor: '{{nobody}}',
      },
      mdserver: 'vendor_data = @DIR@/userdata/vendor',
    });
    const file = (name: string) => join(folder, 'userdata', name);
    truncateSync(file('big'), 17 * 1024 * 1024);
    const answers = {
      known: await json('/instances/web1/user-data'),
      syntax: await json('/documents/user-data', upload(domainXml(9, { name: 'new' }))),
      big: await json(
        '/documents/user-data',
        upload(domainXml(9, { name: 'x', metadata: { userdata_prefix: 'big' } })),
      ),
    };
    const error = ({ body }: { body: unknown }) => (body as { error: string }).error;
    assert.deepEqual(
      Object.values(answers).map(({ status }) => status),
      [422, 422, 422],
    );
    assert.ok(error(answers.known).startsWith(`${file('web1')}:2: `), error(answers.known));
    assert.ok(error(answers.syntax).startsWith(`${file('new')}:3: `), error(answers.syntax));
    assert.equal(
      error(answers.big),
      `${file('big')}: is too long: 17825792 bytes, the limit is 16777216`,
    );
    for (const answer of Object.values(answers)) {
      assert.deepEqual(Object.keys(answer.body as object), ['error']);
      assert.doesNotMatch(error(answer), /\n/);
    }
    // For the guest it stays without a word.
    const served = await daemon.ask('/latest/user-data', { from: web1.mds_ipv4 });
    assert.deepEqual([served.status, served.text], [500, 'internal error, see the log\n']);
    const { boots } = (await json('/instances/web1')).body as InstanceDetails;
    assert.deepEqual(
      boots.map(({ userdata }) => timeless(userdata)),
      [{ at: 'TIME', status: 500, file: file('web1'), bytes: 0 }],
    );
    const vendorData = await daemon.ask('/nocloud/vendor-data', { from: web1.mds_ipv4 });
    assert.equal(vendorData.status, 500);
    const [boot] = ((await json('/instances/web1')).body as InstanceDetails).boots;
    assert.deepEqual(boot?.errors, [
      `500 /latest/user-data (${file('web1')})`,
      `500 /nocloud/vendor-data (${file('vendor')})`,
    ]);
    assert.match(
      daemon.output(),
      new RegExp(` web1 GET /nocloud/vendor-data 500 -: cannot render ${file('vendor')}$`, 'm'),
    );
  });

  // ---- bodies that are too large ----

  test('a body that is too large gets its 413 while it is sent, and the log has a line of it', async (t) => {
    const { socket, daemon } = await start(t);
    const size = 5 * 1024 * 1024;
    const error = `the body is too large: it has ${size} bytes, and at most 1048576 are allowed`;
    for (const path of ['/instance-upload', '/ports', '/documents/user-data', '/events']) {
      await t.test(path, async () => {
        const head = `POST ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: ${size}\r\n`;
        const answer = await sendThenRead(connect(socket), `${head}\r\n${' '.repeat(size)}`);
        assert.match(answer, /^HTTP\/1\.1 413 /);
        assert.deepEqual(JSON.parse(answer.split('\r\n\r\n')[1] ?? ''), { error });
        assert.ok(daemon.output().includes(`WARN  refused POST ${path}: ${error}\n`));
      });
    }
  });

  // ---- bad input ----

  test('bad input is refused in one line of JSON, and nothing comes of it', async (t) => {
    const { json, ask, database, daemon } = await start(t, { records: [web1] });
    const before = readFileSync(database, 'utf8');
    const event = (body: string | Buffer, type = 'application/json') => ({
      method: 'POST',
      body,
      headers: { 'content-type': type },
    });
    // Refused by its content-length alone: a client that goes on sending is disconnected.
    const large = { method: 'POST', headers: { 'content-length': String(1024 * 1024 + 1) } };
    const notAnEvent = /^expected JSON such as \{"kind": "released", "name": "web1"\}$/;
    const noDocument = /^there is no document secrets, only user-data, /;
    type Case = [path: string, asking: RequestOptions, status: number, error: RegExp];
    const cases: Case[] = [
      ['/events', event('{"kind":"released",'), 400, /JSON/],
      ['/events', event('{kind}'), 400, /JSON/],
      ['/events', event(''), 400, /empty/],
      ...[
        'null',
        '[]',
        '"released"',
        '{}',
        '{"kind":"released"}',
        '{"kind":"released","name":5}',
        '{"kind":"released","name":null}',
        '{"kind":"released","name":["web1"]}',
        '{"kind":"killed","name":"web1"}',
        '{"kind":1,"name":"web1"}',
      ].map((body): Case => ['/events', event(body), 400, notAnEvent]),
      ['/events', event('{"__proto__":{"kind":"released"},"name":"web1"}'), 400, /JSON/],
      ['/events', event('{"kind":"released","name":"web1"}', 'text/plain'), 400, notAnEvent],
      ['/events', event('{"kind":"released","name":"web1"}', 'x/y'), 400, notAnEvent],
      ['/events', event(Buffer.from([0xff, 0xfe, 0x00])), 400, /JSON/],
      [
        '/events',
        { ...large, headers: { ...large.headers, 'content-type': 'application/json' } },
        413,
        /^the body is too large: it has 1048577 bytes, and at most 1048576 are allowed$/,
      ],
      ['/events', { method: 'POST' }, 400, notAnEvent],
      ['/instance-upload', large, 413, /too large/],
      ['/documents/user-data', large, 413, /too large/],
      ['/documents/user-data', upload(''), 400, /the body is empty/],
      [
        '/documents/user-data',
        upload('{"name":"web1"}', { 'content-type': 'application/json' }),
        400,
        /./,
      ],
      ['/documents/user-data', upload('<domain>'), 400, /./],
      ['/documents/user-data', upload('<!DOCTYPE x><domain/>'), 400, /DOCTYPE/],
      ['/documents/user-data', upload(domainXml(5).replace("'mds'", "'else'")), 422, /./],
      ['/documents/secrets', upload(domainXml(5)), 400, noDocument],
      ['/documents/', upload(domainXml(5)), 400, /./],
      ['/instances/web1/secrets', {}, 400, noDocument],
      ['/instances/nobody/user-data', {}, 404, /^there is no instance nobody$/],
      ['/instances/nobody', {}, 404, /^there is no instance nobody$/],
      ['/instances/__proto__', {}, 404, /^there is no instance __proto__$/],
      ['/instances/constructor', { method: 'DELETE' }, 404, /^there is no instance constructor$/],
      ['/instances/', {}, 404, /^there is no instance $/],
      ['/instances/..', {}, 404, /^there is no instance \.\.$/],
      ['/instances/%2e%2e', {}, 404, /^there is no instance \.\.$/],
      [
        '/instances/..%2f..%2fetc%2fpasswd',
        {},
        404,
        /^there is no instance \.\.\/\.\.\/etc\/passwd$/,
      ],
      ['/instances/web1%2fuser-data', {}, 404, /^there is no instance web1\/user-data$/],
      ['/instances/../instances/web1', {}, 404, /./],
      ['/instances/web1/user-data/', {}, 404, /^unknown request: GET /],
      ['/instances/WEB1', {}, 404, /^there is no instance WEB1$/],
      ['/instances/web1%00', {}, 404, /^there is no instance web1/],
      ['/instances/%0a%1b[2J', {}, 404, /^there is no instance/],
      ['/instances/%ff', {}, 400, /./],
      ['/instances/%', {}, 400, /./],
      [`/instances/${'x'.repeat(256)}`, {}, 404, /^there is no instance x+$/],
      [`/instances/${'x'.repeat(10_000)}`, {}, 404, /^there is no instance x+$/],
      [
        '/instances',
        { method: 'POST', body: '{}', headers: { 'content-type': 'application/json' } },
        404,
        /^unknown request: POST \/instances$/,
      ],
      ['/instances', { method: 'DELETE' }, 404, /^unknown request: DELETE \/instances$/],
      ['/instances/web1', { method: 'PUT' }, 404, /^unknown request: PUT /],
      ['/instances/web1', { method: 'PATCH' }, 404, /^unknown request: PATCH /],
      ['/instances/web1', { method: 'PROPFIND' }, 404, /^unknown request: PROPFIND /],
      ['/events', {}, 404, /^unknown request: GET \/events$/],
      ['/', {}, 404, /^unknown request: GET \/$/],
      ['/latest/user-data', {}, 404, /^unknown request: GET /],
      ['/phone-home', { method: 'POST' }, 404, /^unknown request: POST /],
      ['/service/configuration', {}, 404, /^unknown request: GET /],
    ];
    for (const [path, asking, status, error] of cases) {
      await t.test(`${asking.method ?? 'GET'} ${rowName(path, asking.body)}`, async () => {
        const where = `${asking.method ?? 'GET'} ${path.slice(0, 80)} ${String(asking.body ?? '').slice(0, 80)}`;
        const answer = await ask(path, asking);
        assert.equal(answer.status, status, `${where}: ${answer.text}`);
        if (path === '/instance-upload') return;
        const body = JSON.parse(answer.text) as { error: string };
        assert.deepEqual(Object.keys(body), ['error'], where);
        assert.match(body.error, error, where);
        assert.doesNotMatch(body.error, /\n/, where);
      });
    }
    assert.equal(readFileSync(database, 'utf8'), before);
    assert.deepEqual(await json('/instances'), { status: 200, body: [summary1] });
    // None of it is a failure of the daemon's own.
    assert.doesNotMatch(daemon.output(), /on the control socket failed/);
  });

  test('input that is not HTTP is refused and does no harm', async (t) => {
    const { json, socket } = await start(t, { records: [web1] });
    for (const bytes of [
      'FOO /instances HTTP/1.1\r\nhost: x\r\n\r\n',
      'hello\r\n\r\n',
      '\0\0\0\0',
      `GET /instances HTTP/1.1\r\nhost: x\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`,
      'POST /events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
      'POST /events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n',
      'GET /instances HTTP/1.1\r\n\r\n',
    ]) {
      await t.test(rowName(bytes), async () => {
        const client = connect(socket);
        let answer = '';
        client.on('data', (chunk) => (answer += chunk));
        const closed = closing(client);
        client.end(bytes);
        await closed;
        assert.match(answer, /^HTTP\/1\.1 4/, bytes.slice(0, 60));
      });
    }
    assert.deepEqual(await json('/instances'), { status: 200, body: [summary1] });
  });

  test('any name that an upload may have can be asked for, rendered and removed', async (t) => {
    const { json, ask } = await start(t);
    const names = [
      'web server_1',
      'naïve-ü',
      '日本語',
      '🦆',
      'a%2fb',
      '%2e%2e',
      '%',
      '...',
      '-rf',
      'a?b#c',
      'a&b<c',
      'a\'b"c',
      '\\',
      '__proto__',
      'constructor',
      'x'.repeat(255),
      'ü'.repeat(127),
      '日'.repeat(85),
    ];
    let number = 0;
    for (const name of names) {
      assert.equal(
        (await ask('/instance-upload', upload(domainXml(++number, { name })))).status,
        200,
        name,
      );
    }
    const listed = (await json('/instances')).body as InstanceDetails[];
    assert.deepEqual(
      listed.map(({ name }) => name),
      names,
    );
    for (const name of names) {
      const path = `/instances/${encodeURIComponent(name)}`;
      assert.equal(((await json(path)).body as InstanceDetails).name, name);
      const rendered = await json(`${path}/meta-data`);
      assert.equal(rendered.status, 200);
      assert.deepEqual(
        await json('/events', {
          method: 'POST',
          body: JSON.stringify({ kind: 'released', name }),
          headers: { 'content-type': 'application/json' },
        }),
        { status: 200, body: {} },
      );
      assert.equal(((await json(path, { method: 'DELETE' })).body as InstanceDetails).name, name);
    }
    assert.deepEqual(await json('/instances'), { status: 200, body: [] });
  });

  // ---- uploads over TCP ----

  test('upload_over_tcp = no closes TCP to uploads, the socket takes them, and a reload opens it again', async (t) => {
    const { ask, daemon, folder } = await start(t, { mdserver: 'upload_over_tcp = no' });
    const refused = await daemon.upload(domainXml(1));
    assert.deepEqual(
      [refused.status, refused.text],
      [401, 'uploads are accepted on the control socket only (mdserver.upload_over_tcp = no)\n'],
    );
    assert.equal((await ask('/instance-upload', upload(domainXml(1)))).status, 200);
    const file = join(folder, 'mdserver.conf');
    writeFileSync(file, readFileSync(file, 'utf8').replace('upload_over_tcp = no', ''));
    daemon.process.kill('SIGHUP');
    await daemon.printed('read the configuration again');
    assert.equal((await daemon.upload(domainXml(2))).status, 200);
  });

  // ---- its end ----

  test('SIGTERM finishes requests in progress, disconnects the rest and removes the socket', async (t) => {
    const { daemon, socket, database } = await start(t);
    const body = domainXml(3);
    const client = connect(socket);
    let answer = '';
    client.on('data', (chunk) => (answer += chunk));
    client.write(
      `POST /instance-upload HTTP/1.1\r\nhost: x\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n`,
    );
    client.write(body.slice(0, 50));
    // These two never say what they want.
    const idlers = ['', 'POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n{'].map(
      (start) => {
        const idler = connect(socket);
        const closed = closing(idler);
        if (start !== '') idler.write(start);
        return closed;
      },
    );
    assert.equal((await ask({ socketPath: socket }, '/instances')).status, 200);

    const ended = daemon.stop();
    await daemon.printed('SIGTERM: mdserver is stopping');
    const closed = closing(client);
    client.write(body.slice(50));
    await closed;
    assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
    assert.match(answer, /\r\nconnection: close\r\n/i);
    assert.equal(await ended, 0);
    await Promise.all(idlers);
    assert.equal(existsSync(socket), false);
    assert.match(readFileSync(database, 'utf8'), /"domain_name": "vm3"/);
  });

  // ---- size ----

  test('10,000 instances are listed, one is found, one is removed', async (t) => {
    const records = Array.from({ length: 10_000 }, (_, index) => ({
      ...web1,
      domain_name: `vm${index}`,
      domain_uuid: uuid(index),
      mds_mac: mac(index),
      mds_ipv4: `127.140.${Math.floor(index / 250) + 1}.${(index % 250) + 1}`,
    }));
    const { json } = await start(t, { records });
    const names = async () =>
      ((await json('/instances')).body as InstanceDetails[]).map(({ name }) => name);
    assert.deepEqual(
      await names(),
      records.map((record) => record.domain_name),
    );
    assert.equal(
      ((await json('/instances/vm9999')).body as InstanceDetails).ipv4,
      '127.140.40.250',
    );
    assert.equal((await json('/instances/vm5000', { method: 'DELETE' })).status, 200);
    assert.equal((await names()).length, 9_999);
    assert.equal((await json('/instances/vm5000')).status, 404);
  });
});
