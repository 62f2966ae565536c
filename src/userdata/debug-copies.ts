import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Keeps a copy of an instance's user-data in a folder that only the daemon's user may look into,
 * since passwords and keys are in it. Throws what the file system says.
 */
export function keepDebugCopy(folder: string, instanceName: string, body: string | Buffer): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  // A name out of an old database may hold anything, a slash included.
  writeFileSync(join(folder, encodeURIComponent(instanceName)), body, { mode: 0o600 });
}
