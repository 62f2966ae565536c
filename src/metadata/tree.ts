import type { Rendering } from '../userdata/userdata.js';

/** What a leaf answers: a text, or a rendered file. */
export type Leaf = string | Rendering;

/**
 * Returns what a node is for a context: a leaf, a function that makes the leaf when it is requested,
 * a folder, or undefined if the node does not exist for that context.
 */
export type Resolver<Context> = (
  context: Context,
) => Leaf | (() => Leaf) | Folder<Context> | undefined;

/** A node in a tree of metadata. */
export type Node<Context> = Folder<Context> | Resolver<Context>;

/** A folder of the tree. Listings come from it, so they cannot name a leaf that answers 404. */
export interface Folder<Context> {
  readonly entries: ReadonlyMap<string, Node<Context>>;
  /** How a listing shows an entry, if not by its name (with a slash after a folder's); undefined hides it. */
  readonly listedAs?: (name: string) => string | undefined;
}

/** A folder from an object: one line for each entry. */
export function folder<Context>(entries: Readonly<Record<string, Node<Context>>>): Folder<Context> {
  return { entries: new Map(Object.entries(entries)) };
}

function isFolder<Context>(value: unknown): value is Folder<Context> {
  return typeof value === 'object' && value !== null && 'entries' in value;
}

type NodeValue<Context> = Leaf | (() => Leaf) | Folder<Context>;

function nodeValue<Context>(
  node: Node<Context> | undefined,
  context: Context,
): NodeValue<Context> | undefined {
  const value = typeof node === 'function' ? node(context) : node;
  // An empty folder does not exist: clients would ask for its entries.
  return isFolder<Context>(value) && listing(value, context) === '' ? undefined : value;
}

function listing<Context>(folder: Folder<Context>, context: Context): string {
  const lines: string[] = [];
  for (const [name, node] of folder.entries) {
    const value = nodeValue(node, context);
    if (value === undefined) continue;
    const line = folder.listedAs ? folder.listedAs(name) : name + (isFolder(value) ? '/' : '');
    if (line !== undefined) lines.push(line);
  }
  return lines.join('\n');
}

/**
 * The answer for a path, given as its decoded segments: a leaf, a folder's listing (one entry a
 * line), or undefined.
 */
export function lookUp<Context>(
  root: Folder<Context>,
  path: readonly string[],
  context: Context,
): Leaf | undefined {
  let place: NodeValue<Context> | undefined = root;
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

/** Every leaf that is listed, with its path, in the order of the listings. */
export function* leaves<Context>(
  root: Folder<Context>,
  context: Context,
  path = '',
): Generator<readonly [path: string, leaf: Leaf]> {
  for (const [name, node] of root.entries) {
    const value = nodeValue(node, context);
    if (value === undefined) continue;
    if (root.listedAs !== undefined && root.listedAs(name) === undefined) continue;
    if (isFolder<Context>(value)) yield* leaves(value, context, `${path}${name}/`);
    else yield [path + name, typeof value === 'function' ? value() : value];
  }
}

/** The decoded segments of a URL's path, without empty ones (doubled slashes). */
export function pathSegments(url: string): string[] {
  const end = url.search(/[?#]/);
  const path = end < 0 ? url : url.slice(0, end);
  const segments: string[] = [];
  for (let begin = 0; begin < path.length; ) {
    const slash = path.indexOf('/', begin);
    const stop = slash < 0 ? path.length : slash;
    if (stop > begin) {
      const segment = path.slice(begin, stop);
      segments.push(segment.includes('%') ? decodeURIComponent(segment) : segment);
    }
    begin = stop + 1;
  }
  return segments;
}

/** The bytes of a leaf. */
export function bodyOf(leaf: Leaf): string | Buffer {
  return typeof leaf === 'string' ? leaf : leaf.body;
}
