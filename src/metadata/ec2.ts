import type { Config } from '../config/options.js';
import { isHostName } from '../instances/host-names.js';
import { keysOf } from '../instances/settings.js';
import type { MetadataContext } from './context.js';
import { type Folder, folder, type Node, type Resolver } from './tree.js';
import {
  instanceId,
  instanceTags,
  localHostname,
  type Setting,
  setting,
  stableId,
} from './values.js';

type Tree = Folder<MetadataContext>;
type Entry = Node<MetadataContext>;

/** A leaf that the domain's metadata or `[metadata-defaults]` sets. */
const fromSetting =
  (name: Setting): Entry =>
  (context) =>
    setting(context, name);

/** A leaf that exists from a version of EC2's metadata on. */
const since =
  (version: string, resolve: Resolver<MetadataContext>): Entry =>
  (context) =>
    context.version >= version ? resolve(context) : undefined;

/**
 * Listed as `0=default` and so on, with an OpenSSH key below each; the key's name and the whole line also
 * work as the index.
 */
function publicKeys({ instance, config }: MetadataContext): Tree {
  const keys = keysOf(instance, config.publicKeys).map(({ name, key }, index) => ({
    name,
    index: String(index),
    line: `${index}=${name}`,
    value: folder<MetadataContext>({ 'openssh-key': () => key }),
  }));
  const lines = new Map(keys.map(({ index, line }) => [index, line]));
  const under = (form: 'name' | 'index' | 'line') =>
    keys.map((key): [string, Entry] => [key[form], key.value]);
  return {
    // The index last: it counts before a name of the same digits.
    entries: new Map([...under('line'), ...under('name'), ...under('index')]),
    listedAs: (name) => lines.get(name),
  };
}

const cidr4 = ({ config: { dnsmasq } }: MetadataContext) =>
  `${dnsmasq.net_address}/${dnsmasq.net_prefix}`;
const cidr6 = ({ instance, config: { dnsmasq } }: MetadataContext) =>
  instance.ipv6 && dnsmasq.net_address6 && `${dnsmasq.net_address6}/${dnsmasq.net_prefix6}`;

/** The interface on the network of mdserver, the only one that it knows. */
const networkInterface: Tree = folder({
  'device-number': () => '0',
  'interface-id': ({ instance }) => stableId('eni', instance.mac ?? ''),
  ipv6s: ({ instance }) => instance.ipv6,
  'local-hostname': localHostname,
  'local-ipv4s': ({ instance }) => instance.ipv4,
  mac: ({ instance }) => instance.mac,
  'owner-id': fromSetting('owner-id'),
  'security-groups': fromSetting('security-groups'),
  // Without subnet and VPC, cloud-init takes the network for "EC2 classic".
  'subnet-id': (context) => stableId('subnet', cidr4(context)),
  'subnet-ipv4-cidr-block': cidr4,
  'subnet-ipv6-cidr-blocks': cidr6,
  'vpc-id': ({ config }) => stableId('vpc', config.dnsmasq.net_name),
  'vpc-ipv4-cidr-block': cidr4,
  'vpc-ipv4-cidr-blocks': cidr4,
  'vpc-ipv6-cidr-blocks': cidr6,
});

/** By the MAC address in lower case: clients compare it with the one that their kernel reports. */
function interfaces({ instance }: MetadataContext): Tree {
  return folder(instance.mac === undefined ? {} : { [instance.mac]: networkInterface });
}

function tags({ instance }: MetadataContext): Tree {
  return {
    entries: new Map(instanceTags(instance).map(([name, text]) => [name, () => text])),
  };
}

/**
 * The tree below `meta-data/`: a line for each entry
 * (docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html, "Categories").
 */
const metaData: Tree = folder({
  'ami-id': fromSetting('ami-id'),
  'ami-launch-index': fromSetting('ami-launch-index'),
  'ami-manifest-path': fromSetting('ami-manifest-path'),
  // The domain's name, as in Python; EC2 has the value of local-hostname here. CirrOS and tiny-cloud
  // write it to /etc/hostname, so one that is no host name is the one in DNS.
  hostname: ({ instance: { name }, hostName }) => (isHostName(name) ? name : hostName()),
  'instance-action': fromSetting('instance-action'),
  'instance-id': instanceId,
  'instance-life-cycle': fromSetting('instance-life-cycle'),
  'instance-type': fromSetting('instance-type'),
  ipv6: ({ instance }) => instance.ipv6,
  'local-hostname': localHostname,
  'local-ipv4': ({ instance }) => instance.ipv4,
  mac: ({ instance }) => instance.mac,
  network: folder({ interfaces: folder({ macs: interfaces }) }),
  placement: folder({
    'availability-zone': fromSetting('availability-zone'),
    region: fromSetting('region'),
  }),
  profile: fromSetting('profile'),
  'public-hostname': fromSetting('public-hostname'),
  'public-ipv4': fromSetting('public-ipv4'),
  'public-keys': publicKeys,
  'reservation-id': ({ instance }) => stableId('r', instance.uuid ?? instance.name),
  'security-groups': fromSetting('security-groups'),
  services: folder({
    domain: ({ config }) =>
      config.dnsmasq.domain === false ? 'localdomain' : config.dnsmasq.domain,
    partition: ({ config }) => config.service.type,
  }),
  tags: folder({ instance: since('2021-03-23', tags) }),
});

const architectures = new Map([
  ['i686', 'i386'],
  ['aarch64', 'arm64'],
]);

/**
 * The instance identity document ("Instance identity documents" of the EC2 User Guide), not signed.
 * Fields that mdserver has no value for are null.
 */
function identityDocument(context: MetadataContext): string {
  const { instance } = context;
  const { architecture } = instance.details.hardware;
  const document = {
    accountId: setting(context, 'owner-id') ?? null,
    architecture: architectures.get(architecture ?? '') ?? architecture ?? null,
    availabilityZone: setting(context, 'availability-zone') ?? null,
    billingProducts: null,
    devpayProductCodes: null,
    marketplaceProductCodes: null,
    imageId: setting(context, 'ami-id') ?? null,
    instanceId: instanceId(context),
    instanceType: setting(context, 'instance-type') ?? null,
    kernelId: null,
    pendingTime: new Date(Math.floor(instance.firstSeen ?? 0) * 1000)
      .toISOString()
      .replace('.000', ''),
    privateIp: instance.ipv4 ?? null,
    ramdiskId: null,
    region: setting(context, 'region') ?? null,
    version: '2017-09-30',
  };
  return JSON.stringify(document, null, 2);
}

/** EC2's metadata: the same tree below each served version. */
export const ec2 = {
  name: 'ec2',
  version: (firstSegment: string, { service }: Config) =>
    service.ec2_versions.includes(firstSegment) ? firstSegment : undefined,
  tree: folder<MetadataContext>({
    'meta-data': metaData,
    'user-data': ({ userdata }) => userdata(),
    dynamic: folder({ 'instance-identity': folder({ document: identityDocument }) }),
  }),
  isUserdata: ([leaf, ...more]: readonly string[]) => leaf === 'user-data' && more.length === 0,
} as const;
