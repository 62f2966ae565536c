import type { Mac } from '../network.js';
import { printable, truncate } from '../text.js';
import type { Smbios } from './smbios.js';
import type { Uuid } from './uuid.js';

/** The parts of a libvirt domain (libvirt.org/formatdomain.html) that mdserver uses, validated. */
export interface Domain {
  /**
   * As libvirt has it, with blanks at its ends. A valid file name: at most 255 bytes, no "/",
   * neither "." nor "..". None of text.ts's deceptive characters: a name is an identity.
   */
  readonly name: string;
  readonly uuid: Uuid;
  /** The MAC address of the first interface on the network. */
  readonly mac: Mac;
  /** Trimmed values by local name. Of two elements with the same name, the first counts. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The maximum, from `<vcpu>`. */
  readonly vcpus: number | undefined;
  /** The maximum in KiB, rounded up, from `<memory>`. */
  readonly memoryKib: number | undefined;
  /** libvirt's name: `x86_64`, `aarch64`. */
  readonly architecture: string | undefined;
  /** Undefined if it is the host's own, or if the machine has none. */
  readonly smbios: Smbios | undefined;
}

/** What a network port of libvirt tells of the domain that owns it, validated as for a Domain. */
export type Port = Pick<Domain, 'name' | 'uuid' | 'mac'>;

/** The XML of a domain or a port was refused; the message says why, in one line. */
export class DomainXmlError extends Error {
  override readonly name: string = 'DomainXmlError';

  constructor(message: string) {
    super(truncate(printable(message), 300));
  }
}

/** It is not XML, on one line, and may be where there was a line break before an attribute. */
export class JoinedWordsError extends DomainXmlError {
  override readonly name = 'JoinedWordsError';
}

/** It is valid, and the domain has no interface on the network. */
export class NoInterfaceError extends DomainXmlError {
  override readonly name = 'NoInterfaceError';

  constructor(
    /** The domain's. */
    readonly uuid: Uuid,
    message: string,
  ) {
    super(message);
  }
}
