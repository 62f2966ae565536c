import assert from 'node:assert/strict';
import {
  appendFileSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { type FileContent, fileKeeper, fileText, replaceFiles } from '../src/files.js';
import { temporaryFolder } from './support/cleanup.js';

/** Pieces of all lengths from 0 on, with what they are together. */
function pieces(count: number): { pieces: Buffer[]; text: string } {
  const texts = Array.from({ length: count }, (_, index) => `${index},`.repeat(index % 7));
  return { pieces: texts.map((text) => Buffer.from(text)), text: texts.join('') };
}

test('a file is written from any number of pieces, empty ones too', async (t) => {
  const folder = temporaryFolder(t);
  for (const count of [0, 1, 8, 1023, 1024, 1025, 5000]) {
    const made = pieces(count);
    const file = { path: join(folder, String(count)), content: made.pieces };
    assert.equal(fileText(file), made.text);
    await replaceFiles([file]);
    assert.equal(readFileSync(file.path, 'utf8'), made.text);
  }
});

test('others are served while many pieces are made', async (t) => {
  const path = join(temporaryFolder(t), 'large');
  let turns = 0;
  const made: number[] = [];
  const content = (function* () {
    for (let number = 0; number < 20; number++) {
      // Longer than any turn.
      for (const end = performance.now() + 5; performance.now() < end; );
      made.push(turns);
      yield Buffer.from('x');
    }
  })();
  let isWritten = false;
  const written = replaceFiles([{ path, content }]).then(() => {
    isWritten = true;
  });
  while (!isWritten) {
    turns += 1;
    await turn();
  }
  await written;
  assert.ok(new Set(made).size >= 15, `20 pieces in ${new Set(made).size} turns`);
});

/** A folder of kept files, and which of two were written by the last `keep`. */
function keptFolder(folder: string) {
  const keeper = fileKeeper();
  const paths = ['a', 'b'].map((name) => join(folder, name));
  const files = (...texts: string[]): FileContent[] =>
    texts.map((text, index) => ({ path: paths[index] ?? '', content: [Buffer.from(text)] }));
  return {
    keeper,
    paths,
    files,
    async keep(...texts: string[]) {
      const staged = await keeper.stage(files(...texts));
      await staged.commit();
      return staged.paths;
    },
  };
}

test('a file is written again only if its content is another, or it is not as it was written', async (t) => {
  const folder = temporaryFolder(t);
  const { keeper, paths, keep } = keptFolder(folder);
  const [a = '', b = ''] = paths;
  assert.deepEqual(await keep('1', '2'), [a, b]);
  const { ino } = statSync(a);
  assert.deepEqual(await keep('1', '2'), []);
  assert.deepEqual(await keep('1', '3'), [b]);
  assert.equal(statSync(a).ino, ino);
  appendFileSync(a, 'by hand');
  assert.deepEqual(await keep('1', '3'), [a]);
  rmSync(b);
  assert.deepEqual(await keep('1', '3'), [b]);
  keeper.forget();
  assert.deepEqual(await keep('1', '3'), [a, b]);
  assert.deepEqual(
    paths.map((path) => readFileSync(path, 'utf8')),
    ['1', '3'],
  );
});

test('what is staged and discarded changes no file, and does not count as written', async (t) => {
  const folder = temporaryFolder(t);
  const { keeper, paths, files, keep } = keptFolder(folder);
  await keep('1', '2');
  const staged = await keeper.stage(files('8', '9'));
  assert.deepEqual(staged.paths, paths);
  assert.deepEqual(readdirSync(folder).sort(), ['.a.new', '.b.new', 'a', 'b']);
  await staged.discard();
  assert.deepEqual(readdirSync(folder).sort(), ['a', 'b']);
  assert.deepEqual(await keep('1', '2'), []);
  assert.deepEqual(await keep('8', '2'), paths.slice(0, 1));
});

test('a file that cannot be staged leaves none of the others behind', async (t) => {
  const folder = temporaryFolder(t);
  const { keeper, files } = keptFolder(folder);
  writeFileSync(join(folder, 'file'), '');
  const wrong = { path: join(folder, 'file', 'c'), content: 'x' };
  await assert.rejects(keeper.stage([...files('1', '2'), wrong]), /ENOTDIR.*file\/c/);
  assert.deepEqual(readdirSync(folder), ['file']);
});
