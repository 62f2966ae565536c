import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { freePort } from '../support/daemon.js';
import { attempt, end, eventually, isRunning, run } from '../support/processes.js';

/** The virtual machine of a run. */
export interface Machine {
  /** Runs a script with the functions of prelude.sh as root, and returns its output. Throws if it fails. */
  readonly sh: (script: string, limit?: number) => Promise<string>;
  /** Copies files of this machine to a folder of the virtual one. */
  readonly copy: (files: readonly string[], folder: string) => Promise<void>;
  /** Restarts the virtual machine, and waits until its ssh server answers. */
  readonly reboot: () => Promise<void>;
  readonly stop: () => Promise<void>;
}

/**
 * Boots the image with an overlay, which takes the changes of this run, in the folder `space`. `prelude`:
 * what comes before each script.
 */
export async function startMachine(
  image: string,
  space: string,
  prelude: string,
): Promise<Machine> {
  const overlay = join(space, 'disk.qcow2');
  await run('qemu-img', [
    ...['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', join(image, 'disk.qcow2'), overlay],
  ]);
  const port = await freePort('127.0.0.1');
  const qemu: ChildProcess = spawn('qemu-system-x86_64', [
    ...['-machine', 'q35', '-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', '2', '-m', '3072'],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-serial', 'stdio'],
    ...['-kernel', join(image, 'kernel'), '-initrd', join(image, 'initrd')],
    '-append',
    'root=/dev/vda rw console=ttyS0 quiet systemd.show_status=0 mitigations=off',
    ...['-drive', `file=${overlay},if=virtio,cache=unsafe`],
    ...['-netdev', `user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:${port}-:22`],
    ...['-device', 'virtio-net-pci,netdev=net0,romfile='],
    ...['-device', 'virtio-rng-pci'],
  ]);
  // Also for a run that is ended while the machine boots.
  process.once('exit', () => qemu.kill('SIGKILL'));
  const console_ = createWriteStream(join(space, 'machine.console'));
  qemu.stdout?.pipe(console_);
  qemu.stderr?.pipe(console_);

  const options = [
    ...['-i', join(image, 'key'), '-o', 'BatchMode=yes', '-o', 'LogLevel=ERROR'],
    ...['-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null'],
    // A new connection takes a second of emulated cryptography.
    ...['-o', `ControlPath=${join(space, 'ssh')}`, '-o', 'ControlMaster=auto'],
    ...['-o', 'ControlPersist=yes', '-o', 'ConnectTimeout=5', '-o', 'ServerAliveInterval=15'],
  ];
  const ssh = ['-p', String(port), ...options, 'root@127.0.0.1'];
  async function connect(limit: number): Promise<void> {
    await eventually('ssh to the virtual machine', limit, async () => {
      if (!isRunning(qemu)) throw new Error('QEMU ended: see machine.console');
      const { status } = await attempt('ssh', [...ssh, 'true'], { limit: 20_000 });
      return status === 0 || undefined;
    });
  }
  async function closeConnection(): Promise<void> {
    await attempt('ssh', ['-O', 'exit', ...ssh]);
  }

  async function sh(script: string, limit = 60_000): Promise<string> {
    // Not as the shell's standard input, which the commands of the script would read.
    const command = 'cat >/run/step && exec bash /run/step </dev/null';
    const input = `${prelude}\n${script}\n`;
    const { status, stdout, stderr } = await attempt('ssh', [...ssh, command], { input, limit });
    if (status === 0) return stdout;
    const reason = status === -1 ? `not within ${limit / 1000} s; ` : '';
    throw new Error(`${reason}${(stderr.trim() || stdout.trim()).slice(-1500)}`);
  }

  await connect(180_000);
  return {
    sh,
    async copy(files, folder) {
      await run('scp', [
        '-q',
        '-P',
        String(port),
        ...options,
        ...files,
        `root@127.0.0.1:${folder}`,
      ]);
    },
    async reboot() {
      const before = await sh('cat /proc/sys/kernel/random/boot_id');
      await attempt('ssh', [...ssh, 'systemctl', 'reboot'], { limit: 20_000 });
      await closeConnection();
      await eventually('a new boot', 180_000, async () => {
        await connect(180_000);
        const { stdout } = await attempt('ssh', [...ssh, 'cat /proc/sys/kernel/random/boot_id'], {
          limit: 20_000,
        });
        if (stdout !== '' && stdout !== before) return true;
        await closeConnection();
        return undefined;
      });
    },
    async stop() {
      await closeConnection();
      await end(qemu, 'SIGKILL');
    },
  };
}
