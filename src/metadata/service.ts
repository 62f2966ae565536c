import { readableConfig } from '../config/load.js';
import { type Config, ownVersion, releaseDate } from '../config/options.js';
import { folder, type Node } from './tree.js';

/** Everything that an answer below `/service/` depends on. */
export interface ServiceContext {
  readonly config: Config;
  /** Whether the request comes from this host. */
  readonly local: boolean;
}

const forLocal =
  (text: (config: Config) => string): Node<ServiceContext> =>
  ({ config, local }) =>
    local ? text(config) : undefined;

/** The tree below `/service/`, as Python md_server has it. */
export const serviceTree = folder<ServiceContext>({
  name: ({ config }) => config.service.name,
  type: ({ config }) => config.service.type,
  version: ({ config }) => `${config.service.version} (${config.service.release_date})`,
  location: ({ config }) => config.service.location,
  ec2_versions: ({ config }) => config.service.ec2_versions.join('\n'),
  configuration: forLocal((config) => readableConfig(config).join('\n')),
  repo_version: forLocal(() => `${ownVersion} (${releaseDate})`),
});
