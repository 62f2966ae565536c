import { operand } from '../text.js';
import { mapConcurrently } from './concurrency.js';
import { CommandError, exitCodes } from './errors.js';
import { firstLine, runProgram } from './programs.js';

/** Runs virsh with these arguments and returns its output. Throws CommandError with virsh's message. */
export type Virsh = (...args: string[]) => Promise<string>;

/** The connection URI of libvirt's system instance. */
export const defaultConnection = 'qemu:///system';

/** How many virsh processes run at a time. */
export const maxVirshProcesses = 4;

/** How many domains or ports one virsh process is asked about. */
const batchSize = 100;

/** What virsh says went wrong; why it could not connect is in its second line. */
function problemOf(stderr: string): string {
  const first = firstLine(stderr);
  if (!first.startsWith('failed to connect')) return first;
  const why = firstLine(stderr.slice(stderr.indexOf(first) + first.length));
  return why === '' ? first : `${first}: ${why}`;
}

/**
 * Returns a function that runs virsh with a connection URI. It only reads, and so needs no password
 * where libvirt asks other users for one. `seconds` limits all its runs together, from now on.
 */
export function virshAt(uri: string, seconds?: number): Virsh {
  const signal = seconds === undefined ? undefined : AbortSignal.timeout(seconds * 1000);
  return async (...args) => {
    const line = ['--readonly', '--connect', uri, ...args];
    const result = await runProgram('virsh', line, signal && { signal }).catch((error: Error) => {
      const why = signal?.aborted ? `no answer for ${seconds} seconds` : error.message;
      throw new CommandError(`virsh (${uri}): ${why}`, exitCodes.failed);
    });
    if (result === undefined) {
      throw new CommandError('virsh is not installed: install libvirt-clients', exitCodes.failed);
    }
    if (result.status !== 0) {
      throw new CommandError(`virsh (${uri}): ${problemOf(result.stderr)}`, exitCodes.failed);
    }
    return result.stdout;
  };
}

/** A domain of a libvirt connection. Pass virsh the uuid: it would read a name of digits as an ID. */
export interface LibvirtDomain {
  readonly uuid: string;
  readonly name: string;
  readonly running: boolean;
}

/** All domains, running or not. Throws CommandError. */
export async function listDomains(virsh: Virsh): Promise<LibvirtDomain[]> {
  const all = await virsh('list', '--all', '--uuid', '--name');
  // Asked for last: a domain that started in the meantime runs.
  const running = new Set((await virsh('list', '--uuid')).split('\n'));
  return all.split('\n').flatMap((line) => {
    // A name may have any character but a line feed.
    const [, uuid, name] = /^([0-9a-f-]{36}) (.*)/s.exec(line) ?? [];
    if (uuid === undefined || name === undefined) return [];
    return [{ uuid, name, running: running.has(uuid) }];
  });
}

/** The domain as an operand of virsh in a command that somebody may copy into a shell. */
export function virshOperand({ uuid, name }: Pick<LibvirtDomain, 'uuid' | 'name'>): string {
  return /^\d+$/.test(name) ? uuid : operand(name);
}

/**
 * Runs a command of virsh for each uuid, many in one process. Returns the outputs by uuid. A command
 * that fails, since its domain has stopped in the meantime, has an empty one. Throws CommandError.
 */
async function runForEach(
  virsh: Virsh,
  command: string,
  uuids: readonly string[],
): Promise<Map<string, string>> {
  const batches = Array.from({ length: Math.ceil(uuids.length / batchSize) }, (_, index) =>
    uuids.slice(index * batchSize, (index + 1) * batchSize),
  );
  const outputs = new Map(uuids.map((uuid) => [uuid, '']));
  await mapConcurrently(batches, maxVirshProcesses, async (batch) => {
    const script = batch.map((uuid) => `echo ${uuid}; ${command} ${uuid}`);
    // The status is that of the last command: without the echo, that of a domain that has stopped.
    const output = await virsh(`${script.join('; ')}; echo`);
    let current = '';
    for (const line of output.split('\n')) {
      if (outputs.has(line)) current = line;
      else outputs.set(current, `${outputs.get(current) ?? ''}${line}\n`);
    }
  });
  return outputs;
}

/** An interface of a domain. */
export interface DomainInterface {
  /** The libvirt network or the bridge that it is on; "-" for others. */
  readonly source: string;
  readonly mac: string;
}

/**
 * The interfaces of domains by uuid, in their order: those that a running domain has now. A domain
 * that is gone by now is left out. Throws CommandError.
 */
export async function interfacesOf(
  virsh: Virsh,
  domains: readonly LibvirtDomain[],
): Promise<Map<string, DomainInterface[]>> {
  const uuids = domains.map(({ uuid }) => uuid);
  const found = new Map<string, DomainInterface[]>();
  for (const [uuid, output] of await runForEach(virsh, 'domiflist', uuids)) {
    const [, rows] = output.split(/^-+$/m);
    if (rows === undefined) continue;
    // Interface, type, source, model, MAC address: more than one blank between them.
    const cells = rows.split('\n').map((row) => row.trim().split(/ {2,}/));
    found.set(
      uuid,
      cells.flatMap(([, , source = '', , mac]) => (mac === undefined ? [] : [{ source, mac }])),
    );
  }
  return found;
}

/** A port of a libvirt network: an interface of a running guest. */
export interface NetworkPort {
  /** The domain that it belongs to, perhaps one of another driver of libvirt. */
  readonly owner: Pick<LibvirtDomain, 'uuid' | 'name'>;
  readonly mac: string;
}

/** The ports of a network; none where libvirt does not know any. Throws CommandError. */
export async function networkPorts(virsh: Virsh, network: string): Promise<NetworkPort[]> {
  const networkUuid = (await virsh('net-uuid', network)).trim();
  let list: string;
  try {
    list = await virsh('net-port-list', networkUuid);
  } catch (error) {
    if (error instanceof CommandError && /not supported/.test(error.message)) return [];
    throw error;
  }
  const uuids = list.match(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g) ?? [];
  const outputs = await runForEach(virsh, `net-port-dumpxml ${networkUuid}`, uuids);
  return [...outputs.values()].flatMap((xml) => {
    const [, owner = ''] = /<owner>([\s\S]*?)<\/owner>/.exec(xml) ?? [];
    const mac = /<mac address='([^']*)'/.exec(xml)?.[1];
    if (mac === undefined) return [];
    return [{ owner: { uuid: textIn(owner, 'uuid'), name: textIn(owner, 'name') }, mac }];
  });
}

const references = new Map([
  ['&lt;', '<'],
  ['&gt;', '>'],
  ['&quot;', '"'],
  ['&apos;', "'"],
  ['&amp;', '&'],
]);

/** The text of the first element of this name in what virsh prints; '' if there is none. */
function textIn(xml: string, element: string): string {
  const text = new RegExp(`<${element}>([^<]*)</${element}>`).exec(xml)?.[1] ?? '';
  return text.replace(/&\w+;/g, (reference) => references.get(reference) ?? reference);
}

/** A domain that has a MAC address. */
export interface MacOwner {
  readonly uuid: string;
  readonly name: string;
  readonly running: boolean;
  /** The libvirt network or the bridge of the interface. */
  readonly source: string;
  /** All of its interfaces; none for a domain of another driver. */
  readonly interfaces: readonly DomainInterface[];
}

/**
 * The domain that has the MAC address: a running one, one that has a port on the network, or a
 * stopped one. Undefined if there is none. Throws CommandError.
 */
export async function ownerOfMac(
  virsh: Virsh,
  mac: string,
  network: string,
): Promise<MacOwner | undefined> {
  const domains = await listDomains(virsh);
  const interfaces = await interfacesOf(virsh, domains);
  const owners = domains.flatMap((domain) => {
    const all = interfaces.get(domain.uuid) ?? [];
    return all
      .filter((one) => one.mac === mac)
      .map(({ source }) => ({ ...domain, source, interfaces: all }));
  });
  const running = owners.find((owner) => owner.running);
  if (running !== undefined) return running;
  const port = (await networkPorts(virsh, network)).find((one) => one.mac === mac);
  if (port === undefined) return owners[0];
  return { ...port.owner, running: true, source: network, interfaces: [] };
}
