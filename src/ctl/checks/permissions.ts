import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { dnsmasqLogPath } from '../../boots/dhcp-log.js';
import { lastGoodFile } from '../../config/last-good.js';
import type { Config } from '../../config/options.js';
import { detailsFile } from '../../instances/json-file.js';
import { keptTemplatesFolder } from '../../userdata/kept.js';
import { listed } from '../output.js';
import { exists, statIfPresent } from './files.js';
import { type Finding, findingsOf, isDenied, notChecked } from './finding.js';

interface PermissionRule {
  readonly path: string;
  /** The permission bits that it must not have. */
  readonly forbidden: number;
  readonly reason: string;
}

function octal(mode: number): string {
  return (mode & 0o7777).toString(8).padStart(4, '0');
}

/** Whether other users can read or write files that they must not. */
export function* checkPermissions(
  config: Config,
  files: readonly string[],
  socket: string,
): Generator<Finding> {
  const { ok, warning, failure } = findingsOf('permissions');
  const { db_file, logfile, userdata_dir, default_template, vendor_data, password } =
    config.mdserver;
  const notWritable = (path: string, reason: string): PermissionRule => ({
    path,
    forbidden: 0o002,
    reason,
  });
  const unseen: string[] = [];
  /** What the function gives; undefined if this user may not look there. */
  function seen<T>(path: string, look: (path: string) => T): T | undefined {
    try {
      return look(path);
    } catch (error) {
      if (!isDenied(error)) throw error;
      unseen.push(path);
      return undefined;
    }
  }
  const names = seen(userdata_dir, (path) => (exists(path) ? readdirSync(path) : [])) ?? [];
  const templates = [
    userdata_dir,
    ...names.map((name) => join(userdata_dir, name)),
    default_template,
    vendor_data,
  ].filter((path) => path !== undefined);
  const rules: PermissionRule[] = [
    {
      path: join(dirname(db_file), 'token.key'),
      forbidden: 0o077,
      reason: 'anyone who can read it can forge session tokens',
    },
    {
      path: lastGoodFile(dirname(db_file)),
      forbidden: 0o077,
      reason: 'it may contain mdserver.password',
    },
    {
      path: join(dirname(db_file), 'debug-userdata'),
      forbidden: 0o077,
      reason: 'user-data contains passwords and keys',
    },
    {
      path: keptTemplatesFolder(db_file),
      forbidden: 0o077,
      reason:
        'it has templates, which are code, and the passwords and keys that they rendered with',
    },
    ...[db_file, detailsFile(db_file), logfile, dnsmasqLogPath(config)].map((path) => ({
      path,
      forbidden: 0o137,
      reason: 'it has names, addresses and metadata of guests',
    })),
    notWritable(dirname(db_file), 'anyone can replace the database'),
    notWritable(config.dnsmasq.base_dir, 'anyone can change what dnsmasq does'),
    { path: socket, forbidden: 0o007, reason: 'it is for root and the group mdserver only' },
    ...templates.map((path) => notWritable(path, 'templates are code that mdserver runs')),
    ...files.map((path) =>
      password === undefined
        ? notWritable(path, 'anyone can change what mdserver runs')
        : { path, forbidden: 0o006, reason: 'it may contain mdserver.password' },
    ),
  ];
  let checked = 0;
  let failures = 0;
  for (const { path, forbidden, reason } of rules) {
    const stats = seen(path, statIfPresent);
    // A log may be a device.
    if (stats === undefined || stats.isCharacterDevice()) continue;
    const { mode } = stats;
    checked += 1;
    if ((mode & forbidden) === 0) continue;
    failures += 1;
    yield failure(
      `${path} has the mode ${octal(mode)}: ${reason}`,
      `chmod ${octal(mode & ~forbidden)} ${path}`,
    );
  }
  if (seen(userdata_dir, exists) === false) {
    yield warning(
      `${userdata_dir} (mdserver.userdata_dir) does not exist, so every instance gets the default user-data`,
      `mkdir ${userdata_dir}`,
    );
  }
  if (unseen.length > 0) {
    const paths = [...new Set(unseen)];
    yield notChecked(
      'permissions',
      listed(paths, (path) => path),
    );
  }
  if (failures === 0) yield ok(`${checked} files and folders have safe permissions`);
}
