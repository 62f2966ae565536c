import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What the bare server answers to a path, whoever asks. */
export interface FixedAnswer {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: string;
}

/** What the bare server is told, as JSON in its one argument. It prints its port when it serves. */
export interface BareOptions {
  readonly host: string;
  readonly answers: Record<string, FixedAnswer>;
}

// The measure of things: node:http with nothing on it, that knows its answers beforehand.
const { host, answers }: BareOptions = JSON.parse(process.argv[2] ?? '');
const known = new Map(Object.entries(answers));
const server = createServer((request, response) => {
  const answer = known.get(request.url ?? '');
  if (answer === undefined) response.writeHead(404).end();
  else response.writeHead(answer.status, answer.headers).end(answer.body);
});
server.listen(0, host, () => {
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
});
