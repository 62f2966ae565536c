import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { compileTemplate, type TemplateInstance } from '../src/userdata/template.js';
import { createUserdata, type UserdataConfig } from '../src/userdata/userdata.js';
import { temporaryFolder } from './support/cleanup.js';
import { rowName } from './support/rows.js';

function instanceOf(name: string): TemplateInstance {
  const none = { uuid: undefined, ipv4: undefined, ipv6: undefined, location: undefined };
  return { ...none, name, mac: undefined, metadata: {} };
}

/** User-data of `web1` from a template, with a clock of which each look takes 10 ms. */
function setUp(t: TestContext, template: string) {
  const folder = temporaryFolder(t, { web1: template });
  const clock = { time: 0, step: 10 };
  const rendered: string[] = [];
  const config: UserdataConfig = {
    publicKeys: [],
    templateData: new Map(),
    mdserver: {
      userdata_dir: folder,
      userdata_suffixes: [''],
      default_template: undefined,
      builtin_template: true,
      password: undefined,
      vendor_data: undefined,
    },
  };
  const settings = { config };
  const { userdata } = createUserdata({
    config: () => settings.config,
    log: { error: () => undefined, warn: () => undefined },
    now: () => (clock.time += clock.step),
    keepCopy: (_name, body) => rendered.push(String(body)),
  });
  const bodyOf = (instance: TemplateInstance) => userdata(instance)?.().body;
  const serve = (instance: TemplateInstance) => String(bodyOf(instance));
  return { folder, clock, rendered, settings, serve, bodyOf };
}

test('only text that depends on the data alone counts as such', async (t) => {
  const rows: [string, boolean][] = [
    ['{{hostname}}', true],
    [
      "{{instance.metadata.role ?? ''}} {{yaml(hostname)}} {{Object.keys(public_keys).join()}}",
      true,
    ],
    ['{{% for (const key of Object.values(public_keys)) { }}{{key}}{{% } }}', true],
    ['{{Math.max(1, 2)}} {{JSON.stringify([1])}}', true],
    ['{{Date.now()}}', false],
    ['{{new Date().getFullYear()}}', false],
    ['{{Math.random()}}', false],
    ["{{Math['random']()}}", false],
    ['{{crypto.randomUUID()}}', false],
    ['{{process.pid}}', false],
    ['{{performance.now()}}', false],
    ["{{globalThis['Da' + 'te'].now()}}", false],
    ["{{hostname.constructor.constructor('return 1')()}}", false],
    ['{{\\u0044ate.now()}}', false],
    ['{{hostname}}{{% const time = Date }}', false],
  ];
  for (const [template, isPure] of rows) {
    await t.test(rowName(template), () => {
      assert.equal(compileTemplate(template, 'file').isPure, isPure);
    });
  }
});

test('a long text is bytes, the same for all that wait for it', (t) => {
  const { bodyOf } = setUp(t, `${'#'.repeat(100_000)}{{hostname}}`);
  const web1 = instanceOf('web1');
  const body = bodyOf(web1);
  assert.ok(Buffer.isBuffer(body));
  assert.equal(body.toString(), `${'#'.repeat(100_000)}web1`);
  assert.equal(bodyOf(web1), body);
});

test('text from the data alone is rendered once for an instance, a template and a configuration', (t) => {
  const { folder, rendered, settings, serve } = setUp(t, 'one {{hostname}}');
  const web1 = instanceOf('web1');
  for (let n = 0; n < 100; n += 1) assert.equal(serve(web1), 'one web1');
  assert.equal(rendered.length, 1);
  writeFileSync(join(folder, 'web1'), 'two {{hostname}} {{instance.metadata.role ?? "none"}}');
  assert.equal(serve(web1), 'two web1 none');
  assert.equal(serve({ ...web1, metadata: { role: 'db' } }), 'two web1 db');
  writeFileSync(join(folder, 'web1'), '{{proxy}}');
  settings.config = { ...settings.config, templateData: new Map([['proxy', 'a']]) };
  assert.equal(serve(web1), 'a');
  settings.config = { ...settings.config, templateData: new Map([['proxy', 'b']]) };
  assert.equal(serve(web1), 'b');
});

test('text that may change is kept 20 times as long as its rendering took', (t) => {
  const template = '{{Math.random()}}';
  const { clock, serve } = setUp(t, template);
  const web1 = instanceOf('web1');
  const first = serve(web1);
  // It was rendered from 10 to 20, so it is kept until 220.
  for (clock.time = 30; clock.time < 209; ) assert.equal(serve(web1), first);
  const second = serve(web1);
  assert.notEqual(second, first);
  // A quick one is rendered for each request.
  clock.step = 0;
  clock.time = 10_000;
  assert.notEqual(serve(web1), serve(web1));
});

test('the error of a template that took long is kept as well', (t) => {
  const { clock, serve } = setUp(t, '{{% throw new Error(String(Math.random())) }}');
  const web1 = instanceOf('web1');
  const problem = () => {
    try {
      return serve(web1);
    } catch (error) {
      return (error as Error).message;
    }
  };
  const first = problem();
  assert.match(first, /web1:1: .*0\.\d+/);
  assert.equal(problem(), first);
  clock.time = 10_000;
  assert.notEqual(problem(), first);
});
