import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { PhoneHomeError, parsePhoneHome } from '../src/boots/phone-home.js';
import type { HostKeys, InstanceDetails } from '../src/control/api.js';
import { noDetails, withHostKeys } from '../src/instances/details.js';
import { repository } from './support/daemon.js';
import { addHost } from './support/netns.js';
import { missing } from './support/parts.js';
import { rowName } from './support/rows.js';
import { databaseRecord, domainXml } from './support/samples.js';
import { type Site, startSite } from './support/site.js';

const ed25519 = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJQ6Ir3pp2rzWqNnmCeFnwE3M1cVqmnOe1IhQJ1eVzWb';
const rsa = `ssh-rsa AAAAB3NzaC1yc2E${'A'.repeat(300)}==`;

const form = (fields: Record<string, string>) => new URLSearchParams(fields).toString();
/** What cloud-init sends of an Ubuntu guest. */
const usual = {
  pub_key_rsa: `${rsa} root@web1\n`,
  pub_key_ecdsa: 'N/A',
  pub_key_ed25519: `${ed25519} root@web1\n`,
  instance_id: 'i-10.122.7.8',
  hostname: 'web1',
  fqdn: 'web1.example.org',
};

// ---- what a message may be ----

test('a message gives the names, and the keys without comments', () => {
  assert.deepEqual(parsePhoneHome(form(usual), 5.5), {
    at: 5.5,
    hostname: 'web1',
    fqdn: 'web1.example.org',
    keys: [ed25519, rsa],
  });
});

test('N/A and None, which cloud-init sends for unknown values, are ignored', async (t) => {
  for (const nothing of ['N/A', 'None', '']) {
    await t.test(rowName(nothing), () => {
      const fields = {
        hostname: nothing,
        fqdn: nothing,
        pub_key_rsa: nothing,
        instance_id: nothing,
      };
      assert.deepEqual(parsePhoneHome(form(fields), 1), {
        at: 1,
        hostname: null,
        fqdn: null,
        keys: [],
      });
    });
  }
  assert.deepEqual(parsePhoneHome('instance_id=x', 1).keys, []);
});

test('every type of key that sshd makes is accepted, and no comment is kept', async (t) => {
  const data = 'A'.repeat(40);
  const types = [
    'ssh-ed25519',
    'ssh-rsa',
    'ssh-dss',
    'ecdsa-sha2-nistp256',
    'ecdsa-sha2-nistp384',
    'ecdsa-sha2-nistp521',
  ];
  const comments = ['', ' ', ' root@x', ' \r', ' * ssh-rsa AAAA', ' \0\u2028\u0085x\ud7ff'];
  for (const type of types) {
    await t.test(type, () => {
      for (const comment of comments) {
        for (const end of ['', '\n']) {
          const { keys } = parsePhoneHome(
            form({ pub_key_x: `${type} ${data}${comment}${end}` }),
            1,
          );
          assert.deepEqual(keys, [`${type} ${data}`]);
        }
      }
    });
  }
});

test('a key that comes twice is one key', () => {
  const body = form({ pub_key_a: `${ed25519} a`, pub_key_b: `${ed25519} b` });
  assert.deepEqual(parsePhoneHome(body, 1).keys, [ed25519]);
});

const noForm = "this is not a form from cloud-init's phone_home module";
const noKey = 'pub_key_rsa is not an SSH public key';
/** Bodies that are refused as a whole, each with its error message. */
const hostile: readonly [what: string, body: string | Buffer, error: string][] = [
  ['nothing', '', noForm],
  ['JSON', JSON.stringify(usual), noForm],
  ['binary', Buffer.from(Array.from({ length: 512 }, (_, index) => index % 256)), noForm],
  [
    'a multipart form',
    '--x\r\nContent-Disposition: form-data; name="hostname"\r\n\r\nweb1\r\n--x--\r\n',
    noForm,
  ],
  ['other fields', 'a=b&c=d', noForm],
  ['2,000 fields', 'a&'.repeat(2000), 'more than 50 fields'],
  ['2,000 fields after good ones', `${form(usual)}&${'a&'.repeat(2000)}`, 'more than 50 fields'],
  [
    '11 keys',
    form(
      Object.fromEntries(
        Array.from({ length: 11 }, (_, index) => [
          `pub_key_k${index}`,
          `ssh-rsa ${'A'.repeat(40 + index)}`,
        ]),
      ),
    ),
    'more than 10 keys',
  ],
  ...[
    `${rsa}\n* ${ed25519}`,
    `${rsa}\n\n`,
    `${rsa} a\n@cert-authority * ${ed25519}\n`,
    `\n${rsa}`,
    `${rsa}\r\n* ${ed25519}\r\n`,
    `@cert-authority * ${rsa}`,
    `@revoked * ${rsa}`,
    `* ${rsa}`,
    `command="x" ${rsa}`,
    `|1|x|y ${rsa}`,
    ` ${rsa}`,
    `ssh-rsa\n${'A'.repeat(40)}`,
    `ssh-rsa\t${'A'.repeat(40)}`,
    'ssh-rsa AAAA',
    'ssh-rsa',
    `ssh-rsa ${'A'.repeat(40)}=====`,
    `ssh-rsa ${'A'.repeat(40)}!`,
    `ssh-rsa ${'A'.repeat(4001)}`,
    `ssh-rsa-cert-v01@openssh.com ${'A'.repeat(40)}`,
    `SSH-RSA ${'A'.repeat(40)}`,
    `ssh-rsa ${'A'.repeat(20)}\u0660${'A'.repeat(20)}`,
    '-----BEGIN OPENSSH PRIVATE KEY-----',
    'null',
  ].map((key): [string, string, string] => [
    JSON.stringify(key).slice(0, 60),
    form({ ...usual, pub_key_rsa: key }),
    noKey,
  ]),
  ...[
    'a b',
    'a,b',
    '*',
    '?',
    '!web1',
    '[web1]:22',
    'a\nb',
    '-web1',
    'web1-',
    '.',
    '..',
    'wéb',
    'web1\0',
    '|1|a|b',
    '#',
    '@cert-authority',
    '10.0.0.1:22',
    'x'.repeat(256),
  ].map((name): [string, string, string] => [
    `the name ${JSON.stringify(name).slice(0, 30)}`,
    form({ ...usual, hostname: name }),
    'hostname is not a host name',
  ]),
  ['an invalid domain name', form({ ...usual, fqdn: '*.example.org' }), 'fqdn is not a host name'],
];
for (const [what, body, message] of hostile) {
  test(`a message is refused: ${what}`, () => {
    assert.throws(() => parsePhoneHome(body.toString('latin1' as never), 1), {
      constructor: PhoneHomeError,
      message,
    });
  });
}

test('whatever the message, the stored keys and names are safe in known_hosts', () => {
  const piece = fc.oneof(
    fc.constantFrom(
      rsa,
      ed25519,
      'ssh-rsa',
      ' ',
      '\n',
      '\r',
      '\0',
      '*',
      ',',
      'web1',
      'N/A',
      '@cert-authority',
    ),
    fc.string({ unit: 'binary', maxLength: 30 }),
  );
  const text = fc.array(piece, { maxLength: 4 }).map((parts) => parts.join(''));
  const name = fc.oneof(
    fc.constantFrom('hostname', 'fqdn', 'instance_id', 'pub_key_rsa', 'pub_key_ed25519'),
    text,
  );
  const bodies = fc.oneof(
    fc
      .array(fc.tuple(name, text), { maxLength: 8 })
      .map((pairs) => new URLSearchParams(pairs).toString()),
    fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
  );
  fc.assert(
    fc.property(bodies, (body) => {
      let said: HostKeys;
      try {
        said = parsePhoneHome(body, 1);
      } catch (error) {
        assert.ok(error instanceof PhoneHomeError, String(error));
        assert.doesNotMatch(error.message.replace(/^.* is not an SSH public key$/s, ''), /\n/);
        return;
      }
      for (const key of said.keys) assert.match(key, /^[a-z0-9-]+ [A-Za-z0-9+/]+={0,3}$/);
      for (const host of [said.hostname, said.fqdn]) assert.match(host ?? 'x', /^[A-Za-z0-9._-]+$/);
    }),
    { numRuns: 2000 },
  );
});

// ---- the route ----

const address = '127.141.0.1';

function record(number: number, mds_ipv4 = `127.141.0.${number + 10}`) {
  return databaseRecord(number, { domain_name: `web${number}`, mds_ipv4 });
}

/** Two instances, and what they say of themselves. */
async function start(t: TestContext) {
  return phoning(await startSite(t, address, { records: [record(1), record(2)] }));
}

function phoning(site: Site) {
  const { daemon, folder, json } = site;
  const details = async (name: string) =>
    (await json(`/instances/${name}`)).body as InstanceDetails;
  return {
    ...site,
    detailsFile: join(folder, 'db.details.json'),
    hostKeys: async (name: string) => (await details(name)).host_keys,
    outcome: async (name: string) => (await details(name)).last_boot?.outcome,
    phoneHome: async (number: number, body: string | Buffer, headers = {}) => {
      const from = record(number).mds_ipv4;
      const asking = { method: 'POST', from, body, headers };
      const { status, text } = await daemon.ask('/phone-home', asking);
      return { status, text };
    },
    restart: async () => phoning(await site.restart()),
    /** Starts it again with what was reported so far said to be a minute old. */
    minuteLater: async () => {
      assert.equal(await daemon.stop(), 0);
      const text = readFileSync(join(folder, 'db.details.json'), 'utf8');
      const older = text.replace(/"at":([\d.]+)/g, (_, at) => `"at":${Number(at) - 60}`);
      writeFileSync(join(folder, 'db.details.json'), older);
      return phoning(await site.restart());
    },
  };
}

const done = { status: 200, text: '' };
const timeless = (all: readonly HostKeys[]) =>
  all.map(({ hostname, fqdn, keys }) => ({ hostname, fqdn, keys }));
const readIfThere = (path: string) => (existsSync(path) ? readFileSync(path, 'utf8') : undefined);
const version = (path: string) => [statSync(path).ino, statSync(path).mtimeMs];

describe('phoning home', { concurrency: 4 }, () => {
  test('an instance speaks only for itself, whatever the form and the headers claim', async (t) => {
    const site = await start(t);
    const headers = {
      'content-type': 'application/x-www-form-urlencoded',
      'x-forwarded-for': record(1).mds_ipv4,
      forwarded: `for=${record(1).mds_ipv4}`,
      'x-real-ip': record(1).mds_ipv4,
    };
    const lies = {
      ...usual,
      instance_id: `i-${record(1).mds_ipv4}`,
      hostname: 'web1',
      name: 'web1',
      uuid: record(1).domain_uuid,
    };
    assert.deepEqual(await site.phoneHome(2, form(lies), headers), done);
    assert.deepEqual(await site.hostKeys('web1'), []);
    assert.equal(await site.outcome('web1'), undefined);
    assert.deepEqual(timeless(await site.hostKeys('web2')), [
      { hostname: 'web1', fqdn: 'web1.example.org', keys: [ed25519, rsa] },
    ]);
    assert.equal(await site.outcome('web2'), 'home');
  });

  test('hostile messages are refused and not stored', async (t) => {
    const site = await start(t);
    const before = readIfThere(site.detailsFile);
    for (const [what, body, error] of hostile) {
      await t.test(what, async () => {
        assert.deepEqual(await site.phoneHome(1, body), { status: 400, text: `${error}\n` });
      });
    }
    for (const type of [
      'application/json',
      'text/plain',
      'multipart/form-data; boundary=x',
      'xml',
    ]) {
      await t.test(type, async () => {
        const { status } = await site.phoneHome(1, '{"hostname":', { 'content-type': type });
        assert.ok(status === 400 || status === 415, `${type}: ${status}`);
      });
    }
    const { status } = await site.phoneHome(1, '', { 'content-length': String(8 * 1024 + 1) });
    assert.equal(status, 413);
    assert.equal(readIfThere(site.detailsFile), before);
    assert.deepEqual(await site.hostKeys('web1'), []);
    assert.equal(await site.outcome('web1'), undefined);
    assert.doesNotMatch(site.daemon.output(), / failed:/);
    // After all that, an honest one is heard.
    assert.deepEqual(await site.phoneHome(1, form(usual)), done);
    assert.equal((await site.hostKeys('web1')).length, 1);
  });

  test("a caller without an instance's address gets 404, and nothing is stored", async (t) => {
    const site = await start(t);
    const before = readIfThere(site.detailsFile);
    for (const from of ['127.141.0.200', address]) {
      await t.test(`from ${from}`, async () => {
        const { status, text } = await site.daemon.ask('/phone-home', {
          method: 'POST',
          from,
          body: form(usual),
        });
        assert.deepEqual([status, text], [404, 'not found\n']);
      });
    }
    assert.equal(readIfThere(site.detailsFile), before);
    const { body } = await site.json('/addresses/127.141.0.200');
    assert.equal(typeof (body as { last_refused: unknown }).last_refused, 'number');
    for (const method of ['GET', 'PUT']) {
      await t.test(method, async () => {
        const answer = await site.daemon.ask('/phone-home', { method, from: record(1).mds_ipv4 });
        assert.equal(answer.status, 404);
      });
    }
  });

  test('known keys cause no write; new ones come first and are logged', async (t) => {
    let site = await start(t);
    await site.phoneHome(1, form(usual));
    const files = [site.detailsFile, join(site.folder, 'db.json')];
    const before = files.map(version);
    for (let time = 0; time < 3; time++)
      assert.deepEqual(await site.phoneHome(1, form(usual)), done);
    // The same said in another order.
    await site.phoneHome(1, form(Object.fromEntries(Object.entries(usual).reverse())));
    // No key at all says nothing of the keys.
    await site.phoneHome(1, 'instance_id=x');
    assert.deepEqual(files.map(version), before);
    const warning = 'web1 phoned home with different SSH host keys than before';
    assert.ok(!site.daemon.output().includes(warning));

    site = await site.minuteLater();
    await site.phoneHome(1, form({ hostname: 'web1', pub_key_ed25519: ed25519 }));
    assert.deepEqual(timeless(await site.hostKeys('web1')), [
      { hostname: 'web1', fqdn: null, keys: [ed25519] },
      { hostname: 'web1', fqdn: 'web1.example.org', keys: [ed25519, rsa] },
    ]);
    await site.daemon.printed(warning);
    assert.match(site.daemon.output(), new RegExp(`WARN +${warning}\n`));
  });

  test('keys change at most once in 10 seconds, however many messages come at once', async (t) => {
    const site = await start(t);
    const files = ['db.json', 'dnsmasq/dhcp/mds.dhcp-hosts', 'dnsmasq/dns/mds.dns-hosts'].map(
      (name) => join(site.folder, name),
    );
    const before = files.map(version);
    const key = (number: number) => `ssh-rsa ${'A'.repeat(40)}${number}`;
    const answers = await Promise.all(
      Array.from({ length: 33 }, (_, number) => {
        const from = record(1).mds_ipv4;
        const body = form({ pub_key_rsa: key(number) });
        return site.daemon.ask('/phone-home', { method: 'POST', from, body });
      }),
    );
    assert.equal(answers.filter(({ status }) => status === 200).length, 1);
    for (const { status, headers, text } of answers) {
      if (status === 200) continue;
      assert.equal(status, 429);
      const seconds = Number(headers['retry-after']);
      assert.ok(seconds >= 1 && seconds <= 10, text);
      assert.equal(
        text,
        `the host keys changed less than 10 seconds ago: try again in ${seconds} s\n`,
      );
    }
    assert.equal((await site.hostKeys('web1')).length, 1);
    // Another instance is not concerned.
    assert.deepEqual(await site.phoneHome(2, form(usual)), done);
    assert.deepEqual(files.map(version), before, 'only the details are written');
  });

  test('uploads and host keys that arrive together are all stored', async (t) => {
    let site = await start(t);
    const uploads = [3, 4, 5].map((number) => site.daemon.upload(domainXml(number)));
    const homes = [1, 2].map((number) => site.phoneHome(number, form(usual)));
    for (const { status } of await Promise.all([...uploads, ...homes])) assert.equal(status, 200);
    site = await site.restart();
    for (const name of ['web1', 'web2']) assert.equal((await site.hostKeys(name)).length, 1);
    const { body } = await site.json('/instances');
    assert.equal((body as object[]).length, 5);
  });

  test('the newest five are kept', () => {
    const at = (number: number) => ({
      at: 10 * number,
      hostname: null,
      fqdn: null,
      keys: [`${number}`],
    });
    let details = noDetails;
    for (let number = 1; number <= 8; number++) details = withHostKeys(details, at(number));
    assert.deepEqual(details.hostKeys, [8, 7, 6, 5, 4].map(at));
    // After the clock was set back, too.
    assert.deepEqual(withHostKeys(details, at(2)).hostKeys, [2, 8, 7, 6, 5].map(at));
  });

  test('simultaneous messages with the same keys are kept once', async (t) => {
    const site = await start(t);
    const all = Array.from({ length: 20 }, () => site.phoneHome(2, form(usual)));
    for (const answer of await Promise.all(all)) assert.deepEqual(answer, done);
    assert.equal((await site.hostKeys('web2')).length, 1);
  });

  test('keys survive a restart and a new upload, but not a recreated or removed machine', async (t) => {
    let site = await start(t);
    await site.phoneHome(1, form(usual));
    await site.phoneHome(2, form({ pub_key_rsa: rsa }));
    const kept = await site.hostKeys('web1');
    assert.equal(kept.length, 1);
    assert.equal(typeof kept[0]?.at, 'number');
    site = await site.restart();
    assert.deepEqual(await site.hostKeys('web1'), kept);
    // The same machine, and the same one under another name.
    await site.daemon.upload(domainXml(1, { name: 'web1' }));
    assert.deepEqual(await site.hostKeys('web1'), kept);
    await site.daemon.upload(domainXml(1, { name: 'renamed' }));
    assert.deepEqual(await site.hostKeys('renamed'), kept);
    const anew = '00000000-0000-4000-8000-0000000000ff';
    // Made anew: the name and the address stay, the machine is another one.
    await site.daemon.upload(domainXml(1, { name: 'renamed', uuid: anew }));
    assert.deepEqual(await site.hostKeys('renamed'), []);
    const details = () =>
      JSON.parse(readFileSync(site.detailsFile, 'utf8')) as Record<string, { hostKeys: unknown[] }>;
    assert.deepEqual(
      Object.entries(details())
        .map(([uuid, { hostKeys }]) => [uuid, hostKeys.length])
        .sort(),
      [
        [record(2).domain_uuid, 1],
        [anew, 0],
      ],
    );
    site = await site.restart();
    assert.deepEqual(await site.hostKeys('renamed'), []);
    await site.ask('/instances/web2', { method: 'DELETE' });
    assert.deepEqual(Object.keys(details()), [anew, 'resting']);
  });

  test('keys that cannot be stored are answered 500, so that cloud-init tries again', async (t) => {
    const site = await start(t);
    rmSync(site.detailsFile, { force: true });
    mkdirSync(site.detailsFile);
    for (let time = 0; time < 3; time++) {
      assert.equal((await site.phoneHome(1, form(usual))).status, 500);
    }
    await site.daemon.printed('nothing was stored');
    const said = site.daemon.output().match(/ERROR nothing was stored: EISDIR/g);
    assert.equal(said?.length, 1, 'said once');
    assert.deepEqual(await site.hostKeys('web1'), []);
    rmSync(site.detailsFile, { recursive: true });
    assert.deepEqual(await site.phoneHome(1, form(usual)), done);
    assert.equal((await site.hostKeys('web1')).length, 1);
  });

  test('a details file that is not JSON is ignored with a warning, and the daemon starts', async (t) => {
    const site = await start(t);
    await site.phoneHome(1, form(usual));
    await site.daemon.stop();
    for (const [text, warned] of [
      ['{"half', true],
      ['[1, 2]', false],
      ['null', false],
      ['{"x": 5}', false],
    ] as const) {
      await t.test(rowName(text), async () => {
        writeFileSync(site.detailsFile, text);
        const next = await site.restart();
        assert.deepEqual(await next.hostKeys('web1'), []);
        assert.equal(next.daemon.output().includes(`ignored ${site.detailsFile}: `), warned);
        await next.daemon.stop();
      });
    }
  });
});

// ---- cloud-init's own module ----

const cloudInit = {
  skip: missing('netns', 'cloud-init', 'ssh-keygen'),
};

test(
  "cloud-init's phone_home brings the host keys of its guest, and brings others after a new installation",
  cloudInit,
  async (t) => {
    const host = addHost(t);
    const web1 = record(1, '10.122.7.8');
    const web2 = record(2, '10.122.7.9');
    const guest = host.addGuest(web1.mds_mac);
    guest.ip('address add 10.122.7.8/16 dev eth0');
    guest.ip('route add 169.254.169.254/32 via 10.122.0.1');
    let site = await startSite(t, host, { records: [web1, web2] });
    const { folder } = site;

    /** New host keys of the types that sshd makes; gives them as they are kept. */
    function installSshd(name: string): { place: string; keys: string[] } {
      const place = join(folder, name);
      mkdirSync(place);
      const keys = ['rsa', 'ecdsa', 'ed25519'].map((type) => {
        const file = join(place, `ssh_host_${type}_key`);
        const made = spawnSync('ssh-keygen', [
          '-q',
          '-t',
          type,
          '-N',
          '',
          '-C',
          'root@web1',
          '-f',
          file,
        ]);
        assert.equal(made.status, 0, made.stderr.toString());
        return readFileSync(`${file}.pub`, 'utf8').split(' ').slice(0, 2).join(' ');
      });
      return { place, keys: keys.sort() };
    }

    const script = join(repository, 'test', 'fixtures', 'cloud-init', 'phone-home.py');
    async function phoneHome(place: string, more: object = {}): Promise<string> {
      const cloudConfig = { url: 'http://169.254.169.254/phone-home', tries: 1, ...more };
      const facts = { instance_id: 'i-10.122.7.8', hostname: 'web1', fqdn: 'web1.example.org' };
      // "ip netns exec" gives each command mounts of its own: the guest has its own /etc/ssh.
      const { status, stderr } = await guest.run('sh', [
        '-c',
        'mount --bind "$1" /etc/ssh && shift && exec /usr/bin/python3 "$@"',
        'sh',
        ...[place, script, JSON.stringify(cloudConfig), JSON.stringify(facts)],
      ]);
      assert.equal(status, 0, stderr);
      return stderr;
    }
    const details = async (name: string) =>
      (await site.json(`/instances/${name}`)).body as InstanceDetails;
    const said = (keys: readonly string[]) => ({
      hostname: 'web1',
      fqdn: 'web1.example.org',
      keys,
    });

    const first = installSshd('first');
    assert.doesNotMatch(await phoneHome(first.place), /Failed to post/);
    assert.deepEqual(timeless((await details('web1')).host_keys), [said(first.keys)]);
    assert.equal((await details('web1')).last_boot?.outcome, 'home');
    const file = join(folder, 'db.details.json');
    const onDisk = JSON.parse(readFileSync(file, 'utf8')) as Record<
      string,
      { hostKeys: HostKeys[] }
    >;
    assert.deepEqual(timeless(onDisk[web1.domain_uuid]?.hostKeys ?? []), [said(first.keys)]);

    site = await site.restart();
    assert.deepEqual(timeless((await details('web1')).host_keys), [said(first.keys)]);
    const before = version(file);
    assert.doesNotMatch(await phoneHome(first.place), /Failed to post/);
    assert.deepEqual(version(file), before);

    const second = installSshd('second');
    // With the fields named, as in docs/mdserverctl.md, and a URL that names the instance. It is
    // refused at first, because the keys changed a moment ago, and tries again.
    await phoneHome(second.place, {
      tries: 10,
      url: 'http://169.254.169.254/phone-home?of=$INSTANCE_ID',
      post: ['pub_key_rsa', 'pub_key_ecdsa', 'pub_key_ed25519', 'instance_id', 'hostname', 'fqdn'],
    });
    assert.deepEqual(timeless((await details('web1')).host_keys), [
      said(second.keys),
      said(first.keys),
    ]);
    await site.daemon.printed('web1 phoned home with different SSH host keys than before');
    assert.deepEqual((await details('web2')).host_keys, []);
  },
);
