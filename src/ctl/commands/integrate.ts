import { defaultConfigFile } from '../../usage.js';
import { defineCommand } from '../command.js';
import { pathPrefix, readConfiguration } from '../connection.js';
import { exitCodes } from '../errors.js';
import type { MigrationFinding } from '../migration/finding.js';
import { note, printExactly } from '../output.js';
import { effectiveValues } from './config.js';
import { findingColumns, stepsBefore } from './migrate.js';

/**
 * Prints what system-integration.sh has to know, so that it starts one program: the configuration, what becomes of
 * the Python md_server if there is one, and whether it has to run integrate.
 */
async function printPlan(file: string): Promise<void> {
  const { config, warnings } = readConfiguration({ config: file });
  warnings.forEach(note);
  const [{ needsNothing }, { migration }] = await Promise.all([
    import('../integration.js'),
    import('../migration/migration.js'),
  ]);
  const findings: MigrationFinding[] = [];
  let problem = '';
  try {
    const settings = { prefix: pathPrefix, write: false };
    for await (const finding of migration(file, settings)) findings.push(finding);
  } catch (error) {
    problem = `mdserverctl migrate fails: ${(error as Error).message}`;
    note(problem);
  }
  const isPython = findings.some(({ fate }) => fate === 'replaced');
  const todo = isPython ? stepsBefore(findings) : [];
  todo.forEach(note);
  const rows = [
    ...effectiveValues(config),
    ['plan.migrates', todo.length === 0 && problem === '' ? 'yes' : 'no'],
    ['plan.integrates', needsNothing(config) ? 'no' : 'yes'],
    ...(isPython ? findings.map((finding) => ['plan.fate', findingColumns(finding)]) : []),
  ];
  printExactly(rows.map(([name, value = '']) => `${name}=${value}\n`).join(''));
}

export const integrate = defineCommand({
  name: 'integrate',
  usage: [''],
  operands: [0, 0],
  completes: ['none'],
  options: {
    plan: {
      explanation:
        'Write nothing: print the configuration and what becomes of the Python md_server, for system-integration.sh.',
    },
  },
  summary: 'Fit the systemd units to the paths in the configuration.',
  help: [
    'The units let mdserver write to its usual folders only, as its usual user. For a database, a log, or files of dnsmasq elsewhere, for paths in homes, and for another dnsmasq.user, this writes drop-ins, integrate.conf, for mdserver.service and mdserver-dnsmasq.service, and rules for logrotate; and removes them when they are no longer needed. It makes folders that are missing, as long as only root can write around them, and lets the user read /etc/mdserver by its group.',
    'Only root can run it. Restart mdserver afterwards. mdserver says in its log and in its health report when this has to be run; a new port, address or network never needs it.',
  ],
  examples: [['mdserverctl integrate && systemctl restart mdserver', 'after a new db_file']],
  run: async (_operands, options) => {
    if (options.plan) {
      await printPlan(options.config ?? defaultConfigFile);
      return exitCodes.ok;
    }
    // Imported here, because the other commands start faster without it.
    const { integrateUnits } = await import('../integration.js');
    await integrateUnits(readConfiguration(options).config);
    return exitCodes.ok;
  },
});
