import { type Option, options, ownVersion, releaseDate } from '../src/config/options.js';
import { type Command, globalOptions, type OptionTable } from '../src/ctl/command.js';
import { commands } from '../src/ctl/commands/index.js';
import { exitCodeMeanings } from '../src/ctl/errors.js';
import { optionForm } from '../src/ctl/help.js';
import {
  daemonArguments,
  daemonSummary,
  defaultConfigFile,
  reloadExplanation,
} from '../src/usage.js';
import { exampleConfig } from './example-config.js';
import {
  bold,
  definition,
  escaped,
  example,
  italic,
  pageHead,
  paragraph,
  section,
  seeAlso,
  subsection,
  synopsis,
} from './roff.js';

const source = `mdserver ${ownVersion}`;

function optionDefinitions(table: OptionTable): string {
  return Object.entries(table)
    .map(([name, option]) => definition(synopsis(optionForm(name, option)), option.explanation))
    .join('');
}

function commandSection({ name, usage, summary, help, options: own, examples }: Command): string {
  const forms = usage.map((form) => synopsis(`mdserverctl ${name} ${form}`.trimEnd()));
  const exampleLines = examples.map(([line, text]) => (text === '' ? line : `${line}   # ${text}`));
  return [
    subsection(name),
    forms.join('\n.br\n'),
    '\n',
    ...[summary, ...help].map(paragraph),
    optionDefinitions(own),
    example(exampleLines),
  ].join('');
}

/** mdserverctl(1), generated from the commands. */
export function controlManual(): string {
  return [
    pageHead('mdserverctl', 1, releaseDate, source, 'show and manage the instances of mdserver'),
    section('SYNOPSIS'),
    `${bold('mdserverctl')} [${italic('OPTION')}...] ${italic('COMMAND')} [${italic('ARGUMENT')}...]\n`,
    section('DESCRIPTION'),
    escaped(
      'mdserverctl shows the instances that mdserver(8) knows, what they get and what they asked for; it uploads and removes instances, and checks the installation. It uses the control socket of mdserver, which only root and the group mdserver may open.',
    ),
    '\n',
    paragraph(
      'On a terminal, output is in columns under a heading, and in colour. Elsewhere it is one line per item, with tabs between the values and times in UTC, without a heading or colour. "-" means that there is no value. Control characters are shown as \\u and four hexadecimal digits.',
    ),
    section('OPTIONS'),
    optionDefinitions(globalOptions),
    section('COMMANDS'),
    ...commands.map(commandSection),
    section('EXIT STATUS'),
    ...exitCodeMeanings.map(([code, meaning]) => definition(bold(String(code)), meaning)),
    section('ENVIRONMENT'),
    definition(bold('NO_COLOR'), 'If it is set, output has no colour.'),
    definition(
      bold('PREFIX'),
      'A path to put before /etc/libvirt/hooks and before the files that the configuration includes, as system-integration.sh does.',
    ),
    section('FILES'),
    definition(italic(defaultConfigFile), 'The configuration; see mdserver.conf(5).'),
    definition(
      italic(`${options.dnsmasq.run_dir.default}/control.sock`),
      'The control socket, unless mdserver.control_socket or dnsmasq.run_dir is set.',
    ),
    seeAlso(['mdserver', 8], ['mdserver.conf', 5], ['virsh', 1], ['cloud-init', 1]),
  ].join('');
}

/** The comments at the start of a section of the example file, up to a match of `end`. */
function sectionComments(name: string, end: RegExp): string {
  const text = exampleConfig();
  const start = text.indexOf(`[${name}]\n`) + name.length + 3;
  const [own = ''] = text.slice(start).split(end, 1);
  return own.replace(/^# ?/gm, '').trim();
}

/** Comments as paragraphs, and those that begin with "key = value" as examples. */
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

/** mdserver.conf(5), generated from the table of options. */
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
    pageHead('mdserver.conf', 5, releaseDate, source, 'configuration of mdserver'),
    section('SYNOPSIS'),
    `${italic(defaultConfigFile)}\n`,
    section('DESCRIPTION'),
    escaped(
      'The configuration of mdserver(8) consists of sections. A section begins with its name in brackets, followed by lines "key = value" (or "key: value"). Keys are case-insensitive; section names are not. A key in [DEFAULT] applies to every section that does not set it.',
    ),
    '\n',
    paragraph(
      'A line that begins with "#" or ";" is a comment; elsewhere these characters are part of the value, as are quotes. An indented line continues the value above it. Write "%%" for a "%". A section or key that occurs twice in a file is an error; an unknown one is a warning.',
    ),
    paragraph(
      'On SIGHUP (systemctl reload mdserver), mdserver reads the configuration again. If there is an error in it, mdserver keeps the old one. "mdserverctl check" finds errors beforehand, and "mdserverctl config" prints the values in effect.',
    ),
    section('OPTIONS'),
    ...Object.entries<Readonly<Record<string, Option>>>(others).map(([name, entries]) =>
      table(name, entries),
    ),
    free('public-keys'),
    free('template-data'),
    free('dhcp-options'),
    table('_include_', _include_),
    seeAlso(['mdserver', 8], ['mdserverctl', 1], ['dnsmasq', 8]),
  ].join('');
}

/** mdserver(8), generated from its usage and the table of options. */
export function daemonManual(): string {
  const { mdserver, dnsmasq } = options;
  return [
    pageHead('mdserver', 8, releaseDate, source, 'EC2 metadata server for libvirt guests'),
    section('SYNOPSIS'),
    `${synopsis('mdserver [--check] [CONFIG]')}\n`,
    section('DESCRIPTION'),
    `${escaped(daemonSummary)}\n`,
    paragraph(
      'mdserver identifies a guest by its source address. It learns of instances from libvirt\'s hook, which uploads the XML of each domain that starts, or from "mdserverctl upload" and "mdserverctl sync". It also accepts a POST of domain XML to /instance-upload from root on this host.',
    ),
    paragraph(
      'mdserver renders user-data from a template. It takes the first one that exists: the file in mdserver.userdata_dir for the userdata_prefix in the metadata of the domain, for its name, or for its MAC address; mdserver.default_template; a built-in template, unless mdserver.builtin_template is no. A userdata_prefix without a file means no user-data, and so does userdata in the metadata of the domain if it is none.',
    ),
    section('OPTIONS'),
    ...daemonArguments.map(([argument, text]) => definition(synopsis(argument), text)),
    section('SIGNALS'),
    definition(bold('SIGHUP'), reloadExplanation),
    definition(bold('SIGTERM, SIGINT'), 'Finish the requests in progress, then stop.'),
    section('EXIT STATUS'),
    definition(bold('0'), 'Stopped by a signal.'),
    definition(
      bold('1'),
      'mdserver cannot run at the moment: for example, an address is not available or the disk is full.',
    ),
    definition(
      bold('78'),
      'The command line, the configuration or the database has an error. systemd does not restart mdserver until you have corrected it.',
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
