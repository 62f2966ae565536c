import type { FileContent } from '../files.js';
import type { HostKeys } from './details.js';
import type { Domain } from './domain.js';
import type { Instance } from './instance.js';
import type { Instances } from './instances.js';

/** Follows all changes of the instances but those of their host keys, whatever causes them. */
export interface Subscriber {
  /** The files that are derived from the instances. They are written before a change is confirmed. */
  files(instances: Instances): readonly FileContent[];
  /** Called when the instances are in force and the files are written. Must not throw. */
  changed(instances: Instances): void;
}

/**
 * Stores the instances. When a promise resolves, the change is on disk and all subscribers have been
 * notified; when it rejects, nothing was stored. The instances may also change outside the store.
 */
export interface Store {
  /** The instances in force, in memory: reading them does not access the disk. */
  readonly instances: Instances;
  /** Why the last change could not be stored; undefined if it was. */
  readonly problem: string | undefined;
  /** Registers a domain and allocates its addresses. Rejects with NoAddressError or StoreError. */
  register(domain: Domain): Promise<Instance>;
  /** Removes an instance; undefined if no instance has the name. */
  remove(name: string): Promise<Instance | undefined>;
  /**
   * Stores the SSH host keys that an instance reported; undefined if no instance has the name. No
   * subscriber is notified. Rejects with HostKeysError or StoreError.
   */
  rememberHostKeys(name: string, hostKeys: HostKeys): Promise<Instance | undefined>;
  /** Adds a subscriber. It is first notified by the next change or `refresh`. */
  subscribe(subscriber: Subscriber): void;
  /** Reads changes made outside the store, and notifies all subscribers. */
  refresh(): Promise<void>;
  /** Resolves when all requested changes are done. */
  close(): Promise<void>;
}

/** A change could not be stored; the message says why, in one line. */
export class StoreError extends Error {}
