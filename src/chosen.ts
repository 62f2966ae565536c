import { accessSync, constants, existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { ConfigError } from './config/dialect.js';
import { lastGoodFile, readLastGood } from './config/last-good.js';
import { changesNeedingRestart, type LoadedConfig, loadConfig } from './config/load.js';
import type { Config } from './config/options.js';
import { integrateAdvice } from './config/unit.js';
import { ListenError, tryListening } from './http/listen.js';
import { DatabaseError } from './instances/database-file.js';
import { jsonFile } from './instances/json-file.js';
import { quoted } from './text.js';

/** The configuration that a start goes on with. */
export interface ChosenConfig extends LoadedConfig {
  /** Where it is from, for the log. */
  readonly source: string;
  /** Why the configuration file is not in force; undefined if it is. */
  readonly refusal: string | undefined;
}

/**
 * The configuration in the file; if mdserver cannot start with that, the last good one, which was
 * kept in the folder. Throws ConfigError, ListenError or DatabaseError if there is none, or if its database has moved.
 */
export async function chooseConfig(
  file: string,
  folder: string | undefined,
): Promise<ChosenConfig> {
  const kept = folder === undefined ? undefined : readLastGood(folder);
  let loaded: ReturnType<typeof loadConfig> | undefined;
  try {
    loaded = loadConfig(file);
    if (kept !== undefined) await tryChanges(kept.config, loaded.config);
    else if (folder !== undefined) tryWriting(loaded.config.mdserver.db_file);
    return { ...loaded, source: loaded.files.join(', '), refusal: undefined };
  } catch (error) {
    if (folder === undefined || kept === undefined || !isRefusal(error)) throw error;
    const { db_file } = kept.config.mdserver;
    // Without instances, guests would get nothing, and what is uploaded then would be left behind.
    if (
      loaded !== undefined &&
      !existsSync(db_file) &&
      existsSync(loaded.config.mdserver.db_file)
    ) {
      throw new ConfigError(
        `${error.message}; the last good configuration is of no use, because its database, ${db_file}, is gone`,
      );
    }
    return { ...kept, source: lastGoodFile(folder), refusal: error.message };
  }
}

/** Whether an error says that mdserver cannot start with the configuration or what it names. */
export function isRefusal(error: unknown): error is Error {
  return [ConfigError, ListenError, DatabaseError].some((kind) => error instanceof kind);
}

/**
 * Tries what has changed since the last good configuration and may be a typing error that would cost
 * guests their metadata: another port, another database.
 * Throws ConfigError, ListenError and DatabaseError.
 */
async function tryChanges(before: Config, next: Config): Promise<void> {
  const changes = changesNeedingRestart(before, next);
  const { listen_address, port, db_file } = next.mdserver;
  if (changes.includes('mdserver.port') || changes.includes('mdserver.listen_address')) {
    await tryListening(listen_address, port);
  }
  if (!changes.includes('mdserver.db_file')) return;
  const old = before.mdserver.db_file;
  if (existsSync(old) && !existsSync(db_file)) {
    throw new ConfigError(
      `mdserver.db_file = ${quoted(db_file)} does not exist, and the instances are in ${old}: move that file, or write [] to the new one to start without instances`,
    );
  }
  tryWriting(db_file);
  await jsonFile(db_file).load();
}

/** Throws ConfigError if the unit or the owner of the folder does not let mdserver write the database. */
function tryWriting(database: string): void {
  let folder = dirname(database);
  while (!existsSync(folder)) folder = dirname(folder);
  try {
    accessSync(folder, constants.W_OK);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const advice = code === 'EROFS' ? integrateAdvice : "give it to mdserver's user with chown";
    throw new ConfigError(
      `mdserver.db_file = ${quoted(database)}: mdserver cannot write in ${folder} (${message}): ${advice}`,
    );
  }
}
