import { hostname } from 'node:os';
import type { PythonValue } from '../bottle/convert.js';
import { notConfigured } from '../bottle/values.js';
import type { LoadedConfig } from '../config/load.js';
import { ownVersion, pythonDefaults, releaseDate, yesNo } from '../config/options.js';
import type { PythonNames } from './bottle.js';

/** What Python's server has for each option that no file sets (`set_defaults` in its config.py). */
const serverDefaults: readonly (readonly [name: string, value: PythonValue])[] = [
  ...pythonDefaults,
  // Bottle's own.
  ['catchall', true],
  ['autojson', true],
  ['service.name', 'mdserver'],
  ['service.type', 'mdserver'],
  ['service.version', ownVersion],
  ['service.release_date', releaseDate],
  ['service.hostname', hostname()],
  ['service.location', hostname().split('.')[0] ?? ''],
  ['service.ec2_versions', '2009-04-04'],
  ['mdserver.password', null],
  ['mdserver.hostname_prefix', 'vm'],
  ['public-keys.default', notConfigured],
  ['mdserver.userdata_dir', '/etc/mdserver/userdata'],
  ['mdserver.userdata_suffixes', ':.yaml'],
  ['mdserver.logfile', '/var/log/mdserver.log'],
  ['mdserver.debug', 'no'],
  ['mdserver.debug_userdata', 'no'],
  ['mdserver.listen_address', '169.254.169.254'],
  ['mdserver.default_template', null],
  ['mdserver.db_file', '/var/lib/mdserver/db_file.json'],
  ['loglevels.base', 'info'],
  ['loglevels.stream', 'info'],
  ['loglevels.file', 'debug'],
  ['dnsmasq.user', 'mdserver'],
  ['dnsmasq.base_dir', '/var/lib/mdserver/dnsmasq'],
  ['dnsmasq.run_dir', '/var/run/mdserver'],
  ['dnsmasq.net_name', 'mds'],
  ['dnsmasq.net_address', '10.122.0.0'],
  ['dnsmasq.net_prefix', '16'],
  ['dnsmasq.gateway', '10.122.0.1'],
  ['dnsmasq.interface', 'br-mds'],
  ['dnsmasq.listen_address', null],
  ['dnsmasq.entry_order', 'base'],
];

/** 1 or 0 for a word of Python's `strtobool`, else the value. */
function yesNoOrValue(value: PythonValue): PythonValue {
  const meaning = typeof value === 'string' ? yesNo.parse(value) : undefined;
  return meaning === undefined ? value : Number(meaning);
}

/**
 * Every name that a template of an instance has in Python's server, with its value for this
 * configuration (`gen_userdata` in its server.py): also those with a dot, which only get() and defined() find.
 */
export function pythonNames(
  { sections }: Pick<LoadedConfig, 'sections'>,
  name: string,
): PythonNames {
  const names = new Map<string, PythonValue>(serverDefaults);
  for (const [section, entries] of sections) {
    for (const [key, { value }] of entries) {
      names.set(section === 'bottle' ? key : `${section}.${key}`, value);
    }
  }
  for (const option of ['dnsmasq.prefix', 'dnsmasq.domain']) {
    names.set(option, yesNoOrValue(names.get(option) ?? false));
  }
  names.set('hostname', name);

  const keys: Record<string, string> = Object.create(null);
  for (const [option, value] of [...names]) {
    if (!option.startsWith('public-keys.')) continue;
    const key = option.slice('public-keys.'.length);
    keys[key] = String(value);
    names.set(`public_key_${key}`, value);
  }
  names.set('public_keys', keys);

  const reserve = (key: string, value: PythonValue) => {
    if (!names.has(key)) names.set(key, value);
  };
  const data = sections.get('template-data') ?? new Map();
  for (const [key, { value }] of data) reserve(key, value);
  const items: string = data.get('_config_items_')?.value ?? '';
  for (const item of items.split(',')) {
    const value = names.get(item);
    if (value !== undefined) reserve(item.split('.')[1] ?? '', value);
  }
  const password = names.get('mdserver.password');
  if (password) names.set('mdserver_password', password);
  return names;
}
