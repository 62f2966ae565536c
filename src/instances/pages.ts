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

/** Instances on a page. A change costs by this number; a file that follows from all, by the pages. */
export const pageSize = 64;

/** Returns a function that formats a page in UTF-8, once for each page. */
export function pageFormatter(format: (page: Page) => string): (page: Page) => Buffer {
  const formatted = new WeakMap<Page, Buffer>();
  return (page) => {
    const known = formatted.get(page);
    if (known !== undefined) return known;
    const bytes = Buffer.from(format(page));
    formatted.set(page, bytes);
    return bytes;
  };
}
