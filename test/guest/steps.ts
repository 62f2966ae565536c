import type { ChildProcess } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  ask,
  booted,
  complaints,
  datasources,
  datasourceTimes,
  define,
  defineGuest,
  type Guest,
  type Login,
  makeGuest,
  shell,
  type Told,
  tinyDomainXml,
  updateInterface,
} from './guests.js';
import {
  connect,
  domain,
  gateway,
  type Host,
  integrate,
  libvirtUri,
  makeHost,
  mdserverLog,
  type Places,
  readDatabase,
  recordOf,
  startDnsmasq,
  startLibvirtd,
  startMdserver,
  startNetwork,
  stopLibvirtd,
  stopMdserver,
  templateData,
  writeUserdata,
} from './host.js';
import { attempt, end, eventually, run } from './processes.js';
import { heading, note, step } from './report.js';

/** Where mdserver takes what its hook has to say. */
const controlSocket = '/run/mdserver/control.sock';

/** The hook gives up after this many milliseconds; the rest is libvirt's and QEMU's own work. */
const startLimit = 5_000 + 5_000;

const userdata = `#cloud-config
write_files:
  - path: /etc/mdserver-test
    content: |
      {{greeting}}
      {{hostname}} {{instance.ipv4}} {{instance.uuid}}
`;

/** Throws unless the two are the same. */
function same(what: string, got: string | undefined, wanted: string): void {
  if (got !== wanted) throw new Error(`${what} is ${JSON.stringify(got)}, not "${wanted}"`);
}

interface Run {
  readonly places: Places;
  readonly host: Host;
  /** With the key that mdserver is configured with. */
  readonly debian: Login;
  /** With the image's own key. */
  readonly root: Login;
}

async function bringUp(host: Host, key: string): Promise<void> {
  await step(host.name, 'system-integration.sh', () => integrate(host, key));
  await step(host.name, 'libvirtd', () => startLibvirtd(host));
  await step(host.name, 'the network of etc/libvirt/mds-network.xml', () => startNetwork(host));
  await step(host.name, 'mdserver, as its user, on port 80', () => startMdserver(host));
  await step(host.name, 'dnsmasq, as the same user', () => startDnsmasq(host));
}

// ---- one guest ----

const questions = {
  hostname: 'hostname',
  addresses: 'ip -4 -o address show scope global',
  file: 'cat /etc/mdserver-test',
  status: 'cloud-init status --long',
  version: 'cloud-init --version',
  result: 'cat /run/cloud-init/result.json',
  instance: 'cat /var/lib/cloud/data/instance-id',
  hostkeys: 'cat /etc/ssh/ssh_host_*_key.pub',
  boot: 'cat /proc/sys/kernel/random/boot_id',
  uptime: 'cut -d" " -f1 /proc/uptime',
  log: 'cat /var/log/cloud-init.log',
};

/** The part of cloud-init.log that is of this boot. */
function lastBoot(log: string): string {
  const start = log.lastIndexOf("running 'init-local'");
  return start === -1 ? log : log.slice(log.lastIndexOf('\n', start) + 1);
}

/** Starts a guest, waits for the end of its boot and checks all that it should have got. */
async function bootAndCheck(
  { places, host, debian }: Run,
  guest: Guest,
  started: Promise<unknown>,
): Promise<Told | undefined> {
  const { name, hint } = guest;
  await started;
  const record = await step(name, 'the hook has uploaded it', () => {
    const found = recordOf(host, name);
    same('domain_uuid', found.domain_uuid, guest.uuid);
    same('mds_mac', found.mds_mac, guest.mac);
    return found;
  });
  if (record === undefined) return undefined;
  const address = record.mds_ipv4;
  await step(name, 'boots', () => booted(places, guest));
  const told = await step(name, 'ssh with the configured key', () =>
    ask(host, address, debian, questions),
  );
  if (told === undefined) return undefined;
  const log = lastBoot(told['log'] ?? '');

  await step(name, "the lease is the database's address", () => {
    const leased = /inet (\S+)/.exec(told['addresses'] ?? '')?.[1];
    same('the address', leased, `${address}/16`);
    return address;
  });
  await step(name, 'host name', () => same('it', told['hostname'], name));
  await step(name, 'write_files with template data', () =>
    same('the file', told['file'], `${templateData}\n${name} ${address} ${guest.uuid}`),
  );
  await step(name, 'cloud-init is done, without a warning', () => {
    if (!/^status: done$/m.test(told['status'] ?? '')) throw new Error(told['status']);
    const { v1 } = JSON.parse(told['result'] ?? '{}') as { v1: { errors: string[] } };
    const bad = [...v1.errors, ...complaints(log)];
    if (bad.length > 0) throw new Error(bad.join(' | '));
  });
  await step(name, 'datasource', () => {
    const { v1 } = JSON.parse(told['result'] ?? '{}') as { v1: { datasource: string } };
    if (hint === 'none' || !datasources[hint].test(v1.datasource)) throw new Error(v1.datasource);
    const version = told['version']?.split(' ')[1];
    return `${v1.datasource} of ${version}; ${datasourceTimes(log)}; up ${told['uptime']} s`;
  });
  return told;
}

/** A guest without a hint: cloud-init does nothing, the network is the image's own. */
async function bootWithoutHint(
  { places, host, root }: Run,
  guest: Guest,
  started: Promise<unknown>,
) {
  const { name } = guest;
  await started;
  const address = await step(name, 'the hook has uploaded it', () => recordOf(host, name).mds_ipv4);
  if (address === undefined) return;
  await step(name, 'boots', () => booted(places, guest));
  const told = await step(name, "the lease is the database's address", () =>
    ask(host, address, root, {
      addresses: questions.addresses,
      status: questions.status,
      served: 'curl -s http://169.254.169.254/latest/meta-data/instance-id',
    }),
  );
  if (told === undefined) return;
  await step(name, 'cloud-init stays off', () => {
    if (!/^status: (disabled|not run)$/m.test(told['status'] ?? ''))
      throw new Error(told['status']);
    return /^status: .*/.exec(told['status'] ?? '')?.[0];
  });
  await step(name, 'mdserver serves its address', () =>
    same('instance-id', told['served'], `i-${address}`),
  );
}

/** Names both ways, from the host and in a guest. */
async function checkNames({ host, root }: Run, asker: Guest, other: Guest): Promise<void> {
  const full = `${other.name}.${domain}`;
  await step(other.name, 'name and address in DNS, from the host', async () => {
    const address = recordOf(host, other.name).mds_ipv4;
    const dig = async (...args: string[]) =>
      (await host.run('dig', [`@${gateway}`, '+short', ...args])).trim();
    same(other.name, await dig(other.name), address);
    same(full, await dig(full), address);
    same(address, await dig('-x', address), `${full}.`);
  });
  await step(other.name, `name and address in DNS, from ${asker.name}`, async () => {
    const address = recordOf(host, other.name).mds_ipv4;
    // The full name: systemd-resolved asks no DNS server for a name without a dot.
    const told = await ask(host, recordOf(host, asker.name).mds_ipv4, root, {
      full: `getent ahostsv4 ${full} | sed -n '1s/ .*//p'`,
      reverse: `getent hosts ${address} | sed 's/.* //'`,
    });
    same(full, told['full'], address);
    same(address, told['reverse'], full);
  });
}

function start({ host }: Run, guest: Guest): Promise<unknown> {
  return step(guest.name, 'virsh start', async () => {
    await host.virsh('start', guest.name);
  });
}

// ---- life ----

/** Whether mdserver's log tells of an upload of the guest. */
function wasUploaded(log: string, { name, mac }: Guest): boolean {
  return log.includes(`${name} (${mac}) has the address `);
}

/** Destroy and start again: to itself it is the machine that it was. */
async function startAgain(run: Run, guest: Guest, before: Told | undefined): Promise<void> {
  const { host } = run;
  const address = before && recordOf(host, guest.name).mds_ipv4;
  await step(guest.name, 'virsh destroy', async () => {
    // Which is a power cut: ssh host keys of a minute ago are on no disk yet.
    if (address !== undefined) await shell(host, address, run.root, 'sync');
    await host.virsh('destroy', guest.name);
  });
  const after = await bootAndCheck(run, guest, start(run, guest));
  await step(guest.name, 'same address, instance-id and ssh host keys as before', () => {
    same('the address', recordOf(host, guest.name).mds_ipv4, address ?? 'known');
    same('instance-id', after?.['instance'], before?.['instance'] ?? 'known');
    same('the host keys', after?.['hostkeys'], before?.['hostkeys'] ?? 'known');
    if (after?.['boot'] === before?.['boot']) throw new Error('it has not booted');
  });
}

/** Whether it is the boot that it was: the guest was not started again. */
async function stillLives({ host, root }: Run, guest: Guest, boot: string | undefined) {
  const address = recordOf(host, guest.name).mds_ipv4;
  const told = await ask(host, address, root, {
    boot: questions.boot,
    served: 'curl -s http://169.254.169.254/latest/meta-data/instance-id',
  });
  same('boot_id', told['boot'], boot ?? 'known');
  same('instance-id', told['served'], `i-${address}`);
}

/** Kills mdserver once a guest has asked it for something, and starts it as systemd would. */
async function killWhenAsked({ host }: Run, guest: Guest): Promise<void> {
  const from = mdserverLog(host).length;
  await step(guest.name, 'mdserver is killed while it boots, and is back 2 s later', async () => {
    const asked = new RegExp(`${guest.name} (GET|PUT) `);
    await eventually(
      `${guest.name} asks`,
      300_000,
      () => asked.test(mdserverLog(host, from)) || undefined,
    );
    await stopMdserver(host, 'SIGKILL');
    await sleep(2000);
    await startMdserver(host);
  });
}

async function savedAndRestored(run: Run, guest: Guest, boot: string | undefined): Promise<void> {
  const { host } = run;
  await step(guest.name, 'virsh managedsave', async () => {
    await host.virsh('managedsave', guest.name);
  });
  const from = mdserverLog(host).length;
  await step(guest.name, 'virsh start restores it', async () => {
    await host.virsh('start', guest.name);
  });
  await step(guest.name, 'the hook has uploaded it (restore), and it lives', async () => {
    if (!wasUploaded(mdserverLog(host, from), guest)) throw new Error('nothing was uploaded');
    await stillLives(run, guest, boot);
  });
}

async function libvirtdRestarted(run: Run, guest: Guest, boot: string | undefined): Promise<void> {
  const { host } = run;
  const from = mdserverLog(host).length;
  await step(guest.name, 'libvirtd is restarted', async () => {
    await stopLibvirtd(host);
    await startLibvirtd(host);
  });
  await step(guest.name, 'the hook has uploaded it (reconnect), and it lives', async () => {
    await eventually(
      'an upload',
      10_000,
      () => wasUploaded(mdserverLog(host, from), guest) || undefined,
    );
    same('its state', (await host.virsh('domstate', guest.name)).trim(), 'running');
    await stillLives(run, guest, boot);
  });
}

/** What stands in mdserver's place when it is not itself: JavaScript that calls serve(server). */
const strangers = {
  'answers with an error': `serve(require('node:http').createServer((_, response) => {
    response.writeHead(500).end('<domain>no</domain>');
  }))`,
  'answers with garbage': `serve(require('node:net').createServer((socket) => {
    socket.on('error', () => {});
    socket.end(require('node:crypto').randomBytes(65536));
  }))`,
  'answers without an end': `serve(require('node:http').createServer((_, response) => {
    response.writeHead(500);
    const drip = setInterval(() => response.write('x'.repeat(1000)), 50);
    response.on('close', () => clearInterval(drip));
  }))`,
  'takes requests and says nothing': `serve(require('node:net').createServer((socket) => {
    socket.on('error', () => {});
    socket.resume();
  }))`,
};

/** Starts one on the control socket, or where that is not to be, on mdserver's port. */
async function startStranger(
  host: Host,
  script: string,
  place: 'socket' | 'port',
): Promise<ChildProcess> {
  await host.run('rm', ['-f', controlSocket]);
  const where = place === 'socket' ? `'${controlSocket}'` : `80, '169.254.169.254'`;
  const serve = `const serve = (server) => server.listen(${where}, () => console.log('ready'));`;
  const log = `stranger-${place}.out`;
  writeFileSync(join(host.space, log), '');
  const child = host.start('node', ['-e', `${serve} ${script}`], log);
  await eventually(
    'the stranger listens',
    10_000,
    () => readFileSync(join(host.space, log), 'utf8').includes('ready') || undefined,
  );
  return child;
}

/** `virsh start` while mdserver is not well, and `virsh list` at the same moment. */
async function startWithout({ host }: Run, guest: Guest, what: string): Promise<void> {
  await step(guest.name, `mdserver ${what}: virsh start works all the same`, async () => {
    const uri = libvirtUri(host);
    const starting = attempt('virsh', ['-q', '-c', uri, 'start', '--paused', guest.name]);
    await sleep(1000);
    const list = await attempt('virsh', ['-q', '-c', uri, 'list', '--all']);
    const started = await starting;
    if (started.status !== 0) throw new Error(started.stderr.trim());
    if (started.milliseconds > startLimit) throw new Error(`it took ${started.milliseconds} ms`);
    if (list.status !== 0) throw new Error(`virsh list: ${list.stderr.trim()}`);
    if (list.milliseconds > startLimit) throw new Error(`virsh list took ${list.milliseconds} ms`);
    return `start ${started.milliseconds} ms, virsh list ${list.milliseconds} ms`;
  });
  await attempt('virsh', ['-q', '-c', libvirtUri(host), 'destroy', guest.name]);
}

async function mdserverUnwell(run: Run): Promise<void> {
  const { host } = run;
  const guest = makeGuest('tiny', 0x100, 'none');
  await define(host, tinyDomainXml(guest));
  await startWithout(run, guest, 'is there');

  host.services.mdserver?.kill('SIGSTOP');
  await startWithout(run, guest, 'hangs (SIGSTOP)');
  host.services.mdserver?.kill('SIGCONT');

  await stopMdserver(host);
  await startWithout(run, guest, 'is stopped');
  for (const [what, script] of Object.entries(strangers)) {
    for (const place of ['socket', 'port'] as const) {
      const stranger = await startStranger(host, script, place);
      await startWithout(run, guest, `${what} (${place})`);
      await end(stranger, 'SIGKILL');
    }
  }
  await step(host.name, 'mdserver is back', () => startMdserver(host));
}

async function madeAnew({ host }: Run): Promise<void> {
  const first = makeGuest('anew', 0x200, 'none');
  const second = makeGuest('anew', 0x201, 'none');
  await step('anew', 'undefined, and defined again with a new uuid and MAC', async () => {
    await define(host, tinyDomainXml(first));
    await host.virsh('start', '--paused', 'anew');
    const before = recordOf(host, 'anew');
    await host.virsh('destroy', 'anew');
    await host.virsh('undefine', 'anew');
    await define(host, tinyDomainXml(second));
    await host.virsh('start', '--paused', 'anew');
    const after = recordOf(host, 'anew');
    same('domain_uuid', after.domain_uuid, second.uuid);
    same('mds_mac', after.mds_mac, second.mac);
    same('the address', after.mds_ipv4, before.mds_ipv4);
    const leases = readFileSync(
      join(host.root, 'var/lib/mdserver/dnsmasq/dhcp/mds.dhcp-hosts'),
      'utf8',
    );
    if (leases.includes(first.mac) || !leases.includes(`${second.mac},id:*,${after.mds_ipv4}`)) {
      throw new Error(`dnsmasq was told: ${leases}`);
    }
    await host.virsh('destroy', 'anew');
  });
}

async function twenty({ host }: Run): Promise<void> {
  const guests = Array.from({ length: 20 }, (_, number) =>
    makeGuest(`twenty-${number}`, 0x300 + number, 'none'),
  );
  for (const guest of guests) await define(host, tinyDomainXml(guest));
  await step('twenty', 'domains started at the same moment have an address each', async () => {
    const times = await Promise.all(
      guests.map(async ({ name }) => {
        const begun = Date.now();
        await host.virsh('start', '--paused', name);
        return Date.now() - begun;
      }),
    );
    const records = readDatabase(host);
    const addresses = guests.map(({ name, uuid, mac }) => {
      const found = records.find(({ domain_name }) => domain_name === name);
      same(`the uuid of ${name}`, found?.domain_uuid, uuid);
      same(`the MAC of ${name}`, found?.mds_mac, mac);
      return found?.mds_ipv4;
    });
    const all = new Set(records.map(({ mds_ipv4 }) => mds_ipv4));
    if (new Set(addresses).size !== 20 || all.size !== records.length) {
      throw new Error(`addresses are given twice: ${addresses.join(' ')}`);
    }
    const names = await Promise.all(
      guests.map(({ name }) => host.run('dig', [`@${gateway}`, '+short', name])),
    );
    same('DNS', names.join(''), addresses.map((address) => `${address}\n`).join(''));
    return `slowest start ${Math.max(...times)} ms`;
  });
  await Promise.all(guests.map(({ name }) => host.virsh('destroy', name)));
}

// ---- guests against each other ----

interface AttackResult {
  readonly tries: number[];
  readonly status: number;
  readonly body: string;
}

async function attack(run: Run, from: Guest, of: Guest): Promise<AttackResult> {
  const { places, host, root } = run;
  const victim = recordOf(host, of.name).mds_ipv4;
  const script = readFileSync(join(places.sources, 'attack.py'), 'utf8');
  const command = `cat >/run/attack.py <<'END_OF_ATTACK'\n${script}\nEND_OF_ATTACK\npython3 /run/attack.py ${victim}\n`;
  const address = recordOf(host, from.name).mds_ipv4;
  const { status, stdout, stderr } = await shell(host, address, root, command);
  if (status !== 0) throw new Error(`the attack did not run: ${stderr}`);
  const neighbour = await host.run('ip', ['-j', 'neigh', 'show', victim, 'dev', 'br-mds']);
  note(from.name, `the host's ip -j neigh: ${neighbour.trim()}`);
  return JSON.parse(stdout) as AttackResult;
}

function wasServed({ status, body }: AttackResult, victim: Guest): boolean {
  return status === 200 && body.includes(victim.name);
}

/** Its neighbours may have to be told again where the address is: the guest asks until it is served. */
async function hasItsAddress({ host, root }: Run, { name }: Guest): Promise<void> {
  const address = recordOf(host, name).mds_ipv4;
  await eventually(`${name} is served`, 60_000, async () => {
    const command = 'curl -s --max-time 5 http://169.254.169.254/latest/meta-data/instance-id';
    const { stdout } = await shell(host, address, root, command);
    return stdout.trim() === `i-${address}` || undefined;
  });
}

async function againstEachOther(run: Run, thief: Guest, victim: Guest): Promise<void> {
  const { host } = run;
  const configuration = join(host.root, 'etc/mdserver/conf.d/20-check-mac.conf');
  const checkMac = async (word: 'yes' | 'no') => {
    const from = mdserverLog(host).length;
    writeFileSync(configuration, `[mdserver]\ncheck_mac = ${word}\n`);
    host.services.mdserver?.kill('SIGHUP');
    await eventually(
      'the configuration is read again',
      10_000,
      () => mdserverLog(host, from).includes('read the configuration again') || undefined,
    );
  };
  const told = ({ tries }: AttackResult) => `answers ${tries.join(' ')}`;

  await checkMac('no');
  await step(thief.name, `takes ${victim.name}'s address, check_mac = no: is served`, async () => {
    const result = await attack(run, thief, victim);
    // Not that it should be so: it is what the next step has to prevent.
    if (!wasServed(result, victim)) throw new Error(`the attack is none: ${told(result)}`);
    return told(result);
  });
  await step(victim.name, 'has its address back', () => hasItsAddress(run, victim));

  await checkMac('yes');
  await step(victim.name, 'is served with check_mac = yes', () => hasItsAddress(run, victim));
  await step(
    thief.name,
    `takes ${victim.name}'s address, check_mac = yes: is refused`,
    async () => {
      const from = mdserverLog(host).length;
      const result = await attack(run, thief, victim);
      if (wasServed(result, victim) || result.status !== 404) throw new Error(told(result));
      const lines = mdserverLog(host, from).split('\n');
      const warning = lines.find((line) => line.includes(thief.mac) && line.includes(victim.mac));
      if (warning === undefined) throw new Error('the log does not name both MAC addresses');
      return `${told(result)}; log: ${warning}`;
    },
  );
  await step(victim.name, 'is served again, with check_mac = yes', () =>
    hasItsAddress(run, victim),
  );
  await checkMac('no');

  const filter = `<filterref filter='clean-traffic'>
    <parameter name='IP' value='${recordOf(host, thief.name).mds_ipv4}'/>
  </filterref>`;
  await step(thief.name, "cannot take it with libvirt's clean-traffic", async () => {
    await updateInterface(host, thief, filter);
    const result = await attack(run, thief, victim);
    if (wasServed(result, victim)) throw new Error("it has the other's user-data");
    return told(result);
  });
  await checkMac('yes');
}

/** Throws when check_mac has turned away a guest that had not taken another's address. */
function noneRefused(host: Host, thief?: Guest): void {
  const lines = mdserverLog(host)
    .split('\n')
    .filter((line) => line.includes('is answered for by'))
    .filter((line) => thief === undefined || !line.includes(`answered for by ${thief.mac}`));
  if (lines.length > 0) throw new Error(lines.join(' | '));
}

// ---- migration ----

async function migrate(run: Run, other: Host, guest: Guest, boot: string | undefined) {
  const { host, root } = run;
  const address = recordOf(host, guest.name).mds_ipv4;
  // The disk is on a file system that both see, which libvirt has no way to know.
  const move = async (from: Host, to: Host) => {
    const how = ['--live', '--unsafe', '--persistent', '--undefinesource'];
    await from.virsh('migrate', ...how, guest.name, libvirtUri(to), `tcp://${to.address}`);
  };
  const lives = async (at: Host) => {
    same('its state', (await at.virsh('domstate', guest.name)).trim(), 'running');
    const told = await ask(at, address, root, { boot: questions.boot });
    same('boot_id', told['boot'], boot ?? 'known');
  };
  await step(guest.name, `migrates to ${other.name}, alive`, () => move(host, other));
  await step(guest.name, `lives on ${other.name}, and its hook has uploaded it`, async () => {
    if (!wasUploaded(mdserverLog(other), guest)) throw new Error('nothing was uploaded');
    await lives(other);
    const there = recordOf(other, guest.name).mds_ipv4;
    return `address ${address}, in the database there ${there}`;
  });
  await stopMdserver(host);
  const stranger = await startStranger(host, strangers['answers with an error'], 'socket');
  await step(guest.name, `migrates to ${host.name}, where mdserver answers errors`, () =>
    move(other, host),
  );
  await step(guest.name, `lives on ${host.name}`, () => lives(host));
  await end(stranger, 'SIGKILL');
  await step(host.name, 'mdserver is back', () => startMdserver(host));
  await step(guest.name, 'is served again', () => hasItsAddress(run, guest));
}

// ---- all of it ----

async function bootTwo(run: Run, first: Guest, second: Guest) {
  const { host, places } = run;
  for (const guest of [first, second]) {
    writeUserdata(host, `${guest.name}.yaml`, userdata);
    await step(guest.name, 'virsh define', () => defineGuest(host, places, guest));
  }
  return [start(run, first), start(run, second)] as const;
}

/** Everything that is checked, one step after the other. */
export async function runSteps(places: Places, isShort: boolean): Promise<void> {
  const key = join(places.space, 'key');
  await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'operator', '-f', key]);
  const publicKey = readFileSync(`${key}.pub`, 'utf8').trim();

  heading('A host of virtual machines');
  const host = await makeHost(places, 'host-1', 1);
  await bringUp(host, publicKey);
  const all: Run = {
    places,
    host,
    debian: { user: 'debian', key },
    root: { user: 'root', key: join(places.image, 'key') },
  };

  heading('Guests a (AWS look-alike) and b (NoCloud by serial), started at the same moment');
  const a = makeGuest('guest-a', 0xa, 'aws');
  const b = makeGuest('guest-b', 0xb, 'nocloud');
  const [startA, startB] = await bootTwo(all, a, b);
  const [toldA, toldB] = await Promise.all([
    bootAndCheck(all, a, startA),
    bootAndCheck(all, b, startB),
  ]);
  await checkNames(all, a, b);
  await checkNames(all, b, a);
  if (isShort) {
    heading('Life');
    await startAgain(all, a, toldA);
    await step(host.name, 'check_mac has refused nobody', () => noneRefused(host));
    return;
  }

  heading('Guests c (OpenStack by product name) and d (no hint)');
  const c = makeGuest('guest-c', 0xc, 'openstack');
  const d = makeGuest('guest-d', 0xd, 'none');
  const [startC, startD] = await bootTwo(all, c, d);
  await Promise.all([bootAndCheck(all, c, startC), bootWithoutHint(all, d, startD)]);
  await checkNames(all, c, d);
  await checkNames(all, d, c);
  for (const guest of [c, d]) await host.virsh('destroy', guest.name);

  heading('Life: a starts again, while e boots for the first time and mdserver is killed');
  const e = makeGuest('guest-e', 0xe, 'aws');
  writeUserdata(host, 'guest-e.yaml', userdata);
  await step(e.name, 'virsh define', () => defineGuest(host, places, e));
  const killing = killWhenAsked(all, e);
  await Promise.all([startAgain(all, a, toldA), bootAndCheck(all, e, start(all, e)), killing]);
  await host.virsh('destroy', e.name);

  heading('Life: saved, restored, under a restarted libvirtd');
  const boot = toldB?.['boot'];
  await savedAndRestored(all, b, boot);
  await libvirtdRestarted(all, b, boot);

  heading('Guests against each other');
  await againstEachOther(all, a, b);
  await host.virsh('destroy', a.name);

  heading('Life: when mdserver is not well');
  await mdserverUnwell(all);

  heading('Life: made anew, and many');
  await madeAnew(all);
  await twenty(all);

  heading('Life: live migration');
  const other = await makeHost(places, 'host-2', 2);
  await bringUp(other, publicKey);
  await step('host-2', 'a cable to host-1', () => connect(host, other));
  await migrate(all, other, b, boot);
  await step(host.name, 'check_mac has refused no honest guest', () => noneRefused(host, a));
}
