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
