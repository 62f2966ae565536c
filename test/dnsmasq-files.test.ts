import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { configFrom } from '../src/config/load.js';
import { dhcpHosts, dnsHosts, dnsmasqConfiguration, dnsmasqOptions } from '../src/dnsmasq/files.js';
import { hostNames, toHostName } from '../src/instances/host-names.js';
import { instanceFromRecord } from '../src/instances/instance.js';
import { type Instances, instancesFrom } from '../src/instances/instances.js';

function config(dnsmasq: string) {
  return configFrom(`[dnsmasq]\n${dnsmasq}`).config;
}

/** Instances of these names; their number is in MAC, uuid and address. */
function instances(...names: string[]): Instances {
  const records = names.map((domain_name, index) =>
    instanceFromRecord({
      domain_name,
      domain_uuid: `0000000${index}-0000-0000-0000-000000000000`,
      mds_mac: `52:54:00:00:00:0${index}`,
      mds_ipv4: `10.122.0.${index + 10}`,
    }),
  );
  return instancesFrom(records).draft;
}

test('use_dns and domain reach the client: DNS server, domain, and a lease for every address', () => {
  const settings = config('use_dns = yes\ndomain = example.com\nnet_prefix = 24');
  assert.equal(
    dnsmasqConfiguration(settings).content,
    `# Written by mdserver at each start: changes belong in mdserver.conf.
user=mdserver
leasefile-ro
strict-order
expand-hosts
domain=example.com
pid-file=/var/run/mdserver/mds.pid
except-interface=lo
bind-dynamic
interface=br-mds
dhcp-range=10.122.0.1,static
dhcp-no-override
dhcp-lease-max=254
dhcp-hostsfile=/var/lib/mdserver/dnsmasq/dhcp
dhcp-optsfile=/var/lib/mdserver/dnsmasq/mds.opts
hostsdir=/var/lib/mdserver/dnsmasq/dns
`,
  );
  assert.equal(
    dnsmasqOptions(settings).content,
    `option:classless-static-route,169.254.169.254/32,10.122.0.1,0.0.0.0/0,10.122.0.1
249,169.254.169.254/32,10.122.0.1,0.0.0.0/0,10.122.0.1
option:router,10.122.0.1
option:dns-server,10.122.0.1
`,
  );
});

test('the lease time is the configured one', () => {
  const { content } = dhcpHosts(config('lease_len = 600'), instances('web1'));
  assert.equal(content, '52:54:00:00:00:00,id:*,10.122.0.10,web1,600\n');
});

test('a name that is not a host name becomes one, and names that would collide stay distinct', () => {
  const names = ['web server_1', 'web-server-1', 'web server.1', 'Web1', 'web1', '日本', 'ok'];
  assert.deepEqual(
    [...hostNames(instances(...names))].sort(),
    Object.entries({
      'web-server-1': 'web-server-1',
      'web server_1': 'web-server-1-00000000',
      'web server.1': 'web-server.1',
      Web1: 'Web1',
      web1: 'web1-00000004',
      日本: 'instance',
      ok: 'ok',
    }).sort(),
  );
});

test('whatever domains are called, host names are valid and no two are the same', () => {
  const label = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/i;
  const name = fc.oneof(
    fc.string({ minLength: 1, unit: 'binary' }),
    fc.string({ minLength: 1, unit: fc.constantFrom('a', 'A', '-', '_', '.', ' ', '1') }),
    fc.constant('x'.repeat(300)),
  );
  fc.assert(
    fc.property(fc.uniqueArray(name, { maxLength: 9 }), (domains) => {
      const given = [...hostNames(instances(...domains)).values()];
      for (const one of given) {
        assert.ok(one.length <= 253 && one.split('.').every((part) => label.test(part)), one);
      }
      assert.equal(new Set(given.map((one) => one.toLowerCase())).size, domains.length);
    }),
  );
});

test('a name that dnsmasq would take for an address is not used', () => {
  assert.equal(toHostName('10.0.0.1'), '10-0-0-1');
});

test('a name that dnsmasq would take for a lease time or a keyword is left to DNS', () => {
  const known = instances('0123', '12h', 'infinite', 'ignore', '12a');
  assert.equal(
    dhcpHosts(config(''), known).content,
    `52:54:00:00:00:00,id:*,10.122.0.10,86400
52:54:00:00:00:01,id:*,10.122.0.11,86400
52:54:00:00:00:02,id:*,10.122.0.12,86400
52:54:00:00:00:03,id:*,10.122.0.13,86400
52:54:00:00:00:04,id:*,10.122.0.14,12a,86400
`,
  );
  assert.equal(
    dnsHosts(config(''), known).content,
    `10.122.0.10 0123
10.122.0.11 12h
10.122.0.12 infinite
10.122.0.13 ignore
10.122.0.14 12a
`,
  );
});

test('records without a MAC or an address break no file', () => {
  const records = [
    instanceFromRecord({ domain_name: 'a' }),
    instanceFromRecord({ domain_name: 'b', mds_mac: '52:54:00:00:00:01' }),
    instanceFromRecord({ domain_name: 'c', mds_ipv4: '10.122.0.9' }),
  ];
  const known = instancesFrom(records).draft;
  assert.equal(dhcpHosts(config(''), known).content, '');
  assert.equal(dnsHosts(config(''), known).content, '10.122.0.9 c\n');
});
