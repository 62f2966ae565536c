import { documentNames } from '../control/api.js';
import { defaultConfigFile } from '../usage.js';

/** What bash completes for an operand or an option's argument. */
export type Completion = 'instance' | 'document' | 'file' | 'uri' | 'none';

export interface CommandOption {
  readonly short?: string;
  /** What stands for its argument; an option without one is a switch. */
  readonly argument?: string;
  readonly completes?: Completion;
  readonly explanation: string;
}

export interface Command {
  /** What follows the command's name, a line for each way to call it. */
  readonly usage: readonly string[];
  /** The least and the most number of operands. */
  readonly operands: readonly [number, number];
  /** For each operand; the last one for all that follow. */
  readonly completes: readonly Completion[];
  readonly options: readonly OptionName[];
  readonly summary: string;
  /** Paragraphs. */
  readonly help: readonly string[];
  readonly examples: readonly (readonly [command: string, explanation: string])[];
}

export type OptionName = keyof typeof commandOptions;
export type CommandName = keyof typeof commands;

/** Every option; the global ones can stand before and after any command. */
export const commandOptions = {
  config: {
    argument: 'FILE',
    completes: 'file',
    explanation: `The configuration of mdserver (default: ${defaultConfigFile}): it says where the control socket is.`,
  },
  socket: {
    argument: 'PATH',
    completes: 'file',
    explanation: 'The control socket, whatever the configuration says.',
  },
  json: { explanation: 'Print JSON, as the control socket answers it.' },
  help: { short: 'h', explanation: 'Show help, on a command after its name.' },
  version: { short: 'V', explanation: 'Show the version.' },
  yes: { short: 'y', explanation: 'Remove without asking.' },
  prune: { explanation: 'Remove the records that have no domain any more.' },
  connect: {
    short: 'c',
    argument: 'URI',
    completes: 'uri',
    explanation: "libvirt's connection URI (default: qemu:///system).",
  },
  'as-xml': {
    argument: 'FILE',
    completes: 'file',
    explanation: 'Render for the domain XML in FILE ("-": standard input) and store nothing.',
  },
} as const satisfies Readonly<Record<string, CommandOption>>;

export const globalOptions: readonly OptionName[] = ['config', 'socket', 'json', 'help', 'version'];

const documents = documentNames.join(', ');

/** Every command: `--help`, mdserverctl(1) and the completion are made from this table. */
export const commands = {
  list: {
    usage: [''],
    operands: [0, 0],
    completes: [],
    options: [],
    summary: 'List the instances.',
    help: [
      'One line for each: name, address, MAC address, location, when its domain was last uploaded, and how far its last boot came.',
      'How far a boot came is one of: started (nothing seen of it yet), address (it has its address by DHCP), asking (it asked for metadata), configured (it has its user-data, or there is none for it), failed (its user-data could not be made, or its token was refused), home (it phoned home), ended (it was stopped before it asked for anything). Boots are kept in memory: "-" means none since mdserver started.',
    ],
    examples: [['mdserverctl list | cut -f 1,2', 'names and addresses, for a script']],
  },
  show: {
    usage: ['NAME'],
    operands: [1, 1],
    completes: ['instance', 'none'],
    options: [],
    summary: 'Show all that is known of an instance.',
    help: ['Its record, names in DNS, metadata of its domain, hardware, and its last boots.'],
    examples: [['mdserverctl show web1', '']],
  },
  remove: {
    usage: ['NAME...'],
    operands: [1, Number.POSITIVE_INFINITY],
    completes: ['instance'],
    options: ['yes'],
    summary: 'Remove instances.',
    help: [
      'The address and the names are free at once, in DHCP and in DNS. The domain itself is not touched: when it starts again, the hook brings the instance back, with another address.',
      'It asks on a terminal; elsewhere --yes is needed. Of several names those that exist are removed; the exit status is 4 if one did not.',
    ],
    examples: [['mdserverctl remove --yes web1 web2', 'without asking']],
  },
  upload: {
    usage: ['FILE|-'],
    operands: [1, 1],
    completes: ['file', 'none'],
    options: [],
    summary: "Upload a domain XML, as libvirt's hook does.",
    help: [
      'It is answered when the instance is on the disk and dnsmasq knows it. "-" is standard input.',
    ],
    examples: [['virsh dumpxml web1 | mdserverctl upload -', 'a domain that the hook missed']],
  },
  sync: {
    usage: [''],
    operands: [0, 0],
    completes: ['none'],
    options: ['prune', 'yes', 'connect'],
    summary: 'Upload every domain that libvirt knows.',
    help: [
      'Domains are taken as the hook gets them: what a running one has now, what any other starts with. Those without an interface on the network are skipped and counted.',
      'Records that have no domain any more are named; --prune removes them, after asking on a terminal; elsewhere it needs --yes. Records of another location (service.location) are left alone: their domains are on another host.',
    ],
    examples: [
      ['mdserverctl sync', 'after installing mdserver on a host that has guests'],
      ['mdserverctl sync --prune --yes', 'from a timer'],
    ],
  },
  render: {
    usage: ['NAME [DOCUMENT]', '--as-xml FILE [DOCUMENT]'],
    operands: [0, 2],
    completes: ['instance', 'document', 'none'],
    options: ['as-xml'],
    summary: 'Print what a guest would get now.',
    help: [
      `DOCUMENT is one of ${documents} (default: user-data). It is printed byte for byte; the file it came from is named on standard error. "tree" is all that the guest can ask for.`,
      "A template's error is shown with its file and line; the exit status is 1 then, and when the guest would get nothing (404).",
    ],
    examples: [
      ['mdserverctl render web1', 'its user-data'],
      ['mdserverctl render web1 meta-data', 'its metadata, as NoCloud has it'],
      [
        'mdserverctl render --as-xml new.xml > user-data',
        'for an instance that does not exist yet',
      ],
    ],
  },
  explain: {
    usage: ['NAME|ADDRESS'],
    operands: [1, 1],
    completes: ['instance', 'none'],
    options: ['connect'],
    summary: 'Say in words what happened when an instance booted.',
    help: [
      'What it asked for, when, what it got, what is missing, and what that likely means.',
      "An address that is no instance's is looked for in the kernel's neighbour table and, by its MAC address, among the domains that run. The exit status is 4 then.",
    ],
    examples: [
      ['mdserverctl explain web1', '"why did it get no user-data?"'],
      ['mdserverctl explain 10.122.7.9', '"whose address is this?"'],
    ],
  },
  check: {
    usage: [''],
    operands: [0, 0],
    completes: ['none'],
    options: ['connect'],
    summary: 'Check configuration, templates, dnsmasq, hook and network.',
    help: [
      'Each line is ok, a warning or a failure, with the mend; the exit status is 1 if there is a failure. It works with the daemon down, too, which is a failure of its own. To be run as root, who may read everything.',
      'User-data is rendered for every instance. Cloud-config is checked as YAML for each distinct text, and by "cloud-init schema" where that is installed: one text for each template, 50 at most.',
    ],
    examples: [
      ['mdserverctl check', ''],
      ['mdserverctl check --json', 'for monitoring'],
    ],
  },
  'known-hosts': {
    usage: ['[NAME...]'],
    operands: [0, Number.POSITIVE_INFINITY],
    completes: ['instance'],
    options: [],
    summary: 'Print ssh host keys for ~/.ssh/known_hosts.',
    help: [
      'The keys that guests phoned home with (the phone_home module of cloud-init), under their names in DNS and their addresses; the newest ones. All instances that have phoned home where none is named.',
      'That keys have changed since an earlier boot is said on standard error: a guest that was installed anew does that, and so does somebody who took its place. The exit status is 1 if an instance that is named has no keys.',
    ],
    examples: [['mdserverctl known-hosts web1 >> ~/.ssh/known_hosts', '']],
  },
} as const satisfies Readonly<Record<string, Command>>;

/** The exit statuses of mdserverctl. */
export const exitCodes = {
  ok: 0,
  failed: 1,
  usage: 2,
  unreachable: 3,
  unknownInstance: 4,
} as const;

export const exitCodeMeanings: readonly (readonly [code: number, meaning: string])[] = [
  [exitCodes.ok, 'All is well.'],
  [
    exitCodes.failed,
    'It failed: a check found a failure, a template has an error, a guest would get nothing, a domain was refused, mdserver answered with an error.',
  ],
  [exitCodes.usage, 'The command line is wrong.'],
  [
    exitCodes.unreachable,
    'mdserver does not run, or the control socket or the configuration may not be opened.',
  ],
  [exitCodes.unknownInstance, 'There is no such instance.'],
];

/** The commands in order, without the exact types: for what goes over all of them. */
export const commandTable: ReadonlyMap<string, Command> = new Map(
  Object.entries<Command>(commands),
);

export function commandNamed(name: CommandName): Command {
  return commands[name];
}

/** An option's entry, without the exact type. */
export function optionNamed(name: OptionName): CommandOption {
  return commandOptions[name];
}
