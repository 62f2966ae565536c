import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../../config/options.js';
import { serverUrl } from '../../network.js';
import { exists, statIfPresent } from './files.js';
import { type Finding, findingsOf } from './finding.js';
import { connectAddress } from './network.js';

/** The files that libvirt runs as hooks of qemu guests (libvirt.org/hooks.html), under a prefix. */
function hookFiles(prefix: string): string[] {
  const hooks = join(prefix || '/', 'etc/libvirt/hooks');
  const more = join(hooks, 'qemu.d');
  const names = exists(more) ? readdirSync(more).sort() : [];
  return [join(hooks, 'qemu'), ...names.map((name) => join(more, name))].filter((path) =>
    statIfPresent(path)?.isFile(),
  );
}

/** Where a hook posts to: the control socket or, if that does not exist, the URL. */
export interface HookTarget {
  readonly url: string;
  /** Undefined in the hook of a release without a control socket. */
  readonly socket: string | undefined;
}

/** The target that system-integration.sh set in a hook; undefined if the hook is not mdserver's. */
export function hookTarget(source: string): HookTarget | undefined {
  const url = /^const uploadUrl = '([^']*)';$/m.exec(source)?.[1];
  const socket = /^const controlSocket = '([^']*)';$/m.exec(source)?.[1];
  return url === undefined ? undefined : { url, socket };
}

/** Whether the paths are the same; /var/run is a link to /run. */
function samePath(one: string, other: string): boolean {
  const short = (path: string) => path.replace(/^\/var\/run\//, '/run/');
  return short(one) === short(other);
}

/** Whether libvirt's hook is installed, can be executed, and posts to this mdserver. */
export function* checkHook(
  { mdserver }: Config,
  controlSocket: string,
  prefix: string,
): Generator<Finding> {
  const { ok, warning, failure } = findingsOf('hook');
  const again = 'run system-integration.sh again';
  const hooks = hookFiles(prefix).flatMap((path) => {
    const target = hookTarget(readFileSync(path, 'utf8'));
    return target === undefined ? [] : [{ path, ...target }];
  });
  const [first, second] = hooks;
  if (first === undefined) {
    const path = join(prefix || '/', 'etc/libvirt/hooks/qemu');
    yield failure(
      `mdserver's hook is neither ${path} nor in ${path}.d`,
      'run system-integration.sh, then restart libvirtd',
    );
    return;
  }
  if (second !== undefined) {
    yield warning(`there are two hooks, ${first.path} and ${second.path}`, 'remove one of them');
  }
  const urls = mdserver.listen_address.map(
    (address) => new URL(serverUrl(connectAddress(address), mdserver.port)).origin,
  );
  for (const { path, url, socket } of hooks) {
    const bySocket = socket !== undefined && samePath(socket, controlSocket);
    const byUrl =
      mdserver.upload_over_tcp && URL.canParse(url) && urls.includes(new URL(url).origin);
    if (((statIfPresent(path)?.mode ?? 0) & 0o111) === 0) {
      yield failure(`${path} is not executable, so libvirt ignores it`, `chmod 755 ${path}`);
    } else if (bySocket) {
      yield ok(`${path} posts to ${socket}`);
    } else if (byUrl) {
      yield warning(
        `${path} posts to ${url} instead of ${controlSocket}, so mdserver does not learn when a guest stops`,
        again,
      );
    } else {
      yield failure(
        `${path} posts to ${socket ?? url}, but mdserver accepts uploads on ${controlSocket}`,
        again,
      );
    }
  }
}
