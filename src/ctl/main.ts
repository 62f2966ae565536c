#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline/promises';
import { ConfigError } from '../config/dialect.js';
import { loadConfig } from '../config/load.js';
import type { Config } from '../config/options.js';
import type {
  AddressReport,
  InstanceDetails,
  InstanceSummary,
  RenderedDocument,
} from '../control/api.js';
import { controlSocketPath } from '../control/socket.js';
import { parseIp } from '../network.js';
import { defaultConfigFile } from '../usage.js';
import { type GivenOptions, type Invocation, readArguments, UsageError } from './arguments.js';
import { AnswerError, type Control, controlAt, healthOf, instancePath } from './client.js';
import { type CommandName, exitCodes } from './commands.js';
import { type Explaining, explainAddress, explainInstance } from './explain.js';
import { CommandError } from './failure.js';
import { keysChanged, knownHostsLines } from './known-hosts.js';
import { coloured, counted, printable, type Style, table, timeText } from './output.js';
import { eachOf, virshOn } from './run.js';
import { detailsTable, instanceTable } from './show.js';
import {
  domainWithMac,
  listDomains,
  type UploadAnswer,
  uploadDomains,
  withoutDomain,
} from './sync.js';

const { ok, failed, usage, unreachable, unknownInstance } = exitCodes;

const terminal = process.stdout.isTTY === true;
const style: Style = { terminal, colour: terminal && !process.env['NO_COLOR'] };

function say(text: string): void {
  process.stdout.write(text);
}

/** A line about what is said on standard output, which a script may read. */
function note(text: string): void {
  process.stderr.write(`mdserverctl: ${printable(text)}\n`);
}

function sayJson(value: unknown): void {
  say(`${JSON.stringify(value, null, 2)}\n`);
}

function configOf({ config }: GivenOptions): Config {
  try {
    return loadConfig(config ?? defaultConfigFile).config;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const { code } = (error.cause ?? {}) as NodeJS.ErrnoException;
    if (code === 'EACCES') {
      const message = `only root and the group mdserver may read ${config ?? defaultConfigFile}: run this with sudo`;
      throw new CommandError(message, unreachable);
    }
    throw new CommandError(
      `${error.message} (--config names another file, --socket the control socket)`,
      failed,
    );
  }
}

/** The configuration where a command is only better with it. */
function configIfReadable(options: GivenOptions): Config | undefined {
  try {
    return configOf(options);
  } catch (error) {
    if (error instanceof CommandError) return undefined;
    throw error;
  }
}

function connected(options: GivenOptions): Control {
  return controlAt(options.socket ?? controlSocketPath(configOf(options)));
}

const virshOf = ({ connect }: GivenOptions) => virshOn(connect ?? 'qemu:///system');

/** The file, or standard input for "-". */
function readInput(file: string): Buffer {
  try {
    return readFileSync(file === '-' ? 0 : file);
  } catch (error) {
    const name = file === '-' ? 'standard input' : file;
    throw new CommandError(`${name} cannot be read: ${(error as Error).message}`, failed);
  }
}

/** Whether the operator says yes. Where nobody can be asked, --yes has to be there. */
async function agreed({ yes }: GivenOptions, question: string, what: string): Promise<boolean> {
  if (yes) return true;
  if (process.stdin.isTTY !== true) {
    throw new UsageError(`${what} asks on a terminal only: --yes goes without asking`);
  }
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    // Ctrl-D is no answer, and the promise would wait for one for ever.
    const closed = new Promise<string>((resolve) => terminal.once('close', () => resolve('')));
    const answer = await Promise.race([terminal.question(`${question} [y/N] `), closed]);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    terminal.close();
  }
}

async function list({ options }: Invocation): Promise<number> {
  const instances = await connected(options).get<InstanceSummary[]>('/instances');
  if (options.json) sayJson(instances);
  else say(instanceTable(style, instances, Date.now() / 1000));
  return ok;
}

async function show({ operands: [name = ''], options }: Invocation): Promise<number> {
  const instance = await connected(options).get<InstanceDetails>(instancePath(name));
  if (options.json) sayJson(instance);
  else say(detailsTable(style, instance));
  return ok;
}

/** Removes them and says so. Gives those that were removed. */
async function removeNamed(control: Control, names: readonly string[], json: boolean) {
  const removed: InstanceSummary[] = [];
  let status: number = ok;
  for (const name of names) {
    try {
      const gone = await control.remove<InstanceSummary>(instancePath(name));
      removed.push(gone);
      if (!json) say(table(style, [], [['removed', gone.name, gone.ipv4]]));
    } catch (error) {
      if (!(error instanceof AnswerError)) throw error;
      note(`${name}: ${error.message}`);
      if (status !== failed) status = error.exitCode;
    }
  }
  return { removed, status };
}

async function remove({ operands, options }: Invocation): Promise<number> {
  const control = connected(options);
  const names = [...new Set(operands)];
  const what =
    names.length === 1 ? names[0] : `${counted(names.length, 'instance')} (${names.join(', ')})`;
  if (!(await agreed(options, printable(`Remove ${what}?`), 'remove'))) {
    note('nothing was removed');
    return failed;
  }
  const { removed, status } = await removeNamed(control, names, options.json);
  if (options.json) sayJson(removed);
  return status;
}

async function upload({ operands: [file = '-'], options }: Invocation): Promise<number> {
  const xml = readInput(file);
  const record = await connected(options).post<UploadAnswer>('/instance-upload', xml);
  const { domain_name, mds_ipv4, mds_mac } = record;
  if (options.json) sayJson(record);
  else say(table(style, ['NAME', 'ADDRESS', 'MAC'], [[domain_name, mds_ipv4, mds_mac]]));
  return ok;
}

async function sync({ options }: Invocation): Promise<number> {
  if (options.prune && !options.yes && process.stdin.isTTY !== true) {
    throw new UsageError('sync --prune asks on a terminal only: --yes goes without asking');
  }
  const control = connected(options);
  const virsh = virshOf(options);
  const domains = await listDomains(virsh);
  const total = domains.uuids.length;
  const synced = await uploadDomains(domains, virsh, control, (done) => {
    if (process.stderr.isTTY) process.stderr.write(`\r${done} of ${counted(total, 'domain')}`);
  });
  if (process.stderr.isTTY && total > 0) process.stderr.write('\n');
  const here = configIfReadable(options)?.service.location;
  const known = await control.get<InstanceSummary[]>('/instances');
  // Asked again: a domain that was started in the meantime has a record, and is not in the first list.
  const orphans = withoutDomain(known, await listDomains(virsh), here);

  if (!options.json) {
    const rows = [
      ...synced.map(({ result, name, detail }) => [result, name, detail]),
      ...orphans.map(({ name, ipv4 }) => ['no domain', name, ipv4]),
    ];
    say(
      table(style, ['RESULT', 'NAME', 'DETAIL'], rows, (text) =>
        text === 'failed' ? 'red' : text === 'no domain' ? 'yellow' : undefined,
      ),
    );
  }
  const count = (result: string) => synced.filter((one) => one.result === result).length;
  note(
    `${counted(total, 'domain')}: ${count('uploaded')} uploaded, ${count('skipped')} skipped (no interface on the network), ${count('failed')} failed; ${counted(orphans.length, 'record')} without a domain${orphans.length > 0 && !options.prune ? ' (--prune removes them)' : ''}`,
  );
  let removed: readonly InstanceSummary[] = [];
  let status: number = count('failed') > 0 ? failed : ok;
  if (options.prune && orphans.length > 0) {
    const question = `Remove ${counted(orphans.length, 'record')} without a domain?`;
    if (await agreed(options, question, 'sync --prune')) {
      const names = orphans.map(({ name }) => name);
      const outcome = await removeNamed(control, names, options.json);
      removed = outcome.removed;
      // Gone in the meantime is as good.
      if (outcome.status === failed) status = failed;
    } else {
      note('nothing was removed');
    }
  }
  if (options.json) sayJson({ domains: synced, without_domain: orphans, removed });
  return status;
}

async function render({ operands, options }: Invocation): Promise<number> {
  const { 'as-xml': file, json } = options;
  const [name, document = 'user-data'] = file === undefined ? operands : [file, ...operands];
  const xml = file === undefined ? undefined : readInput(file);
  const control = connected(options);
  const rendered =
    xml === undefined
      ? await control.get<RenderedDocument>(instancePath(name ?? '', document))
      : await control.post<RenderedDocument>(`/documents/${document}`, xml);
  if (json) {
    sayJson(rendered);
    return rendered.found ? ok : failed;
  }
  if (!rendered.found) {
    note(`${name} has no ${document}: it would get a 404`);
    return failed;
  }
  if (rendered.file !== null) note(`${document} from ${rendered.file}`);
  else if (document === 'user-data') note('user-data from the built-in template');
  process.stdout.write(Buffer.from(rendered.body, rendered.encoding));
  return ok;
}

async function explain({ operands: [who = ''], options }: Invocation): Promise<number> {
  const control = connected(options);
  const dnsmasq = configIfReadable(options)?.dnsmasq;
  const explaining: Explaining = {
    style,
    now: Date.now() / 1000,
    network: dnsmasq?.net_name ?? 'mds',
    bridge: dnsmasq?.interface ?? 'br-mds',
    dhcpLog: (await healthOf(control)).dhcp_log,
  };
  const address = parseIp(who);
  const report =
    address && (await control.get<AddressReport>(`/addresses/${encodeURIComponent(address)}`));
  if (report === undefined || report.instance !== null) {
    const instance = await control.get<InstanceDetails>(instancePath(report?.instance ?? who));
    if (options.json) {
      sayJson(instance);
    } else {
      const [headline = '', ...rest] = explainInstance(instance, explaining);
      say(`${[coloured(style, 'bold', headline), ...rest].join('\n')}\n`);
    }
    return ok;
  }
  if (options.json) {
    sayJson(report);
    return unknownInstance;
  }
  let domain: string | undefined;
  if (report.mac !== null && report.mac_instance === null) {
    try {
      domain = await domainWithMac(virshOf(options), report.mac);
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      note(`domains were not searched: ${error.message}`);
    }
  }
  say(`${explainAddress(report, domain, explaining).join('\n')}\n`);
  return unknownInstance;
}

async function check({ options }: Invocation): Promise<number> {
  // Loaded here, since it needs most of mdserver, and the others shall start quickly.
  const { checkAll, levelColours } = await import('./check.js');
  const findings = [];
  const counts = { ok: 0, warning: 0, failure: 0 };
  const checks = checkAll({
    configFile: options.config ?? defaultConfigFile,
    socket: options.socket,
    connect: options.connect ?? 'qemu:///system',
    prefix: process.env['PREFIX'] ?? '',
  });
  for await (const finding of checks) {
    const { level, check, text, mend } = finding;
    counts[level] += 1;
    findings.push(finding);
    if (options.json) continue;
    const line = printable(mend === undefined ? text : `${text}: ${mend}`);
    if (terminal) {
      const shown = coloured(style, levelColours[level], level.padEnd(7));
      say(`${shown}  ${check.padEnd(13)}  ${line}\n`);
    } else {
      say(`${[level, check, printable(text), printable(mend ?? '')].join('\t').trimEnd()}\n`);
    }
  }
  if (options.json) sayJson(findings);
  note(
    `${counts.ok} ok, ${counted(counts.warning, 'warning')}, ${counted(counts.failure, 'failure')}`,
  );
  return counts.failure > 0 ? failed : ok;
}

async function knownHosts({ operands, options }: Invocation): Promise<number> {
  const control = connected(options);
  const names =
    operands.length > 0
      ? [...new Set(operands)]
      : (await control.get<InstanceSummary[]>('/instances')).map(({ name }) => name);
  let status: number = ok;
  const all = await eachOf(names, 8, async (name) => {
    try {
      return await control.get<InstanceDetails>(instancePath(name));
    } catch (error) {
      if (!(error instanceof AnswerError) || error.status !== 404) throw error;
      // Of those that were not named, one may have been removed just now.
      if (operands.length > 0) {
        note(`${name}: ${error.message}`);
        status = unknownInstance;
      }
      return undefined;
    }
  });
  const found = all.filter((instance) => instance !== undefined);
  for (const instance of found) {
    const changed = keysChanged(instance);
    if (changed !== undefined) {
      note(
        `${instance.name}: its host keys changed ${timeText(style, changed)}; if nobody installed it anew, somebody may be in its place`,
      );
    }
    if (operands.length > 0 && instance.host_keys.length === 0) {
      note(`${instance.name} has not phoned home with host keys: see phone_home of cloud-init`);
      if (status === ok) status = failed;
    }
    if (!options.json)
      say(
        knownHostsLines(instance)
          .map((line) => `${line}\n`)
          .join(''),
      );
  }
  if (options.json) sayJson(found.filter(({ host_keys }) => host_keys.length > 0));
  return status;
}

const handlers: Readonly<Record<CommandName, (invocation: Invocation) => Promise<number>>> = {
  list,
  show,
  remove,
  upload,
  sync,
  render,
  explain,
  check,
  'known-hosts': knownHosts,
};

// What reads the output may have seen enough (head, less), and a terminal may go away.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE' && error.code !== 'EIO') throw error;
  process.exit(failed);
});

try {
  const asked = readArguments(process.argv.slice(2));
  if ('print' in asked) say(asked.print);
  else process.exitCode = await handlers[asked.command](asked);
} catch (error) {
  if (error instanceof UsageError) {
    note(error.message);
    process.exitCode = usage;
  } else if (error instanceof CommandError) {
    note(error.message);
    process.exitCode = error.exitCode;
  } else {
    process.stderr.write(`mdserverctl: ${(error as Error).stack ?? error}\n`);
    process.exitCode = failed;
  }
}
