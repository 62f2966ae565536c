import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { decryptPassword } from '../../src/ctl/commands/password.js';
import { suiteScope } from '../support/cleanup.js';
import { type ClientGuest, type ClientSite, startClientSite } from '../support/client-site.js';
import { clientPath, missingClient } from '../support/clients.js';
import { repository } from '../support/daemon.js';
import { missing, python } from '../support/parts.js';
import { rowName } from '../support/rows.js';

// cloudbase-init's own code, whose calls of Windows are recorded.

const driver = join(repository, 'test/fixtures/clients/cloudbase.py');

/** What the driver prints. */
interface Boot {
  readonly service: string;
  readonly instance_id: string;
  /** The plugins that failed, and those that the next boot runs again. */
  readonly failed: readonly string[];
  readonly again: readonly string[];
  readonly keys: readonly string[];
  readonly password?: string;
  readonly host_name?: string;
  readonly adapter?: readonly string[];
  readonly scripts?: readonly (readonly [program: string, script: string])[];
}

/** An RSA key as sshd has it (RFC 4253 6.6). */
function sshKey(key: KeyObject): string {
  const { n = '', e = '' } = key.export({ format: 'jwk' });
  const field = (bytes: Buffer) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    return Buffer.concat([length, bytes]);
  };
  // A number whose first bit is set would be negative.
  const number = (text: string) =>
    field(Buffer.concat([Buffer.alloc(1), Buffer.from(text, 'base64url')]));
  const exponent = field(Buffer.from(e, 'base64url'));
  const data = Buffer.concat([field(Buffer.from('ssh-rsa')), exponent, number(n)]);
  return `ssh-rsa ${data.toString('base64')} windows`;
}

describe('cloudbase-init', {
  skip: missing('netns', 'curl') || missingClient('cloudbase-init'),
}, () => {
  const scope = suiteScope();
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const key = sshKey(publicKey);
  let site: ClientSite;

  before(async () => {
    site = await startClientSite(scope, { keys: `windows = ${key}` });
  });

  async function boot(guest: ClientGuest, service = 'httpservice.HttpService'): Promise<Boot> {
    const registry = join(guest.folder, 'registry.json');
    const source = clientPath('cloudbase-init');
    return JSON.parse(await guest.run(python, driver, source, registry, service));
  }

  test('a boot by OpenStack sets name, keys and a password, once, and its owner can read the password', async () => {
    const guest = await site.boot('win1', { metadata: { public_keys: 'windows' } });
    const first = await boot(guest);
    const { password = '', ...others } = first;
    assert.deepEqual(others, {
      service: 'HttpService',
      instance_id: guest.uuid,
      failed: [],
      again: [],
      keys: [key],
      host_name: 'win1',
      adapter: [`Ethernet of ${guest.mac}`, 'mds'],
    });
    const paths = ['latest/meta_data.json', 'latest/network_data.json', 'latest/user_data'];
    const read = paths.map((path) => `GET /openstack/${path} 200`);
    assert.deepEqual(await guest.requests(), [
      ...read,
      'GET /openstack/2013-04-04/meta_data.json 200',
      'GET /openstack/2013-04-04/password 200',
      'POST /openstack/2013-04-04/password 200',
    ]);
    const { body } = await site.json('/instances/win1');
    const encrypted = (body as { password: string }).password;
    assert.equal(decryptPassword(encrypted, privateKey), password);

    const second = await boot(guest);
    assert.deepEqual([second.password, second.failed, second.again], [undefined, [], []]);
    assert.deepEqual(await guest.requests(), [read[0]]);
  });

  test('a key that is not RSA encrypts no password: each boot sets another one', async () => {
    const guest = await site.boot('win2', { metadata: { public_keys: 'default' } });
    const first = await boot(guest);
    const second = await boot(guest);
    for (const { failed } of [first, second]) assert.deepEqual(failed, ['SetUserPasswordPlugin']);
    assert.notEqual(first.password, second.password);
  });

  test('a password in the metadata of the domain is the one that is set', async () => {
    const metadata = { public_keys: 'none', admin_pass: 'Chosen 1!' };
    const { password, failed, again } = await boot(await site.boot('win3', { metadata }));
    assert.deepEqual({ password, failed, again }, { password: 'Chosen 1!', failed: [], again: [] });
  });

  test('scripts of all kinds run as they are written, with the values of the template', async (t) => {
    const scripts: [userdata: string, program: string, script?: string][] = [
      ['#ps1_sysnative\r\nNew-Item C:\\{{hostname}}\r\n', 'PowerShell'],
      ['#ps1\nif ($x) { "{0}" -f $y }\n', 'PowerShell'],
      ['rem cmd\r\necho %PATH% > C:\\{{hostname}}.txt\r\n', 'cmd'],
      ['<powershell>\r\nGet-Date\r\n</powershell>\r\n', 'PowerShell', 'Get-Date'],
      ['<script>\necho {{hostname}}\n</script>\n', 'cmd', 'echo NAME'],
    ];
    for (const [index, [userdata, program, script = userdata]] of scripts.entries()) {
      const name = `script${index}`;
      await t.test(rowName(userdata), async () => {
        const guest = await site.boot(name, { userdata, metadata: { public_keys: 'windows' } });
        const { scripts: ran, failed } = await boot(guest);
        const expected = script.replace(/\{\{hostname\}\}|NAME/, name);
        assert.deepEqual({ ran, failed }, { ran: [[program, expected]], failed: [] });
      });
    }
  });

  test('a boot by EC2 has the same name, keys and scripts', async () => {
    const userdata = '#ps1_sysnative\r\nhostname\r\n';
    const guest = await site.boot('win4', { userdata, metadata: { public_keys: 'windows' } });
    const { password, ...others } = await boot(guest, 'ec2service.EC2Service');
    assert.deepEqual(others, {
      service: 'EC2Service',
      instance_id: `i-${guest.ipv4}`,
      failed: [],
      again: [],
      keys: [key],
      host_name: 'win4',
      scripts: [['PowerShell', userdata]],
    });
    assert.match(password ?? '', /^Random/);
    assert.deepEqual(
      await guest.requests(),
      ['local-hostname', 'instance-id', 'public-keys', 'public-keys/0/openssh-key']
        .map((path) => `GET /2009-04-04/meta-data/${path} 200`)
        .concat('GET /2009-04-04/user-data 200'),
    );
  });
});
