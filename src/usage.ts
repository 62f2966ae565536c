import { wrapped } from './text.js';

/** The configuration that mdserver and mdserverctl read where none is named. */
export const defaultConfigFile = '/etc/mdserver/mdserver.conf';

/** What mdserver takes on its command line, for `--help` and for mdserver(8). */
export const daemonArguments: readonly (readonly [argument: string, explanation: string])[] = [
  ['CONFIG', `configuration file (default: ${defaultConfigFile})`],
  ['-h, --help', 'show this help'],
  ['-V, --version', 'show the version'],
];

export const daemonSummary =
  'Serves EC2 metadata and user-data to the virtual machines of this host, and keeps the configuration of the dnsmasq that gives them their addresses and names.';

/** What SIGHUP does. */
export const reloadWords = 'reads the configuration again and reopens the log file.';

/** The text of `mdserver --help`. */
export const usage = `Usage: mdserver [CONFIG]

${wrapped(daemonSummary, 90).join('\n')}

${daemonArguments.map(([argument, text]) => `  ${argument.padEnd(13)}  ${text}`).join('\n')}

SIGHUP ${reloadWords}
`;
