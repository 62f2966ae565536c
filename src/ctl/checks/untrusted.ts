import type { Config } from '../../config/options.js';
import { DatabaseError } from '../../instances/database-file.js';
import { namingOf } from '../../instances/host-names.js';
import { largeRecords } from '../../instances/instance.js';
import { emptyDraft, type Instances, instancesFrom } from '../../instances/instances.js';
import { jsonFile } from '../../instances/json-file.js';
import { counted } from '../output.js';
import { checkDnsmasq } from './dnsmasq.js';
import { denied, type Finding, findingsOf, guarded, isDenied } from './finding.js';
import { checkTemplates } from './templates.js';

/**
 * Runs the checks that read what mdserver's user can write, and run templates. Root must not run
 * them as root: see checkAsDaemon. `access` is the remedy if a file may not be opened: see `denied`.
 */
export async function* checkUntrusted(config: Config, access?: string): AsyncGenerator<Finding> {
  const { findings, instances } = await readDatabase(config, access);
  yield* findings;
  if (instances !== undefined) {
    yield* guarded('user-data', checkTemplates(config, instances.byName.values(), access), access);
  }
  yield* guarded('dnsmasq', checkDnsmasq(config, instances, access), access);
}

/** The instances; undefined if the database cannot be read. */
async function readDatabase(
  config: Config,
  access: string | undefined,
): Promise<{ instances: Instances | undefined; findings: Finding[] }> {
  const { ok, warning, failure } = findingsOf('database');
  const naming = namingOf(config);
  const unreadable = (finding: Finding) => ({ instances: undefined, findings: [finding] });
  try {
    const backend = jsonFile(config.mdserver.db_file);
    const { isNew, records, warnings } = await backend.load();
    if (isNew) {
      return {
        instances: emptyDraft(naming),
        findings: [warning(`${backend.name} does not exist yet: there are no instances`)],
      };
    }
    const { draft, superseded } = instancesFrom(records, naming);
    const large = largeRecords(records);
    return {
      instances: draft,
      findings: [
        ...warnings.map((text) => warning(text)),
        ...(large === undefined ? [] : [warning(`${backend.name} has ${large}`)]),
        ...superseded.map(({ name }) =>
          warning(
            `${backend.name}: a record of ${name} is ignored, because there is another one of the same machine`,
          ),
        ),
        ok(`${backend.name} has ${counted(draft.byName.size, 'instance')}`),
      ],
    };
  } catch (error) {
    const cause = error instanceof DatabaseError && error.cause ? error.cause : error;
    const { code, message } = cause as NodeJS.ErrnoException;
    if (cause instanceof DatabaseError) return unreadable(failure(cause.problem, cause.remedy));
    if (isDenied(cause)) return unreadable(denied('database', message, access));
    if (code === undefined) throw error;
    return unreadable(failure(message));
  }
}
