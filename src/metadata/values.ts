import { createHash } from 'node:crypto';
import { type Config, options } from '../config/options.js';
import { dnsNames } from '../instances/host-names.js';
import type { Instance } from '../instances/instance.js';
import type { MetadataContext } from './context.js';

/** What can be set for all instances in `[metadata-defaults]`, and for one in its domain's metadata. */
export type Setting = keyof Config['metadata-defaults'];

/** What mdserver itself takes from a domain's metadata: it is no tag. */
const ownNames = new Set(['userdata-prefix', 'imds-tokens']);

/** Names are the same with hyphens and with underscores: EC2 has the ones, XML has long had the others. */
function settingName(name: string): string {
  return name.toLowerCase().replaceAll('_', '-');
}

/** What the domain's metadata says under a name, with hyphens or underscores. */
export function fromMetadata(instance: Instance, name: string): string | undefined {
  for (const [key, value] of Object.entries(instance.metadata)) {
    if (settingName(key) === name && value !== '') return value;
  }
  return undefined;
}

/** The value for one instance: its domain's metadata, else `[metadata-defaults]`. */
export function setting(context: MetadataContext, name: Setting): string | undefined {
  const { instance, config } = context;
  return (
    fromMetadata(instance, name) ?? config['metadata-defaults'][name] ?? derived[name]?.(context)
  );
}

/** Where neither says anything. */
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

/** An instance's tags: all of its domain's metadata that has no meaning of its own. */
export function instanceTags({ metadata }: Instance): [string, string][] {
  return Object.entries(metadata).filter(([key]) => {
    const name = settingName(key);
    // A name with a slash could be listed but not asked for.
    return !ownNames.has(name) && !settingNames.has(name) && /^[^/\p{Cc}]+$/u.test(key);
  });
}

/** `i-<ipv4>` as in Python, or EC2's form from the uuid (`mdserver.instance_id`). */
export function instanceId({ instance, config }: MetadataContext): string {
  const { uuid, ipv4, name } = instance;
  const byAddress = config.mdserver.instance_id === 'address' || uuid === undefined;
  if (byAddress && ipv4 !== undefined) return `i-${ipv4}`;
  return `i-${uuid === undefined ? name : hexDigits(uuid)}`;
}

/** The first 17 hexadecimal digits, as many as EC2's identifiers have. */
function hexDigits(text: string): string {
  return text.replaceAll('-', '').slice(0, 17);
}

/** An identifier in EC2's form that stays the same for the same thing. */
export function stableId(prefix: string, thing: string): string {
  return `${prefix}-${hexDigits(createHash('sha256').update(`${prefix} ${thing}`).digest('hex'))}`;
}

/**
 * The name that DNS gives the instance's address, in full where a domain is set: dnsmasq adds it
 * to names that have none (expand-hosts).
 */
export function localHostname({ config, hostName }: MetadataContext): string {
  const { dnsmasq } = config;
  const name = dnsNames(dnsmasq, hostName())[0] ?? hostName();
  const domain = dnsmasq.domain === false ? '' : `.${dnsmasq.domain}`;
  return name.includes('.') ? name : name + domain;
}
