import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { eventually } from './support/daemon.js';
import { domainXml } from './support/samples.js';
import { startSite } from './support/site.js';

const address = '127.156.0.1';
const guest = { domain_name: 'web1', mds_ipv4: '127.156.0.8' };
const recorder = new URL('support/loaded-scripts.js', import.meta.url).href;

/** A module for `--import`, from its text. */
const module = (text: string) => `data:text/javascript,${encodeURIComponent(text)}`;

/** However slow the machine is, the daemon does not come to what it does a while after its start. */
const slowTimers = module(
  'const { setTimeout } = globalThis; globalThis.setTimeout = (call, time, ...rest) => setTimeout(call, time * 1000, ...rest);',
);

/** Starts mdserver with these modules loaded first. */
async function startWith(t: TestContext, ...modules: string[]) {
  const imports = modules.flatMap((url) => ['--import', url]);
  let child: ChildProcess | undefined;
  const site = await startSite(t, address, {
    records: [guest],
    start: (command, args) => {
      child = spawn(command, [...imports, ...args], { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
      return child;
    },
  });
  /** The packages, and the files below `src/`, that are loaded. */
  const loaded = async () => {
    assert.ok(child);
    child.send('');
    const [urls] = (await once(child, 'message')) as [string[]];
    const found = (pattern: RegExp) => {
      const names = urls.flatMap((url) => pattern.exec(url)?.[1] ?? []);
      return [...new Set(names)].sort();
    };
    return {
      packages: found(/.*\/node_modules\/((?:@[^/]+\/)?[^/]+)/),
      files: found(/\/dist\/src\/(.+)\.js$/),
    };
  };
  return { ...site, loaded };
}

/** With those that they need. A package that comes here makes every start slower. */
const needed = [
  '@fastify/error',
  '@fastify/forwarded',
  '@fastify/proxy-addr',
  '@pinojs/redact',
  'abstract-logging',
  'atomic-sleep',
  'avvio',
  'eta',
  'fast-decode-uri-component',
  'fast-deep-equal',
  'fast-json-stringify',
  'fast-querystring',
  'fastify',
  'fastq',
  'find-my-way',
  'ini',
  'ipaddr.js',
  'leven',
  'on-exit-leak-free',
  'pino',
  'pino-std-serializers',
  'process-warning',
  'quick-format-unescaped',
  'ret',
  'reusify',
  'rfdc',
  'safe-regex2',
  'safe-stable-stringify',
  'secure-json-parse',
  'semver',
  'sonic-boom',
  'thread-stream',
  'toad-cache',
];

const answer = { status: 200, text: 'i-127.156.0.8' };

test('the first answer waits for no package that it does without', async (t) => {
  const { daemon, loaded } = await startWith(t, slowTimers, recorder);
  const { status, text } = await daemon.ask('/latest/meta-data/instance-id', {
    from: guest.mds_ipv4,
  });
  assert.deepEqual({ status, text }, answer);
  const { packages, files } = await loaded();
  assert.deepEqual(packages, needed);
  assert.ok(files.includes('main'));
  assert.ok(!files.includes('instances/domain-xml'));
});

test('what the first answer does without is loaded soon, before somebody needs it', async (t) => {
  const { loaded } = await startWith(t, recorder);
  await eventually('the parser of uploads is loaded', async () => {
    return (await loaded()).files.includes('instances/domain-xml');
  });
});

test('a package that is missing is an error in the log, and metadata is served', async (t) => {
  const missing = module(`import { register } from 'node:module';
register(${JSON.stringify(
    module(`export function resolve(name, context, next) {
  if (name === 'fast-xml-parser') throw new Error('there is no ' + name);
  return next(name, context);
}`),
  )});`);
  const { daemon } = await startWith(t, missing);
  await daemon.printed(
    'ERROR uploads fail, because their parser cannot be loaded: there is no fast-xml-parser. Install mdserver again',
  );
  const upload = await daemon.upload(domainXml(1));
  assert.deepEqual([upload.status, upload.text], [500, 'internal error, see the log\n']);
  await daemon.printed(/ERROR POST \/instance-upload failed: .*there is no fast-xml-parser/);
  const { status, text } = await daemon.ask('/latest/meta-data/instance-id', {
    from: guest.mds_ipv4,
  });
  assert.deepEqual({ status, text }, answer);
});
