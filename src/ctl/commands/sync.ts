import type { InstanceSummary } from '../../control/api.js';
import { AnswerError, type ControlClient } from '../client.js';
import { connectOption, defineCommand, yesOption } from '../command.js';
import { mapConcurrently } from '../concurrency.js';
import { connect, readConfigurationIfPossible } from '../connection.js';
import { CommandError, exitCodes } from '../errors.js';
import { confirm, requireConfirmation } from '../input.js';
import { counted, note, print, printJson, stdoutStyle, table } from '../output.js';
import {
  type Domains,
  defaultConnection,
  listDomains,
  maxVirshProcesses,
  type Virsh,
  virshAt,
} from '../virsh.js';
import { removeInstances } from './remove.js';
import { uploadDomain } from './upload.js';

/** The result of uploading one domain. */
interface DomainResult {
  readonly result: 'uploaded' | 'skipped' | 'failed';
  /** Its name; its uuid if the name is not known. */
  readonly name: string;
  /** Its address, or why it has none. */
  readonly detail: string;
}

function nameIn(xml: string): string | undefined {
  return /<name>([^<]*)<\/name>/.exec(xml)?.[1];
}

/**
 * Uploads every domain, a few at a time: a running one as it is now, as the hook does. A domain's
 * error is in its result. Throws CommandError if mdserver cannot be reached.
 */
function uploadDomains(
  { uuids }: Domains,
  virsh: Virsh,
  control: ControlClient,
  progress: (done: number) => void,
): Promise<DomainResult[]> {
  let done = 0;
  async function uploadOne(uuid: string): Promise<DomainResult> {
    let name = uuid;
    try {
      const xml = await virsh('dumpxml', uuid);
      name = nameIn(xml) ?? uuid;
      const { domain_name, mds_ipv4 } = await uploadDomain(control, Buffer.from(xml));
      return { result: 'uploaded', name: domain_name, detail: mds_ipv4 ?? '' };
    } catch (error) {
      // If mdserver or virsh is gone, the other domains would fail in the same way.
      if (!(error instanceof CommandError) || error.exitCode > exitCodes.failed) throw error;
      const skipped = error instanceof AnswerError && error.status === 422;
      return { result: skipped ? 'skipped' : 'failed', name, detail: error.message };
    } finally {
      done += 1;
      progress(done);
    }
  }
  return mapConcurrently(uuids, maxVirshProcesses, uploadOne);
}

/**
 * The instances whose domain no longer exists. Instances of another location are left out: their
 * domains are on another host. `here` is this host's location, undefined if it is not known.
 */
export function instancesWithoutDomain(
  instances: readonly InstanceSummary[],
  { uuids, names }: Domains,
  here: string | undefined,
): InstanceSummary[] {
  const knownUuids = new Set(uuids);
  const knownNames = new Set(names);
  return instances.filter(
    ({ uuid, name, location }) =>
      !(uuid === null ? knownNames.has(name) : knownUuids.has(uuid)) &&
      (here === undefined || location === null || location === here),
  );
}

function resultTable(results: readonly DomainResult[], orphans: readonly InstanceSummary[]) {
  const rows = [
    ...results.map(({ result, name, detail }) => [result, name, detail]),
    ...orphans.map(({ name, ipv4 }) => ['no domain', name, ipv4]),
  ];
  return table(stdoutStyle, ['RESULT', 'NAME', 'DETAIL'], rows, (text) =>
    text === 'failed' ? 'red' : text === 'no domain' ? 'yellow' : undefined,
  );
}

function summary(results: readonly DomainResult[], orphans: number, prune: boolean): string {
  const count = (result: string) => results.filter((one) => one.result === result).length;
  const hint = orphans > 0 && !prune ? ' (--prune removes them)' : '';
  return `${counted(results.length, 'domain')}: ${count('uploaded')} uploaded, ${count('skipped')} skipped (no interface on the network), ${count('failed')} failed; ${counted(orphans, 'record')} without a domain${hint}`;
}

export const sync = defineCommand({
  name: 'sync',
  usage: [''],
  operands: [0, 0],
  completes: ['none'],
  options: {
    prune: { explanation: 'Remove the records whose domain no longer exists.' },
    yes: yesOption,
    connect: connectOption,
  },
  summary: 'Upload all libvirt domains.',
  help: [
    'Uploads a running domain as it is now, and a stopped one as it would start. Domains without an interface on the network are skipped and counted.',
    'Lists the records whose domain no longer exists. --prune removes them, after asking on a terminal; without a terminal, --yes is required too. Records of another location (service.location) stay: their domains are on another host.',
  ],
  examples: [
    ['mdserverctl sync', 'after installing mdserver on a host that has guests'],
    ['mdserverctl sync --prune --yes', 'from a timer'],
  ],
  run: async (_operands, options) => {
    if (options.prune) requireConfirmation('sync --prune', options.yes);
    const control = connect(options);
    const virsh = virshAt(options.connect ?? defaultConnection);
    const domains = await listDomains(virsh);
    const total = domains.uuids.length;
    const results = await uploadDomains(domains, virsh, control, (done) => {
      if (process.stderr.isTTY) process.stderr.write(`\r${done} of ${counted(total, 'domain')}`);
    });
    if (process.stderr.isTTY && total > 0) process.stderr.write('\n');
    const here = readConfigurationIfPossible(options)?.service.location;
    const known = await control.get<InstanceSummary[]>('/instances');
    // The domains are listed again, since one that started in the meantime has a record by now.
    const orphans = instancesWithoutDomain(known, await listDomains(virsh), here);

    if (!options.json) print(await resultTable(results, orphans));
    note(summary(results, orphans.length, options.prune));
    let removed: readonly InstanceSummary[] = [];
    let status: number = results.some(({ result }) => result === 'failed')
      ? exitCodes.failed
      : exitCodes.ok;
    if (options.prune && orphans.length > 0) {
      const question = `Remove ${counted(orphans.length, 'record')} without a domain?`;
      if (options.yes || (await confirm(question))) {
        const names = orphans.map(({ name }) => name);
        const removal = await removeInstances(control, names, options.json);
        removed = removal.removed;
        // It does not matter if somebody else removed one in the meantime.
        if (removal.status === exitCodes.failed) status = exitCodes.failed;
      } else {
        note('nothing was removed');
      }
    }
    if (options.json) printJson({ domains: results, without_domain: orphans, removed });
    return status;
  },
});
