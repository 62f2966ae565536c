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
  /** The path in the tree that a path below the first segment stands for, if that can be another one. */
  readonly treePath?: (path: readonly string[]) => readonly string[];
  /** Whether a path in the tree is that of the user-data. */
  readonly isUserdata: (path: readonly string[]) => boolean;
  /** Whether a path in the tree is that of a JSON document; none is where this is missing. */
  readonly isJson?: (path: readonly string[]) => boolean;
}

/** The media type of what is at a path in a datasource's tree. User-data can be anything, as in EC2. */
export function mediaType({ isUserdata, isJson }: Datasource, path: readonly string[]): string {
  if (isUserdata(path)) return 'application/octet-stream';
  return isJson?.(path) === true ? 'application/json' : 'text/plain';
}

const datasources = [ec2, nocloud, openstack] as const satisfies readonly Datasource[];

/** The name of a datasource. */
export type DatasourceName = (typeof datasources)[number]['name'];

/**
 * The datasource of a path, the version it asks for and its place in the datasource's tree; undefined
 * for a path of no datasource.
 */
export function datasourceOf([first = '', ...below]: readonly string[], config: Config) {
  for (const datasource of datasources) {
    const { version: versionOf, treePath }: Datasource = datasource;
    const version = versionOf(first, config);
    if (version !== undefined) return { datasource, version, path: treePath?.(below) ?? below };
  }
  return undefined;
}
