import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import type { Server } from 'node:http';
import { connect } from 'node:net';
import { basename, dirname, join } from 'node:path';
import type { Config } from '../config/options.js';

/** The path of the control socket. */
export function controlSocketPath({ mdserver, dnsmasq }: Config): string {
  return mdserver.control_socket ?? join(dnsmasq.run_dir, 'control.sock');
}

/** Whether two paths are of one file in one folder, whatever that is called: /var/run is a link. */
function isSamePlace(path: string, other: string): boolean {
  return (
    basename(path) === basename(other) &&
    existsSync(dirname(path)) &&
    realpathSync(dirname(path)) === realpathSync(dirname(other))
  );
}

/**
 * Removes the link that linkSocket has made, for a socket that is to be in its place. Throws the file
 * system's error.
 */
export function removeLink(path: string, folder: string | undefined): void {
  if (folder === undefined || !isSamePlace(path, join(folder, 'control.sock'))) return;
  if (lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink()) rmSync(path);
}

/**
 * Makes control.sock in the folder of the unit, the one place where libvirt's hook looks, a link to a
 * socket elsewhere. Without a unit, there is no such folder. Throws the file system's error.
 */
export function linkSocket(path: string, folder: string | undefined): void {
  if (folder === undefined) return;
  const fixed = join(folder, 'control.sock');
  if (isSamePlace(path, fixed)) return;
  const temporary = `${fixed}.new`;
  rmSync(temporary, { force: true });
  symlinkSync(path, temporary);
  renameSync(temporary, fixed);
}

/** The limit of unix(7). Node silently truncates a longer path. */
const maxPathBytes = 107;

/** Whether a process listens on the socket. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    // A socket whose queue is full also has a listener (connect(2)).
    socket.on('error', ({ code }: NodeJS.ErrnoException) => resolve(code === 'EAGAIN'));
  });
}

/**
 * Listens on a Unix socket that only its owner and group may open. Replaces a socket that a killed
 * process left behind, but neither one that is in use nor another kind of file. Throws an error that
 * says why it cannot listen.
 */
export async function listenOnSocket(server: Server, path: string): Promise<void> {
  if (Buffer.byteLength(path) > maxPathBytes) {
    throw new Error(`${path} is too long for a socket: at most ${maxPathBytes} bytes`);
  }
  mkdirSync(dirname(path), { recursive: true });
  if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) {
    if (!lstatSync(path).isSocket()) throw new Error(`${path} exists and is not a socket`);
    if (await answers(path)) throw new Error(`another mdserver uses ${path}`);
    rmSync(path, { force: true });
  }
  // Created with these permissions, so that nobody else can open it between bind and chmod.
  const before = process.umask(0o117);
  let listening: Promise<void>;
  try {
    listening = new Promise((resolve, reject) => {
      const succeed = () => {
        server.off('error', fail);
        resolve();
      };
      const fail = (error: Error) => {
        server.off('listening', succeed);
        reject(error);
      };
      server.once('error', fail);
      server.listen(path, succeed);
    });
  } finally {
    // The socket is bound by now; files made from here on get their usual permissions.
    process.umask(before);
  }
  await listening;
  chmodSync(path, 0o660);
}
