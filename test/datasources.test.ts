import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configFrom } from '../src/config/load.js';
import { datasourceOf } from '../src/metadata/datasources.js';
import { pathSegments } from '../src/metadata/tree.js';

const { config } = configFrom('[service]\nec2_versions = 2009-04-04, latest');

/** The datasource that a URL belongs to, the version, and whether it asks for the user-data. */
function reading(
  url: string,
): readonly [name: string, version: string, isUserdata: boolean] | undefined {
  const found = datasourceOf(pathSegments(url), config);
  return found && [found.datasource.name, found.version, found.datasource.isUserdata(found.path)];
}

const urls = [
  ['/latest/user-data', ['ec2', 'latest', true]],
  ['/2009-04-04/user-data/', ['ec2', '2009-04-04', true]],
  ['//latest//user-data//?x', ['ec2', 'latest', true]],
  ['/latest/', ['ec2', 'latest', false]],
  ['/latest/meta-data/user-data', ['ec2', 'latest', false]],
  ['/latest/meta-data/tags/instance/user-data', ['ec2', 'latest', false]],
  ['/latest/user-data/more', ['ec2', 'latest', false]],
  ['/latest/user_data', ['ec2', 'latest', false]],
  ['/nocloud/user-data', ['nocloud', 'latest', true]],
  ['/nocloud//user-data', ['nocloud', 'latest', true]],
  ['/nocloud/meta-data', ['nocloud', 'latest', false]],
  ['/nocloud/vendor-data', ['nocloud', 'latest', false]],
  ['/nocloud/ACME%200123/user-data', ['nocloud', 'latest', true]],
  ['/nocloud/user-data/meta-data', ['nocloud', 'latest', false]],
  ['/nocloud/user-data/more', ['nocloud', 'latest', false]],
  ['/openstack/latest/user_data', ['openstack', 'latest', true]],
  ['/openstack/2013-04-04/user_data', ['openstack', 'latest', true]],
  ['/openstack/user_data', ['openstack', 'latest', false]],
  ['/openstack/latest/meta_data.json', ['openstack', 'latest', false]],
  ['/2010-01-01/user-data', undefined],
  ['/user-data', undefined],
  ['/service/name', undefined],
  ['/', undefined],
] as const;

for (const [url, expected] of urls) {
  test(`a guest that asks for ${url} finds ${expected?.join(', ') ?? 'no datasource'}`, () => {
    assert.deepEqual(reading(url), expected);
  });
}
