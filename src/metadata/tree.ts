import type { Rendering } from '../userdata/userdata.js';

/** What a leaf answers: a text, or a rendered file. */
export type Leaf = string | Rendering;

/**
 * What a place of the tree holds for a context: a leaf, a leaf that is only made when it is asked
 * for, a folder, or undefined for "not here".
 */
export type Resolve<Context> = (
  context: Context,
) => Leaf | (() => Leaf) | Folder<Context> | undefined;

/** A place in a tree of metadata. */
export type Node<Context> = Folder<Context> | Resolve<Context>;

/** A folder of the tree. Listings are made from it, so they cannot name what is not there. */
export interface Folder<Context> {
  readonly entries: ReadonlyMap<string, Node<Context>>;
  /** How a listing shows an entry, where that is not its name with a slash behind a folder's. */
  readonly listedAs?: (name: string) => string | undefined;
}

/** A folder from an object: one line for each entry. */
export function folder<Context>(entries: Readonly<Record<string, Node<Context>>>): Folder<Context> {
  return { entries: new Map(Object.entries(entries)) };
}

function isFolder<Context>(value: unknown): value is Folder<Context> {
  return typeof value === 'object' && value !== null && 'entries' in value;
}

type Present<Context> = Leaf | (() => Leaf) | Folder<Context>;

function present<Context>(
  node: Node<Context> | undefined,
  context: Context,
): Present<Context> | undefined {
  const value = typeof node === 'function' ? node(context) : node;
  // A folder with nothing in it is as good as none: clients would ask for its entries.
  return isFolder<Context>(value) && listing(value, context) === '' ? undefined : value;
}

function listing<Context>(folder: Folder<Context>, context: Context): string {
  const lines: string[] = [];
  for (const [name, node] of folder.entries) {
    const value = present(node, context);
    if (value === undefined) continue;
    const line = folder.listedAs ? folder.listedAs(name) : name + (isFolder(value) ? '/' : '');
    if (line !== undefined) lines.push(line);
  }
  return lines.join('\n');
}

/**
 * What the tree answers for a path, given as its decoded segments: a leaf's text, a folder's
 * listing (its entries, a line each), or undefined.
 */
export function lookUp<Context>(
  root: Folder<Context>,
  path: readonly string[],
  context: Context,
): Leaf | undefined {
  let place: Present<Context> | undefined = root;
  for (const segment of path) {
    if (!isFolder<Context>(place)) return undefined;
    const node: Node<Context> | undefined = place.entries.get(segment);
    place = typeof node === 'function' ? node(context) : node;
  }
  if (isFolder<Context>(place)) {
    const text = listing(place, context);
    return text === '' && path.length > 0 ? undefined : text;
  }
  return typeof place === 'function' ? place() : place;
}

/** Every leaf that listings lead to, with its path, in their order. */
export function* leaves<Context>(
  root: Folder<Context>,
  context: Context,
  path = '',
): Generator<readonly [path: string, leaf: Leaf]> {
  for (const [name, node] of root.entries) {
    const value = present(node, context);
    if (value === undefined) continue;
    if (root.listedAs !== undefined && root.listedAs(name) === undefined) continue;
    if (isFolder<Context>(value)) yield* leaves(value, context, `${path}${name}/`);
    else yield [path + name, typeof value === 'function' ? value() : value];
  }
}

/** The decoded segments of a request's path; empty ones (doubled slashes) do not count. */
export function pathSegments(url: string): string[] {
  const end = url.search(/[?#]/);
  const path = end < 0 ? url : url.slice(0, end);
  return path
    .split('/')
    .filter((segment) => segment !== '')
    .map((segment) => (segment.includes('%') ? decodeURIComponent(segment) : segment));
}

/** The bytes of a leaf. */
export function bodyOf(leaf: Leaf): string | Buffer {
  return typeof leaf === 'string' ? leaf : leaf.body;
}
