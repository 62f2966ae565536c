/*
 * Makes the packages: npm run package [-- FOLDER]
 *
 *   mdserver_VERSION_all.deb        if dpkg-deb is here
 *   mdserver-VERSION-1.noarch.rpm   if rpmbuild is here
 *
 * in FOLDER, or dist.
 *
 * Both have the files that system-integration.sh lays, in the folders of a package. It needs no root, and
 * the same sources give the same bytes.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { bundle } from './bundle.js';
import { type BundledPackage, licencesText } from './licences.js';

const repository = fileURLToPath(new URL('../../', import.meta.url));
/** Where the packages go. */
const output = process.argv[2] ?? join(repository, 'dist');
const packaging = join(repository, 'tools/packaging');

const maintainer = 'mdserver developers <maintainers@mdserver.dev>';
const summary = 'metadata server for cloud images on a plain KVM/libvirt host';
const description = `Vendor cloud images ask 169.254.169.254 for their host name, SSH keys and
user-data. mdserver answers: EC2 metadata, NoCloud over HTTP and OpenStack
metadata. It gives each instance an address and runs a dnsmasq for DHCP and
DNS. libvirt tells it about each instance through a hook.`;

const ownLicence = `mdserver\n\n${readFileSync(join(repository, 'LICENSE'), 'utf8')}`;

interface Release {
  readonly version: string;
  /** Unix seconds. */
  readonly time: number;
}

function release(): Release {
  const { version, releaseDate } = JSON.parse(
    readFileSync(join(repository, 'package.json'), 'utf8'),
  );
  const time = process.env['SOURCE_DATE_EPOCH'] ?? Date.parse(`${releaseDate}T00:00:00Z`) / 1000;
  return { version, time: Number(time) };
}

function write(path: string, content: string | Buffer, mode = 0o644): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  chmodSync(path, mode);
}

/** Compresses without a name and a time, which would differ from one build to the next. */
function zipped(text: string | Buffer): Buffer {
  return gzipSync(text, { level: 9 });
}

/** The files below a folder, links included, in order. */
function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}

/** What system-integration.sh lays below a folder, without the marks by which it knows its own files. */
function laidFiles(folder: string): Map<string, string> {
  execFileSync('bash', [join(repository, 'system-integration.sh')], {
    env: { PATH: process.env['PATH'], PREFIX: folder },
    stdio: ['ignore', 'ignore', 'ignore'],
  });
  return new Map(
    filesIn(folder).map((path) => [
      path,
      readFileSync(join(folder, path), 'utf8').replace(/^.*Installed by mdserver's .*\n/m, ''),
    ]),
  );
}

/** Where a package has a file that system-integration.sh lays; with what it has in place of local paths. */
function packaged(path: string, text: string): [path: string, text: string] {
  const place = path
    .replace('etc/systemd/system/', 'usr/lib/systemd/system/')
    .replace(/^etc\/(sysusers|tmpfiles)\.d\//, 'usr/lib/$1.d/')
    .replace('usr/local/share/', 'usr/share/');
  const programs = text
    .replaceAll('/usr/local/bin/mdserver', '/usr/bin/mdserver')
    .replace(/^(':' \/\/;.*) \S+\/node "\$0"/m, '$1 /usr/bin/node "$0"');
  return [place, programs];
}

/** Makes the tree that both packages have. Returns what else is in the programs. */
async function stage(root: string): Promise<readonly BundledPackage[]> {
  const work = mkdtempSync(join(tmpdir(), 'mdserver-package-'));
  try {
    for (const [path, text] of laidFiles(work)) {
      const [place, content] = packaged(path, text);
      write(join(root, place), content, place.includes('/hooks/') ? 0o755 : 0o644);
    }
  } finally {
    rmSync(work, { recursive: true });
  }
  const share = join(root, 'usr/share');
  const program = join(root, 'usr/lib/mdserver');
  const packages = await bundle(program, '/usr/bin/node');
  mkdirSync(join(root, 'usr/bin'), { recursive: true });
  for (const name of ['mdserver', 'mdserverctl']) {
    symlinkSync(`../lib/mdserver/${name}.js`, join(root, 'usr/bin', name));
  }
  for (const folder of ['conf.d', 'userdata']) {
    mkdirSync(join(root, 'etc/mdserver', folder), { recursive: true });
  }
  for (const page of readdirSync(join(repository, 'etc/man'))) {
    const text = readFileSync(join(repository, 'etc/man', page));
    write(join(share, `man/man${page.at(-1)}`, `${page}.gz`), zipped(text));
  }
  for (const part of ['etc/libvirt', 'etc/grafana']) {
    cpSync(join(repository, part), join(share, 'mdserver'), { recursive: true });
  }
  const doc = join(share, 'doc/mdserver');
  cpSync(join(repository, 'docs'), doc, { recursive: true });
  for (const file of ['README.md', 'SECURITY.md']) cpSync(join(repository, file), join(doc, file));
  write(join(doc, 'CHANGES.md.gz'), zipped(readFileSync(join(repository, 'CHANGELOG.md'))));
  return packages;
}

/** Gives all files and folders the modes of a package, and the time of the release. */
function normalise(root: string, { time }: Release): void {
  const entries = readdirSync(root, { recursive: true, withFileTypes: true });
  for (const entry of entries) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isDirectory()) chmodSync(path, 0o755);
    else if (entry.isFile()) chmodSync(path, (statSync(path).mode & 0o100) === 0 ? 0o644 : 0o755);
    if (!entry.isSymbolicLink()) utimesSync(path, time, time);
  }
}

function script(name: string): string {
  return readFileSync(join(packaging, `${name}.sh`), 'utf8').replace(/^(?:# .*\n)+\n?/, '');
}

/** The scripts as functions of the shell. */
function functionsOf(names: readonly string[]): string {
  return names.map((name) => `${name}() {\n${script(name)}}\n`).join('\n');
}

/** A shell script of Debian's that calls the parts as functions. */
function debianScript(parts: readonly string[], main: string): string {
  return `#!/bin/sh\nset -e\n\n${functionsOf(parts)}\n${main}`;
}

const reload = 'if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi';

const debianScripts: Readonly<Record<string, string>> = {
  preinst: debianScript(
    ['unmarked', 'prepared'],
    `if [ "$1" = install ] && [ -z "$2" ]; then prepared; fi\n`,
  ),
  postinst: debianScript(
    ['unmarked', 'installed'],
    `case $1 in
  configure) if [ -z "$2" ]; then installed new; else installed upgrade; fi ;;
esac
`,
  ),
  prerm: debianScript(['stopped'], `if [ "$1" = remove ]; then stopped; fi\n`),
  postrm: debianScript(
    ['unintegrated', 'purged'],
    `${reload}
if [ "$1" = purge ]; then purged; fi
`,
  ),
};

/** Writes the .deb. */
function buildDeb(
  root: string,
  packages: readonly BundledPackage[],
  { version, time }: Release,
): string {
  const doc = join(root, 'usr/share/doc/mdserver');
  // Debian has this licence on every machine.
  const common = 'The text is in /usr/share/common-licenses/Apache-2.0.\n';
  const ofDebian = packages.map((one) =>
    one.licence === 'Apache-2.0' ? { ...one, text: common } : one,
  );
  write(join(doc, 'copyright'), `${ownLicence}\n\n${licencesText(ofDebian)}`);
  const date = new Date(time * 1000).toUTCString().replace('GMT', '+0000');
  write(
    join(doc, 'changelog.gz'),
    zipped(
      `mdserver (${version}) unstable; urgency=medium\n\n  * CHANGES.md.gz has the changes of this release.\n\n -- ${maintainer}  ${date}\n`,
    ),
  );
  write(
    join(root, 'usr/share/lintian/overrides/mdserver'),
    readFileSync(join(packaging, 'lintian-overrides')),
  );
  const control = join(root, 'DEBIAN');
  const size = filesIn(root).reduce(
    (sum, path) => sum + Math.ceil(statSync(join(root, path)).size / 1024),
    0,
  );
  write(
    join(control, 'control'),
    `Package: mdserver
Version: ${version}
Architecture: all
Maintainer: ${maintainer}
Installed-Size: ${size}
Depends: nodejs (>= 20.17), dnsmasq-base, systemd (>= 250), adduser | passwd
Recommends: libvirt-daemon-system, libvirt-clients, logrotate
Section: admin
Priority: optional
Description: ${summary}
${description.replaceAll(/^/gm, ' ')}
`,
  );
  const conffiles = filesIn(root).filter((path) => path.startsWith('etc/'));
  write(join(control, 'conffiles'), conffiles.map((path) => `/${path}\n`).join(''));
  for (const [name, text] of Object.entries(debianScripts)) {
    write(join(control, name), text, 0o755);
  }
  const file = join(output, `mdserver_${version}_all.deb`);
  normalise(root, { version, time });
  execFileSync('dpkg-deb', ['--root-owner-group', '-Zxz', '--build', root, file], {
    env: { ...process.env, SOURCE_DATE_EPOCH: String(time) },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  rmSync(control, { recursive: true });
  return file;
}

/** Writes the .rpm. */
function buildRpm(
  root: string,
  packages: readonly BundledPackage[],
  { version, time }: Release,
): string {
  const work = mkdtempSync(join(tmpdir(), 'mdserver-rpm-'));
  try {
    const doc = join(root, 'usr/share/doc/mdserver');
    write(join(doc, 'LICENSE'), `${ownLicence}\n\n${licencesText(packages)}`);
    normalise(root, { version, time });
    const attributes = (path: string) => {
      if (path.startsWith('etc/mdserver/')) return '%config(noreplace) %attr(0640,root,mdserver) ';
      if (path.startsWith('etc/')) return '%config(noreplace) ';
      if (path.startsWith('usr/share/doc/'))
        return path.endsWith('/LICENSE') ? '%license ' : '%doc ';
      return '';
    };
    const folders = [
      ...['', '/conf.d', '/userdata'].map(
        (name) => `%dir %attr(0750,root,mdserver) /etc/mdserver${name}`,
      ),
      ...['/usr/lib/mdserver', '/usr/share/mdserver', '/usr/share/doc/mdserver'].map(
        (folder) => `%dir ${folder}`,
      ),
      ...['qemu', 'network'].map((driver) => `%dir /etc/libvirt/hooks/${driver}.d`),
    ];
    // rpm gives them the package's owner and mode at each installation, which dpkg does not. But the operator
    // disables a hook by its mode, and gives the configuration to the group of another dnsmasq.user.
    const operators = ['', '/conf.d', '/userdata', '/mdserver.conf']
      .map((name) => `/etc/mdserver${name}`)
      .concat(['qemu', 'network'].map((driver) => `/etc/libvirt/hooks/${driver}.d/mdserver`))
      .join(' ');
    const remembered = '/run/mdserver-rpm';
    const files = filesIn(root).map((path) => `${attributes(path)}"/${path}"`);
    const spec = join(work, 'mdserver.spec');
    write(
      spec,
      `Name: mdserver
Version: ${version.replace('~', '.')}
Release: 1
Summary: ${summary[0]?.toUpperCase()}${summary.slice(1)}
License: ${[...new Set(['MIT', ...packages.map(({ licence }) => licence)])].sort().join(' AND ')}
URL: https://libvirt.org/hooks.html
BuildArch: noarch
# Not of the package nodejs, whose epoch of 1 makes any version of it newer than 20.17.
Requires: nodejs(engine) >= 20.17
Requires: dnsmasq
Requires: systemd >= 250
Requires(pre): coreutils, grep, sed, systemd
Requires(post): coreutils, grep, nodejs(engine) >= 20.17, sed, systemd
Requires(preun): systemd
Requires(postun): coreutils, systemd
Recommends: libvirt-daemon-kvm
Recommends: logrotate
# The programs' first line is for the node of this package's Requires.
AutoReqProv: no
%undefine __brp_mangle_shebangs

%description
${description}

%install
mkdir -p %{buildroot}
cp -a ${root}/. %{buildroot}

%pre
systemd-sysusers - <<'END' || :
${readFileSync(join(repository, 'systemd/mdserver.sysusers'), 'utf8')}END
stat -c '%%u:%%g %%a %%n' ${operators} >${remembered} 2>/dev/null || :

%post
${functionsOf(['unmarked', 'prepared', 'installed'])}
if [ "$1" = 1 ]; then
  prepared
  # rpm had decided before %pre to put its own beside them.
  for new in /etc/libvirt/hooks/*.d/mdserver.rpmnew /etc/logrotate.d/mdserver.rpmnew; do
    if [ -e "$new" ] && ! [ -e "\${new%%.rpmnew}" ]; then mv "$new" "\${new%%.rpmnew}"; fi
  done
fi
while read -r owner mode path; do
  chown "$owner" "$path"
  chmod "$mode" "$path"
done <${remembered}
rm -f ${remembered}
if [ "$1" = 1 ]; then installed new; else installed upgrade; fi

%preun
${functionsOf(['stopped'])}
if [ "$1" = 0 ]; then stopped; fi

%postun
${functionsOf(['unintegrated'])}
if [ "$1" = 0 ]; then unintegrated; fi
${reload}

%files
${[...folders, ...files].join('\n')}
`,
    );
    const define = (name: string, value: string) => ['--define', `${name} ${value}`];
    execFileSync(
      'rpmbuild',
      [
        ...['-bb', '--quiet', '--target', 'noarch', '--buildroot', join(work, 'root')],
        ...define('_topdir', work),
        ...define('_buildhost', 'localhost'),
        ...define('use_source_date_epoch_as_buildtime', '1'),
        ...define('clamp_mtime_to_source_date_epoch', '1'),
        ...define('_binary_payload', 'w9.gzdio'),
        // There is nothing to strip or to compress.
        ...define('__os_install_post', '%{nil}'),
        spec,
      ],
      {
        env: { ...process.env, SOURCE_DATE_EPOCH: String(time) },
        stdio: ['ignore', 'ignore', 'inherit'],
      },
    );
    const name = `mdserver-${version.replace('~', '.')}-1.noarch.rpm`;
    const file = join(output, name);
    cpSync(join(work, 'RPMS/noarch', name), file);
    rmSync(join(doc, 'LICENSE'));
    return file;
  } finally {
    rmSync(work, { recursive: true });
  }
}

function has(command: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${command}`]).status === 0;
}

const made = release();
const root = mkdtempSync(join(tmpdir(), 'mdserver-tree-'));
try {
  chmodSync(root, 0o755);
  const packages = await stage(root);
  if (has('rpmbuild')) process.stdout.write(`${buildRpm(root, packages, made)}\n`);
  if (has('dpkg-deb')) process.stdout.write(`${buildDeb(root, packages, made)}\n`);
} finally {
  rmSync(root, { recursive: true });
}
