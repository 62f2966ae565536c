import type { HostKeys, InstanceDetails, InstanceSummary } from '../../control/api.js';
import { AnswerError, instancePath } from '../client.js';
import { defineCommand } from '../command.js';
import { mapConcurrently } from '../concurrency.js';
import { connect } from '../connection.js';
import { exitCodes } from '../errors.js';
import { note, print, printJson, stdoutStyle, timeText } from '../output.js';

/** A key as in sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT": its type and base64. */
const keyForm = /^(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[A-Za-z0-9@.-]+ [A-Za-z0-9+/]+=*$/;

/**
 * An instance's lines for known_hosts: its newest keys under its names in DNS and its addresses.
 * The host name that the guest itself reports is not used: a guest could claim another's.
 */
export function knownHostsLines(instance: InstanceDetails): string[] {
  const { hostname, dns_names, ipv4, ipv6, host_keys } = instance;
  const hosts = [...new Set([...dns_names, hostname, ipv4, ipv6])].filter(
    (host) => host !== null && /^[A-Za-z0-9.:_-]+$/.test(host),
  );
  const keys = host_keys[0]?.keys.filter((key) => keyForm.test(key)) ?? [];
  return hosts.length === 0 ? [] : keys.map((key) => `${hosts.join(',')} ${key}`);
}

/** When the newest keys replaced other ones, in Unix seconds; undefined if they never did. */
export function keysChangedAt({ host_keys }: InstanceDetails): number | undefined {
  const comparable = ({ keys }: HostKeys) => [...keys].sort().join();
  const before = host_keys.findIndex(
    (known) => comparable(known) !== comparable(host_keys[0] ?? known),
  );
  return before < 0 ? undefined : host_keys[before - 1]?.at;
}

export const knownHosts = defineCommand({
  name: 'known-hosts',
  usage: ['[NAME...]'],
  operands: [0, Number.POSITIVE_INFINITY],
  completes: ['instance'],
  options: {},
  summary: 'Print SSH host keys for ~/.ssh/known_hosts.',
  help: [
    'Prints the newest keys that guests phoned home with (the phone_home module of cloud-init), under their names in DNS and their addresses. Without a NAME, prints those of all instances that have phoned home.',
    'Warns on standard error if the keys of an instance have changed since an earlier boot: the guest was reinstalled, or another one has taken its place. The exit status is 1 if a NAME has no keys.',
  ],
  examples: [['mdserverctl known-hosts web1 >> ~/.ssh/known_hosts', '']],
  run: async (operands, options) => {
    const control = connect(options);
    const named = operands.length > 0;
    const names = named
      ? [...new Set(operands)]
      : (await control.get<InstanceSummary[]>('/instances')).map(({ name }) => name);
    let status: number = exitCodes.ok;
    const answers = await mapConcurrently(names, 8, async (name) => {
      try {
        return await control.get<InstanceDetails>(instancePath(name));
      } catch (error) {
        if (!(error instanceof AnswerError) || error.status !== 404) throw error;
        // Without a NAME, somebody removed the instance since it was listed.
        if (named) {
          note(`${name}: ${error.message}`);
          status = exitCodes.unknownInstance;
        }
        return undefined;
      }
    });
    const instances = answers.filter((instance) => instance !== undefined);
    for (const instance of instances) {
      const changedAt = keysChangedAt(instance);
      if (changedAt !== undefined) {
        note(
          `${instance.name}: its host keys changed ${timeText(stdoutStyle, changedAt)}; unless it was reinstalled, another machine may have taken its place`,
        );
      }
      if (named && instance.host_keys.length === 0) {
        note(
          `${instance.name} has not phoned home with host keys: see the phone_home module of cloud-init`,
        );
        if (status === exitCodes.ok) status = exitCodes.failed;
      }
      if (!options.json) {
        print(
          knownHostsLines(instance)
            .map((line) => `${line}\n`)
            .join(''),
        );
      }
    }
    if (options.json) printJson(instances.filter(({ host_keys }) => host_keys.length > 0));
    return status;
  },
});
