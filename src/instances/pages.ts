import type { Instance } from './instance.js';

/** An instance and the host name that DHCP and DNS know it by. */
export interface Entry {
  readonly instance: Instance;
  readonly hostName: string;
}

/**
 * Some instances that follow each other. Immutable: a change makes a new page, so that what is made
 * from a page can be kept for as long as the page.
 */
export type Page = readonly Entry[];

/** All instances, in the order in which they were first seen, by the numbers of their pages. */
export type Pages = ReadonlyMap<number, Page>;

/** Instances on a page. A change costs by this number; a file that follows from all, by the pages. */
export const pageSize = 64;

/** Returns a function that formats pages in UTF-8, one piece for each, and each page once. */
export function pageFormatter(format: (page: Page) => string): (pages: Pages) => Generator<Buffer> {
  const formatted = new WeakMap<Page, Buffer>();
  return function* (pages) {
    for (const page of pages.values()) {
      let bytes = formatted.get(page);
      if (bytes === undefined) {
        bytes = Buffer.from(format(page));
        formatted.set(page, bytes);
      }
      yield bytes;
    }
  };
}

/** What stands around the items of a list and between them, and the list without items. */
interface Brackets {
  readonly begin: string;
  readonly separator: string;
  readonly end: string;
  readonly empty: string;
}

/** A list in pieces, of pieces that are its items. Empty ones are none. */
export function* listPieces(
  items: Iterable<Buffer>,
  { begin, separator, end, empty }: Brackets,
): Generator<Buffer> {
  let isEmpty = true;
  for (const item of items) {
    if (item.length === 0) continue;
    yield Buffer.from(isEmpty ? begin : separator);
    yield item;
    isEmpty = false;
  }
  yield Buffer.from(isEmpty ? empty : end);
}
