import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { exited, suiteScope } from './support/cleanup.js';
import { type ClientSite, guestKey, metadataUrl, startClientSite } from './support/client-site.js';
import type { RequestOptions } from './support/daemon.js';
import { missing } from './support/parts.js';
import { rowName } from './support/rows.js';
import { databaseRecord, domainXml, mac, uuid } from './support/samples.js';
import { type Site, startSite } from './support/site.js';

// cloudbase-init, which configures Windows guests.

describe('Windows', { skip: missing('netns', 'curl') }, () => {
  const scope = suiteScope();
  let boot: ClientSite['boot'];

  before(async () => {
    ({ boot } = await startClientSite(scope));
  });

  // cloudbase-init runs on Windows alone: these are its requests (ec2service.py, and
  // baseopenstackservice.py of httpservice), made by hand.
  test('the requests of cloudbase-init', async () => {
    const guest = await boot('windows', { userdata: '#ps1_sysnative\r\nhostname\r\n' });
    const get = (path: string) => guest.run('curl', '-sSf', `${metadataUrl}/${path}`);
    assert.equal(await get('2009-04-04/meta-data/local-hostname'), 'windows.example.net');
    assert.equal(await get('2009-04-04/meta-data/instance-id'), `i-${guest.ipv4}`);
    const lines = (await get('2009-04-04/meta-data/public-keys')).split('\n');
    for (const line of lines) {
      // It takes a line apart at its one "=": an empty one behind the last would be an error.
      const [index, name, ...more] = line.split('=');
      assert.deepEqual([index, name, more], ['0', 'default', []]);
      assert.equal(await get(`2009-04-04/meta-data/public-keys/${index}/openssh-key`), guestKey);
    }
    assert.equal(await get('2009-04-04/user-data'), '#ps1_sysnative\nhostname\n');

    const document = JSON.parse(await get('openstack/latest/meta_data.json'));
    assert.deepEqual(
      [document.uuid, document.hostname, Object.values(document.public_keys)],
      [document.uuid, 'windows.example.net', [guestKey]],
    );
    assert.match(document.uuid, /^00000000-0000-4000-8000-0{10}/);
    assert.deepEqual(Object.keys(document.meta), [], 'no admin_pass, no admin_cert0');
    assert.equal(await get('openstack/latest/user_data'), '#ps1_sysnative\nhostname\n');
    assert.equal(JSON.parse(await get('openstack/latest/network_data.json')).links.length, 1);
    // Is there Nova's version with passwords, and has the instance one?
    assert.equal(JSON.parse(await get('openstack/2013-04-04/meta_data.json')).uuid, document.uuid);
    assert.equal(await get('openstack/2013-04-04/password'), '');
    assert.deepEqual(
      (await guest.requests()).filter((line) => !line.endsWith(' 200')),
      [],
    );
  });
});

// ---- the password that a Windows guest sets by itself ----

const server = '127.146.0.1';
const guestAddress = '127.146.0.11';
const neighbourAddress = '127.146.0.12';
const encrypted = Buffer.alloc(512, 7).toString('base64');

const own = databaseRecord(1, { mds_ipv4: guestAddress });
const neighbour = databaseRecord(2, { mds_ipv4: neighbourAddress });
const records = [own, neighbour];

/** GET and POST of a guest's password: the status and the body. */
function passwordOf({ daemon }: Site, from = guestAddress, version = '2013-04-04') {
  const send = async (request: RequestOptions) => {
    const { status, text } = await daemon.ask(`/openstack/${version}/password`, {
      from,
      ...request,
    });
    return [status, text];
  };
  return { get: () => send({}), post: (body: string) => send({ method: 'POST', body }) };
}

test('a password is taken once, is of its guest alone, and stays until another machine has the name', async (t) => {
  const site = await startSite(t, server, { records });
  const { get, post } = passwordOf(site);
  assert.deepEqual(await get(), [200, '']);
  assert.deepEqual(await post(encrypted), [200, '']);
  assert.deepEqual(await get(), [200, encrypted]);
  const again = [409, 'this instance has set its password already\n'];
  assert.deepEqual(await post(encrypted), again);
  assert.deepEqual(await post(Buffer.alloc(512, 8).toString('base64')), again);
  assert.deepEqual(await passwordOf(site, neighbourAddress).get(), [200, '']);

  const restarted = await site.restart();
  assert.deepEqual(await passwordOf(restarted).get(), [200, encrypted]);
  assert.equal((await restarted.daemon.upload(domainXml(1))).status, 200);
  assert.deepEqual(await passwordOf(restarted).get(), [200, encrypted], 'after an upload');
  const anew = domainXml(1, { uuid: uuid(3), mac: mac(3) });
  assert.equal((await restarted.daemon.upload(anew)).status, 200);
  assert.deepEqual(await passwordOf(restarted).get(), [200, ''], 'of another machine');
});

test('of passwords that arrive at the same moment, one is taken', async (t) => {
  const { post, get } = passwordOf(await startSite(t, server, { records }));
  const bodies = Array.from({ length: 8 }, (_, index) => Buffer.alloc(9, index).toString('base64'));
  const answers = await Promise.all(bodies.map((body) => post(body)));
  assert.deepEqual(answers.map(([status]) => status).sort(), [200, ...Array(7).fill(409)]);
  const taken = bodies.find((_, index) => answers[index]?.[0] === 200);
  assert.deepEqual(await get(), [200, taken]);
});

test('what is no encrypted password is refused, and changes nothing', async (t) => {
  const { get, post } = passwordOf(await startSite(t, server, { records }));
  const noPassword = [400, 'this is not an encrypted password in base64\n'];
  for (const body of ['', ' ', '=', 'a b', 'pässwort', 'YQ==\nYQ==', 'YQ===', 'a\0', '"YQ=="']) {
    assert.deepEqual(await post(body), noPassword, rowName(body));
  }
  const tooLarge = 'the body is too large: it has 1021 bytes, and at most 1020 are allowed\n';
  assert.deepEqual(await post('A'.repeat(1021)), [413, tooLarge]);
  assert.deepEqual(await get(), [200, '']);
  assert.deepEqual(await post(`${'A'.repeat(1019)}\n`), [200, '']);
});

test('a password is served in the versions that have it, and to no other address', async (t) => {
  const site = await startSite(t, server, { records });
  const notFound = [404, 'not found\n'];
  for (const version of ['2012-08-10', '2099-01-01', 'x', '%2e%2e']) {
    const { get, post } = passwordOf(site, guestAddress, version);
    assert.deepEqual([await get(), await post(encrypted)], [notFound, notFound], version);
  }
  const stranger = passwordOf(site, '127.146.0.99');
  assert.deepEqual([await stranger.get(), await stranger.post(encrypted)], [notFound, notFound]);
  assert.deepEqual(await passwordOf(site, guestAddress, 'latest').post(encrypted), [200, '']);
});

test('where tokens are required, a password needs one, too', async (t) => {
  const site = await startSite(t, server, { records, mdserver: 'imds_tokens = required' });
  const { get, post } = passwordOf(site);
  const refused = [401, 'this needs a session token of this instance\n'];
  assert.deepEqual([await post(encrypted), await get()], [refused, refused]);
});

test('a password that was acknowledged survives a crash', async (t) => {
  const site = await startSite(t, server, { records });
  assert.deepEqual(await passwordOf(site).post(encrypted), [200, '']);
  site.daemon.process.kill('SIGKILL');
  await exited(site.daemon.process);
  const details = JSON.parse(readFileSync(join(site.folder, 'db.details.json'), 'utf8'));
  assert.equal(details[uuid(1)].password, encrypted);
});

test('a password in the metadata of a domain is for its guest alone, and no tag', async (t) => {
  const { daemon } = await startSite(t, server, {
    records: [{ ...own, domain_metadata: { admin_pass: 'S3cret!' } }, neighbour],
  });
  const document = async (from: string) => {
    const { text } = await daemon.ask('/openstack/latest/meta_data.json', { from });
    const { admin_pass, meta } = JSON.parse(text);
    return { admin_pass, meta };
  };
  assert.deepEqual(await document(guestAddress), { admin_pass: 'S3cret!', meta: {} });
  assert.deepEqual(await document(neighbourAddress), { admin_pass: undefined, meta: {} });
  const tags = await daemon.ask('/latest/meta-data/tags/', { from: guestAddress });
  assert.equal(tags.status, 404);
  assert.doesNotMatch(daemon.output(), /S3cret/);
});
