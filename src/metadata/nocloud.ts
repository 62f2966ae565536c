import { unicodeEscape } from '../text.js';
import type { MetadataContext } from './context.js';
import { folder } from './tree.js';
import { instanceId, localHostname } from './values.js';

// C1 controls, line ends of YAML 1.1 (U+0085, U+2028/9), and characters that PyYAML never accepts.
const unprintable = /[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]/g;

/** A YAML scalar: JSON's strings are YAML's double-quoted ones (YAML 1.2, 1.3). */
function yamlString(text: string): string {
  return JSON.stringify(text).replace(unprintable, unicodeEscape);
}

function metaData(context: MetadataContext): string {
  const { config } = context;
  const lines = [
    `instance-id: ${yamlString(instanceId(context))}`,
    `local-hostname: ${yamlString(localHostname(context))}`,
    ...(config.publicKeys.length === 0 ? [] : ['public-keys:']),
    ...config.publicKeys.map(({ key }) => `  - ${yamlString(key)}`),
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
      macaddress: ${yamlString(instance.mac)}
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
