import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { before, describe, it, test } from 'node:test';
import semver from 'semver';
import { freshFiles, integrate } from './fixtures/hook/installed.js';
import { suiteScope, temporaryFolder } from './support/cleanup.js';
import { repository } from './support/daemon.js';

function read(path: string): string {
  return readFileSync(join(repository, path), 'utf8');
}

const { version, releaseDate, engines, dependencies, man } = JSON.parse(read('package.json'));

/** A package in package-lock.json. */
interface LockedPackage {
  readonly version: string;
  readonly dev?: true;
  readonly engines?: { readonly node?: string };
}

/** What is installed with mdserver, by its folder. */
const production = Object.entries<LockedPackage>(
  JSON.parse(read('package-lock.json')).packages,
).filter(([path, { dev }]) => path !== '' && !dev);

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
    for (const [path] of production) {
      if (path.lastIndexOf('node_modules/') > 0) continue;
      mkdirSync(dirname(join(root, path)), { recursive: true });
      symlinkSync(join(repository, path), join(root, path));
    }
  });

  it('has what runs, what is installed and what is read, and nothing else', () => {
    const allowed = [
      /^package\.json$/,
      /^LICENSE$/,
      /^(?:CHANGELOG|CONTRIBUTING|README|RELEASING|SECURITY)\.md$/,
      /^docs\/[a-z0-9-]+\.md$/,
      /^dist\/hooks\/qemu\.js$/,
      /^dist\/src\/.+\.js$/,
      /^etc\/(?:bash-completion|grafana|libvirt|logrotate|man|mdserver)\/.+$/,
      /^systemd\/mdserver(?:-dnsmasq)?\.service$/,
      /^systemd\/mdserver-dnsmasq\.target$/,
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

  it('has every module of src/, and none that is gone from it', () => {
    const modules = filesBelow(join(repository, 'src')).map((file) => file.replace(/ts$/, 'js'));
    const packed = files.filter((file) => file.startsWith('dist/src/'));
    assert.deepEqual(
      packed,
      modules.map((file) => `dist/src/${file}`),
    );
  });

  it('has programs that start with the production dependencies alone', () => {
    const run = (path: string) => {
      // The maps that the modules name are not in the package: that is not to disturb anybody.
      const args = ['--enable-source-maps', join(root, path), '--version'];
      const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
      return { status, stdout, stderr };
    };
    const { bin } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    assert.deepEqual(run(bin.mdserver), {
      status: 0,
      stdout: `mdserver ${version} (${releaseDate})\n`,
      stderr: '',
    });
    assert.deepEqual(run(bin.mdserverctl), {
      status: 0,
      stdout: `mdserverctl ${version} (${releaseDate})\n`,
      stderr: '',
    });
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

// fastify asks for light-my-request ^6, and from 6.8 on that brings cookie 2, which requires Node 22.
// "overrides" do not count in an installed package, so it is a dependency of ours, held at 6.6.
test('every production dependency runs on the oldest Node: light-my-request is held for that', () => {
  const oldest = semver.minVersion(engines.node)?.version ?? '';
  const tooNew = production.filter(
    ([, { engines }]) => engines?.node !== undefined && !semver.satisfies(oldest, engines.node),
  );
  assert.deepEqual(
    tooNew.map(([path, { version, engines }]) => `${path} ${version}: ${engines?.node}`),
    [],
  );
});

test('light-my-request is held only while Node 20 is supported', () => {
  const oldest = semver.minVersion(engines.node)?.version ?? '';
  const held = Object.hasOwn(dependencies, 'light-my-request');
  assert.equal(
    held,
    semver.lt(oldest, '22.0.0'),
    'cookie 2 runs on Node 22: remove the dependency',
  );
});
