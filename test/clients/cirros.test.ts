import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { suiteScope } from '../support/cleanup.js';
import {
  type ClientGuest,
  type ClientSite,
  guestKey,
  startClientSite,
} from '../support/client-site.js';
import { clientPath, missingClient } from '../support/clients.js';
import { missing } from '../support/parts.js';

// CirrOS's own scripts of its boot, in a root that has them, BusyBox and curl, as its image has.

const skip = missingClient('cirros/src') || missing('netns', 'curl', 'busybox', 'unshare');

/** Makes the root. A line of shell stands in for su, which does no more there than to run a command. */
const makeRoot = `
cp -a "$1/." "$2"
for program in "$(command -v busybox)" "$(command -v curl)"; do
  for file in "$program" $(ldd "$program" | grep -o '/[^ ]*'); do
    mkdir -p "$2/$(dirname "$file")"
    cp -L "$file" "$2/$file"
  done
done
mkdir -p "$2/proc" "$2/dev" "$2/tmp" "$2/run" "$2/root"
touch "$2/dev/null"
busybox chroot "$2" "$(command -v busybox)" --install -s /bin 2>/dev/null
printf '#!/bin/sh\\nexec sh -c "$2"\\n' >"$2/usr/bin/su"
chmod 755 "$2/usr/bin/su"
`;

/** What its init does from the network on. */
const init = 'cirros-ds -v net; cirros-apply net; cirros-userdata -v; hostname >/run/hostname';

/** Boots a guest with its scripts, or runs another line of shell in its root. */
async function bootCirros(guest: ClientGuest, line = init) {
  const root = join(guest.folder, 'root');
  execFileSync('sh', ['-euc', makeRoot, 'sh', clientPath('cirros/src'), root]);
  const enter = `mount -t proc proc "$1/proc" && mount --bind /dev/null "$1/dev/null" &&
    exec busybox chroot "$1" env PATH=/bin:/sbin:/usr/bin:/usr/sbin sh -c "$2" 2>&1`;
  const log = await guest.run('unshare', '--mount', '--uts', 'sh', '-c', enter, 'sh', root, line);
  return { log, read: (path: string) => readFileSync(join(root, path), 'utf8') };
}

/** What it asks for, with or without user-data. test/real-boot-clients.test.ts replays it. */
const requests = (userdataStatus: number) => [
  'GET /2009-04-04/meta-data/instance-id 200',
  'GET /2009-04-04/meta-data/public-keys 200',
  'GET /2009-04-04/meta-data/public-keys/0/openssh-key 200',
  'GET /2009-04-04/meta-data/instance-id 200',
  'GET /2009-04-04/meta-data/ami-launch-index 200',
  'GET /2009-04-04/meta-data/instance-type 200',
  'GET /2009-04-04/meta-data/local-ipv4 200',
  'GET /2009-04-04/meta-data/public-ipv4 404',
  'GET /2009-04-04/meta-data/hostname 200',
  'GET /2009-04-04/meta-data/local-hostname 200',
  `GET /2009-04-04/user-data ${userdataStatus}`,
  'GET /2009-04-04/meta-data/block-device-mapping 404',
  'GET /2009-04-04/meta-data/public-hostname 404',
  'GET /2009-04-04/meta-data/placement/availability-zone 200',
];

describe("CirrOS's own scripts", { skip }, () => {
  const scope = suiteScope();
  let site: ClientSite;

  before(async () => {
    site = await startClientSite(scope);
  });

  test('take host name, keys and a script at the first try', async () => {
    const guest = await site.boot('cirros1', { userdata: '#!/bin/sh\necho hello >/tmp/hello\n' });
    const { read, log } = await bootCirros(guest);
    assert.match(log, /successful after 1\/20 tries/);
    assert.deepEqual(await guest.requests(), requests(200));
    assert.equal(read('run/hostname'), 'cirros1\n');
    assert.equal(read('etc/hostname'), 'cirros1\n');
    assert.equal(read('home/cirros/.ssh/authorized_keys'), `${guestKey}\n`);
    assert.equal(read('tmp/hello'), 'hello\n');
  });

  test('have a host name where the name of the domain is none, and go on without user-data', async () => {
    const metadata = { userdata: 'none' };
    const guest = await site.boot('web+1', { metadata });
    const { read, log } = await bootCirros(guest);
    assert.match(log, /user-data was not '#!' or executable/);
    assert.deepEqual(await guest.requests(), requests(404));
    assert.equal(read('run/hostname'), 'web-1\n');
    assert.equal(read('home/cirros/.ssh/authorized_keys'), `${guestKey}\n`);
  });

  test('leave the built-in cloud-config alone', async () => {
    const { log } = await bootCirros(await site.boot('cirros2'));
    assert.match(log, /user-data was not '#!' or executable/);
  });

  test('find all that is listed, as ec2metadata without arguments prints it', async () => {
    const guest = await site.boot('cirros3');
    const { log } = await bootCirros(guest, 'ec2metadata');
    const asked = await guest.requests();
    assert.match(log, /^placement\/availability-zone: rack1a$/m);
    assert.match(log, /^public-keys\/0: openssh-key$/m);
    assert.ok(asked.length > 30, `${asked.length} requests`);
    assert.deepEqual(
      asked.filter((request) => !request.endsWith(' 200')),
      [],
    );
  });
});
