import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { BootRecord, InstanceDetails } from '../src/control/api.js';
import { temporaryFolder } from './support/cleanup.js';
import { runCloudInit } from './support/cloud-init-site.js';
import { eventually, startDaemon } from './support/daemon.js';
import { runDhclient } from './support/dhclient.js';
import { dig } from './support/dig.js';
import { type Dnsmasq, startDnsmasq } from './support/dnsmasq.js';
import { addHost, type Namespace } from './support/netns.js';
import { missing, python } from './support/parts.js';
import { domainXml, mac, uuid } from './support/samples.js';
import { startSite } from './support/site.js';

// IPv6 as a guest has it: the router advertisement of the kernel's own reckoning, the address from
// DHCPv6 by a real client, DNS and the metadata over IPv6 alone.

const skip = missing('netns', 'dnsmasq', 'dhclient', 'dig', 'curl');

const router = 'fd00:122::1';
const metadata = 'http://[fd00:ec2::254]';

interface Uploaded {
  readonly mds_ipv4: string;
  readonly mds_ipv6: string | null;
}

interface Host {
  readonly folder: string;
  readonly addGuest: (number: number) => Promise<Namespace>;
  /** Uploads a domain with curl: its name, and the number in its MAC and uuid. */
  readonly upload: (name: string, number: number) => Promise<Uploaded>;
  /** It logs to where mdserver reads it. */
  readonly startDnsmasq: () => Promise<Dnsmasq>;
  /** The same, as libvirt's hook does it when the domain starts. */
  readonly boot: (name: string, number: number) => Promise<Uploaded>;
  readonly boots: (name: string) => Promise<readonly BootRecord[]>;
  readonly remove: (name: string) => Promise<void>;
  /** The requests up to now that did not come from the host. */
  readonly requests: () => string[];
  readonly restart: () => Promise<void>;
}

/** For a guest that takes itself for one of EC2. */
const ec2Uuid = (number: number) => uuid(number).replace('00000000', 'ec200000');

/** A host with mdserver and these options of `[dnsmasq]`, that has its addresses of both kinds. */
async function startHost(t: TestContext, options: string): Promise<Host> {
  const host = addHost(t);
  // A bridge without a guest has no carrier: an address that the kernel first has to look for
  // among neighbours (RFC 4862 5.4) could not be listened on before there is one.
  for (const address of ['fd00:ec2::254/128', `${router}/64`]) {
    host.ip(`address add ${address} dev br-mds nodad`);
  }

  let site = await startSite(t, host, {
    mdserver: 'listen_address = 169.254.169.254, [fd00:ec2::254]',
    dnsmasq: `user = root\ndomain = example.net\n${options}`,
  });
  const { folder } = site;

  return {
    folder,
    addGuest: async (number) => {
      const guest = host.addGuest(mac(number));
      const list = ['-6', 'address', 'show', 'dev', 'eth0', 'scope', 'link', '-tentative'];
      await eventually('the guest has its link-local address', async () =>
        (await guest.run('ip', list)).stdout.includes('fe80:'),
      );
      return guest;
    },
    upload: async (name, number) => {
      const xml = domainXml(number, { name, uuid: ec2Uuid(number) });
      const { stdout, stderr } = await host.run('curl', [
        ...['--silent', '--show-error', '--fail', '--header', 'Accept: application/json'],
        ...['--data-binary', xml, 'http://169.254.169.254/instance-upload'],
      ]);
      assert.equal(stderr, '');
      return JSON.parse(stdout) as Uploaded;
    },
    boot: async (name, number) => {
      const { status, body } = await site.json('/instance-upload', {
        method: 'POST',
        headers: { 'x-libvirt-operation': 'prepare', accept: 'application/json' },
        body: domainXml(number, { name, uuid: ec2Uuid(number) }),
      });
      assert.equal(status, 200);
      return body as Uploaded;
    },
    boots: async (name) => ((await site.json(`/instances/${name}`)).body as InstanceDetails).boots,
    remove: async (name) => {
      const { status } = await site.ask(`/instances/${name}`, { method: 'DELETE' });
      assert.equal(status, 200);
    },
    startDnsmasq: () => startDnsmasq(host.start, folder, join(folder, 'mdserver-dnsmasq.log')),
    requests: () =>
      [...site.daemon.output().matchAll(/(?:GET|PUT) \/\S* \d{3} /g)].map(([text]) => text.trim()),
    restart: async () => {
      site = await site.restart();
    },
  };
}

/** What dhclient is told about an address; undefined where it is given none. */
function askForAddress(
  { folder }: Host,
  guest: Namespace,
  {
    duid,
    release = false,
    timeout = 5,
  }: { readonly duid?: string; readonly release?: boolean; readonly timeout?: number } = {},
) {
  return runDhclient(guest, folder, '-6', {
    configuration: `timeout ${timeout};\n`,
    // A client that has never had a lease, but perhaps an identifier already.
    leases: duid === undefined ? '' : `default-duid "${duid}";\n`,
    release,
  });
}

const withIpv6 = 'net_address6 = fd00:122::\nnet_prefix6 = 64';

test('a guest gets its IPv6 address by DHCPv6 and DNS has it; over IPv6 alone it boots from it', {
  skip: skip || missing('cloud-init'),
}, async (t) => {
  const host = await startHost(t, withIpv6);
  await host.startDnsmasq();
  const { mds_ipv6: address } = await host.upload('web1', 1);
  assert.ok(address);
  assert.match(address, /^fd00:122::/);

  const guest = await host.addGuest(1);
  const lease = await askForAddress(host, guest);
  assert.equal(lease?.['ip6_address'], address);
  assert.equal(lease['fqdn_fqdn'], 'web1.example.net');
  assert.equal(lease['dhcp6_name_servers'], router);

  // As dhclient-script sets it. The ways are the router's to tell.
  guest.ip(`address add ${address}/128 dev eth0 nodad`);
  await eventually('the guest has a default route', async () =>
    (await guest.run('ip', ['-6', 'route'])).stdout.includes('default via fe80:'),
  );
  assert.deepEqual(await dig(guest.run, router, '-t', 'AAAA', 'web1.example.net'), [address]);
  assert.deepEqual(await dig(guest.run, router, '-t', 'AAAA', 'web1'), [address]);
  assert.deepEqual(await dig(guest.run, router, '-x', address), ['web1.example.net.']);
  // One that has never asked for its address.
  const { mds_ipv6: other } = await host.upload('web2', 2);
  assert.ok(other);
  await eventually('dnsmasq has read its files again', async () =>
    (await dig(guest.run, router, '-t', 'AAAA', 'web2')).includes(other),
  );
  assert.deepEqual(await dig(guest.run, router, '-x', other), ['web2.example.net.']);

  const get = async (path: string) => {
    const limits = ['--silent', '--show-error', '--fail', '--max-time', '10', '--globoff'];
    const { status, stdout, stderr } = await guest.run('curl', [...limits, metadata + path]);
    assert.equal(status, 0, stderr);
    return stdout;
  };
  const { mds_ipv4: ipv4 } = await host.upload('web1', 1);
  const folder = `/latest/meta-data/network/interfaces/macs/${mac(1)}`;
  assert.equal(await get('/latest/meta-data/ipv6'), address);
  assert.equal(await get(`${folder}/ipv6s`), address);
  assert.equal(await get(`${folder}/subnet-ipv6-cidr-blocks`), 'fd00:122::/64');
  assert.equal(await get('/latest/meta-data/local-ipv4'), ipv4);

  const before = host.requests().length;
  const home = mkdtempSync(join(host.folder, 'guest-'));
  const smbios = { 'system-uuid': ec2Uuid(1), 'system-serial-number': ec2Uuid(1) };
  const args = JSON.stringify({ datasource: 'Ec2', smbios, folder: home });
  const { answer } = await runCloudInit(guest, 'datasource.py', args);
  const { instance_id, fqdn, network_config } = answer as Record<string, unknown>;
  assert.deepEqual(
    { instance_id, fqdn, network_config },
    {
      instance_id: `i-${ipv4}`,
      fqdn: 'web1.example.net',
      network_config: {
        version: 2,
        ethernets: {
          eth0: {
            dhcp4: true,
            dhcp6: true,
            match: { macaddress: mac(1) },
            'set-name': 'eth0',
          },
        },
      },
    },
  );
  const made = host.requests().slice(before);
  assert.equal(made[0], 'PUT /latest/api/token 200');
  assert.deepEqual(
    made.filter((request) => !request.endsWith(' 200')),
    [],
  );
});

test('only the MAC address counts for DHCPv6: whatever a guest says that it is', {
  skip,
}, async (t) => {
  const host = await startHost(t, withIpv6);
  await host.startDnsmasq();
  // Not by a name either: dnsmasq takes this one for a number, and would look others up in DNS.
  const { mds_ipv6: address } = await host.upload('0123', 1);
  const guest = await host.addGuest(1);
  for (const digit of [1, 2]) {
    // Released: dnsmasq gives no address to two identifiers at a time.
    const lease = await askForAddress(host, guest, { duid: duid(digit), release: true });
    assert.equal(lease?.['ip6_address'], address);
  }
  // That of another: a copy of its disk.
  const stranger = await host.addGuest(2);
  assert.equal(await askForAddress(host, stranger, { duid: duid(1) }), undefined);
});

/** Identifiers of no MAC address (DUID-UUID, RFC 6355), as a machine-id gives them. */
const duid = (digit: number) => `\\000\\004${`\\00${digit}`.repeat(16)}`;

/** What a boot record has of DHCPv6: the messages and how often they came. */
function dhcp6Of(boot: BootRecord | undefined): string[] {
  return (boot?.dhcp ?? [])
    .filter(({ action }) => action.startsWith('DHCPv6-'))
    .map(({ action, address, refusal }) => [action, address, refusal].filter(Boolean).join(' '));
}

test('firmware, installer and system have a DUID each: all get the address, in one boot or in several', {
  skip,
}, async (t) => {
  const host = await startHost(t, withIpv6);
  const dnsmasq = await host.startDnsmasq();
  const { mds_ipv6: address } = await host.boot('web1', 1);
  assert.ok(address);
  const guest = await host.addGuest(1);
  // None of them gives it back, and none has it when the next one asks.
  const ask = async (digit: number, timeout: number) =>
    (await askForAddress(host, guest, { duid: duid(digit), timeout }))?.['ip6_address'];
  const read = (times: number) =>
    eventually('mdserver has read of it', async () => {
      const [boot] = await host.boots('web1');
      return boot?.dhcp.find(({ action }) => action === 'DHCPv6-REPLY')?.times === times;
    });
  assert.equal(await ask(1, 5), address);
  assert.equal(await ask(2, 30), address);
  await read(2);
  assert.deepEqual(dhcp6Of((await host.boots('web1'))[0]), [
    'DHCPv6-SOLICIT',
    `DHCPv6-REPLY ${address}`,
    'DHCPv6-ADVERTISE no addresses available',
  ]);
  // dnsmasq goes on meanwhile, and its log tells of the lease.
  await host.restart();
  assert.equal(await ask(3, 30), address);
  await read(1);
  // A start ends the lease at once, so that even a client gets the address that soon gives up.
  await host.boot('web1', 1);
  assert.equal(await ask(4, 2), address);
  await read(1);
  const released = () => dnsmasq.log().filter((line) => line.includes('DHCPRELEASE')).length;
  const before = released();
  await host.remove('web1');
  await eventually('the lease of a removed instance ends', () => released() > before);
});

test('a lease stays as long as the guest has its address, whoever asks with its MAC address', {
  skip,
}, async (t) => {
  const host = await startHost(t, withIpv6);
  const dnsmasq = await host.startDnsmasq();
  const { mds_ipv6: address } = await host.boot('web1', 1);
  const guest = await host.addGuest(1);
  assert.equal((await askForAddress(host, guest, { duid: duid(1) }))?.['ip6_address'], address);
  guest.ip(`address add ${address}/64 dev eth0 nodad`);
  assert.equal(await askForAddress(host, guest, { duid: duid(2), timeout: 6 }), undefined);
  assert.deepEqual(
    dnsmasq.log().filter((line) => line.includes('DHCPRELEASE')),
    [],
  );
});

test('what a guest claims in its DUID, or takes with it, concerns no other instance', {
  skip,
}, async (t) => {
  const host = await startHost(t, withIpv6);
  await host.startDnsmasq();
  const { mds_ipv6: address } = await host.boot('web1', 1);
  await host.boot('evil', 2);
  const evil = await host.addGuest(2);
  // Rebinding, dnsmasq gives any address, even one that is another's: here with its MAC address as DUID.
  const program = `import socket, struct, sys
index = socket.if_nametoindex('eth0')
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(('::', 546, 0, index))
s.settimeout(5)
option = lambda code, data: struct.pack('!HH', code, len(data)) + data
address = option(5, socket.inet_pton(socket.AF_INET6, sys.argv[1]) + bytes(8))
message = bytes([6, 0, 0, 1]) + option(1, bytes.fromhex('525400000001')) + option(3, struct.pack('!III', 7, 0, 0) + address)
s.sendto(message, ('ff02::1:2', 547, 0, index))
assert s.recv(2000)[0] == 7`;
  const { status, stderr } = await evil.run(python, ['-c', program, address ?? '']);
  assert.equal(status, 0, stderr);
  await eventually('mdserver has read of it', async () =>
    dhcp6Of((await host.boots('evil'))[0]).includes(`DHCPv6-REPLY ${address}`),
  );
  assert.deepEqual(dhcp6Of((await host.boots('web1'))[0]), []);
  // Its lease ends when the instance asks that the address belongs to.
  const guest = await host.addGuest(1);
  const lease = await askForAddress(host, guest, { duid: duid(1), timeout: 30 });
  assert.equal(lease?.['ip6_address'], address);
});

test('a machine with a lease that is renamed is gone under its old name', { skip }, async (t) => {
  const host = await startHost(t, withIpv6);
  await host.startDnsmasq();
  const { mds_ipv6: address } = await host.boot('web1', 1);
  const guest = await host.addGuest(1);
  assert.equal((await askForAddress(host, guest))?.['ip6_address'], address);
  await eventually('mdserver has read of the lease', async () =>
    dhcp6Of((await host.boots('web1'))[0]).includes(`DHCPv6-REPLY ${address}`),
  );
  guest.ip(`address add ${address}/128 dev eth0 nodad`);
  await eventually('the guest has a default route', async () =>
    (await guest.run('ip', ['-6', 'route'])).stdout.includes('default via fe80:'),
  );
  await host.upload('web2', 1);
  await eventually(
    'the old name is gone',
    async () => (await dig(guest.run, router, '-t', 'AAAA', 'web1')).length === 0,
  );
  assert.deepEqual(await dig(guest.run, router, '-t', 'AAAA', 'web2'), [address]);
});

test('an IPv6 address is its instance’s alone, and stays over uploads, renaming and a restart', {
  skip,
}, async (t) => {
  // 256 addresses, so that a second use would be likely.
  const host = await startHost(t, 'net_address6 = fd00:122::\nnet_prefix6 = 120');
  const numbers = Array.from({ length: 60 }, (_, index) => index + 1);
  const uploads = await Promise.all(numbers.map((number) => host.upload(`web${number}`, number)));
  const addresses = uploads.map(({ mds_ipv6 }) => mds_ipv6);
  assert.equal(new Set(addresses).size, 60);
  for (const address of addresses) assert.match(address ?? '', /^fd00:122::[0-9a-f]{1,2}$/);

  assert.equal((await host.upload('web1', 1)).mds_ipv6, addresses[0]);
  assert.equal((await host.upload('renamed', 2)).mds_ipv6, addresses[1]);
  // Made anew under its old name.
  assert.equal((await host.upload('web3', 99)).mds_ipv6, addresses[2]);
  await host.restart();
  assert.equal((await host.upload('web4', 4)).mds_ipv6, addresses[3]);
});

test('without net_address6 there is nothing of IPv6: no address, no file, no metadata', {
  skip,
}, async (t) => {
  const host = await startHost(t, '');
  const { mds_ipv4, mds_ipv6 } = await host.upload('web1', 1);
  assert.equal(mds_ipv6, null);
  const files = readdirSync(join(host.folder, 'dnsmasq'), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.(conf|opts|dhcp-hosts|dns-hosts)$/.test(name))
    .sort();
  assert.deepEqual(files, ['dhcp/mds.dhcp-hosts', 'dns/mds.dns-hosts', 'mds.conf', 'mds.opts']);
  for (const name of files) {
    const text = readFileSync(join(host.folder, 'dnsmasq', name), 'utf8');
    assert.doesNotMatch(text, /fd00|\[|enable-ra|::/, name);
  }
  const guest = await host.addGuest(1);
  guest.ip(`address add ${mds_ipv4}/16 dev eth0`);
  guest.ip('route add 169.254.169.254/32 via 10.122.0.1');
  const { stdout } = await guest.run('curl', [
    ...['--silent', '--write-out', '%{http_code}', '--output', '/dev/null'],
    'http://169.254.169.254/latest/meta-data/ipv6',
  ]);
  assert.equal(stdout, '404');
});

test('an IPv6 address that the bridge does not have yet is served as soon as it is there', {
  skip,
}, async (t) => {
  const folder = temporaryFolder(t);
  const host = addHost(t);
  const configuration = `
[mdserver]
listen_address = 10.122.0.1, fd00:ec2::254
port = 8080
db_file = ${folder}/db_file.json
logfile = ${folder}/mdserver.log
[dnsmasq]
base_dir = ${folder}/dnsmasq
run_dir = ${folder}/run
`;
  const daemon = await startDaemon(t, folder, configuration, '10.122.0.1', host.start);
  await daemon.printed('cannot serve on http://[fd00:ec2::254]:8080');
  host.ip('address add fd00:ec2::254/128 dev br-mds nodad');
  await daemon.printed('serving on http://[fd00:ec2::254]:8080');
  const url = 'http://[fd00:ec2::254]:8080/service/name';
  assert.equal((await host.run('curl', ['-sg', '--max-time', '20', url])).stdout, 'mdserver');
  assert.equal(await daemon.stop(), 0);
});
