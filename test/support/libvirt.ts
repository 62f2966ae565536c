import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { libvirtdConf, qemuConf } from '../guest/host.js';
import { exited, killAtEnd, type Scope, temporaryFolder } from './cleanup.js';
import { eventually, repository } from './daemon.js';
import { type Ended, ended } from './netns.js';

/** A host with a libvirt of its own: its processes see no other guests, networks and files of libvirt. */
export interface LibvirtHost {
  readonly start: (command: string, args: readonly string[]) => ChildProcess;
  /** Runs a command to its end. */
  readonly run: (
    command: string,
    args: readonly string[],
    env?: NodeJS.ProcessEnv,
  ) => Promise<Ended>;
  /** The output of virsh. Throws if it fails. */
  readonly virsh: (...args: string[]) => Promise<string>;
  /** Restarts libvirtd; its guests run on. */
  readonly restart: () => Promise<void>;
}

/** As process 1, which has to wait for processes that lost their parent: libvirt does until they are gone. */
const asFirst = 'bash "$0" "$@" & wait';

/**
 * Starts a real libvirt, with the network of etc/libvirt/mds-network.xml, in namespaces that end with
 * all their processes at the end of the scope. It has no hooks.
 */
export async function startLibvirt(scope: Scope): Promise<LibvirtHost> {
  const space = temporaryFolder(scope, { 'local/': '' });
  const script = join(repository, 'test/guest/host.sh');
  const holder = spawn(
    'unshare',
    ['--mount', '--net', '--uts', '--pid', '--fork', '--kill-child', '--mount-proc'].concat(
      ['--propagation', 'private', '--', 'bash', '-c', asFirst, script],
      ['host', space, join(space, 'local')],
    ),
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  killAtEnd(scope, holder);
  await Promise.race([once(holder.stdout, 'data'), exited(holder)]);
  // The first process in the namespaces: its own number of itself is 1.
  const first = readFileSync(`/proc/${holder.pid}/task/${holder.pid}/children`, 'utf8').trim();
  const enter = ['--target', first, '--mount', '--net', '--uts', '--pid', '--'];

  function start(command: string, args: readonly string[], env = process.env): ChildProcess {
    const stdio: ['ignore', 'pipe', 'pipe'] = ['ignore', 'pipe', 'pipe'];
    return spawn('nsenter', [...enter, command, ...args], { stdio, env });
  }
  const run: LibvirtHost['run'] = (command, args, env) => ended(start(command, args, env));
  async function virsh(...args: string[]): Promise<string> {
    const { status, stdout, stderr } = await run('virsh', ['--quiet', ...args]);
    if (status !== 0) throw new Error(`virsh ${args.join(' ')}: ${stderr}`);
    return stdout;
  }

  const settings = `/proc/${first}/root/etc/libvirt`;
  appendFileSync(`${settings}/libvirtd.conf`, libvirtdConf('/run/libvirt', randomUUID()));
  appendFileSync(`${settings}/qemu.conf`, qemuConf);
  async function startLibvirtd(): Promise<ChildProcess> {
    const libvirtd = start('libvirtd', []);
    killAtEnd(scope, libvirtd);
    let log = '';
    libvirtd.stderr?.on('data', (chunk) => (log += chunk));
    await eventually('libvirtd answers', async () => {
      if (libvirtd.exitCode !== null) throw new Error(`libvirtd ended: ${log}`);
      return (await run('virsh', ['list'])).status === 0;
    });
    return libvirtd;
  }
  let libvirtd = await startLibvirtd();
  async function restart(): Promise<void> {
    // nsenter waits for the libvirtd in its namespaces, and does not pass a signal on.
    await run('sh', ['-c', 'kill $(cat /run/libvirtd.pid)']);
    await exited(libvirtd);
    libvirtd = await startLibvirtd();
  }
  await virsh('net-define', join(repository, 'etc/libvirt/mds-network.xml'));
  await virsh('net-start', 'mds');
  return { start, run, virsh, restart };
}

/** Defines a domain that QEMU emulates, with these interfaces, and starts it without running its CPU. */
export async function startDomain(
  { virsh }: LibvirtHost,
  folder: string,
  domain: { readonly name: string; readonly uuid: string; readonly interfaces: string },
): Promise<void> {
  const { name, uuid, interfaces } = domain;
  const file = join(folder, `${uuid}.xml`);
  writeFileSync(
    file,
    `<domain type='qemu'>
  <name>${name}</name>
  <uuid>${uuid}</uuid>
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>${interfaces}</devices>
</domain>
`,
  );
  await virsh('define', file);
  await virsh('start', '--paused', uuid);
}
