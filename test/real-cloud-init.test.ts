import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { runCloudInit, startGuest, web1 } from './support/cloud-init-site.js';
import type { Namespace } from './support/netns.js';
import { missing } from './support/parts.js';

// Debian's cloud-init as it runs in a guest: its own code, in a network namespace that has the
// guest's address, against the daemon on 169.254.169.254.

const skip = missing('netns', 'cloud-init', 'curl');

interface Crawl {
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly userdata: Buffer;
  readonly log: string;
}

/** What cloud-init's EC2 helpers find at a version of the metadata, each asked once. */
async function crawl(guest: Namespace, version: string): Promise<Crawl> {
  const keywords = JSON.stringify({ api_version: version, retries: 0 });
  const { answer, log } = await runCloudInit(guest, 'crawl.py', keywords);
  const { metadata, userdata } = answer as {
    metadata: Readonly<Record<string, unknown>>;
    userdata: string;
  };
  return { metadata, userdata: Buffer.from(userdata, 'base64'), log };
}

/** Those of the keys, and what is under them: there may be more. */
function only(metadata: Readonly<Record<string, unknown>>, ...keys: readonly string[]) {
  return Object.fromEntries(keys.map((key) => [key, metadata[key]]));
}

const keys = {
  default: 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGRlZmF1bHQ= first key',
  second: 'from="10.0.0.0/8",command="a; b" ssh-rsa AAAAB3NzaC1yc2E= second@example.com',
  '7': 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHNldmVu seven',
};
const publicKeys = `[public-keys]
second = ${keys.second}
default = ${keys.default}
7 = ${keys['7']}
`;

for (const version of ['2009-04-04', '2021-03-23', 'latest']) {
  test(`cloud-init reads all metadata of ${version}: every request of its walk is answered`, {
    skip,
  }, async (t) => {
    const { guest, requests } = await startGuest(t, { sections: publicKeys });
    const { metadata, log } = await crawl(guest, version);
    assert.deepEqual(only(metadata, 'hostname', 'instance-id', 'public-keys'), {
      hostname: 'web1',
      'instance-id': `i-${web1.mds_ipv4}`,
      'public-keys': keys,
    });
    assert.equal(log, '');
    const made = await requests();
    assert.ok(made.includes(`GET /${version}/meta-data/public-keys/2/openssh-key 200`));
    assert.deepEqual(
      made.filter((request) => !request.endsWith(' 200')),
      [],
    );
  });
}

test('cloud-init finds no public keys where there are none, and no request fails', {
  skip,
}, async (t) => {
  const { guest, requests } = await startGuest(t);
  const { metadata, log } = await crawl(guest, '2009-04-04');
  assert.deepEqual(only(metadata, 'hostname', 'public-keys'), {
    hostname: 'web1',
    'public-keys': undefined,
  });
  assert.equal(log, '');
  assert.deepEqual(
    (await requests()).filter((request) => !request.endsWith(' 200')),
    [],
  );
});

test('cloud-init gets the rendered user-data of its instance', { skip }, async (t) => {
  const { guest } = await startGuest(t, {
    sections: `[template-data]\ngreeting = a&b "c" Grüße\n${publicKeys}`,
    userdata: {
      'web1.yaml': `#cloud-config
hostname: {{hostname}}
ssh_authorized_keys:
  - {{public_keys['second']}}

bootcmd:
  - echo '{{greeting}}' $HOME \\n {%%}
`,
    },
  });
  const { userdata, log } = await crawl(guest, '2009-04-04');
  assert.equal(
    userdata.toString(),
    `#cloud-config
hostname: web1
ssh_authorized_keys:
  - ${keys.second}

bootcmd:
  - echo 'a&b "c" Grüße' $HOME \\n {%%}
`,
  );
  assert.equal(log, '');
});

test('cloud-init gets gzipped user-data byte for byte', { skip }, async (t) => {
  const zipped = gzipSync('#cloud-config\nruncmd: [{{ls}}]\n');
  const { guest } = await startGuest(t, { userdata: { web1: zipped } });
  assert.deepEqual((await crawl(guest, 'latest')).userdata, zipped);
});

test('cloud-init at an address of no instance finds nothing at all', { skip }, async (t) => {
  const { guest, requests } = await startGuest(t, {
    sections: publicKeys,
    userdata: { web1: 'secret' },
    address: '10.122.7.9',
  });
  const { metadata, userdata } = await crawl(guest, '2009-04-04');
  assert.deepEqual({ metadata, userdata: userdata.toString() }, { metadata: {}, userdata: '' });
  assert.deepEqual(await requests(), [
    'GET /2009-04-04/meta-data/ 404',
    'GET /2009-04-04/user-data 404',
  ]);
});
