import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { type Smbios as DomainSmbios, datasourceOf } from '../src/instances/smbios.js';
import { type Identified, identify, plainGuest, type Smbios } from './support/ds-identify.js';
import { missing } from './support/parts.js';
import { rowName } from './support/rows.js';

// What decides in every cloud image, before the network is up, which datasource is the one: by
// SMBIOS alone. Debian's is asked with a root folder made up for it.
const skip = missing('ds-identify');

/** That cloud-init runs with this one datasource. */
function assertChosen(
  t: TestContext,
  datasource: string,
  smbios: Smbios,
  cloudConfig?: string,
): void {
  assert.deepEqual(identify(t, smbios, cloudConfig), {
    status: 0,
    written: [`datasource_list: [ ${datasource}, None ]`],
    stderr: '',
  });
}

/** That cloud-init is switched off: nothing was found. */
function assertNoneChosen(t: TestContext, smbios: Smbios): void {
  assert.deepEqual(identify(t, smbios), {
    status: 1,
    written: [
      'di_report:',
      '  datasource_list: [  ]',
      '  # reporting not found result. notfound=disabled.',
    ],
    stderr: '',
  });
}

const ec2Uuid = 'ec2b3b52-6a0e-4c57-9d0c-3f3c2b1a7e10';

test('the AWS look-alike (uuid and serial the same, from "ec2" on) is taken for Ec2', {
  skip,
}, (t) => {
  const vendor = { sys_vendor: 'Amazon EC2', chassis_asset_tag: 'Amazon EC2' };
  assertChosen(t, 'Ec2', { product_uuid: ec2Uuid, product_serial: ec2Uuid });
  assertChosen(t, 'Ec2', { product_uuid: ec2Uuid, product_serial: ec2Uuid, ...vendor });
  assertChosen(t, 'Ec2', { product_uuid: ec2Uuid.toUpperCase(), product_serial: ec2Uuid });
});

test('with half of the AWS look-alike, cloud-init does not run', { skip }, async (t) => {
  const own = plainGuest.product_uuid ?? '';
  const halves: Smbios[] = [
    { product_uuid: ec2Uuid },
    { product_serial: ec2Uuid },
    { product_uuid: ec2Uuid, product_serial: `${ec2Uuid.slice(0, -1)}1` },
    { product_uuid: own, product_serial: own },
    { sys_vendor: 'Amazon EC2' },
  ];
  for (const half of halves) {
    await t.test(rowName(half), () => {
      assertNoneChosen(t, half);
    });
  }
});

test('a serial that names the NoCloud address is taken for NoCloud', { skip }, (t) => {
  const address = 's=http://169.254.169.254/nocloud/';
  assertChosen(t, 'NoCloud', { product_serial: `ds=nocloud;${address};dsmode=net` });
  // The recipe of 1.0.0, in domains from then.
  assertChosen(t, 'NoCloud', { product_serial: `ds=nocloud-net;${address}` });
});

test('OpenStack Nova as product or asset tag is taken for OpenStack', { skip }, (t) => {
  assertChosen(t, 'OpenStack', { product_name: 'OpenStack Nova' });
  assertChosen(t, 'OpenStack', { chassis_asset_tag: 'OpenStack Nova' });
  // The whole recipe.
  assertChosen(t, 'OpenStack', {
    sys_vendor: 'OpenStack Foundation',
    product_name: 'OpenStack Nova',
  });
});

test('without a hint in SMBIOS, cloud-init does not run', { skip }, (t) => {
  assertNoneChosen(t, {});
});

test('the old way of an edited image: one datasource in its configuration', { skip }, (t) => {
  assertChosen(t, 'Ec2', {}, 'datasource_list: [ Ec2 ]\n');
  // With None behind it, as dpkg-reconfigure writes it.
  assert.deepEqual(identify(t, {}, 'datasource_list: [ Ec2, None ]\n'), {
    status: 0,
    written: ['datasource_list: [ Ec2, None ]'],
    stderr: '',
  });
});

// ---- the same question, answered from the domain before its guest boots ----

/** mdserver's datasources among those that ds-identify has found, as mdserverctl calls them. */
function foundBy({ status, written }: Identified): string {
  const [, list = ''] = /^datasource_list: \[(.*)\]/.exec(written[0] ?? '') ?? [];
  const served = list.split(',').map((name) => name.trim().toLowerCase());
  const [first] = served.filter((name) => ['nocloud', 'ec2', 'openstack'].includes(name));
  return status === 0 ? (first ?? 'none') : 'none';
}

/** What mdserver says of a domain that is a PC. */
function saidOf(uuid: string, smbios: DomainSmbios): string {
  return datasourceOf({ uuid, details: { hardware: { architecture: 'x86_64' }, smbios } }) ?? '';
}

/** What ds-identify says of the guest of the domain. */
function identifiedOf(t: TestContext, uuid: string, smbios: DomainSmbios): string {
  const { serial = '', product = plainGuest.product_name ?? '', asset = '', kernel } = smbios;
  const guest: Smbios = {
    product_uuid: smbios.uuid ?? uuid,
    product_serial: serial,
    product_name: product,
    chassis_asset_tag: asset,
  };
  return foundBy(identify(t, guest, '', kernel));
}

test('what mdserver says of a domain before its boot is what ds-identify finds in its guest', {
  skip,
}, (t) => {
  const own = plainGuest.product_uuid ?? '';
  const serial = 'ds=nocloud;s=http://169.254.169.254/nocloud/;dsmode=net';
  const rows: readonly (readonly [found: string, uuid: string, smbios: DomainSmbios])[] = [
    ['none', own, {}],
    ['nocloud', own, { serial }],
    ['nocloud', own, { serial: 'ds=nocloud-net;s=http://169.254.169.254/nocloud/' }],
    ['nocloud', own, { serial: `ACME ${serial}` }],
    ['nocloud', own, { serial: 'ds=nocloud' }],
    ['none', own, { serial: `ACME;${serial}` }],
    ['none', own, { serial: serial.toUpperCase() }],
    ['none', own, { serial: 'ACME-0123' }],
    ['nocloud', own, { kernel: serial }],
    ['nocloud', ec2Uuid, { kernel: serial, serial: ec2Uuid }],
    ['ec2', ec2Uuid, { serial: ec2Uuid }],
    ['ec2', ec2Uuid, { serial: ec2Uuid.toUpperCase(), uuid: ec2Uuid }],
    ['ec2', own, { serial: ec2Uuid, uuid: ec2Uuid }],
    ['ec2', ec2Uuid, { serial: ec2Uuid, product: 'OpenStack Nova' }],
    ['none', ec2Uuid, {}],
    ['none', ec2Uuid, { serial: `${ec2Uuid}0` }],
    ['none', own, { serial: own }],
    ['none', own, { serial: ec2Uuid }],
    ['openstack', own, { product: 'OpenStack Nova' }],
    ['openstack', own, { product: 'OpenStack Compute' }],
    ['openstack', own, { asset: 'OpenStack Nova' }],
    ['openstack', own, { asset: 'OpenStack Compute' }],
    ['nocloud', own, { product: 'OpenStack Nova', serial }],
    ['none', own, { product: 'Openstack Nova' }],
    ['none', own, { product: 'OpenStack Nova 2' }],
    // Another cloud's, which mdserver does not serve.
    ['none', own, { product: 'CloudStack KVM Hypervisor' }],
  ];
  for (const [found, uuid, smbios] of rows) {
    assert.deepEqual(
      [saidOf(uuid, smbios), identifiedOf(t, uuid, smbios)],
      [found, found],
      JSON.stringify(smbios),
    );
  }
});

test('mdserver and ds-identify agree on SMBIOS that is put together at random', { skip }, (t) => {
  const uuids = fc.constantFrom(plainGuest.product_uuid ?? '', ec2Uuid, ec2Uuid.toUpperCase());
  const words = fc
    .array(
      fc.constantFrom('ds=nocloud', ';s=http://a/', ' ', 'ec2', ec2Uuid, 'x', 'OpenStack Nova'),
      { maxLength: 3 },
    )
    .map((parts) => parts.join('').trim());
  const smbios = fc.record(
    { serial: fc.oneof(words, uuids), uuid: uuids, product: words, asset: words },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(uuids, smbios, (uuid, texts) => {
      assert.equal(saidOf(uuid, texts), identifiedOf(t, uuid, texts));
    }),
    { numRuns: 60 },
  );
});

test('nothing is said of a domain of which nothing is known, or whose image decides by itself', () => {
  const said = (architecture: string | undefined, smbios?: DomainSmbios) =>
    datasourceOf({ uuid: ec2Uuid, details: { hardware: { architecture }, smbios } });
  const kernel = 'ci.ds=Ec2';
  assert.deepEqual(
    [said('x86_64'), said('x86_64', { kernel }), said('aarch64', {}), said(undefined, {})],
    [undefined, undefined, undefined, undefined],
  );
  assert.deepEqual(
    [
      said('i686', {}),
      said('aarch64', { serial: ec2Uuid }),
      said('s390x', { kernel: 'ds=nocloud' }),
    ],
    ['none', 'ec2', 'nocloud'],
  );
});
