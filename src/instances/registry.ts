import { isDeepStrictEqual } from 'node:util';
import { type FileContent, fileKeeper } from '../files.js';
import type { Logger } from '../log.js';
import { shortTurns } from '../turns.js';
import type { Backend, Difference, StoredInstances } from './backend.js';
import type { Details } from './details.js';
import type { Domain, Port } from './domain.js';
import type { Naming } from './host-names.js';
import { describeInstance, type Instance, largeRecords } from './instance.js';
import {
  type AddressPlan,
  addressesUsedBy,
  applyDraft,
  ChosenAddressError,
  type Draft,
  draftOf,
  drop,
  endUse,
  type GivingUp,
  type Instances,
  instancesFrom,
  type LayeredDraft,
  leaveNetwork,
  type NamedMachine,
  put,
  register,
  registerPort,
  rest,
} from './instances.js';
import type { Uuid } from './uuid.js';

/** What a round changed. */
export interface Change {
  /** The instances in force now. */
  readonly instances: Instances;
  readonly differences: readonly Difference[];
  /** The paths of the subscriber's files, and of others, that were written: those whose content differs. */
  readonly written: ReadonlySet<string>;
}

/** Follows all changes of the instances, whatever causes them. */
export interface Subscriber {
  /** The files that are derived from the instances. They are written before a change is confirmed. */
  files(instances: Instances): readonly FileContent[];
  /** Called when the instances are in force and the files are written. Must not throw. */
  changed(change: Change): void;
}

/**
 * Holds the instances, and changes them by the rules. When a promise resolves, the change is durable
 * and all subscribers have been notified; when it rejects, nothing was stored. The instances may also
 * change outside, in the backend.
 */
export interface Registry {
  /** The instances in force, in memory. A change that is not stored yet is not in them. */
  readonly instances: Instances;
  /** Why the last change could not be stored; undefined if it was. */
  readonly problem: string | undefined;
  /** A draft to try rules on. Nothing stores it. */
  draft(): Draft;
  /**
   * Registers a domain and allocates its addresses. `at` is when libvirt told of it, in Unix seconds,
   * if that was before now. Rejects with NoAddressError, ChosenAddressError, OutdatedError or StoreError.
   */
  register(domain: Domain, at?: number): Promise<Instance>;
  /**
   * Registers the domain of a port; undefined if an instance has its uuid. Rejects as `register` does,
   * as the last upload of the domain did if that was refused for its address, and with PortConflictError.
   */
  registerPort(port: Port, at?: number): Promise<Instance | undefined>;
  /**
   * The domain with this uuid has no interface on the network. Resolves to the instance if that is new
   * of it. Rejects with StoreError.
   */
  leaveNetwork(uuid: Uuid, at?: number): Promise<Instance | undefined>;
  /**
   * Removes an instance; undefined if no instance has the name. `isGone` says that its machine does
   * not run: see RestingAddress.
   */
  remove(name: string, isGone?: boolean): Promise<Instance | undefined>;
  /** libvirt said that a machine is gone: others may have the addresses that it gave up. */
  machineGone(machine: NamedMachine): Promise<void>;
  /**
   * Stores what an instance reported in its details; undefined if no instance has the name. Rejects with
   * StoreError, or with what `change` throws to refuse it.
   */
  changeDetails(name: string, change: (details: Details) => Details): Promise<Instance | undefined>;
  /** Adds a subscriber. It is first notified by the next change or `refresh`. */
  subscribe(subscriber: Subscriber): void;
  /** Reads changes made outside and the naming, and writes all derived files anew. */
  refresh(): Promise<void>;
  /** Resolves when all requested changes are done. */
  close(): Promise<void>;
}

/** A change could not be stored; the message says why, in one line. */
export class StoreError extends Error {}

/** What a registry depends on. */
export interface RegistryOptions<Version> {
  readonly backend: Backend<Version>;
  readonly plan: AddressPlan;
  /** The naming of instances, which `refresh` asks for again. */
  readonly naming: () => Naming;
  /** The location of this host, for the record of each domain uploaded here. */
  readonly location: () => string;
  /** Whether libvirt said that the machine is gone. */
  readonly isGone: (machine: Instance) => boolean;
  readonly log: Logger;
}

/** Domains whose refused upload is remembered. */
const maxRefused = 1024;

/** A change that waits for the next round. */
interface PendingChange {
  /** Applies the change to the draft. Throws to reject it; returns a function that reports success. */
  readonly apply: (draft: Draft) => () => void;
  readonly isRefresh: boolean;
  readonly reject: (error: unknown) => void;
}

/** The instances that a round starts from, and the backend's version of them. */
interface State<Version> {
  readonly instances: Draft;
  readonly version: Version;
}

function unixTime(): number {
  return Date.now() / 1000;
}

/** How a draft differs from what it is on top of. */
function changesOf(draft: LayeredDraft, base: Instances): Difference[] {
  return Array.from(draft.byName.changedKeys(), (name) => ({
    before: base.byName.get(name),
    after: draft.byName.get(name),
  }));
}

/** How all instances differ from others. */
function differencesOf(before: Instances, after: Instances): Difference[] {
  const names = new Set([...before.byName.keys(), ...after.byName.keys()]);
  return Array.from(names, (name) => ({
    before: before.byName.get(name),
    after: after.byName.get(name),
  })).filter((difference) => difference.before !== difference.after);
}

/**
 * Opens a registry of the instances that a backend has. Changes that arrive while a round is being
 * stored form the next round, which is stored and announced once.
 * Rejects with DatabaseError if what the backend has cannot be used.
 */
export async function openRegistry<Version>({
  backend,
  plan,
  naming,
  location,
  isGone,
  log,
}: RegistryOptions<Version>): Promise<Registry> {
  const subscribers: Subscriber[] = [];
  const derivedFiles = fileKeeper();
  let state = stateOf(await backend.load(), naming());
  let problem: string | undefined;
  let pending: PendingChange[] = [];
  let storing: Promise<void> | undefined;
  const givingUp = (): GivingUp => ({ now: unixTime(), isGone });
  /** `at` is not in the future: the clock may have been set back. */
  const about = (at: number | undefined) => ({
    ...givingUp(),
    location: location(),
    at: at && Math.min(at, unixTime()),
  });

  function stateOf(stored: StoredInstances<Version>, named: Naming): State<Version> {
    const { records, resting, version, warnings } = stored;
    for (const warning of warnings) log.warn(warning);
    const { draft, superseded } = instancesFrom(records, named, resting, unixTime());
    for (const instance of superseded) {
      const described = describeInstance(instance);
      log.warn(`${backend.name}: ignored another record of the same machine: ${described}`);
    }
    const large = largeRecords(records);
    if (large !== undefined) log.warn(`${backend.name} has ${large}`);
    return { instances: draft, version };
  }

  /** The state that a round starts from: the one in force, unless it is out of date. */
  async function latestState(isRefresh: boolean): Promise<State<Version>> {
    // An operator may edit the file, as with Python md_server, which reads it each time.
    if (backend.hasChanged(state.version)) {
      log.info(`${backend.name} was changed by another program: reading it again`);
      return stateOf(await backend.load(), naming());
    }
    const { instances, version } = state;
    const named = isRefresh ? naming() : instances.naming;
    if (isDeepStrictEqual(named, instances.naming)) return state;
    const records = [...instances.byName.values()];
    return { instances: instancesFrom(records, named, instances.resting).draft, version };
  }

  /** Applies a batch to a draft. Returns how to report the changes that the rules allow. */
  async function applyAll(batch: readonly PendingChange[], draft: Draft): Promise<(() => void)[]> {
    const reports: (() => void)[] = [];
    const turn = shortTurns();
    for (const { apply, reject } of batch) {
      try {
        reports.push(apply(draft));
      } catch (error) {
        reject(error);
      }
      await turn();
    }
    return reports;
  }

  /** Stores a draft on top of a base, which is in force then. Rejects if nothing was stored. */
  async function store(draft: LayeredDraft, base: State<Version>): Promise<Change> {
    const stored = changesOf(draft, base.instances);
    const differences = base === state ? stored : differencesOf(state.instances, draft);
    const files = await derivedFiles.stage(
      subscribers.flatMap((subscriber) => subscriber.files(draft)),
    );
    let version: Version;
    try {
      version = await backend.commit(base.version, draft, stored);
    } catch (error) {
      await files.discard();
      throw error;
    }
    applyDraft(draft, base.instances);
    state = { instances: base.instances, version };
    await files.commit().catch((error: Error) => {
      throw new StoreError(`stored, but files that depend on it were not: ${error.message}`);
    });
    return { instances: state.instances, differences, written: new Set(files.paths) };
  }

  async function round(batch: readonly PendingChange[]): Promise<void> {
    let reports: (() => void)[];
    let change: Change;
    try {
      const isRefresh = batch.some((pendingChange) => pendingChange.isRefresh);
      const base = await latestState(isRefresh);
      const draft = draftOf(base.instances);
      if (base !== state) {
        // Instances that something else removed.
        for (const known of state.instances.byName.values()) rest(draft, known, givingUp());
      }
      reports = await applyAll(batch, draft);
      if (reports.length === 0 && base === state) return;
      if (isRefresh) derivedFiles.forget();
      change = await store(draft, base);
    } catch (error) {
      const { message } = error as Error;
      const failure =
        error instanceof StoreError ? error : new StoreError(`nothing was stored: ${message}`);
      // Once: a guest can report host keys again and again.
      if (failure.message !== problem) log.error(failure.message);
      problem = failure.message;
      for (const { reject } of batch) reject(failure);
      return;
    }
    problem = undefined;
    for (const subscriber of subscribers) subscriber.changed(change);
    const turn = shortTurns();
    for (const report of reports) {
      report();
      await turn();
    }
  }

  async function storePending(): Promise<void> {
    while (pending.length > 0) {
      const batch = pending;
      pending = [];
      await round(batch);
    }
    storing = undefined;
  }

  /** Makes a change with the next round; `apply` throws to reject it and returns its result. */
  function change<T>(apply: (draft: Draft) => T, isRefresh = false): Promise<T> {
    return new Promise((resolve, reject) => {
      pending.push({
        apply: (draft) => {
          const result = apply(draft);
          return () => resolve(result);
        },
        isRefresh,
        reject,
      });
      // Not at once, so that all changes of this turn of the event loop are in one round.
      storing ??= new Promise((start) => setImmediate(start)).then(storePending);
    });
  }

  function readChange(): void {
    if (storing !== undefined || !backend.hasChanged(state.version)) return;
    // The round logs why it cannot be read.
    change(() => undefined).catch(() => undefined);
  }

  /**
   * Why the last upload of a domain was refused, by its uuid: a port that libvirt makes next knows
   * neither the address that the domain chooses nor its other metadata.
   */
  const refused = new Map<Uuid, ChosenAddressError>();
  function rememberRefusal(uuid: Uuid, error: unknown): void {
    if (!(error instanceof ChosenAddressError)) return;
    refused.set(uuid, error);
    const [oldest] = refused.keys();
    if (oldest !== undefined && refused.size > maxRefused) refused.delete(oldest);
  }

  let unwatch = () => {};
  try {
    unwatch = backend.watch(readChange);
  } catch (error) {
    const { message } = error as Error;
    log.warn(
      `a change of ${backend.name} by another program is read at the next upload: ${message}`,
    );
  }

  return {
    get instances() {
      return state.instances;
    },
    get problem() {
      return problem;
    },
    draft: () => draftOf(state.instances),
    async register(domain, at) {
      const registering = change((draft) => register(draft, domain, plan, about(at)));
      const { instance, superseded } = await registering.catch((error: unknown) => {
        rememberRefusal(domain.uuid, error);
        throw error;
      });
      refused.delete(domain.uuid);
      for (const other of superseded) {
        log.warn(
          `${describeInstance(other)} was replaced by ${describeInstance(instance)}, which now has its name or MAC`,
        );
      }
      return instance;
    },
    async registerPort(port, at) {
      if (state.instances.byUuid.has(port.uuid)) return undefined;
      const refusal = refused.get(port.uuid);
      if (refusal !== undefined) throw refusal;
      return change((draft) => registerPort(draft, port, plan, about(at)));
    },
    async leaveNetwork(uuid, at) {
      // Most guests of a host may be on other networks, and each start uploads one.
      const known = state.instances.byUuid.get(uuid);
      if (known === undefined || known.details.leftNetwork !== undefined) return undefined;
      return change((draft) => leaveNetwork(draft, uuid, about(at)));
    },
    remove(name, isGoneNow = false) {
      return change((draft) => {
        const instance = draft.byName.get(name);
        const byCaller = { now: unixTime(), isGone: () => true };
        if (instance !== undefined) drop(draft, instance, isGoneNow ? byCaller : givingUp());
        return instance;
      });
    },
    async machineGone(machine) {
      // A removal that is being stored may have given some up.
      const isIdle = storing === undefined;
      if (isIdle && addressesUsedBy(state.instances, machine).length === 0) return;
      await change((draft) => endUse(draft, machine));
    },
    async changeDetails(name, changeOf) {
      const changed = ({ byName }: Instances): Instance | undefined => {
        const before = byName.get(name);
        return before && { ...before, details: changeOf(before.details) };
      };
      // Refused at once, where possible: a round is shared with others.
      changed(state.instances);
      return change((draft) => {
        const instance = changed(draft);
        if (instance !== undefined) put(draft, instance, givingUp());
        return instance;
      });
    },
    subscribe(subscriber) {
      subscribers.push(subscriber);
    },
    async refresh() {
      await change(() => undefined, true);
      void backend.prepare(state.instances);
    },
    async close() {
      unwatch();
      await storing;
    },
  };
}
