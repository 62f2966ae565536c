import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Scope } from './cleanup.js';
import { addHost } from './netns.js';
import { domainXml, mac, type Settings } from './samples.js';
import { type Site, startSite } from './site.js';

/** Where guests find their metadata. */
export const metadataUrl = 'http://169.254.169.254';

/** The key in `[public-keys]`. */
export const guestKey =
  'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGd1ZXN0IGtleSBmb3IgdGVzdHMgb25seSEh me@example.net';

/** What a guest boots with. */
export interface GuestSettings {
  /** A file under its name. */
  readonly userdata?: string | Buffer;
  /** What its domain has for mdserver. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** A guest that runs: a namespace that reaches the metadata over a bridge, as a virtual machine does. */
export interface ClientGuest {
  readonly name: string;
  readonly uuid: string;
  readonly ipv4: string;
  readonly mac: string;
  /** Runs a program in the guest to its end, with an empty home folder and no environment but `env`. */
  readonly run: (program: string, ...args: string[]) => Promise<string>;
  /** The same with more variables of its environment. */
  readonly runWith: (
    env: Readonly<Record<string, string>>,
    program: string,
    ...args: string[]
  ) => Promise<string>;
  /** The same for a line of shell. */
  readonly shell: (line: string) => Promise<string>;
  /** All that it has asked for up to now: `GET /path 200`. Then it begins anew. */
  readonly requests: () => Promise<string[]>;
  /** An empty folder. */
  readonly folder: string;
}

/** A host with mdserver, whose guests run programs that others wrote. */
export interface ClientSite extends Site {
  readonly boot: (name: string, settings?: GuestSettings) => Promise<ClientGuest>;
}

/**
 * Starts mdserver on a host of its own: with a key, a DNS domain and a zone, with more lines of
 * `[public-keys]` and what `settings` has.
 */
export async function startClientSite(
  scope: Scope,
  { keys = '', ...settings }: Settings & { readonly keys?: string } = {},
): Promise<ClientSite> {
  const host = addHost(scope);
  const site = await startSite(scope, host, {
    ...settings,
    dnsmasq: `user = root\ndomain = example.net\n${settings.dnsmasq ?? ''}`,
    sections: `[public-keys]
default = ${guestKey}
${keys}
[service]
location = rack1
[metadata-defaults]
availability-zone = rack1a
${settings.sections ?? ''}`,
  });
  const { daemon, folder } = site;
  let guests = 0;

  async function boot(
    name: string,
    { userdata, metadata = {} }: GuestSettings = {},
  ): Promise<ClientGuest> {
    guests += 1;
    const home = join(folder, name);
    mkdirSync(home);
    if (userdata !== undefined) writeFileSync(join(folder, 'userdata', name), userdata);
    const xml = domainXml(guests, { name, metadata });
    writeFileSync(join(home, 'domain.xml'), xml);
    const upload = ['-sS', '--fail', '-H', 'Accept: application/json', '--data-binary'];
    const { stdout, stderr } = await host.run('curl', [
      ...upload,
      `@${home}/domain.xml`,
      `${metadataUrl}/instance-upload`,
    ]);
    assert.equal(stderr, '');
    const { mds_ipv4: ipv4, domain_uuid: uuid } = JSON.parse(stdout);
    const namespace = host.addGuest(mac(guests));
    namespace.ip(`address add ${ipv4}/16 dev eth0`);
    namespace.ip('route add default via 10.122.0.1');

    const runWith: ClientGuest['runWith'] = async (more, program, ...args) => {
      const env = { PATH: '/usr/bin:/bin', HOME: home, ...more };
      const ended = await namespace.run(program, args, env);
      const shown = `${program} ${args.join(' ')}: ${ended.stdout}${ended.stderr}`;
      assert.equal(ended.status, 0, shown);
      return ended.stdout;
    };
    const run: ClientGuest['run'] = (program, ...args) => runWith({}, program, ...args);
    let seen = 0;
    let marks = 0;
    const requests = async () => {
      // Lines come in the order of the requests: behind this one's, none is outstanding.
      const mark = `/service/type?mark=${name}-${++marks}`;
      await run('curl', '-s', metadataUrl + mark);
      await daemon.printed(mark);
      const line = / (\d+\.\d+\.\d+\.\d+) (\S+) ([A-Z]+) (\S+) (\d{3}) /;
      const all = daemon
        .output()
        .split('\n')
        .flatMap((text) => {
          const [, from, , method, path, status] = line.exec(text) ?? [];
          const counts = from === ipv4 && !path?.startsWith('/service/type?mark=');
          return counts ? [`${method} ${path} ${status}`] : [];
        });
      const since = all.slice(seen);
      seen = all.length;
      return since;
    };
    const shell = (line: string) => run('/bin/sh', '-c', line);
    return { name, uuid, ipv4, mac: mac(guests), run, runWith, shell, requests, folder: home };
  }

  return { ...site, boot };
}

/** A request's path, and the right answer: the text or its form, or the status of an error. */
export type ReplayedRequest = readonly [path: string, answer: string | RegExp | number];

/** Asks for what a program asks for, in its order, behind a token of its own if it takes one. Throws for another answer. */
export async function replay(
  { run, shell }: ClientGuest,
  requests: readonly ReplayedRequest[],
  token: boolean,
): Promise<void> {
  const header = token
    ? `X-aws-ec2-metadata-token: ${await shell(
        `curl -sS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 21600' ${metadataUrl}/latest/api/token`,
      )}`
    : 'Accept: */*';
  for (const [path, expected] of requests) {
    const args = ['-sS', '-w', '\n%{http_code}', '-H', header, metadataUrl + path];
    const [, text = '', status] = /^(.*)\n(\d+)$/s.exec(await run('curl', ...args)) ?? [];
    const answer = status === '200' ? text : Number(status);
    if (expected instanceof RegExp) assert.match(String(answer), expected, path);
    else assert.equal(answer, expected, path);
  }
}
