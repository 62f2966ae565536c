import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { eventually } from './support/daemon.js';
import { runDhclient } from './support/dhclient.js';
import { type Dnsmasq, startDnsmasq } from './support/dnsmasq.js';
import { addHost, type Namespace } from './support/netns.js';
import { missing } from './support/parts.js';
import { domainXml, mac } from './support/samples.js';
import { type Site, startSite } from './support/site.js';
import { askForLease, type Lease, useLease } from './support/udhcpc.js';

// What domains choose, and what the operator sets, as real clients of DHCP get it from a real dnsmasq.

const skip = missing('netns', 'dnsmasq', 'udhcpc', 'curl');

const gateway = '10.122.0.1';

interface Host extends Site {
  readonly dnsmasq: Dnsmasq;
  readonly addGuest: (number: number) => Namespace;
  /** Uploads the domain with this number and metadata; gives its address. */
  readonly upload: (number: number, metadata?: Record<string, string>) => Promise<string>;
}

async function startHost(t: TestContext, dnsmasq = '', sections = ''): Promise<Host> {
  const host = addHost(t);
  const site = await startSite(t, host, {
    dnsmasq: `user = root\n${dnsmasq}`,
    mdserver: 'network_config = yes',
    sections,
  });
  return {
    ...site,
    dnsmasq: await startDnsmasq(host.start, site.folder),
    addGuest: (number) => host.addGuest(mac(number)),
    upload: async (number, metadata = {}) => {
      const { status, text } = await site.ask('/instance-upload', {
        method: 'POST',
        headers: { accept: 'application/json' },
        body: domainXml(number, { metadata }),
      });
      assert.equal(status, 200, text);
      return JSON.parse(text).mds_ipv4;
    },
  };
}

/** Asks with these options beside the usual ones; gives what it got of them. */
async function asked(
  host: Host,
  guest: Namespace,
  ...names: string[]
): Promise<Record<string, string | undefined>> {
  const lease = await askForLease(host, guest, ...names.flatMap((name) => ['-O', name]));
  assert.ok(lease, 'a lease');
  return Object.fromEntries(names.map((name) => [name, lease[name] ?? lease[`opt${name}`]]));
}

async function get(guest: Namespace, path: string): Promise<string> {
  const { status, stdout, stderr } = await guest.run('curl', [
    ...['--silent', '--show-error', '--fail', '--max-time', '10'],
    `http://169.254.169.254${path}`,
  ]);
  assert.equal(status, 0, stderr);
  return stdout;
}

const complaint = /bad |illegal|error|too long|cannot/;

function complaints({ dnsmasq }: Host): string[] {
  return dnsmasq.log().filter((line) => complaint.test(line));
}

// ---- options ----

test('a guest gets the options of its domain, else those for all, and no others', {
  skip,
}, async (t) => {
  const host = await startHost(
    t,
    '',
    '[dhcp-options]\nntp-server = 10.122.0.1\nmtu = 1450\n225 = all\n',
  );
  await host.upload(1, {
    dhcp_options:
      'ntp-server=10.122.0.9, 10.122.0.8; domain-search=a.example,b.example; tzdb-timezone=Europe/Berlin; bootfile-name=10.122.0.1:/srv,rw; 224=a"b#c\\,; 226=7; 227=10.0.0.1; 228=01:ff; router=10.122.0.66; 225=x\n6=10.122.0.53',
  });
  await host.upload(2);
  const names = ['ntpsrv', 'mtu', 'search', 'tzdbstr', 'bootfile', 'dns', 'router'];
  const numbers = ['224', '225', '226', '227', '228'];
  assert.deepEqual(await asked(host, host.addGuest(1), ...names, ...numbers), {
    ntpsrv: '10.122.0.9 10.122.0.8',
    mtu: '1450',
    search: 'a.example b.example',
    tzdbstr: 'Europe/Berlin',
    bootfile: '10.122.0.1:/srv,rw',
    dns: '10.122.0.53',
    router: gateway,
    '224': '61226223635c2c',
    '225': '78',
    '226': '07',
    '227': '0a000001',
    '228': '01ff',
  });
  assert.deepEqual(await asked(host, host.addGuest(2), ...names, ...numbers), {
    ntpsrv: gateway,
    mtu: '1450',
    search: undefined,
    tzdbstr: undefined,
    bootfile: undefined,
    dns: gateway,
    router: gateway,
    '224': undefined,
    '225': '616c6c',
    '226': undefined,
    '227': undefined,
    '228': undefined,
  });
  assert.deepEqual(complaints(host), []);
});

test('options follow an upload, a reload and a restart, without a restart of dnsmasq', {
  skip,
}, async (t) => {
  const host = await startHost(t);
  await host.upload(1);
  const guest = host.addGuest(1);
  const mtu = async () => (await asked(host, guest, 'mtu'))['mtu'];
  assert.equal(await mtu(), undefined);

  const file = join(host.folder, 'mdserver.conf');
  writeFileSync(file, `${readFileSync(file, 'utf8')}\n[dhcp-options]\nmtu = 1450\n`);
  const rounds = host.dnsmasq.rounds();
  host.daemon.process.kill('SIGHUP');
  await eventually('dnsmasq has read its files', () => host.dnsmasq.rounds() > rounds);
  assert.equal(await mtu(), '1450');

  const before = host.dnsmasq.rounds();
  await host.upload(1, { dhcp_options: 'mtu=9000' });
  await eventually('dnsmasq has read its files', () => host.dnsmasq.rounds() > before);
  assert.equal(await mtu(), '9000');
  const again = await host.restart();
  assert.match(
    readFileSync(join(again.folder, 'dnsmasq/mds.opts'), 'utf8'),
    /\ntag:i525400000001,option:mtu,9000\n$/,
  );
});

// ---- the default route ----

/** The routes of a guest with a lease, as it has them then. */
async function routesOf(guest: Namespace, lease: Lease): Promise<string[]> {
  useLease(guest, lease);
  const { stdout } = await guest.run('ip', ['route', 'show']);
  return stdout
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .sort();
}

for (const [what, dnsmasq, one, other] of [
  ['one guest', '', { default_route: 'no' }, {}],
  ['all guests but one', 'default_route = no', {}, { default_route: 'yes' }],
] as const) {
  test(`${what} get no default route, and their metadata all the same`, { skip }, async (t) => {
    const host = await startHost(t, dnsmasq);
    const address = await host.upload(1, one);
    const otherAddress = await host.upload(2, other);
    const without = host.addGuest(1);
    const lease = await askForLease(host, without, '-O', 'msstaticroutes');
    assert.ok(lease);
    assert.deepEqual(
      ['ip', 'router', 'staticroutes', 'msstaticroutes'].map((name) => lease[name]),
      [address, undefined, `169.254.169.254/32 ${gateway}`, `169.254.169.254/32 ${gateway}`],
    );
    assert.deepEqual(await routesOf(without, lease), [
      `10.122.0.0/16 dev eth0 proto kernel scope link src ${address}`,
      `169.254.169.254 via ${gateway} dev eth0`,
    ]);
    assert.equal(await get(without, '/latest/meta-data/instance-id'), `i-${address}`);
    // They only say DHCP, and so no route that the lease does not have.
    assert.equal(
      await get(without, '/nocloud/network-config'),
      `version: 2\nethernets:\n  mds:\n    match:\n      macaddress: "${mac(1)}"\n    dhcp4: true\n    dhcp6: false\n`,
    );
    const { networks, services } = JSON.parse(
      await get(without, '/openstack/latest/network_data.json'),
    );
    assert.deepEqual(
      [
        networks.map((network: { type: string; routes?: unknown }) => [
          network.type,
          network.routes,
        ]),
        services,
      ],
      [[['ipv4_dhcp', undefined]], []],
    );

    const withRoute = host.addGuest(2);
    const full = await askForLease(host, withRoute);
    assert.ok(full);
    assert.equal(full['router'], gateway);
    assert.ok((await routesOf(withRoute, full)).includes(`default via ${gateway} dev eth0`));
    assert.equal(await get(withRoute, '/latest/meta-data/instance-id'), `i-${otherAddress}`);
    assert.deepEqual(complaints(host), []);
  });
}

test('a guest with dhclient gets no default route either', {
  skip: skip || missing('dhclient'),
}, async (t) => {
  const host = await startHost(t);
  await host.upload(1, { default_route: 'no', dhcp_options: 'ntp-server=10.122.0.9' });
  const given = await runDhclient(host.addGuest(1), host.folder, '-4', {
    configuration: `option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;
request subnet-mask, routers, ntp-servers, rfc3442-classless-static-routes;
timeout 10;
`,
  });
  assert.deepEqual(
    ['routers', 'ntp_servers', 'rfc3442_classless_static_routes'].map((name) => given?.[name]),
    [undefined, '10.122.0.9', '32 169 254 169 254 10 122 0 1'],
  );
});

// ---- a chosen address ----

test('a guest moves to the address that its domain chooses, and keeps its own if that is taken', {
  skip,
}, async (t) => {
  const host = await startHost(t, 'reserved = 10.122.0.2-10.122.0.99');
  const random = await host.upload(1);
  const guest = host.addGuest(1);
  assert.equal((await askForLease(host, guest))?.['ip'], random);

  const rounds = host.dnsmasq.rounds();
  assert.equal(await host.upload(1, { ipv4: '10.122.0.50' }), '10.122.0.50');
  await eventually('dnsmasq has read its files', () => host.dnsmasq.rounds() > rounds);
  // The lease of the old address has ended: to ask for it is refused, and the chosen one comes.
  await eventually('the lease is released', () =>
    host.dnsmasq.log().some((line) => line.startsWith(`DHCPRELEASE(br-mds) ${random} ${mac(1)}`)),
  );
  const moved = await askForLease(host, guest, '-r', random);
  assert.equal(moved?.['ip'], '10.122.0.50');
  guest.ip(`address flush dev eth0`);
  useLease(guest, moved ?? {});
  assert.equal(await get(guest, '/latest/meta-data/local-ipv4'), '10.122.0.50');

  const second = await host.upload(2);
  const refused = await host.ask('/instance-upload', {
    method: 'POST',
    body: domainXml(2, { metadata: { ipv4: '10.122.0.50' } }),
  });
  assert.equal(refused.status, 400);
  assert.equal((await askForLease(host, host.addGuest(2)))?.['ip'], second);
  assert.equal((await askForLease(host, guest))?.['ip'], '10.122.0.50');
});
