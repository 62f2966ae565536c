import type { InstanceSummary } from '../../control/api.js';
import { operand } from '../../text.js';
import { AnswerError, type ControlClient } from '../client.js';
import { connectOption, defineCommand, yesOption } from '../command.js';
import { mapConcurrently } from '../concurrency.js';
import { connect, readConfigurationIfPossible } from '../connection.js';
import { CommandError, exitCodes } from '../errors.js';
import { instanceFinder, isHere, lacksDatasource } from '../guests.js';
import { confirm, requireConfirmation } from '../input.js';
import { counted, listed, note, print, printJson, stdoutStyle, table } from '../output.js';
import {
  defaultConnection,
  type LibvirtDomain,
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
  readonly name: string;
  /** Its address, or why it has none. */
  readonly detail: string;
}

/**
 * Uploads every domain, a few at a time: a running one as it is now, as the hook does. A domain's
 * error is in its result. Throws CommandError if mdserver cannot be reached.
 */
function uploadDomains(
  domains: readonly LibvirtDomain[],
  virsh: Virsh,
  control: ControlClient,
  progress: (done: number) => void,
): Promise<DomainResult[]> {
  let done = 0;
  async function uploadOne({ uuid, name }: LibvirtDomain): Promise<DomainResult> {
    try {
      const xml = await virsh('dumpxml', uuid);
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
  return mapConcurrently(domains, maxVirshProcesses, uploadOne);
}

/** Names those whose guests will look nowhere; says nothing if there are none. */
function noteWithoutDatasource(instances: readonly InstanceSummary[]): void {
  // Uploaded several at a time, they have no order of their own.
  const without = instances
    .filter(lacksDatasource)
    .sort((one, other) => (one.name < other.name ? -1 : 1));
  const [first] = without;
  if (first === undefined) return;
  note(
    `${counted(without.length, 'instance')} whose SMBIOS names no datasource of mdserver: ${listed(without, ({ name }) => name)}: see mdserverctl explain ${operand(first.name)}`,
  );
}

/**
 * The instances whose domain no longer exists. Instances of another location are left out: their
 * domains are on another host. `here` is this host's location, undefined if it is not known.
 */
export function instancesWithoutDomain(
  instances: readonly InstanceSummary[],
  domains: readonly LibvirtDomain[],
  here: string | undefined,
): InstanceSummary[] {
  const uuids = new Set(domains.map(({ uuid }) => uuid));
  const names = new Set(domains.map(({ name }) => name));
  return instances.filter(
    (instance) =>
      isHere(instance, here) &&
      !(instance.uuid === null ? names.has(instance.name) : uuids.has(instance.uuid)),
  );
}

/** The records that --prune removes, and the others. */
interface Unwanted {
  readonly orphans: readonly InstanceSummary[];
  /** Those whose domain left the network. */
  readonly left: readonly InstanceSummary[];
  /** Those among them whose guest runs. */
  readonly running: ReadonlySet<InstanceSummary | undefined>;
  /** Those that stay. */
  readonly others: readonly InstanceSummary[];
}

async function findUnwanted(
  control: ControlClient,
  virsh: Virsh,
  here: string | undefined,
): Promise<Unwanted> {
  const known = await control.get<InstanceSummary[]>('/instances');
  // The domains after the records: libvirt has a domain before it has a record.
  const domains = await listDomains(virsh);
  const orphans = instancesWithoutDomain(known, domains, here);
  const left = known.filter(
    (instance) =>
      instance.left_network !== null && isHere(instance, here) && !orphans.includes(instance),
  );
  const instanceOf = instanceFinder([...orphans, ...left]);
  const running = new Set(domains.filter((domain) => domain.running).map(instanceOf));
  const others = known.filter((one) => !orphans.includes(one) && !left.includes(one));
  return { orphans, left, running, others };
}

function resultTable(
  results: readonly DomainResult[],
  orphans: readonly InstanceSummary[],
  left: readonly InstanceSummary[],
) {
  const rows = [
    ...results.map(({ result, name, detail }) => [result, name, detail]),
    ...orphans.map(({ name, ipv4 }) => ['no domain', name, ipv4]),
    ...left.map(({ name, ipv4 }) => ['no interface', name, ipv4]),
  ];
  return table(stdoutStyle, ['RESULT', 'NAME', 'DETAIL'], rows, (text) =>
    text === 'failed' ? 'red' : /^no (domain|interface)$/.test(text) ? 'yellow' : undefined,
  );
}

/** `2 records without a domain, 1 record whose domain left the network` */
function removable(orphans: number, left: number): string {
  const without = `${counted(orphans, 'record')} without a domain`;
  return left === 0
    ? without
    : `${without}, ${counted(left, 'record')} whose domain left the network`;
}

function summary(results: readonly DomainResult[]): string {
  const count = (result: string) => results.filter((one) => one.result === result).length;
  return `${counted(results.length, 'domain')}: ${count('uploaded')} uploaded, ${count('skipped')} skipped (no interface on the network), ${count('failed')} failed`;
}

export const sync = defineCommand({
  name: 'sync',
  usage: [''],
  operands: [0, 0],
  completes: ['none'],
  options: {
    prune: {
      explanation: 'Remove the records whose domain no longer exists, or has left the network.',
    },
    yes: yesOption,
    connect: connectOption,
  },
  summary: 'Upload all libvirt domains.',
  help: [
    'Uploads a running domain as it is now, and a stopped one as it would start. Domains without an interface on the network are skipped and counted.',
    'Lists the records whose domain no longer exists ("no domain"), and those whose domain has no interface on the network any more ("no interface"). --prune removes both, after asking on a terminal; without a terminal, --yes is required too. Records of another location (service.location) stay: their domains are on another host.',
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
    const total = domains.length;
    const results = await uploadDomains(domains, virsh, control, (done) => {
      if (process.stderr.isTTY) process.stderr.write(`\r${done} of ${counted(total, 'domain')}`);
    });
    if (process.stderr.isTTY && total > 0) process.stderr.write('\n');
    const here = readConfigurationIfPossible(options)?.service.location;
    const unwanted = await findUnwanted(control, virsh, here);
    const { orphans, left } = unwanted;

    if (!options.json) print(await resultTable(results, orphans, left));
    const found = removable(orphans.length, left.length);
    const names = new Set([...orphans, ...left].map(({ name }) => name));
    const hint = names.size > 0 && !options.prune ? ' (--prune removes them)' : '';
    note(`${summary(results)}; ${found}${hint}`);
    noteWithoutDatasource(unwanted.others);
    let removed: readonly InstanceSummary[] = [];
    let status: number = results.some(({ result }) => result === 'failed')
      ? exitCodes.failed
      : exitCodes.ok;
    if (options.prune && names.size > 0) {
      if (options.yes || (await confirm(`Remove ${found}?`))) {
        // Not what has come back, or started, before the answer.
        const still = options.yes ? unwanted : await findUnwanted(control, virsh, here);
        const removals = [...still.orphans, ...still.left]
          .filter(({ name }) => names.has(name))
          .map((instance) => ({ name: instance.name, gone: !still.running.has(instance) }));
        const removal = await removeInstances(control, removals, options.json);
        removed = removal.removed;
        // It does not matter if somebody else removed one in the meantime.
        if (removal.status === exitCodes.failed) status = exitCodes.failed;
      } else {
        note('nothing was removed');
      }
    }
    if (options.json)
      printJson({ domains: results, without_domain: orphans, left_network: left, removed });
    return status;
  },
});
