import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
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
import { userInfo } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { freshFiles, integrate, layPackage } from './fixtures/hook/installed.js';
import { suiteScope, temporaryFolder } from './support/cleanup.js';
import { missing } from './support/parts.js';
import { accountOf } from './support/processes.js';

const suite = suiteScope();
const folder = temporaryFolder(suite);
const packageRoot = layPackage(folder);

/** A new prefix that has these files. */
let count = 0;
function prefixWith(files: Record<string, string> = {}): string {
  count += 1;
  const prefix = join(folder, `root-${count}`);
  mkdirSync(prefix);
  for (const [path, text] of Object.entries(files)) write(prefix, path, text);
  return prefix;
}

function write(prefix: string, path: string, text: string): void {
  mkdirSync(dirname(join(prefix, path)), { recursive: true });
  writeFileSync(join(prefix, path), text);
}

function read(prefix: string, path: string): string {
  return readFileSync(join(prefix, path), 'utf8');
}

/** Everything below a folder, with everything that a second run could change. */
function tree(root: string): string[] {
  return readdirSync(root, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((path) => {
      const full = join(root, path);
      const { mode, uid, gid, mtimeMs, ino } = lstatSync(full);
      let content = '';
      if (lstatSync(full).isSymbolicLink()) content = readlinkSync(full);
      else if (lstatSync(full).isFile()) {
        content = createHash('sha256').update(readFileSync(full)).digest('hex');
      }
      return `${path} ${mode.toString(8)} ${uid}:${gid} ${mtimeMs} ${ino} ${content}`;
    });
}

function paths(root: string): string[] {
  return readdirSync(root, { recursive: true, encoding: 'utf8' })
    .filter((path) => !statSync(join(root, path)).isDirectory())
    .sort();
}

function modeOf(prefix: string, path: string): string {
  return (statSync(join(prefix, path)).mode & 0o7777).toString(8);
}

const hooks = [
  'etc/libvirt/hooks/qemu.d/mdserver',
  'etc/libvirt/hooks/network.d/mdserver',
] as const;

/** What `mdserverctl integrate` adds to a unit; undefined if there is nothing to add. */
function dropIn(prefix: string, unit: string): string | undefined {
  const path = join(prefix, `etc/systemd/system/${unit}.service.d/integrate.conf`);
  return existsSync(path) ? readFileSync(path, 'utf8').split('[Service]\n')[1] : undefined;
}

/** The values of a setting, of all lines that have it. */
function setting(prefix: string, unit: string, key: string): string | undefined {
  const text = read(prefix, `etc/systemd/system/${unit}.service`);
  const values = [...text.matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))].map(([, value]) => value);
  return values.length === 0 ? undefined : values.join(' ');
}

const configuration = 'etc/mdserver/mdserver.conf';

describe('a fresh installation', () => {
  const prefix = prefixWith();
  const said = integrate(packageRoot, prefix);

  it('installs these files and no others', () => {
    assert.deepEqual(paths(prefix), freshFiles);
    for (const path of freshFiles) assert.match(said, new RegExp(`${prefix}/${path}\n`));
  });

  it('installs files and folders with modes that protect secrets', () => {
    const modes = {
      'etc/mdserver': '750',
      'etc/mdserver/userdata': '750',
      'etc/mdserver/conf.d': '750',
      'etc/mdserver/mdserver.conf': '640',
      'etc/libvirt/hooks/qemu.d/mdserver': '755',
      'etc/libvirt/hooks/network.d/mdserver': '755',
      'etc/logrotate.d/mdserver': '644',
      'etc/systemd/system/mdserver.service': '644',
      'etc/systemd/system/mdserver-dnsmasq.service': '644',
      'etc/systemd/system/mdserver-dnsmasq.target': '644',
      'var/lib/mdserver': '755',
      'var/lib/mdserver/dnsmasq': '755',
      'var/lib/mdserver/spool': '700',
      'var/log/mdserver': '750',
    };
    assert.deepEqual(
      Object.fromEntries(Object.keys(modes).map((path) => [path, modeOf(prefix, path)])),
      modes,
    );
  });

  it('installs the configuration as it is in the package, and the units with a mark', () => {
    const source = (path: string) => readFileSync(join(packageRoot, path), 'utf8');
    assert.equal(read(prefix, configuration), source(configuration));
    for (const unit of [
      'mdserver.service',
      'mdserver-dnsmasq.service',
      'mdserver-dnsmasq.target',
    ]) {
      const text = read(prefix, `etc/systemd/system/${unit}`);
      assert.match(text, /^# Installed by mdserver's system-integration.sh, .* [0-9a-f]{64}\n/);
      assert.equal(text.replace(/^.*\n/, ''), source(`systemd/${unit}`));
    }
  });

  it('installs one file as both hooks, which has nothing of the configuration in it', () => {
    const [hook = '', other] = hooks.map((path) => read(prefix, path));
    assert.equal(other, hook);
    assert.deepEqual(hook.match(/^const (controlSocket|spoolFolder) = .*$/gm), [
      "const controlSocket = '/run/mdserver/control.sock';",
      "const spoolFolder = '/var/lib/mdserver/spool';",
    ]);
    const edited = prefixWith({
      [configuration]:
        '[mdserver]\nport = 81\ndb_file = /srv/mds/db.json\n[dnsmasq]\nnet_name = lab\nrun_dir = /run/mds\n',
    });
    integrate(packageRoot, edited);
    assert.equal(read(edited, hooks[0]), hook);
    const [node] = ['node'].map((name) =>
      spawnSync('bash', ['-c', `command -v ${name}`], { encoding: 'utf8' }).stdout.trim(),
    );
    const [shebang, start = ''] = hook.split('\n');
    assert.equal(shebang, '#!/bin/sh');
    assert.ok(start.startsWith(`':' //; case "$2 $3 $1" in `), start);
    assert.ok(
      start.endsWith(
        `'port-created begin '*) ;; *) exit 0 ;; esac; /usr/bin/timeout -s KILL 5 ${node} "$0" "$@"; exit 0`,
      ),
      start,
    );
  });

  it('lists the next steps', () => {
    for (const step of ['public key', 'virsh net-define', 'libvirtd', 'systemctl']) {
      assert.ok(said.includes(step), step);
    }
  });

  it('makes no user with a PREFIX', () => {
    assert.notEqual(spawnSync('getent', ['passwd', 'mds-test-user']).status, 0);
    const said = integrate(packageRoot, prefixWith(), { MDS_DNSMASQ_USER: 'mds-test-user' });
    assert.notEqual(spawnSync('getent', ['passwd', 'mds-test-user']).status, 0);
    const why = process.getuid?.() === 0 ? 'there is no user mds-test-user' : 'not running as root';
    assert.ok(said.includes(why), said);
  });

  it('starts mdserverctl once, and again only for units that need a drop-in', () => {
    const bin = temporaryFolder(suite, {
      node: `#!/bin/sh\necho "$2 $3" >>@DIR@/calls\nexec ${process.execPath} "$@"\n`,
    });
    chmodSync(join(bin, 'node'), 0o755);
    const calls = (files: Record<string, string>) => {
      rmSync(join(bin, 'calls'), { force: true });
      integrate(packageRoot, prefixWith(files), { PATH: `${bin}:${process.env['PATH']}` });
      return read(bin, 'calls').trim().split('\n');
    };
    assert.deepEqual(calls({}), ['integrate --plan']);
    assert.deepEqual(calls({ [configuration]: '[mdserver]\ndb_file = /srv/mds/db.json\n' }), [
      'integrate --plan',
      'integrate --config',
    ]);
    const stale = { 'etc/systemd/system/mdserver.service.d/integrate.conf': '[Service]\n' };
    assert.deepEqual(calls(stale), ['integrate --plan', 'integrate --config']);
  });

  it('changes nothing when it runs again', () => {
    const before = tree(prefix);
    integrate(packageRoot, prefix);
    assert.deepEqual(tree(prefix), before);
  });
});

describe('the environment', () => {
  const prefix = prefixWith();
  // This user exists everywhere; its group has another name on some systems.
  const environment = { MDS_DNSMASQ_USER: 'nobody', MDS_DATA_DIR: '/srv/mds' };
  integrate(packageRoot, prefix, environment);

  it('is written into the new configuration, once and in its section', () => {
    const text = read(prefix, configuration);
    const lines = text.split('\n').filter((line) => /^[^#\s]/.test(line));
    const at = (line: string) => lines.indexOf(line);
    assert.ok(at('[mdserver]') < at('db_file = /srv/mds/db_file.json'));
    assert.ok(at('db_file = /srv/mds/db_file.json') < at('[dnsmasq]'));
    assert.ok(at('[dnsmasq]') < at('user = nobody'));
    assert.ok(at('[dnsmasq]') < at('base_dir = /srv/mds/dnsmasq'));
    const shipped = readFileSync(join(packageRoot, configuration), 'utf8').split('\n');
    assert.deepEqual(
      lines.filter((line) => !shipped.includes(line)),
      ['db_file = /srv/mds/db_file.json', 'user = nobody', 'base_dir = /srv/mds/dnsmasq'],
    );
  });

  it('determines what is added to the units', () => {
    assert.equal(
      dropIn(prefix, 'mdserver'),
      'User=nobody\nReadWritePaths=-/srv/mds\nReadWritePaths=-/srv/mds/dnsmasq\n',
    );
    assert.match(
      dropIn(prefix, 'mdserver-dnsmasq') ?? '',
      /^User=nobody\nTemporaryFileSystem=\/srv\/mds:ro\n/,
    );
  });

  it('makes the user the owner of data and log, and lets only its group read the configuration', {
    skip: missing('root'),
  }, () => {
    const { uid, gid } = userInfo();
    assert.deepEqual([uid, gid], [0, 0]);
    const nobody = accountOf('nobody');
    const owners = (path: string) => {
      const { uid, gid } = statSync(join(prefix, path));
      return [uid, gid];
    };
    for (const path of [
      'srv/mds',
      'srv/mds/dnsmasq',
      'var/lib/mdserver/spool',
      'var/log/mdserver',
    ]) {
      assert.deepEqual(owners(path), [nobody.uid, nobody.gid], path);
    }
    for (const path of ['etc/mdserver', 'etc/mdserver/userdata', configuration]) {
      assert.deepEqual(owners(path), [0, nobody.gid], path);
    }
    for (const path of [
      'etc/libvirt/hooks/qemu.d/mdserver',
      'etc/systemd/system/mdserver.service',
      'var/log',
    ]) {
      assert.deepEqual(owners(path), [0, 0], path);
    }
  });

  it('is ignored, with a warning, if there is a configuration', () => {
    const before = tree(prefix).filter((line) => !line.startsWith(dirname(configuration)));
    const said = integrate(packageRoot, prefix, { MDS_DNSMASQ_USER: 'daemon', MDS_DATA_DIR: '/x' });
    assert.deepEqual(
      tree(prefix).filter((line) => !line.startsWith(dirname(configuration))),
      before,
    );
    assert.ok(said.includes('MDS_DNSMASQ_USER is ignored: '), said);
    assert.ok(said.includes('MDS_DATA_DIR is ignored: '), said);
  });

  for (const [name, value] of [
    ['MDS_DNSMASQ_USER', 'a b'],
    ['MDS_DNSMASQ_USER', '-x'],
    ['MDS_DNSMASQ_USER', 'a|b'],
    ['MDS_DATA_DIR', 'relative'],
    ['MDS_DATA_DIR', '/with space'],
    ['MDS_DATA_DIR', '/a%b'],
  ] as const) {
    it(`is refused before anything is installed if ${name} is "${value}"`, () => {
      const prefix = prefixWith();
      const { status, stderr } = run(prefix, { [name]: value });
      assert.equal(status, 1);
      assert.ok(stderr.includes(`${name} is '${value}'`), stderr);
      assert.deepEqual(tree(prefix), []);
    });
  }
});

function run(prefix: string, environment: Record<string, string> = {}, root = packageRoot) {
  return spawnSync(join(root, 'system-integration.sh'), {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'], PREFIX: prefix, ...environment },
  });
}

describe('a configuration', () => {
  it('leads to drop-ins and rules of log rotation for paths elsewhere, and to nothing once they are gone', () => {
    const prefix = prefixWith({
      [configuration]: '[mdserver]\nlogfile = /srv/log/mds/server.log\n',
    });
    integrate(packageRoot, prefix);
    assert.equal(dropIn(prefix, 'mdserver'), 'ReadWritePaths=-/srv/log/mds\n');
    assert.equal(
      dropIn(prefix, 'mdserver-dnsmasq'),
      'ReadWritePaths=-/srv/log/mds\nNoExecPaths=-/srv/log/mds\n',
    );
    const rotation = read(prefix, 'etc/logrotate.d/00-mdserver-integrate');
    assert.deepEqual(rotation.match(/^\/.*$/gm), [
      '/srv/log/mds/server.log {',
      '/srv/log/mds/server-dnsmasq.log {',
    ]);
    write(prefix, configuration, '');
    integrate(packageRoot, prefix);
    assert.deepEqual(dropIn(prefix, 'mdserver'), undefined);
    assert.deepEqual(dropIn(prefix, 'mdserver-dnsmasq'), undefined);
    assert.equal(existsSync(join(prefix, 'etc/logrotate.d/00-mdserver-integrate')), false);
  });

  it('leads to a log rotation by its user, also in the usual folder', {
    skip: missing('root', 'logrotate'),
  }, () => {
    const prefix = prefixWith({ [configuration]: '[dnsmasq]\nuser = nobody\n' });
    integrate(packageRoot, prefix);
    const logs = join(prefix, 'var/log/mdserver');
    const names = ['mdserver.log', 'mdserver-dnsmasq.log'];
    // The machine of the tests has no user mdserver, and no unit to signal.
    for (const name of readdirSync(join(prefix, 'etc/logrotate.d'))) {
      const text = read(prefix, `etc/logrotate.d/${name}`)
        .replaceAll('mdserver mdserver\n', 'daemon daemon\n')
        .replaceAll('/var/log/mdserver/', `${logs}/`)
        .replaceAll(/^ *systemctl .*$/gm, '');
      write(prefix, `etc/logrotate.d/${name}`, text);
    }
    const { uid, gid } = accountOf('nobody');
    for (const name of names) {
      writeFileSync(join(logs, name), 'line\n', { mode: 0o640 });
      chownSync(join(logs, name), uid, gid);
    }
    // logrotate runs as the user: it has to find its way.
    for (const path of [folder, prefix]) chmodSync(path, 0o755);
    write(prefix, 'logrotate.conf', `include ${prefix}/etc/logrotate.d\n`);
    const rotate = ['--force', '--state', join(prefix, 'state'), join(prefix, 'logrotate.conf')];
    const { status, stderr } = spawnSync('logrotate', rotate, { encoding: 'utf8' });
    assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
    for (const name of names.flatMap((name) => [name, `${name}.1`])) {
      const found = statSync(join(logs, name));
      assert.deepEqual([found.uid, found.gid, found.mode & 0o777], [uid, gid, 0o640], name);
    }

    write(prefix, configuration, '');
    integrate(packageRoot, prefix);
    assert.deepEqual(readdirSync(join(prefix, 'etc/logrotate.d')).sort(), [
      'mdserver',
      'mdserver.new',
    ]);
  });

  it('is readable for another dnsmasq.user, and for the usual one again, by their groups', {
    skip: missing('root'),
  }, () => {
    const prefix = prefixWith({
      [configuration]: '[dnsmasq]\nuser = nobody\n',
      'etc/mdserver/conf.d/keys.conf': '',
      'etc/mdserver/conf.d/open.conf': '',
      'etc/mdserver/conf.d/private.conf': '',
      'etc/mdserver/userdata/base': '',
    });
    const { gid: before } = accountOf('daemon');
    const { gid: nobody } = accountOf('nobody');
    const modes = {
      '.': 0o750,
      'conf.d': 0o750,
      'conf.d/keys.conf': 0o640,
      'conf.d/open.conf': 0o644,
      'conf.d/private.conf': 0o600,
      'mdserver.conf': 0o640,
      userdata: 0o750,
      'userdata/base': 0o640,
    };
    const names = Object.keys(modes);
    const pathOf = (name: string) => join(prefix, 'etc/mdserver', name);
    for (const [name, mode] of Object.entries(modes)) {
      chownSync(pathOf(name), 0, before);
      chmodSync(pathOf(name), mode);
    }
    const integrated = () => {
      const { status, stderr } = spawnSync(
        process.execPath,
        [
          join(packageRoot, 'dist/bundle/mdserverctl.js'),
          'integrate',
          '--config',
          pathOf('mdserver.conf'),
        ],
        { env: { ...process.env, PREFIX: prefix }, encoding: 'utf8' },
      );
      assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
      return names.map((name) => {
        const { uid, gid, mode } = statSync(pathOf(name));
        return [name, uid, gid, mode & 0o777];
      });
    };
    const groups = (group: number) =>
      Object.entries(modes).map(([name, mode]) => {
        const isLeft = ['conf.d/open.conf', 'conf.d/private.conf'].includes(name);
        return [name, 0, isLeft ? before : group, mode];
      });
    assert.deepEqual(integrated(), groups(nobody));
    write(prefix, configuration, '[dnsmasq]\nuser = daemon\n');
    chmodSync(pathOf('mdserver.conf'), 0o640);
    chownSync(pathOf('mdserver.conf'), 0, nobody);
    assert.deepEqual(integrated(), groups(before));
  });

  it('can have a run_dir outside /run', () => {
    const prefix = prefixWith({ [configuration]: '[dnsmasq]\nrun_dir = /srv/pid\n' });
    integrate(packageRoot, prefix);
    assert.equal(dropIn(prefix, 'mdserver'), 'ReadWritePaths=-/srv/pid\n');
    assert.ok(existsSync(join(prefix, 'srv/pid')));
  });

  it('can keep the log of the Python md_server, directly in /var/log', {
    skip: missing('root'),
  }, () => {
    const prefix = prefixWith({
      [configuration]: '[mdserver]\nlogfile = /var/log/mdserver.log\n[dnsmasq]\nuser = nobody\n',
      'var/log/mdserver.log': 'old\n',
    });
    const said = integrate(packageRoot, prefix);
    for (const unit of ['mdserver', 'mdserver-dnsmasq']) {
      assert.match(dropIn(prefix, unit) ?? '', /^ReadWritePaths=-\/var\/log$/m);
    }
    const rotation = read(prefix, 'etc/logrotate.d/00-mdserver-integrate');
    assert.deepEqual(rotation.match(/^\/.*$/gm), [
      '/var/log/mdserver.log {',
      '/var/log/mdserver-dnsmasq.log {',
    ]);
    // In /var/log, only root can rename.
    assert.doesNotMatch(rotation, /^ *su /m);
    assert.equal(modeOf(prefix, 'var/log/mdserver-dnsmasq.log'), '640');
    assert.ok(said.includes(`gave nobody ${prefix}/var/log/mdserver.log\n`), said);
    assert.equal(statSync(join(prefix, 'var/log')).uid, 0);
  });

  for (const [text, problem] of [
    // Errors to mdserver, too, with their lines.
    ['[mdserver]\nport = 80/upload', ':2: mdserver.port = "80/upload": '],
    [
      "[mdserver]\nlisten_address = 1.2.3.4'+x+'",
      ':2: mdserver.listen_address = "1.2.3.4\'+x+\'": ',
    ],
    ['[dnsmasq]\nuser = root;x', ':2: dnsmasq.user = "root;x": '],
    // Values that cannot be in a unit.
    [
      '[mdserver]\ndb_file = /srv/my data/db.json',
      ": mdserver.db_file is '/srv/my data/db.json': ",
    ],
    ['[mdserver]\nlogfile = mdserver.log', ": mdserver.logfile is 'mdserver.log': "],
    ['[dnsmasq]\nbase_dir = /srv/%%n', ": dnsmasq.base_dir is '/srv/%n': "],
    ['[dnsmasq]\nuser = Ops', ": dnsmasq.user is 'Ops', which is not a user name\n"],
  ] as const) {
    it(`is refused before anything is installed: ${text.replace('\n', ' ')}`, () => {
      const prefix = prefixWith({ [configuration]: `${text}\n` });
      const before = tree(prefix);
      const { status, stderr } = run(prefix);
      assert.equal(status, 1);
      const start = `system-integration: ${join(prefix, configuration)}${problem}`;
      assert.ok(stderr.startsWith(start), stderr);
      assert.equal(stderr.split('\n').length, 2, stderr);
      assert.deepEqual(tree(prefix), before);
    });
  }

  it('can have warnings, which are shown', () => {
    const prefix = prefixWith({ [configuration]: '[mdserver]\nprot = 81\n' });
    assert.ok(
      integrate(packageRoot, prefix).includes(
        `${configuration}:2: unknown option mdserver.prot, did you mean mdserver.port?\n`,
      ),
    );
  });

  it('can use a folder of another user, which keeps its owner, with a warning', {
    skip: missing('root'),
  }, () => {
    const prefix = prefixWith({
      [configuration]: '[mdserver]\ndb_file = /root/db.json\n[dnsmasq]\nuser = nobody\n',
      'root/db.json': '[]',
      'root/.bashrc': '',
    });
    const said = integrate(packageRoot, prefix);
    assert.equal(statSync(join(prefix, 'root')).uid, 0);
    assert.equal(statSync(join(prefix, 'root/.bashrc')).uid, 0);
    assert.ok(said.includes(`${prefix}/root belongs to another user`), said);
  });

  it('leads to a warning for each file that the user cannot read', {
    skip: missing('root'),
  }, () => {
    const prefix = prefixWith({
      [configuration]:
        '[dnsmasq]\nuser = nobody\n[_include_]\ndirectories = /etc/mdserver/conf.d\nfiles = :/etc/mdserver/more\n',
      'etc/mdserver/userdata/web': 'secret',
      'etc/mdserver/userdata/db': 'open',
      'etc/mdserver/conf.d/10.conf': '',
      'etc/mdserver/conf.d/notes': '',
      'etc/mdserver/more': '',
      'etc/unrelated': '',
    });
    const unreadable = [
      'etc/mdserver/conf.d/10.conf',
      'etc/mdserver/more',
      'etc/mdserver/userdata/web',
    ];
    for (const path of [...unreadable, 'etc/mdserver/conf.d/notes', 'etc/unrelated']) {
      chmodSync(join(prefix, path), 0o600);
    }
    const said = integrate(packageRoot, prefix);
    assert.deepEqual(
      [...said.matchAll(/nobody cannot read \S+\/root-\d+\/(\S+): chgrp/g)]
        .map(([, path]) => path)
        .sort(),
      unreadable,
    );
    assert.equal(modeOf(prefix, 'etc/mdserver/userdata/web'), '600');
  });
});

describe('on a host with the Python md_server', () => {
  const oldConfiguration =
    '[mdserver]\nloglevel=debug\nlisten_address = 10.1.2.3\npassword = p#ss\n\n[dnsmasq]\nuser = nobody\n\n[public-keys]\ndefault = ssh-ed25519 AAAA ops\n';
  const oldHook = `#!/bin/bash
# upload the domain's XML
. /etc/default/mdserver
if [ "$2" = prepare ] || [ "$2" = migrate ]; then
  logger -t qemu-hook "$1"
  cat > /tmp/domain && curl -s -d @/tmp/domain "http://$LISTEN_ADDRESS/instance-upload"
fi
exit 0
`;
  const oldUnit =
    '[Unit]\nDescription=metadata\n[Service]\nExecStart=/usr/local/bin/mdserver /etc/mdserver/mdserver.conf\nRestart=on-failure\n';
  const oldDnsmasqUnit =
    '[Service]\nExecStart=/usr/sbin/dnsmasq --conf-file /var/lib/mdserver/dnsmasq/mds.conf --keep-in-foreground\n';
  const oldPathUnit = '[Unit]\nPartOf=mdserver.service\n[Path]\nPathExists=/x\n';
  const oldDatabase = '[\n    {\n        "domain_name": "web"\n    }\n]';
  const prefix = prefixWith({
    [configuration]: oldConfiguration,
    'etc/mdserver/userdata/web.yaml': '#cloud-config\n',
    'etc/default/mdserver': 'LISTEN_ADDRESS="10.9.9.9"\n',
    'etc/libvirt/hooks/qemu': oldHook,
    'etc/systemd/system/mdserver.service': oldUnit,
    'etc/systemd/system/mdserver-dnsmasq.service': oldDnsmasqUnit,
    'etc/systemd/system/mdserver-dnsmasq.path': oldPathUnit,
    'var/lib/mdserver/db_file.json': oldDatabase,
    'var/lib/mdserver/dnsmasq/mds.conf': 'user=mdserver\n',
    'var/lib/mdserver/dnsmasq/dhcp/mds.dhcp-hosts': '',
    'var/log/mdserver.log': 'old\n',
  });
  chmodSync(join(prefix, 'etc/libvirt/hooks/qemu'), 0o755);
  integrate(packageRoot, prefix);

  it('keeps the configuration, the user-data, the database and the log byte for byte', () => {
    assert.equal(read(prefix, configuration), oldConfiguration);
    assert.equal(read(prefix, 'etc/mdserver/userdata/web.yaml'), '#cloud-config\n');
    assert.equal(read(prefix, 'etc/default/mdserver'), 'LISTEN_ADDRESS="10.9.9.9"\n');
    assert.equal(read(prefix, 'var/lib/mdserver/db_file.json'), oldDatabase);
    assert.equal(read(prefix, 'var/log/mdserver.log'), 'old\n');
  });

  it('installs the new configuration next to the old one', () => {
    assert.equal(
      read(prefix, `${configuration}.new`),
      readFileSync(join(packageRoot, configuration), 'utf8'),
    );
    assert.equal(modeOf(prefix, `${configuration}.new`), '640');
  });

  it('replaces the hook and the units, and keeps the old ones under names that nothing runs', () => {
    for (const path of hooks) assert.equal(modeOf(prefix, path), '755');
    assert.equal(existsSync(join(prefix, 'etc/libvirt/hooks/qemu')), false);
    assert.equal(setting(prefix, 'mdserver', 'Type'), 'exec');
    assert.equal(setting(prefix, 'mdserver-dnsmasq', 'Type'), 'exec');
    const kept = {
      'etc/libvirt/hooks/qemu.md_server': oldHook,
      'etc/systemd/system/mdserver.service.md_server': oldUnit,
      'etc/systemd/system/mdserver-dnsmasq.service.md_server': oldDnsmasqUnit,
      'etc/systemd/system/mdserver-dnsmasq.path.md_server': oldPathUnit,
    };
    for (const [path, text] of Object.entries(kept)) {
      assert.equal(read(prefix, path), text);
      assert.equal(modeOf(prefix, path), '644');
    }
    assert.equal(existsSync(join(prefix, 'etc/systemd/system/mdserver-dnsmasq.path')), false);
  });

  it('makes the user of mdserver the owner of what root wrote', {
    skip: missing('root'),
  }, () => {
    const { uid: nobody } = accountOf('nobody');
    for (const path of [
      'var/lib/mdserver',
      'var/lib/mdserver/db_file.json',
      'var/lib/mdserver/dnsmasq',
      'var/lib/mdserver/dnsmasq/mds.conf',
      'var/lib/mdserver/dnsmasq/dhcp',
      'var/lib/mdserver/dnsmasq/dhcp/mds.dhcp-hosts',
      'var/log/mdserver',
    ]) {
      assert.equal(statSync(join(prefix, path)).uid, nobody, path);
    }
  });

  it('changes nothing when it runs again', () => {
    const before = tree(prefix);
    integrate(packageRoot, prefix);
    assert.deepEqual(tree(prefix), before);
  });
});

describe('the folders of a user other than root', { skip: missing('root') }, () => {
  const { uid, gid } = accountOf('nobody');

  it('lead root nowhere: no file elsewhere changes its owner, is created or written', () => {
    const prefix = prefixWith({
      [configuration]: '[dnsmasq]\nuser = nobody\n',
      'etc/secret/shadow': 'root',
    });
    const state = join(prefix, 'var/lib/mdserver');
    const logs = join(prefix, 'var/log/mdserver');
    for (const path of [join(state, 'dnsmasq'), logs]) mkdirSync(path, { recursive: true });
    symlinkSync(join(prefix, 'etc/secret'), join(state, 'dnsmasq/dhcp'));
    mkdirSync(join(state, 'dnsmasq/dns'));
    linkSync(join(prefix, 'etc/secret/shadow'), join(state, 'dnsmasq/dns/mds.dns-hosts'));
    linkSync(join(prefix, 'etc/secret/shadow'), join(state, 'db_file.json'));
    symlinkSync(join(prefix, 'etc/secret/new'), join(logs, 'mdserver.log'));
    symlinkSync(join(prefix, 'etc/secret/shadow'), join(logs, 'mdserver-dnsmasq.log'));
    for (const path of [state, join(state, 'dnsmasq'), join(state, 'dnsmasq/dns'), logs]) {
      chownSync(path, uid, gid);
    }
    const before = tree(join(prefix, 'etc/secret'));
    const said = integrate(packageRoot, prefix);
    assert.deepEqual(tree(join(prefix, 'etc/secret')), before);
    assert.ok(
      said.includes(
        `system-integration: ${state}/db_file.json does not belong to nobody, which can change its folder: `,
      ),
      said,
    );
  });
});

describe('the spool folder', () => {
  it('is left to mdserver in a folder that is not root’s, and stays as it is if it is there', {
    skip: missing('root'),
  }, () => {
    const { uid: nobody } = accountOf('nobody');
    const prefix = prefixWith({ [configuration]: '[dnsmasq]\nuser = nobody\n' });
    const data = join(prefix, 'var/lib/mdserver');
    mkdirSync(data, { recursive: true });
    chownSync(data, nobody, nobody);
    const said = integrate(packageRoot, prefix);
    assert.equal(existsSync(join(data, 'spool')), false);
    assert.equal(said.includes('spool'), false, said);
    symlinkSync('/etc', join(data, 'spool'));
    integrate(packageRoot, prefix);
    assert.equal(readlinkSync(join(data, 'spool')), '/etc');
  });
});

describe('files of the operator', () => {
  for (const driver of ['qemu', 'network']) {
    it(`keep another ${driver} hook in its place: mdserver’s is beside it, and libvirt runs both`, () => {
      const place = `etc/libvirt/hooks/${driver}`;
      const foreign = '#!/bin/bash\n# passes a graphics card through\nexit 0\n';
      const prefix = prefixWith({ [place]: foreign });
      chmodSync(join(prefix, place), 0o700);
      integrate(packageRoot, prefix);
      assert.equal(read(prefix, place), foreign);
      assert.equal(modeOf(prefix, place), '700');
      assert.deepEqual(paths(prefix), [...freshFiles, place].sort());
    });

    it(`do not include a ${driver} hook of 1.0.0, which libvirt would run as well`, () => {
      const place = `etc/libvirt/hooks/${driver}`;
      const fresh = prefixWith();
      integrate(packageRoot, fresh);
      const prefix = prefixWith({ [place]: read(fresh, `${place}.d/mdserver`) });
      const said = integrate(packageRoot, prefix);
      assert.ok(
        said.includes(`removed ${prefix}/${place}, which is now ${prefix}/${place}.d/mdserver\n`),
        said,
      );
      assert.deepEqual(paths(prefix), freshFiles);
      write(prefix, place, `${read(fresh, `${place}.d/mdserver`)}// edited\n`);
      assert.ok(
        integrate(packageRoot, prefix).includes(
          `${prefix}/${place} is mdserver's, and was edited: `,
        ),
      );
      assert.ok(existsSync(join(prefix, place)));
    });
  }

  it('are not overwritten through a hook that is a link', () => {
    const prefix = prefixWith({ 'srv/hook': '#!/bin/sh\n' });
    mkdirSync(join(prefix, 'etc/libvirt/hooks'), { recursive: true });
    symlinkSync('../../../srv/hook', join(prefix, 'etc/libvirt/hooks/qemu'));
    integrate(packageRoot, prefix);
    assert.equal(read(prefix, 'srv/hook'), '#!/bin/sh\n');
    assert.equal(readlinkSync(join(prefix, 'etc/libvirt/hooks/qemu')), '../../../srv/hook');
    assert.ok(existsSync(join(prefix, 'etc/libvirt/hooks/qemu.d/mdserver')));
  });

  for (const path of [
    ...hooks,
    'etc/systemd/system/mdserver.service',
    'etc/systemd/system/mdserver-dnsmasq.service',
    'etc/logrotate.d/mdserver',
  ]) {
    it(`include an edited ${path}, which is kept; the new one is not executable`, () => {
      const prefix = prefixWith();
      integrate(packageRoot, prefix);
      const installed = read(prefix, path);
      write(prefix, path, `${installed}# edited\n`);
      const said = integrate(packageRoot, prefix);
      assert.equal(read(prefix, path), `${installed}# edited\n`);
      assert.equal(read(prefix, `${path}.new`), installed);
      assert.equal(modeOf(prefix, `${path}.new`), '644');
      assert.ok(
        said.includes(
          `kept ${prefix}/${path}, which was edited or is not from this script; the new one is ${prefix}/${path}.new\n`,
        ),
        said,
      );

      const before = tree(prefix);
      integrate(packageRoot, prefix);
      assert.deepEqual(tree(prefix), before);
    });
  }

  it('include units and a log rotation from elsewhere, which are kept', () => {
    const own = {
      'etc/systemd/system/mdserver.service': '[Service]\nExecStart=/opt/other\n',
      'etc/logrotate.d/mdserver': '/var/log/mdserver.log { daily }\n',
    };
    const prefix = prefixWith(own);
    symlinkSync('/dev/null', join(prefix, 'etc/systemd/system/mdserver-dnsmasq.service'));
    integrate(packageRoot, prefix);
    for (const [path, text] of Object.entries(own)) {
      assert.equal(read(prefix, path), text);
      assert.ok(existsSync(join(prefix, `${path}.new`)));
    }
    assert.equal(
      readlinkSync(join(prefix, 'etc/systemd/system/mdserver-dnsmasq.service')),
      '/dev/null',
    );
  });

  it('do not include that dnsmasq is enabled, as before: mdserver is, which starts it', () => {
    const wants = 'etc/systemd/system/multi-user.target.wants';
    const prefix = prefixWith({ [`${wants}/other`]: '' });
    symlinkSync(
      '/etc/systemd/system/mdserver-dnsmasq.service',
      join(prefix, wants, 'mdserver-dnsmasq.service'),
    );
    const said = integrate(packageRoot, prefix);
    assert.ok(said.includes('enabled mdserver.service in place of mdserver-dnsmasq.service'), said);
    assert.deepEqual(readdirSync(join(prefix, wants)).sort(), ['mdserver.service', 'other']);
    assert.equal(
      readlinkSync(join(prefix, wants, 'mdserver.service')),
      '/etc/systemd/system/mdserver.service',
    );
  });

  it('do not include unedited files of an earlier version, which are replaced', () => {
    const prefix = prefixWith();
    integrate(packageRoot, prefix);
    const unit = 'etc/systemd/system/mdserver.service';
    const now = read(prefix, unit);
    const [mark = '', ...rest] = now.split('\n');
    const earlier = rest.join('\n').replace('RestartSec=2', 'RestartSec=9');
    const checksum = createHash('sha256').update(earlier).digest('hex');
    write(prefix, unit, `${mark.replace(/[0-9a-f]{64}$/, checksum)}\n${earlier}`);
    integrate(packageRoot, prefix);
    assert.equal(read(prefix, unit), now);
    assert.equal(existsSync(join(prefix, `${unit}.new`)), false);
  });

  it('keep changed modes and times', () => {
    const prefix = prefixWith();
    integrate(packageRoot, prefix);
    const changed = {
      'etc/mdserver': 0o755,
      'etc/mdserver/userdata': 0o700,
      'var/lib/mdserver': 0o700,
      'var/log/mdserver': 0o700,
      // Disabled by hand.
      'etc/libvirt/hooks/qemu.d/mdserver': 0o644,
    };
    for (const [path, mode] of Object.entries(changed)) chmodSync(join(prefix, path), mode);
    const before = tree(prefix);
    integrate(packageRoot, prefix);
    assert.deepEqual(tree(prefix), before);
  });
});

describe('--remove', () => {
  const remove = (prefix: string) =>
    spawnSync(
      'bash',
      ['-c', 'exec "$0" --remove 2>&1', join(packageRoot, 'system-integration.sh')],
      {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { PATH: process.env['PATH'], PREFIX: prefix },
      },
    );

  it('removes what was installed, and leaves configuration and data, of which it speaks', () => {
    const prefix = prefixWith({
      'etc/libvirt/hooks/qemu': '#!/bin/sh\n# foreign\n',
      'etc/libvirt/hooks/network.d/other': '',
      [configuration]: '[mdserver]\ndb_file = /srv/mds/db.json\n',
    });
    integrate(packageRoot, prefix);
    const { status, stdout } = remove(prefix);
    assert.equal(status, 0, stdout);
    assert.deepEqual(paths(prefix), [
      'etc/libvirt/hooks/network.d/other',
      'etc/libvirt/hooks/qemu',
      configuration,
    ]);
    assert.equal(existsSync(join(prefix, 'etc/libvirt/hooks/qemu.d')), false);
    for (const what of [
      'rm -r ',
      'userdel mdserver',
      'virsh net-destroy mds',
      'restart libvirtd',
    ]) {
      assert.ok(stdout.includes(what), what);
    }
    assert.equal(remove(prefix).status, 0);
  });

  it('keeps what was edited or is from elsewhere, and names what is mdserver’s', () => {
    const prefix = prefixWith({ 'etc/logrotate.d/mdserver': '# my own\n' });
    integrate(packageRoot, prefix);
    const unit = 'etc/systemd/system/mdserver.service';
    write(prefix, unit, `${read(prefix, unit)}# edited\n`);
    const { stdout } = remove(prefix);
    assert.ok(
      stdout.includes(`kept ${prefix}/${unit}, which was edited: remove it yourself\n`),
      stdout,
    );
    assert.deepEqual(paths(prefix), ['etc/logrotate.d/mdserver', configuration, unit]);
  });

  it('is the only argument', () => {
    const { status, stderr } = spawnSync(
      join(packageRoot, 'system-integration.sh'),
      ['--uninstall'],
      {
        encoding: 'utf8',
        env: { PATH: process.env['PATH'], PREFIX: prefixWith() },
      },
    );
    assert.equal(status, 1);
    assert.match(stderr, /'--uninstall' is not an argument of this script/);
  });
});

describe('what an upgrade ends with', () => {
  const steps = (said: string) => said.split('What to do next:\n')[1] ?? '';

  it('is what has to be restarted, and why', () => {
    const prefix = prefixWith();
    assert.match(
      steps(integrate(packageRoot, prefix)),
      /virsh net-define.*restart libvirtd.*systemctl enable mdserver/s,
    );
    const again = steps(integrate(packageRoot, prefix));
    assert.doesNotMatch(again, /libvirtd|net-define|enable/);
    assert.match(again, /restart mdserver, unless this version runs already/);
    rmSync(join(prefix, hooks[1]));
    const unit = 'etc/systemd/system/mdserver.service';
    rmSync(join(prefix, 'etc/systemd/system/mdserver-dnsmasq.service'));
    const upgraded = steps(integrate(packageRoot, prefix));
    assert.match(
      upgraded,
      /restart libvirtd \(or [^)]*\): libvirt finds new hooks only when it starts/,
    );
    assert.match(upgraded, /restart mdserver: its units have changed/);
    write(prefix, unit, `${read(prefix, unit)}# edited\n`);
    assert.match(steps(integrate(packageRoot, prefix)), /which end in \.new/);
  });
});

describe('the program of the package', () => {
  it('is started from where npm installed it', () => {
    const prefix = prefixWith({ 'usr/bin/mdserver': '' });
    integrate(packageRoot, prefix);
    assert.equal(
      setting(prefix, 'mdserver', 'ExecStart'),
      '/usr/bin/mdserver /etc/mdserver/mdserver.conf',
    );
    assert.equal(
      setting(prefix, 'mdserver', 'ExecStartPost'),
      '-/usr/bin/mdserverctl wait --config /etc/mdserver/mdserver.conf',
    );
    assert.equal(
      setting(prefix, 'mdserver', 'ExecReload'),
      '/bin/kill -HUP $MAINPID /usr/bin/mdserver --check /etc/mdserver/mdserver.conf',
    );
  });

  it('is required: a checkout must be built', () => {
    const bare = join(folder, 'bare');
    mkdirSync(bare);
    const root = layPackage(bare);
    rmSync(join(root, 'dist'), { recursive: true });
    const prefix = prefixWith();
    const { status, stderr } = run(prefix, {}, root);
    assert.equal(status, 1);
    assert.ok(stderr.includes("run 'npm ci' and 'npm run build' first"), stderr);
    assert.deepEqual(tree(prefix), []);
  });

  it('is required with node in PATH', () => {
    const bin = join(folder, 'bin-without-node');
    mkdirSync(bin);
    const tools =
      'awk basename cat chmod cmp cp cut dirname grep head id install mktemp mv readlink rm sed sha256sum stat';
    for (const tool of tools.split(' ')) {
      const at = spawnSync('bash', ['-c', `command -v ${tool}`], { encoding: 'utf8' });
      symlinkSync(at.stdout.trim(), join(bin, tool));
    }
    const prefix = prefixWith();
    const { status, stderr } = spawnSync(
      '/bin/bash',
      [join(packageRoot, 'system-integration.sh')],
      { encoding: 'utf8', env: { PATH: bin, PREFIX: prefix } },
    );
    assert.equal(status, 1);
    assert.ok(stderr.includes('node is not in PATH'), stderr);
    assert.deepEqual(tree(prefix), []);
  });
});

it('system-integration.sh passes shellcheck', {
  skip: missing('shellcheck'),
}, () => {
  const checked = spawnSync('shellcheck', [join(packageRoot, 'system-integration.sh')], {
    encoding: 'utf8',
  });
  assert.deepEqual([checked.status, checked.stdout], [0, '']);
});
