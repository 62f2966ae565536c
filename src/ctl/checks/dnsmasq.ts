import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Config } from '../../config/options.js';
import { findDnsmasq } from '../../dnsmasq/dnsmasq.js';
import {
  dnsmasqConfiguration,
  dnsmasqOptions,
  dnsmasqPaths,
  hostsFiles,
} from '../../dnsmasq/files.js';
import { type FileContent, fileText } from '../../files.js';
import type { Instances } from '../../instances/instances.js';
import { counted } from '../output.js';
import { firstLine, runProgram } from '../programs.js';
import { exists, readIfPresent } from './files.js';
import { type Finding, findingsOf } from './finding.js';

/** What mdserver writes for dnsmasq, with the files that `dnsmasq --test` does not read as options. */
function wholeConfiguration(config: Config, instances: Instances): string {
  const asOptions = (file: FileContent, option: string) =>
    fileText(file)
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => `${option}=${line}`);
  return [
    fileText(dnsmasqConfiguration(config)).trimEnd(),
    ...asOptions(dnsmasqOptions(config), 'dhcp-option'),
    ...asOptions(hostsFiles(config)(instances).dhcp, 'dhcp-host'),
    '',
  ].join('\n');
}

/**
 * Whether dnsmasq accepts what mdserver writes for it, has that on the disk, and is running. The
 * files are compared and never passed to dnsmasq: with an option such as conf-script=, they would
 * be programs.
 */
export async function* checkDnsmasq(config: Config, instances: Instances): AsyncGenerator<Finding> {
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
    writeFileSync(whole, wholeConfiguration(config, instances));
    const test = await runProgram('dnsmasq', ['--test', `--conf-file=${whole}`]);
    if (test === undefined) {
      yield failure('dnsmasq is not installed', 'install dnsmasq-base');
    } else if (test.status !== 0) {
      yield failure(firstLine(test.stderr).replace(whole, "mdserver's files for it"));
    } else {
      yield ok(
        `accepts mdserver's configuration and ${counted(instances.byName.size, 'instance')}`,
      );
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const written = [
    dnsmasqConfiguration(config),
    dnsmasqOptions(config),
    ...Object.values(hostsFiles(config)(instances)),
  ];
  for (const file of written) {
    if (readIfPresent(file.path) === fileText(file)) continue;
    yield warning(`${file.path} is not what mdserver writes now`, 'systemctl restart mdserver');
  }
  const state = findDnsmasq(config);
  if (state.pid === undefined) yield failure(state.problem, 'systemctl restart mdserver-dnsmasq');
  else yield ok(`is running (process ${state.pid})`);
}
