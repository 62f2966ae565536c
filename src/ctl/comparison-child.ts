import { loadConfig } from '../config/load.js';
import { compareTemplates } from './comparison.js';
import { readInput } from './input.js';

// Started by compareAsDaemon as the daemon's user: reads the templates from standard input and prints
// the result as JSON. Templates in the same process may print, too: they must not.
// A function, since a bundle in CommonJS has no await outside of one.
async function main(): Promise<void> {
  const [configFile = '', prefix = ''] = process.argv.slice(2);
  const compared = await compareTemplates(
    JSON.parse(readInput('-').toString()),
    loadConfig(configFile, prefix),
  );
  process.stdout.write(JSON.stringify(compared));
}

void main();
