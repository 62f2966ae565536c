import { chmodSync, lstatSync, mkdirSync, rmSync } from 'node:fs';
import type { Server } from 'node:http';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import type { Config } from '../config/options.js';

/** Where the control socket is. */
export function controlSocketPath({ mdserver, dnsmasq }: Config): string {
  return mdserver.control_socket ?? join(dnsmasq.run_dir, 'control.sock');
}

/** unix(7), in bytes. Node would cut a longer one without a word. */
const longestPath = 107;

/** Whether somebody answers on the socket. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    // One whose queue is full for the moment is somebody's, too (connect(2)).
    socket.on('error', ({ code }: NodeJS.ErrnoException) => resolve(code === 'EAGAIN'));
  });
}

/**
 * Has the server listen on a unix socket that its owner and group alone may open. One that was
 * left behind by a killed process is replaced; one that is in use, or no socket, is not.
 * Throws an error that says why it cannot.
 */
export async function listenOnSocket(server: Server, path: string): Promise<void> {
  if (Buffer.byteLength(path) > longestPath) {
    throw new Error(
      `${path} is longer than the ${longestPath} bytes that a socket's path may have`,
    );
  }
  mkdirSync(dirname(path), { recursive: true });
  if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) {
    if (!lstatSync(path).isSocket()) throw new Error(`${path} is there and is no socket`);
    if (await answers(path)) throw new Error(`${path} is another mdserver's`);
    rmSync(path, { force: true });
  }
  // The socket is made with these permissions: between bind and chmod there is no moment for others.
  const before = process.umask(0o117);
  let listening: Promise<void>;
  try {
    listening = new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, () => {
        server.off('error', reject);
        resolve();
      });
    });
  } finally {
    // It is bound by now: what else is under way makes its files as ever.
    process.umask(before);
  }
  await listening;
  chmodSync(path, 0o660);
}
