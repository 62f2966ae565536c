import { type Option, options } from '../src/config/options.js';
import { wrapped } from '../src/text.js';

const width = 80;

const sectionExplanations: Readonly<Record<keyof typeof options, string>> = {
  mdserver: 'The metadata server.',
  loglevels: 'Log levels: debug, info, warning, error and critical.',
  dnsmasq: 'The network of the instances and its dnsmasq.',
  service: 'Answers to /service/, and the metadata versions.',
  'metadata-defaults':
    'Values in meta-data/ for instances that do not have their own. The metadata of a domain overrides them.',
  _include_:
    'More files to read. The last value of an option wins. This section is ignored in included files.',
};

/** The sections whose keys the operator chooses. */
const freeSectionTexts = `[public-keys]
# SSH public keys for the instances: any number of lines "name = key". The key
# "default" has index 0 in the metadata; the others follow in the order of the
# file. Templates can use {{public_key_NAME}} and {{public_keys['NAME']}}.
#
# default = ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI... you@your-desk

[template-data]
# Values for user-data templates: any number of lines "name = value". With the
# line below, {{yaml(proxy)}} in a template prints the value in quotes. Names
# are converted to lower case.
#
# proxy = http://10.122.0.1:3128/
#
# Options of other sections that templates can use under their key, separated by
# commas: {{domain}} and {{port}} for the line below.
#
# _config_items_ = dnsmasq.domain, mdserver.port

[dhcp-options]
# Options of DHCP for all guests that ask for them: any number of lines "name =
# value". The names are those of "dnsmasq --help dhcp"; an option without a name
# has its number. Several addresses or domains are separated by commas.
# dhcp_options in the metadata of a domain overrides them for its instance.
#
# ntp-server = 10.122.0.1
# mtu = 1450
# 252 = http://10.122.0.1/wpad.dat
`;

const head = `# Configuration of mdserver. Options that are commented out show their defaults.
#
# A line that begins with "#" or ";" is a comment; elsewhere these characters
# are part of the value, as are quotes. An indented line continues the value
# above it. Write "%%" for a "%".
`;

function commentLines(text: string): string[] {
  return wrapped(text, width, '# ');
}

function optionLines(key: string, option: Option): string[] {
  const { explanation, defaultInWords } = option;
  const value = defaultInWords === undefined ? (option.default ?? '') : '';
  return [
    ...commentLines(
      defaultInWords === undefined ? explanation : `${explanation} Default: ${defaultInWords}.`,
    ),
    '#',
    // With the "# " removed, the indent makes a long list one value.
    ...wrapped(`${key} = ${value}`.trimEnd(), width, '# ', '#     '),
  ];
}

/** The section, with a blank line between its parts. */
function sectionText(name: string, explanation: string, parts: readonly string[][]): string {
  return [[`[${name}]`, ...commentLines(explanation)], ...parts]
    .map((lines) => `${lines.join('\n')}\n`)
    .join('\n');
}

/**
 * The text of etc/mdserver/mdserver.conf: every option with its explanation, commented out with its
 * default. Only the folder for included files, which system-integration.sh makes, is set.
 */
export function exampleConfig(): string {
  const { _include_, ...sections } = options;
  const tables = Object.entries<Readonly<Record<string, Option>>>(sections).map(
    ([name, sectionOptions]) =>
      sectionText(
        name,
        sectionExplanations[name as keyof typeof sections],
        Object.entries(sectionOptions).map(([key, option]) => optionLines(key, option)),
      ),
  );
  const include = sectionText('_include_', sectionExplanations._include_, [
    [...commentLines(_include_.directories.explanation), 'directories = /etc/mdserver/conf.d'],
    optionLines('files', _include_.files),
  ]);
  return [head, ...tables, freeSectionTexts, include].join('\n');
}
