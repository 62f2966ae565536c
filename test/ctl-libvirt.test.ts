import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import type { InstanceSummary } from '../src/control/api.js';
import type { Finding } from '../src/ctl/checks/finding.js';
import { recentDhcp } from '../src/ctl/dnsmasq-log.js';
import { atEnd, temporaryFolder } from './support/cleanup.js';
import { startWithControl } from './support/control-socket.js';
import {
  findings,
  type Host,
  hangingVirsh,
  hostOf,
  linesOf,
  program,
  run,
  type StubDomain,
  type StubPort,
  stubVirsh,
} from './support/ctl.js';
import { startDomain, startLibvirt } from './support/libvirt.js';
import { missing } from './support/parts.js';
import { hostConfiguration, mac, uuid } from './support/samples.js';

// ---- what the tests are made of ----

/** An instance `vmN` of this location, with the number in its uuid, MAC address and address. */
function instance(number: number, changes: Partial<InstanceSummary> = {}): InstanceSummary {
  return {
    name: `vm${number}`,
    uuid: uuid(number),
    mac: mac(number),
    ipv4: `10.122.0.${number}`,
    ipv6: null,
    location: 'here',
    hostname: `vm${number}`,
    metadata: {},
    first_seen: 1_700_000_000,
    last_update: 1_700_000_000,
    last_boot: null,
    left_network: null,
    datasource: null,
    ...changes,
  };
}

/** The domain of that instance, running with its MAC address on the network. */
function domain(number: number, changes: Partial<StubDomain> = {}): StubDomain {
  const interfaces = [['mds', mac(number)]] as const;
  return { uuid: uuid(number), name: `vm${number}`, running: true, interfaces, ...changes };
}

function port(number: number): StubPort {
  return { owner: { uuid: uuid(number), name: `vm${number}` }, mac: mac(number) };
}

/** A host with a stub of libvirt, and a stub of mdserver that tells what it was asked. */
async function hostWith(
  t: TestContext,
  instances: readonly InstanceSummary[],
  domains: readonly StubDomain[],
  ports: readonly StubPort[] = [],
) {
  const host = hostOf(t);
  stubVirsh(host, domains, ports);
  const asked: string[] = [];
  const server = createServer((request, response) => {
    const { method = '', url = '' } = request;
    asked.push(`${method} ${url}`);
    const [, kind, name] = new URL(url, 'http://localhost').pathname
      .split('/')
      .map(decodeURIComponent);
    const found = name === undefined ? instances : instances.find((one) => one.name === name);
    const health = { version: '1', uptime_seconds: 1, instances: 0, problems: [], dhcp_log: true };
    const details = { ...found, boots: [], host_keys: [], warnings: [] };
    if (kind === 'health') response.end(JSON.stringify(health));
    else if (kind === 'instance-upload') response.writeHead(422).end('{"error":"no interface"}');
    else if (found === undefined) {
      response.writeHead(404).end(`{"error":"there is no instance ${name}"}`);
    } else response.end(JSON.stringify(name === undefined ? found : details));
    request.resume();
  });
  const socket = join(host.folder, 'stub.sock');
  server.listen(socket);
  await once(server, 'listening');
  atEnd(t, () => server.close());
  return {
    ...host,
    asked,
    socket,
    ctl: (...args: string[]) => host.ctl(...args, '--socket', socket),
    /** On a terminal, with `input` typed on it. Gives what appears there. */
    onTerminal: async (line: string, input = '') => {
      const command = `${process.execPath} ${program} --config ${host.file} --socket ${socket} ${line}`;
      const env = { ...host.env, NO_COLOR: '1' };
      const ended = await run('script', ['-qec', command, '/dev/null'], input, env, true);
      const text = stripVTControlCharacters(ended.stdout).replaceAll('\r\n', '\n');
      return { status: ended.status, text };
    },
    check: async () => linesOf(await findings(host, '--socket', socket), 'domains'),
  };
}

/** The number of virsh processes so far. */
function virshCalls({ folder }: Pick<Host, 'folder'>): number {
  return readFileSync(join(folder, 'virsh/calls'), 'utf8').split('\n').length - 1;
}

const withoutTerminal = missing('script');

// ---- check ----

test('check: what libvirt runs as its record says is well, on the network and on its bridge', async (t) => {
  const bridged = domain(2, {
    interfaces: [
      ['default', mac(9)],
      ['br-mds', mac(2)],
    ],
  });
  const unrelated = domain(3, { interfaces: [['default', mac(3)]] });
  const stopped = domain(4, { running: false });
  const elsewhere = instance(5, { location: 'there', left_network: 5 });
  const { check } = await hostWith(
    t,
    [instance(1), instance(2), elsewhere],
    [domain(1), bridged, unrelated, stopped, domain(6, { interfaces: [] })],
    [port(1)],
  );
  assert.deepEqual(await check(), ['ok: 2 domains on the network, each as in its record']);
});

test('check names each running domain without a record, and the command that mends it', async (t) => {
  const one = await hostWith(t, [instance(1)], [domain(1), domain(2, { name: 'a b' })]);
  assert.deepEqual(await one.check(), [
    "failure: 1 domain on the network without a record, so without an address and metadata: a b: virsh dumpxml 'a b' | mdserverctl upload -",
    'ok: 1 domain on the network, each as in its record',
  ]);
  // virsh would read the name as an ID.
  stubVirsh(one, [domain(1), domain(2, { name: '7' })]);
  assert.match((await one.check())[0] ?? '', new RegExp(`: 7: virsh dumpxml ${uuid(2)} \\|`));
  stubVirsh(
    one,
    [2, 3, 4, 5, 6, 7, 8].map((number) => domain(number)),
  );
  assert.deepEqual(await one.check(), [
    'failure: 7 domains on the network without a record, so without an address and metadata: vm2, vm3, vm4, vm5, vm6 and 2 more: mdserverctl sync',
  ]);
});

test('check: records and MAC addresses that do not fit what runs', async (t) => {
  const { check } = await hostWith(
    t,
    [
      instance(1),
      instance(2),
      instance(3),
      instance(4, { left_network: 1_700_000_000 }),
      instance(5, { mac: null }),
    ],
    [
      domain(1, { interfaces: [['mds', mac(21)]] }),
      // The network comes before the bridge, whatever their order in the domain.
      domain(2, {
        interfaces: [
          ['br-mds', mac(22)],
          ['mds', mac(2)],
          ['mds', mac(23)],
        ],
      }),
      domain(3, { interfaces: [['default', mac(3)]] }),
      domain(4, { running: false }),
      domain(5),
    ],
    [port(1), port(2), { ...port(8), owner: { uuid: uuid(8), name: 'lxc1' } }],
  );
  assert.deepEqual(await check(), [
    `failure: 2 domains with another MAC address than in the record, so without an address: vm1 (${mac(21)}, not ${mac(1)}), vm5 (${mac(5)}, not none): mdserverctl sync`,
    `warning: 2 interfaces without an address, because only the first one of a domain on the network gets one: ${mac(23)} of vm2, ${mac(22)} of vm2: detach it (virsh detach-interface), or set its address in the guest`,
    'warning: 2 records of domains without an interface on the network: vm3, vm4: give them one (virsh attach-interface), or remove the records: mdserverctl sync --prune',
    `warning: 1 port of the network without a record: ${mac(8)} of lxc1: if another driver of libvirt runs it: virsh --connect URI dumpxml NAME | mdserverctl upload -`,
    'ok: 1 domain on the network, each as in its record',
  ]);
});

test('check asks a few virsh processes for a thousand domains', async (t) => {
  const numbers = Array.from({ length: 1000 }, (_, index) => index + 1);
  const host = await hostWith(
    t,
    numbers.map((number) => instance(number)),
    numbers.map((number) => domain(number)),
    numbers.map(port),
  );
  assert.deepEqual(await host.check(), ['ok: 1000 domains on the network, each as in its record']);
  assert.ok(virshCalls(host) <= 25, String(virshCalls(host)));
});

test('check: without libvirt, it says so, and goes on', async (t) => {
  const host = await hostWith(t, [instance(4, { left_network: 5 })], []);
  host.write(
    'bin/virsh',
    "#!/bin/sh\necho 'error: failed to connect to the hypervisor' >&2\nexit 1\n",
  );
  assert.deepEqual(await host.check(), [
    'warning: cannot compare the records with libvirt (what runs): virsh (qemu:///system): failed to connect to the hypervisor',
    'warning: 1 record of domains without an interface on the network: vm4: give them one (virsh attach-interface), or remove the records: mdserverctl sync --prune',
  ]);
});

// ---- dnsmasq's log ----

/** What dnsmasq 2.90 logs of a machine without a record, some minutes ago. */
function refusal(number: number, minutesAgo: number): string {
  return dhcpLine(minutesAgo, `DHCPDISCOVER(br-mds) ${mac(number)} no address available`);
}

/** A line of its log. */
function dhcpLine(minutesAgo: number, text: string): string {
  const at = new Date(Date.now() - minutesAgo * 60_000);
  const [, month, day, , time] = at.toString().split(' ');
  const stamp = `${month} ${String(Number(day)).padStart(2)} ${time}`;
  return `${stamp} dnsmasq-dhcp[1]: ${text}\n`;
}

test('check names who was refused an address lately, with the domain that has this MAC address', async (t) => {
  const host = await hostWith(
    t,
    [instance(1)],
    [domain(1), domain(2), domain(3, { interfaces: [['other', mac(3)]] })],
  );
  const log = host.write('log-dnsmasq', refusal(4, 61) + refusal(5, 20) + refusal(1, 3));
  appendFileSync(log, refusal(2, 2) + refusal(5, 10) + refusal(3, 5));
  const [unknown, refused, ...others] = await host.check();
  assert.match(unknown ?? '', /^failure: 1 domain on the network without a record, .*: vm2: /);
  assert.equal(
    refused,
    `warning: dnsmasq has no address for 2 machines that asked for one: ${mac(3)} (vm3, 5 minutes ago), ${mac(5)} (no running domain has it, 10 minutes ago): whose is it? mdserverctl explain ${mac(3)}`,
  );
  assert.deepEqual(others, ['ok: 1 domain on the network, each as in its record']);
});

test('check names instances whose address another machine has, until they have got it', async (t) => {
  const host = await hostWith(t, [instance(1), instance(2)], [domain(1), domain(2)]);
  const ack = (number: number) => `DHCPACK(br-mds) 10.122.0.${number} ${mac(number)} vm${number}`;
  const decline = (number: number) => `DHCPDECLINE(br-mds) 10.122.0.${number} ${mac(number)} `;
  const log = host.write(
    'log-dnsmasq',
    [
      dhcpLine(9, ack(1)),
      dhcpLine(9, decline(1)),
      dhcpLine(9, decline(2)),
      dhcpLine(8, ack(2)),
    ].join(''),
  );
  const [conflict, ...others] = await host.check();
  assert.match(
    conflict ?? '',
    /^warning: another machine on the network has the address of 1 instance: vm1 \(\S+, declined 9 minutes ago\): which one\? mdserverctl explain vm1$/,
  );
  assert.deepEqual(others, ['ok: 2 domains on the network, each as in its record']);
  appendFileSync(log, dhcpLine(1, ack(1)));
  assert.deepEqual(await host.check(), others);
});

test('of a large log only the end is read, and what is no file is not waited for', (t) => {
  const folder = temporaryFolder(t);
  const log = join(folder, 'log');
  writeFileSync(log, refusal(1, 1));
  truncateSync(log, 100 * 1024 * 1024);
  appendFileSync(log, `\n${refusal(2, 1)}${refusal(3, 1).trim()}`);
  assert.deepEqual([...recentDhcp(log).refused.keys()], [mac(2), mac(3)]);
  // What is read begins in a line that would be one without its beginning.
  const half = `x${refusal(4, 1)}`;
  writeFileSync(log, `${half}${'y'.repeat(1024 * 1024 - half.length)}\n`);
  assert.deepEqual([...recentDhcp(log).refused.keys()], []);
  spawnSync('mkfifo', [join(folder, 'fifo')]);
  for (const path of ['fifo', 'none']) {
    assert.deepEqual([...recentDhcp(join(folder, path)).refused.keys()], [], path);
  }
  mkdirSync(join(folder, 'folder'));
  assert.equal(recentDhcp(join(folder, 'folder')).refused.size, 0);
  assert.throws(() => recentDhcp(join(log, 'below')), {
    name: 'CommandError',
    message: /^cannot read dnsmasq's log: ENOTDIR: /,
  });
});

test('the time of a line is that of the last year in which it is not in the future', (t) => {
  const log = join(temporaryFolder(t), 'log');
  writeFileSync(
    log,
    `Dec 31 23:59:30 dnsmasq-dhcp[1]: DHCPNAK(br-mds) 10.122.0.1 ${mac(1)} address not available\n`,
  );
  const at = new Date(2026, 11, 31, 23, 59, 30).getTime() / 1000;
  assert.deepEqual([...recentDhcp(log, new Date(2027, 0, 1, 0, 10)).refused], [[mac(1), at]]);
  assert.deepEqual([...recentDhcp(log, new Date(2027, 0, 1, 1, 10)).refused], []);
});

// ---- list ----

test('list: on a terminal, the last line names running domains without a record', {
  skip: withoutTerminal,
}, async (t) => {
  const host = await hostWith(
    t,
    [instance(1), instance(2, { left_network: 5 })],
    [domain(1), domain(2, { interfaces: [] }), domain(3), domain(4, { running: false })],
  );
  const { status, text } = await host.onTerminal('list');
  const lines = text.trimEnd().split('\n');
  assert.equal(status, 0);
  assert.equal(lines.length, 4);
  assert.match(lines[1] ?? '', /^vm1 .* -$/);
  assert.match(lines[2] ?? '', /^vm2 .* left network {2}-$/);
  assert.equal(
    lines[3],
    'mdserverctl: 1 running domain on the network without a record: vm3: virsh dumpxml vm3 | mdserverctl upload -',
  );
  const before = virshCalls(host);
  const forScript = await host.ctl('list');
  assert.deepEqual([forScript.status, forScript.stderr], [0, '']);
  assert.equal(forScript.stdout.split('\n').length, 3);
  assert.equal(virshCalls(host), before, 'scripts do not wait for libvirt');
  stubVirsh(host, [domain(1)]);
  assert.equal((await host.onTerminal('list')).text.split('\n').length, 4);
});

test('list does not wait for a libvirt that hangs', { skip: withoutTerminal }, async (t) => {
  const host = await hostWith(t, [instance(1)], []);
  hangingVirsh(host);
  const { status, text } = await host.onTerminal('list');
  assert.equal(status, 0);
  assert.equal(
    text.trimEnd().split('\n').at(-1),
    'mdserverctl: cannot look for running domains without a record: virsh (qemu:///system): no answer for 2 seconds',
  );
});

// ---- explain ----

/** What explain says, without the lines on standard error. */
async function explained(host: { readonly ctl: Host['ctl'] }, subject: string) {
  const { status, stdout } = await host.ctl('explain', subject);
  return [status, ...stdout.trimEnd().split('\n')];
}

test('explain of a name that no instance has looks for a domain of this name', async (t) => {
  const host = await hostWith(
    t,
    [instance(1)],
    [
      domain(2),
      domain(3, { interfaces: [['default', mac(3)]] }),
      domain(4, { running: false }),
      domain(5, { running: false, interfaces: [] }),
    ],
  );
  assert.deepEqual(await explained(host, 'vm2'), [
    4,
    'There is no instance vm2.',
    `libvirt runs a domain of this name with ${mac(2)} on mds, but it was never uploaded, so it gets neither address nor metadata.`,
    'Upload it: virsh dumpxml vm2 | mdserverctl upload -. "mdserverctl check" shows whether the hooks are installed.',
  ]);
  const notServed = (name: string, runs: string) =>
    `libvirt has a domain of this name. It ${runs}, and has no interface on the network mds or the bridge br-mds, so mdserver does not serve it. To change that: virsh attach-interface ${name} network mds`;
  assert.deepEqual(await explained(host, 'vm3'), [
    4,
    'There is no instance vm3.',
    notServed('vm3', 'runs'),
  ]);
  assert.deepEqual(await explained(host, 'vm4'), [
    4,
    'There is no instance vm4.',
    'libvirt has a domain of this name. It does not run, and was never uploaded: the hook does that when it starts. To do so now: virsh dumpxml vm4 | mdserverctl upload -',
  ]);
  assert.deepEqual(await explained(host, 'vm5'), [
    4,
    'There is no instance vm5.',
    notServed('vm5', 'does not run'),
  ]);
  assert.deepEqual(JSON.parse((await host.ctl('explain', 'vm2', '--json')).stdout), {
    instance: null,
    domain: {
      uuid: uuid(2),
      name: 'vm2',
      running: true,
      interfaces: [{ source: 'mds', mac: mac(2) }],
    },
  });
  assert.deepEqual(await host.ctl('explain', 'nobody'), {
    status: 4,
    stdout: '',
    stderr: 'mdserverctl: there is no instance nobody\n',
  });
});

test('explain of an instance says what of its running domain does not fit its record', async (t) => {
  const host = await hostWith(
    t,
    [instance(1), instance(2), instance(3, { left_network: 1_700_000_000 }), instance(4)],
    [
      domain(1, { interfaces: [['mds', mac(21)]] }),
      domain(2, { interfaces: [['default', mac(2)]] }),
      domain(3, { running: false }),
      domain(4),
    ],
  );
  const second = async (name: string) => (await explained(host, name))[2];
  assert.equal(
    await second('vm1'),
    `It runs with the MAC address ${mac(21)} on the network, but its record has ${mac(1)}, so it gets no address by DHCP. Upload it: virsh dumpxml vm1 | mdserverctl upload -`,
  );
  const mend =
    'Give it one (virsh attach-interface), or remove the record: mdserverctl sync --prune.';
  assert.equal(
    await second('vm2'),
    `It runs without an interface on the network mds or the bridge br-mds (virsh domiflist vm2). ${mend}`,
  );
  assert.equal(
    await second('vm3'),
    `Its domain has been without an interface on the network mds or the bridge br-mds since 2023-11-14T22:13:20Z. ${mend}`,
  );
  assert.match(String(await second('vm4')), /^Its domain was last uploaded /);
});

test('explain of a MAC address: its instance, its domain, its port, what dnsmasq said of it', async (t) => {
  const lxc = { ...port(5), owner: { uuid: uuid(5), name: 'lxc1' } };
  const host = await hostWith(
    t,
    [instance(1), instance(2)],
    [
      domain(2, {
        interfaces: [
          ['mds', mac(2)],
          ['mds', mac(22)],
        ],
      }),
      domain(3),
      // A stopped clone has the same address.
      domain(4, {
        running: false,
        interfaces: [
          ['mds', mac(3)],
          ['mds', mac(4)],
        ],
      }),
    ],
    [port(2), lxc],
  );
  host.write('log-dnsmasq', refusal(9, 2));
  assert.match(String((await explained(host, mac(1)))[1]), /^vm1 \(10\.122\.0\.1, /);
  const upper = mac(3).toUpperCase();
  const about = async (number: number) => {
    const [status, first, ...more] = await explained(host, mac(number));
    assert.deepEqual([status, first], [4, `No instance has the MAC address ${mac(number)}.`]);
    return more.map(String);
  };
  const runs = (name: string) =>
    `It is the MAC address of the domain ${name}, which runs without a record, and so without an address: virsh dumpxml ${name} | mdserverctl upload -. "mdserverctl check" shows whether the hooks are installed.`;
  assert.deepEqual(await about(3), [runs('vm3')]);
  assert.equal((await explained(host, upper))[2], runs('vm3'));
  assert.deepEqual(await about(4), [
    'It is the MAC address of the domain vm4, which does not run. The hook uploads it when it starts; to do so now: virsh dumpxml vm4 | mdserverctl upload -',
  ]);
  assert.deepEqual(await about(5), [runs('lxc1')]);
  assert.deepEqual(await about(22), [
    `It is another interface of vm2, on mds; its record has ${mac(2)} on mds. Only the first interface on the network gets an address: detach the other one (virsh detach-interface), or set its address in the guest.`,
  ]);
  const [nobody, asked, ...others] = await about(9);
  assert.match(nobody ?? '', /^No instance and no domain of libvirt has it: /);
  assert.match(asked ?? '', /^It asked for an address at \S+Z, and dnsmasq had none for it\.$/);
  assert.deepEqual(others, []);

  host.write('bin/virsh', "#!/bin/sh\necho 'error: failed to connect' >&2\nexit 1\n");
  assert.deepEqual(await host.ctl('explain', mac(3)), {
    status: 4,
    stdout: `No instance has the MAC address ${mac(3)}.\nlibvirt does not answer, so its domain is not known.\n`,
    stderr: 'mdserverctl: cannot ask libvirt: virsh (qemu:///system): failed to connect\n',
  });
  for (const [mode, why] of [
    [0o644, 'virsh (qemu:///system): spawn virsh EACCES'],
    [undefined, 'virsh is not installed: install libvirt-clients'],
  ] as const) {
    const path = join(host.folder, 'bin');
    if (mode === undefined) rmSync(path, { recursive: true });
    else chmodSync(join(path, 'virsh'), mode);
    const line = [program, '--config', host.file, '--socket', host.socket, 'explain', mac(3)];
    const { stderr } = await run(process.execPath, line, '', { PATH: path });
    assert.equal(stderr, `mdserverctl: cannot ask libvirt: ${why}\n`);
  }
  const known = await host.ctl('explain', 'vm1');
  assert.deepEqual([known.status, known.stdout.split('\n').length], [0, 3]);
});

// ---- remove, sync --prune ----

test('remove frees the address of a guest at once only if libvirt says that it does not run', async (t) => {
  const boot = { started: 1_700_000_000, ended: 1_700_000_005, outcome: 'home' } as const;
  const host = await hostWith(
    t,
    [
      instance(1),
      instance(2),
      // Of a record without a uuid, the name counts.
      instance(3, { uuid: null }),
      instance(4, { location: 'there' }),
      instance(5, { last_boot: boot }),
    ],
    [domain(1), domain(2, { running: false }), domain(3)],
  );
  const removed = await host.ctl('remove', '--yes', 'vm1', 'vm2', 'vm3', 'vm4', 'vm6');
  const held = 'its address goes to no other guest until it stops, or its lease ends';
  const runs = `loses DHCP, DNS and metadata until its next start, when the hook adds it again; ${held}`;
  assert.deepEqual(removed.stderr.split('\n'), [
    `mdserverctl: vm1 runs: it ${runs}`,
    `mdserverctl: vm3 runs: it ${runs}`,
    `mdserverctl: libvirt does not tell whether vm4 runs (its record has the location there); ${held}`,
    'mdserverctl: vm6: there is no instance vm6',
    '',
  ]);
  assert.equal(removed.status, 4);
  assert.equal(virshCalls(host), 2);
  const deletions = () => host.asked.splice(0).filter((line) => line.startsWith('DELETE'));
  assert.deepEqual(deletions(), [
    'DELETE /instances/vm1',
    'DELETE /instances/vm2?guest=gone',
    'DELETE /instances/vm3',
    'DELETE /instances/vm4',
    'DELETE /instances/vm6',
  ]);

  host.write('bin/virsh', '#!/bin/sh\necho "error: no" >&2; exit 1\n');
  const unknown = await host.ctl('remove', '--yes', 'vm2', 'vm5');
  const why = 'virsh (qemu:///system): no';
  assert.deepEqual(unknown.stderr.split('\n'), [
    `mdserverctl: libvirt does not tell whether vm2 runs (${why}); ${held}`,
    `mdserverctl: libvirt does not tell whether vm5 runs (${why}); mdserver saw it stop at 2023-11-14T22:13:25Z`,
    '',
  ]);
  assert.deepEqual(deletions(), ['DELETE /instances/vm2', 'DELETE /instances/vm5']);
});

test('remove asks, and says of a guest that it runs', { skip: withoutTerminal }, async (t) => {
  const host = await hostWith(t, [instance(1), instance(2)], [domain(1)]);
  const one = await host.onTerminal('remove vm1', 'n\n');
  assert.equal(one.status, 1);
  assert.match(
    one.text,
    /^mdserverctl: vm1 runs: it loses [^\n]*\nRemove vm1 \(running\)\? \[y\/N\] /m,
  );
  const two = await host.onTerminal('remove vm1 vm2', 'n\n');
  assert.match(two.text, /^Remove 2 instances: vm1 \(running\), vm2\? \[y\/N\] /m);
  assert.deepEqual(
    host.asked.filter((line) => line.startsWith('DELETE')),
    [],
  );
});

test('the address of a guest that starts before the question is answered is not free', {
  skip: withoutTerminal,
}, async (t) => {
  const left = { left_network: 5 };
  const stopped = [1, 2, 3].map((number) => domain(number, { running: false }));
  const host = await hostWith(t, [instance(1), instance(2, left), instance(3, left)], stopped);
  /** What is removed if guests start when libvirt has been asked so many times what runs. */
  const answerAfterStart = async (line: string, times: number) => {
    for (let time = 1; time < times; time += 1) host.write(`virsh/running.${time}`, '');
    host.write(`virsh/running.${times}`, `${uuid(1)}\n${uuid(2)}\n`);
    assert.equal((await host.onTerminal(line, 'y\n')).status, 0);
    stubVirsh(host, stopped);
    return host.asked.splice(0).filter((request) => request.startsWith('DELETE'));
  };
  assert.deepEqual(await answerAfterStart('remove vm1', 1), ['DELETE /instances/vm1']);
  assert.deepEqual(await answerAfterStart('sync --prune', 2), [
    'DELETE /instances/vm2',
    'DELETE /instances/vm3?guest=gone',
  ]);
});

test('sync --prune removes records without a domain, and those whose domain left the network', async (t) => {
  const left = { left_network: 5 };
  const host = await hostWith(
    t,
    [
      instance(1),
      instance(2),
      instance(3, left),
      instance(4, left),
      instance(5, { ...left, location: 'there' }),
      instance(6, { location: 'there' }),
    ],
    [domain(1), domain(3), domain(4, { running: false })],
  );
  const expected =
    'no domain\tvm2\t10.122.0.2\nno interface\tvm3\t10.122.0.3\nno interface\tvm4\t10.122.0.4\n';
  const listed = await host.ctl('sync');
  assert.ok(listed.stdout.endsWith(expected), listed.stdout);
  assert.match(
    listed.stderr,
    /; 1 record without a domain, 2 records whose domain left the network \(--prune removes them\)\n$/,
  );
  const pruned = await host.ctl('sync', '--prune', '--yes', '--json');
  const { without_domain, left_network } = JSON.parse(pruned.stdout);
  assert.deepEqual(
    [without_domain, left_network].map((list: InstanceSummary[]) => list.map(({ name }) => name)),
    [['vm2'], ['vm3', 'vm4']],
  );
  assert.deepEqual(
    host.asked.filter((line) => line.startsWith('DELETE')),
    [
      'DELETE /instances/vm2?guest=gone',
      'DELETE /instances/vm3',
      'DELETE /instances/vm4?guest=gone',
    ],
  );
});

// ---- a real libvirt ----

test('a real libvirt: guests that no hook has uploaded are found, explained and uploaded', {
  skip: missing('root', 'libvirtd', 'qemu', 'virsh', 'unshare', 'curl', 'ip', 'virt-xml'),
}, async (t) => {
  const folder = temporaryFolder(t, { 'userdata/': '' });
  const libvirt = await startLibvirt(t);
  const network = (number: number) =>
    `<interface type='network'><mac address='${mac(number)}'/><source network='mds'/></interface>`;
  const start = (number: number, name: string, interfaces: string) =>
    startDomain(libvirt, folder, { name, uuid: uuid(number), interfaces });
  await start(1, 'web1', network(1));
  const bridge = `<interface type='bridge'><mac address='${mac(2)}'/><source bridge='br-mds'/></interface>`;
  await start(2, '2', bridge);
  await start(3, 'later', '');

  const daemon = await startWithControl(
    t,
    folder,
    hostConfiguration(folder, { mdserver: 'upload_over_tcp = no' }),
    '169.254.169.254',
    libvirt.start,
  );
  const ctl = (...args: string[]) =>
    libvirt.run(process.execPath, [program, '--config', `${folder}/mdserver.conf`, ...args]);
  const check = async () => {
    const { stdout } = await ctl('check', '--json');
    return linesOf(JSON.parse(stdout) as Finding[], 'domains');
  };
  assert.deepEqual(await check(), [
    'failure: 2 domains on the network without a record, so without an address and metadata: web1, 2: mdserverctl sync',
  ]);
  assert.match((await ctl('explain', 'web1')).stdout, /libvirt runs a domain of this name with /);
  assert.match(
    (await ctl('explain', mac(2))).stdout,
    /the MAC address of the domain 2, which runs/,
  );
  assert.equal((await ctl('sync')).status, 0);
  assert.deepEqual(await check(), ['ok: 2 domains on the network, each as in its record']);

  await libvirt.virsh('attach-interface', 'later', 'network', 'mds', '--mac', mac(3), '--live');
  assert.deepEqual(await check(), [
    'failure: 1 domain on the network without a record, so without an address and metadata: later: virsh dumpxml later | mdserverctl upload -',
    'ok: 2 domains on the network, each as in its record',
  ]);
  assert.match((await ctl('explain', mac(3))).stdout, /the MAC address of the domain later, /);

  // Started anew without an interface.
  assert.equal((await ctl('sync')).status, 0);
  await libvirt.virsh('destroy', 'later');
  await start(3, 'later', '');
  const [without] = await check();
  assert.match(without ?? '', /^warning: 1 record of domains without an interface on .*: later: /);
  assert.match((await ctl('sync')).stdout, /^no interface\tlater\t10\.122\.\d+\.\d+$/m);
  assert.match((await ctl('list')).stdout, /^later\t.*\tleft network\tnone$/m);
  assert.match((await ctl('explain', 'later')).stdout, /^It runs without an interface on the /m);
  const pruned = await ctl('sync', '--prune', '--yes');
  assert.match(pruned.stdout, /^removed\tlater\t/m);
  assert.deepEqual(await check(), ['ok: 2 domains on the network, each as in its record']);

  // Started anew with another MAC address, and no hook that tells of it.
  await libvirt.virsh('destroy', 'web1');
  await start(1, 'web1', network(11));
  assert.match(
    (await check()).join('\n'),
    new RegExp(
      `^failure: 1 domain with another MAC .*: web1 \\(${mac(11)}, not ${mac(1)}\\): `,
      'm',
    ),
  );
  // A guest whose first interface is on another network, and who asks from there.
  const file = join(folder, 'other.xml');
  writeFileSync(
    file,
    "<network><name>other</name><bridge name='br-other'/><ip address='192.168.99.1' netmask='255.255.255.0'/></network>",
  );
  await libvirt.virsh('net-define', file);
  await libvirt.virsh('net-start', 'other');
  const other = `<interface type='network'><mac address='${mac(41)}'/><source network='other'/></interface>`;
  await start(4, 'two', other + network(4));
  writeFileSync(file, await libvirt.virsh('dumpxml', 'two'));
  const hook = ['-H', 'x-libvirt-operation: prepare', '--data-binary', `@${file}`];
  const socket = `${folder}/run/control.sock`;
  await libvirt.run('curl', ['--unix-socket', socket, ...hook, 'http://localhost/instance-upload']);
  assert.match(
    (await ctl('explain', 'two')).stdout,
    new RegExp(
      `^Its first interface is ${mac(41)} on other\\. .* put the one on mds or br-mds first`,
      'm',
    ),
  );
  assert.match(
    (await check()).join('\n'),
    /^warning: 1 domain without a request, whose first interface is another one: two \(on other\): /m,
  );
  const seen = `No instance has the MAC address ${mac(41)}.\nIt is another interface of two, on other; its record has ${mac(4)} on mds, the only one on which mdserver answers. If two looks for metadata on the other one, put ${mac(4)} first in its domain (virsh edit two).\n`;
  assert.equal((await ctl('explain', mac(41))).stdout, seen);
  const address = '192.168.99.41';
  const neighbour = ['neighbour', 'add', address, 'lladdr', mac(41), 'dev', 'br-other'];
  await libvirt.run('ip', neighbour);
  assert.match(
    (await ctl('explain', address)).stdout,
    new RegExp(`^It belongs to ${mac(41)}\\. It is another interface of two, on other; `, 'm'),
  );

  // The command that explain prints, in force from the next start on.
  const [mend = ''] =
    /^Its SMBIOS .*: (virt-xml .*)$/m.exec((await ctl('explain', 'two')).stdout)?.slice(1) ?? [];
  assert.equal((await libvirt.run('sh', ['-c', mend])).status, 0, mend);
  await libvirt.virsh('destroy', 'two');
  await libvirt.virsh('start', '--paused', 'two');
  await ctl('sync');
  assert.match((await ctl('list')).stdout, /^two\t.*\tnocloud$/m);
  assert.doesNotMatch((await ctl('explain', 'two')).stdout, /SMBIOS/);

  const removed = await ctl('remove', '--yes', 'web1');
  assert.match(removed.stderr, /^mdserverctl: web1 runs: it loses [^\n]*\n$/);
  await libvirt.virsh('destroy', uuid(2));
  const gone = await ctl('remove', '--yes', '2');
  assert.deepEqual([gone.status, gone.stderr], [0, '']);
  await daemon.stop();
});
