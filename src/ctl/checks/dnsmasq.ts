import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { Config } from '../../config/options.js';
import { findDnsmasq } from '../../dnsmasq/dnsmasq.js';
import {
  dnsmasqConfiguration,
  dnsmasqOptions,
  dnsmasqPaths,
  type HostsFiles,
  hostsFiles,
} from '../../dnsmasq/files.js';
import { type FileContent, fileText } from '../../files.js';
import type { Instances } from '../../instances/instances.js';
import { counted } from '../output.js';
import { firstLine, runProgram } from '../programs.js';
import { exists, readIfPresent, statIfPresent } from './files.js';
import { type Finding, findingsOf, notChecked } from './finding.js';

/** What mdserver writes for dnsmasq, with the files that `dnsmasq --test` does not read as options. */
function wholeConfiguration(config: Config, hosts: HostsFiles | undefined): string {
  const asOptions = (file: FileContent, option: string) =>
    fileText(file)
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => `${option}=${line}`);
  return [
    fileText(dnsmasqConfiguration(config)).trimEnd(),
    ...asOptions(hosts?.options ?? dnsmasqOptions(config), 'dhcp-option'),
    ...(hosts === undefined ? [] : asOptions(hosts.dhcp, 'dhcp-host')),
    '',
  ].join('\n');
}

/**
 * Files beside the network's own: those of another network, and somebody's copies. Up to 1.0.0, dnsmasq
 * read all that was in the folders of hosts files.
 */
function otherFiles({ dnsmasq }: Config, own: ReadonlySet<string>): string[] {
  const { dhcpFolder, dnsFolder } = dnsmasqPaths(dnsmasq);
  const filesIn = (folder: string) =>
    exists(folder)
      ? readdirSync(folder, { withFileTypes: true })
          // Those that are being written have a dot in front.
          .filter((entry) => !entry.isDirectory() && !entry.name.startsWith('.'))
          .map(({ name }) => join(folder, name))
          .sort()
      : [];
  return [
    ...filesIn(dnsmasq.base_dir).filter((path) => /\.(conf|opts)/.test(basename(path))),
    ...filesIn(dhcpFolder),
    ...filesIn(dnsFolder),
  ].filter((path) => !own.has(path));
}

/** Whether a file was written after another. */
function isNewer(path: string, other: string): boolean {
  const [time, otherTime] = [path, other].map((file) => statIfPresent(file)?.mtimeMs);
  return time !== undefined && otherTime !== undefined && time > otherTime;
}

/**
 * Why dnsmasq ended in the last minute, in its own words: it has no log before it serves, and systemd starts it
 * every two seconds. Undefined if the journal has nothing, or nothing for this user.
 */
async function lastWords(): Promise<string | undefined> {
  const options = ['--quiet', '--no-pager', '--output=cat', '--since=-60s', '--lines=50'];
  const said = await runProgram('journalctl', ['--unit=mdserver-dnsmasq', ...options]);
  const lines = said?.status === 0 ? said.stdout.split('\n') : [];
  return lines.findLast((line) => line.startsWith('dnsmasq: '))?.slice('dnsmasq: '.length);
}

/**
 * Whether dnsmasq accepts what mdserver writes for it, has that on the disk, and is running. The
 * files are compared and never passed to dnsmasq: with an option such as conf-script=, they would
 * be programs. Without the instances, it leaves out the files about them. `access` is defined if this
 * runs as mdserver's user, which sees its dnsmasq.
 */
export async function* checkDnsmasq(
  config: Config,
  instances: Instances | undefined,
  access: string | undefined,
): AsyncGenerator<Finding> {
  const { ok, warning, failure } = findingsOf('dnsmasq');
  const paths = dnsmasqPaths(config.dnsmasq);
  if (!exists(paths.configuration)) {
    yield failure(
      `${paths.configuration} does not exist`,
      'mdserver writes it when it starts: systemctl start mdserver',
    );
    return;
  }
  // Their content can be read once.
  const hosts = () => instances && hostsFiles(config)(instances);
  const folder = mkdtempSync(join(tmpdir(), 'mdserverctl-'));
  try {
    const whole = join(folder, 'dnsmasq.conf');
    writeFileSync(whole, wholeConfiguration(config, hosts()));
    const test = await runProgram('dnsmasq', ['--test', `--conf-file=${whole}`]);
    if (test === undefined) {
      yield failure('dnsmasq is not installed', 'install dnsmasq-base');
    } else if (test.status !== 0) {
      yield failure(firstLine(test.stderr).replace(whole, "mdserver's files for it"));
    } else {
      const whose =
        instances === undefined ? '' : ` and ${counted(instances.byName.size, 'instance')}`;
      yield ok(`accepts mdserver's configuration${whose}`);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const written = [dnsmasqConfiguration(config), ...Object.values(hosts() ?? {})];
  for (const file of written) {
    if (readIfPresent(file.path) === fileText(file)) continue;
    yield warning(`${file.path} is not what mdserver writes now`, 'systemctl restart mdserver');
  }
  for (const path of otherFiles(config, new Set(Object.values(paths)))) {
    yield warning(
      `${path} is not a file of the network ${config.dnsmasq.net_name}: its dnsmasq does not read it`,
      'remove it, unless another mdserver uses it',
    );
  }
  const state = findDnsmasq(config);
  const restart = 'systemctl restart mdserver-dnsmasq';
  if (state.pid === undefined) {
    if (state.hidden && access === undefined) yield notChecked('dnsmasq', state.problem);
    else {
      const words = state.isGone ? await lastWords() : undefined;
      yield failure(
        words === undefined ? state.problem : `${state.problem}; it ended with: ${words}`,
        restart,
      );
    }
  } else if (isNewer(paths.configuration, paths.pid)) {
    // dnsmasq writes the pid file when it has read the configuration.
    yield warning(
      `process ${state.pid} runs with an older configuration: ${paths.configuration} has changed since it started`,
      restart,
    );
  } else yield ok(`is running (process ${state.pid})`);
}
