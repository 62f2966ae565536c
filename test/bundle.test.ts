import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { bundle } from '../tools/bundle.js';
import { suiteScope, temporaryFolder } from './support/cleanup.js';

describe('the bundled programs', () => {
  // No node_modules are above it.
  const folder = temporaryFolder(suiteScope());

  before(async () => {
    await bundle(folder, '/usr/bin/node');
  });

  it('start by themselves', () => {
    for (const name of ['mdserver', 'mdserverctl']) {
      const args = [join(folder, `${name}.js`), '--version'];
      const printed = execFileSync(process.execPath, args, { encoding: 'utf8' });
      assert.match(
        printed,
        new RegExp(`^${name} \\d+\\.\\d+\\.\\d+ \\(\\d{4}-\\d\\d-\\d\\d\\)\\n$`),
      );
    }
  });
});
