/*
 * Sends requests at random, from the namespace that it runs in, and looks at every answer. Prints a
 * FuzzReport as JSON when it is done. The same seed sends the same requests.
 */
import { spawn } from 'node:child_process';
import { connect } from 'node:net';
import fc from 'fast-check';
import { ask } from '../support/daemon.js';
import { hostileRequests } from '../support/hostile-requests.js';
import { domainXml } from '../support/samples.js';
import { foreignTexts, identityOf, numbers, type Sender, strangers } from './canaries.js';

/** The client's only argument, as JSON. */
export interface FuzzOptions {
  readonly seed: number;
  /** How many requests it sends, unless the time is over before. */
  readonly requests: number;
  readonly seconds: number;
  /** Where it runs: in the guests' namespace, or on the host, with the control socket and the hook. */
  readonly from: 'guests' | 'host';
  readonly socket: string;
  /** The hook, which is called on the host. */
  readonly hook: string;
}

/** An input that got a wrong answer. */
export interface FuzzFailure {
  readonly what: string;
  readonly batch: number;
  /** What was sent, each byte a character. */
  readonly input: string;
}

/** What came of it. */
export interface FuzzReport {
  readonly sent: number;
  readonly statuses: Readonly<Record<string, number>>;
  readonly hooks: number;
  readonly failures: readonly FuzzFailure[];
}

const hostAddresses = ['169.254.169.254', '10.122.0.1'];

// ---- what is sent ----

const identities = numbers.slice(0, 6).map(identityOf);
const random = hostileRequests([
  ...identities.flatMap((identity) => Object.values(identity)),
  ...hostAddresses,
  '127.0.0.1',
  '::1',
  'localhost',
]);

/** Paths of the tree, in which each guest finds its own. */
const validPaths = [
  ...['hostname', 'instance-id', 'local-ipv4', 'ipv6', 'mac', 'tags/instance/Note', ''].map(
    (leaf) => `/latest/meta-data/${leaf}`,
  ),
  ...['/latest/user-data', '/2009-04-04/user-data', '/latest/dynamic/instance-identity/document'],
  ...[
    '/nocloud/meta-data',
    '/nocloud/user-data',
    '/nocloud/network-config',
    '/nocloud/vendor-data',
  ],
  ...['/openstack/latest/meta_data.json', '/openstack/latest/network_data.json'],
  ...[
    '/openstack/latest/user_data',
    '/latest/meta-data/public-keys/0/openssh-key',
    '/',
    '/latest/',
  ],
  ...['/service/name', '/service/configuration', '/metrics', '/health'],
  ...numbers.slice(0, 4).map((number) => {
    return `/latest/meta-data/network/interfaces/macs/${identityOf(number).mac}/local-ipv4s`;
  }),
];
/** A path with some characters replaced by others, or by their escapes. */
const mutatedPath = fc
  .tuple(
    fc.constantFrom(...validPaths),
    fc.array(
      fc.tuple(fc.nat(80), fc.constantFrom('%2f', '%', '/', '//', '..', '\\', ';', '?', 'A')),
      {
        maxLength: 3,
      },
    ),
  )
  .map(([path, changes]) =>
    changes.reduce((text, [at, other]) => text.slice(0, at) + other + text.slice(at + 1), path),
  );
const target = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...validPaths) },
  { weight: 4, arbitrary: mutatedPath },
  { weight: 4, arbitrary: random.path },
  { weight: 1, arbitrary: random.path.map((path) => `http://169.254.169.254${path}`) },
);

const xmlText = fc.constantFrom(
  ...['<', '>', '&', '"', "'", '/', '/>', ']]>', '<![CDATA[', '<!--', '-->', '<?xml', '?>', '&#0;'],
  ...['&#x2028;', '\u2028', '\u2029', '\u0085', '\u202e', '\u200b', '\ufeff', '\0', '\x1b[31m'],
  ...['&amp;', '&lt;', '&x;', '<!DOCTYPE domain [<!ENTITY x SYSTEM "file:///etc/passwd">]>', '\n'],
  ...['<name>', '</name>', '<uuid>', '<metadata>', '</metadata>', '<__proto__>', '<constructor/>'],
  ...['xmlns="x"', ':', '52:54:00:00:00:01', '00000000-0000-0000-0000-000000000000', 'scratch-1'],
  ...[
    '..',
    'localhost',
    'github.com',
    'é'.repeat(50),
    'x'.repeat(300),
    '<a>'.repeat(120),
    '{{',
    '%',
  ],
);
/** The XML of a domain that is none of the canaries, with parts replaced, removed and repeated. */
const xml = fc
  .tuple(
    fc.nat(999),
    fc.array(
      fc.record({ at: fc.nat(700), length: fc.nat(12), text: fc.option(xmlText, { freq: 4 }) }),
      { maxLength: 4 },
    ),
  )
  .map(([number, changes]) =>
    changes.reduce(
      (text, { at, length, text: other }) =>
        text.slice(0, at) + (other ?? text.slice(at, at + 2 * length)) + text.slice(at + length),
      domainXml(number, { name: `scratch-${number}`, metadata: { Role: 'scratch' } }),
    ),
  );

const form = fc
  .array(
    fc.tuple(
      fc.constantFrom('pub_key_ed25519', 'pub_key_rsa', 'hostname', 'fqdn', 'instance_id', '%', ''),
      fc.oneof(fc.constant('ssh-ed25519%20AAAAC3NzaC1lZDI1NTE5'), fc.string({ maxLength: 40 })),
    ),
    { maxLength: 5 },
  )
  .map((fields) => fields.map((field) => field.join('=')).join('&'));

const head = (method: string, path: string, headers: Record<string, string>) =>
  `${method} ${path} HTTP/1.1\r\n${Object.entries(headers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')}`;

/** A request as the bytes of a connection: complete, whatever its parts are. */
function message(
  method: string,
  path: string,
  { expect, ...headers }: Record<string, string>,
  body: Buffer | undefined,
): Buffer {
  // An Expect header that is not met ends a connection, and with it the other requests.
  void expect;
  const length: Record<string, string> =
    body === undefined ? {} : { 'Content-Length': String(body.length) };
  const start = head(method, path, { Host: '169.254.169.254', ...length, ...headers });
  return Buffer.concat([Buffer.from(`${start}\r\n`, 'latin1'), body ?? Buffer.alloc(0)]);
}

const guestRequest = fc.oneof(
  {
    weight: 20,
    arbitrary: fc
      .tuple(random.method, target, random.headers, fc.boolean())
      .map(([method, path, { host, ...headers }, isStrange]) =>
        message(
          method,
          path,
          host !== undefined && isStrange ? { ...headers, Host: host } : headers,
          undefined,
        ),
      ),
  },
  {
    weight: 1,
    arbitrary: form.map((text) => message('POST', '/phone-home', {}, Buffer.from(text))),
  },
  {
    weight: 1,
    arbitrary: xml.map((text) => message('POST', '/instance-upload', {}, Buffer.from(text))),
  },
  {
    weight: 1,
    arbitrary: fc.constant(
      message(
        'PUT',
        '/latest/api/token',
        { 'X-aws-ec2-metadata-token-ttl-seconds': '60' },
        undefined,
      ),
    ),
  },
);

const anyName = fc.oneof(
  fc.constantFrom('scratch-1', 'scratch-2', '%', '%00', '%2f', '..', '__proto__', '%e2%80%a8'),
  fc.string({ minLength: 1, maxLength: 20 }).map(encodeURIComponent),
);
const canaryName = fc.constantFrom(...identities.map(({ name }) => name));
const documentName = fc.constantFrom(
  ...['user-data', 'meta-data', 'vendor-data', 'network-config', 'tree', 'x', '..', ''],
);
/** What is asked of the control socket: everything, but no canary is removed. */
const controlRequest = fc.oneof(
  fc.oneof(canaryName, anyName).map((name) => message('GET', `/instances/${name}`, {}, undefined)),
  anyName.map((name) => message('DELETE', `/instances/${name}`, {}, undefined)),
  fc
    .tuple(fc.oneof(canaryName, anyName), documentName)
    .map(([name, document]) => message('GET', `/instances/${name}/${document}`, {}, undefined)),
  fc
    .tuple(documentName, xml)
    .map(([document, text]) => message('POST', `/documents/${document}`, {}, Buffer.from(text))),
  xml.map((text) =>
    message('POST', '/instance-upload', { 'X-Libvirt-Operation': 'prepare' }, Buffer.from(text)),
  ),
  fc
    .oneof(
      fc.json({ maxDepth: 2 }),
      anyName.map((name) => JSON.stringify({ kind: 'released', name })),
    )
    .map((text) =>
      message('POST', '/events', { 'Content-Type': 'application/json' }, Buffer.from(text)),
    ),
  fc
    .constantFrom('10.122.79.10', '::1', 'x', '%00', '999.1.1.1')
    .map((address) => message('GET', `/addresses/${address}`, {}, undefined)),
  fc.constantFrom('/health', '/metrics').map((path) => message('GET', path, {}, undefined)),
  fc
    .tuple(fc.constantFrom('GET', 'PUT', 'POST', 'HEAD'), random.path, random.headers)
    .map(([method, path, headers]) => message(method, path, headers, undefined)),
);

const hookArgument = fc.oneof(
  fc.constantFrom('scratch-1', 'prepare', 'begin', 'release', 'end', 'reconnect', '-', ''),
  fc.string({ maxLength: 20 }).map((text) => text.replaceAll('\0', '')),
  fc.constantFrom('--inspect-brk', '\u2028', '\x1b]0;x\x07', 'x'.repeat(2000)),
);
const hookCall = fc.tuple(
  fc.oneof(
    fc.array(hookArgument, { maxLength: 6 }),
    fc.tuple(
      hookArgument,
      fc.constantFrom('prepare', 'restore'),
      fc.constant('begin'),
      hookArgument,
    ),
    fc.tuple(hookArgument, fc.constant('release'), fc.constant('end'), hookArgument),
    fc.constant(['mds', 'port-created', 'begin', '-']),
  ),
  xml,
  fc.boolean(),
);

// ---- sending it ----

const { seed, requests, seconds, from, socket, hook }: FuzzOptions = JSON.parse(
  process.argv[2] ?? '',
);
const deadline = performance.now() + seconds * 1000;
const statuses: Record<string, number> = {};
const failures: FuzzFailure[] = [];

/** The seed of a batch: other seeds share none of them. */
const seedOf = (batch: number) => (seed * 1_000_003 + batch) | 0;

/** Where a batch is sent from. */
interface Origin {
  /** Who that is for mdserver; `operator` is on the control socket, and may see everything. */
  readonly sender: Sender | 'operator';
  readonly address?: string;
}

const origins: readonly Origin[] =
  from === 'guests'
    ? [
        ...numbers.map((number) => ({ sender: number, address: identityOf(number).ipv4 })),
        ...strangers.map((address) => ({ sender: 'stranger' as const, address })),
      ]
    : [
        ...Array.from({ length: 3 }, () => ({ sender: 'operator' as const })),
        ...hostAddresses.map((address) => ({ sender: 'host' as const, address })),
      ];

/** All that mdserver says to these bytes: up to its end, or a pause in which it waits for more. */
function exchange({ sender, address }: Origin, bytes: Buffer, pause: number): Promise<string> {
  return new Promise((resolve) => {
    const where = { host: '169.254.169.254', port: 80, ...(address && { localAddress: address }) };
    const connection = connect(sender === 'operator' ? { path: socket } : where);
    let received = '';
    connection.setEncoding('latin1');
    connection.on('data', (text: string) => (received += text));
    connection.setTimeout(pause, () => connection.destroy());
    // A reset is an answer, too.
    connection.on('error', () => undefined);
    connection.on('close', () => resolve(received));
    connection.write(bytes);
  });
}

function look(batch: number, sender: Origin['sender'], input: string, received: string): void {
  for (const [, status = ''] of received.matchAll(/HTTP\/1\.1 (\d{3}) /g)) {
    statuses[status] = (statuses[status] ?? 0) + 1;
    if (status >= '500') failures.push({ what: `status ${status}`, batch, input });
  }
  if (sender === 'operator') return;
  const [foreign] = foreignTexts(sender, input, received);
  if (foreign !== undefined) failures.push({ what: `${sender} got ${foreign}`, batch, input });
}

/** Requests that one connection carries. */
const pipelined = 16;
/** The share of the connections whose bytes are no HTTP. */
const brokenShare = 16;

/** Sends a batch, which its number and the seed decide; gives the number of requests. */
async function sendBatch(batch: number): Promise<number> {
  const origin = origins[batch % origins.length] ?? { sender: 'stranger' };
  const { sender } = origin;
  const sample = { seed: seedOf(batch), numRuns: pipelined };
  if (sender !== 'operator' && batch % brokenShare === 0) {
    const inputs = fc.sample(random.bytes, sample);
    await Promise.all(
      inputs.map(async (bytes) => {
        const received = await exchange(origin, bytes, 400);
        look(batch, sender, bytes.toString('latin1'), received);
      }),
    );
    return inputs.length;
  }
  const messages = fc.sample(sender === 'operator' ? controlRequest : guestRequest, sample);
  const last = message('GET', '/service/name', { Connection: 'close' }, undefined);
  const input = Buffer.concat([...messages, last]);
  look(batch, sender, input.toString('latin1'), await exchange(origin, input, 5000));
  return messages.length + 1;
}

/** Removes what the uploads have made, so that the database stays as small as it was. */
async function removeOthers(): Promise<void> {
  const { text } = await ask({ socketPath: socket }, '/instances');
  const names = (JSON.parse(text) as { name: string }[]).map(({ name }) => name);
  for (const name of names.filter((other) => !other.startsWith('canary-'))) {
    const path = `/instances/${encodeURIComponent(name)}`;
    await ask({ socketPath: socket }, path, { method: 'DELETE' });
  }
}

/** Calls the hook as libvirt does: it must end with 0, and print at most one line of plain text. */
async function callHook(batch: number): Promise<void> {
  const [call] = fc.sample(hookCall, { seed: seedOf(batch), numRuns: 1 });
  const [args, text, isCut] = call ?? [[], '', false];
  // No logger(1) on this path: the lines of the fuzz are nothing for the log of this machine.
  const child = spawn(hook, args, { env: { PATH: '/nonexistent' } });
  child.stdin.on('error', () => undefined);
  child.stdin.end(isCut ? text.slice(0, 200) : text);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk) => (stdout += chunk));
  child.stderr.on('data', (chunk) => (stderr += chunk));
  const status = await new Promise((resolve) => child.once('close', resolve));
  if (status === 0 && stdout === '' && /^[^\0-\x1f\x7f-\x9f\u2028\u2029]*\n?$/.test(stderr)) return;
  const what = `the hook ended with ${status}: ${JSON.stringify(stdout + stderr)}`;
  failures.push({ what, batch, input: JSON.stringify([args, text]) });
}

let sent = 0;
let hooks = 0;
let next = 0;

async function work(): Promise<void> {
  while (sent < requests && performance.now() < deadline && failures.length < 20) {
    const batch = next;
    next += 1;
    // Not "sent += await": that adds to what it was before.
    const count = await sendBatch(batch);
    sent += count;
    if (from !== 'host') continue;
    if (batch % 50 === 0) await removeOthers();
    if (batch % 10 === 0) {
      await callHook(batch);
      hooks += 1;
    }
  }
}

await Promise.all(Array.from({ length: from === 'guests' ? 8 : 3 }, work));
if (from === 'host') await removeOthers();
const report: FuzzReport = { sent, statuses, hooks, failures };
process.stdout.write(JSON.stringify(report));
