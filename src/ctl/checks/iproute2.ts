import { runProgram } from '../programs.js';

/** An address of this host, in the JSON of `ip address`. */
export interface HostAddress {
  readonly local: string;
  readonly prefixlen: number;
  /** The kernel does not use an IPv6 address before it has looked for others that have it. */
  readonly tentative?: boolean;
}

/**
 * The addresses of an interface, or of all of them; undefined if there is no `ip` to ask. Not from
 * os.networkInterfaces(), which leaves out an interface without carrier: a bridge without a guest.
 */
export async function addressesOf(name?: string): Promise<readonly HostAddress[] | undefined> {
  const which = name === undefined ? [] : ['dev', name];
  const result = await runProgram('ip', ['-json', 'address', 'show', ...which]);
  if (result?.status !== 0) return undefined;
  const interfaces = JSON.parse(result.stdout || '[]') as { addr_info?: HostAddress[] }[];
  return interfaces.flatMap(({ addr_info }) => addr_info ?? []);
}

/** A process that has a socket. */
export interface SocketOwner {
  readonly pid: number;
  readonly program: string;
}

/** A socket that waits for connections or packets. */
export interface Listener {
  readonly protocol: 'tcp' | 'udp';
  /** `0.0.0.0` is any IPv4 address, `::` any IPv6 address, `*` both. */
  readonly address: string;
  /** The interface that it is bound to, if any (SO_BINDTODEVICE). */
  readonly device: string | undefined;
  readonly port: number;
  /** Undefined if only root can see it. */
  readonly owner: SocketOwner | undefined;
}

/** The sockets in the output of `ss --listening --tcp --udp`. */
export function parseListeners(output: string): Listener[] {
  return output.split('\n').flatMap((line) => {
    // Protocol, state, two queues, own address, the peer's, processes.
    const [protocol, , , , local = '', , ...processes] = line.split(/ +/);
    const [, host = '', port] = /^(.*):(\d+)$/.exec(local) ?? [];
    if (port === undefined || (protocol !== 'tcp' && protocol !== 'udp')) return [];
    const [address = '', device] = host.replace(/[[\]]/g, '').split('%');
    const [, program, pid] = /"(.*?)",pid=(\d+)/.exec(processes.join(' ')) ?? [];
    const owner = program === undefined ? undefined : { program, pid: Number(pid) };
    return [{ protocol, address, device, port: Number(port), owner }];
  });
}

/** The sockets of this host that wait for others; undefined if there is no `ss` to ask. */
export async function listeners(): Promise<readonly Listener[] | undefined> {
  const options = ['--no-header', '--numeric', '--listening', '--tcp', '--udp', '--processes'];
  const result = await runProgram('ss', options);
  return result?.status === 0 ? parseListeners(result.stdout) : undefined;
}

/** "NAME (process N)". */
export function ownerText(owner: SocketOwner | undefined): string {
  return owner === undefined
    ? 'a program that cannot be seen'
    : `${owner.program} (process ${owner.pid})`;
}
