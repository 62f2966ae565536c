import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import type { InstanceDetails, InstanceSummary } from '../src/control/api.js';
import { suiteScope } from './support/cleanup.js';
import { missing } from './support/parts.js';
import { domainXml } from './support/samples.js';
import { codeWith, startToolsHost, type ToolsHost } from './support/tools-host.js';

const scope = suiteScope();

describe('the commands that the documentation shows for virtual machines work', {
  skip: missing(
    ...(['root', 'libvirtd', 'qemu', 'virsh', 'unshare', 'ansible-inventory', 'jq'] as const),
    ...(['virt-install', 'virt-clone', 'xsltproc'] as const),
  ),
}, () => {
  let host: ToolsHost;
  before(async () => (host = await startToolsHost(scope)));

  const shell = (script: string) => host.shell(script);
  const virsh = (...args: string[]) => host.libvirt.virsh(...args);
  const show = async (name: string) =>
    JSON.parse(await shell(`mdserverctl show --json ${name}`)) as InstanceDetails;
  const tiny =
    'virt-install --memory 32 --osinfo detect=on,require=off --disk none --import --noautoconsole --graphics none';
  /** A virt-install of the documentation, on a machine that may have no KVM. */
  const emulated = (code: string) => code.replace('virt-install', 'virt-install --virt-type qemu');

  it('virt-install makes domains that name the datasource of their recipe', async () => {
    for (const recipe of ['A', 'B', 'C']) {
      const code = codeWith('recipes.md', `Recipe ${recipe}:`, 'virt-install …');
      await shell(emulated(code).replace(/virt-install (.*)…/, `${tiny} $1 --name ${recipe}`));
    }
    const whole = codeWith('recipes.md', 'virt-install', '--name web1');
    const image = /backing_store=(\S+)/.exec(whole)?.[1];
    await shell(`qemu-img create -q -f qcow2 ${image} 1M`);
    await shell(emulated(whole).replace('--memory 2048', '--memory 32'));
    assert.deepEqual(await host.datasources(), {
      A: 'ec2',
      B: 'nocloud',
      C: 'openstack',
      web1: 'ec2',
    });
    // None of libvirt's own leases are on the network, now or later.
    assert.equal(await virsh('net-dhcp-leases', 'mds'), '');
    assert.equal(await virsh('domifaddr', 'web1'), '');
  });

  it('virt-clone makes instances of their own, and recipe A needs the uuid changed in two places', async () => {
    for (const name of ['A', 'B', 'C', 'web1']) await virsh('destroy', name);
    const plain = codeWith('recipes.md', 'virt-clone', '--original db1');
    const like = (name: string) => plain.replace('db1', name).replace('db2', `${name}2`);
    await shell(like('B'));
    await shell(like('C'));
    const refused = await host.attempt(like('web1'));
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /UUID mismatch between <uuid> and <sysinfo>/);

    // With the serial number alone, the clone has another domain's, and libvirt does not mind.
    const uuid = 'ec200000-0000-4000-8000-000000000001';
    const serial = `--uuid ${uuid} --sysinfo smbios,system.serial=${uuid}`;
    await shell(emulated(`${tiny} --name serial --network network=mds ${serial}`));
    await virsh('destroy', 'serial');
    await shell(like('serial'));

    const values =
      '<instance><ipv4>10.122.7.7</ipv4><userdata_prefix>web</userdata_prefix></instance>';
    const set = ['metadata', 'web1', 'urn:md_server:domain_metadata', '--config'];
    await virsh(...set, '--key', 'mdserver', '--set', values);
    await host.datasources();
    await shell(codeWith('recipes.md', 'virt-clone', '--original-xml'));
    const synced = await host.attempt('mdserverctl sync');
    assert.equal(synced.status, 1);
    assert.match(synced.stdout, /^failed\tweb2\tipv4 .* the address of web1 /m);
    await shell(codeWith('recipes.md', 'virt-clone', 'virsh metadata web2'));
    assert.deepEqual(await host.datasources(), {
      ...{ A: 'ec2', B: 'nocloud', C: 'openstack', web1: 'ec2', serial: 'ec2' },
      ...{ B2: 'nocloud', C2: 'openstack', web2: 'ec2', serial2: 'none' },
    });

    const [original, clone] = [await show('web1'), await show('web2')];
    assert.equal(original.ipv4, '10.122.7.7');
    assert.notEqual(clone.ipv4, original.ipv4);
    assert.notEqual(clone.mac, original.mac);
    assert.notEqual(clone.uuid, original.uuid);
    assert.deepEqual(clone.smbios, { serial: clone.uuid, uuid: clone.uuid });
    assert.deepEqual(clone.metadata, { userdata_prefix: 'web' });
  });

  it("the stylesheet for Terraform's provider 0.8 gives a domain its datasource and metadata", async () => {
    writeFileSync(
      join(host.folder, 'smbios.xsl'),
      codeWith('recipes.md', 'Terraform', 'xsl:stylesheet'),
    );
    const domain = domainXml(8, { name: 'terraform' }).replace("'kvm'", "'qemu'");
    // The provider leaves it to libvirt to choose the uuid, and writes no <metadata>.
    const bare = domain.replace(/ *<uuid>.*\n/, '').replace(/ *<metadata>.*\n/, '');
    writeFileSync(join(host.folder, 'terraform.xml'), bare);
    await shell('xsltproc smbios.xsl terraform.xml >made.xml; virsh define made.xml');
    assert.equal((await host.datasources())['terraform'], 'nocloud');
    assert.deepEqual((await show('terraform')).metadata, { role: 'web' });
  });

  it('the inventory for Ansible has addresses, values and groups', async () => {
    const script = codeWith('finding-guests.md', 'Ansible', 'mdserverctl list --json');
    writeFileSync(join(host.folder, 'mdserver-inventory.sh'), script, { mode: 0o755 });
    const read = await host.attempt('ansible-inventory -i mdserver-inventory.sh --list');
    assert.deepEqual([read.status, read.stderr], [0, '']);
    const inventory = JSON.parse(read.stdout);
    const list = JSON.parse(await shell('mdserverctl list --json')) as InstanceSummary[];
    assert.deepEqual(
      inventory._meta.hostvars,
      Object.fromEntries(list.map((one) => [one.name, { ansible_host: one.ipv4, instance: one }])),
    );
    const names = list.map(({ name }) => name).toSorted();
    assert.deepEqual(inventory['location_rack_1'].hosts.toSorted(), names);
    assert.deepEqual(inventory['role_web'].hosts, ['terraform']);

    await shell('mdserverctl remove --yes $(mdserverctl list | cut -f 1)');
    assert.deepEqual(JSON.parse(await shell('./mdserver-inventory.sh')), {
      _meta: { hostvars: {} },
      all: { hosts: [] },
    });
  });
});
