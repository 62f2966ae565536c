import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Writes a copy of an instance's user-data to a folder that only the daemon's user may open, because
 * user-data contains passwords and keys. Throws the file system's error.
 */
export function keepDebugCopy(folder: string, instanceName: string, body: string | Buffer): void {
  mkdirSync(folder, { recursive: true });
  chmodSync(folder, 0o700);
  // A name from an old database may contain any character, even a slash.
  const path = join(folder, encodeURIComponent(instanceName));
  // A file that exists keeps its permissions, however wide.
  rmSync(path, { force: true });
  writeFileSync(path, body, { mode: 0o600 });
}
