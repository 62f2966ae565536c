import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configFrom } from '../src/config/load.js';
import { UnitPathError, unitDropIns, unitRuntimeFolder } from '../src/config/unit.js';

const header = '# Made from mdserver.conf: change that, then run "mdserverctl integrate" again.';

/** The settings in the drop-ins of mdserver and of its dnsmasq; undefined where there is to be none. */
function settings(configuration: string): (string[] | undefined)[] {
  return unitDropIns(configFrom(configuration).config).map(({ content }) => {
    if (content === undefined) return undefined;
    const [first, section, ...lines] = content.split('\n');
    assert.deepEqual([first, section, lines.at(-1)], [header, '[Service]', '']);
    return lines.slice(0, -1);
  });
}

test('what guests see needs no drop-in, nor do paths in the folders of the units', () => {
  const edited = `[mdserver]
port = 8080
listen_address = 10.0.0.2, fd00:ec2::254
db_file = /var/lib/mdserver/other/instances.json
logfile = /var/log/mdserver/other.log
control_socket = /run/mdserver/ctl/socket
userdata_dir = /etc/mdserver/templates
[dnsmasq]
net_name = lab
interface = br-lab
net_address = 198.51.100.0
net_prefix = 24
gateway = 198.51.100.1
net_address6 = fd00:1::
base_dir = /var/lib/mdserver/dnsmasq/lab
run_dir = /var/run/mdserver/lab
`;
  for (const text of ['', edited, '[mdserver]\nlogfile = /dev/null\n']) {
    assert.deepEqual(settings(text), [undefined, undefined], text);
  }
});

test('the drop-ins are where systemd looks, under the prefix', () => {
  assert.deepEqual(
    unitDropIns(configFrom('').config, '/srv/root').map(({ unit, path }) => [unit, path]),
    ['mdserver.service', 'mdserver-dnsmasq.service'].map((unit) => [
      unit,
      `/srv/root/etc/systemd/system/${unit}.d/integrate.conf`,
    ]),
  );
});

for (const [title, configuration, mdserver, dnsmasq] of [
  ['another user', '[dnsmasq]\nuser = nobody\n', ['User=nobody'], ['User=nobody']],
  [
    'data elsewhere, which dnsmasq does not see',
    '[mdserver]\ndb_file = /srv/mds/db.json\n',
    ['ReadWritePaths=-/srv/mds'],
    ['InaccessiblePaths=-/srv/mds'],
  ],
  [
    'data elsewhere, with the folder of dnsmasq in it',
    '[mdserver]\ndb_file = /srv/mds/db.json\n[dnsmasq]\nbase_dir = /srv/mds/dnsmasq\n',
    ['ReadWritePaths=-/srv/mds', 'ReadWritePaths=-/srv/mds/dnsmasq'],
    [
      'TemporaryFileSystem=/srv/mds:ro',
      'BindReadOnlyPaths=-/srv/mds/dnsmasq',
      'InaccessiblePaths=-/srv/mds/token.key',
      'NoExecPaths=-/srv/mds/dnsmasq',
    ],
  ],
  [
    'everything in one folder, of which dnsmasq needs more than its own',
    '[mdserver]\ndb_file = /srv/db.json\n[dnsmasq]\nbase_dir = /srv/dns\nrun_dir = /srv/run\n',
    ['ReadWritePaths=-/srv', 'ReadWritePaths=-/srv/dns', 'ReadWritePaths=-/srv/run'],
    [
      'ReadWritePaths=-/srv/run',
      'InaccessiblePaths=-/srv/token.key',
      'NoExecPaths=-/srv/dns',
      'NoExecPaths=-/srv/run',
    ],
  ],
  [
    'another folder of dnsmasq in the data, of which it sees nothing else',
    '[dnsmasq]\nbase_dir = /var/lib/mdserver/dns\n',
    undefined,
    ['BindReadOnlyPaths=-/var/lib/mdserver/dns'],
  ],
  [
    'a folder of dnsmasq elsewhere',
    '[dnsmasq]\nbase_dir = /srv/dns\n',
    ['ReadWritePaths=-/srv/dns'],
    ['NoExecPaths=-/srv/dns'],
  ],
  [
    'runtime folders, which systemd makes at each boot',
    '[mdserver]\ncontrol_socket = /run/ctl/sock\n[dnsmasq]\nrun_dir = /var/run/mds/dns\n',
    ['RuntimeDirectory=ctl', 'RuntimeDirectory=mds/dns'],
    ['RuntimeDirectory=mds/dns', 'InaccessiblePaths=-/run/ctl/sock', 'NoExecPaths=-/run/mds/dns'],
  ],
  [
    'the log of the Python md_server, directly in /var/log',
    '[mdserver]\nlogfile = /var/log/mdserver.log\n',
    ['ReadWritePaths=-/var/log'],
    ['ReadWritePaths=-/var/log', 'NoExecPaths=-/var/log'],
  ],
  [
    'templates in a home',
    '[mdserver]\nuserdata_dir = /home/ops/userdata\n',
    ['ProtectHome=read-only'],
    ['ProtectHome=read-only', 'InaccessiblePaths=-/home/ops/userdata'],
  ],
  [
    'a folder of more configuration in a home',
    '[_include_]\ndirectories = /root/mds.d\nfiles = /root/mds.conf\n',
    ['ProtectHome=read-only'],
    [
      'ProtectHome=read-only',
      'InaccessiblePaths=-/root/mds.d',
      'InaccessiblePaths=-/root/mds.conf',
    ],
  ],
] as const) {
  test(`the drop-ins for ${title}`, () => {
    assert.deepEqual(settings(configuration), [mdserver, dnsmasq]);
  });
}

test('a path that a unit would read as something else is refused', () => {
  for (const path of ['/srv/a b', '/srv/%%n', '/srv/"x"', '/srv/a\\x20', 'relative']) {
    assert.throws(
      () => settings(`[mdserver]\ndb_file = ${path}/db.json\n`),
      (error: Error) => {
        assert.ok(error instanceof UnitPathError);
        assert.match(
          error.message,
          /cannot stand in a unit of systemd: it must be an absolute path/,
        );
        return true;
      },
    );
  }
});

test('the own folder of the unit is found among those that a drop-in adds, which systemd sorts', () => {
  try {
    for (const [value, folder] of [
      [undefined, undefined],
      ['', undefined],
      ['/run/mdserver', '/run/mdserver'],
      ['/run/elsewhere:/run/mdserver', '/run/mdserver'],
      ['/run/mdserver:/run/other', '/run/mdserver'],
      ['/run/a:/run/b', '/run/a'],
    ]) {
      if (value === undefined) delete process.env['RUNTIME_DIRECTORY'];
      else process.env['RUNTIME_DIRECTORY'] = value;
      assert.equal(unitRuntimeFolder(), folder, value);
    }
  } finally {
    delete process.env['RUNTIME_DIRECTORY'];
  }
});
