/* Makes one file of each program with all that it needs: npm run build, and the packages do it. */
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const repository = fileURLToPath(new URL('../../', import.meta.url));

/** What is run, by the name of its file: the programs, and what they start as another user. */
const entryPoints = {
  mdserver: 'src/main.ts',
  mdserverctl: 'src/ctl/main.ts',
  'as-daemon-child': 'src/ctl/checks/as-daemon-child.ts',
  'comparison-child': 'src/ctl/comparison-child.ts',
};

/** A package that is in the programs. */
export interface BundledPackage {
  readonly name: string;
  readonly version: string;
  /** Its identifier in the list of SPDX. */
  readonly licence: string;
  /** The text of the licence, with whose it is. */
  readonly text: string;
}

/**
 * Writes the programs to a folder: mdserver.js, mdserverctl.js and what they need beside them. They run from
 * wherever the folder is moved to. The same sources give the same bytes. Returns the packages that are in
 * them, by name and version.
 *
 * `node` is what the programs are run by, as after `#!`. Throws if a package's licence is not one of those that
 * allow this, or has no text.
 */
export async function bundle(
  folder: string,
  node = '/usr/bin/env node',
): Promise<readonly BundledPackage[]> {
  const { version, releaseDate } = JSON.parse(
    readFileSync(join(repository, 'package.json'), 'utf8'),
  );
  const { outputFiles, metafile } = await build({
    absWorkingDir: repository,
    entryPoints,
    outdir: folder,
    bundle: true,
    platform: 'node',
    target: 'node20.17',
    // It starts faster than an ES module.
    format: 'cjs',
    banner: { js: "const bundleUrl = require('node:url').pathToFileURL(__filename).href;" },
    define: {
      'import.meta.url': 'bundleUrl',
      bundledPackage: JSON.stringify({ version, releaseDate }),
    },
    metafile: true,
    write: false,
  });
  mkdirSync(folder, { recursive: true });
  for (const { path, text } of outputFiles) {
    writeFileSync(path, text.replace(/^#!.*/, `#!${node}`));
    chmodSync(path, text.startsWith('#!') ? 0o755 : 0o644);
  }
  // The package around it may be one of ES modules.
  writeFileSync(join(folder, 'package.json'), '{ "type": "commonjs" }\n');
  const inputs = Object.values(metafile.outputs).flatMap((output) => Object.entries(output.inputs));
  return packagesOf(inputs.flatMap(([file, { bytesInOutput }]) => (bytesInOutput > 0 ? file : [])));
}

/** The packages that these files are from. */
function packagesOf(files: readonly string[]): BundledPackage[] {
  const folders = files.flatMap(
    (file) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file)?.[0] ?? [],
  );
  const packages = Array.from(new Set(folders), (folder) =>
    bundledPackage(join(repository, folder)),
  );
  const byName = new Map(packages.map((one) => [`${one.name} ${one.version}`, one]));
  return [...byName.keys()].sort().flatMap((name) => byName.get(name) ?? []);
}

/** Licences that allow to distribute a package as part of another program, with their text beside it. */
const allowed = [
  '0BSD',
  'Apache-2.0',
  'BlueOak-1.0.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'ISC',
  'MIT',
];

/** Packages that name the MIT licence and their author, and have no file with its text. */
const withoutText = [
  '@nodable/base-output-builder',
  '@nodable/compact-builder',
  '@nodable/entities',
  'abstract-logging',
];

const mit = `Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
`;

/** The package in a folder. Throws if it cannot be distributed. */
export function bundledPackage(folder: string): BundledPackage {
  const { name, version, license, author } = JSON.parse(
    readFileSync(join(folder, 'package.json'), 'utf8'),
  );
  const refuse = (why: string) => new Error(`${name} ${version} cannot be in the programs: ${why}`);
  if (!allowed.includes(license)) {
    throw refuse(`its licence is ${JSON.stringify(license)}, not one of ${allowed.join(', ')}`);
  }
  const texts = readdirSync(folder)
    .filter((file) => /^(?:licen[cs]e|copying|notice)/i.test(file))
    .sort()
    .map((file) => readFileSync(join(folder, file), 'utf8').trim());
  if (texts.length === 0) {
    if (license !== 'MIT' || !withoutText.includes(name) || typeof author !== 'string') {
      throw refuse('it has no file with the text of its licence');
    }
    texts.push(`Copyright (c) ${author}\n\n${mit.trim()}`);
  }
  return { name, version, licence: license, text: `${texts.join('\n\n')}\n` };
}

/** The licences of packages as a text: for a file beside the programs. */
export function licencesText(packages: readonly BundledPackage[]): string {
  const texts = packages.map(
    ({ name, version, licence, text }) => `${name} ${version} (${licence})\n\n${text}`,
  );
  return ['mdserver contains these packages:\n', ...texts].join(`\n${'-'.repeat(80)}\n\n`);
}

if (basename(process.argv[1] ?? '') === 'bundle.js') {
  const folder = join(repository, 'dist/bundle');
  writeFileSync(join(folder, 'licences.txt'), licencesText(await bundle(folder)));
}
