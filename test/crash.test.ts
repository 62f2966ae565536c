import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { temporaryFolder } from './support/cleanup.js';
import { type Daemon, startDaemon } from './support/daemon.js';
import { domainXml, loopbackConfiguration } from './support/samples.js';

const address = '127.131.0.1';

/** Address by name, as the three files have them. */
function filesOf(folder: string): Record<'database' | 'dhcp' | 'dns', Map<string, string>> {
  const records: { domain_name: string; mds_ipv4: string }[] = JSON.parse(
    readFileSync(join(folder, 'db.json'), 'utf8'),
  );
  const lines = (name: string) => {
    const text = readFileSync(join(folder, 'dnsmasq', name), 'utf8');
    assert.ok(text === '' || text.endsWith('\n'), `${name} ends in the middle of a line`);
    return text.split('\n').filter((line) => line !== '');
  };
  return {
    database: new Map(records.map(({ domain_name, mds_ipv4 }) => [domain_name, mds_ipv4])),
    dhcp: new Map(
      lines('dhcp/mds.dhcp-hosts').map((line) => {
        const [, , ipv4 = '', name = ''] = line.split(',');
        return [name, ipv4];
      }),
    ),
    dns: new Map(
      lines('dns/mds.dns-hosts').map((line) => {
        const [ipv4 = '', name = ''] = line.split(' ');
        return [name, ipv4];
      }),
    ),
  };
}

/** After a start the hosts files say exactly what the database says. */
function assertAgreement(folder: string): void {
  const { database, dhcp, dns } = filesOf(folder);
  assert.deepEqual(dhcp, database);
  assert.deepEqual(dns, database);
}

const rounds = 15;
const clients = 10;
const uploadsEach = 5;

/**
 * Uploads from many clients at once, and ends the daemon the hard way some moments after so many
 * answers. Gives the addresses that were answered, by name; half of the instances are known ones.
 */
async function interruptedBurst(daemon: Daemon, round: number): Promise<Map<string, string>> {
  const answered = new Map<string, string>();
  const enough = Math.floor(Math.random() * clients * uploadsEach * 0.8);
  const delay = Math.random() * 6;
  const exit = once(daemon.process, 'exit');
  let kill = () => {
    kill = () => {};
    void pause(delay).then(() => daemon.process.kill('SIGKILL'));
  };
  if (enough === 0) kill();
  const client = async (index: number) => {
    for (let upload = 0; upload < uploadsEach; upload++) {
      const fresh = upload % 2 === 0;
      const number = (fresh ? round * clients * uploadsEach : 0) + index * uploadsEach + upload;
      const answer = await daemon
        .upload(domainXml(number), { accept: 'application/json' })
        .catch(() => undefined);
      if (answer === undefined) return;
      assert.equal(answer.status, 200, answer.text);
      const { domain_name, mds_ipv4 } = JSON.parse(answer.text);
      answered.set(domain_name, mds_ipv4);
      if (answered.size >= enough) kill();
    }
  };
  await Promise.all(Array.from({ length: clients }, (_, index) => client(index)));
  kill();
  await exit;
  return answered;
}

test('kill -9 in a burst of uploads loses no answered upload and leaves no partial file', async (t) => {
  const folder = temporaryFolder(t);
  const answered = new Map<string, string>();
  let interrupted = 0;
  for (let round = 0; round < rounds; round++) {
    const daemon = await startDaemon(t, folder, loopbackConfiguration(address, folder), address);
    assertAgreement(folder);
    const now = await interruptedBurst(daemon, round);
    if (now.size > 0 && now.size < clients * uploadsEach) interrupted++;
    for (const [name, ipv4] of now) {
      assert.equal(answered.get(name) ?? ipv4, ipv4, `${name} keeps its address`);
      answered.set(name, ipv4);
    }
    for (const [file, held] of Object.entries(filesOf(folder))) {
      const lost = [...answered].filter(([name, ipv4]) => held.get(name) !== ipv4);
      assert.deepEqual(lost, [], `answered, but not in the ${file} file after the kill`);
      assert.equal(new Set(held.values()).size, held.size, `two have one address in ${file}`);
    }
  }
  assert.ok(interrupted > rounds / 3, `only ${interrupted} bursts were interrupted`);

  const daemon = await startDaemon(t, folder, loopbackConfiguration(address, folder), address);
  assertAgreement(folder);
  const asked = await Promise.all(
    [...answered].slice(0, 20).map(async ([name, from]) => {
      const { text } = await daemon.ask('/latest/meta-data/hostname', { from });
      return text === name;
    }),
  );
  assert.deepEqual(new Set(asked), new Set([true]));
  // The next change takes the temporary names that a killed one may have left.
  assert.equal((await daemon.upload(domainXml(0))).status, 200);
  assert.equal(await daemon.stop(), 0);
  const left = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  assert.deepEqual(
    left.filter((name) => name.endsWith('.new')),
    [],
    'temporary files of the killed ones',
  );
});
