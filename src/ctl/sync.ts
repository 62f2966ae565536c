import type { InstanceSummary } from '../control/api.js';
import { AnswerError, type Control } from './client.js';
import { CommandError } from './failure.js';
import { eachOf, type Virsh } from './run.js';

/** What became of one domain. */
export interface Synced {
  readonly result: 'uploaded' | 'skipped' | 'failed';
  /** Its name; its uuid where even that is not known. */
  readonly name: string;
  /** Its address, or why it has none. */
  readonly detail: string;
}

/** The database record, as an upload is answered. */
export interface UploadAnswer {
  readonly domain_name: string;
  readonly mds_ipv4: string | null;
  readonly mds_mac: string | null;
}

const atOnce = 4;

function linesOf(text: string): string[] {
  return text.split('\n').filter((line) => line !== '');
}

/** The name in a domain XML of libvirt's, for messages. */
function nameIn(xml: string): string | undefined {
  return /<name>([^<]*)<\/name>/.exec(xml)?.[1];
}

/** What libvirt knows. By uuid, since virsh takes a name of digits for a number of its own. */
export interface Domains {
  readonly uuids: readonly string[];
  readonly names: readonly string[];
}

/** All domains, running or not. Throws CommandError. */
export async function listDomains(virsh: Virsh): Promise<Domains> {
  const uuids = linesOf(await virsh('list', '--all', '--uuid'));
  const names = linesOf(await virsh('list', '--all', '--name'));
  return { uuids, names };
}

/**
 * Uploads every domain, a few at a time: a running one as it is now, which is what the hook gets.
 * Throws CommandError when mdserver cannot be reached; what one domain meets is in its result.
 */
export function uploadDomains(
  { uuids }: Domains,
  virsh: Virsh,
  control: Pick<Control, 'post'>,
  progress: (done: number) => void,
): Promise<Synced[]> {
  let done = 0;
  async function upload(uuid: string): Promise<Synced> {
    let name = uuid;
    try {
      const xml = await virsh('dumpxml', uuid);
      name = nameIn(xml) ?? uuid;
      const { domain_name, mds_ipv4 } = await control.post<UploadAnswer>(
        '/instance-upload',
        Buffer.from(xml),
      );
      return { result: 'uploaded', name: domain_name, detail: mds_ipv4 ?? '' };
    } catch (error) {
      // Not reached at all, or no virsh: the next ones would fare no better.
      if (!(error instanceof CommandError) || error.exitCode > 1) throw error;
      const skipped = error instanceof AnswerError && error.status === 422;
      return { result: skipped ? 'skipped' : 'failed', name, detail: error.message };
    } finally {
      done += 1;
      progress(done);
    }
  }
  return eachOf(uuids, atOnce, upload);
}

/**
 * The instances that have no domain any more. Those of another location are not among them: their
 * domains are another host's. `here` is undefined where this one's location is not known.
 */
export function withoutDomain(
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

/** The name of the running domain that has the MAC address. Throws CommandError. */
export async function domainWithMac(virsh: Virsh, mac: string): Promise<string | undefined> {
  const uuids = linesOf(await virsh('list', '--uuid'));
  const found = await eachOf(uuids, atOnce, async (uuid) => {
    try {
      const interfaces = await virsh('domiflist', uuid);
      return interfaces.toLowerCase().includes(mac) ? uuid : undefined;
    } catch (error) {
      // It was stopped between the two questions.
      if (error instanceof CommandError) return undefined;
      throw error;
    }
  });
  const uuid = found.find((candidate) => candidate !== undefined);
  return uuid === undefined ? undefined : (await virsh('domname', uuid)).trim();
}
