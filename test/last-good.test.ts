import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Health } from '../src/control/api.js';
import { atEnd, temporaryFolder } from './support/cleanup.js';
import { startWithControl } from './support/control-socket.js';
import { ask, type Daemon, eventually, freePort, mainFile } from './support/daemon.js';
import { databaseRecord, loopbackConfiguration } from './support/samples.js';

const address = '127.157.0.1';
const guest = '127.157.0.9';
const ctlFile = fileURLToPath(new URL('../src/ctl/main.js', import.meta.url));

/** A host with one instance, whose mdserver is started as its unit starts it. */
async function hostOf(t: TestContext) {
  const folder = temporaryFolder(t, {
    'db.json': JSON.stringify([databaseRecord(1, { mds_ipv4: guest })]),
    'state/': '',
  });
  const port = await freePort(address);
  const text = (mdserver = '') =>
    loopbackConfiguration(address, folder, { mdserver: `password = hunter2\n${mdserver}` }).replace(
      '{port}',
      String(port),
    );
  const env = { ...process.env, STATE_DIRECTORY: `${folder}/state:/var/lib/other` };
  const file = join(folder, 'mdserver.conf');
  const socket = join(folder, 'run/control.sock');
  return {
    folder,
    file,
    port,
    text,
    start: (configuration: string): Promise<Daemon> =>
      startWithControl(t, folder, configuration, address, (command, args) =>
        spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], env }),
      ),
    /** Starts it, and gives how it ended. */
    refusal: (configuration: string) => {
      writeFileSync(file, configuration);
      const { status, stderr } = spawnSync(process.execPath, [mainFile, file], {
        env,
        encoding: 'utf8',
        timeout: 60_000,
      });
      return { status, stderr };
    },
    ctl: (...args: string[]) => {
      const { status, stdout } = spawnSync(process.execPath, [ctlFile, '--config', file, ...args], {
        encoding: 'utf8',
        env: { ...env, MAINPID: String(process.pid) },
        timeout: 60_000,
      });
      return { status, stdout };
    },
    problems: async () => {
      const { body } = (await ask({ socketPath: socket }, '/health')).json();
      return (body as Health).problems;
    },
    socket,
    lastGood: join(folder, 'state/last-good-config.json'),
  };
}

/** A port that another program has. */
async function takenPort(t: TestContext): Promise<number> {
  const other = createServer().listen(0, address);
  await once(other, 'listening');
  atEnd(t, () => other.close());
  return (other.address() as { port: number }).port;
}

type Host = Awaited<ReturnType<typeof hostOf>>;

/** Starts it with a good configuration, and stops it when that is kept. */
async function startOnce(host: Host): Promise<void> {
  const daemon = await host.start(host.text());
  await eventually('the configuration is kept', () => {
    return existsSync(host.lastGood) && readFileSync(host.lastGood, 'utf8').includes('hunter2');
  });
  assert.equal(await daemon.stop(), 0);
}

/** That the guest is served as with the good configuration, and that log and health report say why. */
async function assertLastGood(host: Host, daemon: Daemon, refusal: string): Promise<void> {
  const served = await ask({ host: address, port: host.port }, '/latest/meta-data/hostname', {
    from: guest,
  });
  assert.deepEqual([served.status, served.text], [200, 'vm1']);
  const said = `the last good configuration is in force, because the new one has an error: ${refusal}`;
  assert.ok(daemon.output().includes(` ERROR ${said}\n`), daemon.output());
  const problems = await host.problems();
  assert.equal(problems.filter((line) => line === said).length, 1, problems.join('\n'));
}

test('a restart with an error in the configuration goes on with the last good one, until a reload', async (t) => {
  const host = await hostOf(t);
  await startOnce(host);
  assert.equal(statSync(host.lastGood).mode & 0o777, 0o600, 'it has the password');
  const kept = readFileSync(host.lastGood, 'utf8');

  const bad = host.text('debug = maybe');
  const line = bad.split('\n').indexOf('debug = maybe') + 1;
  const refusal = `${host.file}:${line}: mdserver.debug = "maybe": expected yes or no`;
  const daemon = await host.start(bad);
  await assertLastGood(host, daemon, refusal);
  assert.doesNotMatch(daemon.output(), /hunter2/);
  assert.deepEqual(host.ctl('wait'), { status: 0, stdout: '' }, 'the unit starts');
  const checked = host.ctl('--socket', host.socket, 'check');
  assert.equal(checked.status, 1);
  assert.ok(checked.stdout.startsWith(`failure\tconfiguration\t${refusal}\t`), checked.stdout);
  assert.match(checked.stdout, /^warning\tmdserver\tthe last good configuration is in force, /m);
  assert.equal(readFileSync(host.lastGood, 'utf8'), kept, 'the bad one is not kept');

  writeFileSync(host.file, host.text('userdata_suffixes = .x'));
  daemon.process.kill('SIGHUP');
  await daemon.printed('read the configuration again');
  assert.ok(!(await host.problems()).some((problem) => problem.includes('last good')));
  await eventually('the new one is kept', () =>
    readFileSync(host.lastGood, 'utf8').includes('".x"'),
  );
  assert.equal(await daemon.stop(), 0);
});

test('a reload with an error is in the health report as well', async (t) => {
  const host = await hostOf(t);
  const daemon = await host.start(host.text());
  writeFileSync(host.file, 'nonsense\n');
  daemon.process.kill('SIGHUP');
  await daemon.printed('kept the old configuration');
  const [, problem] = await host.problems();
  assert.match(problem ?? '', /^the last good configuration is in force, .*mdserver\.conf:1: /);
});

test('what needs a restart is kept as it is in force, not as a reload has read it', async (t) => {
  const host = await hostOf(t);
  const first = await host.start(host.text());
  writeFileSync(
    host.file,
    `${host.text().replace(/^port = .*/m, 'port = 1')}[service]\nname = renamed\n`,
  );
  first.process.kill('SIGHUP');
  await eventually('the new one is kept', () => {
    return (
      readdirSync(`${host.folder}/state`).includes('last-good-config.json') &&
      readFileSync(host.lastGood, 'utf8').includes('renamed')
    );
  });
  assert.equal(await first.stop(), 0);
  const daemon = await host.start(host.text('debug = maybe'));
  assert.equal((await daemon.ask('/service/name')).text, 'renamed');
  assert.equal(daemon.port, host.port);
});

test('a new port that another program has is refused, and the old one stays', async (t) => {
  const host = await hostOf(t);
  await startOnce(host);
  const port = await takenPort(t);
  const daemon = await host.start(host.text().replace(/^port = .*/m, `port = ${port}`));
  await assertLastGood(
    host,
    daemon,
    `cannot serve on http://${address}:${port}: another program uses this address and port: stop it, or set mdserver.port`,
  );
});

test('a new path of the database where there is none, or no database, is refused, and the old one stays', async (t) => {
  const host = await hostOf(t);
  await startOnce(host);
  const moved = (name: string) =>
    host.text().replace(/^db_file = .*/m, `db_file = ${host.folder}/${name}`);
  const first = await host.start(moved('bd.json'));
  await assertLastGood(
    host,
    first,
    `mdserver.db_file = "${host.folder}/bd.json" does not exist, and the instances are in ${host.folder}/db.json: move that file, or write [] to the new one to start without instances`,
  );
  assert.equal(await first.stop(), 0);
  const other = join(host.folder, 'other.json');
  writeFileSync(other, '{"entries": 1}');
  const second = await host.start(moved('other.json'));
  await assertLastGood(
    host,
    second,
    `${other}: expected an array of records, or an object with "entries"; repair it, or move it away to start with an empty database`,
  );
  assert.equal(await second.stop(), 0);
  writeFileSync(join(host.folder, 'new.json'), '[]');
  const third = await host.start(moved('new.json'));
  assert.equal((await third.ask('/latest/meta-data/hostname', { from: guest })).status, 404);
});

test('without the database of the last good configuration, which has moved, an error stops the start', async (t) => {
  const host = await hostOf(t);
  await startOnce(host);
  const [old, moved] = [join(host.folder, 'db.json'), join(host.folder, 'moved.json')];
  renameSync(old, moved);
  const port = await takenPort(t);
  const configuration = host
    .text()
    .replace(/^db_file = .*/m, `db_file = ${moved}`)
    .replace(/^port = .*/m, `port = ${port}`);
  assert.deepEqual(host.refusal(configuration), {
    status: 78,
    stderr: `mdserver: cannot serve on http://${address}:${port}: another program uses this address and port: stop it, or set mdserver.port; the last good configuration is of no use, because its database, ${old}, is gone\n`,
  });
  assert.equal(existsSync(old), false);
});

test('without a last good configuration that can be used, an error stops the start as before', async (t) => {
  const host = await hostOf(t);
  const bad = '[mdserver]\nport = x\n';
  const expected = {
    status: 78,
    stderr: `mdserver: ${host.file}:2: mdserver.port = "x": expected a whole number from 1 to 65535\n`,
  };
  assert.deepEqual(host.refusal(bad), expected);
  for (const content of ['', '{}', '[["mdserver",[["port",{"value":"x"}]]]]']) {
    writeFileSync(host.lastGood, content);
    assert.deepEqual(host.refusal(bad), expected, content);
    await startOnce(host);
  }
});

test('a database that does not parse stops the start, whatever was kept', async (t) => {
  const host = await hostOf(t);
  await startOnce(host);
  writeFileSync(join(host.folder, 'db.json'), '{');
  const { status, stderr } = host.refusal(host.text());
  assert.equal(status, 78);
  assert.match(stderr, /^mdserver: \S+db\.json: not JSON: [^\n]*repair it[^\n]*\n$/);
});

test('a folder that takes no file is a warning', async (t) => {
  const host = await hostOf(t);
  mkdirSync(host.lastGood);
  const daemon = await host.start(host.text());
  await daemon.printed(
    / WARN {2}cannot keep the configuration: EISDIR: [^\n]*last-good-config\.json/,
  );
  assert.equal(await daemon.stop(), 0);
});

test('--check says all that would stop a start, and writes nothing', async (t) => {
  const host = await hostOf(t);
  const check = (text: string, database = '[]') => {
    writeFileSync(host.file, text);
    writeFileSync(join(host.folder, 'db.json'), database);
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [mainFile, '--check', host.file],
      { encoding: 'utf8' },
    );
    return { status, stdout, stderr };
  };
  assert.deepEqual(check(host.text()), { status: 0, stdout: '', stderr: '' });
  assert.deepEqual(check(`${host.text()}[servce]\nname = x\n`), {
    status: 0,
    stdout: '',
    stderr: `mdserver: warning: ${host.file}:${host.text().split('\n').length + 1}: unknown section [servce], did you mean [service]?\n`,
  });
  assert.deepEqual(check('[mdserver]\nport = x\n'), {
    status: 78,
    stdout: '',
    stderr: `mdserver: ${host.file}:2: mdserver.port = "x": expected a whole number from 1 to 65535\n`,
  });
  const { status, stderr } = check(host.text(), '[{]');
  assert.equal(status, 78);
  assert.match(stderr, /^mdserver: \S+db\.json: not JSON: [^\n]*repair it[^\n]*\n$/);
  assert.deepEqual(readdirSync(host.folder).sort(), ['db.json', 'mdserver.conf', 'state']);
  assert.deepEqual(readdirSync(join(host.folder, 'state')), []);
});
