import type { BootRecord } from '../../src/control/api.js';
import type { Domain } from '../../src/instances/domain-xml.js';
import type { Uuid } from '../../src/instances/uuid.js';
import type { Mac } from '../../src/network.js';

/** A domain as libvirt has it; the number is in its MAC and uuid. */
export function domainXml(
  number: number,
  { name = `vm${number}`, network = 'mds' }: { name?: string; network?: string } = {},
): string {
  const digits = number.toString(16).padStart(6, '0');
  const mac = `52:54:00:${digits.match(/../g)?.join(':')}`;
  return `<domain><name>${name}</name><uuid>8f1b3b52-6a0e-4c57-9d0c-3f3c2b${digits}</uuid>
<devices><interface type='network'><mac address='${mac}'/><source network='${network}'/></interface></devices>
</domain>`;
}

/** What is read of a domain's XML; the number is in its name, uuid and MAC. */
export function domain(number: number, changes: Partial<Domain> = {}): Domain {
  const digits = String(number).padStart(2, '0');
  return {
    name: `vm${number}`,
    uuid: `00000000-0000-0000-0000-0000000000${digits}` as Uuid,
    mac: `52:54:00:00:00:${digits}` as Mac,
    metadata: {},
    vcpus: undefined,
    memoryKib: undefined,
    architecture: undefined,
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

interface Settings {
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
