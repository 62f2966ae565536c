import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Scope, temporaryFolder } from './cleanup.js';
import { type Host, hostOf, program, run } from './ctl.js';

/** What Python's system-integration.sh installs, with the network `lab` and units of the operator's own names. */
export const labHost = {
  'etc/mdserver/mdserver.conf':
    '[mdserver]\nuserdata_suffixes = :.yaml\n\n[dnsmasq]\nuser = nobody\nnet_name = lab\ngateway = 10.122.0.1\n',
  'etc/mdserver/userdata/web1': '#cloud-config\nhostname: {{hostname}}\n',
  'etc/systemd/system/mdserver.service':
    '[Service]\nTimeoutSec=60\nExecStart=/opt/venv/bin/mdserver /etc/mdserver/mdserver.conf\nRestart=on-failure\n',
  'etc/systemd/system/lab-dhcp.service':
    '[Service]\nExecStart=/usr/sbin/dnsmasq \\\n  --keep-in-foreground \\\n# its own\n  -C /var/lib/mdserver/dnsmasq/lab.conf\n',
  'etc/systemd/system/lab-dhcp.path':
    '[Path]\nPathExists=/var/lib/mdserver/dnsmasq/lab.conf\nUnit=lab-dhcp.service\n',
  'etc/systemd/system/other-dhcp.service':
    '[Service]\nExecStart=/usr/sbin/dnsmasq --conf-file=/etc/other/other.conf\n',
  'etc/libvirt/hooks/qemu':
    '#!/bin/bash\nlogger -t \'qemu-hook\' "$1"\ncurl -s -d @- "http://169.254.169.254/instance-upload"\n',
  'usr/local/bin/mdserver': '#!/usr/bin/python3\nimport mdserver.server\n',
};

/** A new prefix with these files. */
export function layHost(scope: Scope, files: Readonly<Record<string, string>>): string {
  const prefix = temporaryFolder(scope);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(prefix, path)), { recursive: true });
    writeFileSync(join(prefix, path), text);
  }
  return prefix;
}

/** The lines of `mdserverctl migrate`, without the prefix. */
export async function migrated(
  prefix: string,
  ...args: string[]
): Promise<{ status: number; lines: string[] }> {
  const file = join(prefix, 'etc/mdserver/mdserver.conf');
  const { status, stdout } = await run(process.execPath, [program, 'migrate', ...args, file], '', {
    PREFIX: prefix,
  });
  return { status, lines: stdout.replaceAll(prefix, '').split('\n').slice(0, -1) };
}

/**
 * What mdserver leaves of a host that had the Python md_server: a guest from then and one that
 * came later.
 */
export async function leaveHost(scope: Scope): Promise<Host & { database: string }> {
  const host = hostOf(scope);
  mkdirSync(join(host.folder, 'data'));
  const old = {
    domain_name: 'old',
    domain_uuid: 'ad0e1f2a-b581-4ecd-b60e-a9942ad18879',
    domain_metadata: {},
    mds_mac: '52:54:00:3a:cf:02',
    mds_ipv4: '127.77.0.5',
    mds_ipv6: null,
    location: 'lab',
    first_seen: 1,
    last_update: 2,
  };
  const database = host.write(
    'data/db_file.json',
    JSON.stringify({ metadata: { locations: {} }, entries: [old] }, null, 4),
  );
  const daemon = await host.start();
  const xml = host.write(
    'new.xml',
    `<domain type='kvm'><name>n\u00e4w</name><uuid>bd0e1f2a-b581-4ecd-b60e-a9942ad18879</uuid>
      <metadata xmlns:mdserver='urn:mdserver'>
        <mdserver:ipv4>127.77.0.9</mdserver:ipv4><mdserver:role kind='x'>web</mdserver:role>
      </metadata>
      <devices><interface type='network'><mac address='52:54:00:3a:cf:09'/><source network='mds'/>
      </interface></devices></domain>`,
  );
  const uploaded = await host.ctl('upload', xml);
  assert.equal(uploaded.status, 0, uploaded.stderr);
  await daemon.stop();
  return { ...host, database };
}
