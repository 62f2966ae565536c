import { defineCommand } from '../command.js';
import { readConfiguration } from '../connection.js';
import { exitCodes } from '../errors.js';

export const integrate = defineCommand({
  name: 'integrate',
  usage: [''],
  operands: [0, 0],
  completes: ['none'],
  options: {},
  summary: 'Fit the systemd units to the paths in the configuration.',
  help: [
    'The units let mdserver write to its usual folders only, as its usual user. For a database, a log, or files of dnsmasq elsewhere, for paths in homes, and for another dnsmasq.user, this writes drop-ins, integrate.conf, for mdserver.service and mdserver-dnsmasq.service, and rules for logrotate; and removes them when they are no longer needed. It makes folders that are missing, as long as only root can write around them.',
    'Only root can run it. Restart mdserver afterwards. mdserver says in its log and in its health report when this has to be run; a new port, address or network never needs it.',
  ],
  examples: [['mdserverctl integrate && systemctl restart mdserver', 'after a new db_file']],
  run: async (_operands, options) => {
    // Imported here, because the other commands start faster without it.
    const { integrateUnits } = await import('../integration.js');
    await integrateUnits(readConfiguration(options).config);
    return exitCodes.ok;
  },
});
