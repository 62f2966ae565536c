#!/usr/bin/env node
/*
 * mdserver's libvirt hook (https://libvirt.org/hooks.html): the one of guests and the one of networks.
 * libvirt calls it for every guest and every network, and waits for it to end:
 *
 *     qemu    DOMAIN  OPERATION SUB-OPERATION EXTRA     with the domain's XML on standard input
 *     network NETWORK OPERATION SUB-OPERATION EXTRA     with the XML of network and port
 *
 * - With a status other than 0, libvirt does not start the guest, or kills a running one at
 *   `reconnect`. The hook always exits with 0: a guest must start even if mdserver fails.
 * - At `migrate` and `restore`, standard output replaces the XML. The hook never writes there.
 * - libvirt does nothing with the guest until the hook ends, so everything below has a time limit.
 *
 * system-integration.sh installs it with a line for the shell, which kills this program after 5 seconds:
 * process.exit() waits for a disk that hangs, and mdserver's user can stop a program that has become
 * that user. The shell leaves at once at all operations but these:
 *
 *     prepare, migrate, restore, reconnect, attach     upload the domain
 *     release                                          report that the guest has stopped
 *     port-created                                     report the interface: no other hook is called
 *                                                      for one that is attached to a running guest
 *
 * The hook is installed as a single file, so it uses only Node's own modules. It is CommonJS, which
 * starts twice as fast.
 */
import { constants, promises } from 'node:fs';
import { connect } from 'node:net';

/** Where to post, and where to keep what nobody takes: the unit's mdserver has both in place, whatever mdserver.conf says. */
const controlSocket = '/run/mdserver/control.sock';
const spoolFolder = '/var/lib/mdserver/spool';

/** Bytes. This limits the memory used; mdserver itself rejects more than 1 MiB. */
const inputSizeLimit = 4 * 1024 * 1024;

/** What is kept for mdserver: bytes of one XML, files, and bytes of all files. */
const keptSizeLimit = 1024 * 1024;
const keptFilesLimit = 4096;
const keptBytesLimit = 64 * 1024 * 1024;

/** Milliseconds since the hook was started. What comes last, keeping and reporting, has time left of the 5 seconds. */
const releaseEnd = 1000;
const retryEnd = 3300;
const deliveryEnd = 3500;
const keepingEnd = 4300;
/** Milliseconds. */
const connectLimit = 2000;
const loggerLimit = 500;
const retryPause = 50;

/** mdserver's verdict on what it was sent: it would be the same another time. */
class Refusal extends Error {}

async function readInput(): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > inputSizeLimit) throw new Error(`the XML has more than ${inputSizeLimit} bytes`);
    chunks.push(chunk);
  }
  if (size === 0) throw new Error('no XML on standard input');
  return Buffer.concat(chunks);
}

/** A request to the control socket. */
interface Message {
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

/** Characters of an answer's head: mdserver's has some hundreds. */
const headLimit = 16_384;

/**
 * Posts the message. Throws if mdserver does not accept it: a Refusal if it never will. The HTTP is its own:
 * to load Node's takes a third as long as to start Node, while libvirt waits.
 */
function post({ path, headers, body }: Message): Promise<void> {
  return new Promise((resolve, reject) => {
    // With an answer to HTTP/1.0, the body comes as it is. Without an Accept header, it has none.
    const own = { host: 'localhost', connection: 'close', 'content-length': body.length };
    const fields = Object.entries({ ...own, ...headers }).map(
      ([name, value]) => `${name}: ${value}\r\n`,
    );
    const socket = connect(controlSocket);
    const connecting = setTimeout(() => {
      socket.destroy(new Error(`no connection after ${connectLimit} ms`));
    }, connectLimit);
    socket.on('error', reject);
    socket.once('connect', () => {
      clearTimeout(connecting);
      const head = `POST ${path} HTTP/1.0\r\n${fields.join('')}\r\n`;
      socket.write(Buffer.concat([Buffer.from(head), body]));
    });
    let answer = '';
    // Of an answer that does not accept the message.
    let refuse = (_reason: string): void => reject(new Error('socket hang up'));
    socket.on('close', () => refuse(''));
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      answer += chunk;
      const [, code, reason = ''] = /^HTTP\/1\.[01] (\d{3}).*?\r\n\r\n(.*)/s.exec(answer) ?? [];
      if (code === undefined) {
        const isHttp = answer.slice(0, 7) === 'HTTP/1.'.slice(0, answer.length);
        if (!isHttp || answer.length > headLimit) {
          socket.destroy(new Error('what answers is not mdserver'));
        }
        return;
      }
      const status = Number(code);
      // 422: the guest has no interface on mdserver's network. libvirt also runs the hook for such guests,
      // so that is not an error.
      if ((status >= 200 && status < 300) || status === 422) {
        resolve();
        return;
      }
      // All other answers are about who asks, or about this moment.
      const isFinal = status === 400 || status === 413;
      refuse = (text) => {
        const message = `mdserver answered ${status} ${text}`;
        reject(isFinal ? new Refusal(message) : new Error(message));
      };
      // The reason is one line: do not wait for a body that never ends.
      if (reason !== '') refuse(reasonIn(reason.slice(0, 300)));
    });
  });
}

/** The reason in an answer: a line, or JSON such as {"error": "a line"}. */
function reasonIn(answer: string): string {
  try {
    return String(JSON.parse(answer).error);
  } catch {
    return answer.trimEnd();
  }
}

function errorCode(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? '';
}

/** Posts the message, again and again while the socket's queue of connections is full. */
async function postInTime(message: Message): Promise<void> {
  for (;;) {
    try {
      await post(message);
      return;
    } catch (error) {
      if (errorCode(error) !== 'EAGAIN' || performance.now() > retryEnd) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, retryPause));
  }
}

function upload(operation: string, body: Buffer): Promise<void> {
  const headers = { 'content-type': 'application/xml', 'x-libvirt-operation': operation };
  return postInTime({ path: '/instance-upload', headers, body });
}

/** Reports an interface. mdserver leaves out those on other networks than its own. */
function reportPort(body: Buffer): Promise<void> {
  return postInTime({ path: '/ports', headers: { 'content-type': 'application/xml' }, body });
}

/** Rejects at a time since the hook was started. */
function endAt(milliseconds: number): Promise<never> {
  return new Promise((_, reject) => {
    const late = () => reject(new Error(`not finished after ${milliseconds} ms`));
    setTimeout(late, milliseconds - performance.now());
  });
}

async function hashOf(name: string): Promise<string> {
  const { createHash } = await import('node:crypto');
  return createHash('sha256').update(name).digest('hex').slice(0, 32);
}

/**
 * The name of the file that keeps a delivery for mdserver: the newest one of a domain, and of its
 * interfaces on a network, replaces the one before. Only mdserver knows which network is its own.
 */
async function keptFile(domain: string, network: string | undefined): Promise<string> {
  const hash = await hashOf(domain);
  return network === undefined ? `${hash}.domain` : `${hash}.${await hashOf(network)}.port`;
}

/** A user and group. */
interface Account {
  readonly uid: number;
  readonly gid: number;
}

/**
 * Enters the spool folder, which belongs to mdserver's user. Root becomes that user first, for good:
 * so whatever that user has put there, nothing is done that it could not do itself. Returns that user if
 * this Node cannot become it, and enters nothing. Throws if it is no folder, or one that others can use.
 */
async function enterSpool(): Promise<Account | undefined> {
  const folder = await promises.lstat(spoolFolder);
  if (!folder.isDirectory()) throw new Error(`${spoolFolder} is not a folder`);
  if ((folder.mode & 0o077) !== 0) throw new Error(`${spoolFolder} does not have the mode 0700`);
  if (process.getuid?.() === 0 && folder.uid !== 0) {
    try {
      process.setgroups?.([]);
    } catch {
      // Debian 13's Node refuses this and the others: it thinks that io_uring may be in use.
      return folder;
    }
    process.setgid?.(folder.gid);
    process.setuid?.(folder.uid);
  }
  process.chdir(spoolFolder);
  const here = await promises.stat('.');
  if (here.dev !== folder.dev || here.ino !== folder.ino) {
    throw new Error(`${spoolFolder} has just been replaced`);
  }
  return undefined;
}

/** What is done in the spool folder; libvirt has no operations of these names. */
type SpoolTask = 'keep-in-spool' | 'forget-in-spool';

/** Runs this program as the user, for the task. Throws with its error output if it fails. */
async function runAs(
  { uid, gid }: Account,
  task: SpoolTask,
  target: string,
  content: Buffer,
): Promise<void> {
  const { spawn } = await import('node:child_process');
  const child = spawn(process.execPath, [process.argv[1] ?? '', target, task], { uid, gid });
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
  // It may end before it has read everything.
  child.stdin.on('error', () => undefined);
  child.stdin.end(content);
  await new Promise<void>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) => (status === 0 ? resolve() : reject(new Error(errors))));
  });
}

/**
 * Keeps the content in the file `target` of the spool folder, or removes the files whose names begin with
 * `target`. Throws if it cannot.
 */
async function workInSpool(task: SpoolTask, target: string, content: Buffer): Promise<void> {
  const owner = await enterSpool();
  if (owner !== undefined) return runAs(owner, task, target, content);
  if (task === 'keep-in-spool') {
    await checkRoom(target, content.length);
    return replaceFile(target, content);
  }
  const files: string[] = [];
  for await (const { name } of await promises.opendir('.')) {
    if (name.startsWith(target)) files.push(name);
  }
  for (const file of files) await promises.rm(file, { force: true });
}

/** Does the task as the user that another process of this program, which is root, has started it as. */
async function workForRoot(task: SpoolTask, target: string): Promise<void> {
  try {
    if (process.getuid?.() === 0) throw new Error('still root');
    const content = task === 'keep-in-spool' ? await readInput() : Buffer.alloc(0);
    await workInSpool(task, target, content);
  } catch (error) {
    process.stderr.write((error as Error).message);
    process.exit(1);
  }
}

/** Throws if there is no room for so many bytes in the file. */
async function checkRoom(file: string, size: number): Promise<void> {
  const others: string[] = [];
  for await (const { name } of await promises.opendir('.')) {
    if (name !== file && others.push(name) >= keptFilesLimit) {
      throw new Error(`${spoolFolder} has ${keptFilesLimit} files`);
    }
  }
  // mdserver may take one away meanwhile.
  const sizes = others.map((name) =>
    promises
      .lstat(name)
      .then((stats) => stats.size)
      .catch(() => 0),
  );
  const total = (await Promise.all(sizes)).reduce((sum, one) => sum + one, size);
  if (total > keptBytesLimit) throw new Error(`${spoolFolder} has ${keptBytesLimit} bytes`);
}

/** Writes the file into the current folder, in place of an older one: completely, or not at all. */
async function replaceFile(file: string, content: Buffer): Promise<void> {
  const temporary = `.${file}.new`;
  // Of a hook that was killed.
  await promises.rm(temporary, { force: true });
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  const handle = await promises.open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    await handle.writeFile(content);
    await handle.sync();
    await promises.rename(temporary, file);
  } catch (error) {
    await promises.rm(temporary, { force: true });
    throw error;
  } finally {
    await handle.close();
  }
  const folder = await promises.open('.');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** What could not be delivered. */
interface Delivery {
  readonly operation: string;
  /** The domain; undefined for a port that belongs to none. */
  readonly name: string | undefined;
  /** That of a port. */
  readonly network: string | undefined;
  readonly xml: Buffer;
}

/** Keeps the delivery until mdserver takes it, and gives the path of its file. Throws if it cannot. */
async function keep({ operation, name, network, xml }: Delivery): Promise<string> {
  if (name === undefined) throw new Error('the port belongs to no domain');
  if (xml.length > keptSizeLimit) throw new Error(`the XML has more than ${keptSizeLimit} bytes`);
  // When libvirt called: mdserver may yet have taken in what it did not answer in time.
  const at = performance.timeOrigin / 1000;
  const line = `${JSON.stringify({ operation, name, at })}\n`;
  const content = Buffer.concat([Buffer.from(line), xml]);
  const file = await keptFile(name, network);
  await workInSpool('keep-in-spool', file, content);
  return `${spoolFolder}/${file}`;
}

/** Removes what is kept of the domain. */
async function forget(domain: string): Promise<void> {
  await workInSpool('forget-in-spool', `${await hashOf(domain)}.`, Buffer.alloc(0));
}

const entities: Readonly<Record<string, string>> = {
  '&lt;': '<',
  '&gt;': '>',
  '&amp;': '&',
  '&apos;': "'",
  '&quot;': '"',
};

/** The domain that a port of a network belongs to, from the XML as libvirt writes it. */
function ownerOf(xml: Buffer): string | undefined {
  // The port is the last element: what the network's own metadata says comes before it.
  const [port = ''] = xml.toString().split('<networkport').slice(-1);
  const name = /<owner>\s*<name>([^<]*)<\/name>/.exec(port)?.[1];
  return name?.replace(/&(?:lt|gt|amp|apos|quot);/g, (entity) => entities[entity] ?? entity);
}

/** Delivers the XML on standard input, or keeps it, or reports why not. */
async function deliver(named: string, operation: string): Promise<void> {
  const isPort = operation === 'port-created';
  const late = endAt(deliveryEnd);
  let name: string | undefined = named;
  let xml: Buffer | undefined;
  try {
    xml = await Promise.race([readInput(), late]);
    if (isPort) name = ownerOf(xml);
    await Promise.race([isPort ? reportPort(xml) : upload(operation, xml), late]);
  } catch (error) {
    const failure = `${name ?? named} (${operation}) was not uploaded to ${controlSocket}: ${(error as Error).message}`;
    if (xml === undefined || error instanceof Refusal) return report(failure);
    const keeping = keep({ operation, name, network: isPort ? named : undefined, xml }).then(
      (path) => `kept in ${path} until mdserver takes it`,
      (reason: Error) => `not kept: ${reason.message}`,
    );
    const kept = await Promise.race([keeping, endAt(keepingEnd)]).catch(
      (reason: Error) => `not kept: ${reason.message}`,
    );
    await report(`${failure}; ${kept}`);
  }
}

/** The domain's uuid, from the XML as libvirt writes it: there, only the name comes before it. */
function uuidOf(xml: Buffer): string | undefined {
  return /<uuid>([0-9a-f-]{36})<\/uuid>/.exec(xml.toString('latin1'))?.[1];
}

/**
 * Reports that the guest has stopped, which ends its boot record. Nothing depends on it, so errors are
 * not reported. A guest that has not started must not become an instance later: what still waits of it
 * then, because mdserver is not there or could not take it in, is removed.
 */
async function reportRelease(name: string, reason: string): Promise<void> {
  // libvirt 10.5 and newer gives the reason, one of virDomainShutoffReason (docs/hooks.rst).
  const failed = reason === 'failed';
  const late = endAt(releaseEnd);
  try {
    const uuid = await Promise.race([readInput().then(uuidOf, () => undefined), late]);
    const event = { kind: 'released', name, uuid, ...(failed && { failed }) };
    const headers = { 'content-type': 'application/json' };
    const body = Buffer.from(JSON.stringify(event));
    await Promise.race([postInTime({ path: '/events', headers, body }), late]);
  } catch {
    // The boot record then ends with the next start.
  }
  if (!failed) return;
  await forget(name).catch((error: Error) => {
    // Without the folder, nothing is kept.
    if (errorCode(error) === 'ENOENT') return;
    return report(`${name} did not start, but what is kept of it stays: ${error.message}`);
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
async function report(text: string): Promise<void> {
  const line = printable(text).slice(0, 1000);
  // Standard error may be closed; the error is then in syslog only.
  process.stderr.on('error', () => undefined);
  process.stderr.write(`mdserver-hook: ${line}\n`);
  // syslog needs Unix datagram sockets, which Node does not have: use logger(1).
  const { spawn } = await import('node:child_process');
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

function finish(): never {
  process.exit(0);
}

// No known error gets here, but the guest must start even with an unknown one.
process.on('uncaughtException', finish);
const [name = '', operation = '', , extra = ''] = process.argv.slice(2);
if (operation === 'keep-in-spool' || operation === 'forget-in-spool') {
  void workForRoot(operation, name).finally(finish);
} else {
  const done = operation === 'release' ? reportRelease(name, extra) : deliver(name, operation);
  void done.finally(finish);
}
