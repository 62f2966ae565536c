import { type Instance, machineKey } from '../instances/instance.js';
import type { DhcpAction, DhcpLine } from './dhcp-log.js';

/**
 * How far a boot got: `started` (no sign of the guest yet), `no-address` (it asked for an address and
 * has none), `address` (DHCP only), `asking` (it asked for metadata), `configured` (it got its user-data, or it has none), `failed` (its user-data
 * could not be rendered, or its token was refused), `home` (it phoned home), `ended` (it was
 * stopped before it asked for anything), `start-failed` (libvirt could not start it).
 */
export type BootOutcome =
  | 'started'
  | 'no-address'
  | 'address'
  | 'asking'
  | 'configured'
  | 'failed'
  | 'home'
  | 'ended'
  | 'start-failed';

/** What mdserver saw of one boot. Kept in memory only, the newest few for each instance. */
export interface BootRecord {
  readonly started: number;
  /** What began the record: the hook's operation, or the first sign of the guest itself. */
  readonly by: 'prepare' | 'restore' | 'reconnect' | 'migrate' | 'attach' | 'dhcp' | 'request';
  readonly ended: number | null;
  readonly outcome: BootOutcome;
  readonly requests: number;
  readonly first_request: number | null;
  readonly last_request: number | null;
  /** The last requests that got an error: `404 /latest/meta-data/iam/`, `500 /nocloud/vendor-data (FILE)`. */
  readonly errors: readonly string[];
  readonly user_agents: readonly string[];
  /** The datasources it used: `ec2`, `nocloud`, `openstack`. */
  readonly kinds: readonly string[];
  readonly tokens: { readonly given: number; readonly used: number; readonly refused: number };
  readonly userdata: (UserdataAnswer & { readonly at: number }) | null;
  readonly dhcp: readonly DhcpEvent[];
  readonly phone_home: number | null;
}

/** A DHCP message in dnsmasq's log, and how often it came. */
export interface DhcpEvent {
  /** When it came first. */
  readonly at: number;
  /** When it came last. */
  readonly last: number;
  readonly times: number;
  readonly action: DhcpAction;
  /** '' if the log line has none. */
  readonly address: string;
  /** Why dnsmasq gave no address, in dnsmasq's words; '' if the message is no refusal. */
  readonly refusal: string;
}

/** Whether a request was issued a session token, sent a valid one, or was refused because of it. */
export type TokenUse = 'given' | 'used' | 'refused';

/** How a request for user-data was answered. */
export interface UserdataAnswer {
  /** 404 if the instance has none, even for NoCloud, where it gets an empty 200. */
  readonly status: number;
  /** The template's path; null for the built-in template. */
  readonly file: string | null;
  readonly bytes: number;
  /** The newest version of its template was refused, and it got the last one that rendered. */
  readonly earlier?: true;
  /** The client is Ignition, and this is no configuration of Ignition. */
  readonly not_ignition?: true;
}

/** A request for metadata and its answer. */
export interface MetadataRequest {
  readonly path: string;
  readonly status: number;
  readonly userAgent: string | undefined;
  /** `ec2`, `nocloud`, `openstack`. */
  readonly datasource: string;
  readonly token: TokenUse | undefined;
  /** Set if the request was for user-data. */
  readonly userdata: UserdataAnswer | undefined;
  /** The file that could not be rendered for the answer. */
  readonly failedFile?: string | undefined;
}

/** A boot record that is still growing. */
interface Boot extends Omit<{ -readonly [K in keyof BootRecord]: BootRecord[K] }, 'outcome'> {
  errors: string[];
  user_agents: string[];
  kinds: string[];
  tokens: { given: number; used: number; refused: number };
  dhcp: DhcpEvent[];
  /** libvirt could not start the guest. */
  start_failed: boolean;
}

/** Limits, so that no guest can fill the memory. */
const maxBoots = 5;
const maxErrors = 10;
const maxUserAgents = 5;
const maxDhcpEvents = 20;
const maxRefusedAddresses = 1000;
const maxTextLength = 200;

/** The newest boots of every instance, in memory only. */
export interface Boots {
  /**
   * The hook reported that a boot begins, or one more step of one that has begun. `started` is when
   * libvirt said so, in Unix seconds; now, if it is missing.
   */
  begin(instance: Instance, by: BootRecord['by'], started?: number): void;
  /**
   * The hook reported that libvirt released the guest's resources; `failed` if it could not start it.
   * Returns when the boot that this ended had begun; undefined if none had.
   */
  release(instance: Instance, failed?: boolean): number | undefined;
  /** Whether libvirt said that the guest is gone, and nothing was seen of it since. */
  isGone(instance: Instance): boolean;
  request(instance: Instance, request: MetadataRequest): void;
  /** dnsmasq logged a DHCP message of the guest. */
  dhcp(instance: Instance, line: Pick<DhcpLine, 'action' | 'address' | 'refusal'>): void;
  phonedHome(instance: Instance): void;
  /** A request came from an address that no instance has. */
  refused(address: string): void;
  /** The time of the last such request, in Unix seconds. */
  lastRefused(address: string): number | undefined;
  /** Newest first. */
  of(instance: Instance): readonly BootRecord[];
  /** The number of instances by the outcome of their latest boot. */
  outcomes(): ReadonlyMap<BootOutcome, number>;
  /** The instance is gone. */
  forget(instance: Instance): void;
}

/** How far the boot got. */
export function outcomeOf(
  boot: Omit<BootRecord, 'outcome'> & { readonly start_failed?: boolean },
): BootOutcome {
  if (boot.start_failed) return 'start-failed';
  if (boot.phone_home !== null) return 'home';
  if ((boot.userdata?.status ?? 0) >= 500 || (boot.tokens.refused > 0 && boot.userdata === null)) {
    return 'failed';
  }
  if (boot.userdata !== null) return 'configured';
  if (boot.requests > 0) return 'asking';
  if (boot.ended !== null) return 'ended';
  if (boot.dhcp.length === 0) return 'started';
  return hasAddress(boot.dhcp) ? 'address' : 'no-address';
}

/** The messages that say whether the guest has an address, of both kinds. */
const addressActions: readonly (readonly DhcpAction[])[] = [
  ['DHCPACK', 'BOOTP', 'DHCPDECLINE', 'DHCPRELEASE'],
  ['DHCPv6-REPLY', 'DHCPv6-DECLINE', 'DHCPv6-RELEASE'],
];

/** The event among those of these actions that came last. A refusal takes no address away. */
export function latestEvent(
  events: readonly DhcpEvent[],
  among: readonly DhcpAction[],
): DhcpEvent | undefined {
  const those = events.filter(({ action, refusal }) => among.includes(action) && refusal === '');
  return those.reduce<DhcpEvent | undefined>(
    (latest, event) => (latest === undefined || event.last >= latest.last ? event : latest),
    undefined,
  );
}

/** Whether the guest has an address, by what was seen. */
function hasAddress(events: readonly DhcpEvent[]): boolean {
  return addressActions.some((among) => {
    const action = latestEvent(events, among)?.action;
    return action === 'DHCPACK' || action === 'BOOTP' || action === 'DHCPv6-REPLY';
  });
}

function pushBounded<T>(list: T[], item: T, max: number): void {
  list.push(item);
  if (list.length > max) list.shift();
}

/**
 * Adds a DHCP message, or counts it once more. Where they are too many, one of those that came most is
 * dropped: a guest that floods dnsmasq with one of them does not push out the others.
 */
function addDhcp(events: DhcpEvent[], event: DhcpEvent): void {
  const index = events.findIndex(
    ({ action, address, refusal }) =>
      action === event.action && address === event.address && refusal === event.refusal,
  );
  const known = events[index];
  if (known !== undefined) {
    events[index] = { ...known, last: event.last, times: known.times + 1 };
    return;
  }
  events.push(event);
  if (events.length <= maxDhcpEvents) return;
  const counts = new Map<DhcpAction, number>();
  for (const { action } of events) counts.set(action, (counts.get(action) ?? 0) + 1);
  const most = Math.max(...counts.values());
  events.splice(
    events.findIndex(({ action }) => counts.get(action) === most),
    1,
  );
}

/** A bounded copy: V8 keeps the whole string alive for a slice of it. */
function shortened(text: string): string {
  return Buffer.from(text.slice(0, maxTextLength)).toString();
}

/** Adds a bounded copy of a text to a list that does not have it yet. A list that has it costs no copy. */
function addShortened(list: string[], text: string, max: number): void {
  if (text.length <= maxTextLength && list.includes(text)) return;
  const copy = shortened(text);
  if (!list.includes(copy)) pushBounded(list, copy, max);
}

/** What boot records depend on. */
export interface BootsParts {
  /** Unix seconds. */
  readonly now?: () => number;
  /** Called when libvirt starts a guest, which was not running before. */
  readonly started?: (instance: Instance) => void;
}

/** Creates empty boot records. */
export function createBoots({
  now = () => Date.now() / 1000,
  started: onStart,
}: BootsParts = {}): Boots {
  const all = new Map<string, Boot[]>();
  const refusedAt = new Map<string, number>();

  function begin(instance: Instance, by: BootRecord['by'], started = now()): Boot {
    const boots = all.get(machineKey(instance)) ?? [];
    const boot: Boot = {
      started,
      by,
      ended: null,
      requests: 0,
      first_request: null,
      last_request: null,
      errors: [],
      user_agents: [],
      kinds: [],
      tokens: { given: 0, used: 0, refused: 0 },
      userdata: null,
      dhcp: [],
      phone_home: null,
      start_failed: false,
    };
    pushBounded(boots, boot, maxBoots);
    all.set(machineKey(instance), boots);
    return boot;
  }

  /** The newest boot, if it has not ended. */
  function unended(instance: Instance): Boot | undefined {
    const newest = all.get(machineKey(instance))?.at(-1);
    return newest?.ended === null ? newest : undefined;
  }

  /** The boot that a sign of the guest belongs to; a new one if no hook reported it. */
  function current(instance: Instance, by: BootRecord['by']): Boot {
    return unended(instance) ?? begin(instance, by);
  }

  return {
    begin(instance, by, started = now()) {
      const boot = unended(instance);
      // libvirt restores a guest, or takes it from another host, and then prepares its start.
      if (by === 'prepare' && (boot?.by === 'restore' || boot?.by === 'migrate')) return;
      const wasSeenFirst = boot?.by === 'dhcp' || boot?.by === 'request';
      if (boot !== undefined && wasSeenFirst && started <= boot.started) {
        // The hook's report came late.
        boot.by = by;
        boot.started = started;
        return;
      }
      begin(instance, by, started);
      if (by === 'prepare') onStart?.(instance);
    },
    release(instance, failed = false) {
      const boot = unended(instance);
      if (boot === undefined) return undefined;
      boot.ended = now();
      boot.start_failed = failed;
      return boot.started;
    },
    isGone(instance) {
      const newest = all.get(machineKey(instance))?.at(-1);
      return newest !== undefined && newest.ended !== null;
    },
    request(instance, { path, status, userAgent, datasource, token, userdata, failedFile }) {
      const boot = current(instance, 'request');
      const at = now();
      boot.requests += 1;
      boot.first_request ??= at;
      boot.last_request = at;
      if (token !== undefined) boot.tokens[token] += 1;
      if (status >= 400) {
        const file = failedFile === undefined ? '' : ` (${shortened(failedFile)})`;
        pushBounded(boot.errors, `${status} ${shortened(path)}${file}`, maxErrors);
      }
      if (userAgent !== undefined) addShortened(boot.user_agents, userAgent, maxUserAgents);
      if (!boot.kinds.includes(datasource)) boot.kinds.push(datasource);
      if (userdata !== undefined) boot.userdata = { at, ...userdata };
    },
    dhcp(instance, { action, address, refusal }) {
      // A guest that shuts down gives its address back, perhaps after libvirt has said that it is gone.
      const isEnd = action === 'DHCPRELEASE' || action === 'DHCPv6-RELEASE';
      const boot = isEnd ? unended(instance) : current(instance, 'dhcp');
      if (boot === undefined) return;
      const at = now();
      addDhcp(boot.dhcp, {
        at,
        last: at,
        times: 1,
        action,
        address: shortened(address),
        refusal: shortened(refusal),
      });
    },
    refused(address) {
      // The first key is the oldest, so a key that is set again must move to the end.
      refusedAt.delete(address);
      refusedAt.set(address, now());
      const [oldest] = refusedAt.keys();
      if (refusedAt.size > maxRefusedAddresses && oldest !== undefined) refusedAt.delete(oldest);
    },
    lastRefused: (address) => refusedAt.get(address),
    phonedHome(instance) {
      current(instance, 'request').phone_home = now();
    },
    of(instance) {
      const boots = all.get(machineKey(instance)) ?? [];
      return boots
        .map(({ start_failed, ...boot }) => ({
          ...boot,
          outcome: outcomeOf({ ...boot, start_failed }),
        }))
        .reverse();
    },
    outcomes() {
      const counts = new Map<BootOutcome, number>();
      for (const boots of all.values()) {
        const newest = boots.at(-1);
        if (newest === undefined) continue;
        const outcome = outcomeOf(newest);
        counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
      }
      return counts;
    },
    forget(instance) {
      all.delete(machineKey(instance));
    },
  };
}
