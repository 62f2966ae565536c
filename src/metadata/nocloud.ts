import { keysOf } from '../instances/settings.js';
import { yamlText } from '../text.js';
import type { MetadataContext } from './context.js';
import { folder } from './tree.js';
import { instanceId, localHostname } from './values.js';

function metaData(context: MetadataContext): string {
  const { instance, config } = context;
  const keys = keysOf(instance, config.publicKeys);
  const lines = [
    `instance-id: ${yamlText(instanceId(context))}`,
    `local-hostname: ${yamlText(localHostname(context))}`,
    // tiny-cloud knows no other.
    `hostname: ${yamlText(localHostname(context))}`,
    ...(keys.length === 0 ? [] : ['public-keys:']),
    ...keys.map(({ key }) => `  - ${yamlText(key)}`),
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

/** All four always exist: a 404 costs a guest ten seconds of its boot, an empty answer nothing. */
const tree = folder<MetadataContext>({
  'meta-data': metaData,
  'user-data': ({ userdata }) => userdata() ?? '',
  'vendor-data':
    ({ vendorData }) =>
    () =>
      vendorData(),
  'network-config': networkConfig,
});

/**
 * cloud-init's NoCloud over HTTP, below `/nocloud/`. The address of a seed may go on with values of
 * SMBIOS (`__dmi.chassis-serial-number__` in cloud-init), of any text: whatever is before the name of a
 * document, the caller gets its own.
 */
export const nocloud = {
  name: 'nocloud',
  version: (firstSegment: string) => (firstSegment === 'nocloud' ? 'latest' : undefined),
  tree,
  treePath: (path: readonly string[]) => {
    const document = path.at(-1);
    return document !== undefined && tree.entries.has(document) ? [document] : path;
  },
  isUserdata: ([leaf, ...more]: readonly string[]) => leaf === 'user-data' && more.length === 0,
} as const;
