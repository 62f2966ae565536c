import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
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
import { repository } from '../support/daemon.js';
import { missing, python } from '../support/parts.js';

// tiny-cloud of Alpine, with BusyBox's wget and nc. It has a way to be tried without changes to the machine:
// ROOT is the folder that it configures, and MOCK is put before each command that would change more.

const skip =
  missingClient('tiny-cloud/sbin/tiny-cloud') || missing('netns', 'curl', 'busybox', 'cloud-init');

async function bootAlpine(guest: ClientGuest, cloud: string, serial = '') {
  const root = join(guest.folder, 'root');
  const bin = join(guest.folder, 'bin');
  const smbios = join(root, 'sys/class/dmi/id');
  for (const folder of [bin, smbios, join(root, 'etc')]) mkdirSync(folder, { recursive: true });
  writeFileSync(join(smbios, 'product_serial'), `${serial}\n`);
  const script = (name: string, line: string) =>
    writeFileSync(join(bin, name), `#!/bin/sh\n${line}\n`, { mode: 0o755 });
  script('nc', 'exec busybox nc "$@"');
  // Debian's BusyBox has no --timeout.
  script(
    'wget',
    'if [ "$1 $2" = "--quiet --timeout" ]; then shift 3; fi; exec busybox wget -q "$@"',
  );
  script('getent', 'echo alpine:x:1000:1000::/home/alpine:/bin/sh');
  script('yx', `exec ${python} ${repository}/test/fixtures/clients/yx.py "$@"`);
  const prefix = clientPath('tiny-cloud');
  const env = {
    PATH: `${bin}:${prefix}/bin:/usr/bin:/bin:/usr/sbin:/sbin`,
    PREFIX: prefix,
    ROOT: root,
    MOCK: 'echo',
    CLOUD: cloud,
  };
  const phases = 'for phase in boot early main final; do busybox sh "$0" $phase 2>&1; done';
  await guest.runWith(env, 'busybox', 'sh', '-c', phases, `${prefix}/sbin/tiny-cloud`);
  return (path: string) => readFileSync(join(root, path), 'utf8');
}

describe("Alpine's tiny-cloud", { skip }, () => {
  const scope = suiteScope();
  let site: ClientSite;

  before(async () => {
    site = await startClientSite(scope);
  });

  test('the image for aws takes host name, keys and a script, with tokens required', async () => {
    const userdata = '#!/bin/sh\necho hello\n';
    const guest = await site.boot('tiny1', { userdata, metadata: { imds_tokens: 'required' } });
    const read = await bootAlpine(guest, 'aws');
    const token = 'PUT /latest/api/token 200';
    assert.deepEqual(await guest.requests(), [
      token,
      'GET /latest/user-data 200',
      token,
      'GET /latest/meta-data/hostname 200',
      token,
      'GET /latest/meta-data/public-keys 200',
      token,
      'GET /latest/meta-data/public-keys/0/openssh-key 200',
    ]);
    assert.equal(read('etc/hostname'), 'tiny1\n');
    assert.equal(read('home/alpine/.ssh/authorized_keys'), `${guestKey}\n`);
    assert.equal(read('var/log/user-data.log'), 'hello\n');
  });

  test('the image for nocloud takes host name and a script with recipe B', async () => {
    const guest = await site.boot('tiny2', { userdata: '#!/bin/sh\necho hello\n' });
    const serial = 'ds=nocloud;s=http://169.254.169.254/nocloud/;dsmode=net';
    const read = await bootAlpine(guest, 'nocloud', serial);
    assert.deepEqual(await guest.requests(), [
      'GET /nocloud//meta-data 200',
      'GET /nocloud//user-data 200',
      'GET /nocloud//vendor-data 200',
      'GET /nocloud//network-config 200',
    ]);
    assert.equal(read('etc/hostname'), 'tiny2\n');
    assert.equal(read('var/log/user-data.log'), 'hello\n');
  });
});
