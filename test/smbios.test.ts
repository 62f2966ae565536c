import assert from 'node:assert/strict';
import { test } from 'node:test';
import { detailsText, parseDetails } from '../src/instances/details-file.js';
import { parseDomain } from '../src/instances/domain-xml.js';
import type { Smbios } from '../src/instances/smbios.js';
import { rowName } from './support/rows.js';
import { domainXml, uuid } from './support/samples.js';

const qemu = "xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'";

/** What is read of a domain with this in its `<os>`, and this behind it. */
function smbiosOf(os: string, more = '', type = 'hvm'): Smbios | undefined {
  const xml = domainXml(1)
    .replace(/<os>.*<\/os>/, `<os><type arch='x86_64'>${type}</type>${os}</os>${more}`)
    .replace('<domain ', `<domain ${qemu} `);
  return parseDomain(xml, { net_name: 'mds', interface: 'br-mds' }).smbios;
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
