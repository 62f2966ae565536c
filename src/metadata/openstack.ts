import { randomBytes } from 'node:crypto';
import { servedName } from '../instances/host-names.js';
import { fromMetadata, keysOf } from '../instances/settings.js';
import type { MetadataContext } from './context.js';
import { type Folder, folder, type Node } from './tree.js';
import { instanceTags, localHostname, setting } from './values.js';

/** The first one in which a guest can report its password. */
const passwordVersion = '2013-04-04';

/** Metadata versions of Nova that clients look for (docs.openstack.org/nova/latest/user/metadata.html). */
const versions = [
  '2012-08-10',
  passwordVersion,
  '2013-10-17',
  '2015-10-15',
  '2016-06-30',
  '2016-10-06',
  '2017-02-22',
  '2018-08-27',
  '2020-10-14',
  'latest',
];

/** What Nova gives a guest to seed its random numbers with, anew each time. */
const randomSeedBytes = 512;

function metaData(context: MetadataContext): string {
  const { instance, config } = context;
  const keys = keysOf(instance, config.publicKeys);
  return JSON.stringify({
    uuid: instance.uuid,
    name: servedName(instance),
    hostname: localHostname(context),
    launch_index: 0,
    availability_zone: setting(context, 'availability-zone'),
    public_keys: Object.fromEntries(keys.map(({ name, key }) => [name, key])),
    keys: keys.map(({ name, key }) => ({ name, type: 'ssh', data: key })),
    meta: Object.fromEntries(instanceTags(instance)),
    admin_pass: fromMetadata(instance, 'admin-pass'),
    random_seed: randomBytes(randomSeedBytes).toString('base64'),
  });
}

/** DHCP on the interface with the instance's MAC (Nova's network_data.json). */
function networkData({ instance, config }: MetadataContext): string {
  const id = config.dnsmasq.net_name;
  const mac = instance.mac;
  // Nova puts the mode of an IPv6 subnet into the type, though its schema (doc/api_schemas) has only ipv6_dhcp.
  const types = [...(instance.ipv6 === undefined ? [] : ['ipv6_dhcpv6-stateful']), 'ipv4_dhcp'];
  return JSON.stringify({
    links: mac === undefined ? [] : [{ id, type: 'phy', ethernet_mac_address: mac }],
    networks:
      mac === undefined
        ? []
        : types.reverse().map((type, index) => ({
            id: `network${index}`,
            type,
            link: id,
            network_id: id,
          })),
    services: [],
  });
}

const documents: Record<string, Node<MetadataContext>> = {
  'meta_data.json': metaData,
  user_data: ({ userdata }) => userdata(),
  'vendor_data.json':
    ({ vendorData }) =>
    () =>
      vendorDataJson(vendorData().body),
  'vendor_data2.json': () => '{}',
  'network_data.json': networkData,
};

/** Empty until the guest has reported one: cloudbase-init takes a 404 for a server without passwords. */
const password: Node<MetadataContext> = ({ instance }) => instance.details.password ?? '';

const tree: Folder<MetadataContext> = {
  entries: new Map(
    versions.map((version): [string, Node<MetadataContext>] => [
      version,
      folder(version < passwordVersion ? documents : { ...documents, password }),
    ]),
  ),
  // Without slashes, as Nova lists them.
  listedAs: (name) => name,
};

/** Whether a guest can report its password at a version. */
export function takesPassword(version: string): boolean {
  return tree.entries.has(version) && version >= passwordVersion;
}

/** cloud-init looks for its vendor-data under the key `cloud-init`. */
function vendorDataJson(vendorData: string | Buffer): string {
  const text = vendorData.toString();
  return JSON.stringify(text === '' ? {} : { 'cloud-init': text });
}

/** OpenStack's metadata, below `/openstack/`: the same in each version. */
export const openstack = {
  name: 'openstack',
  version: (firstSegment: string) => (firstSegment === 'openstack' ? 'latest' : undefined),
  tree,
  isUserdata: ([_version, leaf, ...more]: readonly string[]) =>
    leaf === 'user_data' && more.length === 0,
  isJson: (path: readonly string[]) => path.at(-1)?.endsWith('.json') === true,
} as const;
