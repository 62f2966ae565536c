import type { InstanceDetails } from '../../control/api.js';
import { instancePath } from '../client.js';
import { defineCommand } from '../command.js';
import { connect } from '../connection.js';
import { exitCodes } from '../errors.js';
import {
  type Cell,
  print,
  printJson,
  type Style,
  stdoutStyle,
  table,
  timeText,
} from '../output.js';

/** The output of `mdserverctl show`. */
export function detailsTable(style: Style, instance: InstanceDetails): Promise<string> {
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
    ...(instance.left_network === null ? [] : [['left the network', at(instance.left_network)]]),
    ['vcpus', vcpus],
    ['memory', memory_kib && `${Math.round(memory_kib / 1024)} MiB`],
    ['architecture', architecture],
    ...Object.entries(instance.smbios ?? {}).map(([field, text]) => [`SMBIOS ${field}`, text]),
    ['datasource', instance.datasource],
    ...Object.entries(instance.metadata).map(([key, value]) => [`metadata ${key}`, value]),
    ['public keys', instance.public_keys.join(' ')],
    ...(instance.no_userdata === null ? [] : [['user-data', `none: ${instance.no_userdata}`]]),
    ...instance.warnings.map((text) => ['warning', text]),
    ...instance.boots.map(({ started, outcome }) => ['boot', `${at(started)} ${outcome}`]),
    ...instance.host_keys.flatMap(({ at: since, keys }) =>
      keys.map((key) => ['host key', `${at(since)} ${key}`]),
    ),
  ];
  return table(style, ['WHAT', 'VALUE'], rows, (_text, column) =>
    column === 0 ? 'bold' : undefined,
  );
}

export const show = defineCommand({
  name: 'show',
  usage: ['NAME'],
  operands: [1, 1],
  completes: ['instance', 'none'],
  options: {},
  summary: 'Show everything mdserver knows about an instance.',
  help: [
    'Shows its record, its names in DNS, the metadata of its domain, its hardware, what its domain tells cloud-init, its last boots and its SSH host keys.',
  ],
  examples: [['mdserverctl show web1', '']],
  run: async ([name = ''], options) => {
    const instance = await connect(options).get<InstanceDetails>(instancePath(name));
    if (options.json) printJson(instance);
    else print(await detailsTable(stdoutStyle, instance));
    return exitCodes.ok;
  },
});
