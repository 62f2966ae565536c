import { readFileSync } from 'node:fs';
import type { Config } from '../../config/options.js';
import { DatabaseError, largeRecords, parseDatabase } from '../../instances/instance.js';
import { type Instances, instancesFrom } from '../../instances/instances.js';
import { counted } from '../output.js';
import { checkDnsmasq } from './dnsmasq.js';
import { type Finding, findingsOf, guarded } from './finding.js';
import { checkTemplates } from './templates.js';

/**
 * Runs the checks that read what mdserver's user can write, and run templates. Root must not run
 * them as root: see checkAsDaemon. `access` is the remedy if a file may not be opened.
 */
export async function* checkUntrusted(config: Config, access?: string): AsyncGenerator<Finding> {
  const { findings, instances } = readDatabase(config, access);
  yield* findings;
  yield* guarded('user-data', checkTemplates(config, instances.byName.values()), access);
  yield* guarded('dnsmasq', checkDnsmasq(config, instances), access);
}

function readDatabase(
  { mdserver }: Config,
  access = 'run this with sudo',
): { instances: Instances; findings: Finding[] } {
  const { ok, warning, failure } = findingsOf('database');
  const path = mdserver.db_file;
  const noInstances = (finding: Finding) => ({
    instances: instancesFrom([]).draft,
    findings: [finding],
  });
  try {
    const { draft, superseded } = instancesFrom(parseDatabase(readFileSync(path, 'utf8')));
    const large = largeRecords(draft.byName.values());
    return {
      instances: draft,
      findings: [
        ...(large === undefined ? [] : [warning(`${path} has ${large}`)]),
        ...superseded.map(({ name }) =>
          warning(
            `${path}: an old record of ${name} is ignored, because there is a newer one of the same machine`,
          ),
        ),
        ok(`${path} has ${counted(draft.byName.size, 'instance')}`),
      ],
    };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (error instanceof DatabaseError) {
      const remedy = 'repair it, or move it away to start with an empty database';
      return noInstances(failure(`${path}: ${message}`, remedy));
    }
    if (code === 'ENOENT')
      return noInstances(warning(`${path} does not exist yet: there are no instances`));
    if (code === 'EACCES') return noInstances(failure(message, access));
    if (code === undefined) throw error;
    return noInstances(failure(message));
  }
}
