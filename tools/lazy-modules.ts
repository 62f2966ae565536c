import { createRequire, isBuiltin } from 'node:module';
import type { Plugin } from 'esbuild';

const load = createRequire(import.meta.url);

/** Modules that a start does without: each is loaded when something of it is used for the first time. */
const lazy = [
  'node:assert',
  'node:child_process',
  'node:crypto',
  'node:dns',
  'node:http2',
  'node:https',
  'semver',
];

/**
 * What packages would load and mdserver does not use, by the package that asks for it. It throws when it is
 * used: loaded by `require` inside of a function, or called.
 */
const unused: readonly (readonly [from: string, name: string, use: 'load' | 'call'])[] = [
  // Routes have no schemas (`noSchemas`), and nothing is injected.
  ['fastify', '@fastify/ajv-compiler', 'load'],
  ['fastify', '@fastify/fast-json-stringify-compiler', 'load'],
  ['fastify', 'light-my-request', 'load'],
  // The log is written in the process itself.
  ['pino', './transport', 'call'],
  ['pino', './lib/transport', 'call'],
];

/** What pino asks of worker_threads, which take a while to load: mdserver has one thread. */
const oneThread = 'exports.isMainThread = true;';

function lazyText(name: string): string {
  const quoted = JSON.stringify(name);
  const module = load(name);
  // assert is a function; others are called by a name in them.
  const start =
    typeof module === 'function'
      ? `module.exports = (...args) => { if (!args[0]) require(${quoted})(...args); };`
      : '';
  const keys = Object.keys(module).filter((key) => key !== 'default');
  return `${start}
for (const key of ${JSON.stringify(keys)}) {
  Object.defineProperty(module.exports, key, { enumerable: true, get: () => require(${quoted})[key] });
}`;
}

function unusedText(name: string, use: 'load' | 'call'): string {
  const fail = `throw new Error(${JSON.stringify(`${name} is not in the bundle`)});`;
  return use === 'load' ? fail : `module.exports = () => { ${fail} };`;
}

/** Has bundles load modules late, and leave out what is not used. */
export const lazyModules: Plugin = {
  name: 'lazy modules',
  setup(build) {
    const namespace = 'lazy';
    build.onResolve({ filter: /^/ }, ({ path, importer, resolveDir, namespace: from }) => {
      if (from === namespace)
        return path.startsWith('node:') ? { path, external: true } : undefined;
      const found = unused.find(
        ([owner, name]) => name === path && importer.includes(`/node_modules/${owner}/`),
      );
      const module = isBuiltin(path) ? `node:${path.replace(/^node:/, '')}` : path;
      const text =
        path === 'worker_threads' && importer.includes('/node_modules/pino/')
          ? oneThread
          : found === undefined
            ? lazy.includes(module) && lazyText(module)
            : unusedText(found[1], found[2]);
      if (!text) return undefined;
      const contents = { contents: text, resolveDir };
      return { path: path.replace(/^node:/, ''), namespace, pluginData: contents };
    });
    build.onLoad({ filter: /^/, namespace }, ({ pluginData }) => pluginData);
  },
};
