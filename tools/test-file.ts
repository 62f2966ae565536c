// Runs one file of tests: npm run test:file -- NAME [options of node --test]
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';

const testFolder = fileURLToPath(new URL('../test/', import.meta.url));
const ending = '.test.js';
const names = readdirSync(testFolder)
  .filter((file) => file.endsWith(ending))
  .map((file) => basename(file, ending));
const [name = '', ...options] = process.argv.slice(2);

if (names.includes(name)) {
  const always = ['--enable-source-maps', '--test', '--test-timeout=600000'];
  const file = `${testFolder}${name}${ending}`;
  const { status } = spawnSync(process.execPath, [...always, ...options, file], {
    stdio: 'inherit',
  });
  process.exitCode = status ?? 1;
} else {
  process.stderr.write(
    `usage: npm run test:file -- NAME [OPTION…], where NAME is one of:\n  ${names.join('\n  ')}\n`,
  );
  process.exitCode = 2;
}
