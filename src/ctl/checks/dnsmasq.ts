import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Config } from '../../config/options.js';
import { findDnsmasq } from '../../dnsmasq/dnsmasq.js';
import { dnsmasqConfiguration, dnsmasqOptions, dnsmasqPaths } from '../../dnsmasq/files.js';
import { firstLine, runProgram } from '../programs.js';
import { exists, readIfPresent } from './files.js';
import { type Finding, findingsOf } from './finding.js';

/** The configuration, with the files that `dnsmasq --test` does not read included as options. */
function wholeConfiguration(paths: ReturnType<typeof dnsmasqPaths>): string {
  const asOptions = (path: string, option: string) =>
    (readIfPresent(path) ?? '')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => `${option}=${line}`);
  return [
    readFileSync(paths.configuration, 'utf8').trimEnd(),
    ...asOptions(paths.options, 'dhcp-option'),
    ...asOptions(paths.dhcpHosts, 'dhcp-host'),
    '',
  ].join('\n');
}

/** Whether dnsmasq accepts the files that mdserver wrote for it, and is running. */
export async function* checkDnsmasq(config: Config): AsyncGenerator<Finding> {
  const { ok, warning, failure } = findingsOf('dnsmasq');
  const paths = dnsmasqPaths(config.dnsmasq);
  if (!exists(paths.configuration)) {
    yield failure(
      `${paths.configuration} does not exist`,
      'mdserver writes it when it starts: systemctl start mdserver',
    );
    return;
  }
  const folder = mkdtempSync(join(tmpdir(), 'mdserverctl-'));
  try {
    const whole = join(folder, 'dnsmasq.conf');
    writeFileSync(whole, wholeConfiguration(paths));
    const test = await runProgram('dnsmasq', ['--test', `--conf-file=${whole}`]);
    if (test === undefined) {
      yield failure('dnsmasq is not installed', 'install dnsmasq-base');
    } else if (test.status !== 0) {
      yield failure(
        firstLine(test.stderr).replace(whole, `${paths.configuration} and its files`),
        'systemctl restart mdserver writes them again',
      );
    } else {
      yield ok(`accepts ${paths.configuration} and its files`);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const stale = [dnsmasqConfiguration(config), dnsmasqOptions(config)].find(
    ({ path, content }) => readIfPresent(path) !== content,
  );
  if (stale !== undefined) {
    yield warning(
      `${stale.path} does not match the current configuration`,
      'systemctl restart mdserver',
    );
  }
  const state = findDnsmasq(config);
  if (state.pid === undefined) yield failure(state.problem, 'systemctl restart mdserver-dnsmasq');
  else yield ok(`is running (process ${state.pid})`);
}
