import fc from 'fast-check';

/** Parts of requests, at random: of paths, of headers, and of what is no HTTP at all. */
export interface HostileRequests {
  readonly path: fc.Arbitrary<string>;
  readonly headers: fc.Arbitrary<Record<string, string>>;
  readonly method: fc.Arbitrary<string>;
  /** Bytes that are seldom whole requests. */
  readonly bytes: fc.Arbitrary<Buffer>;
}

/**
 * What guests at random send. `identities` are names, uuids, MAC addresses and addresses of guests
 * and of the host, which some paths and headers name.
 */
export function hostileRequests(identities: readonly string[]): HostileRequests {
  const fragment = fc.constantFrom(
    ...['/', '//', '..', '.', '%2e%2e', '%2f', '%5c', '%00', '%25', '%', '?', '#', ';', '\\', '='],
    ...['@', 'latest', '2009-04-04', '1.0', 'nocloud', 'openstack', 'service', 'meta-data'],
    ...['user-data', 'user_data', 'meta_data.json', 'network', 'interfaces', 'macs', 'tags'],
    ...['instance', 'Note', 'public-keys', '0', 'openssh-key', 'default', 'api', 'token'],
    ...['configuration', 'dynamic', '__proto__', 'constructor', 'http://', 'instance-upload'],
    ...identities,
  );
  // Printable ASCII without the blank: what a request line can hold.
  const anyText = fc.string({ maxLength: 20 }).map((text) => text.replace(/[^\x21-\x7e]/g, ''));
  const randomPath = fc
    .array(fc.oneof({ weight: 4, arbitrary: fragment }, anyText), { maxLength: 12 })
    .map((parts) => `/${parts.join('')}`);
  const slashedPath = fc
    .array(fc.oneof({ weight: 6, arbitrary: fragment }, anyText), { maxLength: 8 })
    .map((parts) => `/${parts.join('/')}`);
  const headerName = fc.constantFrom(
    ...['x-forwarded-for', 'forwarded', 'x-real-ip', 'host', 'via', 'user-agent', 'accept'],
    ...['range', 'x-aws-ec2-metadata-token', 'x-aws-ec2-metadata-token-ttl-seconds'],
    ...['content-type', 'if-none-match', 'if-modified-since', 'expect', 'te', 'accept-encoding'],
    'x-original-url',
  );
  const headerValue = fc.oneof(
    fc.constantFrom(...identities, '60', '', '*', 'bytes=0-'),
    fc.string({ maxLength: 30 }).map((text) => text.replace(/[^\x20-\x7e]/g, '')),
  );
  const piece = fc.oneof(
    fragment,
    fc.constantFrom('GET ', 'PUT ', 'POST ', ' HTTP/1.1\r\n', ' HTTP/1.0\r\n', '\r\n', '\r\n\r\n'),
    fc.constantFrom(
      'Host: localhost\r\n',
      'Connection: close\r\n',
      'Content-Length: 5\r\n',
      '\n',
      '\r',
    ),
    fc.constantFrom('Transfer-Encoding: chunked\r\n', '0\r\n\r\n', '5\r\nabcde\r\n'),
    fc.uint8Array({ maxLength: 8 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
  );
  return {
    path: fc.oneof(slashedPath, randomPath),
    headers: fc.dictionary(headerName, headerValue, { maxKeys: 4, noNullPrototype: true }),
    method: fc.constantFrom('GET', 'GET', 'GET', 'PUT', 'POST', 'HEAD', 'DELETE', 'OPTIONS'),
    bytes: fc
      .array(piece, { minLength: 1, maxLength: 15 })
      .map((pieces) => Buffer.from(`${pieces.join('')}\r\n\r\n`, 'latin1')),
  };
}
