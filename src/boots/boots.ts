import { type Instance, machineKey } from '../instances/instance.js';

/**
 * How far a boot came: `started` (nothing seen of it yet), `address` (DHCP only), `asking`
 * (it asked for metadata), `configured` (it has its user-data, or there is none for it), `failed`
 * (its user-data could not be made, or its token was refused), `home` (it phoned home), `ended`
 * (released before it asked for anything).
 */
export type BootOutcome =
  | 'started'
  | 'address'
  | 'asking'
  | 'configured'
  | 'failed'
  | 'home'
  | 'ended';

/** What was seen of one boot; in memory only, the newest few of each instance. */
export interface BootRecord {
  readonly started: number;
  /** What it was known by: the hook's operation, or the first sign of the guest itself. */
  readonly by: 'prepare' | 'restore' | 'reconnect' | 'migrate' | 'attach' | 'dhcp' | 'request';
  readonly ended: number | null;
  readonly outcome: BootOutcome;
  readonly requests: number;
  readonly first_request: number | null;
  readonly last_request: number | null;
  /** The last paths that were answered with an error: `404 /latest/meta-data/iam/`. */
  readonly errors: readonly string[];
  readonly user_agents: readonly string[];
  /** `ec2`, `nocloud`, `openstack`: where it looked. */
  readonly kinds: readonly string[];
  readonly tokens: { readonly given: number; readonly used: number; readonly refused: number };
  readonly userdata: (UserdataAnswer & { readonly at: number }) | null;
  readonly dhcp: readonly DhcpEvent[];
  readonly phone_home: number | null;
}

/** A line of dnsmasq's log: `DHCPDISCOVER`, `DHCPACK`, `DHCPNAK`; the address is '' where it names none. */
export interface DhcpEvent {
  readonly at: number;
  readonly action: string;
  readonly address: string;
}

/** What became of a session token: it was given out, came with the request and was good, or was refused. */
export type TokenUse = 'given' | 'used' | 'refused';

/** How a request for user-data was answered. */
export interface UserdataAnswer {
  /** 404 where the instance has none, though NoCloud guests get an empty 200 then. */
  readonly status: number;
  /** The template's path; null for the built-in one. */
  readonly file: string | null;
  readonly bytes: number;
}

/** A request for metadata, and how it was answered. */
export interface MetadataRequest {
  readonly path: string;
  readonly status: number;
  readonly userAgent: string | undefined;
  /** `ec2`, `nocloud`, `openstack`. */
  readonly datasource: string;
  readonly token: TokenUse | undefined;
  /** Where user-data was asked for. */
  readonly userdata: UserdataAnswer | undefined;
}

/** A boot under way: what the record is made from. */
interface Boot extends Omit<{ -readonly [K in keyof BootRecord]: BootRecord[K] }, 'outcome'> {
  errors: string[];
  user_agents: string[];
  kinds: string[];
  tokens: { given: number; used: number; refused: number };
  dhcp: DhcpEvent[];
}

/** Bounds of what is kept, so that no guest can fill the memory. */
const bootsKept = 5;
const errorsKept = 10;
const agentsKept = 5;
const dhcpKept = 10;
const refusedKept = 1000;
const longestText = 200;

/** The newest boots of every instance, in memory alone. */
export interface Boots {
  /** The hook reports that a boot begins. */
  begin(instance: Instance, by: BootRecord['by']): void;
  /** The hook reports that the guest's resources were released. */
  release(instance: Instance): void;
  request(instance: Instance, request: MetadataRequest): void;
  dhcp(instance: Instance, action: string, address: string): void;
  phonedHome(instance: Instance): void;
  /** An address that is no instance's was turned away. */
  refused(address: string): void;
  /** When that was last, in Unix seconds. */
  lastRefused(address: string): number | undefined;
  /** Newest first. */
  of(instance: Instance): readonly BootRecord[];
  /** Forgets the instances that are not among these. */
  keepOnly(alive: (key: string) => boolean): void;
}

/** How far the boot came (see BootOutcome). */
export function outcomeOf(boot: Omit<BootRecord, 'outcome'>): BootOutcome {
  if (boot.phone_home !== null) return 'home';
  if ((boot.userdata?.status ?? 0) >= 500 || (boot.tokens.refused > 0 && boot.userdata === null)) {
    return 'failed';
  }
  if (boot.userdata !== null) return 'configured';
  if (boot.requests > 0) return 'asking';
  if (boot.ended !== null) return 'ended';
  return boot.dhcp.length > 0 ? 'address' : 'started';
}

function pushBounded<T>(list: T[], item: T, most: number): void {
  list.push(item);
  if (list.length > most) list.shift();
}

/** A bounded copy: a mere slice of a string has V8 hold the whole of it. */
function shortened(text: string): string {
  return Buffer.from(text.slice(0, longestText)).toString();
}

/** A record of boots; `now` gives Unix seconds. */
export function createBoots(now: () => number = () => Date.now() / 1000): Boots {
  const all = new Map<string, Boot[]>();
  const refusedAt = new Map<string, number>();

  function begin(instance: Instance, by: BootRecord['by']): Boot {
    const boots = all.get(machineKey(instance)) ?? [];
    const boot: Boot = {
      started: now(),
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
    };
    pushBounded(boots, boot, bootsKept);
    all.set(machineKey(instance), boots);
    return boot;
  }

  /** The boot that a sign of the guest belongs to; a first one where no hook reported any. */
  function current(instance: Instance, by: BootRecord['by']): Boot {
    const newest = all.get(machineKey(instance))?.at(-1);
    return newest === undefined || newest.ended !== null ? begin(instance, by) : newest;
  }

  return {
    begin(instance, by) {
      begin(instance, by);
    },
    release(instance) {
      const newest = all.get(machineKey(instance))?.at(-1);
      if (newest !== undefined) newest.ended ??= now();
    },
    request(instance, { path, status, userAgent, datasource, token, userdata }) {
      const boot = current(instance, 'request');
      const at = now();
      boot.requests += 1;
      boot.first_request ??= at;
      boot.last_request = at;
      if (token !== undefined) boot.tokens[token] += 1;
      if (status >= 400) {
        pushBounded(boot.errors, `${status} ${shortened(path)}`, errorsKept);
      }
      const agent = userAgent && shortened(userAgent);
      if (agent !== undefined && !boot.user_agents.includes(agent)) {
        pushBounded(boot.user_agents, agent, agentsKept);
      }
      if (!boot.kinds.includes(datasource)) boot.kinds.push(datasource);
      if (userdata !== undefined) boot.userdata = { at, ...userdata };
    },
    dhcp(instance, action, address) {
      pushBounded(
        current(instance, 'dhcp').dhcp,
        { at: now(), action, address: shortened(address) },
        dhcpKept,
      );
    },
    refused(address) {
      // The oldest is the first: setting a key anew must move it to the end.
      refusedAt.delete(address);
      refusedAt.set(address, now());
      const [oldest] = refusedAt.keys();
      if (refusedAt.size > refusedKept && oldest !== undefined) refusedAt.delete(oldest);
    },
    lastRefused: (address) => refusedAt.get(address),
    phonedHome(instance) {
      current(instance, 'request').phone_home = now();
    },
    of(instance) {
      const boots = all.get(machineKey(instance)) ?? [];
      return boots.map((boot) => ({ ...boot, outcome: outcomeOf(boot) })).reverse();
    },
    keepOnly(alive) {
      for (const key of all.keys()) if (!alive(key)) all.delete(key);
    },
  };
}
