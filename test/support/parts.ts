import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

function succeeds(command: string, ...args: string[]): boolean {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0;
}

function isCommand(name: string): () => boolean {
  return () => succeeds('sh', '-c', `command -v ${name}`);
}

/** Debian's Python: another one has none of Debian's modules. */
export const python = '/usr/bin/python3';

/** Whether Debian's Python has a module: a function, since to look takes time. */
export function isModule(name: string): () => boolean {
  return () => succeeds(python, '-c', `import ${name}`);
}

function canAddNamespace(): boolean {
  const probe = `mds-${process.pid}-probe`;
  return succeeds('ip', 'netns', 'add', probe) && succeeds('ip', 'netns', 'delete', probe);
}

/** Ignition is no command: it is run in an initrd. */
export const ignition = '/usr/lib/dracut/modules.d/30ignition/ignition';
export const chromium = '/usr/bin/chromium';
export const dsIdentify = '/usr/lib/cloud-init/ds-identify';

/** What tests talk to beside Node: whether it is there, and the Debian package that has it. */
const parts = {
  'ansible-inventory': [isCommand('ansible-inventory'), 'ansible-core'],
  aws: [isCommand('aws'), 'awscli'],
  botocore: [isModule('botocore'), 'python3-botocore'],
  bottle: [isModule('bottle'), 'python3-bottle'],
  busybox: [isCommand('busybox'), 'busybox'],
  chromium: [() => existsSync(chromium), 'chromium'],
  'cloud-init': [isModule('cloudinit'), 'cloud-init'],
  curl: [isCommand('curl'), 'curl'],
  dbus: [isCommand('dbus-daemon'), 'dbus'],
  dhclient: [isCommand('dhclient'), 'isc-dhcp-client'],
  dig: [isCommand('dig'), 'bind9-dnsutils'],
  dnsmasq: [isCommand('dnsmasq'), 'dnsmasq-base'],
  'dpkg-deb': [isCommand('dpkg-deb'), 'dpkg'],
  'ds-identify': [() => existsSync(dsIdentify), 'cloud-init'],
  'ec2-metadata': [isCommand('ec2-metadata'), 'amazon-ec2-utils'],
  ec2metadata: [isCommand('ec2metadata'), 'cloud-guest-utils'],
  facter: [isCommand('facter'), 'facter'],
  firewalld: [isCommand('firewall-cmd'), 'firewalld'],
  groff: [isCommand('groff'), 'groff-base'],
  ignition: [() => existsSync(ignition), 'ignition'],
  ip: [isCommand('ip'), 'iproute2'],
  jq: [isCommand('jq'), 'jq'],
  lintian: [isCommand('lintian'), 'lintian'],
  libvirtd: [() => existsSync('/usr/sbin/libvirtd'), 'libvirt-daemon-system'],
  logrotate: [isCommand('logrotate'), 'logrotate'],
  netns: [canAddNamespace, 'root, and ip of iproute2'],
  ohai: [isCommand('ohai'), 'ohai'],
  python: [isModule('configparser'), 'python3'],
  qemu: [isCommand('qemu-system-x86_64'), 'qemu-system-x86'],
  root: [() => process.getuid?.() === 0, 'run the tests as root'],
  script: [isCommand('script'), 'bsdutils'],
  rpmbuild: [isCommand('rpmbuild'), 'rpm'],
  rpmlint: [isCommand('rpmlint'), 'rpmlint'],
  setpriv: [isCommand('setpriv'), 'util-linux'],
  shellcheck: [isCommand('shellcheck'), 'shellcheck'],
  'ssh-keygen': [isCommand('ssh-keygen'), 'openssh-client'],
  'systemd-analyze': [isCommand('systemd-analyze'), 'systemd'],
  'systemd-notify': [isCommand('systemd-notify'), 'systemd'],
  nft: [isCommand('nft'), 'nftables'],
  ufw: [isCommand('ufw'), 'ufw'],
  udhcpc: [isCommand('udhcpc'), 'udhcpc'],
  unshare: [isCommand('unshare'), 'util-linux'],
  virsh: [isCommand('virsh'), 'libvirt-clients'],
  'virt-clone': [isCommand('virt-clone'), 'virtinst'],
  'virt-install': [isCommand('virt-install'), 'virtinst'],
  'virt-xml': [isCommand('virt-xml'), 'virtinst'],
  xsltproc: [isCommand('xsltproc'), 'xsltproc'],
  xmltodict: [isModule('xmltodict'), 'python3-xmltodict'],
  yaml: [isModule('yaml'), 'python3-yaml'],
} as const satisfies Record<string, readonly [isThere: () => boolean, debianPackage: string]>;

export type Part = keyof typeof parts;

/**
 * For the `skip` of a test: what this machine lacks, or false. Throws in continuous integration
 * (`CI` is set), where nothing may be missing.
 */
export function missing(...needed: Part[]): string | false {
  const lacking = needed.filter((part) => !parts[part][0]());
  if (lacking.length === 0) return false;
  const text = `needs ${lacking.map((part) => `${part} (${parts[part][1]})`).join(', ')}`;
  if (process.env['CI']) throw new Error(text);
  return text;
}
