import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import type { InstanceDetails, InstanceSummary } from '../src/control/api.js';
import { maxXmlBytes } from '../src/uploads.js';
import { exited, suiteScope, temporaryFolder } from './support/cleanup.js';
import { startWithControl } from './support/control-socket.js';
import { program, run } from './support/ctl.js';
import type { Daemon } from './support/daemon.js';
import { type LibvirtHost, startLibvirt } from './support/libvirt.js';
import { missing, python } from './support/parts.js';
import { hostConfiguration, mac, uuid } from './support/samples.js';

const scope = suiteScope();

describe('the domains of a real libvirt are taken as libvirt means them', {
  skip: missing('root', 'libvirtd', 'qemu', 'virsh', 'unshare', 'python'),
}, () => {
  const folder = temporaryFolder(scope, {
    'userdata/sp1': '#cloud-config\nfqdn: without\n',
    'userdata/sp1 ': '#cloud-config\nfqdn: with\n',
  });
  let libvirt: LibvirtHost;
  let daemon: Daemon;

  const start = async () => {
    const configuration = hostConfiguration(folder);
    daemon = await startWithControl(scope, folder, configuration, '169.254.169.254', libvirt.start);
  };
  /** Stops it: its process here only waits for the one in the namespaces. */
  const stop = async () => {
    const { pid } = daemon.process;
    process.kill(Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')));
    await exited(daemon.process);
  };
  before(async () => {
    libvirt = await startLibvirt(scope);
    await start();
  });

  const ctl = (...args: string[]) =>
    libvirt.run(process.execPath, [program, '--config', `${folder}/mdserver.conf`, ...args]);
  const show = async (name: string) =>
    JSON.parse((await ctl('show', '--json', name)).stdout) as InstanceDetails;
  const names = async () =>
    (JSON.parse((await ctl('list', '--json')).stdout) as InstanceSummary[]).map(({ name }) => name);

  /** Defines a domain on the network, which is not started: with another network, or a disk. */
  async function define(
    number: number,
    name: string,
    { network = 'mds', description = '', disk = '', metadata = '' } = {},
  ): Promise<void> {
    const file = join(folder, 'domain.xml');
    writeFileSync(
      file,
      `<domain type='qemu'><name>${name}</name><uuid>${uuid(number)}</uuid>
  <metadata>${metadata}</metadata><description>${description}</description><memory unit='byte'>33554432</memory><vcpu>04</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    ${disk}<interface type='network'><mac address='${mac(number)}'/><source network='${network}'/></interface>
  </devices>
</domain>`,
    );
    await libvirt.virsh('define', file);
  }

  it('names that differ in blanks are different domains, through all that mdserver does', async () => {
    const all = ['sp1', 'sp1 ', ' sp1', 'sp 1', 'sp  1'];
    for (const [index, name] of all.entries()) await define(index + 1, name);
    assert.equal((await ctl('sync')).status, 0);
    assert.deepEqual((await names()).sort(), [...all].sort());

    // Read again by mdserver, and by Python.
    await stop();
    await start();
    const shown = await Promise.all(all.map(show));
    assert.deepEqual(
      shown.map(({ name, uuid: id }) => [name, id]),
      all.map((name, index) => [name, uuid(index + 1)]),
    );
    const unique = (values: unknown[]) => new Set(values).size;
    assert.equal(unique(shown.map(({ ipv4 }) => ipv4)), all.length);
    assert.equal(unique(shown.flatMap(({ dns_names }) => dns_names)), all.length);
    const program = `import json, sys; print(json.dumps(sorted(r['domain_name'] for r in json.load(open(sys.argv[1])))))`;
    const { stdout } = await run(python, ['-c', program, join(folder, 'db.json')]);
    assert.deepEqual(JSON.parse(stdout), [...all].sort());

    assert.equal((await ctl('render', 'sp1')).stdout, '#cloud-config\nfqdn: without\n');
    assert.equal((await ctl('render', 'sp1 ')).stdout, '#cloud-config\nfqdn: with\n');
    assert.match((await ctl('explain', 'sp1 ')).stdout, new RegExp(`^sp1 .*${shown[1]?.ipv4}`));
    assert.equal((await ctl('remove', '--yes', 'sp1 ')).status, 0);
    assert.deepEqual((await names()).sort(), all.filter((name) => name !== 'sp1 ').sort());
    assert.match(
      (await ctl('sync')).stdout,
      new RegExp(`^uploaded\tsp1 \t${shown[1]?.ipv4}$`, 'm'),
    );
  });

  it('metadata that virsh sets is read: one value, or several in an element', async () => {
    const set = (number: number, xml: string) =>
      libvirt.virsh(
        ...['metadata', uuid(number), 'urn:md_server:domain_metadata', '--config'],
        ...['--key', 'mdserver', '--set', xml],
      );
    await set(1, '<instance><role>a</role><userdata_prefix>b</userdata_prefix></instance>');
    await set(2, '<role>c</role>');
    assert.equal((await ctl('sync')).status, 0);
    assert.deepEqual((await show('sp1')).metadata, { role: 'a', userdata_prefix: 'b' });
    assert.deepEqual((await show('sp1 ')).metadata, { role: 'c' });
  });

  it('sync tells of each domain in plain words, and one that is too large ends it for no other', async () => {
    const layer = "<backingStore type='file'><format type='raw'/><source file='/none'/>";
    const chain = `${layer.repeat(200)}${'</backingStore>'.repeat(200)}`;
    const disk = `<disk type='file'><source file='/none'/>${chain}<target dev='vda'/></disk>`;
    await define(11, 'chain', { disk });
    await define(12, 'huge', { description: 'x'.repeat(maxXmlBytes) });
    const names = "constructor='1' __proto__='2' p:q:toString='3'";
    const others = `<p:constructor xmlns:p='urn:p' ${names}><q:__proto__/><?p it's?><!-- ' --><r:s :t='4'/></p:constructor>`;
    const values = "<i xmlns='urn:md_server:domain_metadata'><x xmlns=''>y</x></i>";
    await define(15, 'other', { metadata: others + values });
    await define(13, "größe &quot;x&quot; &amp; it's");
    await define(16, 'two&#x2028;lines');
    await define(14, 'else "where"', { network: 'default' });
    const { status, stdout } = await ctl('sync');
    assert.equal(status, 1);
    const rows = stdout.split('\n').filter((row) => !/\t *sp *1 *\t/.test(row));
    const size = /it has (\d+) bytes/.exec(stdout)?.[1];
    assert.ok(Number(size) > maxXmlBytes);
    assert.deepEqual(
      rows.map((row) => row.replace(/10\.122\.\d+\.\d+/, 'ADDRESS')),
      [
        'uploaded\tchain\tADDRESS',
        'skipped\telse "where"\tthe domain "else \\"where\\"" has no interface on the network "mds" or the bridge "br-mds"',
        'uploaded\tgröße "x" & it\'s\tADDRESS',
        `failed\thuge\tthe body is too large: it has ${size} bytes, and at most 1048576 are allowed`,
        'uploaded\tother\tADDRESS',
        'failed\ttwo\\u2028lines\tthe <name> of the domain is "two\\u2028lines": line ends and control, bidirectional and invisible characters are not allowed: rename it (virsh domrename)',
        '',
      ],
    );
    assert.deepEqual((await show('other')).metadata, { x: 'y' });
    assert.match(daemon.output(), new RegExp(`WARN {2}refused POST /instance-upload: .* ${size} `));
  });
});
