import type { Config } from '../config/options.js';
import type { MetadataContext } from './context.js';
import { ec2 } from './ec2.js';
import { nocloud } from './nocloud.js';
import { openstack } from './openstack.js';
import type { Folder } from './tree.js';

/** One way in which clients look for metadata ("datasource" in cloud-init). */
export interface Datasource {
  readonly name: string;
  /** The version that a path with this first segment asks for; undefined for any other path. */
  readonly version: (firstSegment: string, config: Config) => string | undefined;
  /** The tree below the first segment. */
  readonly tree: Folder<MetadataContext>;
  /** Whether a path below the first segment asks for the user-data. */
  readonly isUserdata: (path: readonly string[]) => boolean;
}

const datasources = [ec2, nocloud, openstack] as const satisfies readonly Datasource[];

/** The name of a datasource. */
export type DatasourceName = (typeof datasources)[number]['name'];

/** The datasource of a path by its first segment, and the version; undefined for any other path. */
export function datasourceOf(firstSegment: string, config: Config) {
  for (const datasource of datasources) {
    const version = datasource.version(firstSegment, config);
    if (version !== undefined) return { datasource, version };
  }
  return undefined;
}
