import { join } from 'node:path';
import type { Config } from '../../config/options.js';
import { readIfPresent } from './files.js';
import { type Finding, findingsOf } from './finding.js';

/**
 * Whether mdserver.service, which system-integration.sh has filled from the configuration, still lets
 * mdserver talk to the guests and listen on its port, and starts it before libvirt. Nothing if it is
 * not installed there.
 */
export function* checkUnit({ mdserver, dnsmasq }: Config, prefix: string): Generator<Finding> {
  const { ok, warning } = findingsOf('unit');
  const path = join(prefix || '/', 'etc/systemd/system/mdserver.service');
  const text = readIfPresent(path);
  if (text === undefined) return;
  const values = (key: string) =>
    [...text.matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))].flatMap(([, list = '']) =>
      list.split(/\s+/),
    );
  const { net_address, net_prefix, net_address6, net_prefix6 } = dnsmasq;
  const needed = (key: string, value: string) => ({ key, value });
  const missing = [
    needed('IPAddressAllow', `${net_address}/${net_prefix}`),
    ...(net_address6 === undefined
      ? []
      : [needed('IPAddressAllow', `${net_address6}/${net_prefix6}`)]),
    needed('SocketBindAllow', `tcp:${mdserver.port}`),
  ].filter(({ key, value }) => {
    const isLimited = values(key.replace('Allow', 'Deny')).includes('any');
    return isLimited && !values(key).includes(value);
  });
  for (const { key, value } of missing) {
    yield warning(
      `${path} does not have ${key}=${value}, which the configuration needs`,
      'run system-integration.sh again',
    );
  }
  const isFirst = ['libvirtd.service', 'virtqemud.service'].every((unit) =>
    values('Before').includes(unit),
  );
  if (!isFirst) {
    yield warning(
      `${path} does not start mdserver before libvirt, which starts guests at once`,
      'run system-integration.sh again',
    );
  }
  if (missing.length === 0 && isFirst) yield ok(`${path} fits the configuration`);
}
