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

interface Settings {
  /** More lines of `[mdserver]`. */
  readonly mdserver?: string;
  /** Sections behind the others. */
  readonly sections?: string;
  readonly prefix?: number;
  readonly logfile?: string;
}

/**
 * A configuration for startDaemon: on loopback, with the /16 of the address as its network (of a
 * shorter reach where `prefix` says so), and all of its state in the folder.
 */
export function loopbackConfiguration(
  address: string,
  folder: string,
  { mdserver = '', sections = '', prefix = 16, logfile = `${folder}/mdserver.log` }: Settings = {},
): string {
  return `
[mdserver]
listen_address = ${address}
port = {port}
logfile = ${logfile}
db_file = ${folder}/db.json
userdata_dir = ${folder}/userdata
${mdserver}
[dnsmasq]
base_dir = ${folder}/dnsmasq
run_dir = ${folder}/run
interface = lo
listen_address = ${address}
net_address = ${address.replace(/\.\d+\.\d+$/, '.0.0')}
net_prefix = ${prefix}
gateway = ${address}
${sections}
`;
}
