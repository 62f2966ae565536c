import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type CommandResult, eventually, run } from '../support/processes.js';
import type { Folders, Host } from './host.js';

/** How a guest learns where its metadata is. */
export type Hint = 'aws' | 'nocloud' | 'openstack' | 'none';

/** A virtual machine of the test. */
export interface Guest {
  readonly name: string;
  readonly uuid: string;
  readonly mac: string;
  readonly hint: Hint;
  /** It has no user-data of its own, so it gets the built-in template. */
  readonly builtIn?: true;
}

/** The datasource that cloud-init must find for each hint. */
export const datasources: Record<Exclude<Hint, 'none'>, RegExp> = {
  aws: /^DataSourceEc2/,
  nocloud: /^DataSourceNoCloudNet/,
  openstack: /^DataSourceOpenStack/,
};

/** A guest with a uuid and MAC made from the number. */
export function makeGuest(name: string, number: number, hint: Hint): Guest {
  const digits = number.toString(16).padStart(4, '0');
  return {
    name,
    // cloud-init recognizes EC2 by a uuid that starts with "ec2".
    uuid: `ec2e0000-0000-4000-8000-00000000${digits}`.replace(
      /^ec2/,
      hint === 'aws' ? 'ec2' : 'd0c',
    ),
    mac: `52:54:00:4d:${digits.slice(0, 2)}:${digits.slice(2)}`,
    hint,
  };
}

function systemInformation({ hint, uuid }: Guest): string {
  const entries: Record<Hint, string> = {
    aws: `<entry name='serial'>${uuid}</entry><entry name='uuid'>${uuid}</entry>`,
    nocloud: `<entry name='serial'>ds=nocloud;s=http://169.254.169.254/nocloud/;dsmode=net</entry>`,
    openstack: `<entry name='product'>OpenStack Nova</entry>`,
    none: '',
  };
  if (entries[hint] === '') return '';
  return `<sysinfo type='smbios'><system>${entries[hint]}</system></sysinfo>`;
}

/** The interface of a guest; `filter` is the XML of a libvirt network filter. */
export function interfaceXml({ mac }: Guest, filter = ''): string {
  return `<interface type='network'>
      <mac address='${mac}'/>
      <source network='mds'/>
      <model type='virtio'/>
      ${filter}
    </interface>`;
}

/** The domain of a guest that boots from the image. */
export function guestXml(folders: Folders, guest: Guest): string {
  const smbios = guest.hint === 'none' ? '' : `<smbios mode='sysinfo'/>`;
  return `<domain type='qemu'>
  <name>${guest.name}</name>
  <uuid>${guest.uuid}</uuid>
  <memory unit='MiB'>768</memory>
  <vcpu>1</vcpu>
  ${systemInformation(guest)}
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>${folders.image}/kernel</kernel>
    <initrd>${folders.image}/initrd</initrd>
    <cmdline>root=/dev/vda ro console=ttyS0 mitigations=off</cmdline>
    ${smbios}
  </os>
  <features><acpi/></features>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='unsafe'/>
      <source file='${disk(folders, guest)}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    ${interfaceXml(guest)}
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <serial type='file'><source path='${consoleFile(folders, guest)}'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
`;
}

/** The interface of a guest on the bridge, without libvirt's network. */
export function bridgeInterfaceXml({ mac }: Guest): string {
  return `<interface type='bridge'><mac address='${mac}'/><source bridge='br-mds'/></interface>`;
}

/**
 * A domain without a disk, which is enough for libvirt, the hook and mdserver. `devices` is the XML of
 * its interfaces, `more` is XML below `<domain>`.
 */
export function tinyDomainXml(
  guest: Guest,
  { devices = interfaceXml(guest), more = '' } = {},
): string {
  const { name, uuid } = guest;
  return `<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>${name}</name>
  <uuid>${uuid}</uuid>
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    ${devices}
    <memballoon model='none'/>
  </devices>
  ${more}
</domain>
`;
}

export function disk({ space }: Folders, { name }: Guest): string {
  return join(space, `${name}.qcow2`);
}

export function consoleFile({ space }: Folders, { name }: Guest): string {
  return join(space, `${name}.console`);
}

/** Creates the guest's disk and defines its domain. */
export async function defineGuest(host: Host, folders: Folders, guest: Guest): Promise<void> {
  const backing = ['-b', join(folders.image, 'disk.qcow2'), '-F', 'qcow2'];
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, disk(folders, guest)]);
  await define(host, guestXml(folders, guest));
}

export async function define(host: Host, xml: string): Promise<void> {
  await withXml(host, xml, (file) => host.virsh('define', file));
}

/** Changes the interface of the running guest. */
export async function updateInterface(host: Host, guest: Guest, filter: string): Promise<void> {
  await withXml(host, interfaceXml(guest, filter), (file) =>
    host.virsh('update-device', '--live', guest.name, file),
  );
}

/** Runs an action of virsh that takes a file. */
export async function withXml(
  host: Host,
  xml: string,
  action: (file: string) => Promise<unknown>,
): Promise<void> {
  const file = join(host.space, 'given-to-virsh.xml');
  writeFileSync(file, xml);
  await action(file);
}

/** Waits until the guest's console shows that it has booted. */
export async function waitForBoot(folders: Folders, guest: Guest, limit = 480_000): Promise<void> {
  const last = guest.hint === 'none' ? /login: / : /Cloud-init v\. \S+ finished at/;
  await eventually(`${guest.name} has booted (${consoleFile(folders, guest)})`, limit, () => {
    const file = consoleFile(folders, guest);
    return (existsSync(file) && last.test(readFileSync(file, 'latin1'))) || undefined;
  });
}

/** A login: the user that cloud-init creates, or the image's root. */
export interface Login {
  readonly user: 'debian' | 'root';
  readonly key: string;
}

/** Runs a shell script in a guest, over ssh from the host. */
export function shell(
  host: Host,
  address: string,
  { user, key }: Login,
  script: string,
): Promise<CommandResult> {
  const options = ['BatchMode=yes', 'StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null']
    .concat(['LogLevel=ERROR', 'ConnectTimeout=30', 'IdentitiesOnly=yes'])
    .flatMap((option) => ['-o', option]);
  // Without root's and the host's ssh configuration: only these options count.
  const to = ['-F', 'none', ...options, '-i', key, `${user}@${address}`];
  return host.attempt('ssh', [...to, user === 'root' ? 'sh -s' : 'sudo sh -s'], { input: script });
}

/** A guest's answers, by the name of the question. */
export type Answers = Record<string, string>;

/** Asks a guest several questions (shell commands) at once. Throws if it cannot be reached. */
export async function ask(
  host: Host,
  address: string,
  login: Login,
  questions: Record<string, string>,
): Promise<Answers> {
  const mark = '=+=';
  const script = Object.entries(questions)
    .map(([name, command]) => `printf '${mark}%s\\n' ${name}; { ${command}\n} 2>&1`)
    .join('\n');
  // On a slow guest, sshd accepts logins a little later than cloud-init's last message.
  const output = await eventually(`ssh ${login.user}@${address}`, 60_000, async () => {
    const { status, stdout, stderr } = await shell(host, address, login, `${script}\nexit 0`);
    if (status === 0) return stdout;
    if (/Permission denied/.test(stderr)) throw new Error(stderr.trim());
    return undefined;
  });
  const answers = output.split(mark).slice(1);
  return Object.fromEntries(
    answers.map((answer) => {
      const end = answer.indexOf('\n');
      return [answer.slice(0, end), answer.slice(end + 1).trimEnd()];
    }),
  );
}

/** How long each stage of cloud-init searched for the datasource, according to its log. */
export function datasourceTimes(log: string): string {
  const begun = new Map<string, number>();
  const times: string[] = [];
  const lines = log.matchAll(
    /^(\S+ \S+),(\d{3}) - handlers\.py\[DEBUG\]: (start|finish): (\S+\/search-\S+): (.*)$/gm,
  );
  for (const [, second = '', milliseconds = '', event, name = '', text = ''] of lines) {
    const time = Date.parse(`${second.replace(' ', 'T')}.${milliseconds}Z`);
    if (event === 'start') begun.set(name, time);
    else {
      const found = /no (local|network) data/.test(text) ? ' (nothing)' : '';
      times.push(`${name} ${((time - (begun.get(name) ?? time)) / 1000).toFixed(1)} s${found}`);
    }
  }
  return times.join(', ');
}

/**
 * netplan's warning in every guest that finds its datasource over the network: the file written by
 * Debian's cloud-init is world-readable, and there is no Open vSwitch.
 */
const netplanApply = /activators\.py\[WARNING\]: Running \['netplan', 'apply'\] resulted in stderr/;

/** The warnings and errors in cloud-init.log, one line each. */
export function complaints(log: string): string[] {
  const messages = log.split(/\n(?=\d{4}-\d\d-\d\d )/);
  return messages
    .filter((message) => /\[(DEPRECATED|WARNING|ERROR|CRITICAL)\]/.test(message))
    .filter((message) => !netplanApply.test(message))
    .map((message) => message.trim().replaceAll('\n', ' | '));
}
