import type { InstanceDetails, InstanceSummary } from '../control/api.js';
import { type Cell, type Style, spanText, table, timeText } from './output.js';

const outcomeColours = new Map([
  ['failed', 'red'],
  ['home', 'green'],
  ['configured', 'green'],
] as const);

/** `mdserverctl list`; `now` in Unix seconds. */
export function instanceTable(
  style: Style,
  instances: readonly InstanceSummary[],
  now: number,
): string {
  const seen = (at: number) => (style.terminal ? `${spanText(now - at)} ago` : timeText(style, at));
  const rows = instances.map(({ name, ipv4, ipv6, mac, location, last_update, last_boot }) => [
    name,
    ipv4 ?? ipv6,
    mac,
    location,
    last_update && seen(last_update),
    last_boot?.outcome,
  ]);
  const heading = ['NAME', 'ADDRESS', 'MAC', 'LOCATION', 'LAST SEEN', 'LAST BOOT'];
  return table(style, heading, rows, (text, column) =>
    column === 5 ? outcomeColours.get(text as 'failed') : undefined,
  );
}

/** `mdserverctl show`. */
export function detailsTable(style: Style, instance: InstanceDetails): string {
  const at = (seconds: number | null) => seconds && timeText(style, seconds);
  const { vcpus, memory_kib, architecture } = instance.hardware;
  const rows: Cell[][] = [
    ['name', instance.name],
    ['uuid', instance.uuid],
    ['instance-id', instance.instance_id],
    ['IPv4 address', instance.ipv4],
    ['IPv6 address', instance.ipv6],
    ['MAC address', instance.mac],
    ['host name', instance.hostname],
    ['names in DNS', instance.dns_names.join(' ')],
    ['location', instance.location],
    ['first seen', at(instance.first_seen)],
    ['last seen', at(instance.last_update)],
    ['vcpus', vcpus],
    ['memory', memory_kib && `${Math.round(memory_kib / 1024)} MiB`],
    ['architecture', architecture],
    ...Object.entries(instance.metadata).map(([key, value]) => [`metadata ${key}`, value]),
    ...instance.boots.map(({ started, outcome }) => ['boot', `${at(started)} ${outcome}`]),
    ...instance.host_keys.flatMap(({ at: since, keys }) =>
      keys.map((key) => ['host key', `${at(since)} ${key}`]),
    ),
  ];
  return table(style, ['WHAT', 'VALUE'], rows, (_text, column) =>
    column === 0 ? 'bold' : undefined,
  );
}
