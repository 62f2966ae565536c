import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { linesOf, program } from './support/ctl.js';
import { type Daemon, eventually } from './support/daemon.js';
import { runDhclient } from './support/dhclient.js';
import { dig } from './support/dig.js';
import { type Dnsmasq, startDnsmasq } from './support/dnsmasq.js';
import { addHost, type Namespace } from './support/netns.js';
import { missing, python } from './support/parts.js';
import { databaseRecord, domainXml, mac } from './support/samples.js';
import { startSite } from './support/site.js';
import { askForLease, useLease } from './support/udhcpc.js';

const skip = missing('netns', 'dnsmasq', 'udhcpc', 'dig', 'curl');

// ---- a host with mdserver and dnsmasq, and guests ----

const metadata = 'http://169.254.169.254';
const gateway = '10.122.0.1';

interface DatabaseRecord {
  readonly domain_name: string;
  readonly domain_uuid: string;
  readonly mds_mac: string;
  readonly mds_ipv4: string;
  readonly mds_ipv6?: string;
}

/** A record whose number is in its MAC, uuid and address (10.122.N/250.N%250+2). */
function record(number: number, domain_name: string): DatabaseRecord {
  return databaseRecord(number, {
    domain_name,
    mds_ipv4: `10.122.${Math.floor(number / 250) + 1}.${(number % 250) + 2}`,
  });
}

/** The host of virtual machines, as the README has it set up. */
interface Host {
  readonly namespace: Namespace;
  readonly folder: string;
  readonly database: string;
  readonly pidFile: string;
  readonly daemon: Daemon;
  readonly startDnsmasq: (...args: readonly string[]) => Promise<Dnsmasq>;
  /** Stops mdserver, and starts it with the same state. */
  readonly restart: () => Promise<void>;
  /** Uploads a domain with curl; gives status and body. */
  readonly upload: (
    domain: Omit<DatabaseRecord, 'mds_ipv4'>,
  ) => Promise<{ status: number; body: string }>;
  readonly addGuest: (mac: string) => Namespace;
  /** The addresses of a name in DNS. */
  readonly resolve: (name: string, type?: 'A' | 'AAAA') => Promise<string[]>;
  /** The answer to each of many questions, a line of `dig -f` each. */
  readonly resolveAll: (questions: readonly string[]) => Promise<string[]>;
  /** The names of an address in DNS, each with a dot behind. */
  readonly reverse: (address: string) => Promise<string[]>;
}

interface HostSettings {
  /** Lines of `[dnsmasq]` in the configuration. */
  readonly dnsmasq?: string;
  /** Lines of `[mdserver]`. */
  readonly mdserver?: string;
  /** The database that is there when mdserver starts. */
  readonly records?: readonly DatabaseRecord[];
  /** A command and its arguments that mdserver, and one that dnsmasq, is started with. */
  readonly startWith?: { readonly daemon: readonly string[]; readonly dnsmasq: readonly string[] };
  readonly prepare?: (folder: string) => void;
}

async function startHost(t: TestContext, settings: HostSettings = {}): Promise<Host> {
  const namespace = addHost(t);

  const resolver = namespace.addGuest('52:54:00:ff:ff:ff');
  resolver.ip('address add 10.122.255.250/16 dev eth0');

  const start = (prefix: readonly string[], command: string, args: readonly string[]) => {
    const [first = command, ...rest] = [...prefix, command, ...args];
    return namespace.start(first, rest);
  };
  let site = await startSite(t, namespace, {
    records: settings.records ?? [],
    dnsmasq: settings.dnsmasq ?? 'user = root',
    ...(settings.mdserver !== undefined && { mdserver: settings.mdserver }),
    start: (command, args) => {
      settings.prepare?.(dirname(args.at(-1) ?? ''));
      return start(settings.startWith?.daemon ?? [], command, args);
    },
  });

  const { daemon, folder, database } = site;

  async function upload(domain: Omit<DatabaseRecord, 'mds_ipv4'>) {
    const file = join(folder, 'upload.xml');
    const { domain_name: name, domain_uuid, mds_mac } = domain;
    writeFileSync(file, domainXml(0, { name, uuid: domain_uuid, mac: mds_mac }));
    const { stdout } = await namespace.run('curl', [
      '--silent',
      '--show-error',
      ...['--max-time', '20'],
      ...['--write-out', '\n%{http_code}'],
      ...['--header', 'Accept: application/json'],
      ...['--data-binary', `@${file}`],
      `${metadata}/instance-upload`,
    ]);
    const lines = stdout.split('\n');
    return { status: Number(lines.at(-1)), body: lines.slice(0, -1).join('\n') };
  }

  const ask = (...question: string[]) => dig(resolver.run, gateway, ...question);

  return {
    namespace,
    folder,
    database,
    pidFile: join(folder, 'run', 'mds.pid'),
    daemon,
    startDnsmasq: (...more) =>
      startDnsmasq(
        (command, args) => start(settings.startWith?.dnsmasq ?? [], command, [...args, ...more]),
        folder,
      ),
    restart: async () => {
      site = await site.restart();
    },
    upload,
    addGuest: namespace.addGuest,
    resolve: (name, type = 'A') => ask('-t', type, '-q', name),
    resolveAll: (questions) => {
      const file = join(folder, 'questions');
      writeFileSync(file, questions.map((question) => `${question}\n`).join(''));
      return ask('-f', file);
    },
    reverse: (address) => ask('-x', address),
  };
}

async function get(guest: Namespace, path: string): Promise<string> {
  const { stdout, stderr, status } = await guest.run('curl', [
    '--silent',
    '--show-error',
    '--fail',
    ...['--max-time', '10'],
    metadata + path,
  ]);
  assert.equal(status, 0, stderr);
  return stdout;
}

/** What dnsmasq says when all is well. */
const harmless = [
  /^started, version /,
  /^compile time options: /,
  /^warning: no upstream servers configured$/,
  /^using (nameserver|only locally-known addresses for) \S+$/,
  /^cleared cache$/,
  /^DHCP, static leases only on 10\.122\.0\.1, lease time /,
  /^DHCP, sockets bound exclusively to interface br-mds$/,
  /^read \S+( - \d+ names)?$/,
  /^inotify: \S+ new or modified$/,
  /^inotify: flushed \d+ names read from \S+$/,
  /^DHCP(DISCOVER|OFFER|REQUEST|ACK|RELEASE)\(br-mds\) [0-9a-f:. ]*( [A-Za-z0-9_-]+)?$/,
];

function complaints({ log }: Dnsmasq): string[] {
  return log().filter((line) => !harmless.some((pattern) => pattern.test(line)));
}

// ---- DHCP ----

test('a guest gets its own address, routes, name and lease time, and reaches its metadata', {
  skip,
}, async (t) => {
  const host = await startHost(t, { dnsmasq: 'user = root\nlease_len = 7200' });
  const accepted = await host.namespace.run('dnsmasq', [
    '--test',
    `--conf-file=${host.folder}/dnsmasq/mds.conf`,
  ]);
  assert.deepEqual(
    { status: accepted.status, output: accepted.stderr },
    { status: 0, output: 'dnsmasq: syntax check OK.\n' },
  );
  const dnsmasq = await host.startDnsmasq();
  const { status, body } = await host.upload(record(1, 'web1'));
  assert.equal(status, 200);
  const address = (JSON.parse(body) as DatabaseRecord).mds_ipv4;

  const guest = host.addGuest(mac(1));
  const lease = await askForLease(host, guest);
  assert.deepEqual(lease, {
    ip: address,
    mask: '16',
    subnet: '255.255.0.0',
    broadcast: '10.122.255.255',
    router: gateway,
    staticroutes: `169.254.169.254/32 ${gateway} 0.0.0.0/0 ${gateway}`,
    hostname: 'web1',
    lease: '7200',
    // use_dns is off: dnsmasq says that it is a DNS server where nobody says anything else.
    dns: gateway,
    serverid: gateway,
    siaddr: gateway,
    opt53: '05',
    opt58: '00000e10',
    opt59: '0000189c',
  });
  useLease(guest, lease);
  assert.equal(await get(guest, '/latest/meta-data/hostname'), 'web1');
  assert.equal(await get(guest, '/latest/meta-data/instance-id'), `i-${address}`);
  assert.deepEqual(complaints(dnsmasq), []);
});

test('a guest with dhclient gets the same', {
  skip: skip || missing('dhclient'),
}, async (t) => {
  const host = await startHost(t, { records: [record(1, 'web1')] });
  await host.startDnsmasq();
  const guest = host.addGuest(mac(1));
  const given = await runDhclient(guest, host.folder, '-4', {
    configuration: `option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;
request subnet-mask, routers, host-name, dhcp-lease-time, rfc3442-classless-static-routes;
timeout 10;
`,
  });
  const unimportant = /^(expiry|dhcp_message_type|dhcp_re\w+_time|network_number|next_server)$/;
  assert.deepEqual(
    Object.fromEntries(Object.entries(given ?? {}).filter(([name]) => !unimportant.test(name))),
    {
      broadcast_address: '10.122.255.255',
      dhcp_lease_time: '86400',
      dhcp_server_identifier: gateway,
      host_name: 'web1',
      ip_address: '10.122.1.3',
      rfc3442_classless_static_routes: '32 169 254 169 254 10 122 0 1 0 10 122 0 1',
      routers: gateway,
      subnet_mask: '255.255.0.0',
    },
  );
});

test('a MAC that is no instance gets no lease', { skip }, async (t) => {
  const host = await startHost(t, { records: [record(1, 'web1')] });
  const dnsmasq = await host.startDnsmasq();
  assert.equal(await askForLease(host, host.addGuest(mac(2))), undefined);
  assert.ok(dnsmasq.log().includes(`DHCPDISCOVER(br-mds) ${mac(2)} no address available`));
});

test('copies of a disk, with one machine-id and so one client identifier, get an address each', {
  skip,
}, async (t) => {
  const host = await startHost(t, { records: [record(1, 'web1'), record(2, 'web2')] });
  const dnsmasq = await host.startDnsmasq();
  const guests = [host.addGuest(mac(1)), host.addGuest(mac(2))];
  // Each twice: while nobody has a lease of the identifier, and while the other one has.
  for (const round of [1, 2]) {
    for (const [index, guest] of guests.entries()) {
      const lease = await askForLease(host, guest, '-x', '0x3d:ff56504d980002000000ab11');
      assert.equal(lease?.['ip'], `10.122.1.${index + 3}`, `round ${round}`);
    }
  }
  assert.deepEqual(complaints(dnsmasq), []);
});

test('use_dns and domain reach the client as options 6 and 15', { skip }, async (t) => {
  const host = await startHost(t, {
    dnsmasq: 'user = root\nuse_dns = yes\ndomain = example.com',
    records: [record(1, 'web1')],
  });
  const dnsmasq = await host.startDnsmasq();
  const lease = await askForLease(host, host.addGuest(mac(1)));
  assert.deepEqual(
    { dns: lease?.['dns'], domain: lease?.['domain'], hostname: lease?.['hostname'] },
    { dns: gateway, domain: 'example.com', hostname: 'web1' },
  );
  assert.deepEqual(complaints(dnsmasq), []);
});

test('use_dns=no changes nothing: dnsmasq itself advertises its address, and no domain', {
  skip,
}, async (t) => {
  const host = await startHost(t, {
    dnsmasq: 'user = root\nuse_dns = no\ndomain = no',
    records: [record(1, 'web1')],
  });
  await host.startDnsmasq();
  const lease = await askForLease(host, host.addGuest(mac(1)));
  assert.deepEqual(
    { dns: lease?.['dns'], domain: lease?.['domain'] },
    { dns: gateway, domain: undefined },
  );
});

test('a name that a guest claims for itself counts neither for DHCP nor for DNS', {
  skip,
}, async (t) => {
  const host = await startHost(t, { records: [record(1, 'web1'), record(2, '0123')] });
  await host.startDnsmasq();
  for (const number of [1, 2]) {
    const lease = await askForLease(host, host.addGuest(mac(number)), '-x', 'hostname:evil');
    assert.equal(lease?.['hostname'], number === 1 ? 'web1' : '0123');
  }
  assert.deepEqual(await host.resolve('evil'), []);
});

// ---- DNS ----

test('each name of an instance has its addresses, and they have the first name', {
  skip,
}, async (t) => {
  const host = await startHost(t, {
    dnsmasq: `user = root
prefix = vm-
domain = example.com
entry_order = prefix, base, domain`,
    records: [{ ...record(1, 'web1'), mds_ipv6: 'fd00::5' }, record(2, 'web2')],
  });
  const dnsmasq = await host.startDnsmasq();
  for (const name of ['web1', 'vm-web1', 'vm-web1.example.com']) {
    assert.deepEqual(await host.resolve(name), ['10.122.1.3'], name);
    assert.deepEqual(await host.resolve(name, 'AAAA'), ['fd00::5'], name);
  }
  assert.deepEqual(await host.resolve('web2'), ['10.122.1.4']);
  assert.deepEqual(await host.reverse('10.122.1.3'), ['vm-web1.example.com.']);
  assert.deepEqual(await host.reverse('fd00::5'), ['vm-web1.example.com.']);
  assert.deepEqual(await host.reverse('10.122.1.4'), ['vm-web2.example.com.']);
  assert.deepEqual(await host.resolve('web3'), []);
  assert.deepEqual(complaints(dnsmasq), []);
});

// ---- changes while it runs ----

test('with listen_address, dnsmasq serves guests and leaves the ports of the host’s own resolver alone', {
  skip,
}, async (t) => {
  const host = await startHost(t, {
    dnsmasq: 'user = root\nlisten_address = 10.122.0.1',
    records: [record(1, 'web1')],
  });
  await host.startDnsmasq();
  const guest = host.addGuest(mac(1));
  assert.equal((await askForLease(host, guest))?.['ip'], '10.122.1.3');
  assert.deepEqual(await host.resolve('web1'), ['10.122.1.3']);
  const { stdout } = await host.namespace.run('ss', ['-Hlntu', 'sport = :53']);
  const addresses = stdout
    .split('\n')
    .flatMap((line) => line.trim().split(/\s+/)[4] ?? [])
    // The bridge has its link-local one some seconds after it is made.
    .filter((address) => !address.startsWith('[fe80:'));
  assert.deepEqual([...new Set(addresses)].sort(), ['10.122.0.1:53', '169.254.169.254:53']);
});

test('a guest with an address of a part of the bridge’s network has the mask of all of it, and a gateway outside of the part', {
  skip,
}, async (t) => {
  const host = await startHost(t, {
    dnsmasq:
      'user = root\nnet_address = 10.122.128.0\nnet_prefix = 255.255.128.0\ngateway = 10.122.0.1',
  });
  await host.startDnsmasq();
  const { status, body } = await host.upload(record(1, 'web1'));
  assert.equal(status, 200);
  const { mds_ipv4 } = JSON.parse(body);
  const [, , third] = mds_ipv4.split('.').map(Number);
  assert.ok(third >= 128, mds_ipv4);
  const guest = host.addGuest(mac(1));
  const lease = await askForLease(host, guest);
  assert.deepEqual(
    [lease?.['ip'], lease?.['subnet'], lease?.['router']],
    [mds_ipv4, '255.255.0.0', gateway],
  );
  assert.deepEqual(await host.resolve('web1'), [mds_ipv4]);
  assert.deepEqual(await host.reverse(mds_ipv4), ['web1.']);
});

test('names with underscores, in a prefix and a domain, too, are in DNS as the Python server had them', {
  skip,
}, async (t) => {
  const names = ['db_1', 'vagrant_default'];
  const host = await startHost(t, {
    dnsmasq:
      'user = root\nprefix = vm_\ndomain = lab_1.example\nentry_order = basename, prefix, domain',
    records: names.map((name, index) => record(index + 1, name)),
  });
  await host.startDnsmasq();
  for (const [index, name] of names.entries()) {
    const { mds_ipv4, mds_mac } = record(index + 1, name);
    const lease = await askForLease(host, host.addGuest(mds_mac));
    assert.deepEqual([lease?.['ip'], lease?.['hostname']], [mds_ipv4, name]);
    for (const form of [name, `vm_${name}`, `vm_${name}.lab_1.example`]) {
      assert.deepEqual(await host.resolve(form), [mds_ipv4], form);
    }
  }
});

test('of two records with one MAC address, the guest has that of the last, with the lines of Python, too', {
  skip,
}, async (t) => {
  const records = [record(1, 'before'), { ...record(2, 'after'), mds_mac: mac(1) }];
  const host = await startHost(t, { records });
  const lease = { ip: '10.122.1.4', hostname: 'after' };
  const guest = host.addGuest(mac(1));
  const leased = async () => {
    const { ip, hostname } = (await askForLease(host, guest)) ?? {};
    return { ip, hostname };
  };
  const dnsmasq = await host.startDnsmasq();
  assert.deepEqual(await leased(), lease);

  const line = ({ mds_mac, mds_ipv4, domain_name }: DatabaseRecord) =>
    `${mds_mac},id:*,${mds_ipv4},${domain_name},86400\n`;
  writeFileSync(join(host.folder, 'dnsmasq/dhcp/mds.dhcp-hosts'), records.map(line).join(''));
  const before = dnsmasq.rounds();
  dnsmasq.process.kill('SIGHUP');
  await eventually('dnsmasq has read them', () => dnsmasq.rounds() > before);
  assert.deepEqual(await leased(), lease);
});

test('an upload is served at the next request, with no restart of dnsmasq', { skip }, async (t) => {
  const host = await startHost(t);
  const dnsmasq = await host.startDnsmasq();
  for (const number of [1, 2, 3]) {
    const { status, body } = await host.upload(record(number, `web${number}`));
    assert.equal(status, 200);
    const address = (JSON.parse(body) as DatabaseRecord).mds_ipv4;
    const lease = await askForLease(host, host.addGuest(mac(number)));
    assert.equal(lease?.['ip'], address);
    assert.deepEqual(await host.resolve(`web${number}`), [address]);
    assert.deepEqual(await host.reverse(address), [`web${number}.`]);
  }
  // The same machine under another name.
  const { body } = await host.upload(record(3, 'renamed'));
  const address = (JSON.parse(body) as DatabaseRecord).mds_ipv4;
  assert.deepEqual(await host.resolve('renamed'), [address]);
  assert.deepEqual(await host.resolve('web3'), []);
  assert.deepEqual(await host.reverse(address), ['renamed.']);
  assert.equal(dnsmasq.process.exitCode, null);
  assert.deepEqual(complaints(dnsmasq), []);
});

test('an instance that is removed is gone from DHCP and DNS, its name in a lease too', {
  skip,
}, async (t) => {
  const records = [record(1, 'web1'), record(2, 'web2')];
  const host = await startHost(t, { records });
  const dnsmasq = await host.startDnsmasq();
  const guests = [host.addGuest(mac(1)), host.addGuest(mac(2))] as const;
  assert.equal((await askForLease(host, guests[0]))?.['ip'], '10.122.1.3');
  assert.equal((await askForLease(host, guests[1]))?.['ip'], '10.122.1.4');

  writeFileSync(host.database, JSON.stringify(records.slice(1)));
  host.daemon.process.kill('SIGHUP');
  const release = `DHCPRELEASE(br-mds) 10.122.1.3 ${mac(1)} `;
  await eventually('the lease is given back', () => dnsmasq.log().includes(release));

  assert.deepEqual(await host.resolve('web1'), []);
  assert.deepEqual(await host.reverse('10.122.1.3'), []);
  assert.equal(await askForLease(host, guests[0]), undefined);
  assert.deepEqual(await host.resolve('web2'), ['10.122.1.4']);
  assert.deepEqual(await host.reverse('10.122.1.4'), ['web2.']);
  assert.equal((await askForLease(host, guests[1]))?.['ip'], '10.122.1.4');
  assert.equal(dnsmasq.log().filter((line) => line.startsWith('DHCPRELEASE')).length, 1);
});

test('a machine with a lease that is renamed is gone under its old name, also if DHCP cannot give the new one', {
  skip,
}, async (t) => {
  const host = await startHost(t, {
    dnsmasq: 'user = root\ndomain = example.com',
    records: [record(1, 'web1')],
  });
  const dnsmasq = await host.startDnsmasq('--log-queries');
  const guest = host.addGuest(mac(1));
  const renames = [
    ['web1', 'web1'],
    ['web2', 'web2'],
    ['db.lab.example.com', undefined],
    ['12h', '12h'],
  ] as const;
  for (const [name, hostname] of renames) {
    assert.equal((await host.upload(record(1, name))).status, 200);
    const full = name.endsWith('.example.com') ? [name] : [name, `${name}.example.com`];
    await eventually(`${name} is the only name`, async () => {
      const names = [...(await namesOf(host, dnsmasq)).keys()];
      return names.sort().join() === full.sort().join();
    });
    const lease = await askForLease(host, guest);
    assert.deepEqual([lease?.['ip'], lease?.['hostname']], ['10.122.1.3', hostname]);
    assert.deepEqual([...(await namesOf(host, dnsmasq)).keys()].sort(), full.sort());
  }
});

test('a recreated machine gets the address that the old one of its name still leases', {
  skip,
}, async (t) => {
  const host = await startHost(t, { records: [record(1, 'web1')] });
  const dnsmasq = await host.startDnsmasq();
  assert.equal((await askForLease(host, host.addGuest(mac(1))))?.['ip'], '10.122.1.3');
  const { status, body } = await host.upload(record(2, 'web1'));
  assert.equal(status, 200);
  assert.equal((JSON.parse(body) as DatabaseRecord).mds_ipv4, '10.122.1.3');
  const lease = await askForLease(host, host.addGuest(mac(2)));
  assert.deepEqual(
    { ip: lease?.['ip'], hostname: lease?.['hostname'] },
    { ip: '10.122.1.3', hostname: 'web1' },
  );
  assert.deepEqual(await host.resolve('web1'), ['10.122.1.3']);
  assert.deepEqual(complaints(dnsmasq), []);
});

/** Files that somebody has left in dnsmasq's folders, or another network. Gives their paths. */
function leaveFiles({ folder }: Host): string[] {
  const dhcpLine = `${mac(2)},id:*,10.122.9.9,bad,60\n`;
  const files = {
    'lab.conf': 'conf-script=/bin/false\n',
    'lab.opts': 'option:router,10.122.9.9\n',
    'dhcp/lab.dhcp-hosts': dhcpLine,
    'dhcp/mds.dhcp-hosts.bak': dhcpLine,
    'dns/lab.dns-hosts': '10.122.9.9 bad\n',
    'dns/mds.dns-hosts.bak': '10.122.9.9 bad web1\n',
    'dns/mds.dns-hosts~': '10.122.9.9 bad web1\n',
  };
  return Object.entries(files).map(([name, text]) => {
    const path = join(folder, 'dnsmasq', name);
    writeFileSync(path, text);
    return path;
  });
}

/** What `mdserverctl check` finds about dnsmasq, a line for each finding but those of `ok`. */
async function checkDnsmasq({ namespace, folder }: Host): Promise<string[]> {
  const file = join(folder, 'mdserver.conf');
  const { stdout } = await namespace.run(process.execPath, [
    ...[program, '--config', file, 'check', '--json'],
  ]);
  return linesOf(JSON.parse(stdout), 'dnsmasq').filter((line) => !line.startsWith('ok: '));
}

test('files of another network, copies and half-written ones change nothing, and check names them', {
  skip,
}, async (t) => {
  const host = await startHost(t, { records: [record(1, 'web1')] });
  const base = join(host.folder, 'dnsmasq');
  const left = leaveFiles(host);
  writeFileSync(join(base, 'dhcp/.mds.dhcp-hosts.new'), `${mac(1)},id:*,10.122.9.9,bad,60\n`);
  writeFileSync(join(base, 'dns/.mds.dns-hosts.new'), '10.122.9.9 bad\n10.122.9.9 web1\n');
  const dnsmasq = await host.startDnsmasq();
  // And while it runs.
  const later = join(base, 'dns/old.dns-hosts');
  writeFileSync(later, '10.122.9.9 worse\n');
  assert.equal((await host.upload(record(3, 'web3'))).status, 200);
  assert.equal((await askForLease(host, host.addGuest(mac(1))))?.['ip'], '10.122.1.3');
  assert.equal(await askForLease(host, host.addGuest(mac(2))), undefined);
  assert.deepEqual(await host.resolve('web1'), ['10.122.1.3']);
  assert.deepEqual(await host.resolve('bad'), []);
  assert.deepEqual(await host.resolve('worse'), []);
  const own = ['dns/mds.dns-hosts', 'dhcp/mds.dhcp-hosts', 'mds.opts'];
  const read = dnsmasq.log().flatMap((line) => /^read \S+\/dnsmasq\/(\S+)/.exec(line)?.[1] ?? []);
  assert.deepEqual(new Set(read), new Set(own));
  assert.deepEqual(
    await checkDnsmasq(host),
    [...left, later].map(
      (path) =>
        `warning: ${path} is not a file of the network mds: its dnsmasq does not read it: remove it, unless another mdserver uses it`,
    ),
  );
});

test('a dnsmasq that has run since an older version, with its folders, goes on until it is started again', {
  skip,
}, async (t) => {
  const host = await startHost(t, { records: [record(1, 'web1')] });
  const configuration = join(host.folder, 'dnsmasq/mds.conf');
  const now = readFileSync(configuration, 'utf8');
  writeFileSync(
    configuration,
    now
      .replace(/^(dhcp-hostsfile=.*)\/.*$/m, '$1')
      .replace(/^addn-hosts(=.*)\/.*$/m, 'hostsdir$1')
      .replace(/^local=.*\n/gm, ''),
  );
  const old = await host.startDnsmasq();
  await host.restart();
  assert.equal(readFileSync(configuration, 'utf8'), now);
  const { body } = await host.upload(record(2, 'web2'));
  const address = (JSON.parse(body) as DatabaseRecord).mds_ipv4;
  assert.deepEqual(await host.resolve('web2'), [address]);
  assert.equal((await askForLease(host, host.addGuest(mac(2))))?.['ip'], address);
  assert.deepEqual(await checkDnsmasq(host), [
    `warning: process ${old.process.pid} runs with an older configuration: ${configuration} has changed since it started: systemctl restart mdserver-dnsmasq`,
  ]);

  old.process.kill('SIGTERM');
  await once(old.process, 'exit');
  await host.startDnsmasq();
  assert.deepEqual(await host.resolve('web2'), [address]);
  assert.deepEqual(await checkDnsmasq(host), []);
  // What has not changed is not written again.
  await host.restart();
  assert.deepEqual(await checkDnsmasq(host), []);
});

test('a dnsmasq that finds no hosts files when it starts has all with the next change', {
  skip,
}, async (t) => {
  const host = await startHost(t, { records: [record(1, 'web1')] });
  const files = ['dhcp/mds.dhcp-hosts', 'dns/mds.dns-hosts'];
  for (const name of files) rmSync(join(host.folder, 'dnsmasq', name));
  const dnsmasq = await host.startDnsmasq();
  assert.deepEqual(await host.resolve('web1'), []);
  const { body } = await host.upload(record(2, 'web2'));
  assert.deepEqual(await host.resolve('web1'), ['10.122.1.3']);
  assert.deepEqual(await host.resolve('web2'), [(JSON.parse(body) as DatabaseRecord).mds_ipv4]);
  assert.equal((await askForLease(host, host.addGuest(mac(1))))?.['ip'], '10.122.1.3');
  assert.equal(dnsmasq.process.exitCode, null);
});

// ---- odd names ----

test('whatever a domain is called: dnsmasq reads its files, the guest has its address and a name', {
  skip,
}, async (t) => {
  const long = 'x'.repeat(200);
  const names: readonly (readonly [string, string])[] = [
    ['web server_1', 'web-server_1'],
    ['web-server.1,infinite', 'web-server-1-infinite'],
    ['Ab--cd', 'ab--cd'],
    ['0123', '0123'],
    ['12h', '12h'],
    ['infinite', 'infinite'],
    ['ignore', 'ignore'],
    ['Tür 7 😀', 't-r-7'],
    ['日本', 'instance'],
    [long, 'x'.repeat(63)],
    ['a.b.c', 'a-b-c'],
    ['10.0.0.1', '10-0-0-1'],
    ['id:*,set:x', 'id-set-x'],
    ['#comment', 'comment'],
    ['tag:red', 'tag-red'],
    ['<&>"\'', 'instance-00000000'],
    ['localhost', 'localhost-00000000'],
    ['sp1', 'sp1'],
    ['sp1 ', 'sp1-00000000'],
  ];
  const host = await startHost(t);
  for (const [index, [name]] of names.entries()) {
    assert.equal((await host.upload(record(index, name))).status, 200, name);
  }
  const dnsmasq = await host.startDnsmasq();
  assert.deepEqual(complaints(dnsmasq), []);
  const known = JSON.parse(readFileSync(host.database, 'utf8')) as DatabaseRecord[];
  const found = await Promise.all(
    names.map(async ([name, hostname], index) => {
      const lease = await askForLease(host, host.addGuest(mac(index)));
      return [name, lease?.['ip'], lease?.['hostname'], await host.resolve(hostname)];
    }),
  );
  assert.deepEqual(
    found,
    names.map(([name, hostname], index) => {
      const address = known[index]?.mds_ipv4;
      return [name, address, hostname, [address]];
    }),
  );
  assert.deepEqual(complaints(dnsmasq), []);
});

/** The addresses of each name that dnsmasq has, by its own list, which cuts names at 30 characters. */
async function namesOf(host: Host, dnsmasq: Dnsmasq): Promise<Map<string, string[]>> {
  const start = dnsmasq.log().length;
  const list = () => dnsmasq.log().slice(start);
  dnsmasq.process.kill('SIGUSR1');
  await eventually('dnsmasq lists its names', () => list().some((line) => /^-+ -+ -+/.test(line)));
  await host.resolve('end-of-list');
  await eventually('the list ends', () => list().some((line) => line.includes('end-of-list')));
  const names = new Map<string, string[]>();
  for (const line of list()) {
    const [, name = '', address] = /^(\S+) +(\S+) +[46]F/.exec(line) ?? [];
    if (address !== undefined) names.set(name, [...(names.get(name) ?? []), address]);
  }
  return names;
}

test('whatever domains are called: each name that dnsmasq has is one machine’s, with its lease, too', {
  skip,
}, async (t) => {
  // Few names, of which many meet in some form.
  const name = fc
    .tuple(
      fc.constantFrom('a', 'aa', 'ab', 'A', 'b', '1', 'wpad', 'ä'),
      fc.constantFrom('', ' ', '.b', '.a.b'),
    )
    .map((parts) => parts.join(''));
  const settings = fc.record({
    prefix: fc.constantFrom('no', 'a', 'a'),
    domain: fc.constantFrom('no', 'b', 'b'),
    entry_order: fc.constantFrom('base', 'prefix', 'domain', 'prefix, base'),
  });
  await fc.assert(
    fc.asyncProperty(
      settings,
      fc.uniqueArray(name, { minLength: 16, maxLength: 16 }),
      async (options, domains) => {
        const lines = Object.entries(options).map((pair) => pair.join(' = '));
        const host = await startHost(t, {
          dnsmasq: ['user = root', ...lines].join('\n'),
          records: domains.map((domain, index) => ({
            ...record(index, domain),
            mds_ipv6: `fd00::${index + 1}`,
          })),
        });
        const dnsmasq = await host.startDnsmasq('--log-queries');
        const leases = await Promise.all(
          domains.map((_, index) => askForLease(host, host.addGuest(mac(index)))),
        );
        const machineOf = (address: string) =>
          address.startsWith('fd')
            ? Number(address.replace('fd00::', '')) - 1
            : Number(address.replace('10.122.1.', '')) - 2;
        const names = await namesOf(host, dnsmasq);
        for (const [known, addresses] of names) {
          assert.equal(new Set(addresses.map(machineOf)).size, 1, `${known}: ${addresses}`);
        }
        for (const [index, lease] of leases.entries()) {
          assert.equal(machineOf(lease?.['ip'] ?? ''), index);
          // A name in a subdomain is none that DHCP can give.
          const own = lease?.['hostname'];
          if (own === undefined) continue;
          assert.ok(names.get(own)?.map(machineOf).includes(index), own);
        }
      },
    ),
    { numRuns: 4, endOnFailure: true },
  );
});

// ---- names that are not a guest's ----

/** Another DNS server, which knows more addresses. */
interface Upstream {
  readonly address: string;
  /** What it has been asked up to now: type and name. */
  readonly asked: () => string[];
}

async function startUpstream({ namespace }: Host, addresses: readonly string[]): Promise<Upstream> {
  const child = namespace.start('dnsmasq', [
    ...['--conf-file=/dev/null', '--keep-in-foreground', '--log-facility=-', '--pid-file'],
    '--log-queries',
    ...['--listen-address=127.0.0.1', '--port=5300', '--bind-interfaces'],
    ...['--no-resolv', '--no-hosts', '--user=root'],
    ...addresses.map((address) => `--address=${address}`),
  ]);
  let said = '';
  child.stderr?.on('data', (chunk) => (said += chunk));
  await eventually('the other DNS server runs', () => said.includes('started'));
  return {
    address: '127.0.0.1#5300',
    asked: () =>
      Array.from(said.matchAll(/ query\[(\S+)\] (\S+) from /g), ([, type, name]) =>
        [type, name].join(' '),
      ),
  };
}

/** What the names resolve to, by name. */
async function resolvedBy(host: Host, names: readonly string[]): Promise<Record<string, string>> {
  const answers = await Promise.all(names.map((name) => host.resolve(name)));
  return Object.fromEntries(names.map((name, index) => [name, (answers[index] ?? []).join()]));
}

test('a name is one guest’s, however it is asked for, and only below the domain; the rest is asked elsewhere', {
  skip,
}, async (t) => {
  const names = [
    ...['guest1', 'guest1.example.com', 'github.com', 'foo', 'vmfoo', 'db.lab.example.com'],
    ...['localhost', 'wpad', 'isatap.example.com', 'instance-data', 'db.prod'],
  ];
  const host = await startHost(t, {
    records: names.map((name, index) => record(index, name)),
    dnsmasq: 'user = root\ndomain = example.com\nprefix = vm\nentry_order = base, prefix, domain',
  });
  const upstream = await startUpstream(host, ['/#/9.9.9.9', '/#/2620:fe::9']);
  const dnsmasq = await host.startDnsmasq(`--server=${upstream.address}`);
  // Guests cannot give themselves a name, either.
  const wishes = ['-x', 'hostname:wpad', '-F', 'wpad.example.com'];
  for (const index of names.keys()) await askForLease(host, host.addGuest(mac(index)), ...wishes);

  const address = (index: number) => record(index, '').mds_ipv4;
  const expected = {
    guest1: address(0),
    'guest1.example.com': address(0),
    vmguest1: address(0),
    'vmguest1.example.com': address(0),
    'guest1-00000000': address(1),
    'guest1-00000000.example.com': address(1),
    'github.com': '9.9.9.9',
    'www.github.com': '9.9.9.9',
    'github-com.example.com': address(2),
    foo: address(3),
    'VMFOO.example.com': address(3),
    'vmfoo-00000000': address(4),
    'db.lab.example.com': address(5),
    'db.prod': '9.9.9.9',
    'db-prod': address(10),
    db: '',
    'db.example.com': '',
    localhost: '',
    'localhost.example.com': '',
    'localhost-00000000': address(6),
    wpad: '',
    'wpad.example.com': '',
    isatap: '',
    'isatap.example.com': '',
    'instance-data': '',
    'nothing.example.com': '',
    nothing: '',
  };
  assert.deepEqual(await resolvedBy(host, Object.keys(expected)), expected);
  assert.deepEqual(await host.resolve('github.com', 'AAAA'), ['2620:fe::9']);
  assert.deepEqual(await host.resolve('guest1.example.com', 'AAAA'), []);
  assert.deepEqual(await host.resolve('guest1', 'AAAA'), []);
  assert.deepEqual(complaints(dnsmasq), []);
});

interface OwnNetwork {
  readonly prefix: number;
  readonly domain?: string;
  /** More lines of `[dnsmasq]`. */
  readonly lines?: string;
  readonly ipv6?: string;
  /** Addresses of the network. */
  readonly inside: readonly string[];
  /** Those beside it. */
  readonly outside: readonly string[];
}

for (const network of [
  {
    prefix: 16,
    inside: ['10.122.0.1', '10.122.9.9', '10.122.255.255'],
    outside: ['10.121.255.255', '10.123.0.0', '169.254.169.253', 'fd00:0:5::5'],
  },
  {
    prefix: 22,
    domain: 'Lab.example',
    lines: `prefix = vm-
entry_order = base, prefix, domain
net_address6 = fd00:0:5::
net_prefix6 = 65`,
    ipv6: 'fd00:0:5::5',
    inside: ['10.122.0.0', '10.122.3.255', 'fd00:0:5::6', 'fd00:0:5:0:7fff:ffff:ffff:ffff'],
    outside: ['10.122.4.0', '10.121.255.255', 'fd00:0:5:0:8000::', 'fd00:0:4:ffff::1'],
  },
  {
    prefix: 26,
    domain: 'lab',
    lines: 'entry_order = domain',
    inside: ['10.122.0.0', '10.122.0.63'],
    outside: ['10.122.0.64', '10.122.0.128', '10.121.255.255'],
  },
] satisfies OwnNetwork[] as OwnNetwork[]) {
  const { prefix, domain, lines = '', ipv6, inside, outside } = network;
  test(`no other DNS server is asked for what is the network’s: /${prefix}, ${domain ?? 'no domain'}`, {
    skip: skip || missing('unshare'),
  }, async (t) => {
    const web = { ...record(1, 'web'), mds_ipv4: '10.122.0.9' };
    const host = await startHost(t, {
      dnsmasq: `user = root\nnet_prefix = ${prefix}\ndomain = ${domain ?? 'no'}\n${lines}`,
      mdserver: 'listen_address = 169.254.169.254, fd00:ec2::254\nhost_names = seed',
      records: [ipv6 === undefined ? web : { ...web, mds_ipv6: ipv6 }],
    });
    const upstream = await startUpstream(host, ['/#/9.9.9.9']);
    await host.startDnsmasq(`--server=${upstream.address}`);
    const plain = ['web', 'WEB', 'vm-web', 'nothing', 'instance-data', 'seed', hostname()];
    const below = [...plain, 'a.b'].map((name) => `${name}.${domain}`);
    const names = domain === undefined ? plain : [...plain, ...below];
    const types = ['A', 'AAAA', 'TXT', 'MX', 'SRV', 'HTTPS', 'ANY', 'PTR', 'SOA', 'NS', 'CNAME'];
    const reverse = (address: string) => `-x ${address}`;
    await host.resolveAll([
      ...names.flatMap((name) => types.map((type) => `${name} ${type}`)),
      ...[...inside, '169.254.169.254', 'fd00:ec2::254'].map(reverse),
    ]);
    // Programs of a guest wait for a DNS server that does not answer: they must have no reason to.
    const guest = host.addGuest(mac(9));
    guest.ip('address add 10.122.0.60/16 dev eth0');
    const resolver = join(host.folder, 'resolv.conf');
    writeFileSync(resolver, `nameserver ${gateway}\n${domain ? `search ${domain}\n` : ''}`);
    const found = await Promise.all(
      ['web', 'nothing', '10.122.0.9', '10.122.0.10'].flatMap((key) =>
        ['hosts', 'ahosts'].map(async (database) => {
          const asGuest = `mount --bind ${resolver} /etc/resolv.conf && getent ${database} ${key}`;
          const { status } = await guest.run('unshare', ['--mount', 'sh', '-c', asGuest]);
          return [database, key, status];
        }),
      ),
    );
    assert.deepEqual(found, [
      ['hosts', 'web', 0],
      ['ahosts', 'web', 0],
      ['hosts', 'nothing', 2],
      ['ahosts', 'nothing', 2],
      ['hosts', '10.122.0.9', 0],
      ['ahosts', '10.122.0.9', 0],
      ['hosts', '10.122.0.10', 2],
      // An address needs no look-up.
      ['ahosts', '10.122.0.10', 0],
    ]);
    const askOutside = async (name: string) => {
      assert.deepEqual(await host.resolve(name), ['9.9.9.9']);
      await eventually(`${name} is asked elsewhere`, () => upstream.asked().includes(`A ${name}`));
    };
    await askOutside('www.example.org');
    assert.deepEqual(upstream.asked(), ['A www.example.org']);

    await host.resolveAll(outside.map(reverse));
    await askOutside('www.example.net');
    assert.equal(new Set(upstream.asked()).size, outside.length + 2, String(upstream.asked()));
  });
}

test('an address inside under a name from outside is dropped, except in domains that may have them', {
  skip,
}, async (t) => {
  const host = await startHost(t, {
    records: [record(1, 'web1')],
    dnsmasq: 'user = root\nprivate_domains = office.example',
  });
  const inside = ['10.122.1.3', '127.0.0.1', '169.254.169.254', '192.168.1.1', '0.0.0.0'];
  const upstream = await startUpstream(host, [
    ...inside.map((address, index) => `/rebound${index}.example/${address}`),
    ...[
      '/rebound.example/::1',
      '/rebound.example/fd00:ec2::254',
      '/rebound.example/::ffff:10.122.1.3',
    ],
    '/office.example/10.1.2.3',
    '/public.example/9.9.9.9',
  ]);
  const dnsmasq = await host.startDnsmasq(`--server=${upstream.address}`);
  const expected = {
    ...Object.fromEntries(inside.map((_, index) => [`rebound${index}.example`, ''])),
    'www.office.example': '10.1.2.3',
    'public.example': '9.9.9.9',
    web1: '10.122.1.3',
  };
  assert.deepEqual(await resolvedBy(host, Object.keys(expected)), expected);
  assert.deepEqual(await host.resolve('rebound.example', 'AAAA'), []);
  const refused = /^possible DNS-rebind attack detected: (.*)$/;
  assert.deepEqual(
    [...new Set(dnsmasq.log().flatMap((line) => refused.exec(line)?.[1] ?? []))].sort(),
    ['rebound.example', ...inside.map((_, index) => `rebound${index}.example`)],
  );
});

test('the host’s /etc/hosts is served to guests only if it is asked for', { skip }, async (t) => {
  const isListed = readFileSync('/etc/hosts', 'utf8')
    .split('\n')
    .some((line) => /^127\.0\.0\.1\s.*\blocalhost\b/.test(line));
  assert.ok(isListed, '/etc/hosts has localhost');
  for (const [use, expected] of [
    ['no', []],
    ['yes', ['127.0.0.1']],
  ] as const) {
    await t.test(`use_etc_hosts = ${use}`, async (t) => {
      const host = await startHost(t, { dnsmasq: `user = root\nuse_etc_hosts = ${use}` });
      await host.startDnsmasq();
      assert.deepEqual(await host.resolve('localhost'), expected);
    });
  }
});

// ---- a dnsmasq that is not there ----

test('a dnsmasq that was killed: its stale pid file does no harm, and a new one has all', {
  skip,
}, async (t) => {
  const host = await startHost(t);
  assert.equal((await host.upload(record(1, 'web1'))).status, 200);
  await host.daemon.printed(`dnsmasq is not running (no ${host.pidFile})`);

  const killed = await host.startDnsmasq();
  killed.process.kill('SIGKILL');
  await once(killed.process, 'exit');
  const pid = readFileSync(host.pidFile, 'utf8').trim();
  assert.equal(pid, String(killed.process.pid));
  const { status, body } = await host.upload(record(2, 'web2'));
  assert.equal(status, 200);
  await host.daemon.printed(`dnsmasq is not running: ${host.pidFile} names process ${pid}`);

  await host.startDnsmasq();
  const address = (JSON.parse(body) as DatabaseRecord).mds_ipv4;
  assert.equal((await askForLease(host, host.addGuest(mac(2))))?.['ip'], address);
  assert.deepEqual(await host.resolve('web2'), [address]);
});

test('a process that is not our dnsmasq is never signalled: the upload counts, the log says so', {
  skip,
}, async (t) => {
  const host = await startHost(t);
  mkdirSync(join(host.folder, 'run'), { recursive: true });
  // SIGHUP would end it. The second one is a dnsmasq, but one with a configuration of its own.
  const other = join(host.folder, 'other.conf');
  writeFileSync(other, 'port=0\n');
  const foreign = [
    host.namespace.start('sleep', ['60']),
    host.namespace.start('dnsmasq', [
      `--conf-file=${other}`,
      '--keep-in-foreground',
      '--pid-file',
      '--log-facility=-',
    ]),
  ];
  const said: string[] = [];
  for (const child of foreign) child.stderr?.on('data', (chunk) => said.push(String(chunk)));
  await eventually('the other dnsmasq runs', () => said.join('').includes('started'));
  for (const [index, child] of foreign.entries()) {
    writeFileSync(host.pidFile, `${child.pid}\n`);
    assert.equal((await host.upload(record(index, `web${index}`))).status, 200);
    await host.daemon.printed(`process ${child.pid} (from ${host.pidFile}) is not a dnsmasq with`);
    assert.deepEqual([child.exitCode, child.signalCode], [null, null]);
  }
  writeFileSync(host.pidFile, 'nonsense\n');
  assert.equal((await host.upload(record(3, 'web3'))).status, 200);
  await host.daemon.printed(`${host.pidFile} does not contain a process ID`);
  // What the other one has logged since its start: a SIGHUP makes it read /etc/hosts.
  assert.ok(!said.join('').includes('read /etc/hosts'), said.join(''));
});

// ---- many, and little rights ----

test('2,000 instances: each is in DNS, one of them and a new one get their lease', {
  skip,
}, async (t) => {
  const records = Array.from({ length: 2000 }, (_, index) => record(index, `web${index}`));
  const host = await startHost(t, { records });
  const dnsmasq = await host.startDnsmasq();
  const { status, body } = await host.upload(record(2000, 'web2000'));
  assert.equal(status, 200);
  const address = (JSON.parse(body) as DatabaseRecord).mds_ipv4;
  const leases = await Promise.all(
    [1999, 2000].map((number) => askForLease(host, host.addGuest(mac(number)))),
  );
  assert.deepEqual(
    leases.map((lease) => [lease?.['ip'], lease?.['hostname']]),
    [
      ['10.122.8.251', 'web1999'],
      [address, 'web2000'],
    ],
  );
  assert.deepEqual(
    await host.resolveAll(records.map(({ domain_name }) => `${domain_name} A`)),
    records.map(({ mds_ipv4 }) => mds_ipv4),
  );
  assert.deepEqual(complaints(dnsmasq), []);
});

test('both run as an ordinary user, with the rights and the file system that their units give them', {
  skip: skip || missing('setpriv', 'python'),
}, async (t) => {
  const nobody = 65534;
  // ProtectSystem=strict, ProtectProc=invisible and ProcSubset=pid: all is read-only but the folder
  // that the state is in.
  const sandbox = (more = '') => `
    set -e
    mount --make-rprivate /
    mount --bind "\${TMPDIR:-/tmp}" "\${TMPDIR:-/tmp}"
    mount -o remount,bind,ro /
    mount -t proc -o subset=pid,hidepid=2 proc /proc
    if touch /etc/mdserver-test 2>/dev/null; then exit 1; fi
    umask 077
    ${more}
    exec "$@"`;
  // TemporaryFileSystem= and BindReadOnlyPaths=, and RestrictAddressFamilies= without AF_UNIX.
  const ownFilesOnly = `
    for argument; do
      case $argument in --conf-file=*) state=\${argument#*=}; state=\${state%/dnsmasq/*} ;; esac
    done
    mount --bind "$state/dnsmasq" /mnt
    mount --bind "$state/run" /srv
    mount -t tmpfs tmpfs "$state"
    mkdir "$state/dnsmasq" "$state/run"
    mount --bind /mnt "$state/dnsmasq"
    mount --bind /srv "$state/run"
    chmod 755 "$state"`;
  const withoutUnixSockets = `
import ctypes, os, platform, struct, sys
socket = {'x86_64': 41, 'aarch64': 198}[platform.machine()]
load, equal, end = 0x20, 0x15, 0x06
code = [(load, 0, 0, 0), (equal, 0, 3, socket), (load, 0, 0, 16), (equal, 0, 1, 1),
        (end, 0, 0, 0x50000 | 97), (end, 0, 0, 0x7fff0000)]
text = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *line) for line in code))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', len(code), ctypes.addressof(text)))
if ctypes.CDLL(None).prctl(22, 2, program, 0, 0): sys.exit('no seccomp')
os.execvp(sys.argv[1], sys.argv[1:])`;
  const as = (confinement: string, ...capabilities: string[]) => {
    const all = capabilities.map((name) => `+${name}`).join(',');
    const rights = ['--inh-caps', '--ambient-caps', '--bounding-set'].flatMap((option) => [
      option,
      `-all,${all}`,
    ]);
    const user = [`--reuid=${nobody}`, `--regid=${nobody}`, '--clear-groups', '--no-new-privs'];
    return ['unshare', '--mount', 'sh', '-c', confinement, 'sh', 'setpriv', ...user, ...rights];
  };
  const host = await startHost(t, {
    dnsmasq: 'user = nobody',
    prepare: (folder) => {
      for (const name of ['', 'db.json', 'userdata']) chownSync(join(folder, name), nobody, nobody);
    },
    startWith: {
      daemon: as(sandbox(), 'net_bind_service'),
      dnsmasq: [
        ...as(sandbox(ownFilesOnly), 'net_bind_service', 'net_admin', 'net_raw'),
        ...[python, '-c', withoutUnixSockets],
      ],
    },
  });
  const dnsmasq = await host.startDnsmasq();
  const pid = readFileSync(host.pidFile, 'utf8').trim();
  const seen = readdirSync(`/proc/${pid}/root${host.folder}`).sort();
  assert.deepEqual(seen, ['dnsmasq', 'run']);
  const { status, body } = await host.upload(record(1, 'web1'));
  assert.equal(status, 200);
  const lease = await askForLease(host, host.addGuest(mac(1)));
  assert.equal(lease?.['ip'], (JSON.parse(body) as DatabaseRecord).mds_ipv4);
  assert.deepEqual(await host.resolve('web1'), [lease?.['ip']]);
  assert.deepEqual(complaints(dnsmasq), []);
});

test('a dnsmasq that root starts and that changes to another user reads all', {
  skip,
}, async (t) => {
  const host = await startHost(t, {
    dnsmasq: 'user = nobody',
    prepare: (folder) => chmodSync(folder, 0o755),
  });
  const dnsmasq = await host.startDnsmasq();
  const { status, body } = await host.upload(record(1, 'web1'));
  assert.equal(status, 200);
  const lease = await askForLease(host, host.addGuest(mac(1)));
  assert.equal(lease?.['ip'], (JSON.parse(body) as DatabaseRecord).mds_ipv4);
  assert.deepEqual(complaints(dnsmasq), []);
});
