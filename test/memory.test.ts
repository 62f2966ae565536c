import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isWorthCollecting } from '../src/memory.js';
import { rowName } from './support/rows.js';

test('garbage is collected when the event loop is idle and the memory has grown', async (t) => {
  for (const [utilization, bytes, expected] of [
    [0, 100, false],
    [0, 109, false],
    [0.05, 120, true],
    [0, 300, true],
    // A collection stops everything for as long as it takes.
    [0.1, 300, false],
    [1, 300, false],
  ] as const) {
    await t.test(rowName(utilization, bytes), () => {
      assert.equal(isWorthCollecting({ utilization }, bytes, 100), expected);
    });
  }
});
