import type { ChildProcess } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { dig } from '../support/dig.js';
import { attempt, end, eventually, isRunning, run } from '../support/processes.js';
import { heading, note, same, step } from '../support/report.js';
import {
  type Answers,
  ask,
  complaints,
  datasources,
  datasourceTimes,
  define,
  defineGuest,
  type Guest,
  type Login,
  makeGuest,
  shell,
  tinyDomainXml,
  updateInterface,
  waitForBoot,
} from './guests.js';
import {
  connect,
  defineNetwork,
  domain,
  type Folders,
  gateway,
  type Host,
  integrate,
  libvirtUri,
  makeHost,
  mdserverLog,
  readDatabase,
  recordOf,
  startDnsmasq,
  startLibvirtd,
  startMdserver,
  stopDnsmasq,
  stopLibvirtd,
  stopMdserver,
  templateData,
  writeUserdata,
} from './host.js';
import { missedNothing, startLikeAtBoot } from './missed.js';

/** The socket over which the hook talks to mdserver. */
const controlSocket = '/run/mdserver/control.sock';

/** In milliseconds: the hook gives up after 5 s; libvirt and QEMU get as much for their own work. */
const startLimit = 5_000 + 5_000;

const userdata = `#cloud-config
write_files:
  - path: /etc/mdserver-test
    content: |
      {{greeting}}
      {{hostname}} {{instance.ipv4}} {{instance.uuid}}
`;

interface Run {
  readonly folders: Folders;
  readonly host: Host;
  /** With the key from mdserver's configuration. */
  readonly debian: Login;
  /** With the image's own key. */
  readonly root: Login;
}

async function bringUp(host: Host, key: string): Promise<void> {
  await step(host.name, 'system-integration.sh', () => integrate(host, key));
  await step(host.name, 'libvirtd', () => startLibvirtd(host));
  await step(host.name, 'the network of etc/libvirt/mds-network.xml', () => defineNetwork(host));
  await startLikeAtBoot(host);
}

// ---- one guest ----

const questions = {
  hostname: 'hostname',
  addresses: 'ip -4 -o address show scope global',
  file: 'cat /etc/mdserver-test',
  fullname: 'hostname --fqdn',
  status: 'cloud-init status --long',
  // 1 for errors; from 23.4 on, 2 for warnings and deprecated settings.
  waited: 'cloud-init status --wait --long; echo "exit status $?"',
  version: 'cloud-init --version',
  result: 'cat /run/cloud-init/result.json',
  instance: 'cat /var/lib/cloud/data/instance-id',
  hostkeys: 'cat /etc/ssh/ssh_host_*_key.pub',
  boot: 'cat /proc/sys/kernel/random/boot_id',
  uptime: 'cut -d" " -f1 /proc/uptime',
  log: 'cat /var/log/cloud-init.log',
};

/** The part of cloud-init.log that belongs to the latest boot. */
function lastBoot(log: string): string {
  const start = log.lastIndexOf("running 'init-local'");
  return start === -1 ? log : log.slice(log.lastIndexOf('\n', start) + 1);
}

/** Waits until a started guest has booted and checks everything it should have received. */
async function bootAndCheck(
  { folders, host, debian }: Run,
  guest: Guest,
  started: Promise<unknown>,
): Promise<Answers | undefined> {
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
  await step(name, 'boots', () => waitForBoot(folders, guest));
  const answers = await step(name, 'ssh with the configured key', () =>
    ask(host, address, debian, questions),
  );
  if (answers === undefined) return undefined;
  const log = lastBoot(answers['log'] ?? '');

  await step(name, "the lease is the database's address", () => {
    const leased = /inet (\S+)/.exec(answers['addresses'] ?? '')?.[1];
    same('the address', leased, `${address}/16`);
    return address;
  });
  await step(name, 'host name', () => same('hostname', answers['hostname'], name));
  if (guest.builtIn) {
    await step(name, 'the built-in template: its full name in /etc/hosts is that in DNS', () =>
      same('hostname --fqdn', answers['fullname'], `${name}.${domain}`),
    );
  } else {
    await step(name, 'write_files with template data', () =>
      same('the file', answers['file'], `${templateData}\n${name} ${address} ${guest.uuid}`),
    );
  }
  await step(name, 'cloud-init status --wait exits 0, without warnings', () => {
    const waited = answers['waited'] ?? '';
    if (!/^status: done$[\s\S]*^exit status 0$/m.test(waited)) throw new Error(waited);
    const { v1 } = JSON.parse(answers['result'] ?? '{}') as { v1: { errors: string[] } };
    const bad = [...v1.errors, ...complaints(log)];
    if (bad.length > 0) throw new Error(bad.join(' | '));
  });
  await step(name, 'datasource', () => {
    const { v1 } = JSON.parse(answers['result'] ?? '{}') as { v1: { datasource: string } };
    if (hint === 'none' || !datasources[hint].test(v1.datasource)) throw new Error(v1.datasource);
    const version = answers['version']?.split(' ')[1];
    return `${v1.datasource} of ${version}; ${datasourceTimes(log)}; up ${answers['uptime']} s`;
  });
  return answers;
}

/** Checks a guest without a hint: cloud-init does nothing, the image configures the network. */
async function bootWithoutHint(
  { folders, host, root }: Run,
  guest: Guest,
  started: Promise<unknown>,
) {
  const { name } = guest;
  await started;
  const address = await step(name, 'the hook has uploaded it', () => recordOf(host, name).mds_ipv4);
  if (address === undefined) return;
  await step(name, 'boots', () => waitForBoot(folders, guest));
  const answers = await step(name, "the lease is the database's address", () =>
    ask(host, address, root, {
      addresses: questions.addresses,
      status: questions.status,
      served: 'curl -s http://169.254.169.254/latest/meta-data/instance-id',
    }),
  );
  if (answers === undefined) return;
  await step(name, 'cloud-init stays off', () => {
    if (!/^status: (disabled|not run)$/m.test(answers['status'] ?? ''))
      throw new Error(answers['status']);
    return /^status: .*/.exec(answers['status'] ?? '')?.[0];
  });
  await step(name, 'mdserver serves its address', () =>
    same('instance-id', answers['served'], `i-${address}`),
  );
}

/** Checks forward and reverse DNS, from the host and from a guest. */
async function checkNames({ host, root }: Run, asker: Guest, other: Guest): Promise<void> {
  const full = `${other.name}.${domain}`;
  await step(other.name, 'name and address in DNS, from the host', async () => {
    const address = recordOf(host, other.name).mds_ipv4;
    const resolve = async (...question: string[]) =>
      (await dig(host.run, gateway, ...question)).join('\n');
    same(other.name, await resolve(other.name), address);
    same(full, await resolve(full), address);
    same(address, await resolve('-x', address), `${full}.`);
  });
  await step(other.name, `name and address in DNS, from ${asker.name}`, async () => {
    const address = recordOf(host, other.name).mds_ipv4;
    // The full name, because systemd-resolved does not send names without a dot to DNS servers.
    const answers = await ask(host, recordOf(host, asker.name).mds_ipv4, root, {
      full: `getent ahostsv4 ${full} | sed -n '1s/ .*//p'`,
      reverse: `getent hosts ${address} | sed 's/.* //'`,
    });
    same(full, answers['full'], address);
    same(address, answers['reverse'], full);
  });
}

function start({ host }: Run, guest: Guest): Promise<unknown> {
  return step(guest.name, 'virsh start', async () => {
    await host.virsh('start', guest.name);
  });
}

// ---- life cycle ----

/** Whether mdserver's log contains an upload of the guest. */
function wasUploaded(log: string, { name, mac }: Guest): boolean {
  return log.includes(`${name} (${mac}) has the address `);
}

/** Destroys and restarts a guest, and checks that it recognizes itself as the same instance. */
async function startAgain(run: Run, guest: Guest, before: Answers | undefined): Promise<void> {
  const { host } = run;
  const address = before && recordOf(host, guest.name).mds_ipv4;
  await step(guest.name, 'virsh destroy', async () => {
    // This cuts the power, and new ssh host keys may not be on disk yet.
    if (address !== undefined) await shell(host, address, run.root, 'sync');
    await host.virsh('destroy', guest.name);
  });
  const after = await bootAndCheck(run, guest, start(run, guest));
  await step(guest.name, 'same address, instance-id and ssh host keys as before', () => {
    same('the address', recordOf(host, guest.name).mds_ipv4, address ?? 'known');
    same('instance-id', after?.['instance'], before?.['instance'] ?? 'known');
    same('the host keys', after?.['hostkeys'], before?.['hostkeys'] ?? 'known');
    if (after?.['boot'] === before?.['boot']) throw new Error('it has not waitForBoot');
  });
}

/** Checks that the guest has not rebooted and is still served. */
async function checkStillRuns({ host, root }: Run, guest: Guest, boot: string | undefined) {
  const address = recordOf(host, guest.name).mds_ipv4;
  const answers = await ask(host, address, root, {
    boot: questions.boot,
    served: 'curl -s http://169.254.169.254/latest/meta-data/instance-id',
  });
  same('boot_id', answers['boot'], boot ?? 'known');
  same('instance-id', answers['served'], `i-${address}`);
}

/** Restarts mdserver and then dnsmasq while a guest's DHCP client runs, which renews its lease. */
async function restartsUnderGuest({ host, root }: Run, guest: Guest): Promise<void> {
  const address = recordOf(host, guest.name).mds_ipv4;
  const renewed = async () => {
    // cloud-init brings the interface up anew when the guest boots, which loses its first lease.
    const script = `start=$(date +%s); networkctl renew $(ls /sys/class/net | grep -m 1 '^e') && sleep 2
      ${questions.addresses}; journalctl --no-pager --since "@$start" -u systemd-networkd | grep -c 'lease lost' || true`;
    const { stdout } = await shell(host, address, root, script);
    same('the address', /inet (\S+)/.exec(stdout)?.[1], `${address}/16`);
    same('refusals', stdout.trim().split('\n').pop(), '0');
  };
  await step(
    guest.name,
    'mdserver restarts: dnsmasq runs on, and the lease is renewed',
    async () => {
      const before = host.services.dnsmasq?.pid;
      await stopMdserver(host);
      await startMdserver(host);
      if (!isRunning(host.services.dnsmasq) || host.services.dnsmasq?.pid !== before) {
        throw new Error('dnsmasq has ended');
      }
      await renewed();
    },
  );
  await step(guest.name, 'dnsmasq restarts: the lease is renewed', async () => {
    await stopDnsmasq(host);
    await startDnsmasq(host);
    await renewed();
  });
}

/** Kills mdserver after a guest's first request and restarts it as systemd would. */
async function killWhenAsked({ host }: Run, guest: Guest): Promise<void> {
  const from = mdserverLog(host).length;
  await step(guest.name, 'mdserver is killed during the boot and restarted 2 s later', async () => {
    const asked = new RegExp(`${guest.name} (GET|PUT) `);
    await eventually(
      `the first request of ${guest.name}`,
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
  await step(guest.name, 'the hook has uploaded it (restore), and it still runs', async () => {
    if (!wasUploaded(mdserverLog(host, from), guest)) throw new Error('nothing was uploaded');
    await checkStillRuns(run, guest, boot);
  });
}

async function libvirtdRestarted(run: Run, guest: Guest, boot: string | undefined): Promise<void> {
  const { host } = run;
  const from = mdserverLog(host).length;
  await step(guest.name, 'libvirtd is restarted', async () => {
    await stopLibvirtd(host);
    await startLibvirtd(host);
  });
  await step(guest.name, 'the hook has uploaded it (reconnect), and it still runs', async () => {
    await eventually(
      'an upload',
      10_000,
      () => wasUploaded(mdserverLog(host, from), guest) || undefined,
    );
    same('its state', (await host.virsh('domstate', guest.name)).trim(), 'running');
    await checkStillRuns(run, guest, boot);
  });
}

/** Servers that take mdserver's place: JavaScript that calls serve(server). */
const impostors = {
  'answers with an error': `serve(require('node:http').createServer((_, response) => {
    response.writeHead(500).end('<domain>no</domain>');
  }))`,
  'answers with garbage': `serve(require('node:net').createServer((socket) => {
    socket.on('error', () => {});
    socket.end(require('node:crypto').randomBytes(65536));
  }))`,
  'never ends its response': `serve(require('node:http').createServer((_, response) => {
    response.writeHead(500);
    const drip = setInterval(() => response.write('x'.repeat(1000)), 50);
    response.on('close', () => clearInterval(drip));
  }))`,
  'accepts requests and does not respond': `serve(require('node:net').createServer((socket) => {
    socket.on('error', () => {});
    socket.resume();
  }))`,
};

/** Starts an impostor on the control socket or on mdserver's port. */
async function startImpostor(
  host: Host,
  script: string,
  place: 'socket' | 'port',
): Promise<ChildProcess> {
  await host.run('rm', ['-f', controlSocket]);
  const where = place === 'socket' ? `'${controlSocket}'` : `80, '169.254.169.254'`;
  const serve = `const serve = (server) => server.listen(${where}, () => console.log('ready'));`;
  const log = `impostor-${place}.out`;
  writeFileSync(join(host.space, log), '');
  const child = host.start('node', ['-e', `${serve} ${script}`], log);
  await eventually(
    'the impostor listens',
    10_000,
    () => readFileSync(join(host.space, log), 'utf8').includes('ready') || undefined,
  );
  return child;
}

/** Checks that `virsh start` and a simultaneous `virsh list` work while mdserver fails. */
async function startDespite({ host }: Run, guest: Guest, what: string): Promise<void> {
  await step(guest.name, `mdserver ${what}: virsh start still works`, async () => {
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

async function mdserverFails(run: Run): Promise<void> {
  const { host } = run;
  const guest = makeGuest('tiny', 0x100, 'none');
  await define(host, tinyDomainXml(guest));
  await startDespite(run, guest, 'runs');

  host.services.mdserver?.kill('SIGSTOP');
  await startDespite(run, guest, 'hangs (SIGSTOP)');
  host.services.mdserver?.kill('SIGCONT');

  await stopMdserver(host);
  await startDespite(run, guest, 'is stopped');
  for (const [what, script] of Object.entries(impostors)) {
    for (const place of ['socket', 'port'] as const) {
      const impostor = await startImpostor(host, script, place);
      await startDespite(run, guest, `${what} (${place})`);
      await end(impostor, 'SIGKILL');
    }
  }
  await step(host.name, 'mdserver is restarted', () => startMdserver(host));
}

async function recreated({ host }: Run): Promise<void> {
  const first = makeGuest('anew', 0x200, 'none');
  const second = makeGuest('anew', 0x201, 'none');
  await step('anew', 'undefined and redefined with a new uuid and MAC', async () => {
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
      throw new Error(`dnsmasq's hosts file is ${leases}`);
    }
    await host.virsh('destroy', 'anew');
  });
}

async function twenty({ host }: Run): Promise<void> {
  const guests = Array.from({ length: 20 }, (_, number) =>
    makeGuest(`twenty-${number}`, 0x300 + number, 'none'),
  );
  for (const guest of guests) await define(host, tinyDomainXml(guest));
  await step('twenty', 'domains started at the same moment get different addresses', async () => {
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
      throw new Error(`duplicate addresses: ${addresses.join(' ')}`);
    }
    const names = await Promise.all(guests.map(({ name }) => dig(host.run, gateway, name)));
    same('DNS', names.join('\n'), addresses.join('\n'));
    return `slowest start ${Math.max(...times)} ms`;
  });
  await Promise.all(guests.map(({ name }) => host.virsh('destroy', name)));
}

// ---- a guest attacks another ----

interface AttackResult {
  readonly tries: number[];
  readonly status: number;
  readonly body: string;
}

async function attack(run: Run, from: Guest, of: Guest): Promise<AttackResult> {
  const { folders, host, root } = run;
  const victim = recordOf(host, of.name).mds_ipv4;
  const script = readFileSync(join(folders.sources, 'attack.py'), 'utf8');
  const command = `cat >/run/attack.py <<'END_OF_ATTACK'\n${script}\nEND_OF_ATTACK\npython3 /run/attack.py ${victim}\n`;
  const address = recordOf(host, from.name).mds_ipv4;
  const { status, stdout, stderr } = await shell(host, address, root, command);
  if (status !== 0) throw new Error(`the attack script failed: ${stderr}`);
  const neighbour = await host.run('ip', ['-j', 'neigh', 'show', victim, 'dev', 'br-mds']);
  note(from.name, `the host's ip -j neigh: ${neighbour.trim()}`);
  return JSON.parse(stdout) as AttackResult;
}

function wasServed({ status, body }: AttackResult, victim: Guest): boolean {
  return status === 200 && body.includes(victim.name);
}

/** Waits until a guest is served again: the host may have to learn first which MAC has its address. */
async function waitUntilServed({ host, root }: Run, { name }: Guest): Promise<void> {
  const address = recordOf(host, name).mds_ipv4;
  await eventually(`${name} is served`, 60_000, async () => {
    const command = 'curl -s --max-time 5 http://169.254.169.254/latest/meta-data/instance-id';
    const { stdout } = await shell(host, address, root, command);
    return stdout.trim() === `i-${address}` || undefined;
  });
}

async function attackGuest(run: Run, attacker: Guest, victim: Guest): Promise<void> {
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
  const statuses = ({ tries }: AttackResult) => `answers ${tries.join(' ')}`;

  await checkMac('no');
  await step(
    attacker.name,
    `takes ${victim.name}'s address, check_mac = no: is served`,
    async () => {
      const result = await attack(run, attacker, victim);
      // Not desirable, but the proof that the attack works, which the next step must prevent.
      if (!wasServed(result, victim))
        throw new Error(`the attack does not work: ${statuses(result)}`);
      return statuses(result);
    },
  );
  await step(victim.name, 'has its address back', () => waitUntilServed(run, victim));

  await checkMac('yes');
  await step(victim.name, 'is served with check_mac = yes', () => waitUntilServed(run, victim));
  await step(
    attacker.name,
    `takes ${victim.name}'s address, check_mac = yes: is refused`,
    async () => {
      const from = mdserverLog(host).length;
      const result = await attack(run, attacker, victim);
      if (wasServed(result, victim) || result.status !== 404) throw new Error(statuses(result));
      const lines = mdserverLog(host, from).split('\n');
      const warning = lines.find(
        (line) => line.includes(attacker.mac) && line.includes(victim.mac),
      );
      if (warning === undefined) throw new Error('the log does not name both MAC addresses');
      return `${statuses(result)}; log: ${warning}`;
    },
  );
  await step(victim.name, 'is served again, with check_mac = yes', () =>
    waitUntilServed(run, victim),
  );
  await checkMac('no');

  const filter = `<filterref filter='clean-traffic'>
    <parameter name='IP' value='${recordOf(host, attacker.name).mds_ipv4}'/>
  </filterref>`;
  await step(attacker.name, "cannot take it with libvirt's clean-traffic filter", async () => {
    await updateInterface(host, attacker, filter);
    const result = await attack(run, attacker, victim);
    if (wasServed(result, victim)) throw new Error("it has the other's user-data");
    return statuses(result);
  });
  await checkMac('yes');
}

/** Throws if check_mac has refused a guest other than the attacker. */
function noneRefused(host: Host, attacker?: Guest): void {
  const lines = mdserverLog(host)
    .split('\n')
    .filter((line) => line.includes('(mdserver.check_mac)'))
    .filter((line) => attacker === undefined || !line.includes(`it answers with ${attacker.mac}`));
  if (lines.length > 0) throw new Error(lines.join(' | '));
}

// ---- migration ----

async function migrate(run: Run, other: Host, guest: Guest, boot: string | undefined) {
  const { host, root } = run;
  const address = recordOf(host, guest.name).mds_ipv4;
  // --unsafe: libvirt does not know that both hosts have the file system of the disk.
  const move = async (from: Host, to: Host) => {
    const how = ['--live', '--unsafe', '--persistent', '--undefinesource'];
    await from.virsh('migrate', ...how, guest.name, libvirtUri(to), `tcp://${to.address}`);
  };
  const checkRuns = async (at: Host) => {
    same('its state', (await at.virsh('domstate', guest.name)).trim(), 'running');
    const answers = await ask(at, address, root, { boot: questions.boot });
    same('boot_id', answers['boot'], boot ?? 'known');
  };
  await step(guest.name, `migrates live to ${other.name}`, () => move(host, other));
  await step(guest.name, `runs on ${other.name}, whose hook has uploaded it`, async () => {
    if (!wasUploaded(mdserverLog(other), guest)) throw new Error('nothing was uploaded');
    await checkRuns(other);
    const there = recordOf(other, guest.name).mds_ipv4;
    return `address ${address}, in the database there ${there}`;
  });
  await stopMdserver(host);
  const impostor = await startImpostor(host, impostors['answers with an error'], 'socket');
  await step(guest.name, `migrates live to ${host.name}, where mdserver answers with errors`, () =>
    move(other, host),
  );
  await step(guest.name, `runs on ${host.name}`, () => checkRuns(host));
  await end(impostor, 'SIGKILL');
  await step(host.name, 'mdserver is restarted', () => startMdserver(host));
  await step(guest.name, 'is served again', () => waitUntilServed(run, guest));
}

// ---- all of it ----

async function bootTwo(run: Run, first: Guest, second: Guest) {
  const { host, folders } = run;
  for (const guest of [first, second]) {
    if (!guest.builtIn) writeUserdata(host, `${guest.name}.yaml`, userdata);
    await step(guest.name, 'virsh define', () => defineGuest(host, folders, guest));
  }
  return [start(run, first), start(run, second)] as const;
}

/** Runs all steps. */
export async function runSteps(folders: Folders, isShort: boolean): Promise<void> {
  const key = join(folders.space, 'key');
  await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'operator', '-f', key]);
  const publicKey = readFileSync(`${key}.pub`, 'utf8').trim();

  heading('A virtual machine host');
  const host = await makeHost(folders, 'host-1', 1);
  await bringUp(host, publicKey);
  const all: Run = {
    folders,
    host,
    debian: { user: 'debian', key },
    root: { user: 'root', key: join(folders.image, 'key') },
  };

  heading(
    'Guests a (AWS look-alike) and b (NoCloud by serial, built-in template), started at the same moment',
  );
  const a = makeGuest('guest-a', 0xa, 'aws');
  const b: Guest = { ...makeGuest('guest-b', 0xb, 'nocloud'), builtIn: true };
  const [startA, startB] = await bootTwo(all, a, b);
  const [answersA, answersB] = await Promise.all([
    bootAndCheck(all, a, startA),
    bootAndCheck(all, b, startB),
  ]);
  await checkNames(all, a, b);
  await checkNames(all, b, a);
  heading('Domains that come while mdserver is down, on a bridge, or later');
  await missedNothing(host);
  await restartsUnderGuest(all, b);
  if (isShort) {
    heading('Life cycle');
    await startAgain(all, a, answersA);
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

  heading(
    'Life cycle: a restarts and e (built-in template) boots for the first time, while mdserver is killed',
  );
  const e: Guest = { ...makeGuest('guest-e', 0xe, 'aws'), builtIn: true };
  await step(e.name, 'virsh define', () => defineGuest(host, folders, e));
  const killing = killWhenAsked(all, e);
  await Promise.all([startAgain(all, a, answersA), bootAndCheck(all, e, start(all, e)), killing]);
  await host.virsh('destroy', e.name);

  heading('Life cycle: saved and restored; libvirtd restarted');
  const boot = answersB?.['boot'];
  await savedAndRestored(all, b, boot);
  await libvirtdRestarted(all, b, boot);

  heading('A guest attacks another');
  await attackGuest(all, a, b);
  await host.virsh('destroy', a.name);

  heading('Life cycle: while mdserver fails');
  await mdserverFails(all);

  heading('Life cycle: re-created; many at once');
  await recreated(all);
  await twenty(all);

  heading('Life cycle: live migration');
  const other = await makeHost(folders, 'host-2', 2);
  await bringUp(other, publicKey);
  await step('host-2', 'a cable to host-1', () => connect(host, other));
  await migrate(all, other, b, boot);
  await step(host.name, 'check_mac has refused no other guest', () => noneRefused(host, a));
}
