import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import {
  type GuestSetup,
  type GuestSite,
  runCloudInit,
  startGuest,
  web1,
} from './support/cloud-init-site.js';
import { missing } from './support/parts.js';

// Debian's cloud-init looks for its datasource, in a namespace that is the guest: what it finds,
// and every request that it makes. Its retries take seconds each and would show in the list.

const skip = missing('netns', 'cloud-init', 'curl');

/** The SMBIOS settings of docs/recipes.md, and what ds-identify makes of each. */
const recipes = {
  aws: {
    datasource: 'Ec2',
    smbios: { 'system-uuid': web1.domain_uuid, 'system-serial-number': web1.domain_uuid },
  },
  // Found by "datasource_list: [ Ec2 ]" in the image: SMBIOS says nothing.
  unknown: {
    datasource: 'Ec2',
    smbios: { 'system-uuid': '8f1b3b52-6a0e-4c57-9d0c-3f3c2b1a7e10' },
  },
  nocloud: {
    datasource: 'NoCloud',
    smbios: { 'system-serial-number': 'ds=nocloud;s=http://169.254.169.254/nocloud/;dsmode=net' },
  },
  // In domains from 1.0.0 on.
  oldNocloud: {
    datasource: 'NoCloud',
    smbios: { 'system-serial-number': 'ds=nocloud-net;s=http://169.254.169.254/nocloud/' },
  },
  // cloud-init 23.1 and newer puts the value in; this one asks for it as it stands.
  nocloudWithVariable: {
    datasource: 'NoCloud',
    smbios: {
      'system-serial-number':
        'ds=nocloud;s=http://169.254.169.254/nocloud/__dmi.chassis-serial-number__/;dsmode=net',
    },
  },
  openstack: {
    datasource: 'OpenStack',
    smbios: { 'system-uuid': web1.domain_uuid, 'system-product-name': 'OpenStack Nova' },
  },
} as const;

/** What test/fixtures/cloud-init/datasource.py prints. */
interface Found {
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly identity: Readonly<Record<string, unknown>> | null;
  readonly [name: string]: unknown;
}

interface Boot {
  /** Null where no datasource was found. */
  readonly found: Found | null;
  /** The requests of this boot alone. */
  readonly requests: readonly string[];
}

/** Boots the guest as far as cloud-init has its datasource. It may not warn of anything. */
async function boot(site: GuestSite, recipe: keyof typeof recipes): Promise<Boot> {
  const before = await site.requests();
  const folder = mkdtempSync(join(site.folder, 'guest-'));
  const args = JSON.stringify({ ...recipes[recipe], folder });
  const { answer, log } = await runCloudInit(site.guest, 'datasource.py', args);
  assert.equal(log, '');
  const requests = (await site.requests()).slice(before.length);
  return { found: answer as Found | null, requests };
}

const keys = {
  default: 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGRlZmF1bHQ= first key',
  second: 'from="10.0.0.0/8",command="a; b" ssh-rsa AAAAB3NzaC1yc2E= second@example.com',
};
const userdata = '#cloud-config\nhostname: {{hostname}}\nbootcmd: [echo Grüße]\n';
const renderedUserdata = '#cloud-config\nhostname: web1\nbootcmd: [echo Grüße]\n';
const vendorData = '#cloud-config\nntp: { servers: [{{hostname}}.invalid] }\n';
const renderedVendorData = '#cloud-config\nntp: { servers: [web1.invalid] }\n';

/** A site with all that there can be, and more lines of `[mdserver]`. */
function startFullSite(t: TestContext, mdserver = '', setup: GuestSetup = {}): Promise<GuestSite> {
  return startGuest(t, {
    userdata: { web1: userdata, vendor: vendorData },
    ...setup,
    record: { domain_metadata: { color: 'red' }, first_seen: 1_700_000_000, ...setup.record },
    mdserver,
    sections: `[public-keys]
second = ${keys.second}
default = ${keys.default}
[metadata-defaults]
ami-id = ami-1
availability-zone = rack1a
instance-type = t3.micro
region = rack1`,
  });
}

const interfaceFolder = `network/interfaces/macs/${web1.mds_mac}/`;

/** The walk of cloud-init below meta-data/: folders first, then leaves, in the listings' order. */
function walk(version: string): string[] {
  const paths = [
    ...['', 'network/', 'network/interfaces/', 'network/interfaces/macs/', interfaceFolder],
    ...[
      ...['device-number', 'interface-id', 'local-hostname', 'local-ipv4s', 'mac', 'owner-id'],
      ...['security-groups', 'subnet-id', 'subnet-ipv4-cidr-block', 'vpc-id'],
      ...['vpc-ipv4-cidr-block', 'vpc-ipv4-cidr-blocks'],
    ].map((leaf) => interfaceFolder + leaf),
    ...['placement/', 'placement/availability-zone', 'placement/region'],
    ...['public-keys/', 'public-keys/0/openssh-key', 'public-keys/1/openssh-key'],
    ...['services/', 'services/domain', 'services/partition'],
    ...['tags/', 'tags/instance/', 'tags/instance/color'],
    ...['ami-id', 'ami-launch-index', 'ami-manifest-path', 'hostname', 'instance-action'],
    ...['instance-id', 'instance-life-cycle', 'instance-type', 'local-hostname', 'local-ipv4'],
    ...['mac', 'profile', 'reservation-id', 'security-groups'],
  ];
  return paths.map((path) => `GET /${version}/meta-data/${path} 200`);
}

/** The part of what was found that all datasources agree on. */
const common = {
  hostname: 'web1',
  fqdn: 'web1.example.net',
  public_keys: [keys.default, keys.second],
  availability_zone: 'rack1a',
  userdata: renderedUserdata,
};

function ethernet(name: string, dhcp6?: boolean) {
  return {
    version: 2,
    ethernets: {
      [name]: {
        dhcp4: true,
        ...(dhcp6 === undefined ? {} : { dhcp6 }),
        match: { macaddress: web1.mds_mac },
        ...(name === 'eth0' && { 'set-name': name }),
      },
    },
  };
}

/** What of the metadata has a meaning for cloud-init. */
function essence({ metadata }: Found) {
  return Object.fromEntries(
    ['instance-id', 'local-hostname', 'local-ipv4', 'placement', 'public-keys', 'tags'].map(
      (name) => [name, metadata[name]],
    ),
  );
}

/** The part of what was found that Ec2 has whether it is known as AWS or not. */
const ec2Common = {
  ...common,
  instance_id: `i-${web1.mds_ipv4}`,
  vendordata: null,
  network_config: ethernet('eth0', false),
  netplan: { network: ethernet('eth0', false) },
  // Ec2 has no way to know: each boot asks again.
  kept_for_next_boot: false,
};

const ec2Essence = {
  'instance-id': `i-${web1.mds_ipv4}`,
  'local-hostname': 'web1.example.net',
  'local-ipv4': web1.mds_ipv4,
  placement: { 'availability-zone': 'rack1a', region: 'rack1' },
  'public-keys': keys,
  tags: { instance: { color: 'red' } },
};

/** What was found, but for the metadata: that has a test of its own for each value. */
function withoutMetadata({ metadata: _metadata, ...others }: Found) {
  return others;
}

// ---- EC2 ----

for (const tokens of ['optional', 'required']) {
  test(`Ec2 as AWS, tokens ${tokens}: found before the network is up, one token, nothing twice`, {
    skip,
  }, async (t) => {
    const site = await startFullSite(t, `imds_tokens = ${tokens}`);
    const { found, requests } = await boot(site, 'aws');
    assert.ok(found);
    assert.deepEqual(withoutMetadata(found), {
      ...ec2Common,
      stage: 'local',
      class: 'DataSourceEc2Local',
      identity: {
        accountId: '000000000000',
        architecture: null,
        availabilityZone: 'rack1a',
        billingProducts: null,
        devpayProductCodes: null,
        imageId: 'ami-1',
        instanceId: `i-${web1.mds_ipv4}`,
        instanceType: 't3.micro',
        kernelId: null,
        marketplaceProductCodes: null,
        pendingTime: '2023-11-14T22:13:20Z',
        privateIp: web1.mds_ipv4,
        ramdiskId: null,
        region: 'rack1',
        version: '2017-09-30',
      },
      region: 'rack1',
    });
    assert.deepEqual(essence(found), ec2Essence);
    assert.deepEqual(requests, [
      'PUT /latest/api/token 200',
      // Which is the newest version of the three that it knows?
      'GET /2021-03-23/meta-data/instance-id 200',
      'GET /2021-03-23/user-data 200',
      ...walk('2021-03-23'),
      'GET /2021-03-23/dynamic/instance-identity 200',
      'GET /2021-03-23/dynamic/instance-identity/document 200',
    ]);
  });
}

test('Ec2 not known as AWS: found without a token, and the guest has its name', {
  skip,
}, async (t) => {
  const site = await startFullSite(t);
  const { found, requests } = await boot(site, 'unknown');
  assert.ok(found);
  assert.deepEqual(withoutMetadata(found), {
    ...ec2Common,
    stage: 'network',
    class: 'DataSourceEc2',
    identity: {},
    // Here cloud-init makes it of the zone, whatever placement/region says.
    region: 'rack1',
  });
  assert.deepEqual(essence(found), ec2Essence);
  assert.deepEqual(requests, [
    // Is there anything at all?
    'GET /2009-04-04/meta-data/instance-id 200',
    'GET /2021-03-23/meta-data/instance-id 200',
    'GET /2021-03-23/user-data 200',
    ...walk('2021-03-23'),
  ]);
});

test('a token that is required for this instance alone is what its cloud-init sends', {
  skip,
}, async (t) => {
  const site = await startFullSite(t, '', {
    record: { domain_metadata: { color: 'red', imds_tokens: 'required' } },
  });
  const { found, requests } = await boot(site, 'aws');
  assert.equal(found?.instance_id, `i-${web1.mds_ipv4}`);
  assert.deepEqual(
    requests.filter((request) => !request.endsWith(' 200')),
    [],
  );
  // Nobody else gets anything: this has no token.
  await site.guest.run('curl', ['--silent', 'http://169.254.169.254/latest/meta-data/']);
  assert.equal((await site.requests()).at(-1), 'GET /latest/meta-data/ 401');
});

const idForms: readonly (readonly [
  what: string,
  options: string,
  record: NonNullable<GuestSetup['record']>,
  id: string,
])[] = [
  ['the address', 'instance_id = address', {}, `i-${web1.mds_ipv4}`],
  ['the uuid, as 1.0.0 made it', 'instance_id = uuid', {}, 'i-ec2f4d2a3b1c4e5f8'],
  [
    'the address for want of a uuid',
    'instance_id = uuid',
    { domain_uuid: null },
    `i-${web1.mds_ipv4}`,
  ],
];
for (const [what, options, record, id] of idForms) {
  test(`instance-id from ${what}: Ec2 as AWS and as unknown and NoCloud have the same`, {
    skip,
  }, async (t) => {
    const site = await startFullSite(t, options, { record });
    const { found: aws } = await boot(site, 'aws');
    assert.deepEqual(
      [aws?.instance_id, aws?.identity?.['instanceId'], aws?.metadata['instance-id']],
      [id, id, id],
    );
    for (const recipe of ['unknown', 'nocloud'] as const) {
      const { found } = await boot(site, recipe);
      assert.deepEqual([found?.instance_id, found?.metadata['instance-id']], [id, id], recipe);
    }
  });
}

// ---- NoCloud ----

test('NoCloud by the SMBIOS serial: all four documents, each asked for once', {
  skip,
}, async (t) => {
  const options = 'vendor_data = @DIR@/userdata/vendor\nnetwork_config = yes';
  const { found, requests } = await boot(await startFullSite(t, options), 'nocloud');
  assert.deepEqual(found, {
    ...common,
    stage: 'network',
    class: 'DataSourceNoCloudNet',
    instance_id: `i-${web1.mds_ipv4}`,
    identity: null,
    availability_zone: null,
    region: null,
    vendordata: renderedVendorData,
    network_config: ethernet('mds', false),
    netplan: { network: ethernet('mds', false) },
    metadata: {
      dsmode: 'net',
      seedfrom: 'http://169.254.169.254/nocloud/',
      'instance-id': `i-${web1.mds_ipv4}`,
      'local-hostname': 'web1.example.net',
      hostname: 'web1.example.net',
      'public-keys': [keys.default, keys.second],
    },
    kept_for_next_boot: false,
  });
  assert.deepEqual(requests, [
    'GET /nocloud/meta-data 200',
    'GET /nocloud/user-data 200',
    'GET /nocloud/vendor-data 200',
    'GET /nocloud/network-config 200',
  ]);
});

test('NoCloud with nothing configured: empty documents, none asked for again', {
  skip,
}, async (t) => {
  // Without this prefix the built-in user-data would be there.
  const record = { domain_metadata: { userdata_prefix: 'absent' } };
  const { found, requests } = await boot(await startGuest(t, { record }), 'nocloud');
  assert.deepEqual(found, {
    stage: 'network',
    class: 'DataSourceNoCloudNet',
    instance_id: `i-${web1.mds_ipv4}`,
    identity: null,
    hostname: 'web1',
    fqdn: 'web1.example.net',
    public_keys: [],
    availability_zone: null,
    region: null,
    userdata: '',
    vendordata: '',
    network_config: null,
    netplan: null,
    metadata: {
      dsmode: 'net',
      seedfrom: 'http://169.254.169.254/nocloud/',
      'instance-id': `i-${web1.mds_ipv4}`,
      'local-hostname': 'web1.example.net',
      hostname: 'web1.example.net',
    },
    kept_for_next_boot: false,
  });
  assert.deepEqual(requests, [
    'GET /nocloud/meta-data 200',
    'GET /nocloud/user-data 200',
    'GET /nocloud/vendor-data 200',
    'GET /nocloud/network-config 200',
  ]);
});

test('NoCloud in its old form, and with a variable in its address, finds the same as the recipe', {
  skip,
}, async (t) => {
  const site = await startFullSite(t, 'network_config = yes');
  const { found, requests } = await boot(site, 'nocloud');
  assert.equal(requests.length, 4);
  for (const [recipe, place] of [
    ['oldNocloud', ''],
    ['nocloudWithVariable', '__dmi.chassis-serial-number__/'],
  ] as const) {
    const other = await boot(site, recipe);
    const seedfrom = `http://169.254.169.254/nocloud/${place}`;
    assert.deepEqual(other.found, { ...found, metadata: { ...found?.metadata, seedfrom } }, recipe);
    const moved = requests.map((request) => request.replace('/nocloud/', `/nocloud/${place}`));
    assert.deepEqual(other.requests, moved);
  }
});

// ---- OpenStack ----

const openstack = '/openstack/2018-08-27';

test('OpenStack by the SMBIOS product: found before the network is up, nothing answered 404', {
  skip,
}, async (t) => {
  const site = await startFullSite(t, 'vendor_data = @DIR@/userdata/vendor');
  const { found, requests } = await boot(site, 'openstack');
  const subnets = [{ type: 'dhcp4' }];
  assert.deepEqual(found, {
    ...common,
    stage: 'local',
    class: 'DataSourceOpenStackLocal',
    instance_id: web1.domain_uuid,
    identity: null,
    region: null,
    vendordata: renderedVendorData,
    network_config: {
      version: 1,
      config: [{ type: 'physical', name: 'eth0', mac_address: web1.mds_mac, subnets }],
    },
    netplan: { network: ethernet('eth0') },
    metadata: {
      uuid: web1.domain_uuid,
      'instance-id': web1.domain_uuid,
      name: 'web1',
      'local-hostname': 'web1.example.net',
      hostname: 'web1.example.net',
      launch_index: 0,
      availability_zone: 'rack1a',
      public_keys: keys,
      keys: Object.entries(keys).map(([name, data]) => ({ name, type: 'ssh', data })),
      meta: { color: 'red' },
      random_seed: { bytes: 512 },
    },
    // Its instance-id is the uuid that SMBIOS has, as libvirt sets it.
    kept_for_next_boot: true,
  });
  assert.deepEqual(requests, [
    // Once for "is there anything", once for the versions.
    'GET /openstack 200',
    'GET /openstack 200',
    `GET ${openstack}/meta_data.json 200`,
    `GET ${openstack}/user_data 200`,
    `GET ${openstack}/vendor_data.json 200`,
    `GET ${openstack}/vendor_data2.json 200`,
    `GET ${openstack}/network_data.json 200`,
    // For the names of its disks.
    ...walk('latest'),
  ]);
});

// ---- what may be missing ----

test('user-data that is missing: asked for once, by all, and the instance found without it', {
  skip,
}, async (t) => {
  const record = { domain_metadata: { userdata_prefix: 'absent' } };
  const site = await startGuest(t, { record });
  for (const [recipe, once] of [
    // Both clients take a 404 for "none" here: nova answers so, too, and so does EC2.
    ['aws', 'GET /2021-03-23/user-data 404'],
    ['unknown', 'GET /2021-03-23/user-data 404'],
    ['openstack', `GET ${openstack}/user_data 404`],
  ] as const) {
    const { found, requests } = await boot(site, recipe);
    assert.deepEqual([found?.hostname, found?.userdata], ['web1', ''], recipe);
    assert.deepEqual(
      requests.filter((request) => !request.endsWith(' 200')),
      [once],
    );
  }
});

test("the built-in template leaves the host name and the keys to each datasource's metadata", {
  skip,
}, async (t) => {
  const site = await startGuest(t, {
    record: { domain_name: 'Web Server 1' },
    sections: `[public-keys]\nsecond = ${keys.second}\ndefault = ${keys.default}`,
  });
  for (const recipe of Object.keys(recipes) as (keyof typeof recipes)[]) {
    const { found } = await boot(site, recipe);
    assert.ok(found, recipe);
    const { hostname, fqdn, public_keys, userdata } = found;
    assert.deepEqual(
      { hostname, fqdn, public_keys, userdata },
      {
        hostname: 'Web-Server-1',
        fqdn: 'Web-Server-1.example.net',
        public_keys: [keys.default, keys.second],
        userdata: '#cloud-config\nmanage_etc_hosts: true\n',
      },
      recipe,
    );
  }
});

test('an instance with an IPv6 address is told to ask for it by DHCP, by each datasource', {
  skip,
}, async (t) => {
  const record = { mds_ipv6: 'fd00:122::9' };
  const site = await startGuest(t, { record, mdserver: 'network_config = yes' });
  for (const [recipe, name, more] of [
    ['aws', 'eth0', {}],
    ['unknown', 'eth0', {}],
    ['nocloud', 'mds', {}],
    ['openstack', 'eth0', { 'accept-ra': true }],
  ] as const) {
    const { found, requests } = await boot(site, recipe);
    const { version, ethernets } = ethernet(name, true);
    const expected = { version, ethernets: { [name]: { ...ethernets[name], ...more } } };
    assert.deepEqual(found?.netplan, { network: expected }, recipe);
    assert.deepEqual(
      requests.filter((request) => !request.endsWith(' 200')),
      [],
    );
  }
});
