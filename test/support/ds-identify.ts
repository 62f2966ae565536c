import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { temporaryFolder } from './cleanup.js';
import { dsIdentify } from './parts.js';

/** Files of `/sys/class/dmi/id`, as the kernel fills them from SMBIOS. */
export type Smbios = Partial<
  Record<
    'sys_vendor' | 'product_name' | 'product_serial' | 'product_uuid' | 'chassis_asset_tag',
    string
  >
>;

/** What QEMU says where nothing is set in the domain. */
export const plainGuest: Smbios = {
  sys_vendor: 'QEMU',
  product_name: 'Standard PC (Q35 + ICH9, 2009)',
  product_serial: '',
  product_uuid: '8f1b3b52-6a0e-4c57-9d0c-3f3c2b1a7e10',
  chassis_asset_tag: '',
};

export interface Identified {
  /** 0: cloud-init runs; 1: it is switched off for this boot. */
  readonly status: number | null;
  /** What it wrote for cloud-init to read, line by line. */
  readonly written: readonly string[];
  readonly stderr: string;
}

/**
 * What ds-identify makes of a guest; `cloudConfig` is a file of the image's `cloud.cfg.d`, `kernel` is
 * more of the kernel's command line, `program` another one than Debian's.
 */
export function identify(
  t: TestContext,
  smbios: Smbios,
  cloudConfig = '',
  kernel = '',
  program = dsIdentify,
): Identified {
  const root = temporaryFolder(t);
  const put = (path: string, content: string, mode = 0o644) => {
    const file = join(root, path);
    mkdirSync(join(file, '..'), { recursive: true });
    writeFileSync(file, content, { mode });
  };
  for (const [name, value] of Object.entries({ ...plainGuest, ...smbios })) {
    put(`sys/class/dmi/id/${name}`, `${value}\n`);
  }
  put('proc/cmdline', `BOOT_IMAGE=/vmlinuz root=/dev/vda1 ro ${kernel}\n`);
  put('proc/1/environ', '');
  put('proc/uptime', '3.1 1.0\n');
  put('etc/cloud/cloud.cfg.d/90_dpkg.cfg', cloudConfig);
  // Nothing of the machine that this runs on may come in.
  put('bin/systemd-detect-virt', '#!/bin/sh\necho kvm\n', 0o755);
  put('bin/blkid', '#!/bin/sh\necho DEVNAME=/dev/vda1\necho LABEL=root\necho TYPE=ext4\n', 0o755);
  // Up to 24.0 it is asked for six words, from then on for three (-svm).
  const uname =
    '[ "$1" = -svm ] && echo Linux v1 x86_64 || echo Linux guest 6.1.0 v1 x86_64 GNU/Linux';
  put('bin/uname', `#!/bin/sh\n${uname}\n`, 0o755);
  const { status, stderr } = spawnSync(program, ['--force'], {
    env: { PATH: `${root}/bin:/usr/bin:/bin`, PATH_ROOT: root, DEBUG_LEVEL: '2' },
    encoding: 'utf8',
  });
  const written = readFileSync(join(root, 'run/cloud-init/cloud.cfg'), 'utf8').trim().split('\n');
  return { status, written, stderr };
}
