import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { suiteScope } from '../support/cleanup.js';
import { type ClientGuest, type ClientSite, startClientSite } from '../support/client-site.js';
import { clientPath, missingClient } from '../support/clients.js';
import { missing } from '../support/parts.js';

// coreos-cloudinit of Flatcar. It would change the machine, so it stops behind the check of what it got.

const program = 'coreos-cloudinit';
const skip = missingClient(program) || missing('netns', 'curl');

/** Gives what it says; its exit status is 1 if it would refuse something. */
function validate(guest: ClientGuest): Promise<string> {
  const command = `"$0" -oem ec2-compat -validate -workspace "$1" 2>&1; echo "ended with $?"`;
  return guest.run('sh', '-c', command, clientPath(program), guest.folder);
}

/** What it asks for. test/real-boot-clients.test.ts replays it. */
const requests = (userdataStatus: number) => [
  'PUT /latest/api/token 200',
  'GET /2009-04-04/ 200',
  'GET /2009-04-04/meta-data/public-keys 200',
  'GET /2009-04-04/meta-data/public-keys/0/openssh-key 200',
  'GET /2009-04-04/meta-data/hostname 200',
  'GET /2009-04-04/meta-data/local-ipv4 200',
  'GET /2009-04-04/meta-data/public-ipv4 404',
  `GET /2009-04-04/user-data ${userdataStatus}`,
];

describe('coreos-cloudinit', { skip }, () => {
  const scope = suiteScope();
  let site: ClientSite;

  before(async () => {
    site = await startClientSite(scope);
  });

  test('takes a script, with tokens required', async () => {
    const userdata = '#!/bin/sh\necho hello\n';
    const guest = await site.boot('flatcar1', { userdata, metadata: { imds_tokens: 'required' } });
    const log = await validate(guest);
    assert.match(log, /Found SSH key for "default"/);
    assert.match(log, /ended with 0\n$/);
    assert.deepEqual(await guest.requests(), requests(200));
  });

  test('goes on where there is no user-data', async () => {
    const guest = await site.boot('flatcar2', { metadata: { userdata: 'none' } });
    assert.match(await validate(guest), /ended with 0\n$/);
    assert.deepEqual(await guest.requests(), requests(404));
  });

  test('takes the built-in template for cloud-config: it refuses manage_etc_hosts later, as it applies it', async () => {
    const guest = await site.boot('flatcar3');
    assert.match(await validate(guest), /ended with 0\n$/);
    assert.deepEqual(await guest.requests(), requests(200));
  });
});
