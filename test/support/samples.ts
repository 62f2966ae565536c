import type { BootRecord } from '../../src/control/api.js';
import type { Domain } from '../../src/instances/domain.js';
import type { Uuid } from '../../src/instances/uuid.js';
import type { Mac } from '../../src/network.js';

/** A MAC address that ends in the number. */
export function mac(number: number): Mac {
  const digits = number.toString(16).padStart(6, '0').match(/../g) ?? [];
  return ['52:54:00', ...digits].join(':') as Mac;
}

/** A uuid that ends in the number, in decimal. */
export function uuid(number: number): Uuid {
  return `00000000-0000-4000-8000-${String(number).padStart(12, '0')}` as Uuid;
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}

interface DomainSettings {
  readonly name?: string;
  readonly uuid?: string;
  readonly mac?: string;
  /** The libvirt network of its interface. */
  readonly network?: string;
  /** What the domain has for mdserver in its `<metadata>`: texts by the names of their elements. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** The XML of a domain as libvirt has it: `vmN` with the number in its MAC address and uuid. */
export function domainXml(number: number, settings: DomainSettings = {}): string {
  const { name = `vm${number}`, network = 'mds', metadata = {} } = settings;
  const elements = Object.entries(metadata).map(
    ([tag, text]) =>
      `<m:${tag} xmlns:m='urn:md_server:domain_metadata'>${escaped(text)}</m:${tag}>`,
  );
  return `<domain type='kvm'>
  <name>${escaped(name)}</name>
  <uuid>${settings.uuid ?? uuid(number)}</uuid>
  <metadata>${elements.join('')}</metadata>
  <memory unit='MiB'>1024</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64'>hvm</type></os>
  <devices>
    <interface type='network'>
      <mac address='${settings.mac ?? mac(number)}'/><source network='${network}'/>
    </interface>
  </devices>
</domain>
`;
}

/** What is read of a domain's XML: `vmN` with the number in its MAC address and uuid. */
export function domain(number: number, changes: Partial<Domain> = {}): Domain {
  return {
    name: `vm${number}`,
    uuid: uuid(number),
    mac: mac(number),
    metadata: {},
    vcpus: undefined,
    memoryKib: undefined,
    architecture: undefined,
    smbios: undefined,
    ...changes,
  };
}

/** An instance in the database: `vmN` with the number in its MAC address and uuid. */
export function databaseRecord<Changes extends { readonly mds_ipv4: string }>(
  number: number,
  changes: Changes,
) {
  return {
    domain_name: `vm${number}`,
    domain_uuid: uuid(number) as string,
    domain_metadata: {},
    mds_mac: mac(number) as string,
    ...changes,
  };
}

/** The boot that a hook's `prepare` begins, before anything was seen of its guest. */
export const blankBoot: BootRecord = {
  started: 0,
  by: 'prepare',
  ended: null,
  outcome: 'started',
  requests: 0,
  first_request: null,
  last_request: null,
  errors: [],
  user_agents: [],
  kinds: [],
  tokens: { given: 0, used: 0, refused: 0 },
  userdata: null,
  dhcp: [],
  phone_home: null,
};

/** Lines of a configuration beside those that every test has. */
export interface Settings {
  /** More lines of `[mdserver]`. */
  readonly mdserver?: string;
  /** More lines of `[dnsmasq]`. */
  readonly dnsmasq?: string;
  /** Sections behind the others. */
  readonly sections?: string;
  readonly logfile?: string;
}

function configuration(
  folder: string,
  { mdserver = '', dnsmasq = '', sections = '', logfile = `${folder}/mdserver.log` }: Settings,
): string {
  return `
[mdserver]
${mdserver}
logfile = ${logfile}
db_file = ${folder}/db.json
userdata_dir = ${folder}/userdata
[dnsmasq]
${dnsmasq}
base_dir = ${folder}/dnsmasq
run_dir = ${folder}/run
${sections}
`;
}

/**
 * A configuration for startDaemon: on loopback, with the /16 of the address as its network (of a
 * shorter reach where `prefix` says so), and all of its state in the folder.
 */
export function loopbackConfiguration(
  address: string,
  folder: string,
  { prefix = 16, ...settings }: Settings & { readonly prefix?: number } = {},
): string {
  return configuration(folder, {
    ...settings,
    mdserver: `listen_address = ${address}
port = {port}
${settings.mdserver ?? ''}`,
    dnsmasq: `interface = lo
listen_address = ${address}
net_address = ${address.replace(/\.\d+\.\d+$/, '.0.0')}
net_prefix = ${prefix}
gateway = ${address}
${settings.dnsmasq ?? ''}`,
  });
}

/**
 * A configuration for startDaemon in the namespace of a host: on 169.254.169.254, with br-mds and
 * 10.122.0.0/16 as the defaults have them, and all of its state in the folder.
 */
export function hostConfiguration(folder: string, settings: Settings = {}): string {
  return configuration(folder, { ...settings, mdserver: `port = 80\n${settings.mdserver ?? ''}` });
}
