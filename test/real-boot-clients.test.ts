import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { before, describe, test } from 'node:test';
import type { InstanceDetails } from '../src/control/api.js';
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
import { ignition, missing } from './support/parts.js';

// What images other than those with cloud-init ask for when they boot, by the programs themselves
// or by their requests.

describe('what an image configures itself with', { skip: missing('netns', 'curl') }, () => {
  const scope = suiteScope();
  let site: ClientSite;
  let boot: ClientSite['boot'];

  before(async () => {
    site = await startClientSite(scope);
    ({ boot } = site);
  });

  // ---- Ignition: Fedora CoreOS, Flatcar ----

  function ignite({ run, folder: home }: ClientGuest): Promise<string> {
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

  const configured = (guest: ClientGuest) =>
    JSON.parse(readFileSync(`${guest.folder}/config.json`, 'utf8'));

  test('ignition fetches its configuration', { skip: missing('ignition') }, async () => {
    const user = { name: 'core', sshAuthorizedKeys: [guestKey] };
    const userdata = JSON.stringify({ ignition: { version: '3.3.0' }, passwd: { users: [user] } });
    const guest = await boot('ignition', { userdata });
    const log = await ignite(guest);
    assert.match(log, /fetch: fetch passed/);
    assert.deepEqual(configured(guest).passwd, { users: [user] });
    assert.deepEqual(await guest.requests(), ignitionRequests(200));
  });

  test('ignition ends with the built-in template, and the log says why', {
    skip: missing('ignition'),
  }, async () => {
    const guest = await boot('plain');
    await assert.rejects(ignite(guest), /config is not valid/);
    assert.deepEqual(await guest.requests(), ignitionRequests(200));
    await site.daemon.printed(
      'plain: its client is Ignition, and its user-data from the built-in template is no configuration of Ignition: give it one, or userdata = none in the metadata of its domain',
    );
    const { body } = await site.json('/instances/plain');
    assert.equal((body as InstanceDetails).boots[0]?.userdata?.not_ignition, true);
  });

  test('ignition goes on where there is no user-data', {
    skip: missing('ignition'),
  }, async () => {
    const guest = await boot('bare', { metadata: { userdata: 'none' } });
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
  const wget = `busybox wget -q -O -`;

  test('busybox wget, as cirros asks with it', { skip: missing('busybox') }, async () => {
    const guest = await boot('cirros', { userdata: '#!/bin/sh\necho hello\n' });
    const get = (path: string) => guest.shell(`${wget} ${metadataUrl}/2009-04-04/${path}`);
    assert.equal(await get('meta-data/instance-id'), `i-${guest.ipv4}`);
    // Its ec2metadata cuts each line at the "=".
    assert.equal(await get('meta-data/public-keys'), '0=default');
    assert.equal(await get('meta-data/public-keys/0/openssh-key'), guestKey);
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
        for entry in $(${wget} "${metadataUrl}/latest/meta-data/$1"); do
          case $entry in
            */) walk "$1$entry";;
            [0-9]=*) ${wget} "${metadataUrl}/latest/meta-data/$1\${entry%%=*}" || exit 1;;
            *) ${wget} "${metadataUrl}/latest/meta-data/$1$entry" >/dev/null || exit 1;;
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
        `${wget} --header "X-aws-ec2-metadata-token: $(${tinyToken})" ${metadataUrl}/${path}`,
      );
    assert.equal(await get('latest/user-data'), '#!/bin/sh\necho tiny\n');
    assert.equal(await get('latest/meta-data/hostname'), 'tiny-aws');
    assert.equal(await get('latest/meta-data/public-keys'), '0=default');
    assert.equal(await get('latest/meta-data/public-keys/0/openssh-key'), guestKey);
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
    const empty = `${wget} --header "X-aws-ec2-metadata-token: " ${metadataUrl}/latest/user-data`;
    assert.equal(await guest.shell(empty), userdata);
    // s=http://169.254.169.254/nocloud/ and a slash before each name.
    const seed = (name: string) => guest.shell(`${wget} ${metadataUrl}/nocloud//${name}`);
    assert.equal(
      await seed('meta-data'),
      `instance-id: "i-${guest.ipv4}"\nlocal-hostname: "tiny-nocloud.example.net"\nhostname: "tiny-nocloud.example.net"\npublic-keys:\n  - "${guestKey}"\n`,
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

  // ---- Programs that do not run here, and those of test/clients: their requests, in their order ----

  const script = '#!/bin/sh\necho replayed\n';
  const afterburn = (at: string, ipv4: string): ReplayedRequest[] => [
    [`${at}/instance-id`, `i-${ipv4}`],
    [`${at}/instance-type`, 'kvm.1cpu-1024mib'],
    [`${at}/local-ipv4`, ipv4],
    [`${at}/public-ipv4`, 404],
  ];
  const keys = (at: string): ReplayedRequest[] => [
    [`${at}/public-keys`, '0=default'],
    [`${at}/public-keys/0/openssh-key`, guestKey],
  ];

  /** What each asks for after its token, if it takes one. */
  const programs: Record<
    string,
    { token: boolean; requests: (ipv4: string) => ReplayedRequest[] }
  > = {
    afterburn: {
      token: true,
      requests: (ipv4) => [
        ...afterburn('/2021-01-03/meta-data', ipv4),
        ['/2021-01-03/meta-data/ipv6', 404],
        ['/2021-01-03/meta-data/placement/availability-zone', 'rack1a'],
        ['/2021-01-03/meta-data/placement/availability-zone-id', 404],
        ['/2021-01-03/meta-data/hostname', 'afterburn'],
        ['/2021-01-03/meta-data/public-hostname', 404],
        ...keys('/2021-01-03/meta-data'),
      ],
    },
    'afterburn-openstack': {
      token: false,
      requests: (ipv4) => [
        ['/latest/meta-data/hostname', 'afterburn-openstack'],
        ...afterburn('/latest/meta-data', ipv4),
        ...keys('/latest/meta-data'),
      ],
    },
    'ignition-openstack': {
      token: false,
      requests: () => [['/openstack/latest/user_data', script]],
    },
    'coreos-cloudinit': {
      token: true,
      requests: (ipv4) => [
        ['/2009-04-04/', 'meta-data/\nuser-data\ndynamic/'],
        ...keys('/2009-04-04/meta-data'),
        ['/2009-04-04/meta-data/hostname', 'coreos-cloudinit'],
        ['/2009-04-04/meta-data/local-ipv4', ipv4],
        ['/2009-04-04/meta-data/public-ipv4', 404],
        ['/2009-04-04/user-data', script],
      ],
    },
    'nixos-amazon': {
      token: true,
      requests: (ipv4) => [
        ['/latest/meta-data/instance-id', `i-${ipv4}`],
        ['/latest/meta-data/ami-manifest-path', '(unknown)'],
        ['/latest/user-data', script],
        ['/latest/meta-data/hostname', 'nixos-amazon'],
        ['/latest/meta-data/public-keys/0/openssh-key', guestKey],
      ],
    },
    'nixos-openstack': {
      token: false,
      requests: () => [
        ['/1.0/meta-data/ami-manifest-path', '(unknown)'],
        ['/1.0/user-data', script],
        ['/1.0/meta-data/hostname', 'nixos-openstack'],
        ['/1.0/meta-data/public-keys/0/openssh-key', guestKey],
      ],
    },
    'talos-aws': {
      token: true,
      requests: (ipv4) => [
        ['/latest/user-data', script],
        ['/latest/meta-data/hostname', 'talos-aws'],
        ['/latest/meta-data/instance-type', 'kvm.1cpu-1024mib'],
        ['/latest/meta-data/instance-life-cycle', 'on-demand'],
        ['/latest/meta-data/instance-id', `i-${ipv4}`],
        ['/latest/meta-data/public-ipv4', 404],
        ['/latest/meta-data/ipv6', 404],
        ['/latest/meta-data/placement/region', 'rack1'],
        ['/latest/meta-data/placement/availability-zone', 'rack1a'],
      ],
    },
    'talos-nocloud': {
      token: false,
      requests: (ipv4) => [
        [
          '/nocloud/meta-data',
          `instance-id: "i-${ipv4}"\nlocal-hostname: "talos-nocloud.example.net"\nhostname: "talos-nocloud.example.net"\npublic-keys:\n  - "${guestKey}"\n`,
        ],
        ['/nocloud/network-config', ''],
        ['/nocloud/user-data', script],
      ],
    },
    'systemd-imds': {
      token: true,
      requests: () => [
        ['/latest/meta-data/public-ipv4', 404],
        ['/latest/meta-data/ipv6', 404],
        ['/latest/meta-data/hostname', 'systemd-imds'],
        ['/latest/meta-data/public-keys/0/openssh-key', guestKey],
        ['/latest/user-data', script],
      ],
    },
  };

  for (const [name, { token, requests }] of Object.entries(programs)) {
    test(`what ${name} asks for has the right answers`, async () => {
      const metadata = token ? { imds_tokens: 'required' } : {};
      const guest = await boot(name, { userdata: script, metadata });
      await replay(guest, requests(guest.ipv4), token);
    });
  }
});
