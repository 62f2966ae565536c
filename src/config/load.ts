import { readdirSync, readFileSync, type Stats, statSync } from 'node:fs';
import { isAbsolute, join, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { closestMatch } from 'leven';
import { inIpv4Network, ipv4Network, ipv4ToNumber, ipv6Network, numberToIpv4 } from '../network.js';
import { quoted } from '../text.js';
import { type DhcpOption, DhcpOptionError, dhcpOption } from './dhcp-options.js';
import { type ConfigEntry, ConfigError, type ConfigSections, parseConfigFile } from './dialect.js';
import {
  type Config,
  defaultKey,
  type Option,
  type OptionValues,
  options,
  type PublicKey,
  pythonDefaults,
  type TemplateValue,
  templateFunctions,
  yesNo,
} from './options.js';

interface ConfigFile {
  readonly file: string;
  readonly sections: ConfigSections;
}

/** The table of options as maps, which inherit no names such as `constructor`. */
const table: ReadonlyMap<string, ReadonlyMap<string, Option>> = new Map(
  Object.entries<Readonly<Record<string, Option>>>(options).map(([section, sectionOptions]) => [
    section,
    new Map(Object.entries(sectionOptions)),
  ]),
);
const freeSections = ['public-keys', 'template-data', 'dhcp-options'];
const sectionNames = [...table.keys(), ...freeSections];

/** An old key, which overrides the new one if it is set (`old_to_new` in Python). */
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

function locationOf(entry: ConfigEntry): string {
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
  // EC2 writes these names with hyphens; the other options have underscores.
  const defaults = sections.get('metadata-defaults');
  if (defaults !== undefined) {
    const hyphenated = [...defaults].map(
      ([key, entry]) => [key.replaceAll('_', '-'), entry] as const,
    );
    sections.set('metadata-defaults', new Map(hyphenated));
  }
  return sections;
}

/** Follows links; undefined if the path does not exist. */
function statPath(path: string): Stats | undefined {
  return asConfigError(path, () => statSync(path, { throwIfNoEntry: false }));
}

function configFilesOf(directory: string): string[] {
  const names = asConfigError(directory, () => readdirSync(directory));
  return (
    names
      .filter((name) => name.endsWith('.conf') && !name.startsWith('.'))
      // By code point, like Python; sort() alone compares UTF-16 code units.
      .sort((one, other) => Buffer.compare(Buffer.from(one), Buffer.from(other)))
      .map((name) => join(directory, name))
      .filter((path) => statPath(path)?.isFile())
  );
}

/** The paths of the included files; `prefix` is put before absolute ones. */
function includedFiles(main: ConfigFile, prefix: string): string[] {
  const include = main.sections.get('_include_');
  const { directories, files } = options._include_;
  const directoryPaths = parseOption(
    directories,
    '_include_.directories',
    include?.get('directories'),
  );
  const filePaths = parseOption(files, '_include_.files', include?.get('files'));
  const located = (path: string) => resolve(isAbsolute(path) ? join(prefix, path) : path);
  return [
    ...(directoryPaths ?? [])
      .map(located)
      .filter((path) => statPath(path)?.isDirectory())
      .flatMap(configFilesOf),
    ...(filePaths ?? []).map(located).filter((path) => statPath(path)?.isFile()),
  ];
}

/** The value of an option; undefined for an empty value of an option without a default. */
function parseOption<T>(
  option: Option<T>,
  name: string,
  entry: ConfigEntry | undefined,
): T | undefined {
  const text = entry?.value ?? option.default;
  if (text === undefined) return undefined;
  if (option.default === undefined && (text === '' || text === option.unset)) return undefined;
  const value = option.parse(text);
  if (value === undefined) {
    const found = option.secret ? name : `${name} = ${quoted(text)}`;
    const where = entry === undefined ? '' : `${locationOf(entry)}: `;
    throw new ConfigError(`${where}${found}: expected ${option.expected}`);
  }
  return value;
}

/** `, did you mean …?` with the closest name; empty if none is close enough. */
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

/** A warning for each unknown section and key of a file. */
function unknownNames({ file, sections }: ConfigFile): string[] {
  const sectionWarnings: string[] = [];
  // By line, because every section inherits a key of [DEFAULT]: it is known if one of them knows it.
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
        unknownLines.set(entry.line, `${locationOf(entry)}: ${unknownKey(section, key, known)}`);
      }
    }
  }
  const keyWarnings = [...unknownLines].filter(([line]) => !knownLines.has(line));
  return [...sectionWarnings, ...keyWarnings.map(([, warning]) => warning)];
}

/**
 * Merges the files; the last value of a key wins. `_include_` counts in the first file only, and the
 * old key of the log level is renamed.
 */
function mergeFiles(files: readonly ConfigFile[], warnings: string[]): ConfigSections {
  const merged = new Map<string, Map<string, ConfigEntry>>();
  for (const [index, { file, sections }] of files.entries()) {
    for (const [section, entries] of sections) {
      if (section === '_include_' && index > 0) {
        warnings.push(`${file}: ignored [_include_]: it works only in the main file`);
        continue;
      }
      const soFar = merged.get(section) ?? new Map<string, ConfigEntry>();
      for (const [key, entry] of entries) soFar.set(key, entry);
      merged.set(section, soFar);
    }
  }
  const old = merged.get(oldLogLevel.section)?.get(oldLogLevel.key);
  if (old !== undefined) {
    const { section, key, newSection, newKey } = oldLogLevel;
    warnings.push(
      `${locationOf(old)}: ${section}.${key} is the old name of ${newSection}.${newKey} and overrides it: rename it`,
    );
    const newEntries = merged.get(newSection) ?? new Map<string, ConfigEntry>();
    merged.set(newSection, newEntries.set(newKey, old));
  }
  return merged;
}

/** Checks the options of the networks against each other, as strictly as Python's ip_network. */
function checkNetworkOptions(
  values: OptionValues,
  sections: ConfigSections,
  warnings: string[],
): void {
  const entries = sections.get('dnsmasq');
  const { net_address: address, net_prefix: prefix, gateway } = values.dnsmasq;
  const network = ipv4Network(address, prefix);
  const described = (key: string, value: string): string => {
    const entry = [key, 'net_address', 'net_prefix']
      .map((candidate) => entries?.get(candidate))
      .find((candidate) => candidate !== undefined);
    const where = entry === undefined ? '' : `${locationOf(entry)}: `;
    const defaultNote = entries?.has(key) !== true ? ' (the default)' : '';
    return `${where}dnsmasq.${key} = ${quoted(value)}${defaultNote}`;
  };
  const fail = (key: string, value: string, expected: string): never => {
    throw new ConfigError(`${described(key, value)}: expected ${expected}`);
  };
  if (network.address !== address) {
    fail(
      'net_address',
      address,
      `a network address for dnsmasq.net_prefix ${prefix}, such as ${network.address}`,
    );
  }
  for (const { first, last } of values.dnsmasq.reserved ?? []) {
    if (first >= network.first && last <= network.last) continue;
    const range = [first, last].map(numberToIpv4).join('-');
    fail(
      'reserved',
      entries?.get('reserved')?.value ?? '',
      `addresses in ${address}/${prefix} (dnsmasq.net_address and net_prefix), which ${range} is not`,
    );
  }
  const { net_address6: address6, net_prefix6: prefix6 } = values.dnsmasq;
  if (address6 !== undefined && ipv6Network(address6, prefix6).address !== address6) {
    const right = ipv6Network(address6, prefix6).address;
    fail(
      'net_address6',
      address6,
      `a network address for dnsmasq.net_prefix6 ${prefix6}, such as ${right}`,
    );
  }
  const gatewayNumber = ipv4ToNumber(gateway);
  if (gatewayNumber === network.first || gatewayNumber === network.last) {
    fail(
      'gateway',
      gateway,
      `an address that is not the first or last of ${address}/${prefix} (dnsmasq.net_address and net_prefix)`,
    );
  }
  if (!inIpv4Network(network, gateway)) {
    warnings.push(
      `${described('gateway', gateway)} is outside ${address}/${prefix} (dnsmasq.net_address and net_prefix): guests get addresses only if the network of ${values.dnsmasq.interface} has both`,
    );
  }
}

/** A key named `default` comes first, as in Python, which sets it before it reads a file. */
function publicKeysOf(sections: ConfigSections, warnings: string[]): PublicKey[] {
  const keys: PublicKey[] = [];
  for (const [name, entry] of sections.get('public-keys') ?? []) {
    if (entry.value === '') {
      warnings.push(`${locationOf(entry)}: ignored public-keys.${name}: it is empty`);
    } else if (name === defaultKey) {
      keys.unshift({ name, key: entry.value });
    } else {
      keys.push({ name, key: entry.value });
    }
  }
  return keys;
}

/** Checked as strictly as options: a guest that lacks one may not find its network. */
function dhcpOptionsOf(sections: ConfigSections, { dnsmasq }: OptionValues): DhcpOption[] {
  const names = new Map<number, string>();
  const known: DhcpOption[] = [];
  for (const [name, entry] of sections.get('dhcp-options') ?? []) {
    const fail = (reason: string): never => {
      throw new ConfigError(`${locationOf(entry)}: dhcp-options.${name}: ${reason}`);
    };
    const option = asDhcpOption(name, entry.value, fail);
    const other = names.get(option.code);
    if (other !== undefined)
      fail(`the same option as dhcp-options.${other}: remove one of the two`);
    if (option.code === 6 && dnsmasq.use_dns) {
      fail('dnsmasq.use_dns names the DNS server of guests, too: remove one of the two');
    }
    names.set(option.code, name);
    known.push(option);
  }
  return known;
}

function asDhcpOption(name: string, value: string, fail: (reason: string) => never): DhcpOption {
  try {
    return dhcpOption(name, value);
  } catch (error) {
    if (error instanceof DhcpOptionError) return fail(error.message);
    throw error;
  }
}

/** The names in `_config_items_`, which Python's README shows in quotes. */
function configItemNames(entry: ConfigEntry): string[] {
  return entry.value
    .split(',')
    .map((item) => item.replace(/^\s*['"]/, '').replace(/['"]\s*$/, ''))
    .map((item) => item.trim())
    .filter((item) => item !== '');
}

/** What templates get for an option: as the Python server has it, which is text if a file sets it. */
function itemValue(
  name: string,
  written: string | undefined,
  defaultText: string | undefined,
): TemplateValue {
  const isName = name === 'dnsmasq.prefix' || name === 'dnsmasq.domain';
  // Python replaces a "no" of these two by what its strtobool returns.
  if (isName && written !== undefined && yesNo.parse(written) === false) return 0;
  return written ?? pythonDefaults.get(name) ?? defaultText ?? null;
}

function templateDataOf(
  sections: ConfigSections,
  texts: ReadonlyMap<string, string>,
  publicKeys: readonly PublicKey[],
  warnings: string[],
): Pick<Config, 'templateData' | 'configItems'> {
  const templateData = new Map<string, TemplateValue>();
  const configItems = new Map<string, string>();
  const taken = new Set([
    'hostname',
    'instance',
    'it',
    'public_keys',
    `public_key_${defaultKey}`,
    ...publicKeys.map(({ name }) => `public_key_${name}`),
    ...(texts.has('mdserver.password') ? ['mdserver_password'] : []),
  ]);
  /** Reserves a name. Returns whether it was free. */
  const reserve = (name: string, what: string, entry: ConfigEntry): boolean => {
    if (taken.has(name)) {
      warnings.push(
        `${locationOf(entry)}: ignored ${what}: templates already have a ${quoted(name)}`,
      );
      return false;
    }
    if (templateFunctions.some((known) => known === name)) {
      warnings.push(
        `${locationOf(entry)}: ${what} hides the function ${name}() from templates: rename it to use the function`,
      );
    }
    taken.add(name);
    return true;
  };

  const entries = sections.get('template-data') ?? new Map<string, ConfigEntry>();
  for (const [name, entry] of entries) {
    if (name !== '_config_items_' && reserve(name, `template-data.${name}`, entry)) {
      templateData.set(name, entry.value);
    }
  }
  const list = entries.get('_config_items_');
  if (list === undefined) return { templateData, configItems };

  for (const item of configItemNames(list)) {
    const dot = item.indexOf('.');
    const [section, key] = [item.slice(0, dot), item.slice(dot + 1)];
    const isOption = table.get(section)?.has(key) ?? false;
    const written = sections.get(section)?.get(key)?.value;
    if (written === undefined && !isOption) {
      warnings.push(
        `${locationOf(list)}: ignored ${quoted(item)} in _config_items_: no such option`,
      );
    } else if (reserve(key, `${quoted(item)} in _config_items_`, list)) {
      templateData.set(key, itemValue(item, written, texts.get(item)));
      configItems.set(key, item);
    }
  }
  return { templateData, configItems };
}

/**
 * A warning for each value that Bottle from 0.13 on reads as another one: there, "$$" is "$", and "${…}" the
 * value of another option. Before, and here, both are text. The value may be a secret.
 */
function otherDialect(sections: ConfigSections): string[] {
  // By place, because every section inherits an entry of [DEFAULT].
  const warnings = new Map<string, string>();
  for (const [section, entries] of sections) {
    for (const [key, entry] of entries) {
      const [found] = /\$\$|\$\{[^}]*\}/.exec(entry.value) ?? [];
      const where = locationOf(entry);
      if (found === undefined || warnings.has(where)) continue;
      const meant = found === '$$' ? 'write one "$"' : 'write the value of that option';
      warnings.set(
        where,
        `${where}: ${section}.${key} contains "${found.slice(0, 2)}", which is text here, as with Bottle 0.12: if the file is for Bottle 0.13 or later, ${meant}`,
      );
    }
  }
  return [...warnings.values()];
}

/** A configuration, and what it was made from. */
export interface LoadedConfig {
  readonly config: Config;
  /** The entries of all files, merged, before their values are read. */
  readonly sections: ConfigSections;
  readonly warnings: readonly string[];
}

function buildConfig(files: readonly ConfigFile[]): LoadedConfig {
  const warnings = files.flatMap(unknownNames);
  const sections = mergeFiles(files, warnings);
  const { config, warnings: more } = interpreted(sections);
  return { config, sections, warnings: [...warnings, ...more] };
}

/** The configuration that merged entries make. Throws ConfigError. */
export function interpreted(sections: ConfigSections): LoadedConfig {
  const warnings = otherDialect(sections);
  const texts = new Map<string, string>();
  const values: Record<string, Record<string, unknown>> = {};
  const problems: ConfigError[] = [];
  for (const { section, key, name, option } of tableOptions()) {
    const entry = sections.get(section)?.get(key);
    let value: unknown;
    try {
      value = parseOption(option, name, entry);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      problems.push(error);
    }
    values[section] ??= {};
    values[section][key] = value;
    const text = entry?.value ?? option.default;
    if (text !== undefined && value !== undefined) texts.set(name, text);
  }
  const [first, ...others] = problems;
  if (first !== undefined) {
    first.others.push(...others.map(({ message }) => message));
    throw first;
  }
  // Each value comes from the parse function of its option, which the compiler cannot follow.
  const optionValues = values as unknown as OptionValues;
  checkNetworkOptions(optionValues, sections, warnings);
  const publicKeys = publicKeysOf(sections, warnings);
  const config = {
    ...optionValues,
    publicKeys,
    dhcpOptions: dhcpOptionsOf(sections, optionValues),
    texts,
    ...templateDataOf(sections, texts, publicKeys, warnings),
  };
  return { config, sections, warnings };
}

/**
 * Reads the configuration file and the files that it includes. Relative paths start at the current
 * directory; `prefix` is put before the absolute paths of included files. Returns the configuration,
 * the files in the order in which they were read, and warnings. Throws ConfigError.
 */
export function loadConfig(file: string, prefix = ''): LoadedConfig & { files: string[] } {
  const main = readConfigFile(file);
  const files = [main, ...includedFiles(main, prefix).map(readConfigFile)];
  return { ...buildConfig(files), files: files.map((read) => read.file) };
}

/** Like loadConfig, for one text without includes; `file` is its name in messages. */
export function configFrom(text: string, file = 'test.conf'): LoadedConfig {
  return buildConfig([{ file, sections: sectionsOf(text, file) }]);
}

/** The value of an option as written, on one line; undefined if it has none. */
export function valueText(config: Config, name: string): string | undefined {
  // Only lists can span several lines, and white space has no meaning in them.
  return config.texts.get(name)?.replace(/\n/g, ' ');
}

/**
 * The lines of `/service/configuration`: `section.key=value` for every option that is not secret,
 * with the value as written. Public keys and template data are left out.
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

/** The options (`section.key`) that differ but only take effect after a restart. */
export function changesNeedingRestart(old: Config, next: Config): string[] {
  return [...tableOptions()]
    .filter(
      ({ section, key, option }) =>
        option.restart &&
        !isDeepStrictEqual(optionValue(old, section, key), optionValue(next, section, key)),
    )
    .map(({ name }) => name);
}

/** The configuration after a reload: the next one, with the old entries of options that need a restart. */
export function reloadedConfig(old: LoadedConfig, next: LoadedConfig): LoadedConfig {
  const unchanged = new Set(changesNeedingRestart(old.config, next.config));
  const sections = new Map(
    Array.from(next.sections, ([section, entries]) => [section, new Map(entries)]),
  );
  for (const { section, key, name } of tableOptions()) {
    if (!unchanged.has(name)) continue;
    const entries = sections.get(section) ?? new Map<string, ConfigEntry>();
    sections.set(section, entries);
    const entry = old.sections.get(section)?.get(key);
    if (entry === undefined) entries.delete(key);
    else entries.set(key, entry);
  }
  return { ...interpreted(sections), warnings: next.warnings };
}
