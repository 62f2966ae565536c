import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { missing } from '../support/parts.js';
import { codeWith, startToolsHost } from '../support/tools-host.js';

const skip =
  missing('root', 'libvirtd', 'qemu', 'virsh', 'unshare') ||
  (existsSync('/usr/share/doc/vagrant-libvirt') ? false : 'needs vagrant-libvirt');

test('the Vagrantfile of the documentation makes a domain that names its datasource, and leaves the network when it goes', {
  skip,
}, async (t) => {
  const { folder, libvirt, shell, attempt, datasources } = await startToolsHost(t);
  // The machine here has no KVM, and the box no system: Vagrant waits for one in vain.
  const file = codeWith('recipes.md', 'Vagrant', 'Vagrant.configure')
    .replace(/^( *)config\.vm\.box.*$/m, '$&\n$1config.vm.boot_timeout = 5')
    .replace(/^( *)libvirt\.default_prefix.*$/m, '$&\n$1libvirt.driver = "qemu"');
  writeFileSync(join(folder, 'Vagrantfile'), file);
  writeFileSync(
    join(folder, 'metadata.json'),
    JSON.stringify({ provider: 'libvirt', format: 'qcow2', virtual_size: 1 }),
  );
  await shell(`export VAGRANT_CHECKPOINT_DISABLE=1; qemu-img create -q -f qcow2 box.img 32M
    tar czf tiny.box metadata.json box.img
    vagrant box add --name debian12-cloud tiny.box`);
  const up = await attempt(
    'VAGRANT_CHECKPOINT_DISABLE=1 timeout 120 vagrant up --provider libvirt --no-destroy-on-error',
  );
  assert.match(up.stderr, /^Timed out while waiting for the machine to boot/m);
  assert.deepEqual(await datasources(), { web1: 'nocloud' });
  await shell('vagrant destroy --force');
  assert.equal((await libvirt.virsh('list', '--all', '--name')).trim(), '');
  assert.match(await libvirt.virsh('net-info', 'mds'), /^Active: +yes$/m);
});
