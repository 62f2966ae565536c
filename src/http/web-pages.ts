import { peerAddress } from '../network.js';

/** What the rule below looks at in a request. */
export interface RequestHead {
  /** Names and values in turn, as Node keeps them: the only form that shows a header sent twice. */
  readonly rawHeaders: readonly string[];
  /** The request-target as it was received. */
  readonly target: string;
}

/** Why a request is refused, with the status of the answer. */
export interface Refusal {
  readonly status: 400 | 403 | 421;
  readonly reason: string;
}

/**
 * Hosts that need no configuration: what clients of EC2 ask for (cloud-init's Ec2 datasource also for
 * `instance-data.`), even if a firewall rule takes them to another address. No page can have the
 * addresses as its name.
 */
const wellKnown = new Set(['localhost', 'instance-data', '169.254.169.254', 'fd00:ec2::254']);

/** The headers that only browsers send, and cannot be kept from sending (Fetch 2.2.2). */
const browserHeaders = new Set(['origin', 'sec-fetch-site']);

/** The lengths of `host` and of those: most names have another, and need not be put in lower case. */
const lengths = new Set(['host', ...browserHeaders].map((name) => name.length));

/**
 * The host of an authority such as `[::1]:80` or `Localhost.`: an address as records have it, or a
 * name in lower case without the dot at its end. Undefined if it is not one host with any port.
 */
function hostOf(authority: string): string | undefined {
  const found = /^(?:\[([\da-f]*:[\da-f:.]+(?:%[\w%.-]+)?)\]|([\w.-]{1,255}))(?::\d{0,5})?$/i.exec(
    authority,
  );
  if (found === null) return undefined;
  const [, ipv6, other = ''] = found;
  if (ipv6 !== undefined) return peerAddress(ipv6);
  return peerAddress(other) ?? other.toLowerCase().replace(/\.$/, '');
}

/**
 * Why a request may come from a web page: a page whose site is another (`Origin`, `Sec-Fetch-Site`),
 * or one whose own name was made to resolve to this server (DNS rebinding), which its `Host` shows.
 * Undefined if nothing speaks for that. `isOwn` tells whether a name or an address is this server's,
 * beside those that need no configuration.
 */
export function webPageRefusal(
  { rawHeaders, target }: RequestHead,
  isOwn: (host: string) => boolean,
): Refusal | undefined {
  let named: string | undefined;
  let hasTwo = false;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const header = rawHeaders[index] ?? '';
    if (!lengths.has(header.length)) continue;
    const name = header.toLowerCase();
    if (browserHeaders.has(name)) {
      return { status: 403, reason: `requests of web pages are refused (${name})` };
    }
    if (name !== 'host') continue;
    hasTwo = named !== undefined;
    named = rawHeaders[index + 1] ?? '';
  }
  if (hasTwo) return { status: 400, reason: 'the request has two Host headers' };
  // An absolute target takes the place of the Host header (RFC 9112 3.2.2).
  const authority = target.startsWith('/')
    ? named
    : (/^[a-z][a-z\d+.-]*:\/\/([^/?#]*)/i.exec(target)?.[1] ?? named);
  // Of HTTP/1.0: without a Host, Node refuses HTTP/1.1 itself.
  if (authority === undefined) return undefined;
  // The usual case: as records have it, and without a port.
  if (!authority.includes(':') && (wellKnown.has(authority) || isOwn(authority))) return undefined;
  const host = hostOf(authority);
  if (host === undefined) {
    return { status: 400, reason: 'the host of the request is neither a name nor an address' };
  }
  if (wellKnown.has(host) || isOwn(host)) return undefined;
  return { status: 421, reason: `${host} is not this server (see mdserver.host_names)` };
}
