import { readdirSync, readFileSync, type Stats, statSync } from 'node:fs';
import { isAbsolute, join, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { closestMatch } from 'leven';
import { inIpv4Network, ipv4Network, ipv4ToNumber, ipv6Network } from '../network.js';
import { quoted } from '../text.js';
import { type ConfigEntry, ConfigError, parseConfigFile } from './dialect.js';
import { type Config, type Option, type OptionValues, options, type PublicKey } from './options.js';

/** One file as it was read: section, key, entry. */
interface ConfigFile {
  readonly file: string;
  readonly sections: ReadonlyMap<string, ReadonlyMap<string, ConfigEntry>>;
}

/** All files together, the last value of each key; a key keeps the place of its first. */
type Settings = ReadonlyMap<string, ReadonlyMap<string, ConfigEntry>>;

/** The table as a map, in which `constructor` is no option. */
const table: ReadonlyMap<string, ReadonlyMap<string, Option>> = new Map(
  Object.entries<Readonly<Record<string, Option>>>(options).map(([section, sectionOptions]) => [
    section,
    new Map(Object.entries(sectionOptions)),
  ]),
);
const freeSections = ['public-keys', 'template-data'];
const sectionNames = [...table.keys(), ...freeSections];

/** An old key: where it is set it wins over the new one (`old_to_new` in Python). */
const oldLogLevel = {
  section: 'mdserver',
  key: 'loglevel',
  newSection: 'loglevels',
  newKey: 'base',
} as const;

/** Every option of the table, in its order, under its name `section.key`. */
export function* tableOptions(): Iterable<{
  section: string;
  key: string;
  name: string;
  option: Option;
}> {
  for (const [section, sectionOptions] of table) {
    for (const [key, option] of sectionOptions) {
      yield { section, key, name: `${section}.${key}`, option };
    }
  }
}

function whereOf(entry: ConfigEntry): string {
  return `${entry.file}:${entry.line}`;
}

function asConfigError<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ConfigError(`${path}: cannot be read: ${reason}`, { cause: error });
  }
}

function readConfigFile(file: string): ConfigFile {
  const text = asConfigError(file, () => {
    const bytes = readFileSync(file);
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch (error) {
      throw new Error('expected UTF-8 text', { cause: error });
    }
  });
  return { file, sections: sectionsOf(text, file) };
}

function sectionsOf(text: string, file: string): ConfigFile['sections'] {
  const sections = new Map(parseConfigFile(text, file));
  // EC2 writes these names with hyphens, and everything else here has underscores.
  const defaults = sections.get('metadata-defaults');
  if (defaults !== undefined) {
    const hyphened = [...defaults].map(
      ([key, entry]) => [key.replaceAll('_', '-'), entry] as const,
    );
    sections.set('metadata-defaults', new Map(hyphened));
  }
  return sections;
}

/** What is at the path, behind links; undefined where there is nothing. */
function statOf(path: string): Stats | undefined {
  return asConfigError(path, () => statSync(path, { throwIfNoEntry: false }));
}

function configFilesOf(directory: string): string[] {
  const names = asConfigError(directory, () => readdirSync(directory));
  return (
    names
      .filter((name) => name.endsWith('.conf') && !name.startsWith('.'))
      // By code point, as Python sorts; plain sort() is by UTF-16 unit.
      .sort((one, other) => Buffer.compare(Buffer.from(one), Buffer.from(other)))
      .map((name) => join(directory, name))
      .filter((path) => statOf(path)?.isFile())
  );
}

/** The paths of the included files; `prefix` is put before absolute ones. */
function includedFiles(main: ConfigFile, prefix: string): string[] {
  const include = main.sections.get('_include_');
  const { directories, files } = options._include_;
  const directoryPaths = parsed(directories, '_include_.directories', include?.get('directories'));
  const filePaths = parsed(files, '_include_.files', include?.get('files'));
  const located = (path: string) => resolve(isAbsolute(path) ? join(prefix, path) : path);
  return [
    ...(directoryPaths ?? [])
      .map(located)
      .filter((path) => statOf(path)?.isDirectory())
      .flatMap(configFilesOf),
    ...(filePaths ?? []).map(located).filter((path) => statOf(path)?.isFile()),
  ];
}

/** The option's value; that of an option that may be absent is undefined where it is empty. */
function parsed<T>(option: Option<T>, name: string, entry: ConfigEntry | undefined): T | undefined {
  const text = entry?.value ?? option.default;
  if (text === undefined || (text === '' && option.default === undefined)) return undefined;
  const value = option.parse(text);
  if (value === undefined) {
    const found = option.secret ? name : `${name} = ${quoted(text)}`;
    const where = entry === undefined ? '' : `${whereOf(entry)}: `;
    throw new ConfigError(`${where}${found}: expected ${option.expected}`);
  }
  return value;
}

/** `, did you mean …?` with the name that is near enough to be meant, or nothing. */
function suggestion(name: string, candidates: readonly string[], form: (name: string) => string) {
  const maxDistance = Math.min(3, Math.ceil(name.length / 3));
  const nearest = closestMatch(name.toLowerCase(), candidates, { maxDistance });
  return nearest === undefined ? '' : `, did you mean ${form(nearest)}?`;
}

function unknownKey(section: string, key: string, known: ReadonlyMap<string, Option>): string {
  const near = suggestion(key, [...known.keys()], (name) => `${section}.${name}`);
  const elsewhere = [...table].find(([, others]) => others.has(key))?.[0];
  const hint = near === '' && elsewhere ? `, did you mean ${elsewhere}.${key}?` : near;
  return `unknown option ${section}.${key}${hint}`;
}

/** One warning for each section and key of a file that has no meaning. */
function unknownNames({ file, sections }: ConfigFile): string[] {
  const sectionWarnings: string[] = [];
  // By line, because a key of [DEFAULT] stands in every section and need be known in one only.
  const unknownLines = new Map<number, string>();
  const knownLines = new Set<number>();
  for (const [section, entries] of sections) {
    const known = table.get(section);
    if (known === undefined && !freeSections.includes(section)) {
      // The section's own keys come after those of [DEFAULT].
      const line = [...entries.values()].at(-1)?.line;
      const hint = suggestion(section, sectionNames, (name) => `[${name}]`);
      sectionWarnings.push(
        `${file}${line === undefined ? '' : `:${line}`}: unknown section [${section}]${hint}`,
      );
      continue;
    }
    for (const [key, entry] of entries) {
      const isOld = section === oldLogLevel.section && key === oldLogLevel.key;
      if (known === undefined || known.has(key) || isOld) {
        knownLines.add(entry.line);
      } else if (!unknownLines.has(entry.line)) {
        unknownLines.set(entry.line, `${whereOf(entry)}: ${unknownKey(section, key, known)}`);
      }
    }
  }
  const keyWarnings = [...unknownLines].filter(([line]) => !knownLines.has(line));
  return [...sectionWarnings, ...keyWarnings.map(([, warning]) => warning)];
}

/**
 * The files' settings, the last one winning; `_include_` is the first file's alone, and the old key
 * of the log level is given its new name.
 */
function merged(files: readonly ConfigFile[], warnings: string[]): Settings {
  const settings = new Map<string, Map<string, ConfigEntry>>();
  for (const [index, { file, sections }] of files.entries()) {
    for (const [section, entries] of sections) {
      if (section === '_include_' && index > 0) {
        warnings.push(`${file}: [_include_] is ignored: it counts in the main file only`);
        continue;
      }
      const soFar = settings.get(section) ?? new Map<string, ConfigEntry>();
      for (const [key, entry] of entries) soFar.set(key, entry);
      settings.set(section, soFar);
    }
  }
  const old = settings.get(oldLogLevel.section)?.get(oldLogLevel.key);
  if (old !== undefined) {
    const { section, key, newSection, newKey } = oldLogLevel;
    warnings.push(
      `${whereOf(old)}: ${section}.${key} is now called ${newSection}.${newKey}, and wins over it`,
    );
    const newEntries = settings.get(newSection) ?? new Map<string, ConfigEntry>();
    settings.set(newSection, newEntries.set(newKey, old));
  }
  return settings;
}

/** What one option alone cannot know; Python's ip_network is as strict. */
function checkNetwork(values: OptionValues, settings: Settings): void {
  const entries = settings.get('dnsmasq');
  const { net_address: address, net_prefix: prefix, gateway } = values.dnsmasq;
  const network = ipv4Network(address, prefix);
  const fail = (key: string, value: string, expected: string): never => {
    const entry = [key, 'net_address', 'net_prefix']
      .map((candidate) => entries?.get(candidate))
      .find((candidate) => candidate !== undefined);
    const where = entry === undefined ? '' : `${whereOf(entry)}: `;
    const byDefault = entries?.has(key) !== true ? ' (the default)' : '';
    throw new ConfigError(
      `${where}dnsmasq.${key} = ${quoted(value)}${byDefault}: expected ${expected}`,
    );
  };
  if (network.address !== address) {
    fail(
      'net_address',
      address,
      `the address of a network under dnsmasq.net_prefix ${prefix}, such as ${network.address}`,
    );
  }
  const { net_address6: address6, net_prefix6: prefix6 } = values.dnsmasq;
  if (address6 !== undefined && ipv6Network(address6, prefix6).address !== address6) {
    const right = ipv6Network(address6, prefix6).address;
    fail(
      'net_address6',
      address6,
      `the address of a network under dnsmasq.net_prefix6 ${prefix6}, such as ${right}`,
    );
  }
  const gatewayNumber = ipv4ToNumber(gateway);
  if (
    !inIpv4Network(network, gateway) ||
    gatewayNumber === network.first ||
    gatewayNumber === network.last
  ) {
    fail(
      'gateway',
      gateway,
      `an address in ${address}/${prefix} (dnsmasq.net_address and net_prefix) that is neither its first nor its last`,
    );
  }
}

/** `default` has index 0 where it is there, as in Python, which sets it before it reads a file. */
function publicKeysOf(settings: Settings, warnings: string[]): PublicKey[] {
  const keys: PublicKey[] = [];
  for (const [name, entry] of settings.get('public-keys') ?? []) {
    if (entry.value === '') {
      warnings.push(`${whereOf(entry)}: public-keys.${name} is empty and left out`);
    } else if (name === 'default') {
      keys.unshift({ name, key: entry.value });
    } else {
      keys.push({ name, key: entry.value });
    }
  }
  return keys;
}

/** The list of `_config_items_`; the README of Python shows it in quotes. */
function configItemNames(entry: ConfigEntry): string[] {
  return entry.value
    .split(',')
    .map((item) => item.replace(/^\s*['"]/, '').replace(/['"]\s*$/, ''))
    .map((item) => item.trim())
    .filter((item) => item !== '');
}

function templateDataOf(
  settings: Settings,
  texts: ReadonlyMap<string, string>,
  publicKeys: readonly PublicKey[],
  warnings: string[],
): Pick<Config, 'templateData' | 'configItems'> {
  const templateData = new Map<string, string>();
  const configItems = new Map<string, string>();
  const taken = new Set([
    'hostname',
    'instance',
    'it',
    'public_keys',
    ...publicKeys.map(({ name }) => `public_key_${name}`),
    ...(texts.has('mdserver.password') ? ['mdserver_password'] : []),
  ]);
  /** Whether the name was still free. */
  const take = (name: string, what: string, entry: ConfigEntry): boolean => {
    if (taken.has(name)) {
      warnings.push(
        `${whereOf(entry)}: ${what} is ignored: templates have another ${quoted(name)} already`,
      );
      return false;
    }
    taken.add(name);
    return true;
  };

  const entries = settings.get('template-data') ?? new Map<string, ConfigEntry>();
  for (const [name, entry] of entries) {
    if (name !== '_config_items_' && take(name, `template-data.${name}`, entry)) {
      templateData.set(name, entry.value);
    }
  }
  const list = entries.get('_config_items_');
  if (list === undefined) return { templateData, configItems };

  for (const item of configItemNames(list)) {
    const dot = item.indexOf('.');
    const [section, key] = [item.slice(0, dot), item.slice(dot + 1)];
    const isOption = table.get(section)?.has(key) ?? false;
    const text = isOption ? texts.get(item) : settings.get(section)?.get(key)?.value;
    if (text === undefined) {
      const reason = isOption ? 'has no value' : 'is no option';
      warnings.push(`${whereOf(list)}: ${quoted(item)} in _config_items_ ${reason}: left out`);
    } else if (take(key, `${quoted(item)} in _config_items_`, list)) {
      templateData.set(key, text);
      configItems.set(key, item);
    }
  }
  return { templateData, configItems };
}

function configOf(files: readonly ConfigFile[]): { config: Config; warnings: string[] } {
  const warnings = files.flatMap(unknownNames);
  const settings = merged(files, warnings);
  const texts = new Map<string, string>();
  const values: Record<string, Record<string, unknown>> = {};
  for (const { section, key, name, option } of tableOptions()) {
    const entry = settings.get(section)?.get(key);
    const value = parsed(option, name, entry);
    values[section] ??= {};
    values[section][key] = value;
    const text = entry?.value ?? option.default;
    if (text !== undefined && value !== undefined) texts.set(name, text);
  }
  // Each value comes from its own option's parse, which the compiler cannot follow.
  const optionValues = values as unknown as OptionValues;
  checkNetwork(optionValues, settings);
  const publicKeys = publicKeysOf(settings, warnings);
  return {
    config: {
      ...optionValues,
      publicKeys,
      texts,
      ...templateDataOf(settings, texts, publicKeys, warnings),
    },
    warnings,
  };
}

/**
 * Reads the configuration file and those that it includes. Relative paths start at the current
 * directory; `prefix` is put before the absolute paths of included files. Gives the configuration,
 * the files in the order in which they were read, and warnings, a line each. Throws ConfigError.
 */
export function loadConfig(
  file: string,
  prefix = '',
): {
  config: Config;
  files: string[];
  warnings: string[];
} {
  const main = readConfigFile(file);
  const files = [main, ...includedFiles(main, prefix).map(readConfigFile)];
  return { ...configOf(files), files: files.map((read) => read.file) };
}

/** The same for one text, which includes nothing; `file` is only named in messages. */
export function configFrom(
  text: string,
  file = 'test.conf',
): { config: Config; warnings: string[] } {
  return configOf([{ file, sections: sectionsOf(text, file) }]);
}

/** The value of an option as it is written, on one line; undefined if it has none. */
export function valueText(config: Config, name: string): string | undefined {
  // Only lists can span several lines, and white space has no meaning in them.
  return config.texts.get(name)?.replace(/\n/g, ' ');
}

/**
 * The lines of `/service/configuration`: `section.key=value` for every option that is not secret,
 * with the value as it is written. Public keys and template data are left out.
 */
export function readableConfig(config: Config): string[] {
  return [...tableOptions()]
    .filter(({ option }) => !option.secret)
    .map(({ name }) => `${name}=${valueText(config, name) ?? ''}`);
}

function optionValue(config: Config, section: string, key: string): unknown {
  const values = config as unknown as Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  return values[section]?.[key];
}

/** The options, as `section.key`, that differ between the two and stay as they are until a restart. */
export function changesNeedingRestart(old: Config, next: Config): string[] {
  return [...tableOptions()]
    .filter(
      ({ section, key, option }) =>
        option.restart &&
        !isDeepStrictEqual(optionValue(old, section, key), optionValue(next, section, key)),
    )
    .map(({ name }) => name);
}

/** What is in force after a reload: the next one, with the old values of what needs a restart. */
export function reloadedConfig(old: Config, next: Config): Config {
  const kept = new Set(changesNeedingRestart(old, next));
  const texts = new Map(next.texts);
  const values: Record<string, Record<string, unknown>> = {};
  for (const { section, key, name } of tableOptions()) {
    values[section] ??= {};
    values[section][key] = optionValue(kept.has(name) ? old : next, section, key);
    if (kept.has(name)) setOrDelete(texts, name, old.texts.get(name));
  }
  const templateData = new Map(next.templateData);
  for (const [key, name] of next.configItems) {
    if (kept.has(name)) setOrDelete(templateData, key, old.texts.get(name));
  }
  return { ...next, ...(values as unknown as OptionValues), texts, templateData };
}

function setOrDelete(map: Map<string, string>, key: string, value: string | undefined): void {
  if (value === undefined) map.delete(key);
  else map.set(key, value);
}
