import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { InstanceDetails } from '../src/control/api.js';
import { datasourceAdvice } from '../src/ctl/guests.js';
import { detailsText, parseDetails } from '../src/instances/details-file.js';
import { parseDomain } from '../src/instances/domain-xml.js';
import { datasourceOf, type Smbios } from '../src/instances/smbios.js';
import { temporaryFolder } from './support/cleanup.js';
import { eventually, repository } from './support/daemon.js';
import { missing } from './support/parts.js';
import { rowName } from './support/rows.js';
import { domain, domainXml, uuid } from './support/samples.js';
import { startSite } from './support/site.js';

const mds = { net_name: 'mds', interface: 'br-mds' };
const qemu = "xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'";

/** What is read of a domain with this in its `<os>`, and this behind it. */
function smbiosOf(os: string, more = '', type = 'hvm'): Smbios | undefined {
  const xml = domainXml(1)
    .replace(/<os>.*<\/os>/, `<os><type arch='x86_64'>${type}</type>${os}</os>${more}`)
    .replace('<domain ', `<domain ${qemu} `);
  return parseDomain(xml, mds).smbios;
}

const sysinfo = (entries: string) => `<sysinfo type='smbios'>${entries}</sysinfo>`;
const used = "<smbios mode='sysinfo'/>";
const system = (name: string, text: string) =>
  sysinfo(`<system><entry name='${name}'>${text}</entry></system>`);

test('the SMBIOS of a domain is what libvirt gives its guest', async (t) => {
  const rows: readonly (readonly [os: string, more: string, smbios: Smbios | undefined])[] = [
    ['', '', {}],
    [used, '', {}],
    [used, system('serial', ' ds=nocloud&amp;x '), { serial: 'ds=nocloud&x' }],
    [used, system('product', 'OpenStack Nova'), { product: 'OpenStack Nova' }],
    [used, sysinfo("<chassis><entry name='asset'>a</entry></chassis>"), { asset: 'a' }],
    // What ds-identify does not look at, and what is no text.
    [used, system('family', 'x'), {}],
    [used, system('serial', ' '), {}],
    [used, sysinfo("<baseBoard><entry name='serial'>x</entry></baseBoard>"), {}],
    [used, sysinfo('<system><entry>x</entry></system>'), {}],
    [used, "<sysinfo type='fwcfg'><entry name='opt/serial'>x</entry></sysinfo>", {}],
    // libvirt leaves it out, or takes the host's own.
    ['', system('serial', 'x'), {}],
    ["<smbios mode='emulate'/>", system('serial', 'x'), {}],
    ["<smbios mode='host'/>", system('serial', 'x'), undefined],
  ];
  for (const row of rows) {
    await t.test(rowName(row), () => {
      const [os, more, smbios] = row;
      assert.deepEqual(smbiosOf(os, more), smbios);
    });
  }
  assert.equal(smbiosOf('', '', 'exe'), undefined);
});

test('arguments that libvirt hands to QEMU count, the last one of a field before all others', () => {
  const argument = (value: string) => `<q:arg value='${value}'/>`;
  const commandLine = (...values: string[]) =>
    `<q:commandline>${values.map(argument).join('')}</q:commandline>`;
  const serial = 'ds=nocloud;s=http://169.254.169.254/nocloud/';
  const read = (...values: string[]) => smbiosOf('', commandLine(...values));
  assert.deepEqual(read('-smbios', `type=1,serial=${serial}`), { serial });
  assert.deepEqual(read('-smbios', 'type=1,serial=a,,b=c,product=d', '-smbios', 'type=3,asset=e'), {
    serial: 'a,b=c',
    product: 'd',
    asset: 'e',
  });
  assert.deepEqual(read('-smbios', 'type=2,serial=x', '-device', 'type=1,serial=x', '-smbios'), {});
  assert.deepEqual(
    smbiosOf(used, system('serial', 'a') + commandLine('-smbios', 'type=1,serial=b')),
    { serial: 'b' },
  );
});

test("of the kernel's command line, what is for cloud-init counts", () => {
  const read = (line: string) => smbiosOf(`<cmdline>${line}</cmdline>`);
  assert.deepEqual(read('root=/dev/vda ro'), {});
  assert.deepEqual(read('ro ds=nocloud;s=http://a/ quiet ci.ds=Ec2'), {
    kernel: 'ds=nocloud;s=http://a/ ci.ds=Ec2',
  });
});

test('a long text is cut, and no text of SMBIOS refuses an upload', () => {
  const long = 'x'.repeat(10_000);
  assert.deepEqual(smbiosOf(used, system('serial', long)), { serial: long.slice(0, 256) });
  assert.deepEqual(smbiosOf(used, system('serial', '&#9;&#xA;\u202e')), { serial: '\u202e' });
  assert.deepEqual(smbiosOf(used, system('uuid', 'no uuid') + system('uuid', '')), {
    uuid: 'no uuid',
  });
});

test('the details file keeps SMBIOS, and that nothing is known of it', () => {
  const read = (text: string) => parseDetails(text).details.get(uuid(1))?.smbios;
  const details = { hardware: {}, hostKeys: [] };
  const stored = (smbios?: Smbios) =>
    read(`{${detailsText({ uuid: uuid(1), details: { ...details, smbios } })}}`);
  for (const smbios of [undefined, {}, { serial: 'a', product: 'b' }]) {
    assert.deepEqual(stored(smbios), smbios);
  }
  // A file that another version, or somebody else, has written.
  const other = { serial: 7, uuid: null, product: 'x'.repeat(300), later: 'y' };
  assert.deepEqual(read(JSON.stringify({ [uuid(1)]: { smbios: other } })), {
    product: 'x'.repeat(256),
  });
  assert.equal(read(JSON.stringify({ [uuid(1)]: { smbios: ['a'] } })), undefined);
});

// ---- what an upload says of it ----

test('an upload tells which datasource its domain names, and a later one changes it', async (t) => {
  const { ask, json, daemon } = await startSite(t, '127.147.0.1');
  const xml = domainXml(1);
  const withSerial = (serial: string) =>
    xml.replace('</os>', `${used}</os>${system('serial', serial)}`);
  const upload = (body: string, accept?: string) =>
    ask('/instance-upload', { method: 'POST', body, ...(accept && { headers: { accept } }) });
  const said = async (body: string) => {
    const { status, text } = await upload(body, 'application/json');
    return [status, (JSON.parse(text) as { datasource: unknown }).datasource];
  };
  const known = async () => {
    const { datasource, smbios } = (await json('/instances/vm1')).body as InstanceDetails;
    return { datasource, smbios };
  };
  /** What is logged of it by the time that so many uploads are logged. */
  const lines = async (uploads: number) => {
    const logged = () => daemon.output().match(/ has the address /g)?.length;
    await eventually('all uploads are logged', () => logged() === uploads);
    return daemon.output().match(/INFO {2}vm1: its SMBIOS .*/g) ?? [];
  };
  const line =
    'INFO  vm1: its SMBIOS names no datasource of mdserver, so cloud-init in most images will look nowhere: see mdserverctl explain vm1';

  // Hooks up to 1.0.0 hand the answer to libvirt.
  const { status, text } = await upload(xml);
  assert.deepEqual([status, text, await lines(1)], [200, '', [line]]);
  assert.deepEqual(await said(xml), [200, 'none']);
  assert.deepEqual(await known(), { datasource: 'none', smbios: {} });
  assert.deepEqual(await lines(2), [line]);

  const serial = 'ds=nocloud;s=http://169.254.169.254/nocloud/;dsmode=net';
  assert.deepEqual(await said(withSerial(serial)), [200, 'nocloud']);
  assert.deepEqual(await known(), { datasource: 'nocloud', smbios: { serial } });
  assert.deepEqual(await said(withSerial('abc')), [200, 'none']);
  assert.deepEqual(await known(), { datasource: 'none', smbios: { serial: 'abc' } });
  assert.deepEqual(await lines(4), [line, line]);

  // It finds mdserver without SMBIOS.
  const { ipv4 } = (await json('/instances/vm1')).body as InstanceDetails;
  await daemon.ask('/latest/meta-data/', { from: ipv4 ?? '' });
  await upload(withSerial(serial));
  await upload(xml);
  assert.deepEqual(await lines(6), [line, line]);
});

// ---- the command that mends a domain ----

test('the command that mends a domain makes it name a datasource, whatever the domain has', {
  skip: missing('virt-xml', 'virsh'),
}, async (t) => {
  const entries = "<entry name='manufacturer'>ACME</entry><entry name='serial'>1</entry>";
  const before = sysinfo(`<system>${entries}</system>`);
  const ec2 = 'ec2b3b52-6a0e-4c57-9d0c-3f3c2b1a7e10';
  const rows = [
    ['nocloud', domainXml(1)],
    ['nocloud', domainXml(2, { name: '-x y' }).replace('</os>', `</os>${before}`)],
    ['nocloud', domainXml(3, { name: '3' }).replace('</os>', `${used}</os>${before}`)],
    ['ec2', domainXml(4, { uuid: ec2 })],
  ] as const;
  const domains = rows.map(([, xml]) => xml.replace("type='kvm'", "type='test'"));
  const folder = temporaryFolder(t, { 'node.xml': `<node>${domains.join('')}</node>` });
  const env = { ...process.env, LIBVIRT_DEFAULT_URI: `test://${join(folder, 'node.xml')}` };
  for (const [index, [datasource, xml]] of rows.entries()) {
    const parsed = parseDomain(xml, mds);
    await t.test(parsed.name, () => {
      const [command = ''] = /virt-xml .*/.exec(datasourceAdvice(parsed)) ?? [];
      const line = command.replace('virt-xml', 'virt-xml --print-xml');
      const { stdout, stderr } = spawnSync('sh', ['-c', line], { encoding: 'utf8', env });
      assert.equal(stderr, '');
      const { uuid, smbios } = parseDomain(stdout, mds);
      const hardware = { architecture: 'x86_64' };
      assert.equal(datasourceOf({ uuid, details: { hardware, smbios } }), datasource);
      assert.equal(stdout.includes('ACME'), domains[index]?.includes('ACME'));
    });
  }
});

test('boot recipes have the same command', () => {
  const [command = ''] = /virt-xml .*/.exec(datasourceAdvice(domain(1, { name: 'NAME' }))) ?? [];
  const recipes = readFileSync(join(repository, 'docs/recipes.md'), 'utf8');
  assert.ok(recipes.includes(`\n${command}\n`), command);
});
