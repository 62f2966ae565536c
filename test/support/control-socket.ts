import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { killAtEnd, type Scope } from './cleanup.js';
import { type Daemon, startDaemon } from './daemon.js';
import { python } from './parts.js';

/** Starts the daemon, and waits until it serves its control socket, too, or has said that it does not. */
export async function startWithControl(...how: Parameters<typeof startDaemon>): Promise<Daemon> {
  const daemon = await startDaemon(...how);
  await daemon.printed(/mdserverctl is (not )?served/);
  return daemon;
}

/**
 * Listens on a unix socket that takes no connection: its queue of one is full, and emptied only after
 * so many seconds. Then it answers each connection with an empty 200.
 */
export async function listenWhileFull(scope: Scope, path: string, seconds = 60): Promise<void> {
  const program = `import socket, sys, time
server = socket.socket(socket.AF_UNIX); server.bind(sys.argv[1]); server.listen(0)
full = []
try:
    while True:
        client = socket.socket(socket.AF_UNIX); client.setblocking(False); client.connect(sys.argv[1]); full.append(client)
except BlockingIOError:
    print('full', flush=True)
time.sleep(float(sys.argv[2]))
for _ in full: server.accept()
while True:
    with server.accept()[0] as client:
        client.recv(65536); client.sendall(b'HTTP/1.1 200 OK\\r\\ncontent-length: 0\\r\\n\\r\\n')`;
  const busy = spawn(python, ['-c', program, path, String(seconds)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  killAtEnd(scope, busy);
  await once(busy.stdout, 'data');
}
