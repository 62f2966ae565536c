import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Writes a copy of an instance's user-data to a folder that only the daemon's user may open, because
 * user-data contains passwords and keys. Throws the file system's error.
 */
export function keepDebugCopy(folder: string, instanceName: string, body: string | Buffer): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  // A name from an old database may contain any character, even a slash.
  writeFileSync(join(folder, encodeURIComponent(instanceName)), body, { mode: 0o600 });
}
