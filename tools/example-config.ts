import { type Option, options } from '../src/config/options.js';
import { wrapped } from '../src/text.js';

const width = 80;

const sectionExplanations: Readonly<Record<keyof typeof options, string>> = {
  mdserver: 'The metadata server itself.',
  loglevels: 'Levels are debug, info, warning, error and critical.',
  dnsmasq: 'The network of the instances, and the dnsmasq that serves it.',
  service: 'What /service/ and the list of versions tell.',
  'metadata-defaults': 'What meta-data/ says of every instance where nothing better is known.',
  _include_:
    'More files to read. The last value of an option wins. This section counts in the main file only.',
};

/** The sections whose keys are the operator's own. */
const freeSections = `[public-keys]
# SSH public keys for the instances, any number of them: name = key. "default"
# has index 0 in the metadata, the others follow in the order of the file.
# Templates have them as {{public_key_NAME}} and {{public_keys['NAME']}}.
#
# default = ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI... you@your-desk

[template-data]
# Values for user-data templates, any number of them: with "proxy" set as below,
# {{proxy}} gives its value. Keys are read as lower case.
#
# proxy = http://10.122.0.1:3128/
#
# Options from other sections, with commas between, that templates are given
# under their key: {{domain}} and {{port}} for these.
#
# _config_items_ = dnsmasq.domain, mdserver.port
`;

const head = `# Configuration of mdserver. Options that are commented out show their defaults.
#
# A "#" or ";" at the start of a line makes it a comment; inside a value it
# belongs to the value, as quotes do. An indented line continues the value
# above. A "%" is written as "%%".
`;

function commentLines(text: string): string[] {
  return wrapped(text, width, '# ');
}

function optionLines(key: string, option: Option): string[] {
  const { explanation, defaultInWords } = option;
  const shown = defaultInWords === undefined ? (option.default ?? '') : '';
  return [
    ...commentLines(
      defaultInWords === undefined ? explanation : `${explanation} Default: ${defaultInWords}.`,
    ),
    '#',
    // The indent makes a long list one value when the "# " is taken away.
    ...wrapped(`${key} = ${shown}`.trimEnd(), width, '# ', '#     '),
  ];
}

/** The parts of the section, with a blank line between. */
function sectionText(name: string, explanation: string, parts: readonly string[][]): string {
  return [[`[${name}]`, ...commentLines(explanation)], ...parts]
    .map((lines) => `${lines.join('\n')}\n`)
    .join('\n');
}

/**
 * The text of etc/mdserver/mdserver.conf: every option under its explanation, commented out with its
 * default. Only the folder of further files that system-integration.sh makes is switched on.
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
  return [head, ...tables, freeSections, include].join('\n');
}
