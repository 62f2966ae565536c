import type { HostKeys, InstanceDetails } from '../control/api.js';

/** A key as sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT", has it: its type and base64. */
const keyForm = /^(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[A-Za-z0-9@.-]+ [A-Za-z0-9+/]+=*$/;

/**
 * The lines for known_hosts of an instance: its newest keys under the names that DNS gives it and
 * its addresses. What the guest itself says it is called counts for nothing: it could take
 * another's name.
 */
export function knownHostsLines(instance: InstanceDetails): string[] {
  const { hostname, dns_names, ipv4, ipv6, host_keys } = instance;
  const hosts = [...new Set([...dns_names, hostname, ipv4, ipv6])].filter(
    (host) => host !== null && /^[A-Za-z0-9.:_-]+$/.test(host),
  );
  const keys = host_keys[0]?.keys.filter((key) => keyForm.test(key)) ?? [];
  return hosts.length === 0 ? [] : keys.map((key) => `${hosts.join(',')} ${key}`);
}

/** When the newest keys came in place of other ones, in Unix seconds; undefined if they never did. */
export function keysChanged({ host_keys }: InstanceDetails): number | undefined {
  const essence = ({ keys }: HostKeys) => [...keys].sort().join();
  const before = host_keys.findIndex((known) => essence(known) !== essence(host_keys[0] ?? known));
  return before < 0 ? undefined : host_keys[before - 1]?.at;
}
