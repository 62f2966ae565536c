import { isIPv6 } from 'node:net';
import { setTimeout as after } from 'node:timers/promises';
import { type IpAddress, type Mac, parseIp, parseMac } from './network.js';

/** The neighbour table cannot be read; the message says why. */
export class NeighbourError extends Error {}

/**
 * The MAC address of the complete entry that the kernel's neighbour table has for an address on the
 * guests' bridge; undefined if it has none, as for the host's own addresses and those behind a
 * router. Asks the kernel at each call. Rejects with NeighbourError.
 */
export type NeighbourMac = (address: IpAddress) => Promise<Mac | undefined>;

/** Milliseconds that `ip` may take for an answer. */
const timeLimit = 1000;
/** Milliseconds without a question after which `ip` ends. */
const idleLimit = 60_000;
/**
 * Milliseconds after which an address without an entry is looked up again. The kernel forgets a
 * neighbour that is silent on an open connection, and asks for it (ARP) to acknowledge its request:
 * after 40 ms at the latest.
 */
const resolutionTime = 100;

const completeStates = new Set(['REACHABLE', 'STALE', 'DELAY', 'PROBE', 'PERMANENT']);

/**
 * The MAC address in a line of `ip neigh get`, such as "10.122.0.9 dev br-mds lladdr
 * 52:54:00:12:34:56 REACHABLE"; undefined if the entry is another one, or not complete.
 */
export function macInNeighbour(line: string, address: IpAddress, bridge: string): Mac | undefined {
  const [entryAddress = '', dev, entryBridge, lladdr, mac = '', ...rest] = line.trim().split(/ +/);
  const isAsked = parseIp(entryAddress) === address && dev === 'dev' && entryBridge === bridge;
  const isComplete = lladdr === 'lladdr' && completeStates.has(rest.at(-1) ?? '');
  return isAsked && isComplete ? parseMac(mac) : undefined;
}

/** The MAC address in an answer of `ip neigh get`. Throws NeighbourError. */
function macOf(said: readonly string[], address: IpAddress, bridge: string): Mac | undefined {
  const text = said.join('; ');
  if (/Neighbour entry not found|Cannot find device/.test(text)) return undefined;
  if (text.includes('Command failed')) throw new NeighbourError(`ip (iproute2) failed: ${text}`);
  return macInNeighbour(said.at(-1) ?? '', address, bridge);
}

/** An `ip` that reads commands from its standard input. */
interface Ip {
  /** The lines of its answer. Rejects if it has ended, or takes too long: it is ended then. */
  readonly ask: (command: string) => Promise<string[]>;
  readonly end: () => void;
}

/**
 * Starts an `ip` that answers one command at a time. It never keeps this process alive, and ends
 * with it, since its standard input is closed then.
 */
async function startIp(ended: () => void): Promise<Ip> {
  // Most daemons never ask, and Node takes 3 ms to load these.
  const { spawn } = await import('node:child_process');
  const { createInterface } = await import('node:readline');
  const child = spawn('ip', ['-force', '-batch', '-'], { env: { ...process.env, LC_ALL: 'C' } });
  let said: string[] = [];
  let settle: (error?: Error) => void = () => {};
  const fail = (reason: string) => {
    ended();
    settle(new NeighbourError(`ip (iproute2) ${reason}`));
  };
  const end = () => {
    ended();
    child.stdin.end();
  };
  const idle = setTimeout(end, idleLimit).unref();

  child.once('error', ({ message }) => fail(`cannot be run: ${message}`));
  // Without a free file descriptor Node makes no streams, whatever its types say.
  if (child.stdin === undefined) {
    const error = new NeighbourError('ip (iproute2) cannot be run: too many open files');
    return { end: ended, ask: () => Promise.reject(error) };
  }

  // A command ends with its one line of output, or with "Command failed" among the errors: never
  // with both, so their order does not matter.
  const hear = (line: string) => {
    said.push(line);
    if (/ dev |^Command failed/.test(line)) settle();
  };
  for (const output of [child.stdout, child.stderr]) {
    createInterface({ input: output }).on('line', hear);
  }
  child.once('close', (code, signal) => {
    clearTimeout(idle);
    fail(`has ended (${signal ?? code}): ${said.join('; ')}`);
  });
  // A command that cannot be written has no answer: the end is reported by "close".
  child.stdin.on('error', () => {});
  child.unref();
  for (const stream of child.stdio) (stream as { unref?: () => void } | null)?.unref?.();

  return {
    end,
    ask: (command) =>
      new Promise((resolve, reject) => {
        idle.refresh();
        said = [];
        const timer = setTimeout(() => {
          fail(`has not answered within ${timeLimit} ms`);
          child.kill('SIGKILL');
        }, timeLimit);
        settle = (error) => {
          settle = () => {};
          clearTimeout(timer);
          if (error === undefined) resolve(said);
          else reject(error);
        };
        child.stdin.write(`${command}\n`);
      }),
  };
}

/** A port on which hardly anything listens: what counts is whether anybody is there at all. */
export const discardPort = 9;

/** Makes the kernel look for the neighbour with an address, by a datagram to it. Never rejects. */
export async function lookForNeighbour(address: IpAddress): Promise<void> {
  const { createSocket } = await import('node:dgram');
  const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
  await new Promise<void>((resolve) => {
    // Without a way to the address there is no neighbour, which the table says as well.
    socket.once('error', () => resolve());
    socket.send('', discardPort, address, () => resolve());
  });
  socket.close();
}

/** The look-up on a bridge. `ip` is started by the first question, and again when it has ended. */
export function neighbourTable(bridge: string): NeighbourMac {
  let ip: Ip | undefined;
  async function running(): Promise<Ip> {
    if (ip !== undefined) return ip;
    const started = await startIp(() => {
      if (ip === started) ip = undefined;
    });
    ip = started;
    return started;
  }

  async function entry(address: IpAddress): Promise<Mac | undefined> {
    const command = `neigh get ${address} dev ${bridge}`;
    try {
      return macOf(await (await running()).ask(command), address, bridge);
    } catch {
      // It may have been killed, and it knows the interface by its number, which another one has when
      // the bridge has been made anew.
      ip?.end();
      return macOf(await (await running()).ask(command), address, bridge);
    }
  }

  // One question at a time. What waits is bounded by the number of instances: those who ask for the
  // same address share a question, as long as it has not been asked.
  const waiting = new Map<IpAddress, Promise<Mac | undefined>>();
  let last: Promise<unknown> = Promise.resolve();
  function ask(address: IpAddress): Promise<Mac | undefined> {
    const known = waiting.get(address);
    if (known !== undefined) return known;
    const question = last.then(() => {
      waiting.delete(address);
      return entry(address);
    });
    waiting.set(address, question);
    last = question.catch(() => undefined);
    return question;
  }

  return async (address) => {
    const mac = await ask(address);
    if (mac !== undefined) return mac;
    await after(resolutionTime);
    return ask(address);
  };
}
