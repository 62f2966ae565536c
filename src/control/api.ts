/**
 * The API of the control socket: JSON over HTTP on a Unix socket that only root and the group
 * mdserver may open. Times are Unix seconds, with a fraction.
 *
 *     GET    /instances                       InstanceSummary[]
 *     GET    /instances/NAME                  InstanceDetails
 *     DELETE /instances/NAME                  InstanceSummary of the removed instance; `?guest=gone` says
 *                                             that the caller knows that its guest does not run
 *     GET    /instances/NAME/DOCUMENT         RenderedDocument
 *     POST   /documents/DOCUMENT              RenderedDocument, for the domain XML in the body
 *     GET    /addresses/ADDRESS               AddressReport
 *     POST   /instance-upload                 as on TCP; the hook names its operation in a header
 *     POST   /ports                           takes what libvirt tells its network hook of a port: an
 *                                             instance for a domain whose uuid no record has
 *     POST   /events                          GuestEvent, from the hook
 *     GET    /health                          Health
 *     GET    /metrics                         Prometheus' text format
 *
 * An error is {"error": "one line"} with status 400 (bad input, a domain that chooses an address that it
 * cannot have), 404 (no such instance), 422 (a template cannot be rendered, a domain has no interface on
 * the network), 409 (a port whose name or MAC another record has), 500 or 503.
 */

import type { BootOutcome, BootRecord, DhcpEvent } from '../boots/boots.js';
import type { Health } from '../health.js';
import type { HostKeys } from '../instances/details.js';
import type { DomainDatasource, Smbios } from '../instances/smbios.js';

export type { BootOutcome, BootRecord, DhcpEvent, DomainDatasource, Health, HostKeys, Smbios };

/** The documents of an instance that can be rendered. */
export const documentNames = [
  'user-data',
  'meta-data',
  'vendor-data',
  'network-config',
  'tree',
] as const;
/** The name of one of them. */
export type DocumentName = (typeof documentNames)[number];

/** One line of `mdserverctl list`. */
export interface InstanceSummary {
  readonly name: string;
  readonly uuid: string | null;
  readonly mac: string | null;
  readonly ipv4: string | null;
  readonly ipv6: string | null;
  readonly location: string | null;
  /** The name its address resolves to: the value of local-hostname. */
  readonly hostname: string;
  /** The values of its domain: an inventory makes groups of them. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly first_seen: number | null;
  readonly last_update: number | null;
  readonly last_boot: BootSummary | null;
  /**
   * Since when its domain has been uploaded without an interface on the network; null if it has one.
   */
  readonly left_network: number | null;
  /** What its domain tells cloud-init; null if that is not known. */
  readonly datasource: DomainDatasource | null;
}

/** The start, the end and the outcome of a boot. */
export interface BootSummary {
  readonly started: number;
  /** When libvirt said that the guest is gone; null if it has not. */
  readonly ended: number | null;
  /** See BootOutcome. */
  readonly outcome: BootOutcome;
}

/** Everything that `mdserverctl show` and `explain` need. */
export interface InstanceDetails extends InstanceSummary {
  /** The names of the public keys that it gets, in the order of their index. */
  readonly public_keys: readonly string[];
  /** What is wrong with the settings in the metadata of its domain, and what to do. */
  readonly warnings: readonly string[];
  /** Why it has no user-data now; null if it has some. */
  readonly no_userdata: string | null;
  readonly hardware: {
    readonly vcpus: number | null;
    readonly memory_kib: number | null;
    readonly architecture: string | null;
  };
  /** Null if it is not known. */
  readonly smbios: Smbios | null;
  readonly instance_id: string;
  readonly dns_names: readonly string[];
  /** Newest first. */
  readonly boots: readonly BootRecord[];
  /** Newest first; more than one means that the keys changed. */
  readonly host_keys: readonly HostKeys[];
  /** The password that the guest reported, encrypted and in base64; null if it has reported none. */
  readonly password: string | null;
}

/** A document as the guest would get it now. */
export interface RenderedDocument {
  /** The path of its template; null for a built-in template and for a document without one. */
  readonly file: string | null;
  /** Whether the guest would get it: an instance may have no user-data. */
  readonly found: boolean;
  /** Why an instance has no user-data; null for any other document. */
  readonly reason: string | null;
  /** `base64` if it is not UTF-8 text. */
  readonly encoding: 'utf-8' | 'base64';
  readonly body: string;
  /**
   * Why the newest version of its template is not in force; null if it is. The body is then from the
   * last version that rendered.
   */
  readonly problem: string | null;
  /** What the domain XML in the body does not have; missing if it has both. */
  readonly made_up?: readonly ('uuid' | 'mac')[];
}

/** What mdserver knows about an address. */
export interface AddressReport {
  readonly address: string;
  /** The instance that has it. */
  readonly instance: string | null;
  /** The MAC address that answers for it, from the kernel's neighbour table. */
  readonly mac: string | null;
  /** The instance that has that MAC. */
  readonly mac_instance: string | null;
  /** When it last sent a request and was refused as unknown. */
  readonly last_refused: number | null;
}

/** An event, other than an upload, that the hook reports. */
export interface GuestEvent {
  readonly kind: 'released';
  readonly name: string;
  /** Hooks up to 1.0.0 do not send it. */
  readonly uuid?: string | undefined;
  /** libvirt's reason says that the start failed. */
  readonly failed?: boolean | undefined;
}
