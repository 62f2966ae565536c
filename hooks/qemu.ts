#!/usr/bin/env node
/*
 * mdserver's libvirt hook (https://libvirt.org/hooks.html). libvirt calls it as
 *
 *     qemu NAME OPERATION SUB-OPERATION EXTRA
 *
 * with the domain's XML on standard input, for every guest, and waits for it to end:
 *
 * - With a status other than 0, libvirt does not start the guest, or kills a running one at
 *   `reconnect`. The hook always exits with 0: a guest must start even if mdserver fails.
 * - At `migrate` and `restore`, standard output replaces the XML. The hook never writes there.
 * - libvirt does nothing with the guest until the hook ends, so everything below has a time limit.
 *
 * The hook is installed as a single file, so it uses only Node's own modules. It is CommonJS, which
 * starts twice as fast.
 */
import { spawn } from 'node:child_process';
import { type OutgoingHttpHeaders, request } from 'node:http';

/** Where to post domains: system-integration.sh fills in these lines from mdserver.conf. */
const controlSocket = '/var/run/mdserver/control.sock';
const uploadUrl = 'http://169.254.169.254:80/instance-upload';

/** The operations that start or resume a guest; the hook uploads at their `begin`. */
const uploadedOperations = ['prepare', 'migrate', 'restore', 'reconnect', 'attach'];

/** Bytes. This limits the memory used; mdserver itself rejects more than 1 MiB. */
const domainSizeLimit = 4 * 1024 * 1024;

/** Milliseconds. The limit for everything leaves time to report an upload that took too long. */
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
    if (size > domainSizeLimit)
      throw new Error(`the domain XML has more than ${domainSizeLimit} bytes`);
    chunks.push(chunk);
  }
  if (size === 0) throw new Error('no domain XML on standard input');
  return Buffer.concat(chunks);
}

/** A request to the control socket, or to the same path over TCP. */
interface Message {
  readonly path: string;
  readonly headers: OutgoingHttpHeaders;
  readonly body: Buffer;
}

/** Posts the message. Throws if mdserver does not accept it. */
function post({ path, headers, body }: Message, transport: 'socket' | 'tcp'): Promise<void> {
  return new Promise((resolve, reject) => {
    // Without an Accept header, mdserver's answer has no body.
    const options = { method: 'POST', agent: false, headers } as const;
    const call =
      transport === 'socket'
        ? request({ ...options, socketPath: controlSocket, path })
        : request(uploadUrl, options);
    const connecting = setTimeout(() => {
      call.destroy(new Error(`no connection after ${connectLimit} ms`));
    }, connectLimit);
    call.on('socket', (socket) => socket.once('connect', () => clearTimeout(connecting)));
    call.on('error', reject);
    call.on('response', (response) => {
      const status = response.statusCode ?? 0;
      // 422: the guest has no interface on mdserver's network. libvirt also runs the hook for those
      // guests, so this is not an error.
      if ((status >= 200 && status < 300) || status === 422) {
        resolve();
        return;
      }
      const refuse = (reason: string): void =>
        reject(new Error(`mdserver answered ${status} ${reason}`));
      // The reason is one line: do not wait for a body that never ends.
      response.once('data', (chunk: Buffer) => refuse(chunk.toString('utf8', 0, 300).trimEnd()));
      response.once('close', () => refuse(''));
    });
    call.end(body);
  });
}

/** Where the last upload attempt went, for the error message. */
let destination = uploadUrl;

/** Uploads on the control socket, or over TCP if the socket cannot be used. */
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

/** Reports that the guest has stopped, which ends its boot record. Errors are ignored: nothing depends on it. */
async function reportRelease(name: string): Promise<void> {
  const body = Buffer.from(JSON.stringify({ kind: 'released', name }));
  const headers = { 'content-type': 'application/json', 'content-length': body.length };
  await post({ path: '/events', headers, body }, 'socket').catch(() => undefined);
}

function limit(milliseconds: number): Promise<never> {
  return new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`not finished after ${milliseconds} ms`)), milliseconds);
  });
}

/** The deceptive characters of src/text.ts, which says why; a test holds the two equal. */
const deceptiveCharacters =
  /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}\p{Default_Ignorable_Code_Point}\ufff9-\ufffb\p{Noncharacter_Code_Point}\p{Cs}]/gu;

/** The text as one line that cannot control a terminal: it may contain a guest's name. */
function printable(text: string): string {
  const unit = (code: string) => `\\u${code.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return text.replace(deceptiveCharacters, (character) => character.split('').map(unit).join(''));
}

/** Reports an error on standard error, which libvirt logs at debug level only, and in syslog. */
function report(text: string): Promise<void> {
  const line = printable(text).slice(0, 1000);
  // Standard error may be closed; the error is then in syslog only.
  process.stderr.on('error', () => undefined);
  process.stderr.write(`mdserver-hook: ${line}\n`);
  // syslog needs Unix datagram sockets, which Node does not have: use logger(1).
  const logger = spawn('logger', ['-t', 'mdserver-hook', '-p', 'daemon.warning', '--', line], {
    stdio: 'ignore',
    timeout: loggerLimit,
    killSignal: 'SIGKILL',
  });
  return new Promise((resolve) => {
    logger.on('close', () => resolve());
    // Without logger(1), the error is on standard error only.
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
    await report(`${name} (${operation}) was not uploaded to ${destination}: ${reason}`);
  }
}

function finish(): never {
  process.exit(0);
}

// No known error gets here, but the guest must start even with an unknown one.
process.on('uncaughtException', finish);
setTimeout(finish, wholeLimit);
void run().finally(finish);
