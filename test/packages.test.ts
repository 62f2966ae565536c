import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { integrate, layPackage } from './fixtures/hook/installed.js';
import { suiteScope, temporaryFolder } from './support/cleanup.js';
import { repository } from './support/daemon.js';
import { missing } from './support/parts.js';

const folder = temporaryFolder(suiteScope());
const program = fileURLToPath(new URL('../tools/package.js', import.meta.url));

/** Makes the packages in a new folder, and gives their paths. */
function build(name: string, environment: Record<string, string> = {}) {
  const place = join(folder, name);
  mkdirSync(place);
  execFileSync(process.execPath, [program, place], {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const of = (ending: string) =>
    readdirSync(place)
      .filter((file) => file.endsWith(ending))
      .map((file) => join(place, file))[0] ?? '';
  return { deb: of('.deb'), rpm: of('.rpm') };
}

function files(root: string): string[] {
  return readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((path) => !lstatSync(join(root, path)).isDirectory())
    .sort();
}

const tool = (command: string, ...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  return { status, said: `${stdout}${stderr}` };
};

describe('the packages', { skip: missing('dpkg-deb', 'rpmbuild') }, () => {
  let deb = '';
  let rpm = '';
  const tree = join(folder, 'tree');

  before(() => {
    ({ deb, rpm } = build('one'));
    execFileSync('dpkg-deb', ['-R', deb, tree]);
  });

  it('are the same bytes each time, wherever and whenever they are made', () => {
    const sums = (paths: { deb: string; rpm: string }) =>
      [paths.deb, paths.rpm].map((path) =>
        createHash('sha256').update(readFileSync(path)).digest('hex'),
      );
    const other = join(folder, 'tmp');
    mkdirSync(other);
    assert.deepEqual(sums(build('two', { TMPDIR: other, TZ: 'Asia/Tokyo' })), sums({ deb, rpm }));
  });

  it('have what system-integration.sh lays, in the places of a package', () => {
    const prefix = join(folder, 'laid');
    mkdirSync(prefix);
    integrate(layPackage(folder), prefix);
    for (const path of files(prefix)) {
      const place = path
        .replace('etc/systemd/system/', 'usr/lib/systemd/system/')
        .replace(/^etc\/(sysusers|tmpfiles)\.d/, 'usr/lib/$1.d')
        .replace('usr/local/', 'usr/');
      const plain = (text: string) =>
        text
          .replace(/^.*Installed by mdserver's .*\n/m, '')
          .replaceAll('/usr/local/bin/', '/usr/bin/')
          .replace(/KILL 5 \S+\/node /, 'KILL 5 /usr/bin/node ');
      assert.equal(
        readFileSync(join(tree, place), 'utf8'),
        plain(readFileSync(join(prefix, path), 'utf8')),
        place,
      );
      const mode = statSync(join(tree, place)).mode & 0o777;
      assert.equal(mode, place.includes('/hooks/') ? 0o755 : 0o644, place);
    }
    const alone = files(tree).filter(
      (path) => /^(?:etc|usr\/lib)\/(?!mdserver\/)/.test(path) || path.startsWith('etc/mdserver/'),
    );
    assert.equal(
      alone.length,
      files(prefix).length - 1,
      'but for the completion, which is in usr/share',
    );
  });

  it('have each file of /etc as one that stays when it was edited', () => {
    const conffiles = readFileSync(join(tree, 'DEBIAN/conffiles'), 'utf8').trim().split('\n');
    const inEtc = files(tree).filter((path) => path.startsWith('etc/'));
    assert.deepEqual(
      conffiles,
      inEtc.map((path) => `/${path}`),
    );
    const { said } = tool('rpm', '-qp', '--configfiles', rpm);
    assert.deepEqual(said.trim().split('\n').sort(), [...conffiles].sort());
  });

  it('have the programs, which run where nothing else of mdserver is', () => {
    for (const name of ['mdserver', 'mdserverctl']) {
      const link = join(tree, 'usr/bin', name);
      assert.equal(readlinkSync(link), `../lib/mdserver/${name}.js`);
      assert.equal(readFileSync(link, 'utf8').split('\n')[0], '#!/usr/bin/node');
      const { version } = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8'));
      const { status, said } = tool(process.execPath, link, '--version');
      assert.equal(status, 0, said);
      assert.ok(said.startsWith(`${name} ${version} `), said);
    }
  });

  it('ask for a Node and a dnsmasq that do', () => {
    const control = readFileSync(join(tree, 'DEBIAN/control'), 'utf8');
    const { engines } = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8'));
    const node = engines.node.replace('>=', '');
    assert.match(control, new RegExp(`^Depends: nodejs \\(>= ${node}\\), dnsmasq-base, `, 'm'));
    const { said } = tool('rpm', '-qp', '--requires', rpm);
    // The package nodejs of Fedora and RHEL has the epoch 1: a plain "nodejs >= 20.17" is true of its 16, too.
    assert.ok(said.split('\n').includes(`nodejs(engine) >= ${node}`), said);
    assert.match(said, /^dnsmasq$/m);
  });

  it('have scripts that the shell can read, and the same steps in both', {
    skip: missing('shellcheck'),
  }, () => {
    const scripts = ['preinst', 'postinst', 'prerm', 'postrm'].map((name) =>
      join(tree, 'DEBIAN', name),
    );
    assert.deepEqual(tool('shellcheck', ...scripts), { status: 0, said: '' });
    const { said } = tool('rpm', '-qp', '--scripts', rpm);
    for (const name of ['unmarked', 'prepared', 'installed', 'stopped'])
      assert.ok(said.includes(`${name}() {`), name);
  });

  it('make way for themselves at a first installation over one from npm, but keep what was edited', () => {
    const prefix = join(folder, 'over-npm');
    mkdirSync(prefix);
    integrate(layPackage(folder), prefix);
    const hooks = ['qemu', 'network'].map((name) => `etc/libvirt/hooks/${name}.d/mdserver`);
    appendFileSync(join(prefix, hooks[0] ?? ''), '// edited\n');
    const before = files(prefix);
    const inPrefix = readFileSync(join(tree, 'DEBIAN/preinst'), 'utf8').replaceAll(
      / \/(?=etc\/)/g,
      ` ${prefix}/`,
    );
    const preinst = (...args: string[]) => tool('sh', '-c', inPrefix, 'preinst', ...args);

    // Of a package that was removed and not purged, dpkg would not install them again.
    assert.deepEqual(preinst('install', '1.0.0'), { status: 0, said: '' });
    assert.deepEqual(files(prefix), before);

    const gone = [hooks[1] ?? '', 'etc/logrotate.d/mdserver'];
    const { status, said } = preinst('install');
    assert.equal(status, 0, said);
    assert.deepEqual(
      files(prefix),
      before.filter((path) => !gone.includes(path)),
    );
    assert.ok(said.includes(`${hooks[0]} was edited`), said);
  });

  it('pass lintian', { skip: missing('lintian') }, () => {
    const { status, said } = tool('lintian', '--fail-on', 'error,warning', deb);
    assert.equal(status, 0, said);
    assert.doesNotMatch(said, /^[EW]:/m);
  });

  it('pass rpmlint', { skip: missing('rpmlint') }, () => {
    const { status, said } = tool(
      'rpmlint',
      '-c',
      join(repository, 'tools/packaging/rpmlint.toml'),
      rpm,
    );
    assert.equal(status, 0, said);
    assert.match(said, / 0 errors, 0 warnings,/);
  });
});
