import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { suiteScope } from './support/cleanup.js';
import { type Daemon, repository } from './support/daemon.js';
import { addHost, type Host } from './support/netns.js';
import { ignition, missing, python } from './support/parts.js';
import { databaseRecord, domainXml, mac } from './support/samples.js';
import { startSite } from './support/site.js';

// Programs that others wrote for EC2, in a guest of their own: a namespace that reaches
// 169.254.169.254 over a bridge, as a virtual machine does.

const fixtures = join(repository, 'test/fixtures/clients');
const metadata = 'http://169.254.169.254';
const key =
  'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGd1ZXN0IGtleSBmb3IgdGVzdHMgb25seSEh me@example.net';

// ---- guests ----

interface Guest {
  readonly name: string;
  readonly ipv4: string;
  readonly mac: string;
  /** Runs a program in the guest to its end, with an empty environment and home folder. */
  readonly run: (program: string, ...args: string[]) => Promise<string>;
  /** The same for a line of shell. */
  readonly shell: (line: string) => Promise<string>;
  /** All that it has asked for up to now: `GET /path 200`. Then it begins anew. */
  readonly requests: () => Promise<string[]>;
  /** An empty folder. */
  readonly folder: string;
}

describe('clients of EC2', { skip: missing('netns', 'curl') }, () => {
  const scope = suiteScope();
  let folder: string;
  let host: Host;
  let daemon: Daemon;

  before(async () => {
    host = addHost(scope);
    ({ daemon, folder } = await startSite(scope, host, {
      dnsmasq: 'user = root\ndomain = example.net',
      sections: `[public-keys]
default = ${key}
[service]
location = rack1
[metadata-defaults]
availability-zone = rack1a`,
    }));
  });

  let guests = 0;

  /** A guest that runs; its user-data is a file under its name. */
  async function boot(
    name: string,
    { userdata, metadata: own = {} }: { userdata?: string; metadata?: Record<string, string> } = {},
  ): Promise<Guest> {
    guests += 1;
    const home = join(folder, name);
    mkdirSync(home);
    if (userdata !== undefined) writeFileSync(join(folder, 'userdata', name), userdata);
    const xml = domainXml(guests, { name, metadata: own });
    writeFileSync(join(home, 'domain.xml'), xml);
    const upload = ['-sS', '--fail', '-H', 'Accept: application/json', '--data-binary'];
    const { stdout, stderr } = await host.run('curl', [
      ...upload,
      `@${home}/domain.xml`,
      `${metadata}/instance-upload`,
    ]);
    assert.equal(stderr, '');
    const ipv4: string = JSON.parse(stdout).mds_ipv4;
    const namespace = host.addGuest(mac(guests));
    namespace.ip(`address add ${ipv4}/16 dev eth0`);
    namespace.ip('route add default via 10.122.0.1');

    const run = async (program: string, ...args: string[]) => {
      const env = { PATH: '/usr/bin:/bin', HOME: home };
      const ended = await namespace.run(program, args, env);
      const shown = `${program} ${args.join(' ')}: ${ended.stdout}${ended.stderr}`;
      assert.equal(ended.status, 0, shown);
      return ended.stdout;
    };
    let seen = 0;
    let marks = 0;
    const requests = async () => {
      // Lines come in the order of the requests: behind this one's, none is outstanding.
      const mark = `/service/type?mark=${name}-${++marks}`;
      await run('curl', '-s', metadata + mark);
      await daemon.printed(mark);
      const line = / (\d+\.\d+\.\d+\.\d+) (\S+) ([A-Z]+) (\S+) (\d{3}) /;
      const all = daemon
        .output()
        .split('\n')
        .flatMap((text) => {
          const [, from, , method, path, status] = line.exec(text) ?? [];
          const counts = from === ipv4 && !path?.startsWith('/service/type?mark=');
          return counts ? [`${method} ${path} ${status}`] : [];
        });
      const since = all.slice(seen);
      seen = all.length;
      return since;
    };
    const shell = (line: string) => run('/bin/sh', '-c', line);
    return { name, ipv4, mac: mac(guests), run, shell, requests, folder: home };
  }

  // ---- Ignition: Fedora CoreOS, Flatcar ----

  function ignite({ run, folder: home }: Guest): Promise<string> {
    return run(
      ignition,
      ...['--platform', 'aws', '--stage', 'fetch', '--log-to-stdout', '--root', home],
      ...['--config-cache', `${home}/config.json`, '--state-file', `${home}/state.json`],
      ...['--neednet', `${home}/neednet`, '--fetch-timeout', '20s'],
    );
  }

  const ignitionRequests = (userdataStatus: number) => [
    // One token of Ignition's own, to see that there is a network; one of the AWS SDK for the
    // region; one for the configuration.
    'PUT /latest/api/token 200',
    'PUT /latest/api/token 200',
    'GET /latest/dynamic/instance-identity/document 200',
    'PUT /latest/api/token 200',
    `GET /2019-10-01/user-data ${userdataStatus}`,
  ];

  const configured = (guest: Guest) =>
    JSON.parse(readFileSync(`${guest.folder}/config.json`, 'utf8'));

  test('ignition fetches its configuration', { skip: missing('ignition') }, async () => {
    const user = { name: 'core', sshAuthorizedKeys: [key] };
    const userdata = JSON.stringify({ ignition: { version: '3.3.0' }, passwd: { users: [user] } });
    const guest = await boot('ignition', { userdata });
    const log = await ignite(guest);
    assert.match(log, /fetch: fetch passed/);
    assert.deepEqual(configured(guest).passwd, { users: [user] });
    assert.deepEqual(await guest.requests(), ignitionRequests(200));
  });

  test('ignition goes on where there is no user-data', {
    skip: missing('ignition'),
  }, async () => {
    const guest = await boot('bare', { metadata: { userdata_prefix: 'no-such-file' } });
    const log = await ignite(guest);
    assert.match(log, /GET result: Not Found/);
    assert.match(log, /Ignition finished successfully/);
    assert.deepEqual(configured(guest).passwd, {});
    assert.deepEqual(await guest.requests(), ignitionRequests(404));
  });

  test('ignition has tokens where they are required', {
    skip: missing('ignition'),
  }, async () => {
    const userdata = '{"ignition":{"version":"3.3.0"}}';
    const guest = await boot('strict', { userdata, metadata: { imds_tokens: 'required' } });
    await ignite(guest);
    assert.deepEqual(await guest.requests(), ignitionRequests(200));
  });

  // ---- AWS SDKs and the AWS command line ----

  test('botocore: no credentials without an error, the region, any path', {
    skip: missing('botocore'),
  }, async () => {
    const guest = await boot('botocore', { metadata: { imds_tokens: 'required' } });
    const said = JSON.parse(await guest.run(python, join(fixtures, 'botocore-metadata.py')));
    assert.deepEqual(said, {
      credentials: {},
      // The zone without its last letter: why availability-zone has to have one more.
      region: 'rack1',
      instance_id: `i-${guest.ipv4}`,
    });
    assert.deepEqual(await guest.requests(), [
      'PUT /latest/api/token 200',
      // The one thing that is missing: no role, and no further question.
      'GET /latest/meta-data/iam/security-credentials/ 404',
      'PUT /latest/api/token 200',
      'GET /latest/meta-data/placement/availability-zone/ 200',
      'PUT /latest/api/token 200',
      'GET /latest/meta-data/instance-id 200',
    ]);
  });

  test('aws: finds the region and no credentials', { skip: missing('aws') }, async () => {
    const guest = await boot('awscli');
    const lines = (await guest.run('aws', 'configure', 'list')).split('\n');
    const setting = (name: string) => lines.find((line) => line.trim().startsWith(name))?.trim();
    assert.match(setting('region') ?? '', /^region +rack1 +imds/);
    assert.match(setting('access_key') ?? '', /^access_key +<not set>/);
    assert.deepEqual(await guest.requests(), [
      'PUT /latest/api/token 200',
      'GET /latest/meta-data/iam/security-credentials/ 404',
      'PUT /latest/api/token 200',
      'GET /latest/meta-data/placement/availability-zone/ 200',
    ]);
  });

  async function sdk(guest: Guest, run: string): Promise<Record<string, string>> {
    return JSON.parse(await guest.run(process.execPath, join(fixtures, 'aws-sdk.mjs'), run));
  }

  test('@aws-sdk/ec2-metadata-service: with tokens (IMDSv2)', async () => {
    const guest = await boot('sdk-v2', { metadata: { imds_tokens: 'required' } });
    const { token, instanceId } = await sdk(guest, 'v2');
    assert.match(token ?? '', /^[A-Za-z0-9._-]+$/);
    assert.equal(instanceId, `i-${guest.ipv4}`);
    assert.deepEqual(await guest.requests(), [
      'PUT /latest/api/token 200',
      'PUT /latest/api/token 200',
      // It puts its path behind the slash of its address.
      'GET //latest/meta-data/instance-id 200',
    ]);
  });

  test('@aws-sdk/ec2-metadata-service: without tokens (IMDSv1)', async () => {
    const guest = await boot('sdk-v1');
    assert.deepEqual(await sdk(guest, 'v1'), { instanceId: `i-${guest.ipv4}` });
    assert.deepEqual(await guest.requests(), ['GET //latest/meta-data/instance-id 200']);
  });

  test('@aws-sdk/ec2-metadata-service: what is not there is asked for once', async () => {
    const guest = await boot('sdk-missing');
    const { message = '' } = await sdk(guest, 'missing');
    assert.match(message, /Request failed with status code 404$/);
    assert.deepEqual(await guest.requests(), [
      'PUT /latest/api/token 200',
      'GET //latest/meta-data/no-such-thing 404',
    ]);
  });

  test('@smithy/credential-provider-imds: no role is a clean failure', async () => {
    const guest = await boot('smithy', { metadata: { imds_tokens: 'required' } });
    assert.deepEqual(await sdk(guest, 'credentials'), {
      name: 'ProviderError',
      message: 'Error response received from instance metadata service',
    });
    assert.deepEqual(await guest.requests(), [
      'PUT /latest/api/token 200',
      'GET /latest/meta-data/iam/security-credentials/ 404',
    ]);
  });

  // ---- small clients ----

  test('ec2metadata (cloud-guest-utils) shows all that there is', {
    skip: missing('ec2metadata'),
  }, async () => {
    const guest = await boot('utils', {
      userdata: '#!/bin/sh\ntrue\n',
      metadata: { imds_tokens: 'required' },
    });
    const output = await guest.run('ec2metadata');
    assert.match(output, /^reservation-id: r-[0-9a-f]{17}$/m);
    assert.equal(
      output.replace(/^(reservation-id: ).*$/m, '$1ID'),
      `ami-id: ami-00000000000000000
ami-launch-index: 0
ami-manifest-path: (unknown)
ancestor-ami-ids: unavailable
availability-zone: rack1a
block-device-mapping: unavailable
instance-action: none
instance-id: i-${guest.ipv4}
instance-type: kvm.1cpu-1024mib
local-hostname: utils.example.net
local-ipv4: ${guest.ipv4}
kernel-id: unavailable
mac: ${guest.mac}
profile: default-hvm
product-codes: unavailable
public-hostname: unavailable
public-ipv4: unavailable
public-keys: ['${key}']
ramdisk-id: unavailable
reservation-id: ID
security-groups: default
user-data: b'#!/bin/sh\\ntrue\\n'
availability-zone-id: unavailable
region: rack1
host-id: unavailable
group-name: unavailable
partition-number: unavailable
`,
    );
    const requests = await guest.requests();
    assert.equal(requests[0], 'PUT /latest/api/token 200');
    const bad = requests.filter((line) => !line.endsWith(' 200'));
    // It asks for a fixed list of names, and takes 404 for "unavailable".
    const unavailable = [
      ...['ancestor-ami-ids', 'block-device-mapping', 'kernel-id', 'product-codes'],
      ...['public-hostname', 'public-ipv4', 'ramdisk-id', 'placement/availability-zone-id'],
      ...['placement/host-id', 'placement/group-name', 'placement/partition-number'],
    ];
    assert.deepEqual(
      bad,
      unavailable.map((name) => `GET /2009-04-04/meta-data/${name} 404`),
    );
    assert.equal(new Set(requests).size, requests.length, 'nothing is asked for twice');
  });

  const wget = `busybox wget -q -O -`;

  test('busybox wget, as cirros asks with it', { skip: missing('busybox') }, async () => {
    const guest = await boot('cirros', { userdata: '#!/bin/sh\necho hello\n' });
    const get = (path: string) => guest.shell(`${wget} ${metadata}/2009-04-04/${path}`);
    assert.equal(await get('meta-data/instance-id'), `i-${guest.ipv4}`);
    // Its ec2metadata cuts each line at the "=".
    assert.equal(await get('meta-data/public-keys'), '0=default');
    assert.equal(await get('meta-data/public-keys/0/openssh-key'), key);
    assert.equal(await get('meta-data/ami-launch-index'), '0');
    assert.equal(await get('meta-data/instance-type'), 'kvm.1cpu-1024mib');
    assert.equal(await get('meta-data/local-ipv4'), guest.ipv4);
    assert.equal(await get('meta-data/hostname'), 'cirros');
    assert.equal(await get('meta-data/local-hostname'), 'cirros.example.net');
    assert.equal(await get('user-data'), '#!/bin/sh\necho hello\n');
    assert.deepEqual(
      (await guest.requests()).filter((line) => !line.endsWith(' 200')),
      [],
    );
    // With no arguments it walks the listings, and an error at any line is its end.
    const walk = `
      walk() {
        for entry in $(${wget} "${metadata}/latest/meta-data/$1"); do
          case $entry in
            */) walk "$1$entry";;
            [0-9]=*) ${wget} "${metadata}/latest/meta-data/$1\${entry%%=*}" || exit 1;;
            *) ${wget} "${metadata}/latest/meta-data/$1$entry" >/dev/null || exit 1;;
          esac
        done
      }
      walk ''`;
    await guest.shell(walk);
    const walked = await guest.requests();
    assert.deepEqual(
      walked.filter((line) => !line.endsWith(' 200')),
      [],
    );
    assert.ok(walked.length > 30, `${walked.length} requests`);
  });

  // lib/tiny-cloud/cloud/aws/imds: the token by nc, since busybox wget knows no PUT.
  const tinyToken =
    "printf 'PUT /latest/api/token HTTP/1.0\\r\\nX-aws-ec2-metadata-token-ttl-seconds: 5\\r\\n\\r\\n'" +
    ` | busybox nc -w 1 169.254.169.254 80 | tail -n 1`;

  test('tiny-cloud on AWS: a token by nc and tail, wget with its header', {
    skip: missing('busybox'),
  }, async () => {
    const guest = await boot('tiny-aws', {
      userdata: '#!/bin/sh\necho tiny\n',
      metadata: { imds_tokens: 'required' },
    });
    const get = (path: string) =>
      guest.shell(
        `${wget} --header "X-aws-ec2-metadata-token: $(${tinyToken})" ${metadata}/${path}`,
      );
    assert.equal(await get('latest/user-data'), '#!/bin/sh\necho tiny\n');
    assert.equal(await get('latest/meta-data/hostname'), 'tiny-aws');
    assert.equal(await get('latest/meta-data/public-keys'), '0=default');
    assert.equal(await get('latest/meta-data/public-keys/0/openssh-key'), key);
    const macs = 'latest/meta-data/network/interfaces/macs';
    assert.equal(await get(`${macs}/${guest.mac}/local-ipv4s`), guest.ipv4);
    assert.equal(await get(`${macs}/${guest.mac}/subnet-ipv4-cidr-block`), '10.122.0.0/16');
    const requests = await guest.requests();
    assert.equal(requests.length, 12);
    assert.deepEqual(
      requests.filter((line) => !line.endsWith(' 200')),
      [],
    );
  });

  test('tiny-cloud with an empty token header, and NoCloud with doubled slashes', {
    skip: missing('busybox'),
  }, async () => {
    const userdata = '#!/bin/sh\necho tiny\n';
    const guest = await boot('tiny-nocloud', { userdata });
    const empty = `${wget} --header "X-aws-ec2-metadata-token: " ${metadata}/latest/user-data`;
    assert.equal(await guest.shell(empty), userdata);
    // s=http://169.254.169.254/nocloud/ and a slash before each name.
    const seed = (name: string) => guest.shell(`${wget} ${metadata}/nocloud//${name}`);
    assert.equal(
      await seed('meta-data'),
      `instance-id: "i-${guest.ipv4}"\nlocal-hostname: "tiny-nocloud.example.net"\npublic-keys:\n  - "${key}"\n`,
    );
    assert.equal(await seed('user-data'), userdata);
    assert.equal(await seed('vendor-data'), '');
    assert.equal(await seed('network-config'), '');
    assert.deepEqual(await guest.requests(), [
      'GET /latest/user-data 200',
      'GET /nocloud//meta-data 200',
      'GET /nocloud//user-data 200',
      'GET /nocloud//vendor-data 200',
      'GET /nocloud//network-config 200',
    ]);
  });

  test('curl in shell scripts, with and without a token, and over HTTP/1.0', async () => {
    const guest = await boot('scripts', { userdata: 'plain\n' });
    const script = `
      TOKEN=$(curl -sS -X PUT ${metadata}/latest/api/token -H 'X-aws-ec2-metadata-token-ttl-seconds: 21600')
      curl -sSf -H "X-aws-ec2-metadata-token: $TOKEN" ${metadata}/latest/meta-data/instance-id; echo
      curl -sSf -L ${metadata}/latest/meta-data/placement/region; echo
      curl -sSf -0 ${metadata}/latest/user-data
      curl -sSf --compressed ${metadata}/latest/meta-data/local-ipv4; echo
      curl -sSf -I ${metadata}/latest/user-data | grep -i content-length | tr -d '\\r'
      curl -sS -o /dev/null -w '%{http_code}\\n' -H 'X-aws-ec2-metadata-token: old' ${metadata}/latest/user-data`;
    assert.equal(
      await guest.shell(script),
      `i-${guest.ipv4}\nrack1\nplain\n${guest.ipv4}\ncontent-length: 6\n401\n`,
    );
    assert.deepEqual(await guest.requests(), [
      'PUT /latest/api/token 200',
      'GET /latest/meta-data/instance-id 200',
      'GET /latest/meta-data/placement/region 200',
      'GET /latest/user-data 200',
      'GET /latest/meta-data/local-ipv4 200',
      'HEAD /latest/user-data 200',
      'GET /latest/user-data 401',
    ]);
  });

  // cloudbase-init runs on Windows alone: these are its requests (ec2service.py, and
  // baseopenstackservice.py of httpservice), made by hand.
  test('the requests of cloudbase-init', async () => {
    const guest = await boot('windows', { userdata: '#ps1_sysnative\r\nhostname\r\n' });
    const get = (path: string) => guest.run('curl', '-sSf', `${metadata}/${path}`);
    assert.equal(await get('2009-04-04/meta-data/local-hostname'), 'windows.example.net');
    assert.equal(await get('2009-04-04/meta-data/instance-id'), `i-${guest.ipv4}`);
    const lines = (await get('2009-04-04/meta-data/public-keys')).split('\n');
    for (const line of lines) {
      // It takes a line apart at its one "=": an empty one behind the last would be an error.
      const [index, name, ...more] = line.split('=');
      assert.deepEqual([index, name, more], ['0', 'default', []]);
      assert.equal(await get(`2009-04-04/meta-data/public-keys/${index}/openssh-key`), key);
    }
    assert.equal(await get('2009-04-04/user-data'), '#ps1_sysnative\r\nhostname\r\n');

    const document = JSON.parse(await get('openstack/latest/meta_data.json'));
    assert.deepEqual(
      [document.uuid, document.hostname, Object.values(document.public_keys)],
      [document.uuid, 'windows.example.net', [key]],
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

// ---- user-data byte for byte ----

const server = '127.143.0.1';
const guestAddress = '127.143.0.11';

/** A daemon on loopback with one instance, "guest", whose user-data is in a file of its name. */
async function serveUserdata(t: TestContext): Promise<{ daemon: Daemon; file: string }> {
  const record = databaseRecord(1, { domain_name: 'guest', mds_ipv4: guestAddress });
  const { daemon, folder } = await startSite(t, server, { records: [record] });
  return { daemon, file: join(folder, 'userdata/guest') };
}

const script = '#!/bin/sh\necho "$HOME $x {y} \\"q\\" `id` \\\\ $((1+1))" \t \n\n';
const mime = [
  'Content-Type: multipart/mixed; boundary="==BOUNDARY=="',
  'MIME-Version: 1.0',
  '',
  '--==BOUNDARY==',
  'Content-Type: text/x-shellscript; charset="utf-8"',
  'Content-Transfer-Encoding: base64',
  '',
  Buffer.from(script).toString('base64'),
  '--==BOUNDARY==',
  'Content-Type: text/cloud-config',
  '',
  '#cloud-config',
  'runcmd: [ [ sh, -c, "echo % {% x %} {# y #}" ] ]',
  '--==BOUNDARY==--',
  '',
].join('\r\n');

const payloads: Record<string, string | Buffer> = {
  gzip: gzipSync(mime),
  'MIME multipart with CRLF': mime,
  'a script': script,
  'a script with no newline at its end': script.trimEnd(),
  '#include': '#include\nhttp://example.net/a?x={y}&z=%20\n# comment\nhttp://example.net/b\n',
  '#include-once, #cloud-boothook, #part-handler in CR alone': '#include-once\r#cloud-boothook\r',
  '## template: jinja':
    '## template: jinja\r\n#cloud-config\n{% if v1.x %}\na: {{ v1.y | default("{}") }}\n{% endif %}{# {{ #}\n',
  'blocks and comments of jinja in other files':
    '#cloud-config\n# {% if x %} {# y #} %wheel\n%wheel ALL\n',
  '1 MB of text': '#cloud-config\n# '.concat('0123456789abcdef {x} }} % $y \\\n'.repeat(32768)),
  '1 MB of bytes': Buffer.concat([Buffer.from([0x80]), randomBytes(1024 * 1024)]),
  'NUL and control characters': 'a\0b\x01\x1b[0m\x7f\n',
  'a byte-order mark': '\ufeff#cloud-config\n',
  'UTF-8 of all lengths': 'ä☃😀\u2028\u0085\ufffe\n',
  'Latin-1': Buffer.from('gr\xfc\xdfe {{ name }}\n', 'latin1'),
  'UTF-16': Buffer.from('\ufeff#ps1_sysnative\r\n', 'utf16le'),
  nothing: '',
};

test('user-data arrives byte for byte, by each of the three ways', async (t) => {
  const { daemon, file } = await serveUserdata(t);
  for (const [name, content] of Object.entries(payloads)) {
    await t.test(name, async () => {
      const expected = Buffer.from(content);
      writeFileSync(file, expected);
      for (const path of [
        '/latest/user-data',
        '/nocloud/user-data',
        '/openstack/latest/user_data',
      ]) {
        const { status, headers, body } = await daemon.ask(path, {
          from: guestAddress,
          headers: { 'accept-encoding': 'gzip, br', range: 'bytes=1-2' },
        });
        assert.equal(status, 200, `${name} ${path}`);
        // Not assert.deepEqual: it would print a megabyte.
        assert.ok(body.equals(expected), `${name} ${path}: ${body.length} of ${expected.length}`);
        assert.equal(headers['content-length'], String(expected.length));
        assert.equal(headers['content-type'], 'text/plain');
        assert.equal(headers['content-encoding'], undefined);
      }
    });
  }
});

test('double braces are the guest’s in a jinja template, ours elsewhere, and there is a way to have both', async (t) => {
  const { daemon, file } = await serveUserdata(t);
  const get = async (content: string) => {
    writeFileSync(file, content);
    const { status, text } = await daemon.ask('/latest/user-data', { from: guestAddress });
    return { status, text };
  };
  const other = '#cloud-config\nhostname: {{ v1.local_hostname }}\n';
  assert.deepEqual(await get(other), { status: 500, text: 'internal error, see the log\n' });
  await daemon.printed(`${file}:2: unknown name "v1" in {{v1.local_hostname}}: `);

  const jinja = '## template: jinja\n#cloud-config\nhostname: {{ v1.local_hostname }}\n';
  assert.deepEqual(await get(jinja), { status: 200, text: jinja });

  // A first line that we print makes the file ours; braces for the guest are printed, too.
  const both = `{{'## template: jinja'}}
#cloud-config
hostname: {{'{{'}} v1.local_hostname }}
name: {{hostname}}
`;
  assert.deepEqual(await get(both), { status: 200, text: `${jinja}name: guest\n` });
});
