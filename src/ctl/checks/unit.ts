import { join } from 'node:path';
import type { Config } from '../../config/options.js';
import { changedFiles, integrateAdvice, unitDropIns } from '../../config/unit.js';
import { readIfPresent } from './files.js';
import { type Finding, findingsOf } from './finding.js';

/** Where a unit is, the first of which counts: an administrator's own, then that of a package. */
const folders = ['etc/systemd/system', 'usr/lib/systemd/system', 'lib/systemd/system'];

/**
 * Whether the units start mdserver before libvirt, and fit the configuration: with the drop-ins of
 * `mdserverctl integrate`, and without the limits that the units had up to 1.0.0. Nothing if there are
 * no units.
 */
export function* checkUnit(config: Config, prefix: string): Generator<Finding> {
  const { ok, warning } = findingsOf('unit');
  const unit = (name: string) =>
    folders
      .map((folder) => join(prefix || '/', folder, name))
      .map((path) => ({ path, text: readIfPresent(path) }))
      .find(({ text }) => text !== undefined);
  const main = unit('mdserver.service');
  if (main?.text === undefined) return;
  const findings: Finding[] = [];
  const { mdserver, dnsmasq } = config;
  const values = (key: string) =>
    [...(main.text ?? '').matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))].flatMap(([, list = '']) =>
      list.split(/\s+/),
    );
  for (const { key, value } of [
    { key: 'IPAddress', value: `${dnsmasq.net_address}/${dnsmasq.net_prefix}` },
    { key: 'SocketBind', value: `tcp:${mdserver.port}` },
  ]) {
    if (!values(`${key}Deny`).includes('any') || values(`${key}Allow`).includes(value)) continue;
    findings.push(
      warning(
        `${main.path} does not have ${key}Allow=${value}, which the configuration needs`,
        `remove its lines with ${key}, then systemctl daemon-reload and systemctl restart mdserver`,
      ),
    );
  }
  const isFirst = ['libvirtd.service', 'virtqemud.service'].every((name) =>
    values('Before').includes(name),
  );
  if (!isFirst) {
    findings.push(
      warning(
        `${main.path} does not start mdserver before libvirt, which starts guests at once`,
        'install the unit of this version',
      ),
    );
  }
  for (const { path, content } of changedFiles(unitDropIns(config, prefix))) {
    const state = content === undefined ? 'is no longer needed' : 'does not fit mdserver.conf';
    findings.push(warning(`${path} ${state}`, integrateAdvice));
  }
  yield* findings;
  if (findings.length === 0) yield ok(`${main.path} fits the configuration`);
}
