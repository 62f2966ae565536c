import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { atEnd, exited, type Scope } from './cleanup.js';

/** How a command ended. */
export interface Ended {
  /** The exit code; -1 after a signal. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Waits until a command has ended. */
export async function ended(child: ChildProcess): Promise<Ended> {
  let stdout = '';
  let stderr = '';
  child.stdout?.on('data', (chunk) => (stdout += chunk));
  child.stderr?.on('data', (chunk) => (stderr += chunk));
  const [status] = await once(child, 'close');
  return { status: (status as number | null) ?? -1, stdout, stderr };
}

/** A network namespace with a loopback that is up. */
export interface Namespace {
  readonly name: string;
  /** Starts a command in it; one that is still there when the namespace goes is killed. */
  readonly start: (
    command: string,
    args: readonly string[],
    env?: NodeJS.ProcessEnv,
  ) => ChildProcess;
  /** Runs a command in it to its end. */
  readonly run: (
    command: string,
    args: readonly string[],
    env?: NodeJS.ProcessEnv,
  ) => Promise<Ended>;
  /** `ip` in it; throws with what it said when it fails. */
  readonly ip: (line: string) => void;
  /** Kills what was started in it, and removes it with all its interfaces. */
  readonly remove: () => void;
}

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: 'pipe' });
}

let made = 0;

/** A network namespace of a name that no other process has. */
function addNamespace(scope: Scope, label: string): Namespace {
  const name = `mds-${process.pid}-${++made}-${label}`;
  const children = new Set<ChildProcess>();
  ip('netns', 'add', name);
  let isThere = true;
  function remove(): void {
    if (!isThere) return;
    isThere = false;
    for (const child of children) child.kill('SIGKILL');
    ip('netns', 'delete', name);
  }
  atEnd(scope, async () => {
    remove();
    await Promise.all([...children].map(exited));
  });

  function start(command: string, args: readonly string[], env = process.env): ChildProcess {
    // "ip netns exec" becomes the command: its process id is the command's.
    const all = ['netns', 'exec', name, command, ...args];
    const child = spawn('ip', all, { stdio: ['ignore', 'pipe', 'pipe'], env });
    children.add(child);
    child.once('exit', () => children.delete(child));
    return child;
  }

  const namespace: Namespace = {
    name,
    start,
    run: (command, args, env) => ended(start(command, args, env)),
    ip: (line) => ip('-netns', name, ...line.split(' ')),
    remove,
  };
  namespace.ip('link set lo up');
  return namespace;
}

/** A host of virtual machines: a namespace with a bridge. */
export interface Host extends Namespace {
  /** A guest on the bridge, or on another one: a namespace whose `eth0` has that MAC address, and no IP address yet. */
  readonly addGuest: (mac: string, bridge?: string) => Namespace;
}

/**
 * A host whose bridge has the addresses of etc/libvirt/mds-network.xml, as libvirt makes it. It and
 * its guests are removed at the end of the scope.
 */
export function addHost(scope: Scope, ownBridge = 'br-mds'): Host {
  const host = addNamespace(scope, 'host');
  // Without an address of its own it takes another with each port that comes, and guests lose it.
  host.ip(`link add ${ownBridge} address 52:54:00:fe:00:01 type bridge`);
  for (const address of ['169.254.169.254/32', '10.122.0.1/16']) {
    host.ip(`address add ${address} dev ${ownBridge}`);
  }
  host.ip(`link set ${ownBridge} up`);
  return {
    ...host,
    addGuest: (mac, bridge = ownBridge) => {
      const guest = addNamespace(scope, 'guest');
      const port = `tap${made}`;
      host.ip(`link add ${port} type veth peer name eth0 netns ${guest.name}`);
      guest.ip(`link set eth0 address ${mac} up`);
      host.ip(`link set ${port} master ${bridge} up`);
      return guest;
    },
  };
}
