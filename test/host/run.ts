/*
 * Installs mdserver's package on a machine with systemd as process 1: npm run test:host
 *
 * The machine is a virtual one of Debian 13, with libvirt and AppArmor, that QEMU emulates: it needs no
 * KVM and no root. Its image needs root, once. This machine changes in nothing except
 * ${XDG_CACHE_HOME:-/var/cache}/mdserver-host, the folder of the image.
 */
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { checkPrograms, imageCache, makeImage } from '../support/images.js';
import { run } from '../support/processes.js';
import { failure, failureCount, heading, note, step } from '../support/report.js';
import { type Machine, startMachine } from './machine.js';
import { runSteps } from './steps.js';

const repository = fileURLToPath(new URL('../../../', import.meta.url));
const sources = join(repository, 'test', 'host');
const cache = imageCache('mdserver-host');

/** The required programs and their Debian packages. */
const parts = {
  'qemu-system-x86_64': 'qemu-system-x86',
  'qemu-img': 'qemu-utils',
  debootstrap: 'debootstrap',
  'mkfs.ext4': 'e2fsprogs',
  'dpkg-deb': 'dpkg',
  ssh: 'openssh-client',
  'ssh-keygen': 'openssh-client',
  unshare: 'util-linux',
};

/** The package that `npm run package` has made. */
function builtPackage(): string {
  const dist = join(repository, 'dist');
  const found = readdirSync(dist).filter((name) => /^mdserver_.*_all\.deb$/.test(name));
  const [name] = found;
  if (name === undefined || found.length > 1) {
    throw new Error(`${found.length} packages in dist, expected one: npm run package`);
  }
  return join(dist, name);
}

/**
 * The package as an earlier version, 0.9.0, whose shipped configuration and hook differ from this
 * version's, for an upgrade. It gets the name of the package in the folder.
 */
async function makeEarlier(built: string, folder: string): Promise<string> {
  const tree = join(folder, 'tree');
  await run('dpkg-deb', ['-R', built, tree]);
  const control = join(tree, 'DEBIAN', 'control');
  writeFileSync(control, readFileSync(control, 'utf8').replace(/^Version: .*$/m, 'Version: 0.9.0'));
  for (const [path, comment] of [
    ['etc/mdserver/mdserver.conf', '#'],
    ['etc/logrotate.d/mdserver', '#'],
    ['etc/libvirt/hooks/qemu.d/mdserver', '//'],
  ] as const) {
    const file = join(tree, path);
    writeFileSync(file, `${readFileSync(file, 'utf8')}${comment} as in 0.9.0\n`);
  }
  const earlier = join(folder, 'mdserver_0.9.0_all.deb');
  await run('dpkg-deb', ['--root-owner-group', '-b', tree, earlier]);
  return earlier;
}

/** Copies the console and the journal of a failed run to a folder beside the image. */
async function keepLogs(space: string, machine: Machine | undefined): Promise<void> {
  const kept = join(cache, 'failed');
  rmSync(kept, { recursive: true, force: true });
  mkdirSync(kept, { recursive: true });
  copyFileSync(join(space, 'machine.console'), join(kept, 'machine.console'));
  const journal = await machine?.sh('journalctl --no-pager').catch(() => undefined);
  if (journal !== undefined) writeFileSync(join(kept, 'journal'), journal);
  note('run', `the console and the journal are in ${kept}`);
}

interface Options {
  readonly suite: string;
  readonly only?: string | undefined;
  readonly short: boolean;
}

async function runAll({ suite, only, short: isShort }: Options): Promise<void> {
  await checkPrograms(parts);
  heading('Preparation');
  const image = await step('image', `the machine's image, ${suite}`, () =>
    makeImage(join(sources, 'image.sh'), cache, suite),
  );
  const space = mkdtempSync('/tmp/mdserver-host-');
  process.once('exit', () => rmSync(space, { recursive: true, force: true }));
  const packages = await step('package', 'this version, and the same as 0.9.0', async () => {
    const built = builtPackage();
    return { built, earlier: await makeEarlier(built, space) };
  });
  if (image === undefined || packages === undefined) return;
  const prelude = readFileSync(join(sources, 'prelude.sh'), 'utf8');
  const readme = readFileSync(join(repository, 'README.md'), 'utf8');
  const machine = await step('machine', 'boots', () => startMachine(image, space, prelude));
  if (machine !== undefined) {
    await runSteps(machine, { ...packages, readme, only, isShort }).catch((error: unknown) =>
      failure('run', error),
    );
  }
  if (failureCount() > 0) await keepLogs(space, machine);
  await machine?.stop();
}

// Ends what the handlers of 'exit' end: QEMU, the folder of the run.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => process.exit(1));
}
const started = Date.now();
const { values } = parseArgs({
  options: {
    suite: { type: 'string', default: 'trixie' },
    only: { type: 'string' },
    short: { type: 'boolean', default: false },
  },
});
await runAll(values);
const verdict = failureCount() === 0 ? 'passed' : 'FAILED';
process.stdout.write(`\n${verdict} after ${((Date.now() - started) / 1000).toFixed(0)} s\n`);
process.exit(failureCount() === 0 ? 0 : 1);
