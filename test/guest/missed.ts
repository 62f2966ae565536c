/*
 * Domains and interfaces that come when nobody expects them. The domains have no disk: libvirt, its
 * hooks and mdserver are all that takes part.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from '../support/processes.js';
import { same, step } from '../support/report.js';
import {
  bridgeInterfaceXml,
  define,
  type Guest,
  interfaceXml,
  makeGuest,
  tinyDomainXml,
  withXml,
} from './guests.js';
import {
  type Host,
  libvirtUri,
  mdserverLog,
  readDatabase,
  recordOf,
  startDnsmasq,
  startLibvirtd,
  startMdserver,
  stopLibvirtd,
  stopMdserver,
} from './host.js';

/** What mdserverctl prints; some of its commands end with a status that says what they found. */
async function ctl(host: Host, ...args: string[]): Promise<string> {
  const { stdout, stderr } = await host.attempt('mdserverctl', args);
  return stdout + stderr;
}

function hasRecord(host: Host, { name }: Guest): boolean {
  return readDatabase(host).some(({ domain_name }) => domain_name === name);
}

function checkRecord(host: Host, { name, uuid, mac }: Guest): string {
  const found = recordOf(host, name);
  same('domain_uuid', found.domain_uuid, uuid);
  same('mds_mac', found.mds_mac, mac);
  return found.mds_ipv4;
}

async function stopAndForget(host: Host, { name }: Guest): Promise<void> {
  await host.virsh('destroy', name);
  await host.virsh('undefine', name);
}

/** Starts the services of a host as its boot does: mdserver first, whose bridge libvirt makes. */
export async function startLikeAtBoot(host: Host): Promise<void> {
  const guest = makeGuest('at-boot', 0x500, 'none');
  await step(host.name, 'shuts down, with a domain on autostart', async () => {
    await define(host, tinyDomainXml(guest));
    await host.virsh('autostart', guest.name);
    await stopLibvirtd(host);
    // libvirt starts domains and networks once a boot.
    for (const driver of ['qemu', 'network']) {
      rmSync(join(host.root, 'run/libvirt', driver, 'autostarted'), { force: true });
    }
  });
  await step(host.name, 'mdserver, as its user, without its bridge', () => startMdserver(host));
  await step(host.name, 'dnsmasq, as the same user', () => startDnsmasq(host));
  await step(host.name, 'libvirtd starts network and domain', () => startLibvirtd(host));
  await step(guest.name, 'has its record', () =>
    eventually('the record', 10_000, () =>
      hasRecord(host, guest) ? checkRecord(host, guest) : undefined,
    ),
  );
  await step(host.name, 'mdserver serves on port 80 of the bridge', () =>
    eventually('an answer', 10_000, async () => {
      const { status } = await host.attempt('curl', ['-s', '-m', '2', 'http://169.254.169.254/']);
      return status === 0 || undefined;
    }),
  );
  await stopAndForget(host, guest);
}

async function whileDown(host: Host): Promise<void> {
  const guest = makeGuest('late', 0x501, 'none');
  await define(host, tinyDomainXml(guest));
  await stopMdserver(host);
  await step(guest.name, 'starts while mdserver is down: check names it', async () => {
    await host.virsh('start', '--paused', guest.name);
    const said = await ctl(host, 'check', '--connect', libvirtUri(host));
    if (!said.includes(guest.name)) throw new Error(said);
  });
  await step(guest.name, 'has its record once mdserver runs', async () => {
    await startMdserver(host);
    return eventually('the record', 10_000, () =>
      hasRecord(host, guest) ? checkRecord(host, guest) : undefined,
    );
  });
  await stopAndForget(host, guest);
}

async function interfacesLater(host: Host): Promise<void> {
  const known = makeGuest('known', 0x502, 'none');
  const second = { ...known, mac: '52:54:00:4d:05:ff' };
  await define(host, tinyDomainXml(known));
  await step(known.name, 'an interface more leaves its record as it was', async () => {
    await host.virsh('start', '--paused', known.name);
    const before = JSON.stringify(recordOf(host, known.name));
    const given = ['--type', 'network', '--source', 'mds', '--mac', second.mac, '--live'];
    await host.virsh('attach-interface', known.name, ...given);
    same('the record', JSON.stringify(recordOf(host, known.name)), before);
    return checkRecord(host, known);
  });
  await stopAndForget(host, known);

  const bare = makeGuest('attached', 0x503, 'none');
  await define(host, tinyDomainXml(bare, { devices: '' }));
  await step(bare.name, 'starts without an interface: no record', async () => {
    await host.virsh('start', '--paused', bare.name);
    if (hasRecord(host, bare)) throw new Error('there is a record');
  });
  await step(bare.name, 'virsh attach-device makes its record', async () => {
    await withXml(host, interfaceXml(bare), (file) =>
      host.virsh('attach-device', '--live', bare.name, file),
    );
    return checkRecord(host, bare);
  });
  await stopAndForget(host, bare);

  const moved = makeGuest('moved', 0x504, 'none');
  await host.run('ip', ['link', 'add', 'br-other', 'type', 'bridge']);
  await host.run('ip', ['link', 'set', 'br-other', 'up']);
  const elsewhere = bridgeInterfaceXml(moved).replace('br-mds', 'br-other');
  await define(
    host,
    tinyDomainXml(moved, { devices: elsewhere.replace('</i', "<model type='virtio'/></i") }),
  );
  await step(moved.name, 'virsh update-device to the network makes its record', async () => {
    await host.virsh('start', '--paused', moved.name);
    if (hasRecord(host, moved)) throw new Error('there is a record already');
    await withXml(host, interfaceXml(moved), (file) =>
      host.virsh('update-device', '--live', moved.name, file),
    );
    return checkRecord(host, moved);
  });
  await stopAndForget(host, moved);
}

async function onTheBridge(host: Host): Promise<void> {
  const guest = makeGuest('bridged', 0x505, 'none');
  await define(host, tinyDomainXml(guest, { devices: bridgeInterfaceXml(guest) }));
  await step(guest.name, 'on <source bridge> has its record', async () => {
    await host.virsh('start', '--paused', guest.name);
    return checkRecord(host, guest);
  });
  await step(guest.name, 'whose interface left: the record stays, list says so', async () => {
    await host.virsh('destroy', guest.name);
    await define(host, tinyDomainXml(guest, { devices: '' }));
    await host.virsh('start', '--paused', guest.name);
    checkRecord(host, guest);
    const lines = (await ctl(host, 'list')).split('\n');
    const line = lines.find((text) => text.startsWith(guest.name)) ?? '';
    if (!line.includes('left network')) throw new Error(`list says ${JSON.stringify(line)}`);
  });
  await stopAndForget(host, guest);
}

async function bootsOf(host: Host, { name }: Guest): Promise<number> {
  const { boots } = JSON.parse(await ctl(host, 'show', '--json', name)) as { boots: unknown[] };
  return boots.length;
}

async function savedIsOneBoot(host: Host): Promise<void> {
  const guest = makeGuest('saved', 0x506, 'none');
  await define(host, tinyDomainXml(guest));
  await step(guest.name, 'virsh save and restore: one boot more', async () => {
    await host.virsh('start', guest.name);
    const file = join(host.space, 'saved');
    const before = await bootsOf(host, guest);
    await host.virsh('save', guest.name, file);
    await host.virsh('restore', '--paused', file);
    same('boots', String(await bootsOf(host, guest)), String(before + 1));
  });
  await stopAndForget(host, guest);
}

async function failedStart(host: Host): Promise<void> {
  const guest = makeGuest('failed', 0x507, 'none');
  const more = "<qemu:commandline><qemu:arg value='-no-such-option'/></qemu:commandline>";
  await define(host, tinyDomainXml(guest, { more }));
  await step(guest.name, 'cannot start: no record is left where libvirt tells', async () => {
    const from = mdserverLog(host).length;
    const uri = libvirtUri(host);
    const { status } = await host.attempt('virsh', ['-q', '-c', uri, 'start', guest.name]);
    if (status === 0) throw new Error('it has started');
    const version = await host.run('libvirtd', ['--version']);
    const [, major = '', minor = ''] = /(\d+)\.(\d+)\.\d+/.exec(version) ?? [];
    const tells = Number(major) * 1000 + Number(minor) >= 10_005;
    if (hasRecord(host, guest) === tells) throw new Error(mdserverLog(host, from));
    return tells ? undefined : `libvirt ${major}.${minor} gives no reason, so the record stays`;
  });
  await host.virsh('undefine', guest.name);
}

/** Runs all steps, except for those of a boot. */
export async function missedNothing(host: Host): Promise<void> {
  await whileDown(host);
  await interfacesLater(host);
  await onTheBridge(host);
  await savedIsOneBoot(host);
  await failedStart(host);
}
