import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { repository } from './daemon.js';
import { addHost, type Namespace } from './netns.js';
import { python } from './parts.js';
import { type Setup, type Site, startSite } from './site.js';

const metadataService = '169.254.169.254';

/** The instance that asks. */
export const web1 = {
  domain_name: 'web1',
  domain_uuid: 'ec2f4d2a-3b1c-4e5f-8a9b-0c1d2e3f4a5b',
  domain_metadata: {},
  mds_mac: '52:54:00:12:34:56',
  mds_ipv4: '10.122.7.8',
  location: 'host1',
};

export interface GuestSetup extends Setup {
  /** Fields of the instance's record that are not as `web1` has them. */
  readonly record?: Readonly<Record<string, unknown>>;
  /** The guest's address, where it is not the instance's. */
  readonly address?: string;
}

export interface GuestSite extends Site {
  readonly guest: Namespace;
  /** The requests of the guest up to now: method, path and status, in order. */
  readonly requests: () => Promise<string[]>;
}

/** A host with mdserver, and a guest with its address set and the way to the metadata. */
export async function startGuest(t: TestContext, setup: GuestSetup = {}): Promise<GuestSite> {
  const host = addHost(t);
  const guest = host.addGuest(web1.mds_mac);
  const address = setup.address ?? web1.mds_ipv4;
  guest.ip(`address add ${address}/16 dev eth0`);
  guest.ip(`route add ${metadataService}/32 via 10.122.0.1`);

  const { record, address: _address, ...others } = setup;
  const site = await startSite(t, host, {
    ...others,
    records: [{ ...web1, ...record }],
    dnsmasq: 'domain = example.net',
  });
  const { daemon } = site;

  let questions = 0;
  return {
    ...site,
    guest,
    requests: async () => {
      // When a last request is in the log, so are all before it.
      const last = `/service/name?${++questions}`;
      await guest.run('curl', ['--silent', `http://${metadataService}${last}`]);
      await daemon.printed(`GET ${last} 200`);
      return daemon
        .output()
        .split('\n')
        .map((line) => /(?:GET|PUT|HEAD|POST) \/\S* \d{3} /.exec(line)?.[0].trim())
        .filter((request) => request !== undefined)
        .filter((request) => !request.includes('/service/name?'));
    },
  };
}

/**
 * Runs a script of test/fixtures/cloud-init in a guest, and gives the JSON that it prints. The
 * cloud-init is Debian's, or the one in a folder that `env` names in PYTHONPATH.
 */
export async function runCloudInitWith(
  env: Readonly<Record<string, string>>,
  guest: Namespace,
  script: string,
  ...args: string[]
): Promise<{ readonly answer: unknown; readonly log: string }> {
  const file = join(repository, 'test/fixtures/cloud-init', script);
  // None of the caller's own settings (proxies).
  // What the guest is must not become of this machine: boot.py needs these namespaces, too.
  const command = ['--mount', '--uts', python, file, ...args];
  const { status, stdout, stderr } = await guest.run('unshare', command, {
    PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
    LC_ALL: 'C.UTF-8',
    PYTHONDONTWRITEBYTECODE: '1',
    ...env,
  });
  assert.equal(status, 0, stderr);
  return { answer: JSON.parse(stdout), log: stderr };
}

/** The same with Debian's cloud-init. */
export function runCloudInit(guest: Namespace, script: string, ...args: string[]) {
  return runCloudInitWith({}, guest, script, ...args);
}
