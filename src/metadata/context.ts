import type { Config } from '../config/options.js';
import { hostNames, toHostName } from '../instances/host-names.js';
import type { Instance } from '../instances/instance.js';
import type { Instances } from '../instances/instances.js';
import type { Rendering, Userdata } from '../userdata/userdata.js';

/** What a metadata answer is made from. */
export interface MetadataContext {
  readonly instance: Instance;
  readonly config: Config;
  /** The version that was asked for; `latest` for what has none. */
  readonly version: string;
  /** The name that DHCP and DNS know the instance by, without prefix and domain. */
  readonly hostName: () => string;
  /** Finds the instance's user-data: what it gives makes it; undefined where there is none. */
  readonly userdata: () => (() => Rendering) | undefined;
  /** Makes the instance's vendor data, empty where none is configured. */
  readonly vendorData: () => Rendering;
}

/** Where contexts come from. */
export interface MetadataSource {
  /** The configuration in force: a reload changes it. */
  readonly config: () => Config;
  readonly instances: () => Instances;
  readonly userdata: Userdata;
}

/** The context that an instance's answers of a version are made from. */
export function metadataContext(
  { config, instances, userdata }: MetadataSource,
  instance: Instance,
  version: string,
): MetadataContext {
  return {
    instance,
    config: config(),
    version,
    hostName: () => hostNames(instances()).get(instance.name) ?? toHostName(instance.name),
    userdata: () => userdata.userdata(instance),
    vendorData: () => userdata.vendorData(instance),
  };
}
