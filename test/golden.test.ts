import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { temporaryFolder } from './support/cleanup.js';
import { freePort, repository, startDaemon } from './support/daemon.js';

interface Step {
  readonly from: string;
  readonly method: string;
  readonly path: string;
  readonly body?: string;
  readonly status: number;
  readonly response: string | null;
}

type DatabaseRecord = Record<string, unknown>;

interface Scenario {
  readonly name: string;
  readonly config: string;
  readonly files: Record<string, string>;
  readonly db: readonly DatabaseRecord[];
  readonly steps: readonly Step[];
  readonly dnsmasq: Record<string, string>;
  readonly db_after: readonly DatabaseRecord[];
}

const scenarios: Scenario[] = JSON.parse(
  readFileSync(join(repository, 'test/golden/python-0.6.7.json'), 'utf8'),
);

/** The one place where this server may differ from the recorded Python (docs/differences.md). */
const differences = {
  // Listings hold at least what Python's do: more has been added to the tree.
  isListing: ({ path, status }: Step) => status === 200 && path.endsWith('/'),
  // The list of versions has no slashes, as EC2 and Nova have it.
  correctListing: (path: string, text: string) => (path === '/' ? text.replace(/\/$/gm, '') : text),
  // The number of leases is not the length of a lease. Of the folders, only the network's files count.
  correctConfiguration: (text: string, network: string) =>
    text
      .replace('dhcp-lease-max=86400', 'dhcp-lease-max=65534')
      .replace(/^(dhcp-hostsfile=.*)$/m, `$1/${network}.dhcp-hosts`)
      .replace(/^hostsdir(=.*)$/m, `addn-hosts$1/${network}.dns-hosts`),
  // A configured domain is written, and dnsmasq is the only one that answers for DHCP, the domain and
  // the network.
  // Guests see neither the host's /etc/hosts nor addresses of their network under names from outside.
  isAddedLine: (line: string) =>
    /^(domain|local)=/.test(line) ||
    [
      ...['domain-needed', 'no-hosts', 'stop-dns-rebind'],
      ...['dhcp-authoritative', 'dhcp-ignore-names'],
      // Of other addresses, the ports stay free.
      'bind-dynamic',
    ].includes(line),
  // The built-in template leaves out what is no key of cloud-config, and what the metadata has.
  correctUserdata: (text: string) =>
    /^#cloud-config\nhostname: (.*)\nlocal-hostname: \1\n/.test(text)
      ? '#cloud-config\nmanage_etc_hosts: true\n'
      : text,
  // What was recorded on a host called "localhost" is named after this one.
  correctRecord: (record: DatabaseRecord) =>
    record['location'] === 'localhost' ? { ...record, location: hostname().split('.')[0] } : record,
};

function withoutComments(text: string): string {
  const lines = text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#') && !differences.isAddedLine(line));
  return lines.map((line) => `${line}\n`).join('');
}

for (const scenario of scenarios) {
  test(`Python's recorded answers: ${scenario.name}`, async (t) => {
    const folder = temporaryFolder(t);
    const here = (text: string) => text.replaceAll('@DIR@', folder);
    for (const [name, content] of Object.entries(scenario.files)) {
      mkdirSync(dirname(join(folder, name)), { recursive: true });
      writeFileSync(join(folder, name), here(content));
    }
    const database = join(folder, 'mds_db.json');
    writeFileSync(database, JSON.stringify(scenario.db));
    const port = await freePort('127.1.0.1');
    const configuration = here(scenario.config).replace('port = 8001', `port = ${port}`);
    const daemon = await startDaemon(t, folder, configuration, '127.1.0.1');

    for (const step of scenario.steps) {
      const { from, method, path, status, response } = step;
      await t.test(`${method} ${path} from ${from} is ${status}`, async () => {
        const answer = await daemon.ask(path, {
          from,
          method,
          ...(step.body !== undefined && {
            body: step.body.replaceAll('\n', ''),
            headers: { 'content-type': 'application/x-www-form-urlencoded' },
          }),
        });
        assert.equal(answer.status, status);
        if (response === null) return;
        if (differences.isListing(step)) {
          const entries = answer.text.split('\n');
          const recorded = differences.correctListing(path, response);
          const missing = recorded.split('\n').filter((entry) => !entries.includes(entry));
          assert.deepEqual(missing, []);
        } else {
          assert.equal(answer.text, differences.correctUserdata(response));
        }
      });
    }
    assert.equal(await daemon.stop(), 0);

    for (const [name, recorded] of Object.entries(scenario.dnsmasq)) {
      const written = readFileSync(join(folder, 'dnsmasq', name), 'utf8');
      const isHosts = name.endsWith('-hosts');
      assert.equal(
        isHosts ? written : withoutComments(written),
        differences.correctConfiguration(here(recorded), name.replace(/\..*/, '')),
        name,
      );
    }
    for (const kind of ['dhcp', 'dns']) {
      assert.equal(readdirSync(join(folder, 'dnsmasq', kind)).length, 1, `files in ${kind}`);
    }
    const records: DatabaseRecord[] = JSON.parse(readFileSync(database, 'utf8'));
    assert.deepEqual(
      records.map(({ last_update, ...rest }) => rest),
      scenario.db_after.map(differences.correctRecord),
    );
  });
}
