import type { FileContent } from '../files.js';
import type { HostKeys } from './details.js';
import type { Domain } from './domain-xml.js';
import type { Instance } from './instance.js';
import type { Instances } from './instances.js';

/** Somebody who has to know of every change, wherever it comes from. */
export interface Subscriber {
  /** Files that follow from the instances: they are replaced before a change is answered. */
  files(instances: Instances): readonly FileContent[];
  /** The instances are in force and the files are in place. Must not throw. */
  changed(instances: Instances): void;
}

/**
 * Where instances are kept. What a promise of it answers is durable, and all subscribers have
 * been told; when it rejects, nothing was stored. Changes may come from elsewhere, too.
 */
export interface Store {
  /** The instances in force; held in memory, so that a request costs no disk. */
  readonly instances: Instances;
  /** Why the last change could not be stored; undefined when it could. */
  readonly problem: string | undefined;
  /** Takes a domain in and finds or allocates its address. Rejects with NoAddressError or StoreError. */
  register(domain: Domain): Promise<Instance>;
  /** Removes an instance; undefined where there is none of that name. */
  remove(name: string): Promise<Instance | undefined>;
  /** Keeps the ssh host keys that an instance said it has; undefined where there is none of that name. */
  rememberHostKeys(name: string, hostKeys: HostKeys): Promise<Instance | undefined>;
  /** Adds a subscriber; it is told of the next change, and by `refresh`. */
  subscribe(subscriber: Subscriber): void;
  /** Reads again what may have changed elsewhere and tells every subscriber. */
  refresh(): Promise<void>;
  /** Ends when all that was asked for before is done. */
  close(): Promise<void>;
}

/** A change could not be made durable; the message says why, in one line. */
export class StoreError extends Error {}
