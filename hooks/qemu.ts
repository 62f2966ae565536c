#!/usr/bin/env node
/*
 * mdserver's libvirt hook (https://libvirt.org/hooks.html). libvirt calls it as
 *
 *     qemu NAME OPERATION SUB-OPERATION EXTRA
 *
 * with the domain's XML on standard input, for every guest, and waits for it:
 *
 * - A status other than 0 keeps the guest from starting and kills a running one at `reconnect`:
 *   this exits 0 whatever happens. mdserver is a convenience of the guest, never its judge.
 * - Standard output replaces the XML at `migrate` and `restore`: nothing is ever written there.
 * - While it runs, libvirt does not go on with that guest: everything below has a limit.
 *
 * It is one file of Node's own modules, since it is installed alone, and CommonJS, which starts
 * in half the time.
 */
import { spawn } from 'node:child_process';
import { type OutgoingHttpHeaders, request } from 'node:http';

/** Where domains are posted to: system-integration.sh fills these lines in from mdserver.conf. */
const controlSocket = '/var/run/mdserver/control.sock';
const uploadUrl = 'http://169.254.169.254:80/instance-upload';

/** The operations, at their `begin`, that a guest comes into being or comes back with. */
const uploadedOperations = ['prepare', 'migrate', 'restore', 'reconnect', 'attach'];

/** Bytes; mdserver takes 1 MiB and says so itself, this only keeps the memory used bounded. */
const domainSizeLimit = 4 * 1024 * 1024;

/** Milliseconds. The whole call is longer than reading and posting, so that it can still tell. */
const connectLimit = 2000;
const uploadLimit = 4000;
const releaseLimit = 1000;
const loggerLimit = 500;
const wholeLimit = 5000;

async function readDomain(): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > domainSizeLimit) throw new Error(`the domain XML is over ${domainSizeLimit} bytes`);
    chunks.push(chunk);
  }
  if (size === 0) throw new Error('there is no domain XML on standard input');
  return Buffer.concat(chunks);
}

/** A request to the control socket, or to the same path over TCP. */
interface Message {
  readonly path: string;
  readonly headers: OutgoingHttpHeaders;
  readonly body: Buffer;
}

/** Posts the message as it stands; throws what kept mdserver from taking it. */
function post({ path, headers, body }: Message, way: 'socket' | 'tcp'): Promise<void> {
  return new Promise((resolve, reject) => {
    // No Accept header: an answer with a body is not asked for.
    const options = { method: 'POST', agent: false, headers } as const;
    const call =
      way === 'socket'
        ? request({ ...options, socketPath: controlSocket, path })
        : request(uploadUrl, options);
    const connecting = setTimeout(() => {
      call.destroy(new Error(`no connection after ${connectLimit} ms`));
    }, connectLimit);
    call.on('socket', (socket) => socket.once('connect', () => clearTimeout(connecting)));
    call.on('error', reject);
    call.on('response', (response) => {
      const status = response.statusCode ?? 0;
      // 422: the guest has no interface on mdserver's network. libvirt calls for those guests too,
      // so there is nothing to tell.
      if ((status >= 200 && status < 300) || status === 422) {
        resolve();
        return;
      }
      const refuse = (reason: string): void => reject(new Error(`it answered ${status} ${reason}`));
      // The reason is one line; a body that goes on and on is not waited for.
      response.once('data', (chunk: Buffer) => refuse(chunk.toString('utf8', 0, 300).trimEnd()));
      response.once('close', () => refuse(''));
    });
    call.end(body);
  });
}

/** Where the upload was last tried, for what is told of it. */
let destination = uploadUrl;

/** On the control socket where there is one: TCP may be closed to uploads. */
async function upload(operation: string): Promise<void> {
  const body = await readDomain();
  const headers = {
    'content-type': 'application/xml',
    'content-length': body.length,
    'x-libvirt-operation': operation,
  };
  const message = { path: '/instance-upload', headers, body };
  try {
    destination = controlSocket;
    await post(message, 'socket');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (!['ENOENT', 'ENOTDIR', 'ECONNREFUSED', 'EACCES', 'EAGAIN'].includes(code ?? ''))
      throw error;
    destination = uploadUrl;
    await post(message, 'tcp');
  }
}

/** Says that the guest is gone, which ends its boot record: nobody misses it where that fails. */
async function reportRelease(name: string): Promise<void> {
  const body = Buffer.from(JSON.stringify({ kind: 'released', name }));
  const headers = { 'content-type': 'application/json', 'content-length': body.length };
  await post({ path: '/events', headers, body }, 'socket').catch(() => undefined);
}

function limit(milliseconds: number): Promise<never> {
  return new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`not done after ${milliseconds} ms`)), milliseconds);
  });
}

/** One line that cannot hold a second one or control a terminal: names come from outside. */
function printable(text: string): string {
  return text.replace(
    /[\0-\x1f\x7f-\x9f\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** Tells standard error and syslog. libvirt shows the first only at its debug level. */
function tell(text: string): Promise<void> {
  const line = printable(text).slice(0, 1000);
  // Nobody may be reading it; then there is still syslog.
  process.stderr.on('error', () => undefined);
  process.stderr.write(`mdserver-hook: ${line}\n`);
  // Node has no unix datagram sockets, which syslog needs: logger(1), and only for bad news.
  const logger = spawn('logger', ['-t', 'mdserver-hook', '-p', 'daemon.warning', '--', line], {
    stdio: 'ignore',
    timeout: loggerLimit,
    killSignal: 'SIGKILL',
  });
  return new Promise((resolve) => {
    logger.on('close', () => resolve());
    // Where there is no logger, standard error has to do.
    logger.on('error', () => resolve());
  });
}

async function run(): Promise<void> {
  const [name = '', operation = '', subOperation = ''] = process.argv.slice(2);
  if (operation === 'release' && subOperation === 'end') {
    return Promise.race([reportRelease(name), limit(releaseLimit)]).catch(() => undefined);
  }
  if (subOperation !== 'begin' || !uploadedOperations.includes(operation)) return;
  try {
    await Promise.race([upload(operation), limit(uploadLimit)]);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    await tell(`${name} (${operation}) was not uploaded to ${destination}: ${reason}`);
  }
}

function finish(): never {
  process.exit(0);
}

// Nothing is known to get here; if something does, the guest must not pay for it.
process.on('uncaughtException', finish);
setTimeout(finish, wholeLimit);
void run().finally(finish);
