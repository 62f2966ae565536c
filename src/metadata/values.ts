import { createHash } from 'node:crypto';
import { type Config, options } from '../config/options.js';
import { dnsNames, servedName } from '../instances/host-names.js';
import type { Instance } from '../instances/instance.js';
import { fromMetadata, settingName } from '../instances/settings.js';
import { shortId } from '../instances/uuid.js';
import { deceptiveCharacters } from '../text.js';
import type { MetadataContext } from './context.js';

/** A value that `[metadata-defaults]` sets for all instances and a domain's metadata for one. */
export type Setting = keyof Config['metadata-defaults'];

/** Entries of a domain's metadata that mdserver uses itself: they are not tags. */
const ownNames = new Set([
  'userdata',
  'userdata-prefix',
  'imds-tokens',
  'public-keys',
  'admin-pass',
  'ipv4',
  'ipv6',
  'dhcp-options',
  'default-route',
]);

/** The value for one instance: its domain's metadata, else `[metadata-defaults]`. */
export function setting(context: MetadataContext, name: Setting): string | undefined {
  const { instance, config } = context;
  return (
    fromMetadata(instance, name) ?? config['metadata-defaults'][name] ?? derived[name]?.(context)
  );
}

/** Defaults from the instance or the configuration, if neither of the two sets a value. */
const derived: Partial<Record<Setting, (context: MetadataContext) => string | undefined>> = {
  'availability-zone': ({ config }) => config.service.location,
  region: ({ config }) => config.service.location,
  'instance-type': ({
    instance: {
      details: { hardware },
    },
  }) =>
    hardware.vcpus === undefined || hardware.memoryKib === undefined
      ? undefined
      : `kvm.${hardware.vcpus}cpu-${Math.round(hardware.memoryKib / 1024)}mib`,
};

const settingNames = new Set(Object.keys(options['metadata-defaults']));

/** An instance's tags: the entries of its domain's metadata that have no other meaning to mdserver. */
export function instanceTags({ metadata }: Instance): [string, string][] {
  return Object.entries(metadata).filter(([key]) => {
    const name = settingName(key);
    // A name with a slash could be listed but not requested, one with a line end would be two names.
    return (
      !ownNames.has(name) &&
      !settingNames.has(name) &&
      !key.includes('/') &&
      !deceptiveCharacters.test(key)
    );
  });
}

/** `i-<ipv4>` as in Python, or EC2's form made from the uuid (`mdserver.instance_id`). */
export function instanceId({ instance, config }: MetadataContext): string {
  const { uuid, ipv4 } = instance;
  const byAddress = config.mdserver.instance_id === 'address' || uuid === undefined;
  if (byAddress && ipv4 !== undefined) return `i-${ipv4}`;
  if (uuid === undefined) return `i-${servedName(instance)}`;
  return `i-${instance.details.fullId ? uuid.replaceAll('-', '') : shortId(uuid)}`;
}

/** An identifier in EC2's form that is always the same for the same thing. */
export function stableId(prefix: string, thing: string): string {
  return `${prefix}-${shortId(createHash('sha256').update(`${prefix} ${thing}`).digest('hex'))}`;
}

/**
 * The name that the instance's address resolves to, with the domain if one is set: dnsmasq adds it
 * to names without one (expand-hosts).
 */
export function localHostname({ config, hostName }: MetadataContext): string {
  const { dnsmasq } = config;
  const name = dnsNames(dnsmasq, hostName())[0] ?? hostName();
  const domain = dnsmasq.domain === false ? '' : `.${dnsmasq.domain}`;
  return name.includes('.') ? name : name + domain;
}
