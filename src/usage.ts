import { wrapped } from './text.js';

/** The configuration that mdserver and mdserverctl read by default. */
export const defaultConfigFile = '/etc/mdserver/mdserver.conf';

/** The command line of mdserver, for `--help` and mdserver(8). */
export const daemonArguments: readonly (readonly [argument: string, explanation: string])[] = [
  ['CONFIG', `Configuration file (default: ${defaultConfigFile}).`],
  [
    '--check',
    'Only check the configuration and the database: say what is wrong with them, and end with status 78 if mdserver would not start.',
  ],
  ['-h, --help', 'Show this help.'],
  ['-V, --version', 'Show the version.'],
];

/** What mdserver does, for `--help` and mdserver(8). */
export const daemonSummary =
  'Serves EC2 metadata and user-data to the virtual machines of this host, and writes the configuration of the dnsmasq that gives them their addresses and names.';

/** What SIGHUP does. */
export const reloadExplanation = 'Read the configuration again and reopen the log file.';

/** The text of `mdserver --help`. */
export const usage = `Usage: mdserver [--check] [CONFIG]

${wrapped(daemonSummary, 90).join('\n')}

${daemonArguments.flatMap(([argument, text]) => wrapped(text, 90, `  ${argument.padEnd(13)}  `, ' '.repeat(17))).join('\n')}

Signals:
  SIGHUP         ${reloadExplanation}
`;
