import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Host, Places } from './host.js';
import { type Ended, eventually, run } from './processes.js';

/** How a guest learns where its metadata is. */
export type Hint = 'aws' | 'nocloud' | 'openstack' | 'none';

/** A virtual machine of the test. */
export interface Guest {
  readonly name: string;
  readonly uuid: string;
  readonly mac: string;
  readonly hint: Hint;
}

/** The name that cloud-init gives the datasource it has to find. */
export const datasources: Record<Exclude<Hint, 'none'>, RegExp> = {
  aws: /^DataSourceEc2/,
  nocloud: /^DataSourceNoCloudNet/,
  openstack: /^DataSourceOpenStack/,
};

/** A guest whose uuid and MAC have this number in them. */
export function makeGuest(name: string, number: number, hint: Hint): Guest {
  const digits = number.toString(16).padStart(4, '0');
  return {
    name,
    // EC2's start with "ec2", and that is what cloud-init looks for.
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
    nocloud: `<entry name='serial'>ds=nocloud-net;s=http://169.254.169.254/nocloud/</entry>`,
    openstack: `<entry name='product'>OpenStack Nova</entry>`,
    none: '',
  };
  if (entries[hint] === '') return '';
  return `<sysinfo type='smbios'><system>${entries[hint]}</system></sysinfo>`;
}

/** The interface of a guest, with the libvirt network filter where one is named. */
function interfaceXml({ mac }: Guest, filter = ''): string {
  return `<interface type='network'>
      <mac address='${mac}'/>
      <source network='mds'/>
      <model type='virtio'/>
      ${filter}
    </interface>`;
}

/** The domain of a guest that boots from the image. */
export function domainXml(places: Places, guest: Guest): string {
  const smbios = guest.hint === 'none' ? '' : `<smbios mode='sysinfo'/>`;
  return `<domain type='qemu'>
  <name>${guest.name}</name>
  <uuid>${guest.uuid}</uuid>
  <memory unit='MiB'>768</memory>
  <vcpu>1</vcpu>
  ${systemInformation(guest)}
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>${places.image}/kernel</kernel>
    <initrd>${places.image}/initrd</initrd>
    <cmdline>root=/dev/vda ro console=ttyS0 mitigations=off</cmdline>
    ${smbios}
  </os>
  <features><acpi/></features>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='unsafe'/>
      <source file='${disk(places, guest)}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    ${interfaceXml(guest)}
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <serial type='file'><source path='${consoleFile(places, guest)}'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
`;
}

/** A domain with nothing in it, which is enough for libvirt, the hook and mdserver. */
export function tinyDomainXml({ name, uuid, mac }: Guest): string {
  return `<domain type='qemu'>
  <name>${name}</name>
  <uuid>${uuid}</uuid>
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <interface type='network'><mac address='${mac}'/><source network='mds'/></interface>
    <memballoon model='none'/>
  </devices>
</domain>
`;
}

export function disk({ space }: Places, { name }: Guest): string {
  return join(space, `${name}.qcow2`);
}

export function consoleFile({ space }: Places, { name }: Guest): string {
  return join(space, `${name}.console`);
}

/** Makes the guest's disk and defines its domain. */
export async function defineGuest(host: Host, places: Places, guest: Guest): Promise<void> {
  const backing = ['-b', join(places.image, 'disk.qcow2'), '-F', 'qcow2'];
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, disk(places, guest)]);
  await define(host, domainXml(places, guest));
}

export async function define(host: Host, xml: string): Promise<void> {
  await withXml(host, xml, (file) => host.virsh('define', file));
}

/** Changes the guest's interface while it runs. */
export async function updateInterface(host: Host, guest: Guest, filter: string): Promise<void> {
  await withXml(host, interfaceXml(guest, filter), (file) =>
    host.virsh('update-device', '--live', guest.name, file),
  );
}

async function withXml(
  host: Host,
  xml: string,
  action: (file: string) => Promise<unknown>,
): Promise<void> {
  const file = join(host.space, 'given-to-virsh.xml');
  writeFileSync(file, xml);
  await action(file);
}

/** Waits until the guest has booted, by what it says on its console. */
export async function booted(places: Places, guest: Guest, limit = 480_000): Promise<void> {
  const last = guest.hint === 'none' ? /login: / : /Cloud-init v\. \S+ finished at/;
  await eventually(`${guest.name} has booted (${consoleFile(places, guest)})`, limit, () => {
    const file = consoleFile(places, guest);
    return (existsSync(file) && last.test(readFileSync(file, 'latin1'))) || undefined;
  });
}

/** Who logs in: the user that cloud-init makes, or the image's own root. */
export interface Login {
  readonly user: 'debian' | 'root';
  readonly key: string;
}

/** Runs a shell script in a guest by ssh from the host. */
export function shell(
  host: Host,
  address: string,
  { user, key }: Login,
  script: string,
): Promise<Ended> {
  const options = ['BatchMode=yes', 'StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null']
    .concat(['LogLevel=ERROR', 'ConnectTimeout=30', 'IdentitiesOnly=yes'])
    .flatMap((option) => ['-o', option]);
  // Root's ssh reads root's own configuration and the host's; a test has only these.
  const to = ['-F', 'none', ...options, '-i', key, `${user}@${address}`];
  return host.attempt('ssh', [...to, user === 'root' ? 'sh -s' : 'sudo sh -s'], { input: script });
}

/** What a guest says of itself. */
export type Told = Record<string, string>;

/** Asks a guest several questions (shell commands) at once. Throws when it cannot be reached. */
export async function ask(
  host: Host,
  address: string,
  login: Login,
  questions: Record<string, string>,
): Promise<Told> {
  const mark = '=+=';
  const script = Object.entries(questions)
    .map(([name, command]) => `printf '${mark}%s\\n' ${name}; { ${command}\n} 2>&1`)
    .join('\n');
  // The door is open a little later than cloud-init's last word where a guest is slow.
  const said = await eventually(`ssh ${login.user}@${address}`, 60_000, async () => {
    const { status, stdout, stderr } = await shell(host, address, login, `${script}\nexit 0`);
    if (status === 0) return stdout;
    if (/Permission denied/.test(stderr)) throw new Error(stderr.trim());
    return undefined;
  });
  const answers = said.split(mark).slice(1);
  return Object.fromEntries(
    answers.map((answer) => {
      const end = answer.indexOf('\n');
      return [answer.slice(0, end), answer.slice(end + 1).trimEnd()];
    }),
  );
}

/** Seconds that cloud-init looked for its datasource, by its own log: each stage that did. */
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
 * What netplan says to every guest whose datasource was found with the network up: that the file
 * which Debian's cloud-init wrote for it is readable, that there is no Open vSwitch.
 */
const netplanApply = /activators\.py\[WARNING\]: Running \['netplan', 'apply'\] resulted in stderr/;

/** Messages in cloud-init.log that no good boot has, each in one line. */
export function complaints(log: string): string[] {
  const messages = log.split(/\n(?=\d{4}-\d\d-\d\d )/);
  return messages
    .filter((message) => /\[(WARNING|ERROR|CRITICAL)\]/.test(message))
    .filter((message) => !netplanApply.test(message))
    .map((message) => message.trim().replaceAll('\n', ' | '));
}
