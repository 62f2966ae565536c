import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** A package that is in the programs. */
export interface BundledPackage {
  readonly name: string;
  readonly version: string;
  /** Its identifier in the list of SPDX. */
  readonly licence: string;
  /** The text of the licence, with whose it is. */
  readonly text: string;
}

/** The packages that these files, below a folder, are from: by name and version. Throws as bundledPackage does. */
export function packagesOf(root: string, files: readonly string[]): BundledPackage[] {
  const folders = files.flatMap(
    (file) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file)?.[0] ?? [],
  );
  const packages = Array.from(new Set(folders), (folder) => bundledPackage(join(root, folder)));
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
