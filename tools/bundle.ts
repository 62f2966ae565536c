/* Makes one file of each program with all that it needs: npm run build, and the packages do it. */
import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { lazyModules } from './lazy-modules.js';
import { type BundledPackage, licencesText, packagesOf } from './licences.js';

const repository = fileURLToPath(new URL('../../', import.meta.url));

/** The source files of the daemon; `compiled.ts` runs the other one. */
const daemon = { 'mdserver-code': 'src/main.ts' };
const others = {
  mdserver: 'src/compiled.ts',
  mdserverctl: 'src/ctl/main.ts',
  // What mdserverctl starts as another user.
  'as-daemon-child': 'src/ctl/checks/as-daemon-child.ts',
  'comparison-child': 'src/ctl/comparison-child.ts',
};

interface Bundled {
  /** The text of each file, by its name without the ending. */
  readonly texts: ReadonlyMap<string, string>;
  /** The files that are in them, below the repository. */
  readonly sources: readonly string[];
}

/** Bundles source files, by the names that they get. `define` are JSON texts for undeclared names. */
async function bundled(
  entryPoints: Readonly<Record<string, string>>,
  define: Readonly<Record<string, string>>,
): Promise<Bundled> {
  const { outputFiles, metafile } = await build({
    absWorkingDir: repository,
    entryPoints,
    outdir: '.',
    bundle: true,
    platform: 'node',
    target: 'node20.17',
    // It starts faster than an ES module.
    format: 'cjs',
    // In a script, as mdserver-code.js is one, there is no import().
    supported: { 'dynamic-import': false },
    // Less to read at a start. Names stay, and lines are short, for the sake of stack traces.
    minifyWhitespace: true,
    minifySyntax: true,
    lineLimit: 120,
    banner: { js: "const bundleUrl = require('node:url').pathToFileURL(__filename).href;" },
    define: { 'import.meta.url': 'bundleUrl', ...define },
    plugins: [lazyModules],
    metafile: true,
    write: false,
  });
  const inputs = Object.values(metafile.outputs).flatMap((output) => Object.entries(output.inputs));
  return {
    texts: new Map(outputFiles.map(({ path, text }) => [basename(path, '.js'), text])),
    sources: inputs.flatMap(([file, { bytesInOutput }]) => (bytesInOutput > 0 ? file : [])),
  };
}

/** Makes a script of a bundled module: an expression, a function of what Node gives to a module. */
function scriptOf(text: string): string {
  const script = `(function (require, __filename) {${text.replace(/^#!.*/, '')}\n})\n`;
  // mdserver reads it as Latin-1, which takes less time than UTF-8.
  if (Buffer.byteLength(script) !== script.length) {
    throw new Error('the bundle of the daemon is not ASCII alone');
  }
  return script;
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
  const bundledPackage = JSON.stringify({ version, releaseDate });
  const code = await bundled(daemon, { bundledPackage });
  const script = scriptOf(code.texts.get('mdserver-code') ?? '');
  const codeId = createHash('sha256').update(script).digest('hex');
  const rest = await bundled(others, { bundledPackage, codeId: JSON.stringify(codeId) });

  mkdirSync(folder, { recursive: true });
  for (const [name, text] of [...rest.texts, ['mdserver-code', script] as const]) {
    const path = join(folder, `${name}.js`);
    writeFileSync(path, text.replace(/^#!.*/, `#!${node}`));
    chmodSync(path, text.startsWith('#!') ? 0o755 : 0o644);
  }
  // The package around it may be one of ES modules.
  writeFileSync(join(folder, 'package.json'), '{ "type": "commonjs" }\n');
  return packagesOf(repository, [...code.sources, ...rest.sources]);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const folder = join(repository, 'dist/bundle');
  writeFileSync(join(folder, 'licences.txt'), licencesText(await bundle(folder)));
}
