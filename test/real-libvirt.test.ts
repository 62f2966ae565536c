import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import type { InstanceDetails, InstanceSummary } from '../src/control/api.js';
import { maxXmlBytes } from '../src/uploads.js';
import { suiteScope, temporaryFolder } from './support/cleanup.js';
import { startWithControl } from './support/control-socket.js';
import { program } from './support/ctl.js';
import type { Daemon } from './support/daemon.js';
import { type LibvirtHost, startLibvirt } from './support/libvirt.js';
import { missing } from './support/parts.js';
import { hostConfiguration, mac, uuid } from './support/samples.js';

const scope = suiteScope();
const metadataUri = 'urn:md_server:domain_metadata';

describe('the domains of a real libvirt are taken as libvirt means them', {
  skip: missing('root', 'libvirtd', 'qemu', 'virsh', 'unshare'),
}, () => {
  let libvirt: LibvirtHost;
  let daemon: Daemon;
  const folder = temporaryFolder(scope, { 'userdata/': '' });

  const ctl = (...args: string[]) =>
    libvirt.run(process.execPath, [program, '--config', `${folder}/mdserver.conf`, ...args]);

  async function json<T>(...args: string[]): Promise<T> {
    return JSON.parse((await ctl('--json', ...args)).stdout) as T;
  }

  const start = async () => {
    const configuration = hostConfiguration(folder);
    daemon = await startWithControl(scope, folder, configuration, '169.254.169.254', libvirt.start);
  };

  /** Defines a domain that is not started. */
  async function define(number: number, name: string, more = '', disk = ''): Promise<void> {
    const file = join(folder, `${number}.xml`);
    writeFileSync(
      file,
      `<domain type='qemu'><name>${name}</name><uuid>${uuid(number)}</uuid>${more}
  <memory unit='byte'>33554432</memory><vcpu>04</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>${disk}<interface type='network'><mac address='${mac(number)}'/><source network='mds'/></interface></devices>
</domain>`,
    );
    await libvirt.virsh('define', file);
  }

  before(async () => {
    libvirt = await startLibvirt(scope);
    await start();
  });

  it('explore', async () => {
    const layers = 200;
    const layer = "<backingStore type='file'><format type='raw'/><source file='/none'/>";
    const disk = `<disk type='file'><source file='/none'/>${layer.repeat(layers)}${'</backingStore>'.repeat(layers)}<target dev='vda'/></disk>`;
    await define(1, 'sp1');
    await define(2, 'sp1 ');
    await define(3, ' sp1');
    await define(4, 'a  b');
    await define(5, 'größe "x" &amp; $y');
    await define(6, 'chain', '', disk);
    await define(7, 'huge', `<description>${'x'.repeat(maxXmlBytes)}</description>`);
    await define(8, '-x');
    await define(9, "it's");
    await libvirt.virsh(
      'metadata',
      uuid(1),
      metadataUri,
      '--config',
      '--key',
      'mdserver',
      '--set',
      '<instance><role>a</role></instance>',
    );
    await libvirt.virsh(
      'metadata',
      uuid(2),
      metadataUri,
      '--config',
      '--key',
      'mdserver',
      '--set',
      '<userdata>x</userdata>',
    );
    console.log(await libvirt.virsh('dumpxml', uuid(1)));
    console.log(JSON.stringify(await libvirt.virsh('list', '--all', '--uuid', '--name')));
    const sync = await ctl('sync');
    console.log(sync.stdout, sync.stderr, sync.status);
    console.log((await ctl('list')).stdout);
    for (const name of ['sp1', 'sp1 ', ' sp1', 'a  b']) console.log(await json('show', name));
    console.log(daemon.output());
    assert.ok(true);
    const list = await json<InstanceSummary[]>('list');
    console.log(list.length);
    const d = await json<InstanceDetails>('show', 'sp1');
    console.log(d.metadata);
  });
});
