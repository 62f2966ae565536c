/**
 * What a domain tells its guest of the datasource before any network is up, as far as the domain sets
 * it: the fields that cloud-init's ds-identify reads, trimmed and cut to `maxSmbiosLength`.
 */
export interface Smbios {
  readonly serial?: string;
  /** As `<sysinfo>` has it; where that is missing, SMBIOS has the domain's uuid. */
  readonly uuid?: string;
  readonly product?: string;
  /** The asset tag of the chassis. */
  readonly asset?: string;
  /** The parameters for cloud-init on the kernel's command line, if the domain boots a kernel of the host. */
  readonly kernel?: string;
}

/** One of the texts in it. */
export type SmbiosField = keyof Smbios;

const fields: readonly SmbiosField[] = ['serial', 'uuid', 'product', 'asset', 'kernel'];

/** The fields that have a text, in the order of the interface. */
export function smbiosFrom(textOf: (field: SmbiosField) => string | undefined): Smbios {
  const texts = fields.map((field) => [field, textOf(field)] as const);
  return Object.fromEntries(texts.filter(([, text]) => text !== undefined));
}

/** In UTF-16 code units. Every recipe is shorter. */
export const maxSmbiosLength = 256;

/** What a domain tells cloud-init: one of mdserver's datasources, or none of them. */
export type DomainDatasource = 'ec2' | 'nocloud' | 'openstack' | 'none';

/** What messages say of a domain that names none, after "its". */
export const namesNone =
  'SMBIOS names no datasource of mdserver, so cloud-init in most images will look nowhere';

const namesNocloud = /(^| )ds=nocloud/;
const openstackNames: readonly (string | undefined)[] = ['OpenStack Nova', 'OpenStack Compute'];

/** What an instance has of its domain, as far as it matters here. */
interface DescribedDomain {
  readonly uuid: string | undefined;
  readonly details: {
    readonly smbios?: Smbios | undefined;
    readonly hardware: { readonly architecture?: string | undefined };
  };
}

/**
 * The datasource that the domain of an instance names, by the rules of ds-identify (cloud-init 20.2 to
 * 24.1; newer ones take a uuid that begins with "ec2" for enough): of several, the first one that cloud-init tries. Undefined if that is not known: nothing has
 * told of the domain's SMBIOS, its kernel's command line names something else, or its machine is no
 * PC, where cloud-init looks for all datasources.
 */
export function datasourceOf({
  uuid: domainUuid,
  details: { smbios, hardware },
}: DescribedDomain): DomainDatasource | undefined {
  if (smbios === undefined) return undefined;
  const { serial = '', uuid = domainUuid, product, asset, kernel } = smbios;
  if (kernel !== undefined) return namesNocloud.test(kernel) ? 'nocloud' : undefined;
  if (namesNocloud.test(serial)) return 'nocloud';
  if (/^ec2/i.test(serial) && serial.toLowerCase() === uuid?.toLowerCase()) return 'ec2';
  if (openstackNames.includes(product) || openstackNames.includes(asset)) return 'openstack';
  return /^(x86_64|i[3-6]86)$/.test(hardware.architecture ?? '') ? 'none' : undefined;
}
