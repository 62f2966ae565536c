/** A map that can be changed: a Map, or changes on top of one. */
export interface WritableMap<K, V> extends ReadonlyMap<K, V> {
  set(key: K, value: V): unknown;
  delete(key: K): boolean;
}

interface Layer<V> {
  /** Undefined if the key was deleted. */
  readonly value: V | undefined;
  /** The key was deleted and set again, so that it comes after all others. */
  readonly isMoved: boolean;
}

/**
 * Changes on top of a map, which stays as it is until they are applied to it. It costs as much as the
 * changes, whatever the size of the map. In the same order as a Map with the same changes.
 */
export class LayeredMap<K, V extends {}> implements WritableMap<K, V> {
  readonly #base: WritableMap<K, V>;
  readonly #layers = new Map<K, Layer<V>>();
  #size: number;

  constructor(base: WritableMap<K, V>) {
    this.#base = base;
    this.#size = base.size;
  }

  get size(): number {
    return this.#size;
  }

  /** Whether the map differs from the one below it. */
  get isChanged(): boolean {
    return this.#layers.size > 0;
  }

  get(key: K): V | undefined {
    const layer = this.#layers.get(key);
    return layer === undefined ? this.#base.get(key) : layer.value;
  }

  has(key: K): boolean {
    const layer = this.#layers.get(key);
    return layer === undefined ? this.#base.has(key) : layer.value !== undefined;
  }

  set(key: K, value: V): this {
    const layer = this.#layers.get(key);
    if (!this.has(key)) this.#size += 1;
    // A key that is set again comes after those that were set in between.
    if (layer?.value === undefined) this.#layers.delete(key);
    this.#layers.set(key, { value, isMoved: layer?.isMoved ?? false });
    return this;
  }

  delete(key: K): boolean {
    if (!this.has(key)) return false;
    this.#size -= 1;
    this.#layers.delete(key);
    if (this.#base.has(key)) this.#layers.set(key, { value: undefined, isMoved: true });
    return true;
  }

  *entries(): MapIterator<[K, V]> {
    for (const [key, value] of this.#base) {
      const layer = this.#layers.get(key);
      if (layer === undefined) yield [key, value];
      else if (layer.value !== undefined && !layer.isMoved) yield [key, layer.value];
    }
    for (const [key, { value, isMoved }] of this.#layers) {
      if (value !== undefined && (isMoved || !this.#base.has(key))) yield [key, value];
    }
  }

  *keys(): MapIterator<K> {
    for (const [key] of this.entries()) yield key;
  }

  *values(): MapIterator<V> {
    for (const [, value] of this.entries()) yield value;
  }

  [Symbol.iterator](): MapIterator<[K, V]> {
    return this.entries();
  }

  forEach(use: (value: V, key: K, map: ReadonlyMap<K, V>) => void): void {
    for (const [key, value] of this.entries()) use(value, key, this);
  }

  /** The keys that were set or deleted. */
  changedKeys(): Iterable<K> {
    return this.#layers.keys();
  }

  /** Makes the changes in the map below. */
  apply(): void {
    for (const [key, { value, isMoved }] of this.#layers) {
      if (value === undefined || isMoved) this.#base.delete(key);
      if (value !== undefined) this.#base.set(key, value);
    }
  }
}
