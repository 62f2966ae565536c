import type { DomainDatasource, InstanceSummary } from '../../control/api.js';
import { type ControlClient, instancePath } from '../client.js';
import { defineCommand } from '../command.js';
import { connect } from '../connection.js';
import { exitCodes } from '../errors.js';
import { datasourceAdvice, lacksDatasource } from '../guests.js';
import { readInput } from '../input.js';
import { note, print, printJson, stdoutStyle, table } from '../output.js';

/** The answer to an upload, the instance's database record and more: the fields that are used here. */
interface UploadedRecord {
  readonly domain_name: string;
  readonly mds_ipv4: string | null;
  readonly mds_mac: string | null;
  readonly datasource: DomainDatasource | null;
  /** See InstanceDetails. */
  readonly warnings: readonly string[];
}

/** Uploads a domain XML. Throws CommandError. */
export function uploadDomain(
  control: Pick<ControlClient, 'post'>,
  xml: Buffer,
): Promise<UploadedRecord> {
  return control.post<UploadedRecord>('/instance-upload', xml);
}

export const upload = defineCommand({
  name: 'upload',
  usage: ['FILE|-'],
  operands: [1, 1],
  completes: ['file', 'none'],
  options: {},
  summary: "Upload a domain XML, as libvirt's hook does.",
  help: [
    'Returns once the instance is on disk and dnsmasq has been notified. "-" reads standard input. Notes on standard error say if cloud-init in most images will look nowhere, or a setting in the metadata of the domain is wrong, and what mends that.',
  ],
  examples: [['virsh dumpxml web1 | mdserverctl upload -', 'a domain that the hook missed']],
  run: async ([file = '-'], options) => {
    const xml = readInput(file);
    const control = connect(options);
    const record = await uploadDomain(control, xml);
    const { domain_name, mds_ipv4, mds_mac, datasource, warnings } = record;
    if (options.json) printJson(record);
    else
      print(
        await table(stdoutStyle, ['NAME', 'ADDRESS', 'MAC'], [[domain_name, mds_ipv4, mds_mac]]),
      );
    for (const warning of warnings) note(`${domain_name}: ${warning}`);
    if (datasource === 'none') {
      const instance = await control.get<InstanceSummary>(instancePath(domain_name));
      if (lacksDatasource(instance)) note(`${domain_name}: ${datasourceAdvice(instance)}`);
    }
    return exitCodes.ok;
  },
});
