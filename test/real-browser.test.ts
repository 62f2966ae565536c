import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { before, describe, type TestContext, test } from 'node:test';
import { type Browser, type Page, chromium as playwright } from 'playwright-core';
import { atEnd, suiteScope } from './support/cleanup.js';
import { chromium, missing } from './support/parts.js';
import { rowName } from './support/rows.js';
import { domainXml } from './support/samples.js';
import { type Site, startSite } from './support/site.js';

// Web pages in a real browser on the host, which runs as root, and in a guest.

const host = '127.148.0.1';
/** The address of the site that attacks. */
const attacker = '127.148.0.2';
/** The address that the browser asks from. */
const browserAddress = '127.0.0.1';

/** What the page's script gives, or the message of the error that it throws. */
function inPage(page: Page, script: string): Promise<unknown> {
  return page.evaluate(`(async () => { ${script} })().catch((error) => error.message)`);
}

describe('web pages in Chromium', { skip: missing('chromium') }, () => {
  const scope = suiteScope();
  let site: Site;
  let server: string;
  let evil: string;
  let rebound: string;
  let browser: Browser;

  before(async () => {
    site = await startSite(scope, host, {
      records: [{ domain_name: 'victim', domain_metadata: {}, mds_ipv4: browserAddress }],
      userdata: { victim: '#!/bin/sh\necho CANARY\n' },
      mdserver: 'metrics = yes',
    });
    const pages = createServer((request, response) => {
      response.setHeader('content-type', 'text/html');
      // A form's text/plain body is NAME=VALUE, and a domain XML has a "=", too.
      const [name, value] = domainXml(1).split(/=(.*)/s);
      response.end(`<!doctype html><form method=post enctype=text/plain
        action="${new URL(request.url ?? '', 'http://x').searchParams.get('to')}">
        <textarea name="${name}">${value}</textarea></form>`);
    }).listen(0, attacker);
    await once(pages, 'listening');
    atEnd(scope, () => pages.close());
    server = `http://${host}:${site.daemon.port}`;
    evil = `http://evil.example:${(pages.address() as { port: number }).port}`;
    rebound = `http://rebound.example:${site.daemon.port}`;
    browser = await playwright.launch({
      executablePath: chromium,
      args: [
        ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
        ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
        '--no-proxy-server',
        // Its own defence, which other browsers do not have.
        '--disable-features=LocalNetworkAccessChecks',
        `--host-resolver-rules=MAP evil.example ${attacker}, MAP rebound.example ${host}`,
      ],
    });
    atEnd(scope, () => browser.close());
  });

  async function newPage(t: TestContext): Promise<Page> {
    const page = await browser.newPage();
    atEnd(t, () => page.close());
    return page;
  }

  /** Only what was there before. */
  async function assertNothingStored(): Promise<void> {
    const { body } = await site.json('/instances');
    assert.deepEqual(
      (body as { name: string }[]).map(({ name }) => name),
      ['victim'],
    );
  }

  test('without a web page, the user-data is served, so that the other tests can find it', async () => {
    const data = await site.daemon.ask('/latest/user-data', { from: browserAddress });
    assert.equal(data.text, '#!/bin/sh\necho CANARY\n');
  });

  for (const target of ['server', 'rebound'] as const) {
    test(`a form of another site that is sent to the ${target} stores nothing`, async (t) => {
      const page = await newPage(t);
      const to = `${target === 'server' ? server : rebound}/instance-upload`;
      await page.goto(`${evil}/?to=${encodeURIComponent(to)}`);
      const answer = page.waitForResponse(to);
      await page.evaluate('document.forms[0].submit()');
      const response = await answer;
      assert.equal(response.status(), 403);
      assert.match(response.request().postData() ?? '', /^<domain type='kvm'>\s/);
      await assertNothingStored();
    });
  }

  test('the scripts of another site upload nothing and read nothing', async (t) => {
    const page = await newPage(t);
    await page.goto(evil);
    const body = JSON.stringify(domainXml(1));
    for (const [mode, method, path] of [
      ['no-cors', 'POST', '/instance-upload'],
      ['cors', 'POST', '/instance-upload'],
      ['no-cors', 'GET', '/latest/user-data'],
      ['cors', 'GET', '/latest/user-data'],
      ['cors', 'PUT', '/latest/api/token'],
      ['cors', 'DELETE', '/latest/user-data'],
    ]) {
      await t.test(rowName(mode, method, path), async () => {
        const sent = method === 'POST' ? `, body: ${body}` : '';
        const read = await inPage(
          page,
          `const answer = await fetch('${server}${path}', { mode: '${mode}', method: '${method}'${sent} });
           return answer.type + await answer.text();`,
        );
        assert.equal(read, mode === 'no-cors' ? 'opaque' : 'Failed to fetch');
      });
    }
    await assertNothingStored();
    const taken = site.daemon
      .output()
      .split('\n')
      .filter((line) => / 200 "Mozilla/.test(line));
    assert.deepEqual(taken, []);
  });

  test('a page whose name was made to resolve to mdserver reads nothing', async (t) => {
    const page = await newPage(t);
    // Its document came from the attacker before the name was given mdserver's address.
    await page.route(`${rebound}/page`, (route) =>
      route.fulfill({ contentType: 'text/html', body: '<!doctype html><p>Nothing to see.' }),
    );
    await page.goto(`${rebound}/page`);
    const life = 'headers: { "X-aws-ec2-metadata-token-ttl-seconds": "60" }';
    for (const [path, init, expected] of [
      ['/latest/user-data', '{}', 421],
      ['/latest/meta-data/hostname', '{}', 421],
      ['/nocloud/user-data', '{}', 421],
      ['/openstack/latest/user_data', '{}', 421],
      ['/service/configuration', '{}', 421],
      ['/metrics', '{}', 421],
      ['/health', '{}', 421],
      ['/latest/api/token', `{ method: 'PUT', ${life} }`, 403],
      ['/instance-upload', `{ method: 'POST', body: ${JSON.stringify(domainXml(1))} }`, 403],
      ['/phone-home', `{ method: 'POST', body: 'pub_key_ed25519=x' }`, 403],
    ] as const) {
      await t.test(path, async () => {
        const read = await inPage(
          page,
          `const answer = await fetch('${path}', ${init});
           return [answer.status, await answer.text()];`,
        );
        const reason =
          expected === 403
            ? 'requests of web pages are refused (origin)\n'
            : 'rebound.example is not this server (see mdserver.host_names)\n';
        assert.deepEqual(read, [expected, reason]);
      });
    }
    const shown = await page.goto(`${rebound}/latest/user-data`);
    assert.equal(shown?.status(), 421);
    await assertNothingStored();
  });
});
