import type { Config } from '../config/options.js';
import { type Mac, parseMac } from '../network.js';
import { deceptiveCharacters, quoted, truncate } from '../text.js';
import { type Domain, DomainXmlError, NoInterfaceError, type Port } from './domain.js';
import { maxMetadataBytes, metadataBytes } from './instance.js';
import { childrenOf, type Element, onlyText, parseRoot } from './libvirt-xml.js';
import { maxSmbiosLength, type Smbios, type SmbiosField, smbiosFrom } from './smbios.js';
import { parseUuid, type Uuid } from './uuid.js';

/** The libvirt network whose interfaces count, and its bridge. */
export type Network = Pick<Config['dnsmasq'], 'net_name' | 'interface'>;

/** The namespace of mdserver's metadata, whatever the prefix. The Python server reads its prefix, whatever the namespace. */
const metadataNamespace = 'urn:md_server:domain_metadata';

/** No element of libvirt or of mdserver has these names: as keys of an object, they reach its prototype. */
const refusedNames = ['__proto__', 'constructor', 'prototype'];

/** Refuses these names, but for other applications: what is in an element of theirs is theirs. */
function refuseNames({ children }: Element): void {
  for (const child of children) {
    if (child.namespace !== '' && !isMetadata(child)) continue;
    if (refusedNames.includes(child.localName)) {
      throw new DomainXmlError(
        `an element must not be named <${child.name}>, except in the metadata of other applications`,
      );
    }
    refuseNames(child);
  }
}

/** The root element of a document in UTF-8, which must have that name. */
function rootOf(body: Buffer | string, name: string): Element {
  const root = parseRoot(body);
  if (root.localName === name && root.namespace === '') {
    refuseNames(root);
    return root;
  }
  throw new DomainXmlError(
    root.namespace === ''
      ? `the root element is <${truncate(root.name)}>, not <${name}>`
      : `the root element is <${truncate(root.name)}> in the namespace ${quoted(root.namespace)}: libvirt's <${name}> has no namespace`,
  );
}

/**
 * Parses a libvirt domain XML (`virsh dumpxml`) in UTF-8. What is `madeUp` stands for what libvirt makes
 * itself when it gets an XML without it. Throws DomainXmlError.
 */
export function parseDomain(
  body: Buffer | string,
  network: Network,
  madeUp?: Pick<Domain, 'uuid' | 'mac'>,
): Domain {
  const domain = rootOf(body, 'domain');
  const name = readName(domain, 'the domain');
  const hasUuid = madeUp === undefined || childrenOf(domain, 'uuid').length > 0;
  const uuid = hasUuid ? readUuid(domain, 'the domain') : madeUp.uuid;
  const metadata = readMetadata(domain);
  const vcpus = readVcpus(domain);
  const memoryKib = readMemory(domain);
  const architecture = readArchitecture(domain);
  const smbios = readSmbios(domain);
  const found = findInterface(domain, network);
  if (found === undefined) {
    throw new NoInterfaceError(
      uuid,
      `the domain ${quoted(name)} has no interface on the network ${quoted(network.net_name)} or the bridge ${quoted(network.interface)}`,
    );
  }
  const where = `the interface of ${quoted(name)} on the network ${quoted(network.net_name)}`;
  const hasMac = madeUp === undefined || childrenOf(found, 'mac').length > 0;
  const mac = hasMac ? readMac(found, where) : madeUp.mac;
  return { name, uuid, mac, metadata, vcpus, memoryKib, architecture, smbios };
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
  return element.namespace === metadataNamespace || element.name.startsWith('mdserver:');
}

/**
 * libvirt keeps only the first element of each namespace in `<metadata>`. So an element in mdserver's
 * namespace that contains others is a container, and those have the values: in the namespace, or in
 * none, as `virsh metadata --set '<instance><role>a</role></instance>'` makes them.
 */
function readMetadata(domain: Element): Record<string, string> {
  const values = new Map<string, string>();
  for (const outer of childrenOf(domain, 'metadata').flatMap((metadata) => metadata.children)) {
    refuseUndeclared(outer);
    if (!isMetadata(outer)) continue;
    const inner = outer.children.filter((child) => isMetadata(child) || child.namespace === '');
    for (const item of inner.length === 0 ? [outer] : inner) {
      refuseUndeclared(item);
      if (!values.has(item.localName)) values.set(item.localName, item.text.trim());
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

/** libvirt leaves out such an element of `<metadata>`, so its value would be missing without a word. */
function refuseUndeclared({ name, namespace }: Element): void {
  const prefix = namespace === '' ? /^([^:]+):/.exec(name)?.[1] : undefined;
  if (prefix === undefined) return;
  throw new DomainXmlError(
    `the prefix of <${truncate(name)}> is not declared: xmlns:${truncate(prefix)}=… is missing`,
  );
}

/** What only describes the hardware is left out where it makes no sense: the guest boots without it. */
function readVcpus(domain: Element): number | undefined {
  const digits = /^\s*\+?0*([1-9]\d{0,8})\s*$/.exec(childrenOf(domain, 'vcpu')[0]?.text ?? '')?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** The bytes in a unit of libvirt, whatever its case: 1024 for `k` and `KiB`, 1000 for `KB`. */
function unitBytes(unit: string): bigint | undefined {
  if (/^(b|bytes?)$/i.test(unit)) return 1n;
  const [, letter, rest] = /^([kmgtpe])(b|ib)?$/.exec(unit.toLowerCase()) ?? [];
  return letter === undefined
    ? undefined
    : (rest === 'b' ? 1000n : 1024n) ** BigInt('kmgtpe'.indexOf(letter) + 1);
}

function readMemory(domain: Element): number | undefined {
  const memory = childrenOf(domain, 'memory')[0];
  const size = /^\s*\+?(\d{1,20})\s*$/.exec(memory?.text ?? '')?.[1];
  const unit = unitBytes(memory?.attributes.get('unit') || 'KiB');
  if (size === undefined || unit === undefined) return undefined;
  const kib = Number((BigInt(size) * unit + 1023n) / 1024n);
  return kib > 0 && Number.isSafeInteger(kib) ? kib : undefined;
}

function readArchitecture(domain: Element): string | undefined {
  const architecture = childrenOf(domain, 'os')
    .flatMap((os) => childrenOf(os, 'type'))[0]
    ?.attributes.get('arch');
  return architecture !== undefined && /^\w{1,32}$/.test(architecture) ? architecture : undefined;
}

/** The namespace of arguments that libvirt hands to QEMU as they are. */
const qemuNamespace = 'http://libvirt.org/schemas/domain/qemu/1.0';

/** The fields that libvirt sets with `<sysinfo>`, by block and entry. */
const sysinfoFields: ReadonlyMap<string, SmbiosField> = new Map([
  ['system serial', 'serial'],
  ['system uuid', 'uuid'],
  ['system product', 'product'],
  ['chassis asset', 'asset'],
]);

/** The same by type and name in an argument of QEMU's -smbios. */
const argumentFields: ReadonlyMap<string, SmbiosField> = new Map([
  ['1 serial', 'serial'],
  ['1 uuid', 'uuid'],
  ['1 product', 'product'],
  ['3 asset', 'asset'],
]);

/** What the domain tells its guest of the datasource. Undefined if nobody can see it here. */
function readSmbios(domain: Element): Smbios | undefined {
  const os = childrenOf(domain, 'os');
  const inOs = (name: string) => os.flatMap((element) => childrenOf(element, name));
  const mode = inOs('smbios')[0]?.attributes.get('mode');
  if (mode === 'host' || inOs('type')[0]?.text.trim() !== 'hvm') return undefined;
  const kernel = inOs('cmdline').flatMap(({ text }) =>
    text.split(/\s+/).filter((word) => /^(ds=|ci\.|cc:)/.test(word)),
  );
  const found: [SmbiosField | undefined, string][] = [
    ...(mode === 'sysinfo' ? sysinfoEntries(domain) : []),
    ...smbiosArguments(domain),
    ['kernel', kernel.join(' ')],
  ];
  const values = new Map(
    found
      .map(([field, text]) => [field, text.trim().slice(0, maxSmbiosLength)] as const)
      .filter(([, value]) => value !== ''),
  );
  return smbiosFrom((field) => values.get(field));
}

function* sysinfoEntries(domain: Element): Generator<[SmbiosField | undefined, string]> {
  for (const { children, attributes } of childrenOf(domain, 'sysinfo')) {
    if (attributes.get('type') !== 'smbios') continue;
    for (const block of children) {
      for (const entry of childrenOf(block, 'entry')) {
        yield [sysinfoFields.get(`${block.localName} ${entry.attributes.get('name')}`), entry.text];
      }
    }
  }
}

/** What arguments that libvirt hands to QEMU set: of two for one field, QEMU takes the last. */
function* smbiosArguments(domain: Element): Generator<[SmbiosField | undefined, string]> {
  const values = domain.children
    .filter(
      ({ localName, namespace }) => localName === 'commandline' && namespace === qemuNamespace,
    )
    .flatMap(({ children }) => children.map(({ attributes }) => attributes.get('value') ?? ''));
  for (const [index, value] of values.entries()) {
    if (values[index - 1] !== '-smbios') continue;
    // A comma in a value is written as two. XML has no NUL.
    const options = value
      .replaceAll(',,', '\0')
      .split(',')
      .map((option) => option.replaceAll('\0', ','));
    const type = options.find((option) => option.startsWith('type='))?.slice(5);
    for (const option of options) {
      const [name = '', ...rest] = option.split('=');
      yield [argumentFields.get(`${type} ${name}`), rest.join('=')];
    }
  }
}
