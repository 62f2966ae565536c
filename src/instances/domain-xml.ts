import { XMLParser } from 'fast-xml-parser';
import { SyntaxValidator, type validationOptions } from 'fast-xml-validator';
import { type Mac, parseMac } from '../network.js';
import { deceptiveCharacters, quoted, truncate } from '../text.js';
import { type Domain, DomainXmlError } from './domain.js';
import { maxMetadataBytes, metadataBytes } from './instance.js';
import { parseUuid } from './uuid.js';

function invalid(message: string): DomainXmlError {
  return new DomainXmlError('DOMAIN_XML', message);
}

/** The namespace of mdserver's metadata, whatever the prefix. */
const metadataNamespace = 'urn:md_server:domain_metadata';
/** As keys of an object, these names would reach its prototype. */
const refusedNames = ['__proto__', 'constructor', 'prototype'];

/**
 * Parses a libvirt domain XML (`virsh dumpxml`) in UTF-8. `network` is the name of the libvirt network
 * whose interface gives the MAC address. Throws DomainXmlError.
 */
export function parseDomain(body: Buffer | string, network: string): Domain {
  const domain = parseRoot(readText(body));
  if (domain.localName !== 'domain' || domain.namespace !== '') {
    throw invalid(
      domain.namespace === ''
        ? `the root element is <${truncate(domain.name)}>, not <domain>`
        : `the root element is <${truncate(domain.name)}> in the namespace ${quoted(domain.namespace)}: libvirt's <domain> has no namespace`,
    );
  }
  const name = domainName(domain);
  const uuidText = onlyText(domain, 'uuid').trim();
  const uuid = parseUuid(uuidText);
  if (uuid === undefined)
    throw invalid(`the domain's <uuid> is ${quoted(uuidText)}, which is not a UUID`);
  const metadata = readMetadata(domain);
  const vcpus = readVcpus(domain);
  const memoryKib = readMemory(domain);
  const architecture = readArchitecture(domain);
  return {
    name,
    uuid,
    mac: findMac(domain, name, network),
    metadata,
    vcpus,
    memoryKib,
    architecture,
  };
}

// ---- from bytes to elements ----

/** An element with its namespace resolved (Namespaces in XML 1.0). */
interface Element {
  /** The qualified name, with the prefix. */
  readonly name: string;
  readonly localName: string;
  /** Empty if the element has none. */
  readonly namespace: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: readonly Element[];
  /** Its own text, without the text of its children. */
  readonly text: string;
}

/** A node of fast-xml-parser's `preserveOrder` form: `{ name: nodes }` or `{ '#text': text }`. */
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
  attributeNamePrefix: '',
  parseTagValue: false,
  parseAttributeValue: false,
  trimValues: false,
  ignoreDeclaration: true,
  ignorePiTags: true,
  maxNestedTags: 100,
  jPath: false,
  // By default the parser renames elements with names from Object.prototype (`toString`).
  onDangerousProperty: (name) => name,
  transformTagName: (name) => {
    const localName = name.slice(name.indexOf(':') + 1).replace(/\/$/, '');
    if (refusedNames.includes(localName))
      throw invalid(`an element must not be named <${truncate(name)}>`);
    return name;
  },
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
        throw invalid(
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
    throw invalid('the body is not UTF-8 text');
  }
  const start = text.trimStart().slice(0, 40);
  if (start === '') throw invalid('the body is empty: curl needs -d @FILE or --data-binary @FILE');
  if (!start.startsWith('<')) {
    throw invalid(
      `the body is not XML but starts with ${quoted(start)}: curl needs -d @FILE or --data-binary @FILE`,
    );
  }
  return text.replace(/^<\?xml\s[^?]*\?>/, (declaration) => {
    const encoding = /\sencoding\s*=\s*["']([^"']*)["']/.exec(declaration)?.[1] ?? 'utf-8';
    if (!/^(utf-?8|us-ascii|ascii)$/i.test(encoding)) {
      throw invalid(
        `line 1: the declared encoding is ${quoted(encoding)}: only UTF-8 is supported`,
      );
    }
    // Blanks, not nothing: otherwise the validator would report wrong columns.
    return declaration.replace(/[^\r\n]/g, ' ');
  });
}

/** Parses a well-formed document. */
function parseRoot(text: string): Element {
  refuseDoctype(text);
  validate(text);
  let nodes: ParsedNode[];
  try {
    // The parser reports text when the next markup begins: this makes it report trailing text.
    nodes = parser.parse(`${text}<?end?>`);
  } catch (error) {
    if (error instanceof DomainXmlError || !(error instanceof Error)) throw error;
    throw invalid(error.message);
  }
  const { children, text: stray } = toContent(nodes, outerScope);
  const [root] = children;
  if (root === undefined || stray.trim() !== '') throw invalid('text outside the root element');
  return root;
}

/** A DOCTYPE can define entities, which can redefine `&amp;` and expand without limit. */
function refuseDoctype(text: string): void {
  // One item at a time, so that the search never backtracks.
  const beforeRoot = /\s+|<\?[\s\S]*?\?>|<!--[\s\S]*?-->/y;
  let at = 0;
  while (beforeRoot.test(text)) at = beforeRoot.lastIndex;
  if (/^<!doctype/i.test(text.slice(at, at + 9))) {
    throw invalid('<!DOCTYPE …> is not allowed: virsh dumpxml writes none');
  }
}

/** The validator's error, with the fields that its types lack. */
interface ValidatorError extends Error {
  readonly code?: string;
  readonly line?: number;
  readonly col?: number;
}

function validate(text: string): void {
  // The validator is quadratic in blanks before a "=": it takes seconds for 40 KB.
  if (/(?<!\s)\s{100,}=/.test(text)) throw invalid('100 or more blanks before a "="');
  // Linux limits a command argument to half of this, so no QEMU option needs more.
  if (/<[^<>!?][^<>]{262144}/.test(text)) throw invalid('a tag is longer than 256 KiB');
  try {
    SyntaxValidator.validate(text, validation);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const { code, line, col, message }: ValidatorError = error;
    const where = line === undefined ? '' : `line ${line}, column ${col ?? 1}: `;
    const joined = /^Invalid(Tag|Attr)$/.test(code ?? '') && !text.trimEnd().includes('\n');
    const hint = joined
      ? ' (curl -d removes newlines and so joins words; --data-binary keeps them)'
      : '';
    throw invalid(`${where}${message.slice(0, 150)}${hint}`);
  }
}

/** The namespace of a prefix, which may be empty; undefined if the prefix is not declared. */
type Scope = (prefix: string) => string | undefined;

const outerScope: Scope = (prefix) =>
  new Map([
    ['', ''],
    ['xml', 'http://www.w3.org/XML/1998/namespace'],
  ]).get(prefix);

function toContent(nodes: readonly ParsedNode[], scope: Scope): Pick<Element, 'children' | 'text'> {
  const children: Element[] = [];
  let text = '';
  for (const node of nodes) {
    const name = Object.keys(node).find((key) => key !== ':@') ?? '#text';
    const content = node[name];
    if (name === '#text') text += content;
    else children.push(toElement(name, node[':@'] ?? {}, content as ParsedNode[], scope));
  }
  return { children, text };
}

function toElement(
  name: string,
  attributes: Readonly<Record<string, string>>,
  nodes: readonly ParsedNode[],
  outer: Scope,
): Element {
  const entries = Object.entries(attributes);
  const declared = new Map<string, string>();
  for (const [attribute, value] of entries) {
    if (attribute === 'xmlns') declared.set('', value);
    else if (attribute.startsWith('xmlns:')) declared.set(attribute.slice(6), value);
  }
  // Chained, not copied: an element may declare thousands, and copies for its children are slow.
  const scope: Scope =
    declared.size === 0 ? outer : (prefix) => declared.get(prefix) ?? outer(prefix);
  const colon = name.indexOf(':');
  const prefix = name.slice(0, Math.max(colon, 0));
  const namespace = scope(prefix);
  if (namespace === undefined) {
    throw invalid(
      `the prefix of <${truncate(name)}> is not declared: xmlns:${truncate(prefix)}=… is missing`,
    );
  }
  const localName = name.slice(colon + 1);
  return { name, localName, namespace, attributes: new Map(entries), ...toContent(nodes, scope) };
}

// ---- from elements to values ----

/** libvirt's own children of this name: those without a namespace. */
function childrenOf(parent: Element, name: string): Element[] {
  return parent.children.filter((child) => child.localName === name && child.namespace === '');
}

/** The text of the only child of this name. Throws if there is none, or more than one. */
function onlyText(domain: Element, name: string): string {
  const [element, ...others] = childrenOf(domain, name);
  if (element === undefined) throw invalid(`the domain has no <${name}>: virsh dumpxml writes one`);
  if (others.length > 0) throw invalid(`the domain has more than one <${name}>`);
  if (element.children.length > 0) throw invalid(`the domain's <${name}> contains another element`);
  return element.text;
}

/** Not trimmed: libvirt takes blanks at the ends of a name, and the hook reports such a name later. */
function domainName(domain: Element): string {
  const name = onlyText(domain, 'name');
  if (name === '') throw invalid("the domain's <name> is empty");
  if (name === '.' || name === '..' || name.includes('/')) {
    throw invalid(`the domain's <name> is ${quoted(name)}: "/", "." and ".." are not allowed`);
  }
  if (deceptiveCharacters.test(name)) {
    throw invalid(
      `the domain's <name> is ${quoted(name)}: line ends and control, bidirectional and invisible characters are not allowed: rename it (virsh domrename)`,
    );
  }
  if (Buffer.byteLength(name) > 255) throw invalid("the domain's <name> is longer than 255 bytes");
  return name;
}

function findMac(domain: Element, name: string, network: string): Mac {
  const found = childrenOf(domain, 'devices')
    .flatMap((devices) => childrenOf(devices, 'interface'))
    .find((item) =>
      // Not by type: for a running domain, libvirt shows one on a bridged network as type='bridge'.
      childrenOf(item, 'source').some((source) => source.attributes.get('network') === network),
    );
  if (found === undefined) {
    throw new DomainXmlError(
      'NO_INTERFACE',
      `the domain ${quoted(name)} has no interface on the network ${quoted(network)}`,
    );
  }
  const where = `the interface of ${quoted(name)} on the network ${quoted(network)}`;
  const address = childrenOf(found, 'mac')[0]?.attributes.get('address');
  if (address === undefined) {
    throw invalid(`${where} has no <mac address=…>: virsh dumpxml writes one`);
  }
  const mac = parseMac(address);
  if (mac === undefined) throw invalid(`${where} has an invalid MAC address: ${quoted(address)}`);
  if ((Number.parseInt(mac.slice(0, 2), 16) & 1) === 1) {
    throw invalid(`${where} has a multicast MAC address: ${quoted(address)}`);
  }
  return mac;
}

function isMetadata(element: Element): boolean {
  return element.namespace === metadataNamespace;
}

/**
 * libvirt keeps only the first element of each namespace in `<metadata>`. So an element in mdserver's
 * namespace that contains others in it is a container, and those have the values.
 */
function readMetadata(domain: Element): Record<string, string> {
  const values = new Map<string, string>();
  for (const outer of childrenOf(domain, 'metadata').flatMap((metadata) => metadata.children)) {
    if (!isMetadata(outer)) continue;
    const inner = outer.children.filter(isMetadata);
    for (const { localName, text } of inner.length === 0 ? [outer] : inner) {
      if (!values.has(localName)) values.set(localName, text.trim());
    }
  }
  const metadata = Object.fromEntries(values);
  const bytes = metadataBytes(metadata);
  if (bytes > maxMetadataBytes) {
    throw invalid(
      `the domain's metadata for mdserver has ${bytes} bytes, names and values together: at most ${maxMetadataBytes} are allowed`,
    );
  }
  return metadata;
}

function readVcpus(domain: Element): number | undefined {
  const text = childrenOf(domain, 'vcpu')[0]?.text.trim();
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,8}$/.test(text))
    throw invalid(`the domain's <vcpu> is ${quoted(text)}, which is not a count`);
  return Number(text);
}

/** The bytes in a libvirt unit, given in lower case: 1024 for `k` and `kib`, 1000 for `kb`. */
function unitBytes(unit: string): number | undefined {
  if (unit === 'b' || unit === 'bytes') return 1;
  const [, letter, rest] = /^([kmgt])(b|ib)?$/.exec(unit) ?? [];
  return letter === undefined
    ? undefined
    : (rest === 'b' ? 1000 : 1024) ** ('kmgt'.indexOf(letter) + 1);
}

function readMemory(domain: Element): number | undefined {
  const memory = childrenOf(domain, 'memory')[0];
  if (memory === undefined) return undefined;
  const unit = memory.attributes.get('unit') ?? 'KiB';
  const size = memory.text.trim();
  const bytes = /^\d{1,15}$/.test(size)
    ? Number(size) * (unitBytes(unit.toLowerCase()) ?? Number.NaN)
    : Number.NaN;
  if (!Number.isSafeInteger(bytes)) {
    throw invalid(
      `the domain's <memory> is ${quoted(size)}, unit ${quoted(unit)}, which is not a size`,
    );
  }
  return Math.ceil(bytes / 1024);
}

function readArchitecture(domain: Element): string | undefined {
  const architecture = childrenOf(domain, 'os')
    .flatMap((os) => childrenOf(os, 'type'))[0]
    ?.attributes.get('arch');
  if (architecture !== undefined && !/^\w{1,32}$/.test(architecture)) {
    throw invalid(
      `the domain's <type arch=…> is ${quoted(architecture)}, which is not an architecture`,
    );
  }
  return architecture;
}
