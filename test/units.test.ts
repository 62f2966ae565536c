import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { integrate, layPackage } from './fixtures/hook/installed.js';
import { suiteScope, temporaryFolder } from './support/cleanup.js';
import { missing } from './support/parts.js';
import { accountOf } from './support/processes.js';

const repository = fileURLToPath(new URL('../..', import.meta.url));
const units = ['mdserver.service', 'mdserver-dnsmasq.service', 'mdserver-dnsmasq.target'];

const folder = temporaryFolder(suiteScope());

/** Runs a program to its end; gives its status and what it printed. */
function tool(command: string, args: readonly string[]) {
  const done = spawnSync(command, args, { encoding: 'utf8' });
  assert.equal(done.error, undefined);
  return { status: done.status, said: `${done.stdout}${done.stderr}` };
}

function installedUnits(configuration: string): string {
  const prefix = join(folder, `root-${configuration.length}`);
  mkdirSync(join(prefix, 'etc', 'mdserver'), { recursive: true });
  writeFileSync(join(prefix, 'etc', 'mdserver', 'mdserver.conf'), configuration);
  integrate(layPackage(folder), prefix);
  return join(prefix, 'etc', 'systemd', 'system');
}

/** Copies of the units whose programs exist here, so that only the units are verified. */
function verifiable(from: string, to: string): string[] {
  mkdirSync(join(folder, to));
  return units.map((unit) => {
    const path = join(folder, to, unit);
    const text = readFileSync(join(from, unit), 'utf8');
    const ready = text.replace(/^(Exec\w+)=(-?)\S+/gm, `$1=$2${process.execPath}`);
    assert.equal(ready !== text, unit.endsWith('.service'));
    writeFileSync(path, ready);
    return path;
  });
}

describe('the units', () => {
  it('pass systemd-analyze verify', { skip: missing('systemd-analyze') }, () => {
    const done = tool('systemd-analyze', [
      'verify',
      '--man=no',
      ...verifiable(join(repository, 'systemd'), 'shipped'),
    ]);
    assert.deepEqual(done, { status: 0, said: '' });
  });

  it('pass systemd-analyze verify when they are filled from a configuration', {
    skip: missing('systemd-analyze'),
  }, () => {
    const from = installedUnits(
      '[mdserver]\ndb_file=/srv/mds/db.json\nlogfile=/home/ops/x.log\n[dnsmasq]\nuser=daemon\nrun_dir=/srv/run\n',
    );
    const done = tool('systemd-analyze', ['verify', '--man=no', ...verifiable(from, 'filled')]);
    assert.deepEqual(done, { status: 0, said: '' });
  });

  for (const [unit, exposure] of [
    ['mdserver.service', 1.6],
    ['mdserver-dnsmasq.service', 1.5],
  ] as const) {
    it(`keep the exposure of ${unit} at ${exposure}`, { skip: missing('systemd-analyze') }, (t) => {
      // In a root of its own, where drop-ins of an mdserver of this machine do not count.
      const root = temporaryFolder(t, {
        'etc/passwd': 'mdserver:x:999:999::/:/bin/false\n',
        [`etc/systemd/system/${unit}`]: readFileSync(join(repository, 'systemd', unit), 'utf8'),
      });
      const done = tool('systemd-analyze', [
        'security',
        '--offline=yes',
        '--no-pager',
        `--threshold=${exposure * 10}`,
        `--root=${root}`,
        unit,
      ]);
      const found = /Overall exposure level for \S+: ([0-9.]+)/.exec(done.said)?.[1];
      assert.ok(found !== undefined, done.said);
      assert.ok(Number(found) <= exposure, done.said);
    });
  }
});

/** The words of a setting in a unit of the package; undefined if it does not have the setting. */
function words(unit: string, key: string): string[] | undefined {
  const text = readFileSync(join(repository, 'systemd', unit), 'utf8');
  return new RegExp(`^${key}=(.*)$`, 'm').exec(text)?.[1]?.split(' ');
}

// What systemd does with these was tried on systemd 252: see docs/testing.md.
describe('the order of the units', () => {
  it('has mdserver before libvirt, which starts guests as soon as it is ready', () => {
    assert.deepEqual(words('mdserver.service', 'Before'), [
      'libvirtd.service',
      'virtqemud.service',
      'virtnetworkd.service',
    ]);
    assert.deepEqual(words('mdserver.service', 'After'), ['network.target']);
  });

  it('starts mdserver again neither with an error in its configuration nor without its program', () => {
    assert.deepEqual(words('mdserver.service', 'RestartPreventExitStatus'), ['78', '203']);
  });

  it('does not fail, and does not let libvirt wait for long, while mdserver does not serve', () => {
    assert.equal(words('mdserver.service', 'ExecStartPost')?.[0], '-/usr/local/bin/mdserverctl');
  });

  it('lets dnsmasq run from the start of mdserver to its stop, whatever happens to mdserver', () => {
    const dnsmasq = 'mdserver-dnsmasq.service';
    const period = 'mdserver-dnsmasq.target';
    assert.deepEqual(words('mdserver.service', 'Wants'), [dnsmasq, period]);
    assert.deepEqual(words(period, 'Wants'), [dnsmasq]);
    assert.deepEqual(words(period, 'PartOf'), ['mdserver.service']);
    assert.deepEqual(words(dnsmasq, 'StopWhenUnneeded'), ['yes']);
    // Each of these would restart dnsmasq with mdserver, or libvirt would wait for it.
    for (const key of ['Requires', 'BindsTo', 'PartOf', 'Wants', 'StopPropagatedFrom']) {
      assert.equal(words(dnsmasq, key), undefined, key);
    }
    // Enabled on its own, it would be needed without mdserver.
    assert.equal(words(dnsmasq, 'WantedBy'), undefined);
  });

  for (const unit of ['mdserver.service', 'mdserver-dnsmasq.service']) {
    it(`brings ${unit} back after every end but a stop`, () => {
      assert.deepEqual(words(unit, 'Restart'), ['always']);
      assert.deepEqual(words(unit, 'StartLimitIntervalSec'), ['0']);
      assert.deepEqual(words(unit, 'RuntimeDirectoryPreserve'), ['yes']);
    });
  }
});

describe('the libvirt network', () => {
  const path = join(repository, 'etc', 'libvirt', 'mds-network.xml');

  it('is accepted by libvirt', { skip: missing('virsh') }, () => {
    const done = tool('virsh', ['-c', 'test:///default', 'net-define', '--validate', path]);
    assert.equal(done.status, 0, done.said);
    assert.match(done.said, /Network mds defined/);
  });

  it('has the addresses of the defaults and leaves DHCP and DNS to mdserver', () => {
    const text = readFileSync(path, 'utf8')
      .replace(/<!--.*?-->/s, '')
      .replace(/>\s+</g, '><')
      .trim();
    assert.equal(
      text,
      "<network><name>mds</name><forward mode='nat'/><bridge name='br-mds' stp='on' delay='0'/>" +
        "<dns enable='no'/><ip address='169.254.169.254' prefix='32'/>" +
        "<ip address='10.122.0.1' prefix='16'/></network>",
    );
  });
});

describe('the log rotation', () => {
  it('is accepted by logrotate', { skip: missing('logrotate') }, () => {
    const path = join(folder, 'logrotate');
    const text = readFileSync(join(repository, 'etc', 'logrotate', 'mdserver'), 'utf8');
    // The machine of the tests does not have the user.
    writeFileSync(path, text.replaceAll(/(create 0640|su) mdserver mdserver/g, '$1 root root'));
    const state = join(folder, 'logrotate.state');
    const done = tool('logrotate', ['--debug', '--state', state, path]);
    assert.equal(done.status, 0, done.said);
    assert.match(
      done.said,
      /rotating pattern: \/var\/log\/mdserver\/mdserver\.log {2}weekly \(8 rotations\)/,
    );
    assert.equal(done.said.match(/log files >= 104857600 are rotated earlier/g)?.length, 2);
    assert.doesNotMatch(done.said, /^error|^warning:(?! logrotate in debug mode)/m);
  });

  it('rotates a log that is larger than 100 MB before its week is over', {
    skip: missing('logrotate'),
  }, (t) => {
    const logs = temporaryFolder(t, { 'mdserver.log': '', 'mdserver-dnsmasq.log': 'small\n' });
    const log = join(logs, 'mdserver.log');
    const text = readFileSync(join(repository, 'etc', 'logrotate', 'mdserver'), 'utf8')
      .replaceAll(/(create 0640|su) mdserver mdserver/g, '$1 root root')
      .replaceAll('/var/log/mdserver/', `${logs}/`)
      // There may be an mdserver on this machine.
      .replaceAll(/^ *systemctl .*$/gm, '');
    const path = join(folder, 'logrotate-large');
    writeFileSync(path, text);
    const rotate = () => tool('logrotate', ['--state', join(folder, 'large.state'), path]);
    assert.equal(rotate().status, 0, 'it sees them for the first time');
    // Without a block on the disk.
    truncateSync(log, 100 * 1024 * 1024 + 1);
    const done = rotate();
    assert.equal(done.status, 0, done.said);
    assert.deepEqual(readdirSync(logs).sort(), [
      'mdserver-dnsmasq.log',
      'mdserver.log',
      'mdserver.log.1',
    ]);
    assert.equal(statSync(log).size, 0);
  });

  it('is done by the user of the logs, also where it left links', {
    skip: missing('logrotate', 'root'),
  }, () => {
    const base = join(folder, 'rotated');
    const logs = join(base, 'logs');
    mkdirSync(logs, { recursive: true });
    chmodSync(folder, 0o755);
    const { uid, gid } = accountOf('nobody');
    // A folder of root's, which the user has put in the place of one of its own.
    const roots = join(base, 'roots');
    mkdirSync(roots);
    writeFileSync(join(roots, 'mdserver-dnsmasq.log'), 'of root');
    symlinkSync(roots, join(logs, 'linked'));
    writeFileSync(join(logs, 'mdserver.log'), 'line\n');
    for (const path of [logs, join(logs, 'mdserver.log')]) chownSync(path, uid, gid);
    const group = tool('id', ['-g', '-n', 'nobody']).said.trim();
    const text = readFileSync(join(repository, 'etc', 'logrotate', 'mdserver'), 'utf8')
      .replaceAll('/var/log/mdserver/mdserver-dnsmasq', `${logs}/linked/mdserver-dnsmasq`)
      .replaceAll('/var/log/mdserver/', `${logs}/`)
      .replaceAll('mdserver mdserver', `nobody ${group}`)
      .replaceAll(/systemctl .*/g, 'true');
    const configuration = join(base, 'logrotate.conf');
    writeFileSync(configuration, text, { mode: 0o644 });
    tool('logrotate', ['--force', '--state', join(base, 'state'), configuration]);
    const rotated = statSync(join(logs, 'mdserver.log.1'));
    assert.deepEqual([rotated.uid, rotated.size], [uid, 5]);
    const created = statSync(join(logs, 'mdserver.log'));
    assert.deepEqual([created.uid, created.gid, created.mode & 0o777], [uid, gid, 0o640]);
    assert.deepEqual(readdirSync(roots), ['mdserver-dnsmasq.log']);
  });
});
