import { type Option, options, ownVersion, releaseDate } from '../src/config/options.js';
import {
  commandTable,
  exitCodeMeanings,
  globalOptions,
  type OptionName,
  optionNamed,
} from '../src/ctl/commands.js';
import { optionForm } from '../src/ctl/help.js';
import { daemonArguments, daemonSummary, defaultConfigFile, reloadWords } from '../src/usage.js';
import { exampleConfig } from './example-config.js';
import {
  bold,
  definition,
  escaped,
  example,
  head,
  italic,
  paragraph,
  section,
  seeAlso,
  subsection,
  synopsis,
} from './roff.js';

const source = `mdserver ${ownVersion}`;

function optionDefinitions(names: readonly OptionName[]): string {
  return names
    .map((name) => definition(synopsis(optionForm(name)), optionNamed(name).explanation))
    .join('');
}

function commandSection(name: string): string {
  const command = commandTable.get(name);
  if (command === undefined) return '';
  const { usage, summary, help, options: own, examples } = command;
  const forms = usage.map((form) => synopsis(`mdserverctl ${name} ${form}`.trimEnd()));
  const shown = examples.map(([line, text]) => (text === '' ? line : `${line}   # ${text}`));
  return [
    subsection(name),
    forms.join('\n.br\n'),
    '\n',
    ...[summary, ...help].map(paragraph),
    optionDefinitions(own),
    example(shown),
  ].join('');
}

/** mdserverctl(1), from the table of commands. */
export function controlManual(): string {
  return [
    head('mdserverctl', 1, releaseDate, source, 'ask and tell the mdserver of this host'),
    section('SYNOPSIS'),
    `${bold('mdserverctl')} [${italic('OPTION')}...] ${italic('COMMAND')} [${italic('ARGUMENT')}...]\n`,
    section('DESCRIPTION'),
    escaped(
      'mdserverctl shows the instances that mdserver(8) knows, what they get and what they asked for, and removes and uploads them. It talks to the control socket, which root and the group mdserver alone may use.',
    ),
    '\n',
    paragraph(
      'On a terminal it prints columns under a heading, in colours. Elsewhere it prints a line for each thing, with tabs between the values, times in UTC, no heading and no colours; "-" stands for no value. Control characters in names and in what guests sent are shown as \\u and four digits.',
    ),
    section('OPTIONS'),
    optionDefinitions(globalOptions),
    section('COMMANDS'),
    ...[...commandTable.keys()].map(commandSection),
    section('EXIT STATUS'),
    ...exitCodeMeanings.map(([code, meaning]) => definition(bold(String(code)), meaning)),
    section('ENVIRONMENT'),
    definition(bold('NO_COLOR'), 'No colours, when it is set to anything.'),
    definition(
      bold('PREFIX'),
      'Put before /etc/libvirt/hooks by check, as system-integration.sh does.',
    ),
    section('FILES'),
    definition(italic(defaultConfigFile), 'The configuration; see mdserver.conf(5).'),
    definition(
      italic(`${options.dnsmasq.run_dir.default}/control.sock`),
      'The control socket, where neither mdserver.control_socket nor dnsmasq.run_dir says otherwise.',
    ),
    seeAlso(['mdserver', 8], ['mdserver.conf', 5], ['virsh', 1], ['cloud-init', 1]),
  ].join('');
}

/** The comments of a section of the example file, up to where `end` matches. */
function sectionComments(name: string, end: RegExp): string {
  const text = exampleConfig();
  const start = text.indexOf(`[${name}]\n`) + name.length + 3;
  const [own = ''] = text.slice(start).split(end, 1);
  return own.replace(/^# ?/gm, '').trim();
}

/** Paragraphs and, where a part begins with "key = value", examples. */
function introduction(comments: string): string {
  return comments
    .split(/\n\n+/)
    .map((part) =>
      /^\S+ = /.test(part) ? example(part.split('\n')) : paragraph(part.replaceAll('\n', ' ')),
    )
    .join('');
}

function optionDefinition(key: string, option: Option): string {
  const { explanation, expected, default: standard, defaultInWords, restart } = option;
  const value = defaultInWords ?? (standard === undefined ? 'none' : standard || 'empty');
  return definition(
    bold(key),
    explanation,
    `Value: ${expected}. Default: ${value}.${restart ? ' A change needs a restart.' : ''}`,
  );
}

/** mdserver.conf(5), from the table of options. */
export function configManual(): string {
  const { _include_, ...others } = options;
  const table = (name: string, entries: Readonly<Record<string, Option>>) =>
    [
      subsection(`[${name}]`),
      // An option's own comment follows after a blank line.
      introduction(sectionComments(name, /\n\n/)),
      ...Object.entries(entries).map(([key, option]) => optionDefinition(key, option)),
    ].join('');
  const free = (name: string) =>
    subsection(`[${name}]`) + introduction(sectionComments(name, /\n\[/));
  return [
    head('mdserver.conf', 5, releaseDate, source, 'configuration of mdserver'),
    section('SYNOPSIS'),
    `${italic(defaultConfigFile)}\n`,
    section('DESCRIPTION'),
    escaped(
      'The configuration of mdserver(8): sections in brackets, each with lines "key = value" (or "key: value"). Keys are the same in capitals and small letters, sections are not.',
    ),
    '\n',
    paragraph(
      'A "#" or ";" at the start of a line makes it a comment; inside a value it belongs to the value, as quotes do. An indented line continues the value above. A "%" is written as "%%". A section, or a key of a section, that stands twice in one file is an error; an unknown one is a warning.',
    ),
    paragraph(
      'SIGHUP (systemctl reload mdserver) has mdserver read it again. A configuration with an error is refused: the one in force stays. mdserverctl(1) check finds errors before that.',
    ),
    section('OPTIONS'),
    ...Object.entries<Readonly<Record<string, Option>>>(others).map(([name, entries]) =>
      table(name, entries),
    ),
    free('public-keys'),
    free('template-data'),
    table('_include_', _include_),
    seeAlso(['mdserver', 8], ['mdserverctl', 1], ['dnsmasq', 8]),
  ].join('');
}

/** mdserver(8), from its usage. */
export function daemonManual(): string {
  const { mdserver, dnsmasq } = options;
  return [
    head('mdserver', 8, releaseDate, source, 'EC2 metadata server for libvirt guests'),
    section('SYNOPSIS'),
    `${synopsis('mdserver [CONFIG]')}\n`,
    section('DESCRIPTION'),
    `${escaped(daemonSummary)}\n`,
    paragraph(
      "Guests are found by their source address. They come to be known by libvirt's hook, which uploads the XML of each domain that starts, or by mdserverctl(1) upload and sync; POST /instance-upload takes one from this host, too.",
    ),
    paragraph(
      'User-data comes from templates in mdserver.userdata_dir, by the userdata_prefix in the metadata of the domain, else by its name, else by its MAC address, else from mdserver.default_template, else from a built-in template.',
    ),
    section('OPTIONS'),
    ...daemonArguments.map(([argument, text]) => definition(synopsis(argument), text)),
    section('SIGNALS'),
    definition(bold('SIGHUP'), `It ${reloadWords}`),
    definition(bold('SIGTERM, SIGINT'), 'Answers what is under way, then ends.'),
    section('EXIT STATUS'),
    definition(bold('0'), 'It was told to stop.'),
    definition(bold('1'), 'It cannot run now: an address cannot be served on, a disk is full.'),
    definition(
      bold('78'),
      'The command line, the configuration or the database has to be mended first; systemd does not try again.',
    ),
    section('FILES'),
    definition(italic(defaultConfigFile), 'The configuration; see mdserver.conf(5).'),
    definition(italic(mdserver.userdata_dir.default ?? ''), mdserver.userdata_dir.explanation),
    definition(italic(mdserver.db_file.default ?? ''), mdserver.db_file.explanation),
    definition(italic(dnsmasq.base_dir.default ?? ''), dnsmasq.base_dir.explanation),
    definition(
      italic(`${dnsmasq.run_dir.default}/control.sock`),
      mdserver.control_socket.explanation,
    ),
    definition(italic(mdserver.logfile.default ?? ''), mdserver.logfile.explanation),
    seeAlso(['mdserver.conf', 5], ['mdserverctl', 1], ['dnsmasq', 8], ['virsh', 1]),
  ].join('');
}
