import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { dig } from '../support/dig.js';
import { domainXml } from '../support/samples.js';
import {
  footprint,
  type LoadReport,
  type LoadSettings,
  type Network,
  startLoad,
} from './network.js';

/** What hostile guests and users do, and what mdserver has to answer. */
export interface Attack {
  readonly name: string;
  /** Attacks for so many seconds; gives what came of it. Throws AssertionError for a wrong answer. */
  readonly run: (network: Network, seconds: number) => Promise<string>;
}

const megabyte = 1024 * 1024;
/** The user nobody. */
const nobody = 65_534;

/** A request up to its body. */
function request(method: string, path: string, ...headers: string[]): string {
  return `${[`${method} ${path} HTTP/1.1`, 'Host: 169.254.169.254', ...headers].join('\r\n')}\r\n\r\n`;
}

const hostname = request('GET', '/latest/meta-data/hostname');

/** No load may get a 5xx, or another guest's data. */
function assertHarmless(owner: string, { statuses, canaries }: LoadReport): void {
  const errors = Object.keys(statuses).filter((status) => status >= '500');
  assert.deepEqual(errors, [], 'statuses');
  const foreign = Object.keys(canaries).filter((name) => name !== owner);
  assert.deepEqual(foreign, [], `data that is not ${owner}'s`);
}

function summary({ connected, refused, statuses }: LoadReport): string {
  const answers = Object.entries(statuses).map(([status, count]) => `${count} × ${status}`);
  return [
    `${connected} connections`,
    ...(refused > 0 ? [`${refused} refused`] : []),
    ...answers,
  ].join(', ');
}

/** Runs a load of one guest to its end. */
async function load(
  from: Network['stranger'],
  kind: string,
  settings: Omit<LoadSettings, 'sources'> & Partial<LoadSettings>,
): Promise<LoadReport> {
  const { report } = startLoad(from, kind, { sources: [from.address], ...settings });
  const reported = await report;
  assertHarmless(from.name, reported);
  return reported;
}

/** A load of one guest, as an attack. */
function attackOf(
  name: string,
  who: 'mallory' | 'greedy' | 'slow' | 'stranger',
  kind: string,
  settings: Omit<LoadSettings, 'sources' | 'seconds'>,
): Attack {
  return {
    name,
    run: async ({ guests, stranger }, seconds) => {
      const from = who === 'stranger' ? stranger : guests[who];
      return summary(await load(from, kind, { seconds, ...settings }));
    },
  };
}

/** A load of one guest that has given itself 200 addresses. */
async function fromManyAddresses(
  { guests: { mallory } }: Network,
  seconds: number,
  kind: string,
  settings: Omit<LoadSettings, 'sources' | 'seconds'>,
): Promise<string> {
  const sources = Array.from({ length: 200 }, (_, index) => `10.122.200.${index + 1}`);
  for (const address of sources) mallory.ip(`address add ${address}/16 dev eth0`);
  try {
    return summary(await load(mallory, kind, { seconds, sources, ...settings }));
  } finally {
    for (const address of sources) mallory.ip(`address delete ${address}/16 dev eth0`);
  }
}

const heldBody = (method: string, path: string) => ({
  connections: 1500,
  request: request(method, path, `Content-Length: ${megabyte}`),
  body: megabyte - 1,
});
const unread = { connections: 3000, request: hostname, times: 600 };
const slowReaders = { connections: 1000, request: request('GET', '/latest/user-data') };
const slowHeaders = {
  connections: 1500,
  request: 'GET / HTTP/1.1\r\nHost: 169.254.169.254\r\nX: ',
};

/** What an action gives, and the lines that the log gets meanwhile. */
async function linesDuring<Result>(
  { site }: Network,
  action: () => Promise<Result>,
): Promise<[Result, string[]]> {
  const log = join(site.folder, 'mdserver.log');
  const before = readFileSync(log).length;
  const result = await action();
  return [result, readFileSync(log).subarray(before).toString().split('\n')];
}

/** Uploads a domain on the control socket, and gives the status. */
async function upload({ site }: Network, xml: string): Promise<number> {
  const { status } = await site.ask('/instance-upload', { method: 'POST', body: xml });
  return status;
}

/** The addresses of a name, as the honest guest's resolver finds them. */
async function resolve({ guests }: Network, name: string): Promise<string> {
  return (await dig(guests.honest.run, '10.122.0.1', name)).join('\n');
}

const phoneHomeForm =
  'pub_key_ed25519=ssh-ed25519%20AAAAC3NzaC1lZDI1NTE5AAAAI@NUMBER@@NUMBER@&hostname=h@NUMBER@';
/** With other keys and another name each time: load.py puts ten digits in place of each @NUMBER@. */
const phoneHome =
  request(
    'POST',
    '/phone-home',
    'Content-Type: application/x-www-form-urlencoded',
    `Content-Length: ${phoneHomeForm.replaceAll('@NUMBER@', '0123456789').length}`,
  ) + phoneHomeForm;

/** Uploads of domains with so many bytes of metadata, over TCP from the host itself. */
async function uploadFat(
  network: Network,
  seconds: number,
  bytes: number,
  uid: number,
): Promise<string> {
  const { host, site } = network;
  const [start = '', tail = ''] = domainXml(0, {
    name: 'fat',
    metadata: { fat: '@BODY@' },
  }).split('@BODY@');
  const length = start.length + bytes + tail.length;
  const from = { ...host, name: 'host', address: '169.254.169.254' };
  const report = await load(from, 'storm', {
    seconds,
    uid,
    request: request('POST', '/instance-upload', `Content-Length: ${length}`) + start,
    body: bytes,
    tail,
  });
  const taken = Object.keys(report.statuses).filter((status) => status < '400');
  assert.deepEqual(taken, [], 'statuses');
  assert.equal((await site.ask('/instances/fat')).status, 404, 'the domain was taken');
  return summary(report);
}

/** Requests that a browser sends for a page of another site, and the statuses that refuse them. */
const fromWebPages = [
  ['Origin: http://example.com', 403],
  ['Sec-Fetch-Site: cross-site', 403],
  ['Host: rebound.example.com', 421],
] as const;

/** The name of a domain that reads as a line of its own in YAML 1.1. */
const yamlName = 'mallory\u2028bootcmd: [[sh, -c, id]] #';

export const attacks: readonly Attack[] = [
  attackOf('held bodies', 'mallory', 'hold', heldBody('PUT', '/latest/api/token')),
  attackOf('held bodies, stranger', 'stranger', 'hold', heldBody('POST', '/anything')),
  attackOf('held uploads, stranger', 'stranger', 'hold', heldBody('POST', '/instance-upload')),
  attackOf('unread pipelines', 'mallory', 'hold-unread', unread),
  attackOf('slow readers', 'greedy', 'hold-unread', slowReaders),
  attackOf('slow headers', 'mallory', 'drip', slowHeaders),
  attackOf('pipelining', 'mallory', 'flood', { connections: 100, request: hostname, times: 1000 }),
  attackOf('pipelining, stranger', 'stranger', 'flood', {
    connections: 100,
    request: hostname,
    times: 1000,
  }),
  attackOf('connections', 'mallory', 'reset', { connections: 20 }),
  attackOf('idle connections', 'mallory', 'hold', { connections: 4000 }),
  {
    name: 'pipelining, many addresses',
    run: (network, seconds) => {
      return fromManyAddresses(network, seconds, 'flood', {
        connections: 200,
        request: hostname,
        times: 100,
      });
    },
  },
  {
    name: 'idle connections, many addresses',
    run: (network, seconds) => {
      return fromManyAddresses(network, seconds, 'hold', { connections: 10_000 });
    },
  },
  attackOf('requests for other hosts', 'mallory', 'flood', {
    connections: 20,
    request: hostname.replace('169.254.169.254', 'rebound.example.com'),
    times: 100,
  }),
  {
    name: 'long URLs',
    run: async (network, seconds) => {
      const path = `/${'A'.repeat(15_500)}`;
      const settings = { seconds, request: request('GET', path), times: 20 };
      const [report, lines] = await linesDuring(network, () =>
        load(network.guests.mallory, 'flood', settings),
      );
      const longest = Math.max(...lines.map((line) => line.length));
      assert.ok(longest < 1000, `a line of the log has ${longest} characters`);
      return summary(report);
    },
  },
  {
    name: 'requests and resets',
    run: async (network, seconds) => {
      const agent = 'User-Agent: 10.9.9.9 honest GET /latest/user-data 200 curl';
      const settings = { seconds, request: request('GET', '/latest/user-data', agent), times: 3 };
      const [report, lines] = await linesDuring(network, () =>
        load(network.guests.mallory, 'reset', settings),
      );
      const nameless = lines.filter((line) => / undefined /.test(line));
      assert.equal(nameless.length, 0, `lines without an address, such as ${nameless[0]}`);
      return summary(report);
    },
  },
  {
    name: 'phone-home storm',
    run: async ({ guests, dnsmasq }, seconds) => {
      const before = dnsmasq.rounds();
      const settings = { seconds, connections: 10, request: phoneHome };
      const report = await load(guests.mallory, 'storm', settings);
      assert.equal(dnsmasq.rounds(), before, 'dnsmasq has read its files again');
      return summary(report);
    },
  },
  attackOf('expensive template', 'slow', 'flood', {
    connections: 10,
    request: request('GET', '/latest/user-data'),
    times: 200,
  }),
  {
    name: 'fat uploads, nobody',
    run: (network, seconds) => uploadFat(network, seconds, megabyte - 2000, nobody),
  },
  {
    name: 'fat metadata, root',
    run: (network, seconds) => uploadFat(network, seconds, 17 * 1024, 0),
  },
  {
    name: 'names',
    run: async (network) => {
      for (const name of [yamlName, 'mallory\u202etxt.exe', 'mal\u200blory', 'mal\u0085lory']) {
        assert.equal(await upload(network, domainXml(900, { name })), 400, JSON.stringify(name));
      }
      for (const name of ['github.com', 'localhost', 'wpad', 'honest.example.com']) {
        await upload(network, domainXml(901, { name }));
        const { status, text } = await network.site.ask(`/instances/${name}`);
        if (status === 404) continue;
        const { ipv4 } = JSON.parse(text) as { ipv4: string };
        assert.ok(!(await resolve(network, name)).includes(ipv4), `${name} resolves to a guest`);
        await network.site.ask(`/instances/${name}`, { method: 'DELETE' });
      }
      return 'no name is another line, or another host';
    },
  },
  {
    name: 'web pages',
    run: async ({ guests, host }) => {
      for (const [header, expected] of fromWebPages) {
        for (const from of [guests.mallory, host]) {
          for (const path of ['/latest/user-data', '/metrics', '/service/configuration']) {
            const url = `http://169.254.169.254${path}`;
            const { stdout } = await from.run('curl', ['-s', '-i', '-H', header, url]);
            assert.match(stdout, new RegExp(`^HTTP/1\\.1 ${expected} `), `${header} ${path}`);
            assert.doesNotMatch(stdout, /access-control-|canary-of/i, `${header} ${path}`);
          }
        }
      }
      return 'refused';
    },
  },
  {
    name: 'all of it held until mdserver closes it',
    run: async ({ guests, stranger, site }, seconds) => {
      const before = footprint(site.daemon).descriptors;
      const hold = (from: Network['stranger'], kind: string, settings: object) =>
        startLoad(from, kind, { sources: [from.address], seconds, stay: true, ...settings });
      const loads = [
        hold(guests.mallory, 'hold-unread', unread),
        hold(guests.greedy, 'hold-unread', slowReaders),
        hold(guests.slow, 'hold', heldBody('PUT', '/latest/api/token')),
        hold(stranger, 'hold', { connections: 1000 }),
      ];
      try {
        const reports = await Promise.all(loads.map(({ report }) => report));
        const started = performance.now();
        // The witness has a few connections, too.
        while (footprint(site.daemon).descriptors > before + 10) {
          assert.ok(performance.now() - started < 120_000, 'connections are open after 2 minutes');
          await sleep(1000);
        }
        const taken = (performance.now() - started) / 1000;
        const connected = reports.reduce((sum, report) => sum + report.connected, 0);
        return `${connected} connections, closed ${taken.toFixed(0)} s later`;
      } finally {
        for (const { stop } of loads) stop();
      }
    },
  },
];
