import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { suiteScope } from '../support/cleanup.js';
import { type ClientSite, guestKey, startClientSite } from '../support/client-site.js';
import { clientPath, missingClient } from '../support/clients.js';
import { isModule, missing, python } from '../support/parts.js';

// Tools for EC2 of which Debian's newest release has no package.

describe('tools for EC2', { skip: missing('netns', 'curl') }, () => {
  const scope = suiteScope();
  let boot: ClientSite['boot'];

  before(async () => {
    ({ boot } = await startClientSite(scope));
  });

  /** What went wrong with the requests: an answer other than 200, or one that was asked for twice. */
  const odd = (requests: readonly string[]) => ({
    refused: requests.filter((line) => !line.endsWith(' 200')),
    twice: requests.filter((line, index) => requests.indexOf(line) !== index),
  });

  test('boto 2 has all of the tree, and asks for nothing twice', {
    skip: !isModule('boto')() && 'needs boto 2 (python3-boto)',
  }, async () => {
    const guest = await boot('boto', { userdata: '#!/bin/sh\ntrue\n', metadata: { color: 'red' } });
    const script = `import boto.utils, json
print(json.dumps([boto.utils.get_instance_metadata(), boto.utils.get_instance_userdata(),
  boto.utils.get_instance_identity()]))`;
    const [metadata, userdata, identity] = JSON.parse(await guest.run(python, '-c', script));
    assert.deepEqual(
      [metadata['instance-id'], metadata['public-keys'], metadata.tags, userdata],
      [
        `i-${guest.ipv4}`,
        { default: guestKey },
        { instance: { color: 'red' } },
        '#!/bin/sh\ntrue\n',
      ],
    );
    assert.equal(identity.document.region, 'rack1');
    assert.deepEqual(odd(await guest.requests()), { refused: [], twice: [] });
  });

  test("Ansible's ec2_metadata_facts has all of the tree", {
    skip: missing('ansible-inventory') || missingClient('amazon.aws'),
  }, async () => {
    const guest = await boot('ansible', { metadata: { color: 'red', imds_tokens: 'required' } });
    const args = join(guest.folder, 'args.json');
    writeFileSync(args, JSON.stringify({ ANSIBLE_MODULE_ARGS: {} }));
    const module = clientPath('amazon.aws/plugins/modules/ec2_metadata_facts.py');
    const { ansible_facts: facts } = JSON.parse(await guest.run(python, module, args));
    assert.deepEqual(
      [
        facts.ansible_ec2_instance_id,
        facts.ansible_ec2_public_key,
        facts.ansible_ec2_instance_tags_keys,
      ],
      [`i-${guest.ipv4}`, guestKey, ['color']],
    );
    const { refused } = odd(await guest.requests());
    assert.deepEqual(refused, []);
  });
});
