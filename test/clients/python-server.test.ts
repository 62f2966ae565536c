import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { killAtEnd } from '../support/cleanup.js';
import { clientPath, missingClient } from '../support/clients.js';
import { ask, eventually } from '../support/daemon.js';
import { missing, python } from '../support/parts.js';
import { leaveHost } from '../support/python-host.js';

// The Python md_server on the configuration, the database and the templates that mdserver leaves.

const skip = missingClient('md_server/mdserver/server.py') || missing('bottle', 'xmltodict');

test('Python serves each guest what it served, and those that came later', { skip }, async (t) => {
  const { folder, file, write } = await leaveHost(t);
  write('userdata/old', '% if hostname:\nname: {{hostname.upper()}}\n% end\n');
  const port = Number(/^port = (\d+)$/m.exec(readFileSync(file, 'utf8'))?.[1]);
  const server = spawn(python, ['-m', 'mdserver.server', file], {
    stdio: ['ignore', 'ignore', 'pipe'],
    // Where systemd starts it; Bottle looks for templates there.
    cwd: '/',
    env: { PATH: process.env['PATH'], PYTHONPATH: clientPath('md_server'), LC_ALL: 'C' },
  });
  killAtEnd(t, server);
  let errors = '';
  server.stderr.on('data', (chunk) => (errors += chunk));
  const where = { host: '127.0.0.1', port };
  await eventually('Python serves', async () => {
    assert.equal(server.exitCode, null, errors);
    const root = await ask(where, '/').catch(() => undefined);
    return root?.status === 200;
  });

  const answer = async (from: string, path: string) => (await ask(where, path, { from })).text;
  assert.equal(await answer('127.77.0.5', '/2009-04-04/user-data'), 'name: OLD\n');
  assert.equal(await answer('127.77.0.5', '/2009-04-04/meta-data/hostname'), 'old');
  assert.equal(await answer('127.77.0.9', '/2009-04-04/meta-data/hostname'), 'näw');
  assert.match(await answer('127.77.0.9', '/2009-04-04/user-data'), /^ {4}- ssh-ed25519 AAAA me$/m);
  assert.equal(
    readFileSync(join(folder, 'dnsmasq/dhcp/mds.dhcp-hosts'), 'utf8').split('\n')[0],
    '52:54:00:3a:cf:02,id:*,127.77.0.5,old,86400',
  );
  // libvirt starts a guest that has a record.
  const again = await ask(where, '/instance-upload', {
    method: 'POST',
    body: readFileSync(join(folder, 'new.xml')),
  });
  assert.equal(again.status, 200, errors);
});
