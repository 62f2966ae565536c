import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { suiteScope } from './support/cleanup.js';
import {
  type ClientGuest,
  type ClientSite,
  guestKey,
  metadataUrl,
  type ReplayedRequest,
  replay,
  startClientSite,
} from './support/client-site.js';
import { repository } from './support/daemon.js';
import { missing, python } from './support/parts.js';

// Programs that others wrote for EC2, in a guest.

const fixtures = join(repository, 'test/fixtures/clients');

describe('tools for EC2 in a guest', { skip: missing('netns', 'curl') }, () => {
  const scope = suiteScope();
  let boot: ClientSite['boot'];

  before(async () => {
    ({ boot } = await startClientSite(scope));
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

  async function sdk(guest: ClientGuest, run: string): Promise<Record<string, string>> {
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
public-keys: ['${guestKey}']
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
  const notServed = (lines: readonly string[]) => lines.filter((line) => !line.endsWith(' 200'));

  test('ec2-metadata (amazon-ec2-utils) shows all that there is, and asks for nothing twice', {
    skip: missing('ec2-metadata'),
  }, async () => {
    const guest = await boot('amazon', {
      userdata: '#!/bin/sh\ntrue\n',
      metadata: { imds_tokens: 'required' },
    });
    const output = await guest.run('ec2-metadata');
    assert.match(output, new RegExp(`^instance-id: i-${guest.ipv4}$`, 'm'));
    assert.match(
      output,
      /^public-keys: \nkeyname:default\nindex:0\nformat:openssh-key\nkey:.*\nssh-/m,
    );
    assert.match(output, /^user-data: #!\/bin\/sh\ntrue\n/m);
    const requests = await guest.requests();
    assert.equal(new Set(requests).size, requests.length);
    const absent = ['ancestor-ami-ids', 'block-device-mapping/', 'kernel-id', 'product-codes'];
    assert.deepEqual(notServed(requests), [
      ...absent.map((name) => `GET /latest/meta-data/${name} 404`),
      'GET /latest/meta-data/public-hostname 404',
      'GET /latest/meta-data/public-ipv4 404',
      'GET /latest//meta-data/ramdisk-id 404',
      'GET /latest/meta-data/tags/instance/ 404',
    ]);
  });

  test('ohai (Chef) takes the versions from the list, and has all of the tree', {
    skip: missing('ohai'),
  }, async () => {
    const guest = await boot('ohai', { metadata: { imds_tokens: 'required' } });
    // It takes a guest for one of EC2 by Amazon's BIOS, or by this file.
    const hints = join(guest.folder, 'hints');
    mkdirSync(hints);
    writeFileSync(join(hints, 'ec2.json'), '{}');
    const settings = join(guest.folder, 'ohai.rb');
    writeFileSync(settings, `ohai.hints_path = ['${hints}']\n`);
    const found = JSON.parse(await guest.run('ohai', '-c', settings, 'ec2'));
    assert.deepEqual(
      [found.instance_id, found.public_keys_0_openssh_key, found.account_id, found.region],
      [`i-${guest.ipv4}`, guestKey, '000000000000', 'rack1'],
    );
    assert.equal(found.network_interfaces_macs[guest.mac].local_ipv4s, guest.ipv4);
    assert.equal(found.userdata, '#cloud-config\nmanage_etc_hosts: true\n');
    const requests = await guest.requests();
    assert.deepEqual(requests.slice(0, 3), [
      'PUT /latest/api/token 200',
      'GET / 200',
      // The newest that it knows of those that are listed.
      'GET /2019-10-01/meta-data/ 200',
    ]);
    assert.deepEqual(notServed(requests), []);
    assert.equal(new Set(requests).size, requests.length);
  });

  test('facter (Puppet) has all of the tree', { skip: missing('facter') }, async () => {
    const guest = await boot('facter', { metadata: { imds_tokens: 'required', color: 'red' } });
    const facts = JSON.parse(await guest.run('ruby', join(fixtures, 'facter.rb')));
    assert.deepEqual(
      [facts.metadata['instance-id'], facts.metadata['public-keys'], facts.metadata.tags],
      [`i-${guest.ipv4}`, { 0: { 'openssh-key': guestKey } }, { instance: { color: 'red' } }],
    );
    assert.equal(facts.userdata, '#cloud-config\nmanage_etc_hosts: true');
    const requests = await guest.requests();
    assert.deepEqual(notServed(requests), []);
    assert.equal(new Set(requests).size, requests.length);
  });

  // amazon-ec2-net-utils tries ten times for each value that is missing (setup-policy-routes of 2.3.0),
  // but for prefixes: with these, it does not wait.
  test('what amazon-ec2-net-utils asks for when an interface starts is there', async () => {
    const guest = await boot('netutils', { metadata: { imds_tokens: 'required' } });
    const token = `$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' ${metadataUrl}/latest/api/token)`;
    const get = (key: string) =>
      guest.shell(
        `curl -sf -H "X-aws-ec2-metadata-token:${token}" ${metadataUrl}/latest/meta-data/${key}`,
      );
    const macs = `network/interfaces/macs/${guest.mac}`;
    assert.equal(await get('mac'), guest.mac);
    // The first interface, with the address of `mac`: it adds no rules.
    assert.equal(await get(`${macs}/device-number`), '0');
    assert.match(await get(`${macs}/interface-id`), /^eni-[0-9a-f]{17}$/);
    // The first line is the address itself; more would be aliases.
    assert.equal(await get(`${macs}/local-ipv4s`), guest.ipv4);
    assert.deepEqual(notServed(await guest.requests()), []);
  });

  const document = /^\{\n {2}"accountId": "000000000000",\n[\s\S]*\n {2}"region": "rack1",\n/;

  /** What programs ask for that do not run here, after their token, if they take one. */
  const programs: Record<
    string,
    { token: boolean; requests: (guest: ClientGuest) => ReplayedRequest[] }
  > = {
    // client/fingerprint/env_aws.go, by the AWS SDK for Go. Its order is that of a map.
    nomad: {
      token: true,
      requests: ({ ipv4, mac }) => [
        ['/latest/meta-data/ami-id', 'ami-00000000000000000'],
        ['/latest/meta-data/hostname', 'nomad'],
        ['/latest/meta-data/instance-id', `i-${ipv4}`],
        ['/latest/meta-data/instance-life-cycle', 'on-demand'],
        ['/latest/meta-data/instance-type', 'kvm.1cpu-1024mib'],
        ['/latest/meta-data/local-hostname', 'nomad.example.net'],
        ['/latest/meta-data/local-ipv4', ipv4],
        ['/latest/meta-data/mac', mac],
        ['/latest/meta-data/placement/availability-zone', 'rack1a'],
        ['/latest/meta-data/public-hostname', 404],
        ['/latest/meta-data/public-ipv4', 404],
        [`/latest/meta-data/network/interfaces/macs/${mac}/ipv6s`, 404],
      ],
    },
    // telegraf's plugins/processors/aws/ec2/ec2.go, and internal/aws/ec2/ec2.go of OpenTelemetry's detector.
    'telegraf-and-opentelemetry': {
      token: true,
      requests: ({ ipv4 }) => [
        ['/latest/meta-data/instance-id', `i-${ipv4}`],
        ['/latest/dynamic/instance-identity/document', document],
        ['/latest/meta-data/hostname', 'telegraf-and-opentelemetry'],
      ],
    },
    // pkg/util/ec2/ec2.go of the Datadog agent
    datadog: {
      token: false,
      requests: ({ ipv4, mac }) => [
        ['/latest/meta-data/hostname', 'datadog'],
        ['/latest/meta-data/instance-id', `i-${ipv4}`],
        ['/latest/meta-data/local-ipv4', ipv4],
        ['/latest/meta-data/network/interfaces/macs', `${mac}/`],
        [`/latest/meta-data/network/interfaces/macs/${mac}/vpc-id`, /^vpc-[0-9a-f]{17}$/],
      ],
    },
    // common/identity/availableidentities/ec2/ec2_identity.go of the SSM agent, up to the credentials.
    ssm: {
      token: true,
      requests: ({ ipv4 }) => [
        ['/latest/meta-data/instance-id', `i-${ipv4}`],
        ['/latest/meta-data/placement/region', 'rack1'],
        ['/latest/meta-data/iam/security-credentials/', 404],
        ['/latest/meta-data/identity-credentials/ec2/security-credentials/ec2-instance', 404],
      ],
    },
    // salt/grains/metadata.py walks on from what these list.
    salt: {
      token: false,
      requests: () => [
        ['/latest/', 'meta-data/\nuser-data\ndynamic/'],
        ['/latest/meta-data/', /^ami-id\n/],
        ['/latest/user-data', '#cloud-config\nmanage_etc_hosts: true\n'],
        ['/latest/meta-data/public-keys/0', 'openssh-key'],
        ['/latest/dynamic/instance-identity/document', document],
      ],
    },
  };

  for (const [name, { token, requests }] of Object.entries(programs)) {
    test(`what ${name} asks for has the right answers`, async () => {
      const guest = await boot(name, { metadata: token ? { imds_tokens: 'required' } : {} });
      await replay(guest, requests(guest), token);
    });
  }

  test('curl in shell scripts, with and without a token, and over HTTP/1.0', async () => {
    const guest = await boot('scripts', { userdata: 'plain\n' });
    const script = `
      TOKEN=$(curl -sS -X PUT ${metadataUrl}/latest/api/token -H 'X-aws-ec2-metadata-token-ttl-seconds: 21600')
      curl -sSf -H "X-aws-ec2-metadata-token: $TOKEN" ${metadataUrl}/latest/meta-data/instance-id; echo
      curl -sSf -L ${metadataUrl}/latest/meta-data/placement/region; echo
      curl -sSf -0 ${metadataUrl}/latest/user-data
      curl -sSf --compressed ${metadataUrl}/latest/meta-data/local-ipv4; echo
      curl -sSf -I ${metadataUrl}/latest/user-data | grep -i content-length | tr -d '\\r'
      curl -sS -o /dev/null -w '%{http_code}\\n' -H 'X-aws-ec2-metadata-token: old' ${metadataUrl}/latest/user-data`;
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
});
