import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { fastify } from 'fastify';
import { configFrom } from '../src/config/load.js';
import { publishedVersions } from '../src/config/options.js';
import { metadataRoutes } from '../src/http/metadata-routes.js';
import { instanceFromRecord } from '../src/instances/database-file.js';
import type { Hardware } from '../src/instances/details.js';
import { namingOf } from '../src/instances/host-names.js';
import type { Instance } from '../src/instances/instance.js';
import { instancesFrom } from '../src/instances/instances.js';
import { newTokenKey } from '../src/metadata/tokens.js';
import { repository } from './support/daemon.js';
import { missing, python } from './support/parts.js';
import { rowName } from './support/rows.js';

// Debian's own Python has the yaml module that cloud-init reads NoCloud with.
const noYaml = missing('yaml');

interface Served {
  /** The status and body of a request from the instance, or from another address. */
  readonly get: (
    path: string,
    asking?: { from?: string; headers?: Record<string, string> },
  ) => Promise<{ status: number; text: string }>;
  /** The body of what has to be there. */
  readonly text: (path: string) => Promise<string>;
  /** The media type of an answer. */
  readonly type: (path: string) => Promise<string>;
}

interface Settings {
  readonly configuration?: string;
  /** Fields of the database record that differ from web1's. */
  readonly record?: Record<string, unknown>;
  readonly hardware?: Hardware;
  readonly others?: readonly Instance[];
  /** False for none. */
  readonly userdata?: false;
  readonly vendorData?: string;
}

const record = {
  domain_name: 'web1',
  domain_uuid: '8f1b3b52-6a0e-4c57-9d0c-3f3c2b1a7e10',
  domain_metadata: {},
  mds_mac: '52:54:00:12:34:56',
  mds_ipv4: '10.122.7.9',
  first_seen: 1700000000.75,
};

const wholeHardware = { vcpus: 2, memoryKib: 2097152, architecture: 'x86_64' };

/** The routes alone, for one instance and perhaps others beside it. */
function serve(settings: Settings = {}): Served {
  const { config, warnings } = configFrom(
    `[service]\nlocation = rack1\n${settings.configuration ?? ''}`,
  );
  assert.deepEqual(warnings, []);
  const web = {
    ...instanceFromRecord({ ...record, ...settings.record }),
    details: { hardware: settings.hardware ?? wholeHardware, hostKeys: [] },
  };
  const { draft } = instancesFrom([web, ...(settings.others ?? [])], namingOf(config));
  const app = fastify();
  metadataRoutes(app, {
    config: () => config,
    instances: () => draft,
    userdata: {
      userdata: () =>
        settings.userdata === false
          ? undefined
          : () => ({ body: '#cloud-config\n', file: 'web1', problem: undefined }),
      whyNone: () => undefined,
      vendorData: () => ({ body: settings.vendorData ?? '', file: null, problem: undefined }),
      refusals: () => [],
    },
    tokenKey: newTokenKey,
    registry: { changeDetails: async () => undefined },
    isThisHost: () => false,
    checkMac: () => false,
    neighbourMac: async () => undefined,
    peerLog: () => {},
  });
  const get: Served['get'] = async (path, { from = '10.122.7.9', headers = {} } = {}) => {
    const answer = await app.inject({ url: path, remoteAddress: from, headers });
    return { status: answer.statusCode, text: answer.body };
  };
  return {
    get,
    text: async (path) => {
      const { status, text } = await get(path);
      assert.equal(status, 200, path);
      return text;
    },
    type: async (url) => {
      const { headers } = await app.inject({ url, remoteAddress: '10.122.7.9' });
      return String(headers['content-type']);
    },
  };
}

const keys = `
[public-keys]
work = ssh-rsa AAAAB3 work@example.net
default = ssh-ed25519 AAAAC3 me@example.net
`;

/** All leaves below a folder, found as clients find them: by its listing. */
async function walk(
  { get, text }: Pick<Served, 'get' | 'text'>,
  folder: string,
): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  const listing = await text(folder);
  assert.equal((await get(folder.replace(/\/$/, ''))).text, listing, `${folder} without the slash`);
  for (const line of listing.split('\n')) {
    // A line of public-keys/ is `0=default`, and `0/` is a folder.
    const name = /^(\d+)=/.test(line) ? `${line.split('=')[0]}/` : line;
    assert.match(name, /^[^/\s]+\/?$/, `a line of ${folder}`);
    if (name.endsWith('/')) Object.assign(found, await walk({ get, text }, folder + name));
    else {
      found[folder + name] = await text(folder + name);
      assert.equal(await text(`${folder}${name}/`), found[folder + name], 'with a slash');
    }
  }
  return found;
}

const versions = [...publishedVersions, 'latest'];

const interfaceFolder = 'meta-data/network/interfaces/macs/52:54:00:12:34:56/';
const wholeTree: Record<string, string> = {
  'dynamic/instance-identity/document': `{
  "accountId": "000000000000",
  "architecture": "x86_64",
  "availabilityZone": "rack1",
  "billingProducts": null,
  "devpayProductCodes": null,
  "marketplaceProductCodes": null,
  "imageId": "ami-00000000000000000",
  "instanceId": "i-10.122.7.9",
  "instanceType": "kvm.2cpu-2048mib",
  "kernelId": null,
  "pendingTime": "2023-11-14T22:13:20Z",
  "privateIp": "10.122.7.9",
  "ramdiskId": null,
  "region": "rack1",
  "version": "2017-09-30"
}`,
  'meta-data/ami-id': 'ami-00000000000000000',
  'meta-data/ami-launch-index': '0',
  'meta-data/ami-manifest-path': '(unknown)',
  'meta-data/hostname': 'web1',
  'meta-data/instance-action': 'none',
  'meta-data/instance-id': 'i-10.122.7.9',
  'meta-data/instance-life-cycle': 'on-demand',
  'meta-data/instance-type': 'kvm.2cpu-2048mib',
  'meta-data/ipv6': 'fd00:122::9',
  'meta-data/local-hostname': 'web1.example.net',
  'meta-data/local-ipv4': '10.122.7.9',
  'meta-data/mac': '52:54:00:12:34:56',
  [`${interfaceFolder}device-number`]: '0',
  // The first 17 digits of SHA-256 of "eni 52:54:00:12:34:56" and so on: these never change.
  [`${interfaceFolder}interface-id`]: 'eni-3b0d5fa63e3e08652',
  [`${interfaceFolder}ipv6s`]: 'fd00:122::9',
  [`${interfaceFolder}local-hostname`]: 'web1.example.net',
  [`${interfaceFolder}local-ipv4s`]: '10.122.7.9',
  [`${interfaceFolder}mac`]: '52:54:00:12:34:56',
  [`${interfaceFolder}owner-id`]: '000000000000',
  [`${interfaceFolder}security-groups`]: 'default',
  [`${interfaceFolder}subnet-id`]: 'subnet-a3f30fd86ed810721',
  [`${interfaceFolder}subnet-ipv4-cidr-block`]: '10.122.0.0/16',
  [`${interfaceFolder}subnet-ipv6-cidr-blocks`]: 'fd00:122::/64',
  [`${interfaceFolder}vpc-id`]: 'vpc-1f2399ed90ddb32dd',
  [`${interfaceFolder}vpc-ipv4-cidr-block`]: '10.122.0.0/16',
  [`${interfaceFolder}vpc-ipv4-cidr-blocks`]: '10.122.0.0/16',
  [`${interfaceFolder}vpc-ipv6-cidr-blocks`]: 'fd00:122::/64',
  'meta-data/placement/availability-zone': 'rack1',
  'meta-data/placement/region': 'rack1',
  'meta-data/profile': 'default-hvm',
  'meta-data/public-keys/0/openssh-key': 'ssh-ed25519 AAAAC3 me@example.net',
  'meta-data/public-keys/1/openssh-key': 'ssh-rsa AAAAB3 work@example.net',
  'meta-data/reservation-id': 'r-96abefb80e7fa763c',
  'meta-data/security-groups': 'default',
  'meta-data/services/domain': 'example.net',
  'meta-data/services/partition': 'mdserver',
  'user-data': '#cloud-config\n',
};
const treeTags = {
  'meta-data/tags/instance/Owner': 'Ann & Bob',
  'meta-data/tags/instance/größe': 'M',
};

/** An instance that has everything there is. */
const complete: Settings = {
  configuration: `
[dnsmasq]
domain = example.net
net_address6 = fd00:122::
${keys}`,
  record: {
    mds_ipv6: 'fd00:122::9',
    domain_metadata: {
      Owner: 'Ann & Bob',
      größe: 'M',
      // These have a meaning of their own: they are no tags.
      userdata_prefix: 'web',
      'imds-tokens': 'optional',
      owner_id: '',
      'a/b': 'could be listed, but not asked for',
    },
  },
};

test('every version has the whole tree, and all that its listings name is there', async (t) => {
  const served = serve(complete);
  assert.deepEqual(await served.text('/'), versions.join('\n'), 'the list of versions');
  for (const version of versions) {
    await t.test(version, async () => {
      const expected = version >= '2021-03-23' ? { ...wholeTree, ...treeTags } : wholeTree;
      const found = await walk(served, `/${version}/`);
      const relative = Object.entries(found).map(([path, text]) => {
        return [path.slice(version.length + 2), text] as const;
      });
      assert.deepEqual(Object.fromEntries(relative), expected);
    });
  }
  assert.equal(publishedVersions.filter((version) => version >= '2021-03-23').length, 5);
});

/** The paths of a table in docs/metadata.md, by the heading of its first column. */
function documentedPaths(heading: string): string[] {
  const text = readFileSync(join(repository, 'docs/metadata.md'), 'utf8');
  const [, table = ''] = text.split(`\n| ${heading} |`);
  const rows = (table.split('\n\n')[0] ?? '').split('\n').slice(2);
  return rows.flatMap((row) => {
    const [, first = ''] = row.split('|');
    return [...first.matchAll(/`([^`]+)`/g)].map(([, path = '']) => path);
  });
}

test('docs/metadata.md names all that EC2 clients are served, and what is absent is 404 and not listed', async () => {
  const served = serve({
    ...complete,
    record: {
      ...complete.record,
      domain_metadata: { public_ipv4: '192.0.2.1', public_hostname: 'x.example', a: 'b' },
    },
  });
  const found = Object.keys(await walk(served, '/latest/')).map((path) =>
    path.replace('/latest/', ''),
  );
  const mac = '52:54:00:12:34:56';
  const isOf = (documented: string) => {
    const path = documented.replace('/MAC/', `/${mac}/`);
    return (name: string) =>
      path.endsWith('/*') ? name.startsWith(path.slice(0, -1)) : name === path;
  };
  const documented = documentedPaths('path | where the value comes from');
  assert.deepEqual(
    found.filter((name) => !documented.some((path) => isOf(path)(name))),
    [],
    'served, but not in the table',
  );
  assert.deepEqual(
    documented.filter((path) => !found.some(isOf(path))),
    [],
    'in the table, but not served',
  );
  const absent = documentedPaths('absent path | why, and what asks for it');
  assert.ok(absent.length > 20, `${absent.length} rows`);
  for (const path of absent) {
    assert.deepEqual(found.filter(isOf(path)), [], `${path} is listed`);
    const url = `/latest/${path.replace('/MAC/', `/${mac}/`).replace(/\*$/, '')}`;
    assert.deepEqual(await served.get(url), { status: 404, text: 'not found\n' }, url);
  }
});

test('the IPv6 address of an instance is its address, too', async () => {
  const { get } = serve(complete);
  const asked = await get('/latest/meta-data/instance-id', { from: 'fd00:122::9' });
  assert.deepEqual(asked, { status: 200, text: 'i-10.122.7.9' });
});

test('a key can be asked for by its name or its line in place of its index, and is listed once', async () => {
  const { text } = serve({ configuration: keys });
  assert.equal(await text('/latest/meta-data/public-keys'), '0=default\n1=work');
  for (const index of ['1', 'work', '1=work']) {
    const folder = `/latest/meta-data/public-keys/${index}`;
    assert.equal(await text(folder), 'openssh-key');
    assert.equal(await text(`${folder}/openssh-key`), 'ssh-rsa AAAAB3 work@example.net');
  }
});

test('a value that an instance lacks is neither listed nor served', async (t) => {
  const served = serve({
    hardware: {},
    record: { mds_mac: null, domain_uuid: null, first_seen: null },
    userdata: false,
  });
  const found = Object.keys(await walk(served, '/latest/'));
  const gone = [
    'user-data',
    'meta-data/instance-type',
    'meta-data/ipv6',
    'meta-data/mac',
    'meta-data/network/',
    'meta-data/public-keys/',
    'meta-data/tags/',
    'meta-data/iam/',
    'meta-data/spot/',
    'meta-data/public-ipv4',
  ];
  for (const name of gone) {
    await t.test(name, async () => {
      assert.deepEqual(
        found.filter((path) => path.startsWith(`/latest/${name}`)),
        [],
      );
      assert.deepEqual(await served.get(`/latest/${name}`), { status: 404, text: 'not found\n' });
    });
  }
  const identity = JSON.parse(await served.text('/latest/dynamic/instance-identity/document'));
  assert.deepEqual(
    [identity.architecture, identity.instanceType, identity.pendingTime],
    [null, null, '1970-01-01T00:00:00Z'],
  );
});

test('incomplete hardware gives no instance type', async (t) => {
  for (const hardware of [{ vcpus: 2 }, { memoryKib: 1024 }]) {
    await t.test(rowName(hardware), async () => {
      const { get } = serve({ hardware });
      assert.equal((await get('/latest/meta-data/instance-type')).status, 404);
    });
  }
});

test("the architecture has EC2's names", async (t) => {
  const words = { x86_64: 'x86_64', aarch64: 'arm64', i686: 'i386', riscv64: 'riscv64' };
  for (const [architecture, expected] of Object.entries(words)) {
    await t.test(architecture, async () => {
      const { text } = serve({ hardware: { architecture } });
      const document = JSON.parse(await text('/latest/dynamic/instance-identity/document'));
      assert.equal(document.architecture, expected);
    });
  }
});

test('a path that is not listed is 404', async (t) => {
  const { get } = serve(complete);
  for (const path of [
    '/latest/meta-data/public-keys/2',
    '/latest/meta-data/public-keys/1=default',
    '/latest/meta-data/public-keys/0=',
    '/latest/meta-data/public-keys/0/openssh-key/x',
    '/latest/meta-data/hostname/x',
    '/latest/meta-data/constructor',
    '/latest/meta-data/__proto__',
    '/latest/meta-data/Hostname',
    '/latest/meta-data/tags/instance/a%2Fb',
    '/latest/meta-data/tags/instance/userdata_prefix',
    '/latest/meta-data%2Fhostname',
    '/latest/meta-data/network/interfaces/macs/52:54:00:12:34:57/mac',
    '/2021-03-24/meta-data/instance-id',
    '/2024-04-11x/',
    '/LATEST/',
    '/x',
    '/openstack/2099-01-01/meta_data.json',
    '/nocloud/meta_data.json',
  ]) {
    await t.test(path, async () => {
      assert.deepEqual(await get(path), { status: 404, text: 'not found\n' });
    });
  }
});

test('slashes in a row count as one, and a query and a fragment do not count', async (t) => {
  const { get } = serve(complete);
  for (const path of [
    '/latest//meta-data///instance-id',
    '/latest/meta-data/instance-id?x=/../y',
    '/latest/meta-data/instance-id#x',
    '/latest/%6deta-data/instance%2Did',
  ]) {
    await t.test(path, async () => {
      assert.deepEqual(await get(path), { status: 200, text: 'i-10.122.7.9' });
    });
  }
});

test('ec2_versions narrows what is served, but never NoCloud and OpenStack', async () => {
  // The text follows `[service]`.
  const { get, text } = serve({ configuration: 'ec2_versions = 2009-04-04, latest' });
  assert.equal(await text('/'), '2009-04-04\nlatest');
  assert.equal((await get('/2009-04-04/meta-data/instance-id')).status, 200);
  assert.equal((await get('/2021-03-23/meta-data/instance-id')).status, 404);
  assert.equal((await get('/nocloud/meta-data')).status, 200);
  assert.equal((await get('/openstack/2018-08-27/meta_data.json')).status, 200);
});

test('an address that is no instance gets nothing but the versions', async (t) => {
  const { get } = serve(complete);
  for (const from of ['10.122.7.10', '127.0.0.1', '::1', 'fd00:122::10']) {
    assert.equal((await get('/', { from })).status, 200);
    for (const path of ['/latest/', '/latest/user-data', '/nocloud/meta-data', '/openstack/']) {
      await t.test(`${path} from ${from}`, async () => {
        assert.deepEqual(await get(path, { from }), { status: 404, text: 'not found\n' });
      });
    }
  }
});

// ---- values ----

test('instance_id = uuid is in the form of EC2, the same everywhere', async () => {
  const { text } = serve({ configuration: '[mdserver]\ninstance_id = uuid' });
  const id = 'i-8f1b3b526a0e4c579';
  assert.equal(await text('/latest/meta-data/instance-id'), id);
  const document = JSON.parse(await text('/latest/dynamic/instance-identity/document'));
  assert.equal(document.instanceId, id);
  assert.match(await text('/nocloud/meta-data'), new RegExp(`^instance-id: "${id}"$`, 'm'));
});

test('instance_id = uuid is the address for a record that has no uuid', async () => {
  const { text } = serve({
    configuration: '[mdserver]\ninstance_id = uuid',
    record: { domain_uuid: null },
  });
  assert.equal(await text('/latest/meta-data/instance-id'), 'i-10.122.7.9');
});

test('local-hostname is the name that DNS gives the address, in full', async (t) => {
  // Where `hostname` is missing, it is the name of the domain.
  const names: [settings: string, name: string, expected: string, hostname?: string][] = [
    ['', 'web1', 'web1'],
    ['domain = example.net', 'web1', 'web1.example.net'],
    ['prefix = vm-', 'web1', 'web1'],
    ['prefix = vm-\nentry_order = prefix, base', 'web1', 'vm-web1'],
    ['prefix = vm-\nentry_order = prefix\ndomain = example.net', 'web1', 'vm-web1.example.net'],
    ['prefix = vm-\nentry_order = base,domain\ndomain = example.net', 'web1', 'web1.example.net'],
    ['prefix = vm-\nentry_order = fqdn, base\ndomain = a.example', 'web1', 'vm-web1.a.example'],
    // dnsmasq has no name of that form, so there is only the instance's own.
    ['entry_order = prefix', 'web1', 'web1'],
    // A name with dots counts below the domain only.
    ['domain = example.net', 'web1.other', 'web1-other.example.net'],
    ['domain = example.net', 'web1.example.net', 'web1.example.net'],
    ['', 'github.com', 'github-com'],
    // A name that is not a valid host name is turned into one.
    ['domain = example.net', 'Web Server_1', 'Web-Server_1.example.net', 'Web-Server_1'],
    ['', '"ü"; rm -rf', 'rm--rf', 'rm--rf'],
    ['', '10.0.0.1', '10-0-0-1', '10-0-0-1'],
    ['', '☃', 'instance', 'instance'],
    ['domain = example.net', '-web.example.net', 'web.example.net', 'web.example.net'],
  ];
  for (const [settings, domain_name, expected, own = domain_name] of names) {
    await t.test(rowName(settings, domain_name), async () => {
      const served = serve({ configuration: `[dnsmasq]\n${settings}`, record: { domain_name } });
      assert.equal(await served.text('/latest/meta-data/local-hostname'), expected);
      assert.equal(await served.text('/latest/meta-data/hostname'), own);
      const { hostname } = JSON.parse(await served.text('/openstack/latest/meta_data.json'));
      assert.equal(hostname, expected);
    });
  }
});

const settable: Record<string, string> = {
  'ami-id': 'meta-data/ami-id',
  'ami-launch-index': 'meta-data/ami-launch-index',
  'ami-manifest-path': 'meta-data/ami-manifest-path',
  'availability-zone': 'meta-data/placement/availability-zone',
  'instance-action': 'meta-data/instance-action',
  'instance-life-cycle': 'meta-data/instance-life-cycle',
  'instance-type': 'meta-data/instance-type',
  'owner-id': `${interfaceFolder}owner-id`,
  profile: 'meta-data/profile',
  'public-hostname': 'meta-data/public-hostname',
  'public-ipv4': 'meta-data/public-ipv4',
  region: 'meta-data/placement/region',
  'security-groups': 'meta-data/security-groups',
};

test('a value is the domain’s, else the default that is set, with hyphens or underscores', async (t) => {
  for (const [name, path] of Object.entries(settable)) {
    const configuration = `[metadata-defaults]\n${name} = set`;
    const underscores = name.replaceAll('-', '_');
    const cases: [Record<string, string>, string][] = [
      [{}, 'set'],
      [{ [name]: 'own' }, 'own'],
      [{ [underscores]: 'own' }, 'own'],
      [{ [underscores.toUpperCase()]: 'own' }, 'own'],
      // An empty element says nothing.
      [{ [underscores]: '' }, 'set'],
    ];
    for (const [domain_metadata, expected] of cases) {
      await t.test(rowName(name, domain_metadata), async () => {
        const { text, get } = serve({ configuration, record: { domain_metadata } });
        assert.equal(await text(`/latest/${path}`), expected);
        assert.equal((await get('/latest/meta-data/tags')).status, 404, `${name} is no tag`);
      });
    }
  }
});

test('identifiers stay the same for the same thing, and differ between instances', async (t) => {
  const paths = [
    'meta-data/reservation-id',
    `${interfaceFolder}interface-id`,
    `${interfaceFolder}subnet-id`,
    `${interfaceFolder}vpc-id`,
  ];
  const [one, again] = [serve(), serve()];
  for (const path of paths) {
    await t.test(path, async () => {
      const id = await one.text(`/latest/${path}`);
      assert.match(id, /^(r|eni|subnet|vpc)-[0-9a-f]{17}$/);
      assert.equal(await again.text(`/latest/${path}`), id);
    });
  }
  const other = serve({ record: { domain_uuid: '00000000-0000-4000-8000-000000000001' } });
  assert.notEqual(
    await other.text(`/latest/${paths[0]}`),
    await one.text(`/latest/${paths[0]}`),
    'another machine is another reservation',
  );
});

// ---- NoCloud ----

/** What cloud-init's YAML reader makes of a text. */
function parseYaml(text: string): unknown {
  const program = 'import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin.buffer), sys.stdout)';
  return JSON.parse(execFileSync(python, ['-c', program], { input: text, encoding: 'utf8' }));
}

/** The same for many at once: a Python starts slowly. */
function parseYamls(texts: readonly string[]): unknown[] {
  const program =
    'import json, sys, yaml; json.dump([yaml.safe_load(t.encode()) for t in json.load(sys.stdin)], sys.stdout)';
  const input = JSON.stringify(texts);
  return JSON.parse(execFileSync(python, ['-c', program], { input, encoding: 'utf8' }));
}

test('NoCloud documents say what the tree of EC2 says', { skip: noYaml }, async () => {
  const { text } = serve({ ...complete, vendorData: '#cloud-config\npackages: [vim]\n' });
  assert.deepEqual(parseYaml(await text('/nocloud/meta-data')), {
    'instance-id': 'i-10.122.7.9',
    'local-hostname': 'web1.example.net',
    hostname: 'web1.example.net',
    'public-keys': ['ssh-ed25519 AAAAC3 me@example.net', 'ssh-rsa AAAAB3 work@example.net'],
  });
  assert.equal(await text('/nocloud/user-data'), '#cloud-config\n');
  assert.equal(await text('/nocloud/vendor-data'), '#cloud-config\npackages: [vim]\n');
  assert.equal(await text('/nocloud/network-config'), '');
  assert.equal(await text('/nocloud/'), 'meta-data\nuser-data\nvendor-data\nnetwork-config');
});

test("a seed's address may go on with values of SMBIOS, and each document is the caller's own", async (t) => {
  const { get } = serve({ ...complete, vendorData: '#cloud-config\n' });
  const plain = new Map<string, { status: number; text: string }>();
  for (const name of ['meta-data', 'user-data', 'vendor-data', 'network-config']) {
    plain.set(name, await get(`/nocloud/${name}`));
  }
  for (const seed of [
    'ACME-0123',
    // What the variable stands for is empty, has blanks, signs, a slash, or is that of another machine.
    '',
    'Standard%20PC%20(Q35%20+%20ICH9,%202009)',
    '%C3%9C%25%3B%3F%23',
    'ACME%2F1',
    'ACME/rack%201',
    'fedcba98-7654-4321-8fed-cba987654321',
    'latest',
    // cloud-init has not replaced it.
    '__dmi.system-sku-number__',
    'user-data',
  ]) {
    for (const [name, answer] of plain) {
      await t.test(rowName(seed, name), async () => {
        assert.deepEqual(await get(`/nocloud/${seed}/${name}`), answer);
        assert.deepEqual(await get(`/nocloud/${seed}//${name}/`), answer);
        const none = { status: 404, text: 'not found\n' };
        assert.deepEqual(await get(`/nocloud/${seed}/${name}`, { from: '10.122.7.10' }), none);
      });
    }
  }
  for (const path of ['ACME-0123', 'ACME-0123/', 'ACME-0123/meta-data/x', 'ACME-0123/hostname']) {
    await t.test(rowName(path, 'is no document'), async () => {
      assert.deepEqual(await get(`/nocloud/${path}`), { status: 404, text: 'not found\n' });
    });
  }
});

test('network_config gives the interface by its MAC', { skip: noYaml }, async () => {
  const configuration = '[mdserver]\nnetwork_config = yes';
  const ethernet = (dhcp6: boolean) => ({
    version: 2,
    ethernets: { mds: { match: { macaddress: '52:54:00:12:34:56' }, dhcp4: true, dhcp6 } },
  });
  const ipv4 = serve({ configuration });
  assert.deepEqual(parseYaml(await ipv4.text('/nocloud/network-config')), ethernet(false));
  const both = serve({ configuration, record: { mds_ipv6: 'fd00:122::9' } });
  assert.deepEqual(parseYaml(await both.text('/nocloud/network-config')), ethernet(true));
  const noMac = serve({ configuration, record: { mds_mac: null } });
  assert.equal(await noMac.text('/nocloud/network-config'), '');
});

test('all four NoCloud documents are there for an instance that has nothing', async (t) => {
  const { get } = serve({ userdata: false, hardware: {} });
  assert.deepEqual(await get('/nocloud/meta-data'), {
    status: 200,
    text: 'instance-id: "i-10.122.7.9"\nlocal-hostname: "web1"\nhostname: "web1"\n',
  });
  for (const name of ['user-data', 'vendor-data', 'network-config']) {
    await t.test(name, async () => {
      assert.deepEqual(await get(`/nocloud/${name}`), { status: 200, text: '' });
      assert.deepEqual(await get(`/nocloud//${name}/`), { status: 200, text: '' });
    });
  }
});

const hostileTexts = [
  'ssh-rsa AAAA "quoted" \'and\' `so`',
  'ssh-rsa AAAA a: b #c',
  '- [ {x: 1} ]',
  '!!python/object/apply:os.system ["id"]',
  '*alias &anchor | > %YAML',
  'back\\slash \\n \\u0041 \\',
  'tab\there',
  'ssh-rsa AAAA häßlich ☃ 😀',
  // Line ends for YAML 1.1, and characters that PyYAML takes nowhere.
  'a\u0085b\u2028c\u2029d',
  'a\u0080b\u009fc\ufeffd\uffffe\ufffef',
  'null',
  '~',
  'yes',
  '1e3',
];

test('no text of a key can break the YAML', { skip: noYaml }, async () => {
  const configuration = [
    '[public-keys]',
    ...hostileTexts.map((key, n) => `k${n} = ${key.replaceAll('%', '%%')}`),
  ];
  const { text } = serve({ configuration: configuration.join('\n') });
  assert.deepEqual(parseYaml(await text('/nocloud/meta-data')), {
    'instance-id': 'i-10.122.7.9',
    'local-hostname': 'web1',
    hostname: 'web1',
    'public-keys': hostileTexts,
  });
});

test('property: NoCloud meta-data is YAML that gives keys and name back', {
  skip: noYaml,
}, async () => {
  const line = fc
    .string({ unit: 'binary', minLength: 1, maxLength: 30 })
    .map((text) => text.replace(/[\p{Cc}\p{Cs}\s]/gu, ' ').trim())
    .filter((text) => text !== '');
  const samples = fc.sample(fc.tuple(line, line), 200);
  const texts: string[] = [];
  const expected: unknown[] = [];
  for (const [key, domain_name] of samples) {
    const served = serve({
      configuration: `[public-keys]\ndefault = ${key.replaceAll('%', '%%')}`,
      record: { domain_name },
    });
    texts.push(await served.text('/nocloud/meta-data'));
    expected.push({
      'instance-id': 'i-10.122.7.9',
      'local-hostname': await served.text('/latest/meta-data/local-hostname'),
      hostname: await served.text('/latest/meta-data/local-hostname'),
      'public-keys': [key],
    });
  }
  assert.deepEqual(parseYamls(texts), expected);
});

// ---- OpenStack ----

test("the OpenStack documents are what Nova's clients expect", async (t) => {
  const { text } = serve({ ...complete, vendorData: '#cloud-config\n' });
  const listed = (await text('/openstack/')).split('\n');
  assert.ok(listed.includes('latest') && listed.includes('2018-08-27'));
  const seeds = new Set<string>();
  for (const version of listed) {
    await t.test(rowName(version), async () => {
      const folder = `/openstack/${version}`;
      const json = async (name: string) => JSON.parse(await text(`${folder}/${name}`));
      assert.equal(
        await text(folder),
        [
          ...['meta_data.json', 'user_data', 'vendor_data.json', 'vendor_data2.json'],
          ...['network_data.json', ...(version < '2013' ? [] : ['password'])],
        ].join('\n'),
      );
      const { random_seed, ...metadata } = await json('meta_data.json');
      assert.equal(Buffer.from(random_seed, 'base64').length, 512);
      seeds.add(random_seed);
      assert.deepEqual(metadata, {
        uuid: '8f1b3b52-6a0e-4c57-9d0c-3f3c2b1a7e10',
        name: 'web1',
        hostname: 'web1.example.net',
        launch_index: 0,
        availability_zone: 'rack1',
        public_keys: {
          default: 'ssh-ed25519 AAAAC3 me@example.net',
          work: 'ssh-rsa AAAAB3 work@example.net',
        },
        keys: [
          { name: 'default', type: 'ssh', data: 'ssh-ed25519 AAAAC3 me@example.net' },
          { name: 'work', type: 'ssh', data: 'ssh-rsa AAAAB3 work@example.net' },
        ],
        meta: { Owner: 'Ann & Bob', größe: 'M' },
      });
      assert.deepEqual(await json('network_data.json'), {
        links: [{ id: 'mds', type: 'phy', ethernet_mac_address: '52:54:00:12:34:56' }],
        networks: [
          { id: 'network0', type: 'ipv4_dhcp', link: 'mds', network_id: 'mds' },
          { id: 'network1', type: 'ipv6_dhcpv6-stateful', link: 'mds', network_id: 'mds' },
        ],
        services: [],
      });
      assert.deepEqual(await json('vendor_data.json'), { 'cloud-init': '#cloud-config\n' });
      assert.deepEqual(await json('vendor_data2.json'), {});
      assert.equal(await text(`${folder}/user_data`), '#cloud-config\n');
    });
  }
  assert.equal(seeds.size, listed.length, 'random numbers that differ each time');
});

test('user-data is of any type, as in EC2, the documents of OpenStack are JSON, all else is text', async () => {
  const { type } = serve({ ...complete, vendorData: '#cloud-config\n' });
  const types: [path: string, type: string][] = [
    ['/latest/user-data', 'application/octet-stream'],
    ['/2009-04-04/user-data/', 'application/octet-stream'],
    ['/nocloud/user-data', 'application/octet-stream'],
    ['/openstack/latest/user_data', 'application/octet-stream'],
    ['/openstack/latest/meta_data.json', 'application/json; charset=utf-8'],
    ['/openstack/2012-08-10/network_data.json/', 'application/json; charset=utf-8'],
    ['/openstack/latest/vendor_data.json', 'application/json; charset=utf-8'],
    ['/openstack/latest/vendor_data2.json', 'application/json; charset=utf-8'],
    ['/openstack/latest', 'text/plain'],
    ['/openstack/latest/no.json', 'text/plain'],
    ['/latest/user-data/x', 'text/plain'],
    ['/latest/meta-data/', 'text/plain'],
    ['/latest/meta-data/instance-id', 'text/plain'],
    ['/latest/dynamic/instance-identity/document', 'text/plain'],
    ['/nocloud/meta-data', 'text/plain'],
    ['/nocloud/vendor-data', 'text/plain'],
    ['/', 'text/plain'],
  ];
  const served = await Promise.all(types.map(async ([path]) => [path, await type(path)]));
  assert.deepEqual(served, types);
});

test('OpenStack for an instance that has nothing: no user_data, no keys, no links', async () => {
  const { get, text } = serve({ userdata: false, record: { mds_mac: null } });
  assert.equal((await get('/openstack/latest/user_data')).status, 404);
  assert.equal(
    await text('/openstack/latest/'),
    'meta_data.json\nvendor_data.json\nvendor_data2.json\nnetwork_data.json\npassword',
  );
  const document = JSON.parse(await text('/openstack/latest/meta_data.json'));
  assert.deepEqual([document.public_keys, document.keys, document.meta], [{}, [], {}]);
  assert.deepEqual(JSON.parse(await text('/openstack/latest/network_data.json')), {
    links: [],
    networks: [],
    services: [],
  });
  assert.equal(await text('/openstack/latest/vendor_data.json'), '{}');
});

test('names and values in OpenStack’s documents need no care: __proto__ is a name like any other', async () => {
  const { text } = serve({
    configuration: '[public-keys]\n__proto__ = ssh-rsa "x"\n',
    record: { domain_metadata: { constructor: 'a"b\\c' } },
  });
  const document = JSON.parse(await text('/openstack/latest/meta_data.json'));
  assert.deepEqual(Object.entries(document.public_keys), [['__proto__', 'ssh-rsa "x"']]);
  assert.deepEqual(document.meta, { constructor: 'a"b\\c' });
});
