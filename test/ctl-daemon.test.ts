import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  constants,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  publicEncrypt,
} from 'node:crypto';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import type { Finding } from '../src/ctl/checks/finding.js';
import { layPackage } from './fixtures/hook/installed.js';
import { exited, temporaryFolder } from './support/cleanup.js';
import { startWithControl } from './support/control-socket.js';
import {
  addressOf,
  findings,
  hostOf,
  type InstanceJson,
  linesOf,
  program,
  run,
  stubVirsh,
} from './support/ctl.js';
import { eventually, freePort } from './support/daemon.js';
import { dig } from './support/dig.js';
import { addHost } from './support/netns.js';
import { missing } from './support/parts.js';
import { accountOf } from './support/processes.js';
import { databaseRecord, domainXml, hostConfiguration, mac, uuid } from './support/samples.js';

/** Reason to skip a test that needs libvirt's client; the test driver needs no daemon. */
const withoutVirsh = missing('virsh');

// ---- commands on a running daemon ----

test('upload, list, show and remove work, as text and as JSON, with their exit statuses', async (t) => {
  const host = hostOf(t);
  const { ctl } = host;
  await host.start();
  assert.deepEqual(await ctl('list'), { status: 0, stdout: '', stderr: '' });

  const file = host.write('web1.xml', domainXml(1, { name: 'web1' }));
  const uploaded = await ctl('upload', file);
  assert.match(uploaded.stdout, /^web1\t127\.77\.\d+\.\d+\t52:54:00:00:00:01\n$/);
  assert.equal(
    uploaded.stderr,
    "mdserverctl: web1: its SMBIOS names no datasource of mdserver, so cloud-init in most images will look nowhere, unless the image or a seed disk tells it where. This names one, from the next start on: virt-xml --add-device --sysinfo 'smbios,system.serial=ds=nocloud;s=http://169.254.169.254/nocloud/;dsmode=net' web1\n",
  );
  const address = await addressOf(host, 'web1');
  const fromInput = await run(
    process.execPath,
    [program, '--config', host.file, 'upload', '-', '--json'],
    domainXml(2, { name: 'web 2' }),
  );
  assert.equal(JSON.parse(fromInput.stdout).domain_name, 'web 2');

  const listed = await ctl('list');
  const [line1 = '', line2 = ''] = listed.stdout.split('\n');
  assert.match(
    line1,
    new RegExp(
      `^web1\t${address}\t52:54:00:00:00:01\there\t\\d{4}-\\d\\d-\\d\\dT[\\d:]{8}Z\t-\tnone$`,
    ),
  );
  assert.match(line2, /^web 2\t/);
  const json = JSON.parse((await ctl('list', '--json')).stdout) as InstanceJson[];
  assert.deepEqual(
    json.map(({ name }) => name),
    ['web1', 'web 2'],
  );
  assert.match((await ctl('show', 'web1')).stdout, new RegExp(`^IPv4 address\t${address}$`, 'm'));
  assert.deepEqual(await ctl('show', 'nobody'), {
    status: 4,
    stdout: '',
    stderr: 'mdserverctl: there is no instance nobody\n',
  });

  stubVirsh(host, []);
  const removed = await ctl('remove', '--yes', 'web 2', 'nobody');
  assert.deepEqual(removed, {
    status: 4,
    stdout: `removed\tweb 2\t${json[1]?.ipv4}\n`,
    stderr: 'mdserverctl: nobody: there is no instance nobody\n',
  });
  assert.equal((await ctl('list')).stdout.split('\t')[0], 'web1');
  assert.deepEqual(
    JSON.parse((await ctl('remove', '-y', '--json', 'web1')).stdout)[0]?.ipv4,
    address,
  );
  assert.equal((await ctl('list')).stdout, '');
});

test('upload reports why mdserver rejects a domain, and a file that cannot be read', async (t) => {
  const host = hostOf(t);
  await host.start();
  const elsewhere = domainXml(1, { name: 'x', network: 'default' });
  for (const [title, file, message] of [
    ['another network', host.write('x.xml', elsewhere), /.*\bmds\b.*/],
    ['no XML', host.write('bad.xml', 'hello'), /the body is not XML[^\n]*/],
    ['no file', join(host.folder, 'none.xml'), /cannot read \S*none\.xml: [^\n]*/],
  ] as const) {
    await t.test(title, async () => {
      const { status, stdout, stderr } = await host.ctl('upload', file);
      assert.deepEqual([status, stdout], [1, '']);
      assert.match(stderr, new RegExp(`^mdserverctl: ${message.source}\n$`));
    });
  }
});

test('an instance is found whatever characters its name has', async (t) => {
  const host = hostOf(t);
  await host.start();
  const names = ['a b?#%&c', 'n'.repeat(255), '7', 'häß日', '--yes'];
  for (const [index, name] of names.entries()) {
    await t.test(name, async () => {
      const xml = host.write('d.xml', domainXml(index + 1, { name }));
      assert.equal((await host.ctl('upload', xml)).status, 0);
      const { stdout, stderr } = await host.ctl('show', '--json', '--', name);
      assert.deepEqual([JSON.parse(stdout).name, stderr], [name, '']);
    });
  }
});

test('render prints what the guest gets, byte for byte, and names the template', async (t) => {
  const host = hostOf(t);
  const daemon = await host.start();
  await host.ctl('upload', host.write('web1.xml', domainXml(1, { name: 'web1' })));
  const address = await addressOf(host, 'web1');
  const template = host.write(
    'userdata/web1.yaml',
    '#cloud-config\r\nhostname: {{hostname}} é\n\n',
  );
  const rendered = await host.ctl('render', 'web1');
  assert.deepEqual(rendered, {
    status: 0,
    stdout: '#cloud-config\nhostname: web1 é\n\n',
    stderr: `mdserverctl: user-data from ${template}\n`,
  });
  const guest = await daemon.ask('/latest/user-data', { from: address });
  assert.equal(rendered.stdout, guest.text);
  const metadata = await daemon.ask('/nocloud/meta-data', { from: address });
  assert.deepEqual(await host.ctl('render', 'web1', 'meta-data'), {
    status: 0,
    stdout: metadata.text,
    stderr: '',
  });
  assert.match(
    (await host.ctl('render', 'web1', 'tree')).stdout,
    new RegExp(`^meta-data/local-ipv4: ${address}$`, 'm'),
  );

  const bytes = Buffer.from([0x1f, 0x8b, 0xff, 0, 10, 13]);
  writeFileSync(template, bytes);
  const args = [program, '--config', host.file, 'render', 'web1'];
  assert.deepEqual(spawnSync(process.execPath, args).stdout, bytes);
});

test('render reports an error in a template with its line, and a guest that gets nothing', async (t) => {
  const host = hostOf(t);
  await host.start();
  await host.ctl('upload', host.write('web1.xml', domainXml(1, { name: 'web1' })));
  const template = host.write('userdata/web1.yaml', '#cloud-config\na: {{hostnam}}\n');
  assert.deepEqual(await host.ctl('render', 'web1'), {
    status: 1,
    stdout: '',
    stderr: `mdserverctl: ${template}:2: unknown name "hostnam" in {{hostnam}}: set it in [template-data], or correct the name\n`,
  });
  await host.ctl(
    'upload',
    host.write(
      'none.xml',
      domainXml(2, { name: 'none', metadata: { userdata_prefix: 'no-file' } }),
    ),
  );
  assert.deepEqual(await host.ctl('render', 'none'), {
    status: 1,
    stdout: '',
    stderr:
      'mdserverctl: none has no user-data: it would get a 404 (mdserver.userdata_dir has no file for the userdata_prefix in the metadata of its domain, "no-file")\n',
  });
});

test('render --as-xml prints what a new domain would get, and stores nothing', async (t) => {
  const host = hostOf(t);
  await host.start();
  host.write('userdata/new.yaml', '#cloud-config\nhostname: {{hostname}}\n');
  const xml = host.write('new.xml', domainXml(9, { name: 'new' }));
  const rendered = await host.ctl('render', '--as-xml', xml);
  assert.equal(rendered.stdout, '#cloud-config\nhostname: new\n');
  assert.match((await host.ctl('render', '--as-xml', xml, 'meta-data')).stdout, /local-hostname/);
  assert.equal((await host.ctl('list')).stdout, '');
  const bad = await host.ctl('render', '--as-xml', host.write('bad.xml', '<domain/>'));
  assert.deepEqual([bad.status, bad.stdout], [1, '']);
});

test('render --as-xml takes a domain that libvirt has not seen yet, and says what it made up', async (t) => {
  const host = hostOf(t);
  await host.start();
  const template = '{{instance.uuid.length}} {{instance.mac.length}} {{instance.name}}\n';
  host.write('userdata/new.yaml', template);
  const whole = domainXml(9, { name: 'new' });
  const withoutUuid = whole.replace(/<uuid>.*<\/uuid>/, '');
  for (const [xml, missing] of [
    [withoutUuid.replace(/<mac [^>]*>/, ''), 'uuid and no MAC address'],
    [withoutUuid, 'uuid'],
    [whole.replace(/<mac [^>]*>/, ''), 'MAC address'],
  ] as const) {
    const file = host.write('new.xml', xml);
    assert.deepEqual(await host.ctl('render', '--as-xml', file), {
      status: 0,
      stdout: '36 17 new\n',
      stderr: `mdserverctl: the XML has no ${missing}, which libvirt makes: rendered with made-up ones\nmdserverctl: user-data from ${host.folder}/userdata/new.yaml\n`,
    });
    assert.equal((await host.ctl('upload', file)).status, 1);
  }
  assert.equal((await host.ctl('list')).stdout, '');
  const elsewhere = host.write('else.xml', whole.replace("'mds'", "'default'"));
  const { status, stderr } = await host.ctl('render', '--as-xml', elsewhere);
  assert.deepEqual(
    [status, stderr],
    [
      1,
      'mdserverctl: the domain "new" has no interface on the network "mds" or the bridge "br-mds"\n',
    ],
  );
  // A bad one is no missing one.
  const bad = host.write('bad.xml', whole.replace(/<uuid>.*<\/uuid>/, '<uuid/>'));
  assert.match((await host.ctl('render', '--as-xml', bad)).stderr, /which is not a UUID\n$/);
});

test('explain finds an instance by its name and its address, and tells what it asked for', async (t) => {
  const host = hostOf(t);
  const daemon = await host.start();
  await host.ctl('upload', host.write('web1.xml', domainXml(1, { name: 'web1' })));
  const address = await addressOf(host, 'web1');
  assert.match((await host.ctl('explain', 'web1')).stdout, /: no boot seen since mdserver started/);

  const headers = { 'user-agent': 'Cloud-Init/22.4.2 \x9b' };
  await daemon.ask('/latest/meta-data/instance-id', { from: address, headers });
  await daemon.ask('/latest/user-data', { from: address, headers });
  await daemon.ask('/latest/nonsense', { from: address });
  const explained = await host.ctl('explain', 'web1');
  assert.equal(explained.status, 0);
  assert.match(explained.stdout, /: its last boot got everything there is for it\.$/m);
  assert.match(
    explained.stdout,
    /first request, of 3 in total by Cloud-Init\/22\.4\.2 \\u009b on ec2 paths; no token$/m,
  );
  assert.match(explained.stdout, / {2}errors: 404 \/latest\/nonsense$/m);
  const ageless = (text: string) => text.replace(/\d+ seconds? ago/, 'some seconds ago');
  assert.equal(ageless((await host.ctl('explain', address)).stdout), ageless(explained.stdout));
  assert.equal((await host.ctl('list')).stdout.trim().split('\t')[5], 'configured');

  await daemon.ask('/latest/meta-data/', { from: '127.77.9.9' });
  const unknown = await host.ctl('explain', '127.77.9.9');
  assert.equal(unknown.status, 4);
  assert.match(
    unknown.stdout,
    /^No instance has the address 127\.77\.9\.9\.\nIts last request, .*\nThe kernel's neighbour table has no MAC /,
  );
  assert.equal((await host.ctl('explain', 'nobody')).status, 4);
});

test('known-hosts prints the keys that a guest phoned home with, and warns of changed ones', async (t) => {
  const host = hostOf(t);
  const daemon = await host.start();
  await host.ctl('upload', host.write('web1.xml', domainXml(1, { name: 'web1' })));
  await host.ctl('upload', host.write('web2.xml', domainXml(2, { name: 'web2' })));
  const address = await addressOf(host, 'web1');
  assert.deepEqual(await host.ctl('known-hosts', 'web1'), {
    status: 1,
    stdout: '',
    stderr:
      'mdserverctl: web1 has not phoned home with host keys: see the phone_home module of cloud-init\n',
  });
  const phoneHome = (key: string) =>
    daemon.ask('/phone-home', {
      from: address,
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams({
        instance_id: 'i-1',
        hostname: 'bank.example.com',
        fqdn: 'bank.example.com',
        pub_key_ed25519: `ssh-ed25519 ${key} root@web1\n`,
      }).toString(),
    });
  const first = 'AAAAC3NzaC1lZDI1NTE5AAAAIFirst';
  const second = 'AAAAC3NzaC1lZDI1NTE5AAAAISecond';
  assert.equal((await phoneHome(first)).status, 200);
  const known = { status: 0, stdout: `web1,${address} ssh-ed25519 ${first}\n`, stderr: '' };
  assert.deepEqual(await host.ctl('known-hosts', 'web1'), known);
  assert.deepEqual(await host.ctl('known-hosts'), known);
  // Refused for 10 seconds after a change.
  await eventually('other keys are taken', async () => (await phoneHome(second)).status === 200);
  const changed = await host.ctl('known-hosts', 'web1');
  assert.equal(changed.stdout, `web1,${address} ssh-ed25519 ${second}\n`);
  assert.match(
    changed.stderr,
    /^mdserverctl: web1: its host keys changed \S+; unless it was reinstalled, /,
  );
  assert.equal((await host.ctl('known-hosts', 'web1', 'nobody')).status, 4);
  assert.equal(JSON.parse((await host.ctl('known-hosts', '--json')).stdout).length, 1);
});

test('password prints what the guest reported, decrypted with its RSA key, and says why another one is no use', {
  skip: missing('ssh-keygen'),
}, async (t) => {
  const host = hostOf(t);
  const daemon = await host.start();
  const keyFile = host.write('my key', '');
  rmSync(keyFile);
  const made = spawnSync('ssh-keygen', ['-q', '-t', 'rsa', '-b', '2048', '-N', '', '-f', keyFile]);
  assert.equal(made.status, 0, String(made.stderr));
  await host.ctl('upload', host.write('win1.xml', domainXml(1, { name: 'win1' })));
  const fails = async (message: string, ...args: string[]) =>
    assert.deepEqual(await host.ctl('password', 'win1', ...args), {
      status: 1,
      stdout: '',
      stderr: `mdserverctl: ${message}\n`,
    });
  await fails('win1 has reported no password: cloudbase-init does it once, at its first boot');

  const toPem = `make an unprotected copy in PEM, and remove it afterwards: cp '${keyFile}' key.pem && ssh-keygen -p -N '' -m PEM -f key.pem`;
  const report = (text: string) => {
    const key = createPublicKey(readFileSync(pem));
    const padding = constants.RSA_PKCS1_PADDING;
    return daemon.ask('/openstack/2013-04-04/password', {
      from: address,
      method: 'POST',
      body: publicEncrypt({ key, padding }, Buffer.from(text)).toString('base64'),
    });
  };
  const address = await addressOf(host, 'win1');
  const folder = temporaryFolder(t);
  const copied = spawnSync('sh', ['-c', toPem.replace(/^.*afterwards: /, '')], { cwd: folder });
  assert.equal(copied.status, 0, String(copied.stderr));
  const pem = join(folder, 'key.pem');

  assert.equal((await report('Pässword 1!')).status, 200);
  const answer = { status: 0, stderr: '' };
  const decrypted = { ...answer, stdout: 'Pässword 1!\n' };
  assert.deepEqual(await host.ctl('password', 'win1', '--key', pem), decrypted);
  const asJson = await host.ctl('password', 'win1', '--json', '-k', pem);
  assert.deepEqual(JSON.parse(asJson.stdout), { password: 'Pässword 1!' });
  assert.match((await host.ctl('password', 'win1')).stdout, /^[A-Za-z0-9+/]{342}==\n$/);

  await fails(`${keyFile} is in OpenSSH's own format: ${toPem}`, '--key', keyFile);
  const { privateKey: other } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const written = (name: string, key: KeyObject, passphrase?: string) => {
    const cipher = passphrase === undefined ? {} : { cipher: 'aes-256-cbc', passphrase };
    return host.write(name, String(key.export({ type: 'pkcs8', format: 'pem', ...cipher })));
  };
  const otherFile = written('other', other);
  await fails(
    `${otherFile} does not decrypt the password: it was encrypted with a public key that the instance had then; now it has default`,
    ...['--key', otherFile],
  );
  const protectedFile = written('protected', other, 'x');
  const toPemToo = toPem.replace(`'${keyFile}'`, protectedFile);
  await fails(`${protectedFile} is protected by a passphrase: ${toPemToo}`, '-k', protectedFile);
  const ed25519 = written('ed25519', generateKeyPairSync('ed25519').privateKey);
  await fails(`${ed25519} is not an RSA key: only those decrypt`, '--key', ed25519);
  const nothing = await host.ctl('password', 'win1', '--key', join(folder, 'no.pem'));
  assert.match(nothing.stderr, /^mdserverctl: cannot read .*no\.pem: ENOENT/);
  assert.equal((await host.ctl('password', 'nobody')).status, 4);
});

test('known-hosts prints no name of another site: a domain called github.com is github-com', async (t) => {
  const host = hostOf(t);
  const daemon = await host.start();
  await host.ctl('upload', host.write('x.xml', domainXml(1, { name: 'github.com' })));
  const address = await addressOf(host, 'github.com');
  const key = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKey';
  const answer = await daemon.ask('/phone-home', {
    from: address,
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams({ instance_id: 'i-1', pub_key_ed25519: key }).toString(),
  });
  assert.equal(answer.status, 200);
  assert.deepEqual(await host.ctl('known-hosts'), {
    status: 0,
    stdout: `github-com,${address} ${key}\n`,
    stderr: '',
  });
});

// ---- without a daemon or permission ----

test('without a running daemon, every command that needs it says so, with exit status 3', async (t) => {
  const host = hostOf(t);
  const xml = host.write('web1.xml', domainXml(1, { name: 'web1' }));
  const notRunning = {
    status: 3,
    stdout: '',
    stderr: `mdserverctl: mdserver is not running (no answer on ${host.folder}/run/control.sock): systemctl start mdserver\n`,
  };
  const lines = [
    ['list'],
    ['show', 'web1'],
    ['remove', '--yes', 'web1'],
    ['upload', xml],
    ['render', 'web1'],
    ['render', '--as-xml', xml],
    ['explain', 'web1'],
    ['explain', '127.77.0.9'],
    ['known-hosts'],
  ];
  for (const line of lines) {
    await t.test(line.join(' '), async () => {
      assert.deepEqual(await host.ctl(...line), notRunning);
    });
  }
  await t.test('sync', { skip: withoutVirsh }, async () => {
    assert.deepEqual(await host.ctl('sync', '--connect', 'test:///default'), notRunning);
  });
  await t.test('list, with the socket of a daemon that was killed', async () => {
    const daemon = await host.start();
    daemon.process.kill('SIGKILL');
    await exited(daemon.process);
    assert.deepEqual(await host.ctl('list'), notRunning);
  });
});

test('--socket works without a usable configuration', async (t) => {
  const host = hostOf(t);
  await host.start();
  const config = join(host.folder, 'none.conf');
  const refused = await host.ctl('list', '--config', config);
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /none\.conf: cannot be read: .*--socket/);
  const socket = join(host.folder, 'run/control.sock');
  assert.equal((await host.ctl('list', '--config', config, '--socket', socket)).status, 0);
});

test('only root and the group of the control socket may use it', {
  skip: missing('root', 'setpriv'),
}, async (t) => {
  const host = hostOf(t);
  await host.start();
  // The folders are open, so that only the mode of the socket matters.
  for (const path of ['.', 'run']) chmodSync(join(host.folder, path), 0o755);
  const as = (group: string) =>
    run('setpriv', [
      ...['--reuid', '65534', '--regid', group, '--clear-groups'],
      ...[process.execPath, program, '--config', host.file, 'list'],
    ]);
  assert.deepEqual(await as('0'), { status: 0, stdout: '', stderr: '' });
  assert.deepEqual(await as('65534'), {
    status: 3,
    stdout: '',
    stderr: `mdserverctl: only root and the group mdserver may use ${host.folder}/run/control.sock: run this with sudo\n`,
  });
  chmodSync(host.file, 0o600);
  assert.deepEqual(await as('65534'), {
    status: 3,
    stdout: '',
    stderr: `mdserverctl: only root and the group mdserver may read ${host.file}: run this with sudo\n`,
  });
});

test('on a terminal, output has columns and colours (unless NO_COLOR is set), and remove asks', {
  skip: missing('script'),
}, async (t) => {
  const host = hostOf(t);
  await host.start();
  await host.ctl('upload', host.write('web1.xml', domainXml(1, { name: 'web1' })));
  const onTerminal = (line: string, input = '', env = {}) => {
    const command = `${process.execPath} ${program} --config ${host.file} ${line}`;
    return run('script', ['-qec', command, '/dev/null'], input, { NO_COLOR: '', ...env }, true);
  };
  const heading = /NAME +ADDRESS +MAC +LOCATION +LAST SEEN +LAST BOOT/;
  const coloured = await onTerminal('list');
  assert.match(stripVTControlCharacters(coloured.stdout), heading);
  assert.ok(coloured.stdout.startsWith('\x1b[1m'));
  const uncoloured = await onTerminal('list', '', { NO_COLOR: '1' });
  assert.match(uncoloured.stdout, heading);
  assert.ok(!uncoloured.stdout.includes('\x1b'));

  const kept = await onTerminal('remove web1', 'n\n');
  assert.match(kept.stdout, /Remove web1\? \[y\/N\]/);
  assert.deepEqual([kept.status, (await host.ctl('show', 'web1')).status], [1, 0]);
  const asked = await onTerminal('remove web1', 'y\n');
  assert.deepEqual([asked.status, (await host.ctl('show', 'web1')).status], [0, 4]);
});

for (const line of [
  ['remove', 'web1'],
  ['sync', '--prune'],
]) {
  test(`without a terminal, ${line.join(' ')} needs --yes`, async (t) => {
    const { status, stdout, stderr } = await hostOf(t).ctl(...line);
    assert.deepEqual([status, stdout], [2, '']);
    assert.match(
      stderr,
      / needs a terminal to ask for confirmation: use --yes to remove without asking\n$/,
    );
  });
}

// ---- libvirt ----

test('sync uploads every domain of a real libvirt', { skip: withoutVirsh }, async (t) => {
  const host = hostOf(t);
  await host.start();
  const sync = (...args: string[]) => host.ctl('sync', '--connect', connection, ...args);
  const domains = [
    domainXml(1, { name: 'web1' }),
    // virsh would take this name for the id of a domain.
    domainXml(2, { name: '1' }),
    domainXml(3, { name: 'other', network: 'default' }),
  ].map((xml) =>
    xml.replace(
      "type='test'",
      "type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'",
    ),
  );
  const connection = `test://${host.write('node.xml', `<node>${domains.join('')}</node>`)}`;

  await host.ctl('upload', host.write('gone.xml', domainXml(8, { name: 'gone' })));
  const synced = await sync();
  const address = await addressOf(host, 'web1');
  const numbered = await addressOf(host, '1');
  const gone = await addressOf(host, 'gone');
  assert.equal(synced.status, 0);
  const lines = synced.stdout.trimEnd().split('\n').sort();
  assert.equal(lines.length, 4);
  assert.equal(lines[0], `no domain\tgone\t${gone}`);
  assert.match(lines[1] ?? '', /^skipped\tother\t.*mds/);
  assert.deepEqual(lines.slice(2), [`uploaded\t1\t${numbered}`, `uploaded\tweb1\t${address}`]);
  assert.equal(
    synced.stderr,
    'mdserverctl: 3 domains: 2 uploaded, 1 skipped (no interface on the network), 0 failed; 1 record without a domain (--prune removes them)\n' +
      'mdserverctl: 2 instances whose SMBIOS names no datasource of mdserver: 1, web1: see mdserverctl explain 1\n',
  );
  assert.equal((await host.ctl('show', 'gone')).status, 0);

  const pruned = await sync('--prune', '--yes', '--json');
  const { domains: all, without_domain, removed } = JSON.parse(pruned.stdout);
  assert.equal(all.length, 3);
  assert.deepEqual(
    [without_domain, removed].map((records: InstanceJson[]) => records.map(({ name }) => name)),
    [['gone'], ['gone']],
  );
  assert.equal((await host.ctl('show', 'gone')).status, 4);
  assert.equal(await addressOf(host, 'web1'), address);

  const nowhere = await host.ctl('sync', '--connect', 'test:///no/such/file');
  assert.equal(nowhere.status, 1);
  assert.match(nowhere.stderr, /^mdserverctl: virsh \(test:\/\/\/no\/such\/file\): [^\n]+\n$/);
});

test('sync skips a domain that has no interface on the network', {
  skip: withoutVirsh,
}, async (t) => {
  const host = hostOf(t);
  await host.start();
  const { status, stdout } = await host.ctl('sync', '-c', 'test:///default');
  assert.equal(status, 0);
  assert.match(stdout, /^skipped\ttest\t/);
});

test('sync shows whose chosen address is refused, as an error', {
  skip: withoutVirsh,
}, async (t) => {
  const host = hostOf(t);
  await host.start();
  const domains = [1, 2].map((number) =>
    domainXml(number, { metadata: { ipv4: '10.9.0.1' } }).replace(
      "type='kvm'",
      "type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'",
    ),
  );
  const node = host.write('node.xml', `<node>${domains.join('')}</node>`);
  const { status, stdout, stderr } = await host.ctl('sync', '-c', `test://${node}`);
  assert.equal(status, 1);
  const lines = stdout.trimEnd().split('\n').sort();
  assert.deepEqual(
    lines.map((line) => line.split('\t').slice(0, 2)),
    [
      ['failed', 'vm1'],
      ['failed', 'vm2'],
    ],
  );
  assert.match(
    lines[0] ?? '',
    /ipv4 in the metadata of the domain "vm1" is "10\.9\.0\.1", which no/,
  );
  assert.match(
    stderr,
    /2 domains: 0 uploaded, 0 skipped \(no interface on the network\), 2 failed/,
  );
});

// ---- wait ----

test('wait ends when mdserver serves, and when the process that it waits for has ended', async (t) => {
  const host = hostOf(t);
  const wait = (main: number | undefined) =>
    run(process.execPath, [program, '--config', host.file, 'wait'], '', { MAINPID: main ?? '' });
  const gone = spawn('true');
  await once(gone, 'exit');
  assert.deepEqual(await wait(gone.pid), {
    status: 3,
    stdout: '',
    stderr: 'mdserverctl: mdserver does not serve: see its log\n',
  });
  // While it waits, the daemon starts, and overwrites the configuration with one that has a port.
  writeFileSync(host.file, readFileSync(host.file, 'utf8').replace('port = 1', 'port = many'));
  const waiting = wait(process.pid);
  const daemon = await host.start();
  assert.deepEqual(await waiting, { status: 0, stdout: '', stderr: '' });
  assert.equal((await wait(undefined)).status, 0);
  await daemon.stop();
});

// ---- check ----

test('check: an error in the configuration is the only finding', async (t) => {
  const host = hostOf(t);
  writeFileSync(host.file, '[mdserver]\nport = many\n');
  const all = await findings(host);
  assert.equal(all.length, 1);
  assert.match(all[0]?.text ?? '', /mdserver\.conf:2: mdserver\.port = "many": expected /);
});

test('check works without a running daemon, and reports what is missing', async (t) => {
  const host = hostOf(t);
  const port = await freePort('127.0.0.1');
  writeFileSync(host.file, readFileSync(host.file, 'utf8').replace('port = 1', `port = ${port}`));
  const all = await findings(host);
  assert.deepEqual(linesOf(all, 'configuration'), [`ok: ${host.file}`]);
  assert.deepEqual(linesOf(all, 'mdserver'), [
    `failure: mdserver is not running (no answer on ${host.folder}/run/control.sock): systemctl start mdserver`,
  ]);
  assert.deepEqual(linesOf(all, 'address'), [
    `failure: no answer on http://127.0.0.1:${port}: systemctl restart mdserver`,
  ]);
  assert.deepEqual(linesOf(all, 'database'), [
    `warning: ${host.folder}/data/db_file.json does not exist yet: there are no instances`,
  ]);
  assert.deepEqual(linesOf(all, 'dnsmasq'), [
    `failure: ${host.folder}/dnsmasq/mds.conf does not exist: mdserver writes it when it starts: systemctl start mdserver`,
  ]);
  assert.match(linesOf(all, 'hook')[0] ?? '', /^failure: mdserver's qemu hook is neither /);
});

test('check warns of records with more metadata than an upload may bring', async (t) => {
  const host = hostOf(t);
  const record = databaseRecord(1, {
    domain_metadata: { value: 'x'.repeat(20_000) },
    mds_ipv4: '127.77.0.9',
  });
  host.write('data/db_file.json', JSON.stringify([record]));
  const [warned, ...others] = linesOf(await findings(host), 'database');
  assert.match(
    warned ?? '',
    /^warning: .*\/db_file\.json has 1 record with more than 16384 bytes of metadata, 20005 bytes in all, /,
  );
  assert.deepEqual(others, [`ok: ${host.folder}/data/db_file.json has 1 instance`]);
});

test('check reports each template with an error, with an instance that it affects', async (t) => {
  const host = hostOf(t);
  await host.start();
  for (const [index, name] of ['broken', 'yaml', 'plain', 'fine'].entries()) {
    await host.ctl('upload', host.write('d.xml', domainXml(index + 1, { name })));
  }
  await host.ctl(
    'upload',
    host.write('d.xml', domainXml(9, { name: 'none', metadata: { userdata_prefix: 'no-file' } })),
  );
  const broken = host.write('userdata/broken', '#cloud-config\n{{nothing}}\n');
  const yaml = host.write('userdata/yaml', '#cloud-config\na: [1\n');
  const plain = host.write('userdata/plain', 'hostname: x\n');
  const texts = linesOf(await findings(host), 'user-data');
  assert.deepEqual(
    texts.map((line) => line.replace(/Flow sequence.*? \(/, 'Flow sequence … (')),
    [
      `failure: ${broken}:2: unknown name "nothing" in {{nothing}}: set it in [template-data], or correct the name (broken): mdserverctl render broken shows it`,
      `failure: ${yaml}: YAML, line 3 of the rendered text: Flow sequence … (yaml): mdserverctl render yaml shows it`,
      `warning: ${plain}: cloud-init does not recognise the first line, "hostname: x" (cloud-config begins with "#cloud-config") (plain): mdserverctl render plain shows it`,
      'warning: no user-data (404): mdserver.userdata_dir has no file for the userdata_prefix in the metadata of its domain, "no-file" (none): mdserverctl show none shows it',
      'ok: 5 instances rendered from 3 templates',
    ],
  );
});

test('check and the start say that a template is a link out of the folder, whether or not an instance has it', async (t) => {
  const host = hostOf(t);
  host.write('elsewhere', 'x\n');
  for (const name of ['web1', 'web2']) {
    symlinkSync('../elsewhere', join(host.folder, 'userdata', name));
  }
  const daemon = await host.start();
  await host.ctl('upload', host.write('d.xml', domainXml(1, { name: 'web1' })));
  const line = (name: string) =>
    `${host.folder}/userdata/${name}: the link points to ${host.folder}/elsewhere, outside ${host.folder}/userdata: put a file there in its place`;
  await daemon.printed(line('web1'));
  await daemon.printed(line('web2'));
  assert.deepEqual(linesOf(await findings(host), 'user-data'), [
    `failure: ${line('web2')}`,
    `failure: ${line('web1')} (web1): mdserverctl render web1 shows it`,
    'ok: 1 instance rendered from 0 templates',
  ]);
});

test("check runs the host's cloud-init schema for each template: what it refuses is a warning", {
  skip: missing('cloud-init'),
}, async (t) => {
  const host = hostOf(t);
  await host.start();
  await host.ctl('upload', host.write('d.xml', domainXml(1, { name: 'web1' })));
  await host.ctl('upload', host.write('d.xml', domainXml(2, { name: 'web2' })));
  await host.ctl('upload', host.write('d.xml', domainXml(3, { name: 'web3' })));
  // Refused, with a key that is deprecated; and what is no YAML, which is a failure already.
  const text = '#cloud-config\napt_update: true\nssh_authorized_keys: 7\n';
  const template = host.write('userdata/web1', text);
  host.write('userdata/web3', '#cloud-config\na: [1\n');
  const version = spawnSync('cloud-init', ['--version'], { encoding: 'utf8' }).stdout.split(' ')[1];
  assert.deepEqual(linesOf(await findings(host), 'cloud-config'), [
    `warning: ${template}: Cloud config schema errors: ssh_authorized_keys: 7 is not of type 'array' (says the host's cloud-init ${version?.trim()}; the guest's may be of another version): mdserverctl render web1 | cloud-init schema --annotate --config-file /dev/stdin`,
    'ok: cloud-init schema accepts 1 template',
  ]);
});

test('check reports files that others can write or read, with the chmod that fixes it', async (t) => {
  const host = hostOf(t);
  const daemon = await host.start();
  assert.match(
    linesOf(await findings(host), 'permissions').join(),
    /^ok: \d+ files and folders have safe permissions$/,
  );
  const template = host.write('userdata/web1', 'x');
  const key = join(host.folder, 'data/token.key');
  const socket = join(host.folder, 'run/control.sock');
  chmodSync(template, 0o666);
  chmodSync(key, 0o644);
  chmodSync(socket, 0o666);
  chmodSync(join(host.folder, 'data'), 0o777);
  for (const path of ['data/db_file.json', 'data/db_file.details.json', 'log']) {
    chmodSync(join(host.folder, path), 0o644);
  }
  assert.deepEqual(
    linesOf(await findings(host), 'permissions').map((line) => line.split(': ').at(-1)),
    [
      `chmod 0600 ${key}`,
      `chmod 0640 ${join(host.folder, 'data/db_file.json')}`,
      `chmod 0640 ${join(host.folder, 'data/db_file.details.json')}`,
      `chmod 0640 ${join(host.folder, 'log')}`,
      `chmod 0775 ${join(host.folder, 'data')}`,
      `chmod 0660 ${socket}`,
      `chmod 0664 ${template}`,
    ],
  );
  await daemon.stop();
});

test('check reports a unit that does not let mdserver do what the configuration says', async (t) => {
  const host = hostOf(t);
  const found = async () => linesOf(await findings(host), 'unit');
  assert.deepEqual(await found(), []);
  const order = '[Unit]\nBefore=libvirtd.service virtqemud.service virtnetworkd.service\n';
  const unit = (text: string, before = order) =>
    host.write('etc/systemd/system/mdserver.service', before + text);
  const path = unit('[Service]\nIPAddressDeny=any\nIPAddressAllow=localhost 127.77.0.0/16\n');
  // The paths of this host are not those of the units.
  const dropIns = ['mdserver', 'mdserver-dnsmasq'].map((name) =>
    join(host.folder, `etc/systemd/system/${name}.service.d/integrate.conf`),
  );
  assert.deepEqual(
    await found(),
    dropIns.map(
      (file) =>
        `warning: ${file} does not fit mdserver.conf: run 'mdserverctl integrate', then 'systemctl restart mdserver'`,
    ),
  );
  const { status, stdout } = await run(
    process.execPath,
    [program, 'integrate', '--config', host.file],
    '',
    { PREFIX: host.folder },
  );
  assert.equal(status, 0);
  // Root also makes the folders.
  const wrote = stdout.split('\n').filter((line) => line.startsWith('wrote '));
  assert.deepEqual(
    wrote,
    dropIns.map((file) => `wrote ${file}`),
  );
  assert.deepEqual(await found(), [`ok: ${path} fits the configuration`]);
  // As the units of 1.0.0, for another configuration.
  unit(
    '[Service]\nIPAddressDeny=any\nIPAddressAllow=localhost\nSocketBindDeny=any\nSocketBindAllow=tcp:80\n',
  );
  assert.deepEqual(
    await found(),
    [
      ['IPAddress', 'Allow=127.77.0.0/16'],
      ['SocketBind', 'Allow=tcp:1'],
    ].map(
      ([key, rest]) =>
        `warning: ${path} does not have ${key}${rest}, which the configuration needs: remove its lines with ${key}, then systemctl daemon-reload and systemctl restart mdserver`,
    ),
  );
  unit('After=network.target libvirtd.service virtnetworkd.service\n', '[Unit]\n');
  assert.deepEqual(await found(), [
    `warning: ${path} does not start mdserver before libvirt, which starts guests at once: install the unit of this version`,
  ]);
});

test('check reports hooks that are missing, not executable, or post elsewhere', async (t) => {
  const host = hostOf(t);
  await host.start();
  const socket = join(host.folder, 'run/control.sock');
  const spool = join(host.folder, 'data/spool');
  const hook = (path: string, toSocket = socket, network = '*') => {
    const written = host.write(
      path,
      `#!/bin/sh\n':' //; case "$2 $3 $1" in 'port-created begin '${network}) ;; esac\nconst controlSocket = '${toSocket}';\nconst spoolFolder = '${spool}';\n`,
    );
    chmodSync(written, 0o755);
    return written;
  };
  const lines = async () => linesOf(await findings(host), 'hook');
  const found = async (driver: string) => (await lines()).filter((line) => line.includes(driver));
  const missingHook = (driver: string, result: string) =>
    `failure: mdserver's ${driver} hook is neither ${host.folder}/etc/libvirt/hooks/${driver} nor in ${host.folder}/etc/libvirt/hooks/${driver}.d, so mdserver does not learn of ${result}: run system-integration.sh or reinstall the package, then restart libvirtd`;
  const kept = `ok: ${spool} keeps what the hook cannot post`;
  assert.deepEqual(await lines(), [
    missingHook('qemu', 'guests that start'),
    missingHook('network', 'interfaces that are attached to a running guest'),
    kept,
  ]);
  const strays = `which does not lead to mdserver's control socket ${socket}: systemctl restart mdserver makes the one a link to the other`;
  for (const driver of ['qemu', 'network']) {
    const place = `etc/libvirt/hooks/${driver}`;
    const path = hook(place);
    assert.deepEqual(await found(driver), [`ok: ${path} posts to ${socket}`]);
    chmodSync(path, 0o644);
    assert.deepEqual(await found(driver), [
      `failure: ${path} is not executable, so libvirt ignores it: chmod 755 ${path}`,
    ]);
    hook(place, '/nowhere');
    assert.deepEqual(await found(driver), [`failure: ${path} posts to /nowhere, ${strays}`]);
    const link = join(host.folder, 'run/link');
    symlinkSync(socket, link);
    hook(place, link);
    assert.deepEqual(await found(driver), [`ok: ${path} posts to ${link}`]);
    rmSync(link);
    // Another program's hook in its place, and mdserver's beside it.
    host.write(place, '#!/bin/sh\n');
    const beside = hook(`${place}.d/mdserver`);
    assert.deepEqual(await found(driver), [`ok: ${beside} posts to ${socket}`]);
    hook(place);
    assert.deepEqual(await found(driver), [
      `warning: there are two hooks, ${path} and ${beside}: remove one of them`,
      `ok: ${path} posts to ${socket}`,
      `ok: ${beside} posts to ${socket}`,
    ]);
    rmSync(dirname(beside), { recursive: true });
  }
  const again = 'run system-integration.sh again, or reinstall the package';
  const network = hook('etc/libvirt/hooks/network', socket, "default'");
  writeFileSync(network, readFileSync(network, 'utf8').replace("begin '", 'begin '));
  assert.deepEqual(await found('network'), [
    `failure: ${network} reports interfaces on the network default, but mdserver's is mds: ${again}`,
  ]);
  // That of the first releases.
  const qemu = host.write('etc/libvirt/hooks/qemu', "const uploadUrl = 'http://127.0.0.1/';\n");
  chmodSync(qemu, 0o755);
  assert.deepEqual(
    (await found('qemu')).filter((line) => !line.includes('keeps nothing')),
    [`failure: ${qemu} posts to (none), ${strays}`],
  );
});

test('check reports a hook that keeps nothing, or keeps it where mdserver does not look', async (t) => {
  const host = hostOf(t);
  await host.start();
  const spool = join(host.folder, 'data/spool');
  const lost = 'what the hook cannot post while mdserver is down is lost';
  const hook = (keeps: string) =>
    host.write(
      'etc/libvirt/hooks/qemu',
      `const controlSocket = '${host.folder}/run/control.sock';\n${keeps}`,
    );
  const found = async () =>
    linesOf(await findings(host), 'hook').filter((line) => /keeps|lost|spool/.test(line));
  const path = hook('');
  const ok = `ok: ${spool} keeps what the hook cannot post`;
  assert.deepEqual(await found(), [
    `warning: ${path} keeps nothing: ${lost}: run system-integration.sh again, or reinstall the package`,
    ok,
  ]);
  hook("const spoolFolder = '/elsewhere';\n");
  assert.deepEqual(await found(), [
    `failure: ${path} keeps what it cannot post in /elsewhere, where mdserver does not look: run system-integration.sh again, or reinstall the package`,
    ok,
  ]);
  hook(`const spoolFolder = '${spool}';\n`);
  assert.deepEqual(await found(), [ok]);
  chmodSync(spool, 0o750);
  assert.deepEqual(await found(), [
    `failure: ${spool} is open to others, so the hook does not use it: ${lost}: chmod 0700 ${spool}`,
  ]);
  rmSync(spool, { recursive: true });
  assert.deepEqual(await found(), [
    `failure: ${spool} does not exist: ${lost}: systemctl restart mdserver`,
  ]);
  symlinkSync('/etc', spool);
  assert.deepEqual(await found(), [
    `failure: ${spool} is not a folder: ${lost}: remove it, then systemctl restart mdserver`,
  ]);
});

test('check reports a spool folder that does not belong to the user of mdserver', {
  skip: missing('root'),
}, async (t) => {
  const host = hostOf(t);
  await host.start();
  const spool = join(host.folder, 'data/spool');
  chownSync(spool, 65534, 65534);
  assert.deepEqual(linesOf(await findings(host), 'hook').slice(-1), [
    `failure: ${spool} belongs to another user than mdserver's, which cannot take in what the hook keeps: chown -h 0:0 ${spool}`,
  ]);
});

test('check runs dnsmasq --test on what mdserver writes for it, and reports files that differ', {
  skip: missing('dnsmasq'),
}, async (t) => {
  const host = hostOf(t);
  await host.start();
  const metadata = { dhcp_options: 'mtu=1450; 252=a"b#c', default_route: 'no' };
  await host.ctl('upload', host.write('d.xml', domainXml(1, { name: 'web1', metadata })));
  const found = async () => linesOf(await findings(host), 'dnsmasq').slice(0, -1);
  const accepted = "ok: accepts mdserver's configuration and 1 instance";
  assert.deepEqual(await found(), [accepted]);
  const changed = ['mds.conf', 'mds.opts', 'dhcp/mds.dhcp-hosts', 'dns/mds.dns-hosts'].map((name) =>
    host.write(`dnsmasq/${name}`, 'conf-script=/bin/false\n'),
  );
  assert.deepEqual(await found(), [
    accepted,
    ...changed.map(
      (path) => `warning: ${path} is not what mdserver writes now: systemctl restart mdserver`,
    ),
  ]);
});

test('root checks as the user of the daemon: nothing that it can write runs as root', {
  skip: missing('root', 'dnsmasq', 'cloud-init'),
}, async (t) => {
  // Where other users can go, and with a copy of the program that they can read.
  const host = hostOf(t);
  chmodSync(host.folder, 0o755);
  const installed = layPackage(host.folder);
  const { uid, gid } = accountOf('nobody');
  for (const name of ['data', 'dnsmasq', 'dnsmasq/dhcp', 'dnsmasq/dns', 'run', 'seen']) {
    mkdirSync(join(host.folder, name));
    chownSync(join(host.folder, name), uid, gid);
  }
  const record = { ...databaseRecord(1, { mds_ipv4: '127.77.0.9' }), location: 'here' };
  host.write('data/db_file.json', JSON.stringify([record]));
  host.write(
    'userdata/vm1',
    `#cloud-config\n# {{% process.getBuiltinModule('fs').writeFileSync('${host.folder}/seen/template', [process.getuid(), ...process.getgroups()].join()) }}\n`,
  );
  const script = host.write('script', `#!/bin/sh\nid -u >> ${host.folder}/seen/script\n`);
  chmodSync(script, 0o755);
  host.write('dnsmasq/mds.conf', `conf-script=${script}\ndhcp-script=${script}\n`);
  const check = async (user: string) => {
    const file = host.write(
      'user.conf',
      readFileSync(host.file, 'utf8').replace('user = root', `user = ${user}`),
    );
    const line = [
      join(installed, 'dist/bundle/mdserverctl.js'),
      '--config',
      file,
      'check',
      '--json',
    ];
    return JSON.parse((await run(process.execPath, line)).stdout) as Finding[];
  };

  // As dnsmasq.user, and as the owner of the database's folder if dnsmasq.user is root.
  for (const user of ['nobody', 'root']) {
    const all = await check(user);
    assert.deepEqual(linesOf(all, 'database'), [
      `ok: ${host.folder}/data/db_file.json has 1 instance`,
    ]);
    assert.deepEqual(linesOf(all, 'user-data'), ['ok: 1 instance rendered from 1 template']);
    assert.equal(linesOf(all, 'dnsmasq')[0], "ok: accepts mdserver's configuration and 1 instance");
    assert.deepEqual(readdirSync(join(host.folder, 'seen')), ['template'], JSON.stringify(all));
    assert.equal(readFileSync(join(host.folder, 'seen/template'), 'utf8'), `${uid},${gid}`);
    rmSync(join(host.folder, 'seen/template'));
  }

  assert.deepEqual(linesOf(await check('mds-nobody-has-this'), 'user'), [
    'failure: there is no user mds-nobody-has-this (dnsmasq.user), so database, user-data and dnsmasq are not checked: run system-integration.sh, which creates it',
  ]);
  assert.deepEqual(readdirSync(join(host.folder, 'seen')), []);

  chmodSync(join(host.folder, 'data/db_file.json'), 0o600);
  assert.deepEqual(linesOf(await check('nobody'), 'database'), [
    `failure: EACCES: permission denied, open '${host.folder}/data/db_file.json': mdserver runs as the user nobody, which must be able to read it`,
  ]);
});

// ---- a real host in a network namespace ----

test('a working host passes the check, a broken one does not; a real dnsmasq sees a removal', {
  skip: missing('netns', 'dnsmasq', 'dig') || withoutVirsh,
}, async (t) => {
  const folder = temporaryFolder(t);
  const host = addHost(t, 'virbr0');
  // For libvirt's test driver: a network with this bridge, and a domain on it.
  const node = join(folder, 'node.xml');
  writeFileSync(
    node,
    `<node>
  <network>
    <name>default</name>
    <uuid>${uuid(8)}</uuid>
    <forward mode='nat'/>
    <bridge name='virbr0'/>
    <dns enable='no'/>
    <ip address='10.122.0.1' prefix='16'/>
  </network>
  <domain type='test'>
    <name>test</name>
    <uuid>${uuid(7)}</uuid>
    <memory>1024</memory>
    <os><type>hvm</type></os>
    <devices>
      <interface type='network'><mac address='${mac(7)}'/><source network='default'/></interface>
    </devices>
  </domain>
</node>`,
  );
  const libvirt = ['--connect', `test://${node}`];
  mkdirSync(join(folder, 'userdata'));
  const hook = join(folder, 'etc/libvirt/hooks/qemu');
  mkdirSync(dirname(hook), { recursive: true });
  const target = `#!/bin/sh\n# 'port-created begin default'\nconst controlSocket = '${folder}/run/control.sock';\nconst spoolFolder = '${folder}/spool';\n`;
  writeFileSync(hook, target, { mode: 0o755 });
  writeFileSync(join(hook, '../network'), target, { mode: 0o755 });
  const configuration = hostConfiguration(folder, {
    dnsmasq: 'user = root\nnet_name = default\ninterface = virbr0',
    sections: '[public-keys]\ndefault = ssh-ed25519 AAAA me',
  });
  const daemon = await startWithControl(t, folder, configuration, '169.254.169.254', host.start);
  const ctl = (...args: string[]) =>
    host.run(process.execPath, [program, '--config', join(folder, 'mdserver.conf'), ...args], {
      ...process.env,
      PREFIX: folder,
    });
  const dnsmasq = host.start('dnsmasq', [
    '--keep-in-foreground',
    `--conf-file=${folder}/dnsmasq/default.conf`,
  ]);
  // No guest is on the bridge yet, so it has no carrier.
  await eventually('dnsmasq runs', () => existsSync(join(folder, 'run/default.pid')));
  assert.equal((await ctl('sync', ...libvirt)).status, 0);
  const checked = await ctl('check', ...libvirt);
  assert.deepEqual(
    checked.stdout.split('\n').filter((line) => line !== '' && !line.startsWith('ok\t')),
    [
      "warning\tnetwork\tlibvirt's network default does not start with the host\tvirsh net-autostart default",
    ],
  );
  assert.equal(checked.status, 0);
  for (const line of [
    /^ok\tdnsmasq\tis running \(process \d+\)$/m,
    /^ok\tnetwork\tvirbr0 has the address 10\.122\.0\.1$/m,
    /^ok\tports\tno other program has the ports of DNS and DHCP on virbr0$/m,
    /^ok\tdomains\t1 domain on the network, each as in its record$/m,
    /^ok\taddress\thttp:\/\/169\.254\.169\.254 is served$/m,
  ]) {
    assert.match(checked.stdout, line);
  }

  const guest = host.addGuest('52:54:00:ff:ff:ff');
  guest.ip('address add 10.122.255.250/16 dev eth0');
  const resolve = async (name: string) => (await dig(guest.run, '10.122.0.1', name)).join('\n');
  const xml = join(folder, 'web1.xml');
  writeFileSync(xml, domainXml(1, { name: 'web1', network: 'default' }));
  const [, address = ''] = (await ctl('upload', xml)).stdout.split('\t');
  await eventually('web1 is in DNS', async () => (await resolve('web1')) === address);

  assert.equal((await ctl('remove', '--yes', 'web1')).status, 0);
  await eventually('web1 is gone from DNS', async () => (await resolve('web1')) === '');
  const hosts = readFileSync(join(folder, 'dnsmasq/dhcp/default.dhcp-hosts'), 'utf8');
  assert.match(hosts, new RegExp(`^${mac(7)},[^\\n]*,test,86400\\n$`));

  host.ip('link delete virbr0');
  dnsmasq.kill('SIGTERM');
  await once(dnsmasq, 'exit');
  const broken = await ctl('check', ...libvirt);
  assert.equal(broken.status, 1);
  assert.match(
    broken.stdout,
    /^failure\taddress\tno interface has the address 169\.254\.169\.254; mdserver serves it as soon as one has\t/m,
  );
  assert.match(broken.stdout, /^failure\tnetwork\tthe bridge virbr0 does not exist\t/m);
  assert.match(broken.stdout, /^failure\tdnsmasq\tdnsmasq is not running /m);
  await daemon.stop();
});

// ---- many ----

test('10,000 instances are listed, checked and searched for host keys', async (t) => {
  const host = hostOf(t);
  const count = 10_000;
  const records = Array.from({ length: count }, (_, index) => ({
    domain_name: `web${index}`,
    domain_uuid: uuid(index),
    domain_metadata: index % 2 === 0 ? {} : { userdata_prefix: 'odd' },
    mds_mac: mac(index),
    mds_ipv4: `127.77.${Math.floor(index / 250) + 1}.${(index % 250) + 2}`,
    mds_ipv6: null,
    first_seen: 1_700_000_000,
    last_update: 1_700_000_000,
    location: 'here',
  }));
  host.write('data/db_file.json', JSON.stringify(records));
  host.write('userdata/odd', '#cloud-config\nhostname: {{hostname}}\nlist: [{{instance.name}}\n');
  await host.start();
  const listed = (await host.ctl('list')).stdout.trimEnd().split('\n');
  assert.equal(listed.length, count);
  assert.ok(listed.at(-1)?.startsWith(`web${count - 1}\t127.77.40.251\t`));

  const all = await findings(host);
  assert.deepEqual(linesOf(all, 'database'), [
    `ok: ${host.folder}/data/db_file.json has ${count} instances`,
  ]);
  const texts = linesOf(all, 'user-data');
  assert.equal(texts.length, 2);
  // check parses a hundred texts of each template: the others differ in their values only.
  assert.match(texts[0] ?? '', /^failure: .*\/odd: YAML, line 4 .*\(100 instances, such as web1\)/);
  assert.equal(texts[1], `ok: ${count} instances rendered from 2 templates`);
  if (!missing('dnsmasq')) assert.match(linesOf(all, 'dnsmasq')[0] ?? '', /^ok: accepts /);

  assert.deepEqual(await host.ctl('known-hosts'), { status: 0, stdout: '', stderr: '' });
});
