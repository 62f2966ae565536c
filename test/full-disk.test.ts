import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { atEnd, temporaryFolder } from './support/cleanup.js';
import { startWithControl } from './support/control-socket.js';
import { eventually, startDaemon } from './support/daemon.js';
import { domainXml, loopbackConfiguration } from './support/samples.js';

const address = '127.132.0.1';

/**
 * A small disk of the test's own, gone with the test; undefined, and the test is skipped, where
 * mounting is not allowed. It has to be in CI.
 */
function smallDisk(t: TestContext, size: string): string | undefined {
  const folder = temporaryFolder(t);
  const disk = join(folder, 'disk');
  mkdirSync(disk);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', disk], { stdio: 'pipe' });
  } catch (error) {
    if (process.env['CI'] !== undefined) throw error;
    t.skip('no right to mount');
    return undefined;
  }
  atEnd(t, () => execFileSync('umount', ['--lazy', disk]));
  return disk;
}

const page = 4096;

/** Fills the disk up to so many free pages. */
function fill(disk: string, freePages = 0): void {
  const file = openSync(join(disk, 'filler'), 'a');
  try {
    for (;;) writeSync(file, Buffer.alloc(page, 'x'));
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
  } finally {
    closeSync(file);
  }
  const { size } = statSync(join(disk, 'filler'));
  truncateSync(join(disk, 'filler'), size - freePages * page);
}

function mend(disk: string): void {
  rmSync(join(disk, 'filler'));
}

/** Every file on the disk but the filler, with what it holds. */
function contents(disk: string): Map<string, string> {
  const names = readdirSync(disk, { recursive: true, encoding: 'utf8' }).sort();
  const files = names.filter((name) => name !== 'filler' && statSync(join(disk, name)).isFile());
  return new Map(files.map((name) => [name, readFileSync(join(disk, name), 'utf8')]));
}

for (const [freePages, name] of [
  [0, 'at once'],
  [1, 'after the first temporary file'],
  [2, 'after the second temporary file'],
] as const) {
  test(`a disk that is full ${name} refuses an upload in one line and changes no file`, async (t) => {
    const disk = smallDisk(t, '256k');
    if (disk === undefined) return;
    const log = join(disk, '../mdserver.log');
    const daemon = await startDaemon(
      t,
      join(disk, '..'),
      loopbackConfiguration(address, disk, { logfile: log }),
      address,
    );
    assert.equal((await daemon.upload(domainXml(1))).status, 200);
    const before = contents(disk);
    fill(disk, freePages);

    const refused = await Promise.all([2, 3].map((number) => daemon.upload(domainXml(number))));
    // A known one, too: its time of last_update would have to be written, and no other file.
    if (freePages === 0) refused.push(await daemon.upload(domainXml(1)));
    for (const answer of refused) {
      assert.equal(answer.status, 500);
      assert.match(answer.text, /^nothing was stored: ENOSPC: [^\n]*'[^'\n]*disk[^'\n]*'\n$/);
      assert.match(String(answer.headers['content-type']), /^text\/plain/);
    }
    assert.deepEqual(contents(disk), before, 'files as they were, and no temporary ones');
    const { mds_ipv4 } = JSON.parse(before.get('db.json') ?? '')[0];
    const served = await daemon.ask('/latest/meta-data/hostname', { from: mds_ipv4 });
    assert.equal(served.text, 'vm1', 'guests are served as before');

    mend(disk);
    const answers = await Promise.all([2, 3].map((number) => daemon.upload(domainXml(number))));
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 200],
    );
    const records: { domain_name: string }[] = JSON.parse(contents(disk).get('db.json') ?? '');
    assert.deepEqual(records.map(({ domain_name }) => domain_name).sort(), ['vm1', 'vm2', 'vm3']);
    assert.equal(contents(disk).get('dnsmasq/dns/mds.dns-hosts')?.split('\n').length, 4);
    assert.equal(await daemon.stop(), 0);
  });
}

test('a restart on a full disk serves guests with the files that are there, and catches up', async (t) => {
  const disk = smallDisk(t, '256k');
  if (disk === undefined) return;
  const site = await startWithControl(t, disk, loopbackConfiguration(address, disk), address);
  const { text } = await site.upload(domainXml(1), { accept: 'application/json' });
  const from: string = JSON.parse(text).mds_ipv4;
  assert.equal(await site.stop(), 0);
  // What a first start makes is missing, too.
  for (const name of ['token.key', 'dnsmasq/mds.conf']) rmSync(join(disk, name));
  const others = () => {
    const all = contents(disk);
    for (const name of ['mdserver.log', 'mdserver.conf']) all.delete(name);
    return all;
  };
  const before = others();
  const configurationFile = readFileSync(join(disk, 'mdserver.conf'), 'utf8');
  fill(disk);

  // Its configuration is on another disk.
  const daemon = await startWithControl(
    t,
    join(disk, '..'),
    configurationFile.replace('[mdserver]\n', '[mdserver]\nmetrics = yes\n'),
    address,
  );
  const served = await daemon.ask('/latest/meta-data/hostname', { from });
  assert.deepEqual([served.status, served.text], [200, 'vm1']);
  assert.deepEqual(others(), before, 'files as they were, and no temporary ones');
  const problems = async (): Promise<string[]> =>
    JSON.parse((await daemon.ask('/health', { from: address })).text).problems;
  const expected = [
    /^dnsmasq is not running /,
    /^nothing was stored: ENOSPC: .*mds\.opts'$/,
    /^the configuration of dnsmasq cannot be written: ENOSPC: .*mds\.conf'$/,
    /^session tokens end when mdserver restarts: ENOSPC: .*token\.key'$/,
  ];
  // The last page of the log may have room for some more lines.
  const found = (await problems()).filter((line) => !line.startsWith('the log file '));
  assert.equal(found.length, expected.length, found.join('\n'));
  for (const [index, pattern] of expected.entries()) {
    assert.match(found[index] ?? '', pattern);
    if (index > 0) assert.ok(daemon.output().includes(` ERROR ${found[index]}`), found[index]);
  }
  assert.equal((await daemon.upload(domainXml(2))).status, 500);

  mend(disk);
  await eventually('what could not be written is written', async () => {
    return (await problems()).length === 1;
  });
  for (const [name, content] of before) assert.equal(others().get(name), content, name);
  assert.match(others().get('token.key') ?? '', /^[0-9a-f]{64}\n$/);
  assert.match(
    daemon.output(),
    / INFO {2}solved: the configuration of dnsmasq cannot be written\n/,
  );
  assert.equal((await daemon.upload(domainXml(2))).status, 200);
  assert.equal(await daemon.stop(), 0);
});

test('a full disk under the log file stops nothing, and the log continues once there is room', async (t) => {
  const disk = smallDisk(t, '4m');
  if (disk === undefined) return;
  const data = join(disk, '..');
  const log = join(disk, 'mdserver.log');
  const daemon = await startDaemon(
    t,
    data,
    loopbackConfiguration(address, data, { logfile: log }),
    address,
  );
  const { text } = await daemon.upload(domainXml(1), { accept: 'application/json' });
  const from: string = JSON.parse(text).mds_ipv4;
  fill(disk);

  // Not more than an instance may log at once.
  for (let wave = 0; wave < 3; wave++) {
    const answers = await Promise.all(
      Array.from({ length: 30 }, (_, index) =>
        daemon.ask(`/latest/meta-data/hostname?${wave}-${index}-${'x'.repeat(150)}`, { from }),
      ),
    );
    assert.deepEqual(new Set(answers.map((answer) => answer.text)), new Set(['vm1']));
  }
  assert.equal((await daemon.upload(domainXml(2))).status, 200);
  const said = daemon.output().split('the log file cannot be written: ENOSPC').length - 1;
  assert.equal(said, 1, 'said once, on standard output');

  mend(disk);
  for (const number of [1, 2, 3]) {
    await daemon.ask(`/latest/meta-data/hostname?mended-${number}`, { from });
  }
  // The line of a request is written some moments after its answer.
  await eventually('the last request is in the log', () =>
    readFileSync(log, 'utf8').includes('?mended-3 200'),
  );
  const lines = readFileSync(log, 'utf8');
  const asked = lines.split('\n').filter((line) => line.includes('?'));
  for (const line of asked) {
    assert.match(line, / vm1 GET \/latest\/meta-data\/hostname\?\S+ 200 -$/, 'a whole line');
  }
  const kept = asked.filter((line) => /\?[012]-\d+-x/.test(line));
  assert.equal(kept.length, 90, 'those of the full disk, which had room in memory');

  fill(disk);
  appendFileSync(join(data, 'db.json'), ' ');
  assert.equal((await daemon.upload(domainXml(3))).status, 200);
  assert.equal(await daemon.stop(), 0, 'the log file is full when it stops');
});

test('a template that rendered while the disk was full is answered, and kept once there is room', async (t) => {
  const disk = smallDisk(t, '256k');
  if (disk === undefined) return;
  const templates = temporaryFolder(t, {
    first: 'first {{hostname}}',
    second: 'second {{hostname}}',
  });
  const configuration = loopbackConfiguration(address, disk, {
    mdserver: `default_template = ${templates}/first\nvendor_data = ${templates}/second`,
    logfile: join(disk, '../mdserver.log'),
  });
  const daemon = await startDaemon(t, join(disk, '..'), configuration, address);
  const { text } = await daemon.upload(domainXml(1), { accept: 'application/json' });
  const from: string = JSON.parse(text).mds_ipv4;
  const get = async (path: string) => (await daemon.ask(path, { from })).text;
  fill(disk);
  assert.equal(await get('/latest/user-data'), 'first vm1');
  await daemon.printed(/cannot keep the version of \S+\/first that rendered: ENOSPC/);
  mend(disk);
  assert.equal(await get('/nocloud/vendor-data'), 'second vm1');
  const folder = join(disk, 'templates');
  await eventually('both are kept', () => {
    const names = existsSync(folder) ? readdirSync(folder) : [];
    return names.filter((name) => !name.startsWith('.')).length === 2;
  });
  for (const name of ['first', 'second']) writeFileSync(join(templates, name), '{{broken}}');
  assert.equal(await get('/latest/user-data'), 'first vm1');
  assert.equal(await get('/nocloud/vendor-data'), 'second vm1');
  assert.equal(await daemon.stop(), 0);
});
