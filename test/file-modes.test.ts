import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import {
  chmodSync,
  closeSync,
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
import { databaseRecord, domainXml } from './support/samples.js';

const modes = {
  data: '0755',
  'data/db_file.details.json': '0640',
  'data/db_file.json': '0640',
  'data/debug-userdata': '0700',
  'data/debug-userdata/vm1': '0600',
  'data/token.key': '0600',
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
};

function modesBelow(folder: string): Record<string, string> {
  const paths = ['data', 'dnsmasq', 'log', 'run'].flatMap((name) => [
    name,
    ...readdirSync(join(folder, name), { recursive: true, encoding: 'utf8' }).map((path) =>
      join(name, path),
    ),
  ]);
  return Object.fromEntries(
    paths.map((path) => {
      const mode = statSync(join(folder, path)).mode & 0o7777;
      return [path, mode.toString(8).padStart(4, '0')];
    }),
  );
}

/** Runs the daemon with an umask until it has written all its files. */
async function runWithUmask(t: TestContext, folder: string, umask: string): Promise<void> {
  const configuration = `[mdserver]
listen_address = 127.0.0.1
port = {port}
debug_userdata = yes
logfile = ${folder}/log/mdserver.log
userdata_dir = ${folder}/userdata
db_file = ${folder}/data/db_file.json
[dnsmasq]
user = root
base_dir = ${folder}/dnsmasq
run_dir = ${folder}/run
net_address = 127.77.0.0
net_prefix = 16
gateway = 127.77.0.1
[public-keys]
default = ssh-ed25519 AAAA me
`;
  const daemon = await startWithControl(t, folder, configuration, '127.0.0.1', (command, args) =>
    spawn('sh', ['-c', `umask ${umask}; exec "$0" "$@"`, command, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    }),
  );
  const { mds_ipv4 } = JSON.parse(
    (await daemon.upload(domainXml(1), { accept: 'application/json' })).text,
  ) as { mds_ipv4: string };
  const { status } = await daemon.ask('/latest/user-data', { from: mds_ipv4 });
  assert.equal(status, 200);
}

describe('the modes of the files', () => {
  for (const umask of ['000', '077']) {
    it(`do not depend on the umask ${umask}`, async (t) => {
      const folder = temporaryFolder(t);
      await runWithUmask(t, folder, umask);
      assert.deepEqual(modesBelow(folder), modes);
    });
  }

  it('are taken back from files that were there, and from those that a killed process left', async (t) => {
    const folder = temporaryFolder(t);
    const wide = [
      'data/db_file.json',
      'data/.db_file.json.new',
      'data/db_file.details.json',
      'data/.db_file.details.json.new',
      'data/token.key',
      'data/debug-userdata/vm1',
      'log/mdserver.log',
    ];
    for (const path of wide) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      const content = path.endsWith('token.key') ? '00'.repeat(32) : '';
      writeFileSync(join(folder, path), content);
      chmodSync(join(folder, path), 0o666);
    }
    const record = { ...databaseRecord(1, { mds_ipv4: '127.77.0.9' }), location: 'here' };
    writeFileSync(join(folder, 'data/db_file.json'), JSON.stringify([record]));
    writeFileSync(join(folder, 'data/db_file.details.json'), '{}');
    await runWithUmask(t, folder, '022');
    assert.deepEqual(modesBelow(folder), modes);
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
