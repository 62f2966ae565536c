import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { replaceFiles } from '../src/files.js';
import { atEnd, temporaryFolder } from './support/cleanup.js';
import { startWithControl } from './support/control-socket.js';
import { eventually } from './support/daemon.js';
import { databaseRecord, domainXml, loopbackConfiguration } from './support/samples.js';

const modes = {
  '.': '0755',
  'db.details.json': '0640',
  'db.json': '0640',
  'debug-userdata': '0700',
  'debug-userdata/vm1': '0600',
  dnsmasq: '0755',
  'dnsmasq/dhcp': '0755',
  'dnsmasq/dhcp/mds.dhcp-hosts': '0644',
  'dnsmasq/dns': '0755',
  'dnsmasq/dns/mds.dns-hosts': '0644',
  'dnsmasq/mds.conf': '0644',
  'dnsmasq/mds.opts': '0644',
  log: '0755',
  'log/mdserver.log': '0640',
  run: '0755',
  'run/control.sock': '0660',
  spool: '0700',
  templates: '0700',
  [`templates/${'x'.repeat(64)}`]: '0600',
  'token.key': '0600',
  userdata: '0755',
  'userdata/vm1': '0644',
};

function modesBelow(folder: string): Record<string, string> {
  const paths = ['.', ...readdirSync(folder, { recursive: true, encoding: 'utf8' })];
  return Object.fromEntries(
    paths.map((path) => {
      const mode = statSync(join(folder, path)).mode & 0o7777;
      return [path.replace(/[0-9a-f]{64}/, 'x'.repeat(64)), mode.toString(8).padStart(4, '0')];
    }),
  );
}

/** Runs the daemon with an umask until it has written all its files. */
async function runWithUmask(t: TestContext, umask: string, state: string): Promise<void> {
  const configuration = loopbackConfiguration('127.77.0.1', state, {
    mdserver: 'debug_userdata = yes',
    dnsmasq: 'user = root',
    logfile: `${state}/log/mdserver.log`,
  });
  const daemon = await startWithControl(
    t,
    dirname(state),
    configuration,
    '127.77.0.1',
    (command, args) =>
      spawn('sh', ['-c', `umask ${umask}; exec "$0" "$@"`, command, ...args], {
        stdio: ['ignore', 'pipe', 'pipe'],
      }),
  );
  const { mds_ipv4 } = JSON.parse(
    (await daemon.upload(domainXml(1), { accept: 'application/json' })).text,
  ) as { mds_ipv4: string };
  mkdirSync(join(state, 'userdata'));
  writeFileSync(join(state, 'userdata/vm1'), 'text');
  for (const [path, mode] of [
    ['', 0o755],
    ['vm1', 0o644],
  ] as const) {
    chmodSync(join(state, 'userdata', path), mode);
  }
  const { status } = await daemon.ask('/latest/user-data', { from: mds_ipv4 });
  assert.equal(status, 200);
  await eventually('the version that rendered is kept', () => {
    const folder = join(state, 'templates');
    return existsSync(folder) && readdirSync(folder).some((file) => !file.startsWith('.'));
  });
}

describe('the modes of the files', () => {
  for (const umask of ['000', '077']) {
    it(`do not depend on the umask ${umask}`, async (t) => {
      const state = join(temporaryFolder(t), 'state');
      await runWithUmask(t, umask, state);
      assert.deepEqual(modesBelow(state), modes);
    });
  }

  it('are taken back from files that were there, and from those that a killed process left', async (t) => {
    const state = join(temporaryFolder(t), 'state');
    const wide = [
      'db.json',
      '.db.json.new',
      'db.details.json',
      '.db.details.json.new',
      'token.key',
      'debug-userdata/vm1',
      'log/mdserver.log',
    ];
    for (const path of wide) {
      mkdirSync(dirname(join(state, path)), { recursive: true });
      const content = path.endsWith('token.key') ? '00'.repeat(32) : '';
      writeFileSync(join(state, path), content);
      chmodSync(join(state, path), 0o666);
    }
    const record = { ...databaseRecord(1, { mds_ipv4: '127.77.0.9' }), location: 'here' };
    writeFileSync(join(state, 'db.json'), JSON.stringify([record]));
    writeFileSync(join(state, 'db.details.json'), '{}');
    await runWithUmask(t, '022', state);
    assert.deepEqual(modesBelow(state), modes);
  });

  it('keep the content of a new file from whoever has the temporary file open', async (t) => {
    const folder = temporaryFolder(t, { '.secret.new': 'old' });
    const left = openSync(join(folder, '.secret.new'), 'r');
    atEnd(t, () => closeSync(left));
    await replaceFiles([{ path: join(folder, 'secret'), content: 'new', mode: 0o600 }]);
    assert.equal(readFileSync(join(folder, 'secret'), 'utf8'), 'new');
    assert.equal(readFileSync(left, 'utf8'), 'old');
  });
});
