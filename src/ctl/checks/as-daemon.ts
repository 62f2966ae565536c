import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Config } from '../../config/options.js';
import { daemonAccount, runAs } from '../as-daemon.js';
import { type Finding, findingsOf, isFinding } from './finding.js';
import { checkUntrusted } from './untrusted.js';

const child = fileURLToPath(new URL('as-daemon-child.js', import.meta.url));

/**
 * Runs checkUntrusted. Root runs it as the daemon's user, in a child process: templates are code,
 * and whoever can write them, or the daemon's files, must not become root by it.
 */
export async function* checkAsDaemon(
  config: Config,
  configFile: string,
  prefix: string,
): AsyncGenerator<Finding> {
  if (process.geteuid?.() !== 0) {
    yield* checkUntrusted(config);
    return;
  }
  const { failure } = findingsOf('user');
  const account = await daemonAccount(config);
  if (account === undefined) {
    yield failure(
      `there is no user ${config.dnsmasq.user} (dnsmasq.user), so database, user-data and dnsmasq are not checked`,
      'run system-integration.sh, which creates it',
    );
  } else if (account.uid === 0) {
    yield* checkUntrusted(config);
  } else {
    const { output, problem } = await runAs(account, [child, resolve(configFile), prefix]);
    const findings = problem === undefined ? findingsIn(output) : undefined;
    if (findings !== undefined) yield* findings;
    else {
      yield failure(
        `database, user-data and dnsmasq could not be checked as user ${account.uid}: ${problem ?? 'a template prints to standard output'}`,
      );
    }
  }
}

/** The findings that the child printed; undefined if it printed something else. */
function findingsIn(output: string): Finding[] | undefined {
  try {
    const value: unknown = JSON.parse(output);
    return Array.isArray(value) && value.every(isFinding) ? value : undefined;
  } catch {
    return undefined;
  }
}
