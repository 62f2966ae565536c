import { lstatSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../../config/options.js';
import { runPath, unitFolders } from '../../config/unit.js';
import { spoolFolders } from '../../control/spool.js';
import { daemonAccount } from '../as-daemon.js';
import { exists, statIfPresent } from './files.js';
import { type Finding, findingsOf } from './finding.js';

/** libvirt's drivers that run mdserver's hook. */
type Driver = 'qemu' | 'network';

/** The files that libvirt runs as hooks of a driver (libvirt.org/hooks.html), under a prefix. */
function hookFiles(prefix: string, driver: Driver): string[] {
  const hooks = join(prefix || '/', 'etc/libvirt/hooks');
  const more = join(hooks, `${driver}.d`);
  const names = exists(more) ? readdirSync(more).sort() : [];
  return [join(hooks, driver), ...names.map((name) => join(more, name))].filter((path) =>
    statIfPresent(path)?.isFile(),
  );
}

/** Where a hook delivers. */
export interface HookTarget {
  /** Where it posts to; undefined in a hook of the first releases, which post over TCP. */
  readonly socket: string | undefined;
  /** Where it keeps what it cannot post; undefined if it keeps nothing. */
  readonly spool: string | undefined;
  /** The program that the shell starts, which starts Node. */
  readonly starts: string | undefined;
  /** The only network whose interfaces it reports, in a hook up to 1.0.0. */
  readonly network: string | undefined;
}

/** Where a hook delivers; undefined if the hook is not mdserver's. */
export function hookTarget(source: string): HookTarget | undefined {
  const constant = (name: string) =>
    new RegExp(`^const ${name} = '([^']*)';$`, 'm').exec(source)?.[1];
  const target = {
    socket: constant('controlSocket'),
    spool: constant('spoolFolder'),
    starts: /^':' \/\/;.* esac; (\S+) /m.exec(source)?.[1],
    network: /'port-created begin ([^'*]+)'/.exec(source)?.[1],
  };
  const isOurs = target.socket !== undefined || constant('uploadUrl') !== undefined;
  return isOurs ? target : undefined;
}

/** Whether the paths are the same. */
function samePath(one: string, other: string): boolean {
  return runPath(one) === runPath(other);
}

/** What a path leads to; the path itself if it leads nowhere. */
function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

const { ok, warning, failure } = findingsOf('hook');
const again = 'run system-integration.sh again, or reinstall the package';

const withoutHook: Readonly<Record<Driver, string>> = {
  qemu: 'mdserver does not learn of guests that start',
  network: 'mdserver does not learn of interfaces that are attached to a running guest',
};

interface Hook extends HookTarget {
  readonly path: string;
}

/** mdserver's hooks of a driver. Yields a finding if there is none, or more than one. */
function* installedHooks(prefix: string, driver: Driver): Generator<Finding, Hook[]> {
  const hooks = hookFiles(prefix, driver).flatMap((path) => {
    const target = hookTarget(readFileSync(path, 'utf8'));
    return target === undefined ? [] : [{ path, ...target }];
  });
  const [first, second] = hooks;
  if (first === undefined) {
    const path = join(prefix || '/', 'etc/libvirt/hooks', driver);
    yield failure(
      `mdserver's ${driver} hook is neither ${path} nor in ${path}.d, so ${withoutHook[driver]}`,
      'run system-integration.sh or reinstall the package, then restart libvirtd',
    );
  }
  if (first !== undefined && second !== undefined) {
    yield warning(`there are two hooks, ${first.path} and ${second.path}`, 'remove one of them');
  }
  return hooks;
}

/**
 * Whether AppArmor confines libvirt, as in Debian and Ubuntu. Of programs outside hooks, its profiles
 * let it start only those in the folders of the system, which then run without a profile.
 */
function isConfined(): boolean {
  try {
    const profiles = readFileSync('/sys/kernel/security/apparmor/profiles', 'utf8');
    return /^(?:libvirtd|virtqemud) \(enforce\)$/m.test(profiles);
  } catch {
    // There is no AppArmor, or this user may not ask it.
    return false;
  }
}

const systemFolder = /^\/(?:usr\/)?s?bin\/[^/]+$/;

/** Whether the hook can be executed, and posts to this mdserver. */
function* checkTarget(
  { path, socket = '(none)', starts, network }: Hook,
  { dnsmasq }: Config,
  controlSocket: string,
): Generator<Finding> {
  if (((statIfPresent(path)?.mode ?? 0) & 0o111) === 0) {
    yield failure(`${path} is not executable, so libvirt ignores it`, `chmod 755 ${path}`);
  } else if (starts !== undefined && !systemFolder.test(starts) && isConfined()) {
    yield failure(
      `${path} starts ${starts}, which AppArmor's profile of libvirt denies without a word`,
      `have it start the program from /usr/bin: ${again}`,
    );
  } else if (network !== undefined && network !== dnsmasq.net_name) {
    yield failure(
      `${path} reports interfaces on the network ${network}, but mdserver's is ${dnsmasq.net_name}`,
      again,
    );
  } else if (samePath(realPath(socket), realPath(controlSocket))) {
    yield ok(`${path} posts to ${socket}`);
  } else {
    yield failure(
      `${path} posts to ${socket}, which does not lead to mdserver's control socket ${controlSocket}`,
      'systemctl restart mdserver makes the one a link to the other',
    );
  }
}

/** Whether the hook can keep what it cannot post, where mdserver looks for it. */
async function* checkSpool(hooks: readonly Hook[], config: Config): AsyncGenerator<Finding> {
  // Where mdserver looks: in the folder of its unit, and beside the database.
  const looked = [join(unitFolders.state, 'spool'), ...spoolFolders(config)];
  const isLooked = (spool: string) => looked.some((known) => samePath(spool, known));
  const folder = hooks.flatMap(({ spool }) => spool ?? []).find(isLooked) ?? looked.at(-1) ?? '';
  const lost = 'what the hook cannot post while mdserver is down is lost';
  for (const { path, spool } of hooks) {
    if (spool === undefined) yield warning(`${path} keeps nothing: ${lost}`, again);
    else if (!isLooked(spool)) {
      yield failure(
        `${path} keeps what it cannot post in ${spool}, where mdserver does not look`,
        again,
      );
    }
  }
  const stats = lstatSync(folder, { throwIfNoEntry: false });
  const account = await daemonAccount(config);
  if (stats === undefined) {
    yield failure(`${folder} does not exist: ${lost}`, 'systemctl restart mdserver');
  } else if (!stats.isDirectory()) {
    yield failure(
      `${folder} is not a folder: ${lost}`,
      'remove it, then systemctl restart mdserver',
    );
  } else if (account !== undefined && stats.uid !== account.uid) {
    yield failure(
      `${folder} belongs to another user than mdserver's, which cannot take in what the hook keeps`,
      `chown -h ${account.uid}:${account.gid} ${folder}`,
    );
  } else if ((stats.mode & 0o077) !== 0) {
    yield failure(
      `${folder} is open to others, so the hook does not use it: ${lost}`,
      `chmod 0700 ${folder}`,
    );
  } else {
    yield ok(`${folder} keeps what the hook cannot post`);
  }
}

/** Whether libvirt's hooks are installed, can be executed, post to this mdserver, and keep what they cannot post. */
export async function* checkHook(
  config: Config,
  controlSocket: string,
  prefix: string,
): AsyncGenerator<Finding> {
  const all: Hook[] = [];
  for (const driver of ['qemu', 'network'] as const) {
    const hooks = yield* installedHooks(prefix, driver);
    for (const hook of hooks) yield* checkTarget(hook, config, controlSocket);
    all.push(...hooks);
  }
  yield* checkSpool(all, config);
}
