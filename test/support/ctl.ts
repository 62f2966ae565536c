import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Finding } from '../../src/ctl/checks/finding.js';
import { type Scope, temporaryFolder } from './cleanup.js';
import { startWithControl } from './control-socket.js';
import type { Daemon } from './daemon.js';
import { type Ended, ended, type Namespace } from './netns.js';

/** mdserverctl, for Node. */
export const program = fileURLToPath(new URL('../../src/ctl/main.js', import.meta.url));

/** Milliseconds. Far more than any command needs: a command that hangs must fail its test. */
const killAfter = 120_000;

/** Runs a command to its end. With `keepOpen`, its input stays open until then. */
export async function run(
  command: string,
  args: readonly string[],
  input = '',
  env = {},
  keepOpen = false,
): Promise<Ended> {
  const child = spawn(command, args, {
    env: { ...process.env, ...env },
    timeout: killAfter,
    killSignal: 'SIGKILL',
  });
  // The command may end before it has read all of its input.
  child.stdin.on('error', () => {});
  if (keepOpen) child.stdin.write(input);
  else child.stdin.end(input);
  const result = await ended(child);
  child.stdin.destroy();
  return result;
}

/** A host on loopback addresses, as are its instances. */
export interface Host {
  readonly folder: string;
  readonly file: string;
  readonly start: () => Promise<Daemon>;
  readonly ctl: (...args: string[]) => Promise<Ended>;
  /** Its environment: with programs of the folder `bin` before all others. */
  readonly env: NodeJS.ProcessEnv;
  readonly write: (path: string, text: string) => string;
}

/** A new host, without a daemon yet. `mdserver` are more lines of `[mdserver]`. */
export function hostOf(scope: Scope, mdserver = ''): Host {
  const folder = temporaryFolder(scope);
  mkdirSync(join(folder, 'userdata'));
  const file = join(folder, 'mdserver.conf');
  const configuration = `
[mdserver]
listen_address = 127.0.0.1
port = {port}
logfile = ${folder}/log
userdata_dir = ${folder}/userdata
db_file = ${folder}/data/db_file.json
${mdserver}
[service]
location = here
[public-keys]
default = ssh-ed25519 AAAA me
[dnsmasq]
user = root
base_dir = ${folder}/dnsmasq
run_dir = ${folder}/run
net_address = 127.77.0.0
net_prefix = 16
gateway = 127.77.0.1
`;
  writeFileSync(file, configuration.replace('{port}', '1'));
  const env = { PATH: `${folder}/bin:${process.env['PATH']}` };
  return {
    folder,
    file,
    env,
    start: () => startWithControl(scope, folder, configuration, '127.0.0.1'),
    ctl: (...args) => run(process.execPath, [program, '--config', file, ...args], '', env),
    write: (path, text) => {
      const whole = join(folder, path);
      mkdirSync(dirname(whole), { recursive: true });
      writeFileSync(whole, text);
      return whole;
    },
  };
}

/** What the tests use of `show --json` and `list --json`. */
export interface InstanceJson {
  readonly name: string;
  readonly ipv4: string;
}

/** The IPv4 address of an instance. */
export async function addressOf({ ctl }: Host, name: string): Promise<string> {
  const { stdout } = await ctl('show', name, '--json');
  return (JSON.parse(stdout) as InstanceJson).ipv4;
}

/** The findings of `check`. */
export async function findings(host: Host, ...args: string[]): Promise<Finding[]> {
  const options = { ...host.env, PREFIX: host.folder };
  const line = [program, '--config', host.file, 'check', '--json', ...args];
  const { status, stdout } = await run(process.execPath, line, '', options);
  const all = JSON.parse(stdout) as Finding[];
  assert.equal(status, all.some(({ level }) => level === 'failure') ? 1 : 0);
  return all;
}

/** The findings of one check, a line each. */
export function linesOf(all: readonly Finding[], check: string): string[] {
  return all
    .filter((finding) => finding.check === check)
    .map(({ level, text, mend }) => `${level}: ${text}${mend === undefined ? '' : `: ${mend}`}`);
}

/** The lines of one check, run on a host with that PATH. */
export async function checkIn(
  { run }: Pick<Namespace, 'run'>,
  folder: string,
  name: string,
  path = process.env['PATH'],
): Promise<string[]> {
  const { stdout } = await run('env', [
    ...[`PATH=${path}`, `PREFIX=${folder}`, process.execPath, program],
    ...['--config', join(folder, 'mdserver.conf'), 'check', '--json'],
  ]);
  return linesOf(JSON.parse(stdout) as Finding[], name);
}

/** A domain of a stub of libvirt. */
export interface StubDomain {
  readonly uuid: string;
  readonly name: string;
  readonly running: boolean;
  /** The source (a network or a bridge) and the MAC address of each interface. */
  readonly interfaces: readonly (readonly [source: string, mac: string])[];
}

/** A port of the network of a stub of libvirt. */
export interface StubPort {
  readonly owner: { readonly uuid: string; readonly name: string };
  readonly mac: string;
}

/**
 * Puts a virsh before the real one of a host, which prints what libvirt 9.0 does for these domains and
 * ports. It counts its calls in the file `virsh/calls`. What is in `virsh/running.1` runs when it is
 * asked for the second time, what is in `virsh/running.2` when it is asked for the third time.
 */
export function stubVirsh(
  host: Host,
  domains: readonly StubDomain[],
  ports: readonly StubPort[] = [],
): void {
  rmSync(join(host.folder, 'virsh'), { recursive: true, force: true });
  const put = (name: string, lines: readonly string[]) =>
    host.write(`virsh/${name}`, lines.map((line) => `${line}\n`).join(''));
  put('all', [...domains.map(({ uuid, name }) => `${uuid} ${name}`), '']);
  put('running', [...domains.filter(({ running }) => running).map(({ uuid }) => uuid), '']);
  for (const { uuid, interfaces } of domains) {
    put(uuid, [
      ' Interface   Type      Source    Model    MAC',
      '-----------------------------------------------------------',
      ...interfaces.map(
        ([source, mac], index) => ` vnet${index}   network   ${source}   virtio   ${mac}`,
      ),
      '',
    ]);
  }
  const portUuid = (index: number) => `00000000-0000-4000-9000-${String(index).padStart(12, '0')}`;
  put('ports', [
    ' UUID',
    '-----------------------------------------',
    ...ports.map((_, index) => ` ${portUuid(index)}`),
    '',
  ]);
  for (const [index, { owner, mac }] of ports.entries()) {
    put(portUuid(index), [
      '<networkport>',
      `  <uuid>${portUuid(index)}</uuid>`,
      '  <owner>',
      `    <name>${owner.name}</name>`,
      `    <uuid>${owner.uuid}</uuid>`,
      '  </owner>',
      `  <mac address='${mac}'/>`,
      "  <plug type='network' bridge='br-mds'/>",
      '</networkport>',
      '',
    ]);
  }
  const path = host.write(
    'bin/virsh',
    `#!/bin/bash
cd ${host.folder}/virsh || exit
echo "$*" >>calls
shift 3
show() { cat "$1" 2>/dev/null || { echo "error: there is no $1" >&2; return 1; }; }
list() {
  case "$*" in *--all*) show all && return ;; esac
  show running
  for later in running.[0-9]; do
    if [ -e "$later" ]; then mv "$later" running && return; fi
  done
}
domiflist() { show "$1"; }
dumpxml() { echo "<domain/>"; }
net-uuid() { echo 00000000-0000-4000-8fff-000000000000; echo; }
net-port-list() { show ports; }
net-port-dumpxml() { show "$2"; }
if [ $# -eq 1 ]; then eval "$1"; else "$@"; fi
`,
  );
  chmodSync(path, 0o755);
}

/** Puts a virsh that never ends before the real one of a host. */
export function hangingVirsh(host: Host): void {
  chmodSync(host.write('bin/virsh', '#!/bin/sh\nexec sleep 600\n'), 0o755);
}
