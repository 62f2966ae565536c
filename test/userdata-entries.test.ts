import assert from 'node:assert/strict';
import fs, { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { mock, type TestContext, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { createUserdata } from '../src/userdata/userdata.js';
import { temporaryFolder } from './support/cleanup.js';

const guest = {
  name: 'guest',
  uuid: undefined,
  mac: '52:54:00:00:00:01',
  ipv4: undefined,
  ipv6: undefined,
  location: undefined,
  metadata: {},
};

/** A clock that is ahead makes every directory one that changed long ago: its entries are kept. */
async function withSettledDirectory(
  t: TestContext,
  use: (directory: string, served: () => Promise<string>) => Promise<void>,
): Promise<void> {
  const folder = temporaryFolder(t);
  const directory = join(folder, 'userdata');
  mkdirSync(directory);
  writeFileSync(join(folder, 'default'), 'the default one');
  mock.timers.enable({ apis: ['Date'], now: Date.now() + 3_600_000 });
  try {
    const mdserver = {
      userdata_dir: directory,
      userdata_suffixes: ['', '.yaml'],
      default_template: join(folder, 'default'),
      builtin_template: true,
      password: undefined,
      vendor_data: undefined,
    };
    const config = { publicKeys: [], templateData: new Map(), mdserver };
    const lines: string[] = [];
    const log = { error: (line: string) => lines.push(line), warn: () => {} };
    const { userdata } = createUserdata({ config: () => config, log });
    await use(directory, async () => {
      // Kernels before 6.13 count the time of a change in steps of up to 10 ms.
      await wait(30);
      return String(userdata(guest)?.().body);
    });
    assert.deepEqual(lines, []);
  } finally {
    mock.timers.reset();
  }
}

test('a file that comes, goes or is renamed is seen at the next request', async (t) => {
  await withSettledDirectory(t, async (directory, served) => {
    const file = join(directory, 'guest.yaml');
    assert.equal(await served(), 'the default one');
    assert.equal(await served(), 'the default one');
    writeFileSync(file, 'its own');
    assert.equal(await served(), 'its own');
    writeFileSync(join(directory, 'guest'), 'with no suffix');
    assert.equal(await served(), 'with no suffix');
    rmSync(join(directory, 'guest'));
    assert.equal(await served(), 'its own');
    renameSync(file, join(directory, '52:54:00:00:00:01'));
    assert.equal(await served(), 'its own');
    renameSync(join(directory, '52:54:00:00:00:01'), join(directory, 'other'));
    assert.equal(await served(), 'the default one');
  });
});

test('a link is seen when the file that it names comes later', async (t) => {
  await withSettledDirectory(t, async (directory, served) => {
    mkdirSync(join(directory, 'kept'));
    symlinkSync('kept/target', join(directory, 'guest'));
    assert.equal(await served(), 'the default one');
    writeFileSync(join(directory, 'kept/target'), 'through the link');
    assert.equal(await served(), 'through the link');
  });
});

test('another directory in the place of the first is seen at the next request', async (t) => {
  await withSettledDirectory(t, async (directory, served) => {
    mkdirSync(`${directory}.new`);
    writeFileSync(join(`${directory}.new`, 'guest'), 'of the new directory');
    assert.equal(await served(), 'the default one');
    renameSync(directory, `${directory}.old`);
    assert.equal(await served(), 'the default one');
    renameSync(`${directory}.new`, directory);
    assert.equal(await served(), 'of the new directory');
  });
});

test('a directory whose files may be read and not listed is served from', async (t) => {
  const listing = t.mock.method(fs, 'readdirSync', () => {
    throw Object.assign(new Error('EACCES: permission denied'), { code: 'EACCES' });
  });
  syncBuiltinESMExports();
  t.after(() => {
    listing.mock.restore();
    syncBuiltinESMExports();
  });
  await withSettledDirectory(t, async (directory, served) => {
    assert.equal(await served(), 'the default one');
    writeFileSync(join(directory, 'guest'), 'its own');
    assert.equal(await served(), 'its own');
    assert.equal(await served(), 'its own');
  });
  assert.equal(listing.mock.callCount(), 2);
});
