import { XMLParser } from 'fast-xml-parser';
import { SyntaxValidator, type validationOptions } from 'fast-xml-validator';
import { quoted } from '../text.js';
import { DomainXmlError, JoinedWordsError } from './domain.js';

/** An element with its namespace resolved (Namespaces in XML 1.0). */
export interface Element {
  /** The qualified name, with the prefix. */
  readonly name: string;
  /** The part behind the prefix; the qualified name if the prefix is not declared, as for libvirt. */
  readonly localName: string;
  /** Empty if the element has none. */
  readonly namespace: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: readonly Element[];
  /** Its own text, without the text of its children. */
  readonly text: string;
}

/**
 * In front of each name while fast-xml-parser has it: it makes names keys of objects, and refuses or
 * renames those that objects have themselves (`constructor`, `toString`). No name of XML begins so.
 */
const mark = '@';

/** The elements that may be inside each other: libvirt's own parser (libxml2) takes no more either. */
const maxDepth = 256;

/** A node of fast-xml-parser's `preserveOrder` form: `{ '@name': nodes }` or `{ '#text': text }`. */
interface ParsedNode {
  readonly [name: string]: unknown;
  readonly ':@'?: Readonly<Record<string, string>>;
}

const validation: validationOptions = {
  multipleRoots: false,
  invalidCharSequence: { comment: true, tagValue: true, attrLt: true },
};

const parser = new XMLParser({
  preserveOrder: true,
  ignoreAttributes: false,
  attributeNamePrefix: mark,
  parseTagValue: false,
  parseAttributeValue: false,
  trimValues: false,
  ignoreDeclaration: true,
  ignorePiTags: true,
  // It counts those around an element.
  maxNestedTags: maxDepth - 1,
  jPath: false,
  // It is called twice for an element without content.
  transformTagName: (name) => (name.startsWith(mark) ? name : mark + name),
  entityDecoder: {
    decode: replaceReferences,
    addInputEntities: () => {},
    setExternalEntities: () => {},
    setXmlVersion: () => {},
    reset: () => {},
  },
});

const predefined = new Map([
  ['&amp;', '&'],
  ['&lt;', '<'],
  ['&gt;', '>'],
  ['&quot;', '"'],
  ['&apos;', "'"],
]);

/** The text with XML's predefined entities and its character references replaced. */
function replaceReferences(text: string): string {
  return text.replace(
    /&(?:#([0-9]+);|#x([0-9A-Fa-f]+);|\w{1,20};)?/g,
    (all, decimal, hexadecimal) => {
      const digits: string | undefined = decimal ?? hexadecimal;
      const character =
        digits === undefined
          ? predefined.get(all)
          : xmlCharacter(Number.parseInt(digits, decimal === undefined ? 16 : 10));
      if (character === undefined) {
        throw new DomainXmlError(
          all === '&'
            ? '"&" without a reference: write &amp; for a literal "&"'
            : `${quoted(all)} is neither a character reference nor one of ${[...predefined.keys()].join(' ')}`,
        );
      }
      return character;
    },
  );
}

/** The character with this code; undefined if XML does not allow it (XML 1.0, 2.2). */
function xmlCharacter(code: number): string | undefined {
  const allowed =
    code === 0x9 ||
    code === 0xa ||
    code === 0xd ||
    (code >= 0x20 && code <= 0xd7ff) ||
    (code >= 0xe000 && code <= 0xfffd) ||
    (code >= 0x10000 && code <= 0x10ffff);
  return allowed ? String.fromCodePoint(code) : undefined;
}

/** Decodes the document and blanks out its XML declaration. */
function readText(body: Buffer | string): string {
  let text: string;
  try {
    // This skips a byte-order mark.
    text = new TextDecoder('utf-8', { fatal: true }).decode(
      typeof body === 'string' ? Buffer.from(body) : body,
    );
  } catch {
    throw new DomainXmlError('the body is not UTF-8 text');
  }
  const start = text.trimStart().slice(0, 40);
  if (start === '')
    throw new DomainXmlError('the body is empty: curl needs -d @FILE or --data-binary @FILE');
  if (!start.startsWith('<')) {
    throw new DomainXmlError(
      `the body is not XML but starts with ${quoted(start)}: curl needs -d @FILE or --data-binary @FILE`,
    );
  }
  return text.replace(/^<\?xml\s[^?]*\?>/, (declaration) => {
    const encoding = /\sencoding\s*=\s*["']([^"']*)["']/.exec(declaration)?.[1] ?? 'utf-8';
    if (!/^(utf-?8|us-ascii|ascii)$/i.test(encoding)) {
      throw new DomainXmlError(
        `line 1: the declared encoding is ${quoted(encoding)}: only UTF-8 is supported`,
      );
    }
    // Blanks, not nothing: otherwise the validator would report wrong columns.
    return declaration.replace(/[^\r\n]/g, ' ');
  });
}

/** The root element of a document in UTF-8 from libvirt. Throws DomainXmlError. */
export function parseRoot(body: Buffer | string): Element {
  const text = readText(body);
  refuseDoctype(text);
  validate(text);
  let nodes: ParsedNode[];
  try {
    // The parser reports text when the next markup begins: this makes it report trailing text.
    nodes = parser.parse(`${withoutInstructions(text)}<?end?>`);
  } catch (error) {
    if (error instanceof DomainXmlError || !(error instanceof Error)) throw error;
    throw new DomainXmlError(
      error.message === 'Maximum nested tags exceeded'
        ? `there are elements more than ${maxDepth} levels deep: libvirt takes no deeper ones either`
        : error.message,
    );
  }
  const { children, text: stray } = toContent(nodes, new Map(outerScope));
  const [root] = children;
  if (root === undefined || stray.trim() !== '')
    throw new DomainXmlError('text outside the root element');
  return root;
}

/**
 * The validated text with nothing in its processing instructions: the parser would read quotes in them
 * as those of attributes.
 */
function withoutInstructions(text: string): string {
  return text.replace(/<!--[\s\S]*?-->|<!\[CDATA\[[\s\S]*?\]\]>|<\?[\s\S]*?\?>/g, (construct) =>
    construct.startsWith('<?') ? '<?x?>' : construct,
  );
}

/** A DOCTYPE can define entities, which can redefine `&amp;` and expand without limit. */
function refuseDoctype(text: string): void {
  // One item at a time, so that the search never backtracks.
  const beforeRoot = /\s+|<\?[\s\S]*?\?>|<!--[\s\S]*?-->/y;
  let at = 0;
  while (beforeRoot.test(text)) at = beforeRoot.lastIndex;
  if (/^<!doctype/i.test(text.slice(at, at + 9))) {
    throw new DomainXmlError('<!DOCTYPE …> is not allowed: virsh dumpxml writes none');
  }
}

/** The validator's error, with the fields that its types lack. */
interface ValidatorError extends Error {
  readonly line?: number;
  readonly col?: number;
}

/** A letter of names that looks like a colon: the modifier letter triangular colon. */
const colonLetter = '\u02d0';

/** The text with names that the validator takes: libvirt's may have colons anywhere, and rarer letters. */
function withNamesToValidate(text: string): string {
  return text.replaceAll(':', colonLetter).replace(/[\u{10000}-\u{effff}]/gu, 'xx');
}

/** What the validator says where a line break before an attribute is gone. */
const joinedWords = /^Tag '[^']*='|^Attribute '.*' has no space in starting/;

function validate(text: string): void {
  // The validator is quadratic in blanks before a "=": it takes seconds for 40 KB.
  if (/(?<!\s)\s{100,}=/.test(text)) throw new DomainXmlError('100 or more blanks before a "="');
  // Linux limits a command argument to half of this, so no QEMU option needs more.
  if (/<[^<>!?][^<>]{262144}/.test(text)) throw new DomainXmlError('a tag is longer than 256 KiB');
  try {
    SyntaxValidator.validate(withNamesToValidate(text), validation);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const { line, col }: ValidatorError = error;
    const message = error.message.replaceAll(colonLetter, ':');
    const where = line === undefined ? '' : `line ${line}, column ${col ?? 1}: `;
    const isJoined = !text.includes('\n') && joinedWords.test(message);
    const Refusal = isJoined ? JoinedWordsError : DomainXmlError;
    throw new Refusal(where + message.slice(0, 150));
  }
}

/** The namespaces that are declared where the parser is, by prefix, which may be empty. */
type Scope = Map<string, string>;

const outerScope: ReadonlyMap<string, string> = new Map([
  ['', ''],
  ['xml', 'http://www.w3.org/XML/1998/namespace'],
]);

function toContent(nodes: readonly ParsedNode[], scope: Scope): Pick<Element, 'children' | 'text'> {
  const children: Element[] = [];
  let text = '';
  for (const node of nodes) {
    const name = Object.keys(node).find((key) => key !== ':@') ?? '#text';
    const content = node[name];
    if (name === '#text') text += content;
    else
      children.push(toElement(unmarked(name), attributesOf(node), content as ParsedNode[], scope));
  }
  return { children, text };
}

function unmarked(name: string): string {
  return name.slice(mark.length);
}

function attributesOf({ ':@': attributes = {} }: ParsedNode): Map<string, string> {
  return new Map(Object.entries(attributes).map(([name, value]) => [unmarked(name), value]));
}

function toElement(
  name: string,
  attributes: ReadonlyMap<string, string>,
  nodes: readonly ParsedNode[],
  scope: Scope,
): Element {
  // Undone behind the element. A scope of its own for each would be slow: an element may declare
  // thousands, and elements that declare some may be deep inside each other.
  const hidden = new Map<string, string | undefined>();
  for (const [attribute, value] of attributes) {
    const declared = /^xmlns(?::|$)(.*)/.exec(attribute)?.[1];
    // libvirt passes over a prefix that stands for nothing.
    if (declared === undefined || (declared !== '' && value === '')) continue;
    hidden.set(declared, scope.get(declared));
    scope.set(declared, value);
  }
  const [, prefix = '', rest = name] = /^([^:]+):(.*)/.exec(name) ?? [];
  const namespace = scope.get(prefix);
  const localName = namespace === undefined ? name : rest;
  const content = toContent(nodes, scope);
  for (const [declared, before] of hidden) {
    if (before === undefined) scope.delete(declared);
    else scope.set(declared, before);
  }
  return { name, localName, namespace: namespace ?? '', attributes, ...content };
}

/** libvirt's own children of this name: those without a namespace. */
export function childrenOf(parent: Element, name: string): Element[] {
  return parent.children.filter((child) => child.localName === name && child.namespace === '');
}

/**
 * The text of the only child of this name. `where` names the parent in the error. Throws
 * DomainXmlError if there is none, or more than one.
 */
export function onlyText(parent: Element, name: string, where: string): string {
  const [element, ...others] = childrenOf(parent, name);
  if (element === undefined) {
    throw new DomainXmlError(`${where} has no <${name}>: libvirt writes one`);
  }
  if (others.length > 0) throw new DomainXmlError(`${where} has more than one <${name}>`);
  if (element.children.length > 0) {
    throw new DomainXmlError(`the <${name}> of ${where} contains another element`);
  }
  return element.text;
}
