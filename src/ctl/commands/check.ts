import { printable } from '../../text.js';
import { defaultConfigFile } from '../../usage.js';
import type { Finding } from '../checks/finding.js';
import { connectOption, defineCommand } from '../command.js';
import { pathPrefix } from '../connection.js';
import { exitCodes } from '../errors.js';
import { coloured, counted, note, print, printJson, stdoutStyle } from '../output.js';
import { defaultConnection } from '../virsh.js';

const levelColours = { ok: 'green', warning: 'yellow', failure: 'red' } as const;

function findingLine({ level, check: subject, text, mend }: Finding): string {
  if (!stdoutStyle.terminal) {
    return `${[level, subject, printable(text), printable(mend ?? '')].join('\t').trimEnd()}\n`;
  }
  const colouredLevel = coloured(stdoutStyle, levelColours[level], level.padEnd(7));
  const line = printable(mend === undefined ? text : `${text}: ${mend}`);
  return `${colouredLevel}  ${subject.padEnd(13)}  ${line}\n`;
}

export const check = defineCommand({
  name: 'check',
  usage: [''],
  operands: [0, 0],
  completes: ['none'],
  options: { connect: connectOption },
  summary: 'Check configuration, templates, dnsmasq and host.',
  help: [
    "Prints one line per finding: ok, a warning or a failure, with the remedy. The exit status is 1 if there is a failure. Also works when mdserver is not running, which counts as a failure. Root sees everything. For a member of the group mdserver, what only root may look at is a warning: not checked. What mdserver's user can write root reads as that user (dnsmasq.user): templates are code, which root must not run.",
    'Names programs that have the ports of mdserver or of its dnsmasq, a network for which libvirt runs a dnsmasq of its own, and what firewalld or ufw keeps from guests.',
    'Compares the records with what libvirt runs on the network and its bridge, and names the MAC addresses without a record to which dnsmasq gave no address in the last hour.',
    'Renders the user-data of every instance. Checks cloud-config as YAML, each distinct text once, and with "cloud-init schema" if cloud-init is installed: one text for each template, at most 50. What that refuses is a warning, because the version of the guest decides.',
  ],
  examples: [
    ['mdserverctl check', ''],
    ['mdserverctl check --json', 'for monitoring'],
  ],
  run: async (_operands, options) => {
    // Imported here, because the checks need most of mdserver: the other commands start faster.
    const { checkAll } = await import('../checks/check-all.js');
    const findings: Finding[] = [];
    const counts = { ok: 0, warning: 0, failure: 0 };
    const all = checkAll({
      configFile: options.config ?? defaultConfigFile,
      socket: options.socket,
      connection: options.connect ?? defaultConnection,
      prefix: pathPrefix,
    });
    for await (const finding of all) {
      counts[finding.level] += 1;
      findings.push(finding);
      if (!options.json) print(findingLine(finding));
    }
    if (options.json) printJson(findings);
    note(
      `${counts.ok} ok, ${counted(counts.warning, 'warning')}, ${counted(counts.failure, 'failure')}`,
    );
    return counts.failure > 0 ? exitCodes.failed : exitCodes.ok;
  },
});
