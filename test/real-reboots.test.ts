import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type GuestSite, runCloudInit, startGuest, web1 } from './support/cloud-init-site.js';
import { eventually } from './support/daemon.js';
import { missing } from './support/parts.js';

// Debian's cloud-init boots a machine several times, with mdserver and without it. A machine that it
// takes for a new one gets other ssh host keys.

const skip = missing('netns', 'cloud-init', 'curl', 'ssh-keygen');

/** The SMBIOS settings of docs/recipes.md. */
const recipes = {
  A: {
    datasource: 'Ec2',
    smbios: { 'system-uuid': web1.domain_uuid, 'system-serial-number': web1.domain_uuid },
  },
  B: {
    datasource: 'NoCloud',
    smbios: {
      'system-serial-number': 'ds=nocloud;s=http://169.254.169.254/nocloud/;dsmode=net',
    },
  },
  C: {
    datasource: 'OpenStack',
    smbios: { 'system-uuid': web1.domain_uuid, 'system-product-name': 'OpenStack Nova' },
  },
} as const;

/** What test/fixtures/cloud-init/boot.py prints. */
interface Machine {
  readonly datasource: string;
  readonly instance_id: string;
  readonly instances: readonly string[];
  readonly semaphores: readonly string[];
  readonly host_key: string;
}

/** A machine that boots by a recipe, from a disk of its own; `kernel` is more of its kernel's command line. */
function machineOf(site: GuestSite, recipe: keyof typeof recipes, kernel = '') {
  const folder = mkdtempSync(join(site.folder, 'disk-'));
  return {
    boot: async () => {
      const args = JSON.stringify({ ...recipes[recipe], folder, kernel });
      const { answer } = await runCloudInit(site.guest, 'boot.py', args);
      return answer as Machine;
    },
    /** What `cloud-init clean` does. */
    clean: () => rmSync(join(folder, 'var/lib/cloud'), { recursive: true }),
  };
}

/** How user-data sets manual_cache_clean: as docs/recipes.md has it, by its key, or not at all. */
const userdata = {
  'with a file for': `#cloud-config
write_files:
  - path: /etc/cloud/cloud.cfg.d/99-mdserver.cfg
    content: "manual_cache_clean: true\\n"
`,
  'with the key': '#cloud-config\nmanual_cache_clean: true\n',
  without: '#cloud-config\n{}\n',
};

const rows = [
  ['A', 'with a file for', true],
  ['A', 'with the key', true],
  ['A', 'without', false],
  ['B', 'with a file for', true],
  ['B', 'with the key', true],
  ['B', 'without', false],
  ['C', 'without', true],
] as const;
for (const [recipe, how, keeps] of rows) {
  const what = keeps ? 'keeps its identity' : 'becomes a new machine';
  test(`recipe ${recipe} ${how} manual_cache_clean: a guest that boots without mdserver ${what}`, {
    skip,
  }, async (t) => {
    const site = await startGuest(t, { userdata: { web1: userdata[how] } });
    const machine = machineOf(site, recipe);
    const first = await machine.boot();
    assert.match(first.datasource, new RegExp(recipes[recipe].datasource));
    assert.ok(first.semaphores.includes('config_ssh'), `${first.semaphores}`);
    assert.deepEqual(await machine.boot(), first, 'with mdserver');

    await site.daemon.stop();
    const second = await machine.boot();
    if (keeps) {
      assert.deepEqual(second, first);
    } else {
      assert.equal(second.datasource, 'DataSourceNone');
      assert.equal(second.instance_id, 'iid-datasource-none');
      assert.notEqual(second.host_key, first.host_key);
    }
  });
}

test("an instance-id on the kernel's command line keeps a guest's identity without mdserver", {
  skip,
}, async (t) => {
  const site = await startGuest(t, { userdata: { web1: userdata.without } });
  const id = '8f1b3b52-6a0e-4c57-9d0c-3f3c2b1a7e10';
  const kernel = `ds=nocloud;i=${id};s=http://169.254.169.254/nocloud/;dsmode=net`;
  const machine = machineOf(site, 'B', kernel);
  const first = await machine.boot();
  assert.equal(first.instance_id, id);
  await site.daemon.stop();
  assert.deepEqual(await machine.boot(), first);
});

test('recipe B: a typing error in a template makes no guest a new machine, over a restart of mdserver, too', {
  skip,
}, async (t) => {
  const site = await startGuest(t, { userdata: { web1: userdata.without } });
  const machine = machineOf(site, 'B');
  const first = await machine.boot();
  await eventually('the version that rendered is kept', () =>
    readdirSync(site.folder, { recursive: true, encoding: 'utf8' }).some((path) =>
      /^templates\/[0-9a-f]+$/.test(path),
    ),
  );
  writeFileSync(join(site.folder, 'userdata/web1'), '#cloud-config\nhostname: {{hostnam}}\n');
  assert.deepEqual(await machine.boot(), first);
  await site.restart();
  assert.deepEqual(await machine.boot(), first);
});

test('with manual_cache_clean, the copy of a disk stays the machine that it was until it is cleaned', {
  skip,
}, async (t) => {
  const site = await startGuest(t, { userdata: { web1: userdata['with a file for'] } });
  const machine = machineOf(site, 'A');
  const first = await machine.boot();
  await site.restart('instance_id = uuid');
  assert.deepEqual(await machine.boot(), first);
  machine.clean();
  const cleaned = await machine.boot();
  assert.equal(cleaned.instance_id, 'i-ec2f4d2a3b1c4e5f8');
  assert.notEqual(cleaned.host_key, first.host_key);
});
