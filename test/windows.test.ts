import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { suiteScope } from './support/cleanup.js';
import { type ClientSite, guestKey, metadataUrl, startClientSite } from './support/client-site.js';
import { missing } from './support/parts.js';

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
    assert.equal(await get('2009-04-04/user-data'), '#ps1_sysnative\r\nhostname\r\n');

    const document = JSON.parse(await get('openstack/latest/meta_data.json'));
    assert.deepEqual(
      [document.uuid, document.hostname, Object.values(document.public_keys)],
      [document.uuid, 'windows.example.net', [guestKey]],
    );
    assert.match(document.uuid, /^00000000-0000-4000-8000-0{10}/);
    assert.deepEqual(Object.keys(document.meta), [], 'no admin_pass, no admin_cert0');
    assert.equal(await get('openstack/latest/user_data'), '#ps1_sysnative\r\nhostname\r\n');
    assert.deepEqual(
      (await guest.requests()).filter((line) => !line.endsWith(' 200')),
      [],
    );
  });
});
