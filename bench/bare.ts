import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

/** The response of the bare server to a path, for any client. */
export interface FixedAnswer {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: string;
}

/** The bare server's only argument, as JSON. The server prints its port when it listens. */
export interface BareOptions {
  readonly host: string;
  readonly answers: Record<string, FixedAnswer>;
}

// The reference: plain node:http with precomputed responses.
const { host, answers }: BareOptions = JSON.parse(process.argv[2] ?? '');
const responses = new Map(Object.entries(answers));
const server = createServer((request, response) => {
  const answer = responses.get(request.url ?? '');
  if (answer === undefined) response.writeHead(404).end();
  else response.writeHead(answer.status, answer.headers).end(answer.body);
});
server.listen(0, host, () => {
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
});
