import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LayeredMap, type WritableMap } from '../src/instances/layered-map.js';

const key = fc.constantFrom('a', 'b', 'c', 'd', 'e');
const changes = fc.array(fc.tuple(key, fc.option(fc.nat(9), { nil: undefined })), {
  maxLength: 20,
});
const entries = fc.uniqueArray(fc.tuple(key, fc.nat(9)), { selector: ([name]) => name });

function make(map: WritableMap<string, number>, changed: [string, number | undefined][]): void {
  for (const [name, value] of changed) {
    if (value === undefined) map.delete(name);
    else map.set(name, value);
  }
}

/** All that a map tells of itself. */
function seen(map: ReadonlyMap<string, number>) {
  const each: [string, number][] = [];
  map.forEach((value, name) => {
    each.push([name, value]);
  });
  const names = ['a', 'b', 'c', 'd', 'e'];
  return {
    size: map.size,
    all: [...map],
    keys: [...map.keys()],
    values: [...map.values()],
    each,
    looked: names.map((name) => [map.has(name), map.get(name)]),
  };
}

test('whatever is changed: it is as a Map with the same changes, in the same order', () => {
  fc.assert(
    fc.property(entries, changes, (start, changed) => {
      const base = new Map(start);
      const layered = new LayeredMap(base);
      const plain = new Map(start);
      make(layered, changed);
      make(plain, changed);
      assert.deepEqual(seen(layered), seen(plain));
      assert.deepEqual([...base], start, 'the map below is as it was');
      layered.apply();
      assert.deepEqual(seen(base), seen(plain));
    }),
    { numRuns: 1000 },
  );
});

test('a layer on a layer is as one', () => {
  fc.assert(
    fc.property(entries, changes, changes, (start, first, second) => {
      const lower = new LayeredMap(new Map(start));
      make(lower, first);
      const upper = new LayeredMap(lower);
      make(upper, second);
      const plain = new Map(start);
      make(plain, [...first, ...second]);
      assert.deepEqual(seen(upper), seen(plain));
      upper.apply();
      assert.deepEqual(seen(lower), seen(plain));
    }),
    { numRuns: 1000 },
  );
});

test('it counts as changed by what was set or deleted, not by what came and went', () => {
  const layered = new LayeredMap(new Map([['a', 1]]));
  layered.set('b', 2);
  layered.delete('b');
  layered.delete('c');
  assert.deepEqual([layered.isChanged, [...layered.changedKeys()]], [false, []]);
  layered.delete('a');
  layered.set('d', 4);
  assert.deepEqual([layered.isChanged, [...layered.changedKeys()]], [true, ['a', 'd']]);
});
