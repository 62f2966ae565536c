import { type DhcpOption, DhcpOptionError, dhcpOption } from '../config/dhcp-options.js';
import { type PublicKey, yesNo } from '../config/options.js';
import { quoted } from '../text.js';
import type { Instance } from './instance.js';

/** Whatever has the metadata of a domain. */
type WithMetadata = Pick<Instance, 'metadata'>;

/** Hyphens and underscores are equal in names: EC2 uses the former, domain XML mostly the latter. */
export function settingName(name: string): string {
  return name.toLowerCase().replaceAll('_', '-');
}

/** The texts of instances that were asked for. Instances are immutable: an update is a new key. */
const textsOf = new WeakMap<WithMetadata, ReadonlyMap<string, string>>();

/** The text of an element in the domain's metadata, its name written with hyphens or underscores; '' if it is empty. */
function metadataText(instance: WithMetadata, name: string): string | undefined {
  let texts = textsOf.get(instance);
  if (texts === undefined) {
    const isEmpty = ([, text]: [string, string]) => text === '';
    // Of two spellings of a name, the first counts that has a value: in a map, the last one.
    const entries = Object.entries(instance.metadata).reverse();
    const ordered = [...entries.filter(isEmpty), ...entries.filter((entry) => !isEmpty(entry))];
    texts = new Map(ordered.map(([name, text]) => [settingName(name), text]));
    textsOf.set(instance, texts);
  }
  return texts.get(name);
}

/** The value of a name in the domain's metadata, written with hyphens or underscores; an empty one sets nothing. */
export function fromMetadata(instance: WithMetadata, name: string): string | undefined {
  return metadataText(instance, name) || undefined;
}

/** The word for "none at all, on purpose". */
function isNone(text: string): boolean {
  return text.toLowerCase() === 'none';
}

/** Whether the domain says that its instance has no user-data: its `userdata` is `none`. */
export function refusesUserdata(instance: WithMetadata): boolean {
  return isNone(fromMetadata(instance, 'userdata') ?? '');
}

/** The names of keys in `public_keys`, as the configuration has them (in lower case); undefined if the domain chooses none. */
function chosenNames(instance: WithMetadata): readonly string[] | undefined {
  const text = metadataText(instance, 'public-keys');
  if (text === undefined) return undefined;
  if (isNone(text)) return [];
  const names = text.toLowerCase().split(/[\s,]+/);
  return [...new Set(names.filter((name) => name !== ''))];
}

/**
 * The public keys of an instance, in the order of their index in the metadata: of `[public-keys]`, those that
 * its domain names, else all. Everything that serves keys asks here.
 */
export function keysOf(
  instance: WithMetadata,
  publicKeys: readonly PublicKey[],
): readonly PublicKey[] {
  const names = chosenNames(instance);
  if (names === undefined) return publicKeys;
  const byName = new Map(publicKeys.map((key) => [key.name, key]));
  return names.map((name) => byName.get(name)).filter((key) => key !== undefined);
}

/** The first few of the names, as a message has them. */
function listed(names: readonly string[]): string {
  const shown = names.slice(0, 5).map((name) => quoted(name, 60));
  return [...shown, ...(names.length > 5 ? [`${names.length - 5} more`] : [])].join(', ');
}

/** What a domain sets for the DHCP of its instance. */
export interface DhcpSettings {
  /** Each instead of the one of its code that all have. */
  readonly options: readonly DhcpOption[];
  /** Undefined if it does not say. */
  readonly defaultRoute: boolean | undefined;
}

/** Any spelling of an element that sets something for DHCP. */
const dhcpElement = /^(dhcp[-_]options|default[-_]route)$/i;

/** Of very many instances, hardly any has one: so without a list of the names, or a pattern for most of them. */
function hasDhcpElement({ metadata }: WithMetadata): boolean {
  for (const name in metadata) {
    if ((name.length === 12 || name.length === 13) && dhcpElement.test(name)) return true;
  }
  return false;
}

/** What a domain sets for the DHCP of its instance, as far as it is right; undefined if that is nothing. */
export function dhcpSettings(instance: WithMetadata): DhcpSettings | undefined {
  if (!hasDhcpElement(instance)) return undefined;
  const { options, defaultRoute } = readDhcp(instance);
  return options.length === 0 && defaultRoute === undefined ? undefined : { options, defaultRoute };
}

/** Of more, the others are counted: a domain's metadata may have thousands. */
const maxProblems = 5;

/** The same, with what is wrong with it. */
function readDhcp(instance: WithMetadata): DhcpSettings & { readonly problems: string[] } {
  const options = new Map<number, DhcpOption>();
  const wrong: string[] = [];
  // Not by commas, which dnsmasq has in values.
  for (const item of (fromMetadata(instance, 'dhcp-options') ?? '').split(/[;\n]/)) {
    const text = item.trim();
    if (text === '') continue;
    const [name = '', ...value] = text.split('=');
    try {
      if (name === '' || value.length === 0) {
        throw new DhcpOptionError('expected NAME=VALUE, separated by semicolons');
      }
      const option = dhcpOption(name.trim(), value.join('=').trim());
      if (options.has(option.code)) throw new DhcpOptionError('it is set twice');
      options.set(option.code, option);
    } catch (error) {
      if (!(error instanceof DhcpOptionError)) throw error;
      const which = quoted(value.length === 0 ? text : name.trim() || text);
      wrong.push(`dhcp_options has ${which}, which counts for nothing: ${error.message}`);
    }
  }
  const more = wrong.length - maxProblems;
  const problems = wrong.slice(0, maxProblems);
  if (more > 0) problems.push(`dhcp_options has ${more} more items that count for nothing`);
  const text = fromMetadata(instance, 'default-route');
  const defaultRoute = text === undefined ? undefined : yesNo.parse(text);
  if (text !== undefined && defaultRoute === undefined) {
    problems.push(
      `default_route is ${quoted(text)}, which counts for nothing: expected ${yesNo.expected}`,
    );
  }
  return { options: [...options.values()], defaultRoute, problems };
}

/** What is wrong with the settings in a domain's metadata, and what to do: a line each. */
export function settingProblems(
  instance: WithMetadata,
  publicKeys: readonly PublicKey[],
): string[] {
  const names = chosenNames(instance) ?? [];
  const known = new Set(publicKeys.map(({ name }) => name));
  const unknown = names.filter((name) => !known.has(name));
  const problems: string[] = [];
  if (unknown.length > 0) {
    const gets = names.length === unknown.length ? 'no key' : 'the other keys alone';
    problems.push(
      `public_keys names ${listed(unknown)}, which [public-keys] does not have, so it gets ${gets}: add the key, or correct the name`,
    );
  }
  const text = metadataText(instance, 'public-keys');
  if (text !== undefined && names.length === 0 && !isNone(text)) {
    problems.push(
      'public_keys names no key, so it gets none: write none if that is meant, else remove the element',
    );
  }
  problems.push(...readDhcp(instance).problems);
  const userdata = fromMetadata(instance, 'userdata');
  if (userdata !== undefined && !refusesUserdata(instance)) {
    problems.push(
      `userdata is ${quoted(userdata)}, which counts for nothing: it can only be none (userdata_prefix names a file)`,
    );
  }
  const tokens = fromMetadata(instance, 'imds-tokens');
  if (tokens !== undefined && tokens !== 'optional' && tokens !== 'required') {
    problems.push(
      `imds_tokens is ${quoted(tokens)}, which counts as required: it can only be optional or required`,
    );
  }
  return problems.map((problem) => `in the metadata of its domain, ${problem}`);
}
