import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Health } from '../src/control/api.js';
import { repository } from './support/daemon.js';
import { startDnsmasq } from './support/dnsmasq.js';
import { addHost } from './support/netns.js';
import { missing } from './support/parts.js';
import { domainXml } from './support/samples.js';
import { type Site, startSite } from './support/site.js';

const address = '127.142.0.1';
/** In the network, and no instance's. */
const stranger = '127.142.0.200';

/** The samples of /metrics on the control socket: `name{label="value"}` to value. */
async function metricsOf({ ask }: Site): Promise<Map<string, number>> {
  return samples((await ask('/metrics')).text);
}

async function healthOf({ json }: Site): Promise<{ status: number; body: Health }> {
  const { status, body } = await json('/health');
  return { status, body: body as Health };
}

function samples(text: string): Map<string, number> {
  const pairs = text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line): [string, number] => {
      const space = line.lastIndexOf(' ');
      return [line.slice(0, space), Number(line.slice(space + 1))];
    });
  return new Map(pairs);
}

/** Those of our own, without the distribution of times. */
function own(all: Map<string, number>): Record<string, number> {
  const ours = [...all].filter(
    ([name]) => name.startsWith('mdserver_') && !/_seconds_(bucket|sum)/.test(name),
  );
  return Object.fromEntries(ours);
}

async function uploaded({ daemon }: Site, number: number, headers = {}): Promise<string> {
  const answer = await daemon.upload(domainXml(number), { accept: 'application/json', ...headers });
  assert.equal(answer.status, 200, answer.text);
  return (JSON.parse(answer.text) as { mds_ipv4: string }).mds_ipv4;
}

// ---- who may ask ----

test('the control socket always answers; TCP only with metrics = yes, and only to this host', async (t) => {
  const closed = await startSite(t, address, { prefix: 24 });
  const open = await startSite(t, address, { mdserver: 'metrics = yes' });
  for (const path of ['/metrics', '/health']) {
    for (const { ask } of [closed, open]) {
      const { status } = await ask(path);
      // No dnsmasq runs here.
      assert.equal(status, path === '/metrics' ? 200 : 503);
    }
    const guest = await uploaded(open, 1);
    for (const [site, from, there] of [
      [open, address, true],
      [open, stranger, false],
      [open, guest, false],
      [closed, address, false],
      [closed, stranger, false],
    ] as const) {
      for (const spelling of [path, `${path}/`, `/${path}`]) {
        await t.test(`${spelling} from ${from}, ${site === open ? 'open' : 'closed'}`, async () => {
          const { status, text, headers } = await site.daemon.ask(spelling, { from });
          if (there) assert.equal(status, path === '/metrics' ? 200 : 503);
          else {
            assert.deepEqual(
              [status, text, headers['content-type']],
              [404, 'not found\n', 'text/plain'],
            );
          }
        });
      }
      const forged = await site.daemon.ask(path, { from, headers: { 'x-forwarded-for': address } });
      assert.equal(forged.status === 404, !there);
      assert.equal((await site.daemon.ask(path, { from, method: 'POST', body: 'x' })).status, 404);
    }
  }
  const overTcp = await open.daemon.ask('/metrics', { from: address });
  const overSocket = await open.ask('/metrics');
  assert.match(overSocket.headers['content-type'] ?? '', /^text\/plain; version=0\.0\.4/);
  assert.equal(overTcp.headers['content-type'], overSocket.headers['content-type']);
  assert.deepEqual(own(samples(overTcp.text)), own(samples(overSocket.text)));
});

test('a reload opens and closes them on TCP', async (t) => {
  const { daemon, folder } = await startSite(t, address, { prefix: 24 });
  const file = join(folder, 'mdserver.conf');
  const closed = readFileSync(file, 'utf8');
  const reload = async (text: string, times: number) => {
    writeFileSync(file, text);
    daemon.process.kill('SIGHUP');
    await daemon.printed(new RegExp(`(read the configuration again[^]*){${times}}`));
  };
  assert.equal((await daemon.ask('/metrics', { from: address })).status, 404);
  await reload(closed.replace('[dnsmasq]', 'metrics = yes\n[dnsmasq]'), 1);
  assert.equal((await daemon.ask('/metrics', { from: address })).status, 200);
  await reload(closed, 2);
  assert.equal((await daemon.ask('/metrics', { from: address })).status, 404);
});

// ---- values ----

test('the metrics count exactly what happens', async (t) => {
  const site = await startSite(t, address, { prefix: 24 });
  const { daemon, ask, folder } = site;
  // The start tells dnsmasq of what there is, and none runs.
  const before = {
    mdserver_unknown_callers_total: 0,
    mdserver_requests_without_token_total: 0,
    mdserver_upload_durable_seconds_count: 0,
    'mdserver_dnsmasq_reloads_total{outcome="absent"}': 1,
    mdserver_instances: 0,
    // 256 less both ends and the gateway.
    mdserver_free_addresses: 253,
    mdserver_templates_refused: 0,
  };
  assert.deepEqual(own(await metricsOf(site)), before);

  // Uploads: two that are good (one of them a start), one of each that is not.
  const from = await uploaded(site, 1, { 'x-libvirt-operation': 'prepare' });
  const second = await uploaded(site, 2);
  const post = (body: string | Buffer) => ({ method: 'POST', body });
  for (const [asking, status] of [
    [post('<domain/>'), 400],
    [post(domainXml(3).replace("'mds'", "'else'")), 422],
    [{ method: 'POST', headers: { 'content-length': String(1024 * 1024 + 1) } }, 413],
    [{ ...post(domainXml(3)), from: second }, 401],
  ] as const) {
    const answer = await daemon.ask('/instance-upload', { from: address, ...asking });
    assert.equal(answer.status, status);
  }
  await ask('/instance-upload', post('nonsense'));

  // Requests of the one that was started.
  await daemon.ask('/latest/meta-data/', { from });
  await daemon.ask('/latest/nothing', { from });
  const token = await daemon.ask('/latest/api/token', {
    from,
    method: 'PUT',
    headers: { 'x-aws-ec2-metadata-token-ttl-seconds': '60' },
  });
  const headers = { 'x-aws-ec2-metadata-token': token.text };
  await daemon.ask('/latest/user-data', { from, headers });
  await daemon.ask('/latest/', { from, headers: { 'x-aws-ec2-metadata-token': 'forged' } });
  await daemon.ask('/nocloud/meta-data', { from });
  await daemon.ask('/openstack/latest/nothing', { from });
  await daemon.ask('/phone-home', { from, method: 'POST', body: 'x' });
  // What is nobody's to count.
  await daemon.ask('/', { from });
  await daemon.ask('/service/name', { from });
  await daemon.ask('/latest/', { from: stranger });
  await daemon.ask('/phone-home', { from: stranger, method: 'POST' });
  await daemon.ask('/latest/api/token', { from: stranger, method: 'PUT' });

  const after = {
    'mdserver_requests_total{kind="ec2",status="200"}': 3,
    'mdserver_requests_total{kind="ec2",status="404"}': 1,
    'mdserver_requests_total{kind="ec2",status="401"}': 1,
    'mdserver_requests_total{kind="nocloud",status="200"}': 1,
    'mdserver_requests_total{kind="openstack",status="404"}': 1,
    'mdserver_requests_total{kind="phone-home",status="400"}': 1,
    mdserver_unknown_callers_total: 3,
    mdserver_requests_without_token_total: 2,
    'mdserver_uploads_total{outcome="200"}': 2,
    'mdserver_uploads_total{outcome="400"}': 2,
    'mdserver_uploads_total{outcome="422"}': 1,
    'mdserver_uploads_total{outcome="413"}': 1,
    'mdserver_uploads_total{outcome="401"}': 1,
    mdserver_upload_durable_seconds_count: 2,
    'mdserver_dnsmasq_reloads_total{outcome="absent"}': 3,
    mdserver_instances: 2,
    mdserver_free_addresses: 251,
    mdserver_templates_refused: 0,
    'mdserver_boots{outcome="configured"}': 1,
  };
  assert.deepEqual(own(await metricsOf(site)), after);

  await daemon.ask('/phone-home', { from, method: 'POST', body: 'hostname=vm1' });
  await daemon.upload(domainXml(2), { 'x-libvirt-operation': 'prepare' });
  const home = {
    ...after,
    'mdserver_requests_total{kind="phone-home",status="200"}': 1,
    'mdserver_uploads_total{outcome="200"}': 3,
    mdserver_upload_durable_seconds_count: 3,
    'mdserver_dnsmasq_reloads_total{outcome="absent"}': 4,
    'mdserver_boots{outcome="home"}': 1,
    'mdserver_boots{outcome="started"}': 1,
  };
  const { 'mdserver_boots{outcome="configured"}': _gone, ...expected } = home;
  assert.deepEqual(own(await metricsOf(site)), expected);

  // Removed, and its guest is gone: its boot counts no more, its address is free.
  await ask('/instances/vm1?guest=gone', { method: 'DELETE' });
  const { 'mdserver_boots{outcome="home"}': _home, ...removed } = expected;
  assert.deepEqual(own(await metricsOf(site)), {
    ...removed,
    mdserver_instances: 1,
    mdserver_free_addresses: 252,
    'mdserver_dnsmasq_reloads_total{outcome="absent"}': 5,
  });

  // An upload that could not be stored.
  rmSync(join(folder, 'dnsmasq', 'dns'), { recursive: true });
  writeFileSync(join(folder, 'dnsmasq', 'dns'), 'in the way');
  assert.equal((await daemon.upload(domainXml(4))).status, 500);
  assert.equal((await metricsOf(site)).get('mdserver_uploads_total{outcome="500"}'), 1);
  const all = await metricsOf(site);
  assert.equal(all.get('mdserver_upload_durable_seconds_count'), 3);
  const within = [...all].filter(([name]) =>
    name.startsWith('mdserver_upload_durable_seconds_bucket'),
  );
  assert.deepEqual(
    within.map(([name]) => /le="(.*)"/.exec(name)?.[1]),
    ['0.001', '0.003', '0.01', '0.03', '0.1', '0.3', '1', '3', '+Inf'],
  );
  const numbers = within.map(([, value]) => value);
  assert.deepEqual(numbers, [...numbers].sort());
  assert.equal(numbers.at(-1), 3);
});

test('a full network has no free addresses, and says 503', async (t) => {
  const site = await startSite(t, address, { prefix: 30 });
  assert.equal((await metricsOf(site)).get('mdserver_free_addresses'), 1);
  await uploaded(site, 1);
  assert.equal((await site.daemon.upload(domainXml(2))).status, 503);
  const all = await metricsOf(site);
  assert.equal(all.get('mdserver_free_addresses'), 0);
  assert.equal(all.get('mdserver_uploads_total{outcome="503"}'), 1);
});

test('requests of guests add no metrics of their own: the number is bounded', async (t) => {
  const site = await startSite(t, address, { prefix: 24 });
  const from = await uploaded(site, 1);
  const numberOfMetrics = async () => Object.keys(own(await metricsOf(site))).length;
  const before = await numberOfMetrics();
  for (let number = 0; number < 50; number++) {
    await site.daemon.ask(`/latest/${number}"},x{y="`, { from }).catch(() => undefined);
    await site.daemon.ask(`/latest/${number}`, { from, headers: { 'user-agent': `${number}` } });
  }
  const after = await numberOfMetrics();
  // One for the status, one for the outcome of the boot.
  assert.ok(after - before <= 4, `${before} ${after}`);
});

// ---- health ----

test('health says that dnsmasq is missing and what could not be stored, until it is mended', async (t) => {
  const site = await startSite(t, address);
  const { folder, daemon } = site;
  const health = () => healthOf(site);
  const noDnsmasq = `dnsmasq is not running (no ${folder}/run/mds.pid); it will read its files when it starts`;
  const { status, body } = await health();
  assert.deepEqual(
    { status, body: { ...body, uptime_seconds: typeof body.uptime_seconds } },
    {
      status: 503,
      body: {
        status: 'degraded',
        version: JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8')).version,
        uptime_seconds: 'number',
        instances: 0,
        dhcp_log: false,
        problems: [noDnsmasq],
      },
    },
  );
  const dns = join(folder, 'dnsmasq', 'dns');
  renameSync(dns, `${dns}.away`);
  writeFileSync(dns, 'in the way');
  await daemon.upload(domainXml(1));
  const [first, stored, ...rest] = (await health()).body.problems;
  assert.deepEqual([first, rest], [noDnsmasq, []]);
  assert.match(stored ?? '', /^nothing was stored: ENOTDIR/);
  // A refusal is no attempt to store.
  await daemon.upload('<domain/>');
  assert.equal((await health()).body.problems.length, 2);
  rmSync(dns);
  renameSync(`${dns}.away`, dns);
  await daemon.upload(domainXml(1));
  assert.deepEqual((await health()).body.problems, [noDnsmasq]);
  assert.equal((await health()).body.instances, 1);

  // Of a process id of somebody else's, and with a file for it that cannot be read.
  const pidFile = join(folder, 'run', 'mds.pid');
  writeFileSync(pidFile, `${process.pid}\n`);
  assert.match((await health()).body.problems[0] ?? '', /is not a dnsmasq with --conf-file=/);
  rmSync(pidFile);
  mkdirSync(pidFile);
  const [problem, ...others] = (await health()).body.problems;
  assert.match(problem ?? '', /^cannot look for dnsmasq: EISDIR/);
  assert.deepEqual(others, []);
  assert.equal((await daemon.ask('/')).status, 200);
});

test('with a dnsmasq that runs all is well, reloads are counted, and its end is noticed', {
  skip: missing('netns', 'dnsmasq', 'curl'),
}, async (t) => {
  const host = addHost(t);
  const guest = host.addGuest('52:54:00:00:00:01');
  guest.ip('address add 10.122.7.8/16 dev eth0');
  guest.ip('route add 169.254.169.254/32 via 10.122.0.1');
  const site = await startSite(t, host, { mdserver: 'metrics = yes', dnsmasq: 'user = root' });
  const { folder, ask } = site;
  const health = () => healthOf(site);
  const log = join(folder, 'mdserver-dnsmasq.log');
  const { process: dnsmasq } = await startDnsmasq(host.start, folder, log);
  const { body } = await health();
  assert.deepEqual(
    { ...body, version: '', uptime_seconds: 0 },
    {
      status: 'ok',
      version: '',
      uptime_seconds: 0,
      instances: 0,
      dhcp_log: true,
      problems: [],
    },
  );
  await ask('/instance-upload', { method: 'POST', body: domainXml(1) });
  const counts = async () => {
    const all = await metricsOf(site);
    return ['told', 'absent'].map((outcome) =>
      all.get(`mdserver_dnsmasq_reloads_total{outcome="${outcome}"}`),
    );
  };
  assert.deepEqual(await counts(), [1, 1]);
  // Nothing that dnsmasq reads is another.
  await ask('/instance-upload', { method: 'POST', body: domainXml(1) });
  assert.deepEqual(await counts(), [1, 1]);

  // Over TCP, to this host alone.
  const curl = [
    '--silent',
    '--max-time',
    '10',
    '--output',
    '/dev/null',
    '--write-out',
    '%{http_code}',
  ];
  for (const [where, path, expected] of [
    [host, 'metrics', '200'],
    [host, 'health', '200'],
    [guest, 'metrics', '404'],
    [guest, 'health', '404'],
  ] as const) {
    await t.test(`${path} from the ${where === host ? 'host' : 'guest'}`, async () => {
      const { stdout } = await where.run('curl', [...curl, `http://169.254.169.254/${path}`]);
      assert.equal(stdout, expected);
    });
  }

  const ended = once(dnsmasq, 'exit');
  dnsmasq.kill('SIGKILL');
  await ended;
  const degraded = await health();
  assert.equal(degraded.status, 503);
  assert.match(degraded.body.problems.join(), /which is gone$/);
  await ask('/instance-upload', { method: 'POST', body: domainXml(2) });
  assert.deepEqual(await counts(), [1, 2]);
  rmSync(log);
  await startDnsmasq(host.start, folder, log);
  assert.equal((await health()).status, 200);
});

// ---- the dashboard ----

interface Panel {
  readonly id: number;
  readonly title: string;
  readonly description: string;
  readonly datasource: { readonly uid: string };
  readonly gridPos: Record<'x' | 'y' | 'w' | 'h', number>;
  readonly targets: readonly {
    readonly expr: string;
    readonly refId: string;
    readonly datasource: { readonly uid: string };
  }[];
}

const dashboard = JSON.parse(
  readFileSync(join(repository, 'etc', 'grafana', 'mdserver.json'), 'utf8'),
) as {
  readonly panels: readonly Panel[];
  readonly templating: {
    readonly list: readonly { readonly name: string; readonly definition?: string }[];
  };
};

/** The metrics in a PromQL expression: every name but functions, labels, keywords and variables. */
function metricNames(expression: string): string[] {
  const bare = expression
    .replace(/\{[^}]*\}|\[[^\]]*\]|"[^"]*"/g, ' ')
    .replace(/\b(?:by|without|on|ignoring)\s*\([^)]*\)/g, ' ')
    .replace(/\b(?:or|and|unless|bool|offset)\b/g, ' ');
  return [...bare.matchAll(/(?<![\w$.])[a-z_:][\w:]*(?!\w)(?!\s*\()/gi)].map(([name]) => name);
}

test('the dashboard shows every one of our metrics, and none that does not exist', async (t) => {
  assert.deepEqual(metricNames('sum by (le) (rate(a_b{x="y"}[5m])) or vector(0) / on (z) c_d'), [
    'a_b',
    'c_d',
  ]);
  const { ask } = await startSite(t, address);
  const { text } = await ask('/metrics');
  const kinds = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)];
  const there = kinds.flatMap(([, name, kind]) =>
    kind === 'histogram' ? ['_bucket', '_sum', '_count'].map((end) => name + end) : [name],
  );
  const used = dashboard.panels
    .flatMap(({ targets }) => targets)
    .flatMap(({ expr }) => metricNames(expr));
  const hosts = dashboard.templating.list.find(({ name }) => name === 'host')?.definition ?? '';
  const [, hostMetric] = /^label_values\((\w+), instance\)$/.exec(hosts) ?? [];
  for (const name of [...used, hostMetric]) assert.ok(there.includes(name), `there is no ${name}`);
  const ours = kinds.map(([, name = '']) => name).filter((name) => name.startsWith('mdserver_'));
  assert.equal(ours.length, 10);
  for (const name of ours) {
    assert.ok(
      used.some((shown) => shown.replace(/_(bucket|sum|count)$/, '') === name),
      `no panel shows ${name}`,
    );
  }
  assert.ok(used.some((name) => name.startsWith('nodejs_eventloop_lag_')));
});

test('the panels have room, a name, a description, and the data source that is chosen', async (t) => {
  const taken = new Map<string, string>();
  const ids = new Set<number>();
  for (const { id, title, description, datasource, gridPos, targets } of dashboard.panels) {
    await t.test(title, () => {
      assert.ok(!ids.has(id) && title !== '' && description !== '' && targets.length > 0, title);
      ids.add(id);
      for (const { uid } of [datasource, ...targets.map((target) => target.datasource)]) {
        assert.equal(uid, '$' + '{datasource}');
      }
      assert.equal(new Set(targets.map(({ refId }) => refId)).size, targets.length);
      const { x, y, w, h } = gridPos;
      assert.ok(x >= 0 && x + w <= 24, title);
      for (let column = x; column < x + w; column++) {
        for (let row = y; row < y + h; row++) {
          assert.equal(taken.get(`${column} ${row}`), undefined);
          taken.set(`${column} ${row}`, title);
        }
      }
    });
  }
});
