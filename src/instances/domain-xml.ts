import { XMLParser } from 'fast-xml-parser';
import { SyntaxValidator, type validationOptions } from 'fast-xml-validator';
import { type Mac, parseMac } from '../network.js';
import { escapeControls, quoted, truncate } from '../text.js';
import { parseUuid, type Uuid } from './uuid.js';

/** What mdserver reads from a libvirt domain (libvirt.org/formatdomain.html), all of it checked. */
export interface Domain {
  /** Fit for a file name: no "/", no control characters, at most 255 bytes, neither "." nor "..". */
  readonly name: string;
  readonly uuid: Uuid;
  /** Of the first interface on the network. */
  readonly mac: Mac;
  /** By local name, without white space at the ends; of two with the same name the first counts. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The maximum, as `<vcpu>` has it. */
  readonly vcpus: number | undefined;
  /** The maximum in KiB, rounded up, as `<memory>` has it. */
  readonly memoryKib: number | undefined;
  /** In libvirt's words: `x86_64`, `aarch64`. */
  readonly architecture: string | undefined;
}

/**
 * Why a domain XML was refused, in one line: `DOMAIN_XML` for what is not one well-formed, valid
 * domain, `NO_INTERFACE` for a domain that has nothing to do with the network.
 */
export class DomainXmlError extends Error {
  override readonly name = 'DomainXmlError';
  readonly code: 'DOMAIN_XML' | 'NO_INTERFACE';

  constructor(code: DomainXmlError['code'], message: string) {
    super(truncate(escapeControls(message), 300));
    this.code = code;
  }
}

function bad(message: string): DomainXmlError {
  return new DomainXmlError('DOMAIN_XML', message);
}

/** Metadata of this namespace is ours, whatever its prefix. */
const metadataNamespace = 'urn:md_server:domain_metadata';
/** Names that would reach into the prototype of an object that has them as keys. */
const refusedNames = ['__proto__', 'constructor', 'prototype'];

/**
 * The domain of a libvirt domain XML (`virsh dumpxml`) in UTF-8, with the MAC address it has on
 * the libvirt network of that name. Throws DomainXmlError.
 */
export function parseDomain(body: Buffer | string, network: string): Domain {
  const domain = parseRoot(readText(body));
  if (domain.localName !== 'domain' || domain.namespace !== '') {
    throw bad(
      domain.namespace === ''
        ? `the root element is <${truncate(domain.name)}>, not <domain>`
        : `the root element is <${truncate(domain.name)}> of the namespace ${quoted(domain.namespace)}: libvirt's <domain> is in none`,
    );
  }
  const name = domainName(domain);
  const uuidText = onlyText(domain, 'uuid');
  const uuid = parseUuid(uuidText);
  if (uuid === undefined) throw bad(`<uuid> of the domain is ${quoted(uuidText)}: that is no UUID`);
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
  /** As written, with the prefix. */
  readonly name: string;
  readonly localName: string;
  /** Empty for none. */
  readonly namespace: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: readonly Element[];
  /** Its own text, that of its children left out, without white space at the ends. */
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
  // Names that Object.prototype has (`toString`) would be changed otherwise.
  onDangerousProperty: (name) => name,
  transformTagName: (name) => {
    const localName = name.slice(name.indexOf(':') + 1).replace(/\/$/, '');
    if (refusedNames.includes(localName))
      throw bad(`an element may not be called <${truncate(name)}>`);
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

/** The text with XML's own entities and the character references replaced: each by one character. */
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
        throw bad(
          all === '&'
            ? 'a "&" that begins no reference: write &amp; for it'
            : `${quoted(all)} is neither a character nor one of ${[...predefined.keys()].join(' ')}`,
        );
      }
      return character;
    },
  );
}

/** The character with that code if a document may hold it (XML 1.0 2.2), or undefined. */
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

/** The document as text, without its XML declaration. */
function readText(body: Buffer | string): string {
  let text: string;
  try {
    // This leaves a byte-order mark out.
    text = new TextDecoder('utf-8', { fatal: true }).decode(
      typeof body === 'string' ? Buffer.from(body) : body,
    );
  } catch {
    throw bad('the body is not UTF-8 text');
  }
  const start = text.trimStart().slice(0, 40);
  if (start === '') throw bad('empty body: curl needs -d @FILE or --data-binary @FILE');
  if (!start.startsWith('<')) {
    throw bad(
      `the body is not XML, it starts with ${quoted(start)}: curl needs -d @FILE or --data-binary @FILE`,
    );
  }
  return text.replace(/^<\?xml\s[^?]*\?>/, (declaration) => {
    const encoding = /\sencoding\s*=\s*["']([^"']*)["']/.exec(declaration)?.[1] ?? 'utf-8';
    if (!/^(utf-?8|us-ascii|ascii)$/i.test(encoding)) {
      throw bad(`line 1: the encoding is declared as ${quoted(encoding)}: only UTF-8 is read`);
    }
    // Blanks keep the columns of what follows right: the validator counts from behind it.
    return declaration.replace(/[^\r\n]/g, ' ');
  });
}

/** The root element of the one well-formed document that the text has to be. */
function parseRoot(text: string): Element {
  refuseDoctype(text);
  validate(text);
  let nodes: ParsedNode[];
  try {
    // It hands text out when the next markup begins: the mark shows it text after the root too.
    nodes = parser.parse(`${text}<?end?>`);
  } catch (error) {
    if (error instanceof DomainXmlError || !(error instanceof Error)) throw error;
    throw bad(error.message);
  }
  const { children, text: stray } = toContent(nodes, outerScope);
  const [root] = children;
  if (root === undefined || stray !== '') throw bad('there may be no text around the root element');
  return root;
}

/** A DOCTYPE defines entities, which can make `&amp;` anything and grow without end. */
function refuseDoctype(text: string): void {
  // One item at a time, so that a search never goes back over what it has seen.
  const beforeRoot = /\s+|<\?[\s\S]*?\?>|<!--[\s\S]*?-->/y;
  let at = 0;
  while (beforeRoot.test(text)) at = beforeRoot.lastIndex;
  if (/^<!doctype/i.test(text.slice(at, at + 9))) {
    throw bad('a <!DOCTYPE …> is refused: virsh dumpxml writes none');
  }
}

/** What the validator throws; its types leave the fields out. */
interface ValidatorError extends Error {
  readonly code?: string;
  readonly line?: number;
  readonly col?: number;
}

function validate(text: string): void {
  // The validator goes over blanks that an "=" follows again and again: 40 KB take it seconds.
  if (/(?<!\s)\s{100,}=/.test(text)) throw bad('100 blanks or more before a "="');
  // Longer than what Linux takes as an argument of a command, so no qemu option needs it.
  if (/<[^<>!?][^<>]{262144}/.test(text)) throw bad('a tag of more than 256 KiB');
  try {
    SyntaxValidator.validate(text, validation);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const { code, line, col, message }: ValidatorError = error;
    const where = line === undefined ? '' : `line ${line}, column ${col ?? 1}: `;
    const glued = /^Invalid(Tag|Attr)$/.test(code ?? '') && !text.trimEnd().includes('\n');
    const hint = glued
      ? ' (curl -d takes newlines out and so joins words: --data-binary keeps them)'
      : '';
    throw bad(`${where}${message.slice(0, 150)}${hint}`);
  }
}

/** The namespace of a prefix, of the empty one too, or undefined for one that is not declared. */
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
  return { children, text: text.trim() };
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
  // Chained, not copied: a copy for each element would be slow where one declares thousands.
  const scope: Scope =
    declared.size === 0 ? outer : (prefix) => declared.get(prefix) ?? outer(prefix);
  const colon = name.indexOf(':');
  const prefix = name.slice(0, Math.max(colon, 0));
  const namespace = scope(prefix);
  if (namespace === undefined) {
    throw bad(
      `the prefix of <${truncate(name)}> is not declared: xmlns:${truncate(prefix)}=… is missing`,
    );
  }
  const localName = name.slice(colon + 1);
  return { name, localName, namespace, attributes: new Map(entries), ...toContent(nodes, scope) };
}

// ---- from elements to values ----

/** The children with that name that are libvirt's own: those are in no namespace. */
function childrenOf(parent: Element, name: string): Element[] {
  return parent.children.filter((child) => child.localName === name && child.namespace === '');
}

/** The text of the one child with that name. */
function onlyText(domain: Element, name: string): string {
  const [element, ...others] = childrenOf(domain, name);
  if (element === undefined) throw bad(`the domain has no <${name}>: virsh dumpxml writes one`);
  if (others.length > 0) throw bad(`the domain has more than one <${name}>`);
  if (element.children.length > 0) throw bad(`<${name}> of the domain holds another element`);
  return element.text;
}

/** Files are looked up under the name, so what cannot be a file's name is refused. */
function domainName(domain: Element): string {
  const name = onlyText(domain, 'name');
  if (name === '') throw bad('<name> of the domain is empty');
  if (name === '.' || name === '..' || /[/\p{Cc}]/u.test(name)) {
    throw bad(
      `<name> of the domain is ${quoted(name)}: "/", control characters, "." and ".." are refused`,
    );
  }
  if (Buffer.byteLength(name) > 255) throw bad('<name> of the domain is longer than 255 bytes');
  return name;
}

function findMac(domain: Element, name: string, network: string): Mac {
  const found = childrenOf(domain, 'devices')
    .flatMap((devices) => childrenOf(devices, 'interface'))
    .find((item) =>
      // Not by the type: libvirt shows one on a bridged network as type='bridge' once it runs.
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
    throw bad(`${where} has no <mac address=…>: virsh dumpxml writes one`);
  }
  const mac = parseMac(address);
  if (mac === undefined) throw bad(`${where} has the MAC address ${quoted(address)}: that is none`);
  if ((Number.parseInt(mac.slice(0, 2), 16) & 1) === 1) {
    throw bad(`${where} has the MAC address ${quoted(address)}: that is a multicast one`);
  }
  return mac;
}

function isMetadata(element: Element): boolean {
  return element.namespace === metadataNamespace;
}

/**
 * libvirt keeps one element of a namespace in `<metadata>`, the first, and drops the others when
 * the domain is defined. So an element that holds elements of its own is not a value: they are.
 */
function readMetadata(domain: Element): Record<string, string> {
  const values = new Map<string, string>();
  for (const outer of childrenOf(domain, 'metadata').flatMap((metadata) => metadata.children)) {
    if (!isMetadata(outer)) continue;
    const inner = outer.children.filter(isMetadata);
    for (const { localName, text } of inner.length === 0 ? [outer] : inner) {
      if (!values.has(localName)) values.set(localName, text);
    }
  }
  return Object.fromEntries(values);
}

function readVcpus(domain: Element): number | undefined {
  const text = childrenOf(domain, 'vcpu')[0]?.text;
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,8}$/.test(text))
    throw bad(`<vcpu> of the domain is ${quoted(text)}: that is no count`);
  return Number(text);
}

/** Bytes of a unit in libvirt's words, in lower case: `k` and `kib` are 1024 of them, `kb` 1000. */
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
  const bytes = /^\d{1,15}$/.test(memory.text)
    ? Number(memory.text) * (unitBytes(unit.toLowerCase()) ?? Number.NaN)
    : Number.NaN;
  if (!Number.isSafeInteger(bytes)) {
    throw bad(
      `<memory> of the domain is ${quoted(memory.text)}, unit ${quoted(unit)}: that is no size`,
    );
  }
  return Math.ceil(bytes / 1024);
}

function readArchitecture(domain: Element): string | undefined {
  const architecture = childrenOf(domain, 'os')
    .flatMap((os) => childrenOf(os, 'type'))[0]
    ?.attributes.get('arch');
  if (architecture !== undefined && !/^\w{1,32}$/.test(architecture)) {
    throw bad(`<type arch=…> of the domain is ${quoted(architecture)}: that is no architecture`);
  }
  return architecture;
}
