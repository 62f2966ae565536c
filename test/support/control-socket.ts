import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type IncomingHttpHeaders, request } from 'node:http';
import { killAtEnd, type Scope } from './cleanup.js';
import { type Daemon, startDaemon } from './daemon.js';
import { python } from './parts.js';

/** An answer of the control socket. */
export interface ControlAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** Status, and the body as the JSON that it is. Throws when it is none. */
  readonly json: () => { status: number; body: unknown };
}

export interface ControlAsking {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string | Buffer;
}

/** One request over a connection of its own to a unix socket. */
export function askControl(
  socketPath: string,
  path: string,
  { method = 'GET', headers = {}, body }: ControlAsking = {},
): Promise<ControlAnswer> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, path, method, headers, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => (text += chunk));
      response.on('error', reject);
      response.on('end', () => {
        const { statusCode: status = 0, headers: received } = response;
        const json = () => ({ status, body: JSON.parse(text) as unknown });
        resolve({ status, headers: received, text, json });
      });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

/** Starts the daemon, and waits until it serves its control socket, too, or has said that it does not. */
export async function startWithControl(...how: Parameters<typeof startDaemon>): Promise<Daemon> {
  const daemon = await startDaemon(...how);
  await daemon.printed(/mdserverctl is (not )?served/);
  return daemon;
}

/** Listens on a unix socket that takes no connection: its queue of one is full, and never emptied. */
export async function listenWhileFull(scope: Scope, path: string): Promise<void> {
  const program = `import socket, sys, time
server = socket.socket(socket.AF_UNIX); server.bind(sys.argv[1]); server.listen(0)
full = []
try:
    while True:
        client = socket.socket(socket.AF_UNIX); client.setblocking(False); client.connect(sys.argv[1]); full.append(client)
except BlockingIOError:
    print('full', flush=True)
time.sleep(60)`;
  const busy = spawn(python, ['-c', program, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  killAtEnd(scope, busy);
  await once(busy.stdout, 'data');
}
