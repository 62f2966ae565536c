import type { RestingAddresses } from './addresses.js';
import type { Instance } from './instance.js';
import type { Instances, LayeredDraft } from './instances.js';

/** What a backend has stored. */
export interface StoredInstances<Version> {
  /** Identifies what was read, so that a later change by something else is noticed. */
  readonly version: Version;
  /** Nothing has been stored yet. */
  readonly isNew: boolean;
  /** In the order in which they were first seen. */
  readonly records: readonly Instance[];
  readonly resting: RestingAddresses;
  /** What is wrong with it, and was ignored: one line each. */
  readonly warnings: readonly string[];
}

/** An instance before and after a change: one of the two is undefined if it was added or removed. */
export interface Difference {
  readonly before: Instance | undefined;
  readonly after: Instance | undefined;
}

/** Where the instances are stored. It knows no rules: those are the registry's. */
export interface Backend<Version = unknown> {
  /** What an operator knows it by: the path of a file. */
  readonly name: string;
  /** Reads all instances. Rejects with DatabaseError if they are there and cannot be used. */
  load(): Promise<StoredInstances<Version>>;
  /** Whether something else has changed the instances since this version. */
  hasChanged(version: Version): boolean;
  /**
   * Stores a draft on top of a version, from which it differs in these instances. Resolves to the new
   * version when all of it is durable; when it rejects, nothing was stored.
   */
  commit(
    version: Version,
    draft: LayeredDraft,
    differences: readonly Difference[],
  ): Promise<Version>;
  /** Makes ready what the next `commit` of these instances needs. Others are served meanwhile. */
  prepare(instances: Instances): Promise<void>;
  /** Calls the function a moment after something may have changed the instances. Returns how to end that. */
  watch(mayHaveChanged: () => void): () => void;
}
