import { runProgram } from '../programs.js';

/** What a guest sends to the host. */
export interface Traffic {
  readonly what: string;
  readonly port: number;
  readonly protocol: 'tcp' | 'udp';
}

/** A chain that sees what comes in, and drops some of it. */
export interface DroppingChain {
  /** `inet filter input`, as the command nft names it. */
  readonly chain: string;
  readonly dropped: readonly Traffic[];
}

type Json = { readonly [key: string]: unknown };
type Verdict = 'accept' | 'drop' | undefined;

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null;
const objectAt = (value: unknown, key: string): Json | undefined => {
  const found = isObject(value) ? value[key] : undefined;
  return isObject(found) ? found : undefined;
};

/** A first packet of the traffic, as far as rules look at it: the value of an expression, `none` if it has no such part. */
function partOf(left: unknown, { port, protocol }: Traffic, bridge: string, isIpv6: boolean) {
  const meta = objectAt(left, 'meta')?.['key'];
  if (meta === 'iifname' || meta === 'iif') return bridge;
  if (meta === 'l4proto') return protocol;
  if (meta === 'nfproto') return isIpv6 ? 'ipv6' : 'ipv4';
  if (meta === 'protocol') return isIpv6 ? 'ip6' : 'ip';
  if (objectAt(left, 'ct')?.['key'] === 'state') return 'new';
  const payload = objectAt(left, 'payload');
  const of = payload?.['protocol'];
  if (of === undefined) return undefined;
  if (of === 'ip' || of === 'ip6') {
    if ((of === 'ip6') !== isIpv6) return 'none';
    return ['protocol', 'nexthdr'].includes(String(payload?.['field'])) ? protocol : undefined;
  }
  if (of !== 'th' && of !== protocol) return 'none';
  return payload?.['field'] === 'dport' ? port : undefined;
}

/** Whether a value is what a rule names: a value, a range or a list of them. */
function isIn(value: string | number, right: unknown, sets: ReadonlyMap<string, unknown>): boolean {
  if (Array.isArray(right)) return right.some((one) => isIn(value, one, sets));
  if (typeof right === 'string' && right.startsWith('@')) {
    return isIn(value, sets.get(right.slice(1)) ?? [], sets);
  }
  if (typeof right === 'string' && right.endsWith('*')) {
    return String(value).startsWith(right.slice(0, -1));
  }
  if (!isObject(right)) return right === value;
  const { set, elem, range } = right;
  if (set !== undefined) return isIn(value, set, sets);
  if (isObject(elem)) return isIn(value, elem['val'], sets);
  if (!Array.isArray(range)) return false;
  return Number(range[0]) <= Number(value) && Number(value) <= Number(range[1]);
}

/**
 * The chains of a ruleset (`nft --json list ruleset`) that drop what guests send from the bridge. What depends on
 * more than interface, protocol and port, such as the source, counts as let in.
 */
export function droppingChains(
  ruleset: string,
  bridge: string,
  traffic: readonly Traffic[],
): DroppingChain[] {
  const { nftables } = JSON.parse(ruleset) as { nftables: readonly Json[] };
  const all = (kind: string) =>
    nftables.map((one) => objectAt(one, kind)).filter((one) => one !== undefined);
  const placeOf = ({ family, table }: Json) => `${String(family)} ${String(table)}`;
  const rules = new Map<string, Json[]>();
  for (const rule of all('rule')) {
    const chain = `${placeOf(rule)} ${String(rule['chain'])}`;
    const before = rules.get(chain);
    if (before === undefined) rules.set(chain, [rule]);
    else before.push(rule);
  }

  const passes = (base: Json, packet: Traffic): boolean => {
    const place = placeOf(base);
    const isIpv6 = packet.port === 547;
    const sets = new Map(
      all('set')
        .filter((set) => placeOf(set) === place)
        .map((set) => [String(set['name']), set['elem']]),
    );
    /** Whether an expression holds; undefined if that cannot be told. */
    const holds = (match: Json): boolean | undefined => {
      const value = partOf(match['left'], packet, bridge, isIpv6);
      if (value === undefined) return undefined;
      if (value === 'none') return false;
      const isNamed = isIn(value, match['right'], sets);
      if (match['op'] === '!=') return !isNamed;
      return ['==', 'in'].includes(String(match['op'])) ? isNamed : undefined;
    };
    const verdictOf = (statement: Json, isCertain: boolean, depth: number): Verdict | 'return' => {
      if ('accept' in statement) return 'accept';
      if ('drop' in statement || 'reject' in statement) return isCertain ? 'drop' : undefined;
      if ('return' in statement) return isCertain ? 'return' : undefined;
      const target = objectAt(statement, 'jump') ?? objectAt(statement, 'goto');
      if (target !== undefined) {
        const verdict = verdictIn(String(target['target']), depth + 1);
        if (verdict === 'drop' && !isCertain) return undefined;
        return verdict ?? ('goto' in statement && isCertain ? 'return' : undefined);
      }
      const map = objectAt(statement, 'vmap');
      const value = map && partOf(map['key'], packet, bridge, isIpv6);
      const entries = objectAt(map, 'data')?.['set'];
      if (value === undefined || !Array.isArray(entries)) return undefined;
      const [, chosen] = entries.find(([key]) => isIn(value, key, sets)) ?? [];
      return isObject(chosen) ? verdictOf(chosen, isCertain, depth) : undefined;
    };
    const verdictIn = (chain: string, depth: number): Verdict => {
      // The kernel allows 16.
      if (depth > 16) return undefined;
      for (const { expr } of rules.get(`${place} ${chain}`) ?? []) {
        let isCertain = true;
        for (const statement of Array.isArray(expr) ? expr.filter(isObject) : []) {
          const match = objectAt(statement, 'match');
          const result = match === undefined ? undefined : holds(match);
          if (result === false) break;
          const isSilent = ['counter', 'log', 'comment'].some((name) => name in statement);
          const verdict = match === undefined ? verdictOf(statement, isCertain, depth) : undefined;
          if (verdict === 'return') return undefined;
          if (verdict !== undefined) return verdict;
          const isKnown = result === true || isSilent || 'jump' in statement || 'vmap' in statement;
          isCertain &&= isKnown;
        }
      }
      return undefined;
    };
    return (verdictIn(String(base['name']), 0) ?? base['policy']) !== 'drop';
  };

  return all('chain')
    .filter(({ hook, type }) => hook === 'input' && type === 'filter')
    .map((base) => {
      const seen = traffic.filter(({ port }) => {
        const families = ['inet', port === 547 ? 'ip6' : 'ip'];
        return families.includes(String(base['family']));
      });
      const dropped = seen.filter((packet) => !passes(base, packet));
      return { chain: `${placeOf(base)} ${String(base['name'])}`, dropped };
    })
    .filter(({ dropped }) => dropped.length > 0);
}

/** The rules of nftables as JSON; undefined if nft is not installed, or does not show them to this user. */
export async function nftRuleset(): Promise<string | undefined> {
  const result = await runProgram('nft', ['--json', 'list', 'ruleset']);
  return result?.status === 0 ? result.stdout : undefined;
}

/** The commands that let the traffic in, until the rules are loaded again: those of iptables for a chain of its own. */
export function nftCommands({ chain, dropped }: DroppingChain, bridge: string): string[] {
  // Its rules are iptables', which would no longer understand a chain with others.
  const [, family] = /^(ip6?) filter INPUT$/.exec(chain) ?? [];
  const iptables = family && `${family}tables`;
  return (['tcp', 'udp'] as const).flatMap((protocol) => {
    const ports = dropped
      // Long answers of DNS come over TCP.
      .filter((one) => one.protocol === protocol || one.port === 53)
      .map(({ port }) => port)
      .sort((one, other) => one - other);
    if (ports.length === 0) return [];
    if (iptables !== undefined) {
      return [
        `${iptables} -I INPUT -i ${bridge} -p ${protocol} -m multiport --dports ${ports.join(',')} -j ACCEPT`,
      ];
    }
    const list = ports.length === 1 ? ports[0] : `'{ ${ports.join(', ')} }'`;
    return [`nft insert rule ${chain} iifname ${bridge} ${protocol} dport ${list} accept`];
  });
}
