import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** The folder with the programs of test/clients/README.md. */
const folder = process.env['MDSERVER_CLIENTS'];

/** The path of a client's file or folder, by its path in `MDSERVER_CLIENTS`. */
export function clientPath(path: string): string {
  return join(folder ?? '', path);
}

/** For the `skip` of a test: which of the clients are not there, or false. */
export function missingClient(...paths: string[]): string | false {
  if (folder === undefined) return 'MDSERVER_CLIENTS is not set: see test/clients/README.md';
  const lacking = paths.filter((path) => !existsSync(clientPath(path)));
  return lacking.length === 0 ? false : `MDSERVER_CLIENTS has no ${lacking.join(', ')}`;
}
