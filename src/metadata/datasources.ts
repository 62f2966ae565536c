import type { Config } from '../config/options.js';
import type { MetadataContext } from './context.js';
import { ec2 } from './ec2.js';
import { nocloud } from './nocloud.js';
import { openstack } from './openstack.js';
import type { Folder } from './tree.js';

/** One way in which clients look for metadata ("datasource" in cloud-init). */
export interface Datasource {
  readonly name: string;
  /** The version that a path whose first segment this is asks for; undefined where it is not ours. */
  readonly version: (firstSegment: string, config: Config) => string | undefined;
  /** What is served below the first segment. */
  readonly tree: Folder<MetadataContext>;
  /** Whether a path below the first segment asks for the user-data. */
  readonly isUserdata: (path: readonly string[]) => boolean;
}

const datasources = [ec2, nocloud, openstack] as const satisfies readonly Datasource[];

export type DatasourceName = (typeof datasources)[number]['name'];

/** The datasource that a path's first segment leads to, and the version; undefined for any other path. */
export function datasourceOf(firstSegment: string, config: Config) {
  for (const datasource of datasources) {
    const version = datasource.version(firstSegment, config);
    if (version !== undefined) return { datasource, version };
  }
  return undefined;
}
