import { yamlText } from '../text.js';
import type { MetadataContext } from './context.js';
import { folder } from './tree.js';
import { instanceId, localHostname } from './values.js';

function metaData(context: MetadataContext): string {
  const { config } = context;
  const lines = [
    `instance-id: ${yamlText(instanceId(context))}`,
    `local-hostname: ${yamlText(localHostname(context))}`,
    ...(config.publicKeys.length === 0 ? [] : ['public-keys:']),
    ...config.publicKeys.map(({ key }) => `  - ${yamlText(key)}`),
  ];
  return `${lines.join('\n')}\n`;
}

/** Netplan, version 2: DHCP on the interface with the instance's MAC. */
function networkConfig({ instance, config }: MetadataContext): string {
  if (!config.mdserver.network_config || instance.mac === undefined) return '';
  return `version: 2
ethernets:
  ${config.dnsmasq.net_name}:
    match:
      macaddress: ${yamlText(instance.mac)}
    dhcp4: true
    dhcp6: ${instance.ipv6 !== undefined}
`;
}

/**
 * cloud-init's NoCloud over HTTP, below `/nocloud/`. All four documents always exist: a 404 costs a
 * guest ten seconds of its boot, an empty answer nothing.
 */
export const nocloud = {
  name: 'nocloud',
  version: (firstSegment: string) => (firstSegment === 'nocloud' ? 'latest' : undefined),
  tree: folder<MetadataContext>({
    'meta-data': metaData,
    'user-data': ({ userdata }) => userdata() ?? '',
    'vendor-data':
      ({ vendorData }) =>
      () =>
        vendorData(),
    'network-config': networkConfig,
  }),
  isUserdata: ([leaf, ...more]: readonly string[]) => leaf === 'user-data' && more.length === 0,
} as const;
