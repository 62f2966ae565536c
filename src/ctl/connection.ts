import { ConfigError } from '../config/dialect.js';
import { type LoadedConfig, loadConfig } from '../config/load.js';
import type { Config } from '../config/options.js';
import { controlSocketPath } from '../control/socket.js';
import { defaultConfigFile } from '../usage.js';
import { type ControlClient, controlClient } from './client.js';
import type { GlobalOptions } from './command.js';
import { CommandError, exitCodes } from './errors.js';

/** Put before the files that a configuration includes and before libvirt's hooks, as in system-integration.sh. */
export const pathPrefix = process.env['PREFIX'] ?? '';

/** The configuration of mdserver. Throws CommandError; `hint` is added to the message. */
export function readConfiguration(
  { config: file = defaultConfigFile }: Pick<GlobalOptions, 'config'>,
  hint = '',
): LoadedConfig {
  try {
    return loadConfig(file, pathPrefix);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const { code } = (error.cause ?? {}) as NodeJS.ErrnoException;
    if (code === 'EACCES') {
      const message = `only root and the group mdserver may read ${file}: run this with sudo`;
      throw new CommandError(message, exitCodes.unreachable);
    }
    throw new CommandError(`${error.message}${hint}`, exitCodes.failed);
  }
}

/** The configuration for a command that can do without it. */
export function readConfigurationIfPossible(options: GlobalOptions): Config | undefined {
  try {
    return readConfiguration(options).config;
  } catch (error) {
    if (error instanceof CommandError) return undefined;
    throw error;
  }
}

/** A client for the control socket that the options or the configuration name. Throws CommandError. */
export function connect(options: GlobalOptions): ControlClient {
  if (options.socket !== undefined) return controlClient(options.socket);
  const hint = ' (--config names another file, --socket the control socket)';
  return controlClient(controlSocketPath(readConfiguration(options, hint).config));
}
