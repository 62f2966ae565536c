import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { clientPath, missingClient } from '../support/clients.js';
import { type GuestSite, runCloudInitWith, startGuest, web1 } from '../support/cloud-init-site.js';
import { repository } from '../support/daemon.js';
import { identify, type Smbios } from '../support/ds-identify.js';
import { missing } from '../support/parts.js';

// cloud-init in each version that is in the folder: what its ds-identify says of the recipes, what its
// datasources find and ask for, which guests stay themselves at a reboot without mdserver, and what its
// schema says of our user-data. docs/recipes.md has a table of what is asserted here.

const skip = missingClient('cloud-init') || missing('netns', 'curl', 'ssh-keygen', 'cloud-init');
const versions = skip ? [] : readdirSync(clientPath('cloud-init')).sort();

/** Whether a version ("23.4.3", "main") is that one or newer. */
function isFrom(version: string, year: number, release: number, fix = 0): boolean {
  if (version === 'main') return true;
  const [ownYear = 0, ownRelease = 0, ownFix = 0] = version.split('.').map(Number);
  return ownYear - year || ownRelease - release || ownFix - fix
    ? (ownYear - year || ownRelease - release || ownFix - fix) > 0
    : true;
}

/** A uuid as libvirt makes it: web1's has "ec2" in front, for recipe A. */
const uuid = '8f1b3b52-6a0e-4c57-9d0c-3f3c2b1a7e10';
const seed = 's=http://169.254.169.254/nocloud/';

/** SMBIOS by the recipes of docs/recipes.md, and in forms that older domains or others have. */
const recipes = {
  A: { product_serial: web1.domain_uuid, product_uuid: web1.domain_uuid },
  B: { product_serial: `ds=nocloud;${seed};dsmode=net` },
  'B in its old form': { product_serial: `ds=nocloud-net;${seed}` },
  'B with variables': {
    product_serial: `ds=nocloud;${seed}__dmi.system-product-name__/__dmi.chassis-serial-number__/;dsmode=net`,
    product_name: 'Standard PC (Q35 + ICH9, 2009)',
  },
  'B with i=': { product_serial: `ds=nocloud;i=${uuid};${seed};dsmode=net` },
  C: { product_name: 'OpenStack Nova', product_uuid: uuid },
  none: {},
} satisfies Record<string, Smbios>;

/** A file of `/sys/class/dmi/id` by dmidecode's name. */
const dmidecodeNames = {
  product_serial: 'system-serial-number',
  product_uuid: 'system-uuid',
  product_name: 'system-product-name',
} as const;

function dmidecoded(smbios: Smbios): Record<string, string | undefined> {
  return Object.fromEntries(
    Object.entries(dmidecodeNames).map(([file, name]) => [name, smbios[file as 'product_uuid']]),
  );
}

/** What images have in cloud.cfg.d: the datasources to choose from. */
const imageList = 'datasource_list: [ NoCloud, ConfigDrive, OpenStack, Ec2, None ]\n';

/** The datasource that a version's ds-identify names alone for a guest. */
function datasourceOf(t: TestContext, version: string, smbios: Smbios): string {
  // Without a recipe, the image has to say it.
  const list = smbios === recipes.none ? 'datasource_list: [ Ec2 ]\n' : imageList;
  const program = clientPath(`cloud-init/${version}/tools/ds-identify`);
  const found = identify(t, smbios, list, '', program);
  assert.deepEqual([found.status, found.stderr], [0, '']);
  const [, name] = /^datasource_list: \[ (\w+)(, None)? \]$/.exec(found.written.join('\n')) ?? [];
  assert.ok(name, `${found.written}`);
  return name;
}

/** Runs a script of test/fixtures/cloud-init with a version, and gives its JSON and its requests. */
async function run(site: GuestSite, version: string, script: string, argument: string) {
  const before = await site.requests();
  const env = { PYTHONPATH: clientPath(`cloud-init/${version}`) };
  const { answer, log } = await runCloudInitWith(env, site.guest, script, argument);
  return { answer, log, requests: (await site.requests()).slice(before.length) };
}

/** What datasource.py prints of what was found. */
interface Found {
  readonly [name: string]: unknown;
}

/** Looks for the datasource as `init --local` and `init` do; `list` where ds-identify did not run. */
async function find(
  site: GuestSite,
  version: string,
  datasource: string,
  smbios: Smbios,
  list?: readonly string[],
) {
  const folder = mkdtempSync(join(site.folder, 'guest-'));
  const asked = { datasource, smbios: dmidecoded(smbios), folder, exact: true, list };
  const found = await run(site, version, 'datasource.py', JSON.stringify(asked));
  return { ...found, answer: found.answer as Found | null };
}

const key = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGRlZmF1bHQ= first key';
const userdata = '#cloud-config\nbootcmd: [echo Grüße]\n';

function startWeb1(t: TestContext, domain_uuid = web1.domain_uuid): Promise<GuestSite> {
  return startGuest(t, {
    record: { domain_uuid },
    userdata: { web1: userdata },
    mdserver: 'network_config = yes',
    sections: `[public-keys]\ndefault = ${key}\n`,
  });
}

/** The part of what was found that is the same for all recipes. */
function assertFound(found: Found | null, more: Readonly<Record<string, unknown>>): void {
  const expected = {
    hostname: 'web1',
    fqdn: 'web1.example.net',
    public_keys: [key],
    userdata,
    ...more,
  };
  const names = Object.keys(expected);
  assert.deepEqual(Object.fromEntries(names.map((name) => [name, found?.[name]])), expected);
}

/** What cloud-init asks for once to see whether it is there, and once more to use it. */
const probed = /\/(openstack|meta-data\/instance-id) 200$/;

/** That every request was answered, and none made again but what is `probed`. */
function assertNothingLost(requests: readonly string[]): void {
  assert.deepEqual(
    requests.filter((request) => !request.endsWith(' 200')),
    [],
  );
  const again = requests.filter((request, place) => requests.indexOf(request) < place);
  assert.deepEqual(
    again.filter((request) => !probed.test(request)),
    [],
  );
}

/** Whether NoCloud by the SMBIOS serial is found at all, where ds-identify names it alone. */
const findsNocloud = (version: string) => !isFrom(version, 23, 4) || isFrom(version, 23, 4, 4);

/** The documents of NoCloud that a version asks for, in its order. */
function documents(version: string): string[] {
  if (isFrom(version, 24, 3)) return ['network-config', 'meta-data', 'user-data', 'vendor-data'];
  return ['meta-data', 'user-data', ...(isFrom(version, 21, 4) ? ['vendor-data'] : [])];
}

const ethernet = (name: string) => ({
  network: {
    version: 2,
    ethernets: {
      [name]: {
        dhcp4: true,
        dhcp6: false,
        match: { macaddress: web1.mds_mac },
        ...(name === 'eth0' && { 'set-name': name }),
      },
    },
  },
});

for (const version of versions) {
  test(`cloud-init ${version}: Ec2 as AWS and not as AWS, every request answered`, {
    skip,
  }, async (t) => {
    const site = await startWeb1(t);
    for (const [recipe, stage, type] of [
      ['A', 'local', 'DataSourceEc2Local'],
      ['none', 'network', 'DataSourceEc2'],
    ] as const) {
      await t.test(recipe, async () => {
        const smbios = recipes[recipe];
        const datasource = datasourceOf(t, version, smbios);
        assert.equal(datasource, 'Ec2');
        const { answer, log, requests } = await find(site, version, datasource, smbios);
        assert.equal(log, '');
        assertFound(answer, {
          stage,
          class: type,
          instance_id: `i-${web1.mds_ipv4}`,
          netplan: ethernet('eth0'),
          // No version has a way to know without asking.
          kept_for_next_boot: false,
        });
        assertNothingLost(requests);
        assert.equal(requests.includes('PUT /latest/api/token 200'), recipe === 'A');
      });
    }
  });

  test(`cloud-init ${version}: NoCloud by the serial`, { skip }, async (t) => {
    const site = await startWeb1(t);
    const path = (recipe: keyof typeof recipes) => {
      if (recipe !== 'B with variables') return '/nocloud/';
      return isFrom(version, 23, 1)
        ? '/nocloud/Standard%20PC%20(Q35%20+%20ICH9,%202009)//'
        : '/nocloud/__dmi.system-product-name__/__dmi.chassis-serial-number__/';
    };
    for (const recipe of ['B', 'B in its old form', 'B with variables'] as const) {
      await t.test(recipe, async () => {
        const smbios = recipes[recipe];
        const datasource = datasourceOf(t, version, smbios);
        assert.equal(datasource, 'NoCloud');
        const { answer, log, requests } = await find(site, version, datasource, smbios);
        if (!findsNocloud(version)) {
          assert.deepEqual([answer, requests], [null, []]);
          return;
        }
        const isDeprecated = recipe === 'B in its old form' && isFrom(version, 23, 4, 4);
        assert.match(log, isDeprecated ? /'nocloud-net' datasource name is deprecated/ : /^$/);
        assertFound(answer, {
          stage: 'network',
          class: 'DataSourceNoCloudNet',
          instance_id: `i-${web1.mds_ipv4}`,
          netplan: isFrom(version, 24, 3) ? ethernet('mds') : null,
          kept_for_next_boot: false,
        });
        const expected = documents(version).map((name) => `GET ${path(recipe)}${name} 200`);
        assert.deepEqual(requests, expected);
      });
    }
    await t.test(
      'B where ds-identify has not run, and the list has other datasources',
      async () => {
        const list = ['NoCloud', 'Ec2', 'OpenStack', 'None'];
        const { answer } = await find(site, version, 'NoCloud', recipes.B, list);
        const isFound = !isFrom(version, 23, 2) || isFrom(version, 23, 4, 4);
        assert.equal(answer?.['class'] ?? null, isFound ? 'DataSourceNoCloudNet' : null);
      },
    );
  });

  test(`cloud-init ${version}: OpenStack, every request answered`, { skip }, async (t) => {
    const site = await startWeb1(t, uuid);
    const datasource = datasourceOf(t, version, recipes.C);
    assert.equal(datasource, 'OpenStack');
    const { answer, log, requests } = await find(site, version, datasource, recipes.C);
    assert.equal(log, '');
    assertFound(answer, {
      stage: 'local',
      class: 'DataSourceOpenStackLocal',
      instance_id: uuid,
      kept_for_next_boot: true,
    });
    assertNothingLost(requests);
  });
}

// ---- ds-identify ----

const ec2Uuid = web1.domain_uuid;
/** The other notation of such a uuid, whose first bytes are in reverse. */
const turnedUuid = '45e12aec-dcd1-4213-94ed-01234567890a';
const isLoose = (version: string) => isFrom(version, 24, 2);
/** 23.2 writes the address along with the name of the datasource, and then knows no such datasource. */
const readsParameters = (version: string) => !isFrom(version, 23, 2) || isFrom(version, 23, 2, 1);
const always = () => true;
const never = () => false;

/** SMBIOS, more of the kernel's command line, the datasource, and the versions that find it alone. */
const hints: readonly (readonly [
  smbios: Smbios,
  kernel: string,
  datasource: string,
  isFound: (version: string) => boolean,
])[] = [
  [{ product_uuid: ec2Uuid, product_serial: ec2Uuid }, '', 'Ec2', always],
  [{ product_uuid: ec2Uuid.toUpperCase(), product_serial: ec2Uuid }, '', 'Ec2', always],
  // Half of recipe A is enough for newer versions, and so is a uuid that looks so by chance.
  [{ product_uuid: ec2Uuid }, '', 'Ec2', isLoose],
  [{ product_uuid: turnedUuid }, '', 'Ec2', isLoose],
  [{ product_serial: ec2Uuid }, '', 'Ec2', never],
  [recipes.B, '', 'NoCloud', always],
  [recipes['B in its old form'], '', 'NoCloud', always],
  [recipes['B with variables'], '', 'NoCloud', always],
  [{}, recipes.B.product_serial, 'NoCloud', readsParameters],
  [{ product_name: 'OpenStack Nova' }, '', 'OpenStack', always],
  [{ chassis_asset_tag: 'OpenStack Nova' }, '', 'OpenStack', always],
  [{}, '', 'Ec2', never],
];

test('ds-identify of each version finds the recipes, each alone', { skip }, async (t) => {
  for (const version of versions) {
    await t.test(version, () => {
      const program = clientPath(`cloud-init/${version}/tools/ds-identify`);
      for (const [smbios, kernel, datasource, isFound] of hints) {
        const { status, written } = identify(t, smbios, imageList, kernel, program);
        // Newer versions write what the kernel's command line has, in its own letters.
        const alone = new RegExp(`^datasource_list: \\[ ${datasource}(, None)? \\]$`, 'im');
        const isAlone = status === 0 && alone.test(written.join('\n'));
        assert.equal(isAlone, isFound(version), `${JSON.stringify(smbios)} ${kernel}: ${written}`);
        // cloud-init stays off where there is no hint at all.
        if (!isFound(version) && kernel === '') assert.equal(status, 1, `${written}`);
      }
    });
  }
});

// ---- reboots ----

/** What boot.py prints. */
interface Machine {
  readonly datasource: string;
  readonly host_key: string;
  readonly instance_id: string;
}

/** How the user-data keeps a guest's identity. */
const keepers = {
  nothing: '#cloud-config\n{}\n',
  manual_cache_clean: `#cloud-config
write_files:
  - path: /etc/cloud/cloud.cfg.d/99-mdserver.cfg
    content: "manual_cache_clean: true\\n"
`,
  'a seed folder': `#cloud-config
write_files:
  - path: /var/lib/cloud/seed/nocloud/meta-data
    content: "instance-id: i-{{instance.ipv4}}\\n"
`,
} as const;

/** A recipe, what keeps the identity, more of the kernel's command line, and whether that works. */
const reboots: readonly (readonly [
  recipe: 'A' | 'B' | 'B with i=' | 'C',
  keeper: keyof typeof keepers,
  kernel: string,
  keeps: boolean,
])[] = [
  ['A', 'nothing', '', false],
  ['A', 'manual_cache_clean', '', true],
  // Ec2 asks for nothing that it could compare, and looks at no such file.
  ['A', 'a seed folder', '', false],
  ['B', 'nothing', '', false],
  ['B', 'manual_cache_clean', '', true],
  ['B', 'a seed folder', '', true],
  // The guest has this instance-id then, but cloud-init compares it with no other.
  ['B with i=', 'nothing', '', false],
  // A kernel that the domain boots from the host can have it.
  ['B', 'nothing', recipes['B with i='].product_serial, true],
  ['C', 'nothing', '', true],
];

for (const version of versions) {
  test(`cloud-init ${version}: which guests stay themselves at a reboot without mdserver`, {
    skip,
    // They wait most of the time.
    concurrency: 4,
  }, async (t) => {
    const tests = reboots.map(async ([recipe, keeper, kernel, keeps]) => {
      if (recipe.startsWith('B') && kernel === '' && !findsNocloud(version)) return;
      await t.test([recipe, keeper, kernel].join(' '), async (t) => {
        const record = recipe === 'C' ? { domain_uuid: uuid } : {};
        const site = await startGuest(t, { record, userdata: { web1: keepers[keeper] } });
        const folder = mkdtempSync(join(site.folder, 'disk-'));
        const datasource = datasourceOf(t, version, recipes[recipe]);
        const smbios = dmidecoded(recipes[recipe]);
        const args = JSON.stringify({ datasource, smbios, folder, kernel });
        const env = { PYTHONPATH: clientPath(`cloud-init/${version}`) };
        const boot = async () =>
          (await runCloudInitWith(env, site.guest, 'boot.py', args)).answer as Machine;
        const first = await boot();
        assert.match(first.datasource, new RegExp(`DataSource${datasource}`));
        assert.deepEqual(await boot(), first);
        await site.daemon.stop();
        const second = await boot();
        // 24.2 alone forgets to drop its cache where it has found no datasource.
        const isKept = keeps || (isFrom(version, 24, 2) && !isFrom(version, 24, 3));
        assert.equal(second.host_key === first.host_key, isKept, JSON.stringify(second));
        assert.equal(second.instance_id, isKept ? first.instance_id : 'iid-datasource-none');
      });
    });
    await Promise.all(tests);
  });
}

// ---- schema ----

test('the schema of each version takes the built-in user-data and the demo without a word', {
  skip,
}, async (t) => {
  const demo = readFileSync(join(repository, 'etc/mdserver/demo-userdata/web1.yaml'));
  const sections = `[public-keys]\ndefault = ${key}\n`;
  const builtIn = await startGuest(t, { sections });
  const ownFile = await startGuest(t, { sections, userdata: { web1: demo } });
  for (const [name, site] of Object.entries({ builtIn, ownFile })) {
    const url = 'http://169.254.169.254/latest/user-data';
    const { stdout } = await site.guest.run('curl', ['-sS', '--fail', url]);
    assert.match(stdout, /^#cloud-config\n/);
    const file = join(site.folder, name);
    writeFileSync(file, stdout);
    const wrong = join(site.folder, 'wrong');
    writeFileSync(wrong, '#cloud-config\nruncmd: 7\n');
    for (const version of versions) {
      await t.test(`${version} ${name}`, async () => {
        const { answer } = await run(site, version, 'schema.py', file);
        const { status, said } = answer as { status: number; said: string };
        assert.match(said, /^Valid (cloud-config|schema)[^\n]*\n$/);
        assert.equal(status, 0);
        // It does look: this is no list.
        assert.match(
          JSON.stringify((await run(site, version, 'schema.py', wrong)).answer),
          /runcmd/,
        );
      });
    }
  }
});
