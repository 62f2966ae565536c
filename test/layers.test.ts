import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { repository } from './support/daemon.js';

/** The order that CONTRIBUTING.md explains: the names in its numbered list, lowest first. */
const [, section = ''] = readFileSync(join(repository, 'CONTRIBUTING.md'), 'utf8').split(
  '## Layers\n',
);
const order = [...(section.split('\n## ')[0] ?? '').matchAll(/^\d\. (.*?):/gm)].flatMap(
  ([, names = '']) => [...names.matchAll(/`([a-z]+)`/g)].map(([, name = '']) => name),
);

const sources = readdirSync(join(repository, 'src'), { recursive: true, encoding: 'utf8' }).filter(
  (path) => path.endsWith('.ts'),
);

/** `http/app.ts` is of the layer `http`, `text.ts` of the layer `text`. */
function layerOf(path: string): string {
  return path.split('/')[0]?.replace(/\.[jt]s$/, '') ?? '';
}

/** What a source file imports, types and what is loaded later included. */
function importsOf(path: string): string[] {
  const text = readFileSync(join(repository, 'src', path), 'utf8');
  const imports = /(?:\bfrom |\bimport[ (]|\brequire\()'([^']+)'/g;
  return [...text.matchAll(imports)].map(([, name = '']) => name);
}

test('every file and folder of src has its place in the order', () => {
  assert.deepEqual([...new Set(sources.map(layerOf))].sort(), [...order].sort());
});

for (const path of sources) {
  test(`src/${path} imports only what comes before it in the order`, () => {
    const own = layerOf(path);
    const upward = importsOf(path)
      .filter((name) => name.startsWith('.'))
      .map((name) => layerOf(normalize(join(dirname(path), name))))
      .filter((layer) => order.indexOf(layer) > order.indexOf(own) || !order.includes(layer));
    assert.deepEqual(upward, []);
  });
}

test('only the two HTTP faces know the web framework', () => {
  const users = sources.filter((path) => importsOf(path).includes('fastify')).map(layerOf);
  assert.deepEqual([...new Set(users)].sort(), ['control', 'http']);
});

test('a package in CommonJS is imported by require, which takes Node less time', () => {
  const isCommonJs = (name: string) => {
    if (!/^[a-z]/.test(name) || name.startsWith('node:')) return false;
    const file = fileURLToPath(import.meta.resolve(name));
    const [folder = ''] = /.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file) ?? [];
    const { type } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    return type !== 'module' && !file.endsWith('.mjs');
  };
  const slow = sources.flatMap((path) => {
    const text = readFileSync(join(repository, 'src', path), 'utf8');
    const names = [...text.matchAll(/^import (?!type )[^;=]* from '([^']+)'/gm)];
    return names.filter(([, name = '']) => isCommonJs(name)).map(([line]) => `${path}: ${line}`);
  });
  assert.deepEqual(slow, []);
});
