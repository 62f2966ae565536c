import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Scope, temporaryFolder } from './cleanup.js';
import { program, run } from './ctl.js';

/** What Python's system-integration.sh installs, with the network `lab` and units of the operator's own names. */
export const labHost = {
  'etc/mdserver/mdserver.conf':
    '[mdserver]\nuserdata_suffixes = :.yaml\n\n[dnsmasq]\nuser = nobody\nnet_name = lab\ngateway = 10.122.0.1\n',
  'etc/mdserver/userdata/web1': '#cloud-config\nhostname: {{hostname}}\n',
  'etc/systemd/system/mdserver.service':
    '[Service]\nTimeoutSec=60\nExecStart=/opt/venv/bin/mdserver /etc/mdserver/mdserver.conf\nRestart=on-failure\n',
  'etc/systemd/system/lab-dhcp.service':
    '[Service]\nExecStart=/usr/sbin/dnsmasq \\\n  --keep-in-foreground \\\n  -C /var/lib/mdserver/dnsmasq/lab.conf\n',
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
