import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, it, test } from 'node:test';
import semver from 'semver';
import { bundle } from '../tools/bundle.js';
import { freshFiles, integrate } from './fixtures/hook/installed.js';
import { suiteScope, temporaryFolder } from './support/cleanup.js';
import { repository } from './support/daemon.js';

function read(path: string): string {
  return readFileSync(join(repository, path), 'utf8');
}

const { version, releaseDate, engines, man } = JSON.parse(read('package.json'));

/** A package in package-lock.json. */
interface LockedPackage {
  readonly version: string;
  readonly engines?: { readonly node?: string };
}

function filesBelow(root: string): string[] {
  return readdirSync(root, { recursive: true, withFileTypes: true, encoding: 'utf8' })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name).slice(root.length + 1))
    .sort();
}

describe('the package', () => {
  const folder = temporaryFolder(suiteScope());
  const root = join(folder, 'package');
  let files: string[];

  before(() => {
    // Without scripts: "prepack" would build anew, under the feet of the tests.
    const args = ['pack', '--ignore-scripts', '--pack-destination', folder];
    execFileSync('npm', args, { cwd: repository, stdio: 'pipe' });
    execFileSync('tar', ['-xzf', `mdserver-${version}.tgz`], { cwd: folder });
    files = filesBelow(root);
  });

  it('has what runs, what is installed and what is read, and nothing else', () => {
    const allowed = [
      /^package\.json$/,
      /^LICENSE$/,
      /^(?:CHANGELOG|CONTRIBUTING|README|RELEASING|SECURITY)\.md$/,
      /^docs\/[a-z0-9-]+\.md$/,
      /^dist\/hooks\/qemu\.js$/,
      /^dist\/bundle\/(?:mdserver|mdserver-code|mdserverctl|as-daemon-child|comparison-child)\.js$/,
      /^dist\/bundle\/(?:package\.json|licences\.txt)$/,
      /^etc\/(?:bash-completion|grafana|libvirt|logrotate|man|mdserver)\/.+$/,
      /^systemd\/mdserver(?:-dnsmasq)?\.service$/,
      /^systemd\/mdserver-dnsmasq\.target$/,
      /^systemd\/mdserver\.(?:sysusers|tmpfiles)$/,
      /^system-integration\.sh$/,
    ];
    assert.deepEqual(
      files.filter((file) => !allowed.some((pattern) => pattern.test(file))),
      [],
    );
    for (const pattern of allowed)
      assert.ok(
        files.some((file) => pattern.test(file)),
        `${pattern}`,
      );
    for (const page of man) assert.ok(files.includes(page), page);
  });

  it('is installed by npm at once, without a registry, and its programs start', () => {
    const prefix = join(folder, 'prefix');
    const env = {
      PATH: process.env['PATH'],
      HOME: folder,
      // Where nobody listens.
      npm_config_registry: 'http://127.0.0.1:9/',
      npm_config_cache: join(folder, 'cache'),
    };
    const tarball = join(folder, `mdserver-${version}.tgz`);
    const started = performance.now();
    execFileSync('npm', ['install', '-g', '--prefix', prefix, tarball], { env, stdio: 'pipe' });
    const seconds = (performance.now() - started) / 1000;
    // npm itself takes 1. For a package that it does not find it tries for 93.
    assert.ok(seconds < 30, `${seconds} s`);
    for (const name of ['mdserver', 'mdserverctl']) {
      const { status, stdout, stderr } = spawnSync(join(prefix, 'bin', name), ['--version'], {
        encoding: 'utf8',
      });
      assert.deepEqual(
        { status, stdout, stderr },
        { status: 0, stdout: `${name} ${version} (${releaseDate})\n`, stderr: '' },
      );
    }
  });

  it('has all that system-integration.sh installs', () => {
    const prefix = join(folder, 'root');
    mkdirSync(prefix);
    integrate(root, prefix);
    const installed = filesBelow(prefix);
    for (const file of freshFiles) {
      assert.ok(installed.includes(file), file);
    }
  });
});

describe('a release', () => {
  it('is the newest one of the changelog', () => {
    const [newest] = [...read('CHANGELOG.md').matchAll(/^## (?!Unreleased$)(.*)$/gm)];
    assert.equal(newest?.[1], `${version} (${releaseDate})`);
  });

  it('is the one that the man pages name', () => {
    const titles = man.map((page: string) => /^\.TH .*$/m.exec(read(page))?.[0]);
    for (const title of titles) {
      const plain = title?.replaceAll('\\-', '-');
      assert.ok(plain?.includes(`"${releaseDate}" "mdserver ${version}"`), plain);
    }
  });

  it('has the version in package-lock.json, too', () => {
    const lock = JSON.parse(read('package-lock.json'));
    assert.deepEqual([lock.version, lock.packages[''].version], [version, version]);
  });
});

test('every package in the programs runs on the oldest Node', async (t) => {
  const oldest = semver.minVersion(engines.node)?.version ?? '';
  const bundled = await bundle(temporaryFolder(t));
  const names = new Set(bundled.map(({ name, version }) => `${name} ${version}`));
  const locked = Object.entries<LockedPackage>(JSON.parse(read('package-lock.json')).packages)
    .map(([path, { version, engines }]) => ({
      name: `${path.replace(/^.*node_modules\//, '')} ${version}`,
      node: engines?.node ?? '*',
    }))
    .filter(({ name }) => names.has(name));
  assert.deepEqual(new Set(locked.map(({ name }) => name)), names);
  assert.deepEqual(
    locked.filter(({ node }) => !semver.satisfies(oldest, node)),
    [],
  );
});

test('a checkout without its packages says what to run first', (t) => {
  const checkout = temporaryFolder(t);
  for (const file of ['package.json', 'README.md']) {
    copyFileSync(join(repository, file), join(checkout, file));
  }
  // Of the npm that runs the tests, npm would take over its settings, and its folders of programs.
  const { PATH = '', ...others } = process.env;
  const env = Object.fromEntries(Object.entries(others).filter(([name]) => !/^npm_/i.test(name)));
  const path = PATH.split(':').filter((folder) => !folder.includes('node_modules'));
  const { status, stderr } = spawnSync('npm', ['pack'], {
    cwd: checkout,
    encoding: 'utf8',
    env: { ...env, PATH: path.join(':') },
  });
  assert.notEqual(status, 0);
  assert.ok(stderr.includes('the compiler is not here: run npm ci first\n'), stderr);
});
