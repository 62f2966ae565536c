/*
 * Boots real guests with mdserver: npm run test:guest [-- [--short] [--suite SUITE]]
 *
 * It runs a virtual machine host in namespaces of its own, with Debian's libvirtd, QEMU and dnsmasq. It
 * changes nothing on this machine except ${XDG_CACHE_HOME:-/var/cache}/mdserver-guest, the folder of
 * the guests' images. mdserver is the packed npm package, installed and integrated as the README
 * says. The guests run the Debian release SUITE (default: bookworm).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { checkPrograms, imageCache, makeImage } from '../support/images.js';
import { run } from '../support/processes.js';
import { failure, failureCount, heading, note, step } from '../support/report.js';
import { runSteps } from './steps.js';

const repository = fileURLToPath(new URL('../../../', import.meta.url));
const sources = join(repository, 'test', 'guest');

/** The required programs and their Debian packages. */
const parts = {
  libvirtd: 'libvirt-daemon-system',
  virsh: 'libvirt-clients',
  'qemu-system-x86_64': 'qemu-system-x86',
  'qemu-img': 'qemu-utils',
  dnsmasq: 'dnsmasq-base',
  debootstrap: 'debootstrap',
  'mkfs.ext4': 'e2fsprogs',
  iptables: 'iptables',
  ip: 'iproute2',
  dig: 'bind9-dnsutils',
  curl: 'curl',
  ssh: 'openssh-client',
  'ssh-keygen': 'openssh-client',
  unshare: 'util-linux',
  nsenter: 'util-linux',
  setpriv: 'util-linux',
};

/** Packs mdserver as for publishing and installs the package. */
async function installPackage(folder: string, prefix: string): Promise<string> {
  const pack = ['pack', repository, '--ignore-scripts', '--silent', '--pack-destination', folder];
  const tarball = (await run('npm', pack)).trim();
  const quiet = ['--no-audit', '--no-fund', '--loglevel=error'];
  await run('npm', ['install', '-g', '--prefix', prefix, ...quiet, join(folder, tarball)]);
  return tarball;
}

/**
 * Runs this file again in namespaces of its own. Their first process is a shell that reaps orphaned
 * processes; all processes end with it.
 */
function startInside(args: readonly string[]): ChildProcess {
  const namespaces = ['--mount', '--net', '--pid', '--ipc', '--fork', '--kill-child'];
  const reaper = 'mount -t tmpfs tmpfs "$1" && shift && { "$@" & wait $!; }';
  const self = [process.execPath, '--enable-source-maps', fileURLToPath(import.meta.url)];
  return spawn(
    'unshare',
    [...namespaces, '--mount-proc', '--propagation', 'private', '--', 'bash', '-c', reaper].concat(
      'bash',
      args[1] ?? '',
      self,
      args,
    ),
    { stdio: ['ignore', 'inherit', 'inherit'] },
  );
}

async function outside(isShort: boolean, suite: string): Promise<number> {
  if (process.getuid?.() !== 0) throw new Error('only root can create the namespaces');
  await checkPrograms(parts);
  heading('Preparation');
  const image = await step('image', `the guests' image, ${suite}`, () =>
    makeImage(join(sources, 'image.sh'), imageCache('mdserver-guest'), suite),
  );
  // Not in $TMPDIR, which may be in /var, where the hosts have an overlay.
  const folder = mkdtempSync('/tmp/mdserver-guest-');
  const remove = () => rmSync(folder, { recursive: true, force: true });
  process.once('exit', remove);
  // All processes of the run end with it.
  let child: ChildProcess | undefined;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => (child === undefined ? process.exit(1) : child.kill('SIGKILL')));
  }
  const prefix = join(folder, 'prefix');
  const version = await step('package', 'npm pack, npm install -g', () =>
    installPackage(folder, prefix),
  );
  if (image === undefined || version === undefined) return 1;

  const space = join(folder, 'space');
  mkdirSync(space);
  child = startInside(['inside', space, prefix, image, isShort ? 'short' : 'full']);
  const [status] = (await once(child, 'exit')) as [number | null];
  return status ?? 1;
}

/** Copies the consoles and logs of a failed run to a folder beside the image. */
function keepLogs(space: string, image: string): void {
  const kept = join(image, '..', 'failed');
  rmSync(kept, { recursive: true, force: true });
  mkdirSync(kept);
  const files = readdirSync(space, { recursive: true, encoding: 'utf8' });
  for (const file of files.filter((name) => /\.(console|log|out)$/.test(name))) {
    copyFileSync(join(space, file), join(kept, file.replaceAll('/', '-')));
  }
  note('run', `the logs are in ${kept}`);
}

const [first, space = '', prefix = '', image = '', form] = process.argv.slice(2);
if (first === 'inside') {
  const folders = { sources, space, prefix, image };
  await runSteps(folders, form === 'short').catch((error: unknown) => failure('run', error));
  if (failureCount() > 0) keepLogs(space, image);
  process.exit(failureCount() === 0 ? 0 : 1);
} else {
  const started = Date.now();
  const { values } = parseArgs({
    options: {
      short: { type: 'boolean', default: false },
      suite: { type: 'string', default: 'bookworm' },
    },
  });
  const status = await outside(values.short, values.suite);
  const verdict = status === 0 ? 'passed' : 'FAILED';
  process.stdout.write(`\n${verdict} after ${((Date.now() - started) / 1000).toFixed(0)} s\n`);
  process.exit(status);
}
