import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after } from 'node:test';

/** Whose end releases what was made: a test's (its context), or a file's or suite's (`suiteScope`). */
export interface Scope {
  readonly after: (release: () => unknown) => void;
}

const pending = new Map<Scope, (() => unknown)[]>();

async function releaseAll(releases: (() => unknown)[]): Promise<void> {
  const errors: unknown[] = [];
  for (let release = releases.pop(); release !== undefined; release = releases.pop()) {
    try {
      await release();
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw new AggregateError(errors, `cleaning up: ${errors.join('; ')}`);
}

/**
 * Releases something at the end of a scope, whether its tests passed, failed or were cut short.
 * What was made last is released first: a daemon ends before its folder goes.
 */
export function atEnd(scope: Scope, release: () => unknown): void {
  let releases = pending.get(scope);
  if (releases === undefined) {
    const list: (() => unknown)[] = [];
    releases = list;
    pending.set(scope, list);
    scope.after(() => releaseAll(list).finally(() => pending.delete(scope)));
  }
  releases.push(release);
}

// A run that is cut short (the test runner's time limit, Ctrl-C) leaves nothing behind either: what
// it started is killed, and what it made removed, as far as that needs no waiting.
process.on('exit', () => {
  for (const release of [...pending.values()].flatMap((releases) => releases.toReversed())) {
    try {
      void release();
    } catch (error) {
      console.error(`cleaning up: ${error}`);
    }
  }
});
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.once(signal, () => process.exit(1));

/** The scope of a file or a `describe`. To be called at the top of it, not in a hook. */
export function suiteScope(): Scope {
  const scope: Scope = { after: (release) => after(async () => void (await release())) };
  atEnd(scope, () => undefined);
  return scope;
}

/**
 * A new folder below /tmp, removed at the end of the scope. It holds these files (a path that ends
 * in "/" is a folder), in whose texts `@DIR@` stands for the folder's own path.
 */
export function temporaryFolder(
  scope: Scope,
  files: Readonly<Record<string, string | Buffer>> = {},
): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'mdserver-test-')));
  atEnd(scope, () => rmSync(folder, { recursive: true, force: true }));
  for (const [name, content] of Object.entries(files)) {
    const path = join(folder, name);
    mkdirSync(name.endsWith('/') ? path : dirname(path), { recursive: true });
    if (name.endsWith('/')) continue;
    const isText = typeof content === 'string';
    writeFileSync(path, isText ? content.replaceAll('@DIR@', folder) : content);
  }
  return folder;
}

/** Waits until a process has ended. */
export async function exited(child: ChildProcess): Promise<void> {
  // One that could not be started has no process id, and never exits.
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  await once(child, 'exit');
}

/** Kills a process at the end of the scope, and waits until it is gone. */
export function killAtEnd(scope: Scope, child: ChildProcess): void {
  atEnd(scope, () => {
    child.kill('SIGKILL');
    return exited(child);
  });
}
