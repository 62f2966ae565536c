import type { Config } from '../config/options.js';
import { toHostName } from '../instances/host-names.js';
import type { Instance } from '../instances/instance.js';
import type { Instances } from '../instances/instances.js';
import type { Rendering, Userdata } from '../userdata/userdata.js';

/** Everything that an answer depends on. */
export interface MetadataContext {
  readonly instance: Instance;
  readonly config: Config;
  /** The metadata version in the URL; `latest` for a datasource without versions. */
  readonly version: string;
  /** The name that DHCP and DNS know the instance by, without prefix and domain. */
  readonly hostName: () => string;
  /** Finds the instance's user-data and returns a function that renders it; undefined if it has none. */
  readonly userdata: () => (() => Rendering) | undefined;
  /** Renders the instance's vendor-data; empty if none is configured. */
  readonly vendorData: () => Rendering;
}

/** What contexts are made from. */
export interface MetadataSource {
  /** The configuration in force; a reload replaces it. */
  readonly config: () => Config;
  readonly instances: () => Instances;
  readonly userdata: Userdata;
}

/** The context of an instance's answers under a metadata version. */
export function metadataContext(
  { config, instances, userdata }: MetadataSource,
  instance: Instance,
  version: string,
): MetadataContext {
  return {
    instance,
    config: config(),
    version,
    hostName: () =>
      instances().hostNames.get(instance.name) ??
      toHostName(instance.name, config().dnsmasq.domain),
    userdata: () => userdata.userdata(instance),
    vendorData: () => userdata.vendorData(instance),
  };
}
