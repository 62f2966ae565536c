import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { attempt, run } from './processes.js';

/** Throws if one of the programs is missing, with the Debian packages that have them. */
export async function checkPrograms(parts: Readonly<Record<string, string>>): Promise<void> {
  const missing: string[] = [];
  for (const [command, debianPackage] of Object.entries(parts)) {
    const { status } = await attempt('sh', ['-c', `command -v ${command}`]);
    if (status !== 0) missing.push(`${command} (${debianPackage})`);
  }
  if (missing.length > 0) throw new Error(`these programs are missing: ${missing.join(', ')}`);
}

/** The folder below which images are kept. */
export function imageCache(name: string): string {
  return join(process.env['XDG_CACHE_HOME'] ?? '/var/cache', name);
}

/** The folder of a Debian release's image. It is made again if the script that makes it has changed. */
export async function makeImage(script: string, cache: string, suite: string): Promise<string> {
  const hash = createHash('sha256').update(readFileSync(script)).digest('hex');
  const folder = join(cache, suite);
  const stamp = join(folder, 'made-by');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === hash) return folder;
  if (process.getuid?.() !== 0) throw new Error('only root can make the image');
  mkdirSync(cache, { recursive: true });
  await run('bash', [script, cache, suite], { limit: 1_800_000 });
  writeFileSync(stamp, hash);
  return folder;
}
