import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import type { AddressReport, InstanceDetails } from '../src/control/api.js';
import { macInNeighbour } from '../src/neighbours.js';
import type { IpAddress } from '../src/network.js';
import { eventually } from './support/daemon.js';
import { addHost, type Host, type Namespace } from './support/netns.js';
import { missing } from './support/parts.js';
import { rowName } from './support/rows.js';
import { databaseRecord, domainXml, mac } from './support/samples.js';
import { type Site, startSite } from './support/site.js';

// ---- what the kernel says ----

test('a neighbour has a MAC only where its entry is complete and on the bridge', async (t) => {
  const mac = '52:54:00:ab:cd:ef';
  for (const [line, address, expected] of [
    ['10.122.7.8 dev br-mds lladdr 52:54:00:AB:CD:EF REACHABLE ', '10.122.7.8', mac],
    ['10.122.7.8 dev br-mds lladdr 52:54:00:ab:cd:ef STALE', '10.122.7.8', mac],
    ['10.122.7.8 dev br-mds lladdr 52:54:00:ab:cd:ef DELAY', '10.122.7.8', mac],
    ['10.122.7.8 dev br-mds lladdr 52:54:00:ab:cd:ef PROBE', '10.122.7.8', mac],
    ['10.122.7.8 dev br-mds lladdr 52:54:00:ab:cd:ef extern_learn PERMANENT', '10.122.7.8', mac],
    ['fd00:122::8 dev br-mds lladdr 52:54:00:ab:cd:ef router STALE', 'fd00:122::8', mac],
    ['10.122.7.8 dev br-mds lladdr 52:54:00:ab:cd:ef NOARP', '10.122.7.8', undefined],
    ['10.122.7.8 dev br-mds lladdr 52:54:00:ab:cd:ef FAILED', '10.122.7.8', undefined],
    ['10.122.7.8 dev br-mds lladdr 52:54:00:ab:cd:ef', '10.122.7.8', undefined],
    ['10.122.7.8 dev br-mds FAILED', '10.122.7.8', undefined],
    ['10.122.7.8 dev br-mds INCOMPLETE', '10.122.7.8', undefined],
    ['10.122.7.8 dev eth0 lladdr 52:54:00:ab:cd:ef STALE', '10.122.7.8', undefined],
    ['10.122.7.80 dev br-mds lladdr 52:54:00:ab:cd:ef STALE', '10.122.7.8', undefined],
    ['', '10.122.7.8', undefined],
  ] as const) {
    await t.test(rowName(line), () => {
      assert.equal(macInNeighbour(line, address as IpAddress, 'br-mds'), expected);
    });
  }
});

// ---- guests against each other ----

const skip = missing('netns', 'curl', 'busybox');

const metadata = '169.254.169.254';
const metadata6 = 'fd00:ec2::254';

function record(number: number) {
  return databaseRecord(number, {
    domain_name: `web${number}`,
    mds_ipv4: `10.122.7.${number}`,
    mds_ipv6: `fd00:122::${number}`,
  });
}
/** The attacker and its victim. */
const a = record(1);
const b = record(2);

interface GuardedSite extends Site {
  readonly host: Host;
  /** A guest with these addresses, as its DHCP client sets them. */
  readonly addGuest: (of: ReturnType<typeof record>, mac?: string) => Namespace;
  /** How many lines of the log hold all of the texts. */
  readonly logged: (...texts: string[]) => number;
}

async function start(
  t: TestContext,
  checkMac: 'yes' | 'no',
  {
    records = [a, b],
    sandbox = [],
  }: { records?: readonly object[]; sandbox?: readonly string[] } = {},
): Promise<GuardedSite> {
  const host = addHost(t);
  for (const address of [`${metadata6}/128`, 'fd00:122::ffff/64']) {
    host.ip(`address add ${address} dev br-mds nodad`);
  }
  const site = await startSite(t, host, {
    records,
    userdata: { web1: 'secret of web1\n', web2: 'secret of web2\n' },
    mdserver: `listen_address = ${metadata}, ${metadata6}\ncheck_mac = ${checkMac}`,
    dnsmasq: 'net_address6 = fd00:122::',
    start: (command, args) => {
      const [first = command, ...rest] = [...sandbox, command, ...args];
      return host.start(first, rest);
    },
  });
  return {
    ...site,
    host,
    addGuest: (of, mac = of.mds_mac) => {
      const guest = host.addGuest(mac);
      setAddresses(guest, of);
      return guest;
    },
    logged: (...texts) =>
      site.daemon
        .output()
        .split('\n')
        .filter((line) => texts.every((text) => line.includes(text))).length,
  };
}

function setAddresses(guest: Namespace, { mds_ipv4, mds_ipv6 }: ReturnType<typeof record>): void {
  guest.ip(`address add ${mds_ipv4}/16 dev eth0`);
  guest.ip(`address add ${mds_ipv6}/64 dev eth0 nodad`);
  guest.ip(`route replace ${metadata}/32 via 10.122.0.1`);
  guest.ip(`route replace ${metadata6}/128 via fd00:122::ffff`);
}

/** Status and body of what a guest gets from one of its addresses. */
async function ask(
  guest: Namespace,
  from: string,
  path: string,
  ...more: string[]
): Promise<[status: number, body: string]> {
  const server = from.includes(':') ? `[${metadata6}]` : metadata;
  const { stdout, stderr } = await guest.run('curl', [
    '--silent',
    '--show-error',
    '--globoff',
    ...['--max-time', '40', '--interface', from, '--write-out', '\n%{http_code}'],
    ...more,
    `http://${server}${path}`,
  ]);
  const lines = stdout.split('\n');
  const status = Number(lines.pop());
  assert.notEqual(status, 0, stderr);
  return [status, lines.join('\n')];
}

const userdata = '/latest/user-data';
const refused: [number, string] = [404, 'not found\n'];

/** Has the attacker take the victim's addresses, and tell everybody (gratuitous ARP). */
async function takeAddresses(guest: Namespace, victim: ReturnType<typeof record>): Promise<void> {
  setAddresses(guest, victim);
  guest.ip('neigh flush dev eth0');
  const { status, stderr } = await guest.run('busybox', [
    ...['arping', '-U', '-c', '2', '-I', 'eth0', '-s', victim.mds_ipv4, victim.mds_ipv4],
  ]);
  assert.ok(status === 0 || status === 1, stderr);
}

for (const state of ['down', 'up'] as const) {
  test(`without check_mac, a guest that takes the address of one that is ${state} gets the other guest's data`, {
    skip,
  }, async (t) => {
    const { addGuest: add, logged } = await start(t, 'no');
    const attacker = add(a);
    const victim = add(b);
    assert.deepEqual(await ask(victim, b.mds_ipv4, userdata), [200, 'secret of web2\n']);
    assert.deepEqual(await ask(victim, b.mds_ipv6, userdata), [200, 'secret of web2\n']);
    if (state === 'down') victim.ip('link set eth0 down');
    await takeAddresses(attacker, b);
    // This is what check_mac is for: it works against every server that looks at addresses only.
    assert.deepEqual(await ask(attacker, b.mds_ipv4, userdata), [200, 'secret of web2\n']);
    assert.deepEqual(await ask(attacker, b.mds_ipv6, userdata), [200, 'secret of web2\n']);
    assert.equal(logged('WARN'), 0);
  });

  test(`with check_mac, a guest that takes the address of one that is ${state} gets nothing, and the log names both`, {
    skip,
  }, async (t) => {
    const { addGuest: add, logged, json } = await start(t, 'yes');
    const attacker = add(a);
    const victim = add(b);
    assert.deepEqual(await ask(victim, b.mds_ipv4, userdata), [200, 'secret of web2\n']);
    assert.deepEqual(await ask(victim, b.mds_ipv6, userdata), [200, 'secret of web2\n']);
    const boots = async () => ((await json('/instances/web2')).body as InstanceDetails).boots;
    const before = await boots();
    assert.equal(before[0]?.requests, 2);
    if (state === 'down') victim.ip('link set eth0 down');
    await takeAddresses(attacker, b);

    let warnings = 0;
    for (const from of [b.mds_ipv4, b.mds_ipv6]) {
      for (const [path, ...more] of [
        [userdata],
        ['/nocloud/user-data'],
        ['/openstack/latest/user_data'],
        ['/latest/api/token', '-X', 'PUT', '-H', 'x-aws-ec2-metadata-token-ttl-seconds: 60'],
        ['/phone-home', '--data', 'hostname=web2'],
      ] as const) {
        assert.deepEqual(await ask(attacker, from, path, ...more), refused, `${path} from ${from}`);
        warnings += 1;
        // The last line about a request.
        await eventually('it is in the log', () => logged(`${from} - `, `${path} 404`) === 1);
        // One line for one request, and nothing else of it that warns.
        assert.deepEqual(
          [logged('WARN'), logged('WARN', a.mds_mac, b.mds_mac)],
          [warnings, warnings],
        );
      }
    }
    assert.deepEqual(await boots(), before);
    // Under its own address the attacker is an instance as any other.
    assert.deepEqual(await ask(attacker, a.mds_ipv4, userdata), [200, 'secret of web1\n']);
    assert.deepEqual(await ask(attacker, a.mds_ipv6, userdata), [200, 'secret of web1\n']);
    const report = (await json(`/addresses/${b.mds_ipv4}`)).body;
    assert.deepEqual(
      { ...(report as AddressReport), last_refused: null },
      {
        address: b.mds_ipv4,
        instance: 'web2',
        mac: a.mds_mac,
        mac_instance: 'web1',
        last_refused: null,
      },
    );

    // When it has gone, the one whose address it is gets its own again.
    for (const address of [`${b.mds_ipv4}/16`, `${b.mds_ipv6}/64`]) {
      attacker.ip(`address delete ${address} dev eth0`);
    }
    if (state === 'down') {
      victim.ip('link set eth0 up');
      // IPv6 addresses and routes go with the link.
      victim.ip('address flush dev eth0');
      setAddresses(victim, b);
    }
    // What it would do by itself within a minute.
    victim.ip('neigh flush dev eth0');
    for (const from of [b.mds_ipv4, b.mds_ipv6]) {
      assert.deepEqual(await ask(victim, from, userdata), [200, 'secret of web2\n']);
    }
    assert.equal(logged('WARN'), warnings);
    const own = (await json(`/addresses/${b.mds_ipv6}`)).body as AddressReport;
    assert.deepEqual([own.mac, own.mac_instance], [b.mds_mac, 'web2']);
  });
}

// ---- honest guests ----

const secret = (number: number): [number, string] => [200, `secret of web${number}\n`];

async function isServed(guest: Namespace, of: ReturnType<typeof record>, number: number) {
  for (const from of [of.mds_ipv4, of.mds_ipv6]) {
    assert.deepEqual(await ask(guest, from, userdata), secret(number), from);
  }
}

test('with check_mac, a guest that restarts is served, and so is one that is migrated in', {
  skip,
}, async (t) => {
  const { addGuest: add, logged, host } = await start(t, 'yes');
  const guest = add(a);
  await isServed(guest, a, 1);
  guest.ip('link set eth0 down');
  guest.ip('link set eth0 up');
  guest.ip('address flush dev eth0');
  setAddresses(guest, a);
  await isServed(guest, a, 1);
  // The same machine behind another port of the bridge.
  guest.remove();
  await isServed(add(a), a, 1);
  // With entries that are old, and with none.
  const other = add(b);
  await isServed(other, b, 2);
  host.ip('neigh flush dev br-mds');
  await isServed(other, b, 2);
  assert.equal(logged('WARN'), 0);
});

test('with check_mac, a recreated machine is served under its old address and new MAC', {
  skip,
}, async (t) => {
  const { addGuest: add, logged, host, json, ask: askControl } = await start(t, 'yes');
  // With no port that is up the bridge forgets its neighbours.
  add(b);
  const first = add(a);
  await isServed(first, a, 1);
  first.remove();
  await askControl('/events', {
    method: 'POST',
    body: JSON.stringify({ kind: 'released', name: 'web1' }),
    headers: { 'content-type': 'application/json' },
  });
  const anew = 0x77;
  const answer = await askControl('/instance-upload', {
    method: 'POST',
    body: domainXml(anew, { name: 'web1' }),
    headers: { accept: 'application/json' },
  });
  assert.equal((JSON.parse(answer.text) as { mds_ipv4: string }).mds_ipv4, a.mds_ipv4);
  // The host's entries are the old machine's.
  const second = add(a, mac(anew));
  await isServed(second, a, 1);
  second.remove();
  assert.equal(logged('refused'), 0);

  // And if it never asks who the gateway is, so that the host hears nothing of its new MAC: no
  // connection comes about until the host itself has asked who answers for the address.
  const { status } = await host.run('sysctl', [
    '-q',
    '-w',
    'net.ipv4.neigh.br-mds.delay_first_probe_time=1',
  ]);
  assert.equal(status, 0);
  const silent = add({ ...a, mds_ipv6: 'fd00:122::99' }, mac(anew));
  silent.ip('neigh replace 10.122.0.1 lladdr 52:54:00:fe:00:01 dev eth0 nud permanent');
  host.ip(`neigh replace ${a.mds_ipv4} lladdr ${a.mds_mac} dev br-mds nud stale`);
  const known = async () => ((await json(`/addresses/${a.mds_ipv4}`)).body as AddressReport).mac;
  assert.equal(await known(), a.mds_mac);
  assert.deepEqual(await ask(silent, a.mds_ipv4, userdata), secret(1));
  assert.equal(await known(), mac(anew));
  assert.equal(logged('refused'), 0);
});

test('with check_mac, a record without a MAC is refused, and a stranger gets its usual 404', {
  skip,
}, async (t) => {
  const old = { domain_name: 'web1', mds_ipv4: a.mds_ipv4 };
  const { addGuest: add, logged, host, daemon } = await start(t, 'yes', { records: [old, b] });
  const guest = add(a);
  assert.deepEqual(await ask(guest, a.mds_ipv4, userdata), refused);
  await daemon.printed(
    `refused ${a.mds_ipv4}: the record of web1 has no MAC address to compare: upload its domain again`,
  );
  // IPv6 it has none.
  assert.deepEqual(await ask(guest, a.mds_ipv6, userdata), refused);
  const stranger = add(record(9));
  assert.deepEqual(await ask(stranger, '10.122.7.9', userdata), refused);
  await daemon.printed(
    /10\.122\.7\.9 - GET \/latest\/user-data 404 .*no instance has this address/,
  );
  // The host itself.
  for (const [path, expected] of [
    ['/', 200],
    ['/service/configuration', 200],
    [userdata, 404],
  ] as const) {
    await t.test(path, async () => {
      assert.equal((await ask(host, metadata, path))[0], expected);
    });
  }
  assert.equal(logged('(mdserver.check_mac)'), 1);
});

test("with check_mac, the host itself is refused when it asks from an instance's address", async (t) => {
  const { daemon } = await startSite(t, '127.143.0.1', {
    records: [{ ...a, mds_ipv4: '127.143.0.8', mds_ipv6: null }],
    mdserver: 'check_mac = yes',
  });
  // Loopback has no neighbours: nothing says that this is the guest.
  const { status, text } = await daemon.ask('/latest/meta-data/hostname', { from: '127.143.0.8' });
  assert.deepEqual([status, text], refused);
  await daemon.printed('no complete entry for it');
});

test('with check_mac, a guest behind another interface than the bridge is refused', {
  skip,
}, async (t) => {
  const { addGuest: add, host, daemon } = await start(t, 'yes');
  const attacker = add(a);
  // The host now reaches web2's address through another bridge, and has a complete entry there.
  host.ip('link add br-other address 52:54:00:fe:00:02 type bridge');
  host.ip('link set br-other up');
  const elsewhere = host.addGuest(b.mds_mac, 'br-other');
  setAddresses(elsewhere, b);
  host.ip(`route add ${b.mds_ipv4}/32 dev br-other src 10.122.0.1`);
  assert.deepEqual(await ask(elsewhere, b.mds_ipv4, userdata), refused);
  await daemon.printed(`refused ${b.mds_ipv4}: the neighbour table has no complete entry`);
  await isServed(attacker, a, 1);
});

// ---- a connection that stays open ----

/** The guest's end of a connection; SIGUSR2 makes it send two requests at once. */
const clientScript = `
  const [from, server] = process.argv.slice(1);
  const socket = require('node:net').connect({ host: server, port: 80, localAddress: from });
  const request = 'GET /latest/user-data HTTP/1.1\\r\\nHost: instance-data\\r\\n\\r\\n';
  process.on('SIGUSR2', () => socket.write(request.repeat(2)));
  socket.on('connect', () => process.stdout.write('connected\\n'));
  socket.pipe(process.stdout);
`;

/** Connects from one of a guest's addresses, and waits until the connection is there. */
async function connect(guest: Namespace, from: string) {
  const server = from.includes(':') ? metadata6 : metadata;
  const client = guest.start(process.execPath, ['-e', clientScript, from, server]);
  let output = '';
  client.stdout?.on('data', (chunk) => (output += chunk));
  await eventually('it is connected', () => output.includes('connected'));
  const statuses = () =>
    [...output.matchAll(/^HTTP\/1\.1 (\d+)/gm)].map(([, status]) => Number(status));
  return {
    output: () => output,
    /** Sends two requests in one piece, and waits for their answers. */
    askTwice: async () => {
      const before = statuses().length;
      client.kill('SIGUSR2');
      await eventually('both are answered', () => statuses().length === before + 2);
      return statuses().slice(before);
    },
    send: () => client.kill('SIGUSR2'),
  };
}

test('with check_mac, each request of a connection is checked, pipelined ones as well', {
  skip,
}, async (t) => {
  const { addGuest: add, ask: askControl, host, logged } = await start(t, 'yes');
  const guest = add(a);
  const connections = [await connect(guest, a.mds_ipv4), await connect(guest, a.mds_ipv6)];
  for (const { askTwice } of connections) assert.deepEqual(await askTwice(), [200, 200]);
  // The kernel has forgotten the guest, which has done nothing wrong.
  host.ip('neigh flush dev br-mds');
  for (const { askTwice } of connections) assert.deepEqual(await askTwice(), [200, 200]);
  assert.equal(logged('WARN'), 0);
  // The instance is now another machine.
  const body = domainXml(0x77, { name: 'web1' });
  assert.equal((await askControl('/instance-upload', { method: 'POST', body })).status, 200);
  for (const { askTwice } of connections) assert.deepEqual(await askTwice(), [404, 404]);
  assert.equal(logged('WARN', a.mds_mac, mac(0x77), '(mdserver.check_mac)'), 4);
});

for (const [family, address] of [
  ['IPv4', b.mds_ipv4],
  ['IPv6', b.mds_ipv6],
] as const) {
  test(`with check_mac, a guest that stops answering for the victim's ${family} address gets nothing`, {
    skip,
  }, async (t) => {
    const { addGuest: add, host, logged } = await start(t, 'yes');
    const attacker = add(a);
    await takeAddresses(attacker, b);
    const { send, output } = await connect(attacker, address);
    // Neither answers ARP nor neighbour solicitations; it keeps the connection.
    const silence = async (isOn: boolean) => {
      if (family === 'IPv6') {
        attacker.ip(
          `address ${isOn ? 'delete' : 'add'} ${address}/64 dev eth0${isOn ? '' : ' nodad'}`,
        );
        return;
      }
      const setting = `net.ipv4.conf.eth0.arp_ignore=${isOn ? 8 : 0}`;
      assert.equal((await attacker.run('sysctl', ['-q', '-w', setting])).status, 0);
    };
    await silence(true);
    // What the host does by itself within 9 seconds.
    host.ip('neigh flush dev br-mds');
    await host.run('busybox', ['ping', '-c', '1', '-W', '4', address]);
    const { stdout } = await host.run('ip', ['neigh', 'show', 'to', address, 'dev', 'br-mds']);
    assert.match(stdout, /FAILED|INCOMPLETE/);
    send();
    await eventually('both are refused', () => logged('WARN', 'no complete entry', address) === 2);
    // Now it listens again.
    await silence(false);
    await eventually('both answers are there', () => output().split('not found').length === 3);
    assert.doesNotMatch(output(), /secret/);
  });
}

// ---- the one ip that asks the kernel ----

/** The processes that a process has started, and that are still there. */
function childrenOf(pid: number | undefined): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return text.trim().split(' ').filter(Boolean).map(Number);
}

test('one ip process serves all requests, is replaced when it dies, and ends with the daemon', {
  skip,
}, async (t) => {
  const { addGuest: add, daemon, host, logged } = await start(t, 'yes');
  const guest = add(a);
  await isServed(guest, a, 1);
  const { pid } = daemon.process;
  const before = childrenOf(pid);
  await isServed(guest, a, 1);
  assert.deepEqual(childrenOf(pid), before);
  assert.equal(before.length, 1);

  process.kill(before[0] ?? 0, 'SIGKILL');
  await isServed(guest, a, 1);
  // One that has stopped gives no answer in time.
  process.kill(childrenOf(pid)[0] ?? 0, 'SIGSTOP');
  await isServed(guest, a, 1);

  // The bridge has another number when libvirt has made its network anew.
  host.ip('link delete br-mds');
  host.ip('link add br-mds address 52:54:00:fe:00:01 type bridge');
  for (const address of [`${metadata}/32`, '10.122.0.1/16']) {
    host.ip(`address add ${address} dev br-mds`);
  }
  host.ip('link set br-mds up');
  assert.deepEqual(await ask(add(b), b.mds_ipv4, userdata), secret(2));
  assert.equal(logged('WARN'), 0);

  const last = childrenOf(pid);
  assert.equal(last.length, 1);
  daemon.process.kill('SIGKILL');
  await eventually('ip has ended', () => !existsSync(`/proc/${last[0]}`));
});

test('without a free file descriptor check_mac refuses, and serves again when there is one', {
  skip: skip || missing('setpriv'),
}, async (t) => {
  const { addGuest: add, daemon } = await start(t, 'yes');
  const { askTwice } = await connect(add(a), a.mds_ipv4);
  assert.deepEqual(await askTwice(), [200, 200]);
  const { pid } = daemon.process;
  const limitFiles = (most: number) =>
    execFileSync('prlimit', [`--pid=${pid}`, `--nofile=${most}:`]);
  limitFiles(16);
  process.kill(childrenOf(pid)[0] ?? 0, 'SIGKILL');
  assert.deepEqual(await askTwice(), [404, 404]);
  await daemon.printed(`refused ${a.mds_ipv4}: its MAC address cannot be checked: ip (iproute2)`);
  limitFiles(1024);
  assert.deepEqual(await askTwice(), [200, 200]);
});

test('without ip, check_mac refuses every instance, and the log says what to do', {
  skip,
}, async (t) => {
  const { addGuest: add, daemon } = await start(t, 'yes', {
    sandbox: ['env', 'PATH=/nonexistent'],
  });
  await daemon.printed(
    /mdserver\.check_mac = yes refuses every instance: .*ENOENT.* Install iproute2/,
  );
  const guest = add(a);
  assert.deepEqual(await ask(guest, a.mds_ipv4, userdata), refused);
  assert.deepEqual(await ask(guest, a.mds_ipv6, userdata), refused);
  await daemon.printed(`refused ${a.mds_ipv4}: its MAC address cannot be checked: ip (iproute2)`);
});

test("check_mac works with the unit's ProcSubset=pid, and a reload switches it", {
  skip,
}, async (t) => {
  const {
    addGuest: add,
    logged,
    daemon,
  } = await start(t, 'no', {
    // "ip netns exec" has given the daemon mounts of its own.
    sandbox: ['sh', '-c', 'mount -t proc -o subset=pid proc /proc && exec "$@"', 'sh'],
  });
  const subset = readFileSync(`/proc/${daemon.process.pid}/mountinfo`, 'utf8');
  assert.match(subset, / \/proc .*subset=pid/);
  const attacker = add(a);
  await takeAddresses(attacker, b);
  assert.deepEqual(await ask(attacker, b.mds_ipv4, userdata), secret(2));
  const file = (daemon.process.spawnargs.at(-1) ?? '').toString();
  writeFileSync(file, readFileSync(file, 'utf8').replace('check_mac = no', 'check_mac = yes'));
  daemon.process.kill('SIGHUP');
  await daemon.printed('read the configuration again');
  assert.deepEqual(await ask(attacker, b.mds_ipv4, userdata), refused);
  assert.deepEqual(await ask(attacker, b.mds_ipv6, userdata), refused);
  await isServed(attacker, a, 1);
  await eventually('both are logged', () => logged('WARN', a.mds_mac, b.mds_mac) === 2);
});
