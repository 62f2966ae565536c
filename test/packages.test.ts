import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { integrate, layPackage } from './fixtures/hook/installed.js';
import { suiteScope, temporaryFolder } from './support/cleanup.js';
import { repository } from './support/daemon.js';
import { missing } from './support/parts.js';

const folder = temporaryFolder(suiteScope());
const program = fileURLToPath(new URL('../tools/package.js', import.meta.url));

/** Makes the packages in a new folder, and gives their paths. */
function build(name: string, environment: Record<string, string> = {}, tool = program) {
  const place = join(folder, name);
  mkdirSync(place);
  execFileSync(process.execPath, [tool, place], {
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

/** Makes the packages of a copy of the sources that these lines are added to. */
function buildNewer(version: string, lines: Record<string, string>) {
  const copy = join(folder, 'newer-sources');
  const outside = ['.git', 'node_modules'].map((name) => join(repository, name));
  cpSync(repository, copy, { recursive: true, filter: (path) => !outside.includes(path) });
  symlinkSync(join(repository, 'node_modules'), join(copy, 'node_modules'));
  for (const [path, text] of Object.entries(lines)) appendFileSync(join(copy, path), text);
  const settings = join(copy, 'package.json');
  const own = readFileSync(settings, 'utf8');
  writeFileSync(settings, JSON.stringify({ ...JSON.parse(own), version }));
  return build('newer', {}, join(copy, 'dist/tools/package.js'));
}

const systemctl = `#!/bin/sh
echo "$@" >>/tmp/systemctl
case "$*" in
  *is-active*) exit 1 ;;
  *enable*) action=enable ;;
  *disable*) action=disable ;;
  *) exit 0 ;;
esac
SYSTEMD_OFFLINE=1 exec systemctl.real --quiet $action mdserver.service
`;

/**
 * A host that starts as this machine is and keeps what is done to it. Its systemctl does not reach this machine's
 * systemd: it notes how it is called, and only enables and disables.
 */
function newHost(name: string) {
  const space = join(folder, name);
  const root = join(space, 'root');
  for (const path of ['root/proc', 'root/dev', 'root/run', 'root/root', 'root/tmp', 'packages']) {
    mkdirSync(join(space, path), { recursive: true });
  }
  for (const path of ['bin', 'sbin', 'lib', 'lib64']) symlinkSync(`usr/${path}`, join(root, path));
  for (const path of ['etc', 'usr', 'var'].flatMap((path) => [
    `root/${path}`,
    `upper/${path}`,
    `work/${path}`,
  ])) {
    mkdirSync(join(space, path), { recursive: true });
  }
  const mounts = ['etc', 'usr', 'var'].map(
    (path) =>
      `mount -t overlay -o "lowerdir=/${path},upperdir=$space/upper/${path},workdir=$space/work/${path}" overlay "$root/${path}"`,
  );
  const script = `set -e
space=$1 root=$1/root
${mounts.join('\n')}
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec chroot "$root" /bin/sh -c "$2"`;
  /** Runs a script of the shell on the host. */
  const run = (commands: string) =>
    tool(
      'unshare',
      '--mount',
      '--propagation',
      'private',
      'bash',
      '-c',
      script,
      'sh',
      space,
      commands,
    );
  const host = {
    run,
    /** Puts a file or a folder on the host and gives the path that it has there. */
    take: (path: string) => {
      cpSync(path, join(root, 'tmp', basename(path)), { recursive: true });
      return `/tmp/${basename(path)}`;
    },
    /** The files that the host has and this machine has not. */
    files: () =>
      files(join(space, 'upper')).filter(
        (path) => !ofHost.test(path) && !lstatSync(join(space, 'upper', path)).isCharacterDevice(),
      ),
    /** What systemctl was called with, since this was last asked. */
    calls: () => {
      const log = join(root, 'tmp/systemctl');
      const lines = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : [];
      rmSync(log, { force: true });
      return lines;
    },
  };
  writeFileSync(join(root, 'tmp/shim'), systemctl);
  const said = run(`
    rm -rf /etc/mdserver /var/lib/mdserver /var/log/mdserver /etc/libvirt/hooks /etc/systemd/system/*
    mkdir -p /run/systemd/system /var/lib/rpm
    if id mdserver >/dev/null 2>&1; then userdel mdserver; fi
    if [ ! -e /usr/bin/node ]; then cp "${process.execPath}" /usr/bin/node; fi
    mv /usr/bin/systemctl /usr/bin/systemctl.real
    cp /tmp/shim /usr/bin/systemctl && chmod 755 /usr/bin/systemctl && rm /tmp/shim`);
  assert.deepEqual(said, { status: 0, said: '' });
  return host;
}
/** Where the host of a test differs from this machine by more than what packages install. */
const ofHost =
  /^etc\/(?:(?:passwd|group|g?shadow)-?|\.pwd\.lock)$|^var\/lib\/rpm\/|^usr\/bin\/(?:systemctl(?:\.real)?|node)$/;

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

  describe('the .rpm', { skip: missing('root', 'unshare', 'rpmbuild', 'systemd-analyze') }, () => {
    // What it requires is not here: --nodeps.
    const rpmOf = (...args: string[]) =>
      `rpm --define '_dbpath /var/lib/rpm' --force-debian ${args.join(' ')}`;
    const version = '99.0.0';
    let newer = '';

    before(() => {
      newer = buildNewer(version, {
        'etc/mdserver/mdserver.conf': '# newer\n',
        'etc/logrotate/mdserver': '# newer\n',
        'systemd/mdserver.service': '# newer\n',
        'dist/hooks/qemu.js': '\n// newer\n',
      }).rpm;
    });

    describe('on a host that has no mdserver', () => {
      let host: ReturnType<typeof newHost>;
      before(() => {
        host = newHost('host');
      });
      const foreign = ['etc/libvirt/hooks/qemu', 'etc/libvirt/hooks/qemu.d/other'];
      const owners = (...paths: string[]) =>
        host
          .run(`stat -c '%U:%G %a %n' ${paths.join(' ')}`)
          .said.trim()
          .split('\n');

      it('installs each file as it is in the package, with its owner and mode', () => {
        const [hook = '', beside] = foreign;
        host.run(`mkdir -p /${hook}.d && echo '#!/bin/sh' | tee /${hook} /${beside}`);
        const { status, said } = host.run(rpmOf('-i --nodeps', host.take(rpm)));
        assert.equal(status, 0, said);
        assert.match(said, /^Creating group 'mdserver' .*\nCreating user 'mdserver' .*\n$/);
        assert.deepEqual(host.run(rpmOf('-V --nodeps', 'mdserver')), { status: 0, said: '' });
        assert.deepEqual(host.calls(), [
          'daemon-reload',
          '--quiet is-active libvirtd.service',
          '--quiet is-active virtqemud.service',
        ]);
        assert.deepEqual(
          owners(
            '/etc/mdserver',
            '/etc/mdserver/conf.d',
            '/etc/mdserver/userdata',
            '/etc/mdserver/mdserver.conf',
            '/etc/logrotate.d/mdserver',
            '/etc/libvirt/hooks/qemu.d/mdserver',
            '/etc/libvirt/hooks/network.d/mdserver',
            '/usr/lib/systemd/system/mdserver.service',
            '/usr/lib/mdserver/mdserver.js',
            '/var/lib/mdserver',
            '/var/lib/mdserver/spool',
            '/var/log/mdserver',
          ),
          [
            'root:mdserver 750 /etc/mdserver',
            'root:mdserver 750 /etc/mdserver/conf.d',
            'root:mdserver 750 /etc/mdserver/userdata',
            'root:mdserver 640 /etc/mdserver/mdserver.conf',
            'root:root 644 /etc/logrotate.d/mdserver',
            'root:root 755 /etc/libvirt/hooks/qemu.d/mdserver',
            'root:root 755 /etc/libvirt/hooks/network.d/mdserver',
            'root:root 644 /usr/lib/systemd/system/mdserver.service',
            'root:root 755 /usr/lib/mdserver/mdserver.js',
            'mdserver:mdserver 755 /var/lib/mdserver',
            'mdserver:mdserver 700 /var/lib/mdserver/spool',
            'mdserver:mdserver 750 /var/log/mdserver',
          ],
        );
      });

      it('installs programs that its user can run with its configuration, and units that systemd takes', () => {
        const check = 'setpriv --reuid mdserver --regid mdserver --clear-groups mdserver --check';
        const { status, said } = host.run(`cd / && ${check} /etc/mdserver/mdserver.conf`);
        assert.equal(status, 0, said);
        const units = 'mdserver.service mdserver-dnsmasq.service mdserver-dnsmasq.target';
        const verified = host.run(
          `cd /usr/lib/systemd/system && systemd-analyze verify --man=no --recursive-errors=no ${units}`,
        );
        assert.equal(verified.status, 0, verified.said);
      });

      it('is upgraded to a newer one: edits, owners and modes of the operator stay', () => {
        const configuration = '/etc/mdserver/mdserver.conf';
        const edits = host.run(`
          printf '[mdserver]\ndb_file = /srv/mds/db.json\n[dnsmasq]\nuser = daemon\n' >${configuration}
          chgrp -R daemon /etc/mdserver
          chmod -x /etc/libvirt/hooks/network.d/mdserver
          echo '[public-keys]' >/etc/mdserver/conf.d/keys.conf
          echo text >/etc/mdserver/userdata/web1
          echo '{}' >/var/lib/mdserver/db_file.json
          systemctl --quiet enable mdserver.service`);
        assert.deepEqual(edits, { status: 0, said: '' });
        const edited = host.run(`cat ${configuration}`).said;
        host.calls();

        const { status, said } = host.run(rpmOf('-U --nodeps', host.take(newer)));
        assert.equal(status, 0, said);
        assert.deepEqual(
          said.split('\n').filter((line) => line.startsWith('warning')),
          [`warning: ${configuration} created as ${configuration}.rpmnew`],
        );
        assert.equal(host.run(rpmOf('-q', 'mdserver')).said, `mdserver-${version}-1.noarch\n`);
        assert.equal(host.run(`cat ${configuration}`).said, edited);
        const updated = ['logrotate.d/mdserver', 'mdserver/mdserver.conf.rpmnew'].map(
          (name) => `/etc/${name}`,
        );
        updated.push(
          '/usr/lib/systemd/system/mdserver.service',
          '/etc/libvirt/hooks/network.d/mdserver',
        );
        for (const path of updated)
          assert.match(host.run(`tail -n 1 ${path}`).said, / newer$/m, path);
        assert.deepEqual(
          owners(
            '/etc/mdserver',
            '/etc/mdserver/mdserver.conf',
            '/etc/mdserver/mdserver.conf.rpmnew',
            '/etc/libvirt/hooks/qemu.d/mdserver',
            '/etc/libvirt/hooks/network.d/mdserver',
          ),
          [
            'root:daemon 750 /etc/mdserver',
            'root:daemon 640 /etc/mdserver/mdserver.conf',
            'root:daemon 640 /etc/mdserver/mdserver.conf.rpmnew',
            'root:root 755 /etc/libvirt/hooks/qemu.d/mdserver',
            'root:root 644 /etc/libvirt/hooks/network.d/mdserver',
          ],
        );
        assert.match(said, /wrote \/etc\/systemd\/system\/mdserver.service.d\/integrate.conf/);
        // The last is that of the old package.
        assert.deepEqual(host.calls(), [
          'daemon-reload',
          'daemon-reload',
          'try-restart mdserver.service',
          'daemon-reload',
        ]);
      });

      it('is erased: it stops and disables its units, and leaves what the operator and mdserver made', () => {
        const { status, said } = host.run(rpmOf('-e', 'mdserver'));
        assert.equal(status, 0, said);
        assert.equal(
          said,
          'warning: /etc/mdserver/mdserver.conf saved as /etc/mdserver/mdserver.conf.rpmsave\n',
        );
        assert.deepEqual(host.calls(), [
          '--quiet disable --now mdserver.service',
          '--quiet stop mdserver-dnsmasq.target mdserver-dnsmasq.service',
          'daemon-reload',
        ]);
        assert.deepEqual(host.files(), [
          ...foreign,
          'etc/mdserver/conf.d/keys.conf',
          'etc/mdserver/mdserver.conf.rpmnew',
          'etc/mdserver/mdserver.conf.rpmsave',
          'etc/mdserver/userdata/web1',
          'var/lib/mdserver/db_file.json',
        ]);
      });
    });

    it('takes the place of an installation from npm, but keeps its configuration', () => {
      const host = newHost('npm-host');
      const laid = join(folder, 'npm-prefix');
      mkdirSync(laid);
      integrate(layPackage(folder), laid);
      const configuration = join(laid, 'etc/mdserver/mdserver.conf');
      appendFileSync(configuration, '[public-keys]\n');
      chmodSync(configuration, 0o600);
      host.run(`cp -a ${host.take(laid)}/. /`);

      const { status, said } = host.run(rpmOf('-i --nodeps', host.take(rpm)));
      assert.equal(status, 0, said);
      const ofPackage = host.run(rpmOf('-ql', 'mdserver')).said.split('\n');
      assert.deepEqual(
        host.files().filter((path) => !ofPackage.includes(`/${path}`)),
        ['etc/mdserver/mdserver.conf.rpmnew'],
      );
      // The configuration is the operator's; all else is the package's.
      const verified = host.run(rpmOf('-V --nodeps', 'mdserver')).said;
      assert.match(verified, /^\S+ +c \/etc\/mdserver\/mdserver.conf\n$/);
    });
  });
});
