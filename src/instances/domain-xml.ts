import type { Config } from '../config/options.js';
import { type Mac, parseMac } from '../network.js';
import { deceptiveCharacters, quoted, truncate } from '../text.js';
import { type Domain, DomainXmlError, NoInterfaceError, type Port } from './domain.js';
import { maxMetadataBytes, metadataBytes } from './instance.js';
import { childrenOf, type Element, onlyText, parseRoot } from './libvirt-xml.js';
import { parseUuid, type Uuid } from './uuid.js';

/** The libvirt network whose interfaces count, and its bridge. */
export type Network = Pick<Config['dnsmasq'], 'net_name' | 'interface'>;

/** The namespace of mdserver's metadata, whatever the prefix. */
const metadataNamespace = 'urn:md_server:domain_metadata';

/** The root element of a document in UTF-8, which must have that name. */
function rootOf(body: Buffer | string, name: string): Element {
  const root = parseRoot(body);
  if (root.localName === name && root.namespace === '') return root;
  throw new DomainXmlError(
    root.namespace === ''
      ? `the root element is <${truncate(root.name)}>, not <${name}>`
      : `the root element is <${truncate(root.name)}> in the namespace ${quoted(root.namespace)}: libvirt's <${name}> has no namespace`,
  );
}

/** Parses a libvirt domain XML (`virsh dumpxml`) in UTF-8. Throws DomainXmlError. */
export function parseDomain(body: Buffer | string, network: Network): Domain {
  const domain = rootOf(body, 'domain');
  const name = readName(domain, 'the domain');
  const uuid = readUuid(domain, 'the domain');
  const metadata = readMetadata(domain);
  const vcpus = readVcpus(domain);
  const memoryKib = readMemory(domain);
  const architecture = readArchitecture(domain);
  const found = findInterface(domain, network);
  if (found === undefined) {
    throw new NoInterfaceError(
      uuid,
      `the domain ${quoted(name)} has no interface on the network ${quoted(network.net_name)} or the bridge ${quoted(network.interface)}`,
    );
  }
  const mac = readMac(
    found,
    `the interface of ${quoted(name)} on the network ${quoted(network.net_name)}`,
  );
  return { name, uuid, mac, metadata, vcpus, memoryKib, architecture };
}

/**
 * Parses what libvirt gives its network hook when it makes a port (libvirt.org/hooks.html): an
 * interface of a domain on a network. Throws DomainXmlError.
 */
export function parsePort(body: Buffer | string, { net_name }: Network): Port {
  const data = rootOf(body, 'hookData');
  const [port] = childrenOf(data, 'networkport');
  if (port === undefined) throw new DomainXmlError('there is no <networkport>');
  const [owner] = childrenOf(port, 'owner');
  if (owner === undefined) throw new DomainXmlError('the port has no <owner>');
  const name = readName(owner, "the port's owner");
  const uuid = readUuid(owner, "the port's owner");
  const networks = childrenOf(data, 'network').flatMap((network) => childrenOf(network, 'name'));
  if (!networks.some(({ text }) => text === net_name)) {
    throw new NoInterfaceError(
      uuid,
      `the port of ${quoted(name)} is not on the network ${quoted(net_name)}`,
    );
  }
  return { name, uuid, mac: readMac(port, `the port of ${quoted(name)}`) };
}

/** Not trimmed: libvirt takes blanks at the ends of a name, and the hook reports such a name later. */
function readName(parent: Element, where: string): string {
  const name = onlyText(parent, 'name', where);
  if (name === '') throw new DomainXmlError(`the <name> of ${where} is empty`);
  const told = `the <name> of ${where} is ${quoted(name)}`;
  if (name === '.' || name === '..' || name.includes('/')) {
    throw new DomainXmlError(`${told}: "/", "." and ".." are not allowed`);
  }
  if (deceptiveCharacters.test(name)) {
    throw new DomainXmlError(
      `${told}: line ends and control, bidirectional and invisible characters are not allowed: rename it (virsh domrename)`,
    );
  }
  if (Buffer.byteLength(name) > 255) {
    throw new DomainXmlError(`the <name> of ${where} is longer than 255 bytes`);
  }
  return name;
}

/** The `<uuid>` of an element. `where` names it in the error. */
function readUuid(parent: Element, where: string): Uuid {
  const text = onlyText(parent, 'uuid', where).trim();
  const uuid = parseUuid(text);
  if (uuid !== undefined) return uuid;
  throw new DomainXmlError(`the <uuid> of ${where} is ${quoted(text)}, which is not a UUID`);
}

/** The first interface on the network, else the first that names its bridge instead of a network. */
function findInterface(domain: Element, network: Network): Element | undefined {
  const interfaces = childrenOf(domain, 'devices').flatMap((devices) =>
    childrenOf(devices, 'interface'),
  );
  // Not by type: for a running domain, libvirt shows one on a bridged network as type='bridge'.
  const first = (isOurs: (source: Element['attributes']) => boolean) =>
    interfaces.find((item) =>
      childrenOf(item, 'source').some(({ attributes }) => isOurs(attributes)),
    );
  return (
    first((source) => source.get('network') === network.net_name) ??
    // With a network, the bridge is what libvirt adds while the domain runs, and only then.
    first((source) => source.get('bridge') === network.interface && !source.has('network'))
  );
}

/** The MAC address of an interface or a port. `where` names it in the error. */
function readMac(parent: Element, where: string): Mac {
  const address = childrenOf(parent, 'mac')[0]?.attributes.get('address');
  if (address === undefined) {
    throw new DomainXmlError(`${where} has no <mac address=…>: libvirt writes one`);
  }
  const mac = parseMac(address);
  if (mac === undefined) {
    throw new DomainXmlError(`${where} has an invalid MAC address: ${quoted(address)}`);
  }
  if ((Number.parseInt(mac.slice(0, 2), 16) & 1) === 1) {
    throw new DomainXmlError(`${where} has a multicast MAC address: ${quoted(address)}`);
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
    throw new DomainXmlError(
      `the domain's metadata for mdserver has ${bytes} bytes, names and values together: at most ${maxMetadataBytes} are allowed`,
    );
  }
  return metadata;
}

function readVcpus(domain: Element): number | undefined {
  const text = childrenOf(domain, 'vcpu')[0]?.text.trim();
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,8}$/.test(text))
    throw new DomainXmlError(`the domain's <vcpu> is ${quoted(text)}, which is not a count`);
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
    throw new DomainXmlError(
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
    throw new DomainXmlError(
      `the domain's <type arch=…> is ${quoted(architecture)}, which is not an architecture`,
    );
  }
  return architecture;
}
