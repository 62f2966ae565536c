import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { Agent, get } from 'node:http';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { atEnd, killAtEnd, temporaryFolder } from './support/cleanup.js';
import { startWithControl } from './support/control-socket.js';
import { type Daemon, eventually, freePort, mainFile, startDaemon } from './support/daemon.js';
import { missing, python } from './support/parts.js';
import { rowName } from './support/rows.js';
import { databaseRecord, domainXml, loopbackConfiguration } from './support/samples.js';
import { type Site, startSite } from './support/site.js';

const address = '127.134.0.1';

function configuration(folder: string, mdserver = '', sections = ''): string {
  return loopbackConfiguration(address, folder, { mdserver, sections });
}

interface Run {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the program to its end. */
async function run(args: readonly string[], options: { cwd?: string } = {}): Promise<Run> {
  const child = spawn(process.execPath, [mainFile, ...args], {
    ...options,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 60_000,
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk) => (stdout += chunk));
  child.stderr.on('data', (chunk) => (stderr += chunk));
  const [code, signal] = await once(child, 'close');
  return { code, signal, stdout, stderr };
}

/** The one line on stderr that a start ends with. */
async function refusal(args: readonly string[]): Promise<string> {
  const { code, signal, stderr } = await run(args);
  assert.equal(signal, null);
  assert.ok(code !== null && code !== 0, `exit status ${code}`);
  assert.match(stderr, /^mdserver: [^\n]+\n$/, 'one line');
  return stderr.slice('mdserver: '.length, -1);
}

/** A new configuration in force, with what was printed meanwhile. */
async function reloaded(daemon: Daemon, folder: string, text: string): Promise<string> {
  writeFileSync(join(folder, 'mdserver.conf'), text.replace('{port}', String(daemon.port)));
  const before = daemon.output().length;
  const pattern = /read the configuration again|kept the old configuration/g;
  const count = daemon.output().match(pattern)?.length ?? 0;
  daemon.process.kill('SIGHUP');
  await eventually('the daemon reports the reload', () => {
    assert.equal(daemon.process.exitCode, null, daemon.output());
    return (daemon.output().match(pattern)?.length ?? 0) > count;
  });
  return daemon.output().slice(before);
}

async function uploadedAddress(daemon: Daemon): Promise<string> {
  const answer = await daemon.upload(domainXml(1), { accept: 'application/json' });
  assert.equal(answer.status, 200, answer.text);
  return JSON.parse(answer.text).mds_ipv4;
}

test('--help and --version say what there is and do nothing', async (t) => {
  for (const option of ['--help', '-h']) {
    await t.test(option, async () => {
      const { code, stdout, stderr } = await run([option]);
      assert.deepEqual([code, stderr], [0, '']);
      assert.match(stdout, /^Usage: mdserver \[--check\] \[CONFIG\]\n/);
      assert.match(stdout, /\/etc\/mdserver\/mdserver\.conf/);
    });
  }
  for (const option of ['--version', '-V']) {
    await t.test(option, async () => {
      const { code, stdout, stderr } = await run([option, '/no/such/file']);
      assert.deepEqual([code, stderr], [0, '']);
      assert.match(stdout, /^mdserver \d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)\n$/);
    });
  }
});

test('it starts through a symbolic link, as npm installs it', async (t) => {
  const folder = temporaryFolder(t);
  symlinkSync(mainFile, join(folder, 'mdserver'));
  const stdout = execFileSync(process.execPath, [join(folder, 'mdserver'), '--version']);
  assert.match(String(stdout), /^mdserver /);
});

test('unknown options and too many files are refused in one line', async () => {
  assert.match(await refusal(['--bogus']), /^Unknown option '--bogus'.*see mdserver --help$/);
  assert.match(await refusal(['-x']), /^Unknown option '-x'.*see mdserver --help$/);
  assert.equal(
    await refusal(['a.conf', 'b.conf']),
    'more than one configuration file given; see mdserver --help',
  );
});

/** Configurations that stop the start, and the error message: `DIR` is the test's folder. */
const badConfigurations: [string, string, RegExp][] = [
  ['no section', 'port = 80\n', /^DIR\/mdserver\.conf:1: .*section/],
  ['no option line', '[mdserver]\nport\n', /^DIR\/mdserver\.conf:2: /],
  ['a key given twice', '[mdserver]\nport = 1\nport = 2\n', /^DIR\/mdserver\.conf:3: .*port/],
  [
    'a bad number',
    '[mdserver]\n\nport = http\n',
    /^DIR\/mdserver\.conf:3: mdserver\.port = "http": expected a whole number from 1 to 65535$/,
  ],
  [
    'a bad address',
    '[dnsmasq]\ngateway = 10.122.0.300\n',
    /^DIR\/mdserver\.conf:2: dnsmasq\.gateway = "10\.122\.0\.300": expected an IPv4 address$/,
  ],
  [
    'a bad yes or no',
    '[mdserver]\ndebug = maybe\n',
    /^DIR\/mdserver\.conf:2: mdserver\.debug = "maybe": expected yes or no$/,
  ],
  [
    'a bad level',
    '[loglevels]\nfile = loud\n',
    /^DIR\/mdserver\.conf:2: loglevels\.file = "loud": expected one of debug, /,
  ],
  [
    'the last address of the network as gateway',
    '[dnsmasq]\ngateway = 10.122.255.255\n',
    /^DIR\/mdserver\.conf:2: dnsmasq\.gateway = "10\.122\.255\.255": expected an address that is not the first or last of 10\.122\.0\.0\/16 /,
  ],
  ['bytes that are no text', '[mdserver]\n\xff = 1\n', /^DIR\/mdserver\.conf: .*UTF-8/],
  [
    'a bad value in an included file',
    '[_include_]\nfiles = DIR/more.conf\n',
    /^DIR\/more\.conf:2: mdserver\.port = "0": expected a whole number/,
  ],
];
for (const [name, text, expected] of badConfigurations) {
  test(`a configuration with ${name} stops the start in one line that says where`, async (t) => {
    const folder = temporaryFolder(t);
    const file = join(folder, 'mdserver.conf');
    writeFileSync(file, text.replaceAll('DIR', folder), 'latin1');
    writeFileSync(join(folder, 'more.conf'), '[mdserver]\nport = 0\n');
    assert.match((await refusal([file])).replaceAll(folder, 'DIR'), expected);
  });
}

test('a configuration file that cannot be read stops the start', async (t) => {
  const folder = temporaryFolder(t);
  assert.match(await refusal([join(folder, 'none.conf')]), /none\.conf: .*ENOENT/);
  assert.match(await refusal([folder]), /mdserver-test-[^:]*: .*EISDIR/);
});

test('a bad password is not shown', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'mdserver.conf');
  writeFileSync(
    file,
    configuration(folder, 'password = hunter2\n  hunter3').replace('{port}', '1'),
  );
  const said = await refusal([file]);
  assert.match(said, /mdserver\.password: expected one line of text$/);
  assert.doesNotMatch(said, /hunter/);
});

test('a database that does not parse stops the start and is not written over', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'mdserver.conf');
  writeFileSync(file, configuration(folder).replace('{port}', '1'));
  for (const bad of ['', '{"entries": ', '{"records": []}']) {
    await t.test(rowName(bad), async () => {
      writeFileSync(join(folder, 'db.json'), bad);
      assert.match(await refusal([file]), /db\.json: .*; repair it, or move it away/);
      assert.equal(readFileSync(join(folder, 'db.json'), 'utf8'), bad);
    });
  }
  assert.ok(!existsSync(join(folder, 'dnsmasq')), 'nor are files for dnsmasq written');
});

test('a record that is no instance does not stop the start: it is said, and the others are served', async (t) => {
  const odd = { domain_name: 'odd', mds_mac: 'x', mds_ipv4: '127.134.0.8' };
  const prefix = { '@xmlns:mdserver': 'urn:md_server:domain_metadata', '#text': 'p' };
  const good = databaseRecord(1, {
    mds_ipv4: '127.134.0.9',
    domain_metadata: { userdata_prefix: prefix },
  });
  const folder = temporaryFolder(t, {
    'db.json': JSON.stringify([odd, good]),
    'userdata/p.yaml': 'of {{hostname}}',
  });
  const line = `${folder}/db.json: record 1: mds_mac is "x", expected a MAC address ("odd"): left out, so this guest is not served; it stays in the file: repair it there, or remove it`;
  const file = join(folder, 'check.conf');
  writeFileSync(file, configuration(folder).replace('{port}', '1'));
  const checked = await run(['--check', file]);
  assert.deepEqual([checked.code, checked.stderr], [0, `mdserver: warning: ${line}\n`]);

  const daemon = await startDaemon(t, folder, configuration(folder), address);
  assert.ok(daemon.output().includes(` WARN  ${line}\n`), daemon.output());
  const served = await daemon.ask('/latest/user-data', { from: '127.134.0.9' });
  assert.deepEqual([served.status, served.text], [200, 'of vm1']);
  assert.equal((await daemon.ask('/latest/user-data', { from: '127.134.0.8' })).status, 404);
  assert.equal(await daemon.stop(), 0);
  assert.deepEqual(JSON.parse(readFileSync(join(folder, 'db.json'), 'utf8'))[0], odd);
});

const badPlaces: [string, (folder: string) => string, RegExp][] = [
  [
    'the database is a folder',
    (folder) => configuration(folder).replace(/db_file = .*/, `db_file = ${folder}`),
    /EISDIR/,
  ],
  [
    "the database's folder is a file",
    (folder) => configuration(folder).replace(/db_file = .*/, 'db_file = /dev/null/db.json'),
    /^E[A-Z]+: .*\/dev\/null/,
  ],
];
for (const [name, text, expected] of badPlaces) {
  test(`the start is refused in one line when ${name}`, async (t) => {
    const folder = temporaryFolder(t);
    const file = join(folder, 'mdserver.conf');
    writeFileSync(file, text(folder).replace('{port}', String(await freePort(address))));
    assert.match(await refusal([file]), expected);
  });
}

/** What stops neither a start nor what is served, and what the log and the health report say about it. */
const survivedPlaces: [string, (folder: string) => string, (folder: string) => string][] = [
  [
    'the log file is a folder',
    (folder) => configuration(folder).replace(/logfile = .*/, `logfile = ${folder}`),
    (folder) =>
      `the log file cannot be written: EISDIR: illegal operation on a directory, open '${folder}'`,
  ],
  [
    "the log file's folder is a file",
    (folder) => configuration(folder).replace(/logfile = .*/, 'logfile = /dev/null/log'),
    () => "the log file cannot be written: EEXIST: file already exists, mkdir '/dev/null'",
  ],
  [
    "dnsmasq's folder is a file",
    (folder) => configuration(folder).replace(/base_dir = .*/, 'base_dir = /dev/null/x'),
    () =>
      "the configuration of dnsmasq cannot be written: ENOTDIR: not a directory, mkdir '/dev/null/x/dhcp'",
  ],
  [
    "the control socket's folder is a file",
    (folder) => configuration(folder, 'control_socket = /dev/null/socket'),
    () => "mdserverctl is not served: EEXIST: file already exists, mkdir '/dev/null'",
  ],
];
for (const [name, text, problem] of survivedPlaces) {
  test(`guests are served when ${name}, and the log and the health report say so`, async (t) => {
    const folder = temporaryFolder(t, {
      'db.json': JSON.stringify([databaseRecord(1, { mds_ipv4: '127.134.0.9' })]),
    });
    const daemon = await startWithControl(
      t,
      folder,
      text(folder).replace('[mdserver]\n', '[mdserver]\nmetrics = yes\n'),
      address,
    );
    const served = await daemon.ask('/latest/meta-data/hostname', { from: '127.134.0.9' });
    assert.deepEqual([served.status, served.text], [200, 'vm1']);
    assert.ok(daemon.output().includes(` ERROR ${problem(folder)}`), daemon.output());
    const { problems } = JSON.parse((await daemon.ask('/health', { from: address })).text);
    assert.equal(problems.filter((line: string) => line.startsWith(problem(folder))).length, 1);
    assert.equal(await daemon.stop(), 0);
  });
}

/** Collects what a systemd would be told. */
async function notifyReceiver(t: TestContext, folder: string) {
  const path = join(folder, 'notify');
  const program = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print("bound", flush=True)
while True: print(s.recv(4096).decode(), flush=True)
`;
  const child = spawn(python, ['-c', program, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  killAtEnd(t, child);
  let received = '';
  child.stdout.on('data', (chunk) => (received += chunk));
  const told = async (text: string) => {
    for (let waited = 0; !received.includes(text); waited += 5) {
      if (waited > 60_000) throw new Error(`systemd was not told ${text}: ${received}`);
      await pause(5);
    }
    return received;
  };
  await told('bound');
  return { path, told };
}

const startTold = (path: string) => (command: string, args: readonly string[]) =>
  spawn(command, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NOTIFY_SOCKET: path },
  });

test("systemd is told READY=1 when requests are served and dnsmasq's files are written, and the state from then on", {
  skip: missing('python', 'systemd-notify'),
}, async (t) => {
  const folder = temporaryFolder(t);
  const { path, told } = await notifyReceiver(t, folder);
  const text = configuration(folder);
  const starting = startDaemon(t, folder, text, address, startTold(path));
  await told('READY=1');
  const files = ['mds.conf', 'mds.opts', 'dhcp/mds.dhcp-hosts', 'dns/mds.dns-hosts'];
  assert.deepEqual(
    files.filter((name) => !existsSync(join(folder, 'dnsmasq', name))),
    [],
  );
  const port = Number(
    /port = (\d+)/.exec(readFileSync(join(folder, 'mdserver.conf'), 'utf8'))?.[1],
  );
  const socket = connect(port, address);
  await once(socket, 'connect');
  socket.destroy();
  const daemon = await starting;
  assert.equal((await daemon.ask('/')).status, 200);
  const noDnsmasq = `dnsmasq is not running (no ${folder}/run/mds.pid); it will read its files when it starts`;
  const ready = (status: string) => `READY=1\nSTATUS=${status}\nBARRIER=1\n`;
  assert.equal(await told('BARRIER=1'), `bound\n${ready(noDnsmasq)}`);

  const bad = await reloaded(daemon, folder, `${text}\n[mdserver]\n`);
  assert.match(bad, /kept the old configuration: /);
  const lines = readFileSync(join(folder, 'mdserver.conf'), 'utf8').split('\n');
  const [first, second] = lines.flatMap((line, index) => (line === '[mdserver]' ? index + 1 : []));
  const refusal = `the last good configuration is in force, because the new one has an error: ${folder}/mdserver.conf:${second}: section [mdserver] already exists on line ${first}: `;
  const afterBad = (await told(refusal)).slice(`bound\n${ready(noDnsmasq)}`.length);
  assert.match(
    afterBad,
    /^RELOADING=1\nMONOTONIC_USEC=\d+\nBARRIER=1\nREADY=1\nSTATUS=dnsmasq is not running/,
  );
  const now = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]);
  const said = Number(/MONOTONIC_USEC=(\d+)/.exec(afterBad)?.[1]) / 1e6;
  assert.ok(now - 60 < said && said <= now + 1, `${said} is not the clock of systemd, ${now}`);

  const before = (await told(refusal)).length;
  await reloaded(daemon, folder, text);
  // In one notice with RELOADING=1 if systemd-notify was still running.
  await eventually('systemd is told that all is well again', async () =>
    (await told('')).slice(before).includes(`READY=1\nSTATUS=${noDnsmasq}\n`),
  );
  assert.equal(await daemon.stop(), 0);
  assert.match(await told('STATUS=stopping'), /\nSTOPPING=1\nSTATUS=stopping\n/);
});

test('a port that is in use is refused, and systemd is not told that it is ready', {
  skip: missing('python', 'systemd-notify'),
}, async (t) => {
  const folder = temporaryFolder(t);
  const { path, told } = await notifyReceiver(t, folder);
  const other = createServer().listen(0, address);
  await once(other, 'listening');
  atEnd(t, () => other.close());
  const { port } = other.address() as { port: number };
  await assert.rejects(
    startDaemon(
      t,
      folder,
      configuration(folder).replace('{port}', `${port}`),
      address,
      startTold(path),
    ),
    (error: Error) => {
      const line = `mdserver: cannot serve on http://${address}:${port}: another program uses this address and port`;
      assert.ok(error.message.includes(line), error.message);
      return true;
    },
  );
  execFileSync('systemd-notify', ['STATUS=end'], { env: { ...process.env, NOTIFY_SOCKET: path } });
  assert.doesNotMatch(await told('STATUS=end'), /READY/);
});

test('a systemd that cannot be told does not end the daemon', async (t) => {
  const folder = temporaryFolder(t);
  const daemon = await startDaemon(
    t,
    folder,
    configuration(folder),
    address,
    startTold(join(folder, 'nobody')),
  );
  await daemon.printed(/cannot tell systemd the state of mdserver: [^\n]+\n/);
  assert.equal((await daemon.ask('/')).status, 200);
});

/** An upload of which only the headers are sent; `rest` sends the body and gives the answer. */
async function slowUpload({
  port,
}: Daemon): Promise<{ socket: Socket; rest: () => Promise<string> }> {
  const socket = connect({ host: address, port, localAddress: address });
  let received = '';
  socket.setEncoding('utf8').on('data', (chunk) => (received += chunk));
  socket.on('error', () => {});
  const closed = once(socket, 'close');
  socket.write(
    `POST /instance-upload HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: ${domainXml(1).length}\r\n\r\n`,
  );
  // Then the daemon has the request in its hands.
  await eventually('the daemon wants the body', () => received.includes('100 Continue'));
  socket.write(domainXml(1).slice(0, 20));
  const rest = async () => {
    socket.write(domainXml(1).slice(20));
    await closed;
    return received.slice(received.indexOf('\r\n\r\n') + 4);
  };
  return { socket, rest };
}

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(`${signal} answers requests in progress, closes idle connections and accepts no new ones`, async (t) => {
    const { daemon, folder } = await startSite(t, address);
    const agent = new Agent({ keepAlive: true, maxSockets: 5 });
    atEnd(t, () => agent.destroy());
    const idle = Array.from({ length: 5 }, async () => {
      const [response] = await once(get({ host: address, port: daemon.port, agent }), 'response');
      response.resume();
      await once(response, 'end');
      return response.statusCode;
    });
    assert.deepEqual(await Promise.all(idle), [200, 200, 200, 200, 200]);
    const upload = await slowUpload(daemon);
    const exit = once(daemon.process, 'exit');

    daemon.process.kill(signal);
    await daemon.printed(`${signal}: mdserver is stopping`);
    await assert.rejects(
      async () => {
        // The socket closes some moments after the line.
        for (let attempt = 0; attempt < 100; attempt++) await daemon.ask('/');
      },
      { code: 'ECONNREFUSED' },
    );
    assert.equal(daemon.process.exitCode, null, 'it waits for the upload');
    const answer = await upload.rest();
    assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
    assert.match(answer, /\r\nconnection: close\r\n/i);
    assert.deepEqual(await exit, [0, null]);
    assert.equal(JSON.parse(readFileSync(join(folder, 'db.json'), 'utf8'))[0].domain_name, 'vm1');
    assert.match(readFileSync(join(folder, 'dnsmasq/dns/mds.dns-hosts'), 'utf8'), / vm1\n$/);
  });
}

test('clients that never finish do not keep it from stopping', async (t) => {
  const { daemon } = await startSite(t, address);
  const upload = await slowUpload(daemon);
  const silent = connect(daemon.port, address);
  silent.on('error', () => {});
  await once(silent, 'connect');
  const half = connect(daemon.port, address);
  half.on('error', () => {});
  half.write('GET / HTTP/1.1\r\nHost:');
  assert.equal(await daemon.stop(), 0);
  for (const socket of [upload.socket, silent, half]) socket.destroy();
});

const key = 'ssh-ed25519 AAAA';

test('SIGHUP applies keys, template data, password, level and templates from the next request on', async (t) => {
  const text = (folder: string, n: number, level: string) =>
    `${configuration(folder, `password = secret${n}`)}
[loglevels]
base = debug
stream = ${level}
[public-keys]
default = ${key}${n}
${n === 2 ? `zoe = ${key}3` : ''}
[template-data]
site = site${n}
[service]
name = name${n}
`;
  const folder = temporaryFolder(t);
  mkdirSync(join(folder, 'userdata'));
  writeFileSync(
    join(folder, 'userdata/vm1'),
    '{{site}} {{mdserver_password}} {{public_key_default}}',
  );
  const daemon = await startDaemon(t, folder, text(folder, 1, 'info'), address);
  const from = await uploadedAddress(daemon);
  const paths = [
    '/latest/user-data',
    '/latest/meta-data/public-keys/',
    '/latest/meta-data/public-keys/0/openssh-key',
    '/service/name',
  ];
  const answers = () =>
    Promise.all(paths.map(async (path) => (await daemon.ask(path, { from })).text));
  assert.deepEqual(await answers(), [`site1 secret1 ${key}1`, '0=default', `${key}1`, 'name1']);
  assert.doesNotMatch(daemon.output(), / DEBUG /);
  await reloaded(daemon, folder, text(folder, 2, 'debug'));
  assert.deepEqual(await answers(), [
    `site2 secret2 ${key}2`,
    '0=default\n1=zoe',
    `${key}2`,
    'name2',
  ]);
  await daemon.upload(
    '<domain><name>other</name><uuid>8f1b3b52-6a0e-4c57-9d0c-3f3c2b000002</uuid></domain>',
  );
  await daemon.printed(/ DEBUG refused an upload/);
  assert.doesNotMatch(daemon.output(), /secret\d/);
  assert.equal(await daemon.stop(), 0);
});

test('SIGHUP continues in a new log file after logrotate has moved the old one', async (t) => {
  const { daemon, folder } = await startSite(t, address);
  const log = join(folder, 'mdserver.log');
  await daemon.ask('/?before');
  renameSync(log, `${log}.1`);
  await daemon.ask('/?between');
  await reloaded(daemon, folder, configuration(folder));
  await daemon.ask('/?after');
  assert.equal(await daemon.stop(), 0);
  const [old, now] = [`${log}.1`, log].map((file) => readFileSync(file, 'utf8'));
  assert.match(old ?? '', /\?before 200[\s\S]*\?between 200/);
  assert.doesNotMatch(old ?? '', /\?after/);
  assert.match(now ?? '', /\?after 200[\s\S]*has stopped\n$/);
  assert.doesNotMatch(now ?? '', /\?before|\?between/);
});

test('a log file that cannot be reopened is reported, and the old one stays in use', async (t) => {
  const { daemon, folder } = await startSite(t, address);
  const log = join(folder, 'mdserver.log');
  renameSync(log, `${log}.1`);
  mkdirSync(log);
  const said = await reloaded(daemon, folder, configuration(folder));
  assert.match(said, /ERROR cannot reopen the log file: EISDIR/);
  assert.match(said, /read the configuration again/);
  await daemon.ask('/?after');
  assert.equal(await daemon.stop(), 0);
  assert.match(readFileSync(`${log}.1`, 'utf8'), /\?after 200/);
});

test('a bad new configuration is refused and logged, and the old one stays in force', async (t) => {
  const { daemon, folder } = await startSite(t, address, { sections: '[service]\nname = good' });
  const bad = [
    '[mdserver]\nport = x\n',
    'nonsense',
    configuration(folder, 'debug = maybe', '[service]\nname = bad'),
  ];
  for (const text of bad) {
    await t.test(rowName(text), async () => {
      const said = await reloaded(daemon, folder, text);
      assert.match(said, /ERROR kept the old configuration: \S+mdserver\.conf:\d+: [^\n]+\n/);
      assert.equal((await daemon.ask('/service/name')).text, 'good');
    });
  }
  unlinkSync(join(folder, 'mdserver.conf'));
  daemon.process.kill('SIGHUP');
  await daemon.printed(/kept the old configuration: \S+mdserver\.conf: [^\n]*ENOENT/);
  assert.equal((await daemon.upload(domainXml(1))).status, 200);
  const said = await reloaded(daemon, folder, configuration(folder, '', '[service]\nname = new'));
  assert.match(said, /read the configuration again/);
  assert.equal((await daemon.ask('/service/name')).text, 'new');
});

test('options that need a restart are named in the log and keep their values', async (t) => {
  const { daemon, folder } = await startSite(t, address);
  const moved = configuration(folder)
    .replace('{port}', '1')
    .replace('db.json', 'other.json')
    .replace('mdserver.log', 'other.log')
    .replace('/dnsmasq\n', '/other\n')
    .concat('[service]\nname = new\n');
  const said = await reloaded(daemon, folder, moved);
  const named = said.match(/\S+(?= has changed: restart mdserver to apply it)/g);
  assert.deepEqual(named?.sort(), [
    'dnsmasq.base_dir',
    'mdserver.db_file',
    'mdserver.logfile',
    'mdserver.port',
  ]);
  assert.equal((await daemon.ask('/service/name')).text, 'new');
  assert.equal((await daemon.upload(domainXml(1))).status, 200);
  const answer = await daemon.ask('/service/configuration', { from: address });
  assert.match(answer.text, new RegExp(`^mdserver\\.port=${daemon.port}$`, 'm'));
  assert.match(answer.text, /^mdserver\.db_file=.*\/db\.json$/m);
  assert.equal(JSON.parse(readFileSync(join(folder, 'db.json'), 'utf8')).length, 1);
  for (const name of ['other.json', 'other.log', 'other']) {
    assert.ok(!existsSync(join(folder, name)), name);
  }
});

test('SIGHUP reads a database again that was edited by hand, and dnsmasq gets its files', async (t) => {
  const { daemon, folder } = await startSite(t, address);
  const from = await uploadedAddress(daemon);
  const file = join(folder, 'db.json');
  writeFileSync(file, readFileSync(file, 'utf8').replace('"vm1"', '"renamed"'));
  await reloaded(daemon, folder, configuration(folder));
  const hosts = () => readFileSync(join(folder, 'dnsmasq/dns/mds.dns-hosts'), 'utf8');
  await eventually('dnsmasq has the new name', () => hosts().includes('renamed'));
  await eventually('the guest has the new name', async () => {
    return (await daemon.ask('/latest/meta-data/hostname', { from })).text === 'renamed';
  });
  writeFileSync(file, '{');
  daemon.process.kill('SIGHUP');
  await daemon.printed(/ERROR [^\n]*db\.json: not JSON[^\n]*repair it/);
  assert.equal((await daemon.ask('/latest/meta-data/hostname', { from })).text, 'renamed');
  assert.equal(await daemon.stop(), 0);
  assert.equal(readFileSync(file, 'utf8'), '{');
});

test('many SIGHUPs at once do no harm', async (t) => {
  const { daemon } = await startSite(t, address);
  const answers: Promise<unknown>[] = [];
  for (let n = 0; n < 30; n++) {
    daemon.process.kill('SIGHUP');
    answers.push(daemon.upload(domainXml(1)).then(({ status }) => assert.equal(status, 200)));
    if (n % 5 === 0) await pause(5);
  }
  await Promise.all(answers);
  assert.equal(await daemon.stop(), 0);
  assert.doesNotMatch(daemon.output(), / ERROR | FATAL /);
});

test('SIGHUP while it starts does not end it', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'mdserver.conf');
  const port = await freePort(address);
  // Reading it waits for a writer: that is a moment of the start that can be held.
  execFileSync('mkfifo', [file]);
  const child = spawn(process.execPath, [mainFile, file], { stdio: ['ignore', 'pipe', 'inherit'] });
  killAtEnd(t, child);
  let output = '';
  child.stdout.on('data', (chunk) => (output += chunk));
  const exit = once(child, 'exit');
  // Opens when the daemon has opened it, too.
  const writer = spawn(
    'sh',
    ['-c', 'exec 3> "$0"; kill -HUP "$1"; cat >&3', file, `${child.pid}`],
    {
      stdio: ['pipe', 'ignore', 'inherit'],
    },
  );
  killAtEnd(t, writer);
  writer.stdin.end(configuration(folder).replace('{port}', String(port)));
  await eventually('the daemon serves', () => {
    assert.deepEqual([child.exitCode, child.signalCode], [null, null], 'it has ended');
    return output.includes('serving on');
  });
  child.kill('SIGTERM');
  assert.deepEqual(await exit, [0, null]);
});

test('an instance-id from the uuid has all digits for a new instance, over a restart, and 17 for one of before', async (t) => {
  const site = await startSite(t, address, {
    records: [databaseRecord(1, { mds_ipv4: '127.134.0.8' })],
    mdserver: 'instance_id = uuid',
  });
  const idOf = async ({ daemon }: Site, from: string) =>
    (await daemon.ask('/latest/meta-data/instance-id', { from })).text;
  // Counted up, so that the first 17 digits are those of vm1.
  const answer = await site.daemon.upload(domainXml(2), { accept: 'application/json' });
  const from = JSON.parse(answer.text).mds_ipv4 as string;
  await site.daemon.upload(domainXml(1));
  const ids = async (running: Site) => [
    await idOf(running, '127.134.0.8'),
    await idOf(running, from),
  ];
  const expected = ['i-00000000000040008', 'i-00000000000040008000000000000002'];
  assert.deepEqual(await ids(site), expected);
  assert.deepEqual(await ids(await site.restart()), expected);
});
