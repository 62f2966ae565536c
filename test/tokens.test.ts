import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import type { Health } from '../src/control/api.js';
import { isValidToken, makeToken, newTokenKey, tokenLife } from '../src/metadata/tokens.js';
import type { Answer, Daemon } from './support/daemon.js';
import { rowName } from './support/rows.js';
import { databaseRecord, domainXml, loopbackConfiguration } from './support/samples.js';
import { type Site, startSite } from './support/site.js';

// ---- the rules ----

test('a life is a whole number of seconds from 1 to 21600, in digits alone', async (t) => {
  const lives: [string, number][] = [
    ['1', 1],
    ['60', 60],
    ['00060', 60],
    ['21599', 21599],
    ['21600', 21600],
  ];
  for (const [header, seconds] of lives) {
    await t.test(rowName(header), () => {
      assert.equal(tokenLife(header), seconds);
    });
  }
  for (const header of [
    ...['', '0', '00000', '21601', '99999', '000060', '123456789012345678901234567890'],
    ...['-1', '+60', ' 60', '60 ', '60\n', '1e3', '0x10', '6.0', '60, 60', 'x', '٦٠', 'Infinity'],
  ]) {
    await t.test(rowName(header), () => {
      assert.equal(tokenLife(header), undefined);
    });
  }
  assert.equal(tokenLife(undefined), undefined);
  assert.equal(tokenLife(['60', '60']), undefined);
});

const key = newTokenKey();
const now = 1_800_000_000;

test('property: a token is good for its owner, under its key, until it expires, and for nothing else', () => {
  const owner = fc.string({ minLength: 1 });
  fc.assert(
    fc.property(owner, owner, fc.integer({ min: 1, max: 21600 }), (one, other, life) => {
      const token = makeToken(key, one, now + life);
      // As a header takes it, and as systemd-imdsd does: no blank, no control character.
      assert.match(token, /^[A-Za-z0-9._-]{40,60}$/);
      assert.equal(isValidToken(key, one, token, now), true);
      assert.equal(isValidToken(key, one, token, now + life - 1), true);
      assert.equal(isValidToken(key, one, token, now + life), false);
      assert.equal(isValidToken(newTokenKey(), one, token, now), false);
      assert.equal(isValidToken(key, other, token, now), one === other);
    }),
  );
});

test('property: no token with another character is good', () => {
  const token = makeToken(key, 'owner', now + 60);
  fc.assert(
    fc.property(
      fc.nat(token.length - 1),
      fc.constantFrom(...'0Zz.-_ =+/\0é'),
      (place, character) => {
        const other = token.slice(0, place) + character + token.slice(place + 1);
        assert.equal(isValidToken(key, 'owner', other, now), other === token);
      },
    ),
  );
});

test('a good token with anything added or cut off is refused', async (t) => {
  const token = makeToken(key, 'owner', now + 60);
  const [time = '', seal = ''] = token.split('.');
  for (const other of [
    ...['', '.', 'x', `${token} `, ` ${token}`, `${token}\n`, `${token}=`, `${token}, ${token}`],
    ...[token.slice(1), token.slice(0, -1), `0${token}`, `${seal}.${time}`, `.${seal}`, time],
    // The same time in other digits.
    `${time.toUpperCase()}.${seal}`,
    `00${time}.${seal}`,
    // A later time under the seal of an earlier one.
    `${(now + 600).toString(36)}.${seal}`,
    'x'.repeat(100_000),
  ]) {
    await t.test(rowName(other), () => {
      assert.equal(
        isValidToken(key, 'owner', other, now),
        false,
        JSON.stringify(other.slice(0, 80)),
      );
    });
  }
});

// ---- the daemon ----

const host = '127.141.0.1';
const [alpha, beta, stranger] = ['127.141.0.11', '127.141.0.12', '127.141.0.99'];
const uuids = {
  alpha: '8f1b3b52-6a0e-4c57-9d0c-00000000000a',
  beta: '8f1b3b52-6a0e-4c57-9d0c-00000000000b',
  fresh: '8f1b3b52-6a0e-4c57-9d0c-00000000000c',
};

const tokenHeader = 'x-aws-ec2-metadata-token';
const lifeHeader = 'x-aws-ec2-metadata-token-ttl-seconds';

/** Two instances; `tokens` is beta's own imds_tokens. */
function records(tokens?: string): object[] {
  return [
    databaseRecord(0x0a, { domain_name: 'alpha', domain_uuid: uuids.alpha, mds_ipv4: alpha }),
    databaseRecord(0x0b, {
      domain_name: 'beta',
      domain_uuid: uuids.beta,
      domain_metadata: tokens === undefined ? {} : { imds_tokens: tokens },
      mds_ipv4: beta,
    }),
  ];
}

/** Two instances; `own` is beta's own imds_tokens, `mdserver` more lines of `[mdserver]`. */
function start(t: TestContext, own?: string, mdserver = ''): Promise<Site> {
  return startSite(t, host, { records: records(own), mdserver });
}

function putToken(daemon: Daemon, from: string, headers: Record<string, string>): Promise<Answer> {
  return daemon.ask('/latest/api/token', { method: 'PUT', from, headers });
}

async function tokenOf(daemon: Daemon, from: string): Promise<string> {
  const { status, text } = await putToken(daemon, from, { [lifeHeader]: '300' });
  assert.equal(status, 200);
  return text;
}

const wholes = [
  '/latest/meta-data/instance-id',
  '/2009-04-04/',
  '/latest/user-data',
  '/latest/dynamic/instance-identity/document',
  '/nocloud/meta-data',
  '/openstack/latest/meta_data.json',
];

/** Asks for something of every tree; all answers have to have the status. */
async function assertStatus(
  daemon: Daemon,
  status: number,
  from: string,
  headers: Record<string, string>,
): Promise<void> {
  for (const path of wholes) {
    const answer = await daemon.ask(path, { from, headers });
    assert.equal(answer.status, status, `${path} ${JSON.stringify(headers)}`);
    if (status === 401) {
      assert.equal(answer.text, 'this needs a session token of this instance\n');
      assert.equal(answer.headers['content-type'], 'text/plain');
    }
  }
}

test('a token comes with the life that was asked for, and nothing else does', async (t) => {
  const { daemon } = await start(t);
  for (const life of ['1', '60', '21600']) {
    await t.test(`for ${life} s`, async () => {
      const { status, headers, text } = await putToken(daemon, alpha, { [lifeHeader]: life });
      assert.equal(status, 200);
      assert.equal(headers[lifeHeader], life);
      assert.equal(headers['content-type'], 'text/plain');
      assert.match(text, /^[\x21-\x7e]{40,60}$/, 'printable, and no newline behind it');
    });
  }
  // EC2's own names of headers are in mixed case.
  const mixed = await putToken(daemon, alpha, { 'X-aws-ec2-metadata-token-ttl-seconds': '60' });
  assert.equal(mixed.status, 200);
  // With a slash too many, and with a body (curl -X PUT -d ''), it is the same request.
  for (const path of ['/latest/api/token/', '//latest//api/token']) {
    await t.test(path, async () => {
      const { status } = await daemon.ask(path, {
        method: 'PUT',
        from: alpha,
        headers: { [lifeHeader]: '60', 'content-type': 'application/x-www-form-urlencoded' },
        body: 'x',
      });
      assert.equal(status, 200);
    });
  }

  const bad = `${lifeHeader} must be from 1 to 21600\n`;
  const wrongs = ['0', '21601', '', '1e3', '-1', '60, 60', '60;', '99999999999999999999'];
  for (const headers of [{}, ...wrongs.map((life) => ({ [lifeHeader]: life }))]) {
    await t.test(rowName(headers), async () => {
      const answer = await putToken(daemon, alpha, headers);
      assert.deepEqual([answer.status, answer.text], [400, bad], JSON.stringify(headers));
      assert.equal(answer.headers[lifeHeader], undefined);
    });
  }

  for (const forwarded of ['', '10.0.0.1', alpha]) {
    await t.test(rowName(forwarded), async () => {
      const headers = { [lifeHeader]: '60', 'x-forwarded-for': forwarded };
      const answer = await putToken(daemon, alpha, headers);
      assert.deepEqual(
        [answer.status, answer.text],
        [403, 'no tokens are issued through a proxy\n'],
      );
    });
  }

  for (const from of [stranger, host]) {
    await t.test(`from ${from}`, async () => {
      const answer = await putToken(daemon, from, { [lifeHeader]: '60' });
      assert.deepEqual([answer.status, answer.text], [404, 'not found\n']);
    });
  }
  for (const method of ['GET', 'POST', 'DELETE', 'HEAD']) {
    await t.test(method, async () => {
      const { status } = await daemon.ask('/latest/api/token', {
        method,
        from: alpha,
        headers: { [lifeHeader]: '60' },
      });
      assert.equal(status, 404);
    });
  }
});

test('where tokens are optional, a token that is sent must be valid', async (t) => {
  const { daemon, folder } = await start(t);
  const [good, others] = [await tokenOf(daemon, alpha), await tokenOf(daemon, beta)];
  const own = Buffer.from(readFileSync(join(folder, 'token.key'), 'utf8').trim(), 'hex');
  const seconds = Math.floor(Date.now() / 1000);

  await assertStatus(daemon, 200, alpha, {});
  await assertStatus(daemon, 200, alpha, { [tokenHeader]: good });
  await assertStatus(daemon, 200, alpha, { 'X-aws-ec2-metadata-token': good });
  // tiny-cloud sends an empty one when it got none.
  await assertStatus(daemon, 200, alpha, { [tokenHeader]: '' });
  // What the test forges with is what the daemon uses: else the ones below prove nothing.
  const forged = makeToken(own, uuids.alpha, seconds + 60);
  await assertStatus(daemon, 200, alpha, { [tokenHeader]: forged });

  for (const [why, token] of Object.entries({
    another: others,
    expired: makeToken(own, uuids.alpha, seconds - 1),
    'of another key': makeToken(newTokenKey(), uuids.alpha, seconds + 60),
    tampered: good.slice(0, -1) + (good.endsWith('A') ? 'B' : 'A'),
    'for later': good.replace(/^[^.]+/, (seconds + 20_000).toString(36)),
    'two headers': `${good}, ${good}`,
    blank: '.',
    long: 'A'.repeat(8000),
  })) {
    await t.test(why, () => assertStatus(daemon, 401, alpha, { [tokenHeader]: token }));
  }
  // An unknown caller is not told that tokens matter.
  assert.equal((await daemon.ask(wholes[0] ?? '', { from: stranger })).status, 404);
  // What belongs to no instance asks for no token.
  for (const path of ['/', '/service/name']) {
    await t.test(path, async () => {
      const { status } = await daemon.ask(path, { from: alpha, headers: { [tokenHeader]: 'x' } });
      assert.equal(status, 200);
    });
  }
});

test('where tokens are required, nothing is served without one, NoCloud and OpenStack included', async (t) => {
  const { daemon } = await start(t, undefined, 'imds_tokens = required');
  await assertStatus(daemon, 401, alpha, {});
  await assertStatus(daemon, 401, alpha, { [tokenHeader]: '' });
  await assertStatus(daemon, 401, alpha, { [tokenHeader]: await tokenOf(daemon, beta) });
  await assertStatus(daemon, 200, alpha, { [tokenHeader]: await tokenOf(daemon, alpha) });
});

test("an instance's own imds_tokens overrides the configuration", async (t) => {
  const cases: [own: string, general: string, status: number][] = [
    ['required', 'optional', 401],
    ['optional', 'required', 200],
    // Safer than to let pass what an operator wrote in a hurry.
    ['requierd', 'optional', 401],
    ['', 'required', 401],
    ['', 'optional', 200],
  ];
  for (const [own, general, status] of cases) {
    await t.test(rowName(own, general), async () => {
      const { daemon } = await start(t, own, `imds_tokens = ${general}`);
      await assertStatus(daemon, status, beta, {});
      await assertStatus(daemon, general === 'required' ? 401 : 200, alpha, {});
      await assertStatus(daemon, 200, beta, { [tokenHeader]: await tokenOf(daemon, beta) });
      await daemon.stop();
    });
  }
});

test('imds_tokens comes by upload and by reload, with no restart', async (t) => {
  const { daemon, folder } = await start(t);
  const upload = (uuid: string, tokens: string) =>
    daemon.upload(domainXml(0x0b, { name: 'beta', uuid, metadata: { imds_tokens: tokens } }));
  assert.equal((await upload(uuids.beta, 'required')).status, 200);
  await assertStatus(daemon, 401, beta, {});
  const token = await tokenOf(daemon, beta);
  assert.equal((await upload(uuids.beta, 'optional')).status, 200);
  await assertStatus(daemon, 200, beta, {});
  await assertStatus(daemon, 200, beta, { [tokenHeader]: token });

  const text = loopbackConfiguration(host, folder, { mdserver: 'imds_tokens = required' });
  writeFileSync(join(folder, 'mdserver.conf'), text.replace('{port}', String(daemon.port)));
  daemon.process.kill('SIGHUP');
  await daemon.printed('read the configuration again');
  await assertStatus(daemon, 401, alpha, {});
  await assertStatus(daemon, 200, beta, {});

  // Made anew under its name, with the same MAC and address: that is another machine.
  assert.equal((await upload(uuids.fresh, 'optional')).status, 200);
  await assertStatus(daemon, 200, beta, {});
  await assertStatus(daemon, 401, beta, { [tokenHeader]: token });
  await assertStatus(daemon, 200, beta, { [tokenHeader]: await tokenOf(daemon, beta) });
});

test('tokens survive a restart, through a key file that only its owner can read', async (t) => {
  const site = await start(t);
  const { folder, daemon: first } = site;
  const file = join(folder, 'token.key');
  const token = await tokenOf(first, alpha);
  const text = readFileSync(file, 'utf8');
  assert.match(text, /^[0-9a-f]{64}\n$/);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  // Tokens are not kept anywhere: nothing is written for one.
  const files = () =>
    readdirSync(folder, { recursive: true }).filter((name) => name !== 'mdserver.log');
  const before = files();
  for (let count = 0; count < 20; count += 1) await tokenOf(first, alpha);
  assert.deepEqual(files(), before);
  assert.ok(!readFileSync(join(folder, 'mdserver.log'), 'utf8').includes(token), 'in no log');

  const { daemon: second, restart } = await site.restart();
  assert.equal(readFileSync(file, 'utf8'), text);
  await assertStatus(second, 200, alpha, { [tokenHeader]: token });
  await assertStatus(second, 401, beta, { [tokenHeader]: token });
  assert.equal(await second.stop(), 0);

  rmSync(file);
  const { daemon: third } = await restart();
  assert.notEqual(readFileSync(file, 'utf8'), text);
  await assertStatus(third, 401, alpha, { [tokenHeader]: token });
});

test('an unusable key file stays as it is, and guests get tokens that end with this mdserver', async (t) => {
  let site = await start(t);
  const file = join(site.folder, 'token.key');
  const usable = readFileSync(file);
  const early = await tokenOf(site.daemon, alpha);
  const restartedWithProblem = async (problem: string) => {
    site = await site.restart();
    const said = `session tokens end when mdserver restarts: ${problem}`;
    assert.ok(site.daemon.output().includes(`ERROR ${said}; mdserver keeps trying\n`));
    const { body } = await site.json('/health');
    assert.ok((body as Health).problems.includes(said));
    await assertStatus(site.daemon, 200, alpha, {
      [tokenHeader]: await tokenOf(site.daemon, alpha),
    });
  };
  const half = '0123456789abcdef'.repeat(2);
  for (const content of [
    '',
    '\n',
    'x',
    half,
    `${half}${half}0`,
    `${half}${half}00`,
    `${half}zz${half}`,
  ]) {
    await t.test(rowName(content), async () => {
      writeFileSync(file, content);
      await restartedWithProblem(
        `${file} is not a key of 64 hexadecimal digits: remove it, and mdserver makes a new one`,
      );
      assert.equal(readFileSync(file, 'utf8'), content, 'is left as it is');
    });
  }
  rmSync(file);
  mkdirSync(file);
  await restartedWithProblem(
    `${file} cannot be read: EISDIR: illegal operation on a directory, read`,
  );
  await assertStatus(site.daemon, 401, alpha, { [tokenHeader]: early });

  rmSync(file, { recursive: true });
  writeFileSync(file, usable);
  await site.daemon.printed('solved: session tokens end when mdserver restarts');
  await assertStatus(site.daemon, 200, alpha, { [tokenHeader]: early });
  await assertStatus(site.daemon, 200, alpha, {
    [tokenHeader]: await tokenOf(site.daemon, alpha),
  });
});
