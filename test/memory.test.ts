import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isWorthCollecting } from '../src/memory.js';
import { rowName } from './support/rows.js';

test('garbage is collected when the event loop is idle and the memory has grown', async (t) => {
  for (const [utilization, bytes, size, expected] of [
    [0, 100, 'small', false],
    [0, 109, 'small', false],
    [0.05, 120, 'small', true],
    [0, 300, 'small', true],
    [0, 149, 'large', false],
    [0, 151, 'large', true],
    // A collection stops everything for as long as it takes.
    [0.1, 300, 'small', false],
    [1, 300, 'small', false],
  ] as const) {
    await t.test(rowName(utilization, bytes, size), () => {
      assert.equal(isWorthCollecting({ utilization }, bytes, 100, size), expected);
    });
  }
});
