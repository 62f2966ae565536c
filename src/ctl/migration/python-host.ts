import { closeSync, openSync, readdirSync, readFileSync, readSync, realpathSync } from 'node:fs';
import { basename, dirname, join, normalize } from 'node:path';
import type { Config } from '../../config/options.js';
import { dnsmasqPaths } from '../../dnsmasq/files.js';
import { operand } from '../../text.js';
import { exists, statIfPresent } from '../checks/files.js';
import type { MigrationFinding } from './finding.js';

/** Where the files of the Python installation are looked for. */
export interface PythonHost {
  readonly config: Config;
  /** The file that its server was started with. */
  readonly configFile: string;
  /** Put before all paths, as in system-integration.sh. */
  readonly prefix: string;
}

/** What system-integration.sh writes into each file that it installs. */
const ownMark = "Installed by mdserver's system-integration.sh";

/** The interpreter of a Python script, also where pip had to name it behind a shell; undefined for any other file. */
function pythonOf(program: string): string | undefined {
  if (!statIfPresent(program)?.isFile()) return undefined;
  const begin = Buffer.alloc(1024);
  const file = openSync(program, 'r');
  try {
    readSync(file, begin);
  } finally {
    closeSync(file);
  }
  const text = begin.toString('latin1');
  return (
    /^#!\s*(?:\S*\/env\s+)?(\S*python[\d.]*)\s/.exec(text)?.[1] ??
    /^#!\s*\/bin\/sh\n'''exec' "?([^"\n]*?python[\d.]*)"? /.exec(text)?.[1]
  );
}

/** A setting of a unit, and the line on which it begins. */
interface Setting {
  readonly key: string;
  readonly value: string;
  readonly line: number;
}

/** The settings of a unit (systemd.syntax(7)). */
function settingsOf(text: string): Setting[] {
  const settings: Setting[] = [];
  const lines = text.split('\n');
  for (let index = 0; index < lines.length; index += 1) {
    const line = index + 1;
    const [, key, begin = ''] = /^\s*([A-Za-z0-9]+)\s*=\s*(.*)$/.exec(lines[index] ?? '') ?? [];
    if (key === undefined) continue;
    let value = begin;
    while (value.endsWith('\\')) {
      index += 1;
      const next = lines[index] ?? '';
      if (/^\s*[#;]/.test(next)) continue;
      value = `${value.slice(0, -1).trimEnd()} ${next.trim()}`;
    }
    settings.push({ key, value, line });
  }
  return settings;
}

/** The words of a command in a unit, without the marks before its program. */
function wordsOf(command: string): string[] {
  return command
    .replace(/^[-@:+!|]+/, '')
    .split(/\s+/)
    .map((word) => word.replace(/^(["'])(.*)\1$/, '$2'))
    .filter((word) => word !== '');
}

/** The configuration files that a command gives to dnsmasq; undefined if it runs another program. */
function dnsmasqConfigurations(words: readonly string[]): string[] | undefined {
  const [program = '', ...args] = words;
  if (basename(program) !== 'dnsmasq') return undefined;
  return args.flatMap((word, index) => {
    const joined = /^(?:--conf-file=|-C)(.+)$/.exec(word)?.[1];
    if (joined !== undefined) return [normalize(joined)];
    return word === '--conf-file' || word === '-C' ? [normalize(args[index + 1] ?? '')] : [];
  });
}

/** The program and the arguments of a command that runs mdserver, Python's or ours; undefined for any other. */
function serverCommand([program = '', ...args]: readonly string[]): string[] | undefined {
  if (basename(program) === 'mdserver') return [program, ...args];
  if (!/^python[\d.]*$/.test(basename(program))) return undefined;
  const script = args.findIndex((word) => /(^|\/)mdserver(\.server|\/server\.py)?$/.test(word));
  return script < 0 ? undefined : [program, ...args.slice(script + 1)];
}

const unitFolder = '/etc/systemd/system';
/** Folders of units that packages install. Ours in /etc hide those of the same name. */
const packageFolders = ['/usr/local/lib/systemd/system', '/usr/lib/systemd/system'];
const ownUnits = ['mdserver.service', 'mdserver-dnsmasq.service'];

/** What is said of a unit that does what ours does; undefined if it does something else. */
function pythonUnit(
  file: string,
  { config, configFile, prefix }: PythonHost,
): MigrationFinding | undefined {
  const text = readFileSync(file, 'utf8');
  if (text.includes(ownMark)) return undefined;
  const name = basename(file);
  const settings = settingsOf(text);
  const values = (wanted: string) =>
    settings.filter(({ key, value }) => key === wanted && value !== '').map(({ value }) => value);
  const replaced = (work: string): MigrationFinding => ({
    fate: 'replaced',
    file,
    text: `${work}: kept as ${basename(file)}.md_server`,
  });
  const { configuration } = dnsmasqPaths(config.dnsmasq);
  if (name.endsWith('.path')) {
    const waits = values('PathExists').some((path) => normalize(path) === configuration);
    const isOurs = waits || values('PartOf').includes('mdserver.service');
    return isOurs ? replaced("waits for dnsmasq's configuration") : undefined;
  }
  // A unit without our mark may be ours from before there was one.
  if (values('Type').some((type) => type === 'notify' || type === 'exec')) return undefined;
  for (const command of values('ExecStart')) {
    const words = wordsOf(command);
    const found = dnsmasqConfigurations(words)?.find(
      (path) =>
        path === configuration ||
        (name === 'mdserver-dnsmasq.service' && dirname(path) === dirname(configuration)),
    );
    if (found !== undefined) return replaced(`runs dnsmasq with ${found}`);
    const [program, ...args] = serverCommand(words) ?? [];
    if (program === undefined) continue;
    if (name === 'mdserver.service') return replaced('runs the Python md_server');
    if (!args.some((path) => join(prefix, path) === configFile)) continue;
    // npm may have put ours in the place of the program.
    const isPython = basename(program) !== 'mdserver' || pythonOf(join(prefix, program));
    return isPython
      ? replaced('runs the Python md_server')
      : {
          fate: 'decide',
          file,
          text: `runs mdserver with the same configuration as our mdserver.service: systemctl disable --now ${name}`,
        };
  }
  return undefined;
}

/** The names of the files in a folder; none if there is no such folder. */
function namesIn(folder: string): string[] {
  return statIfPresent(folder)?.isDirectory() ? readdirSync(folder).sort() : [];
}

/** The units of the Python installation, found by what they run. */
function* pythonUnits(host: PythonHost): Generator<MigrationFinding> {
  const unitsOf = (folder: string) =>
    namesIn(folder)
      .filter((name) => /\.(service|path)$/.test(name))
      .map((name) => join(folder, name))
      .filter((file) => statIfPresent(file)?.isFile());
  const own = join(host.prefix, unitFolder);
  for (const file of unitsOf(own)) {
    const finding = pythonUnit(file, host);
    if (finding !== undefined) yield finding;
  }
  for (const file of packageFolders.flatMap((folder) => unitsOf(join(host.prefix, folder)))) {
    const name = basename(file);
    // A unit in /etc hides one of a package that has the same name.
    if (ownUnits.includes(name) || exists(join(own, name))) continue;
    const finding = pythonUnit(file, host);
    if (finding === undefined) continue;
    const remedy = `systemctl disable --now ${name} && systemctl mask ${name}`;
    yield { fate: 'decide', file, text: `does what our units do: ${remedy}` };
  }
}

/** Drop-ins that make our units start another program. */
function* startingDropIns({ prefix }: PythonHost): Generator<MigrationFinding> {
  for (const unit of ownUnits) {
    const folder = join(prefix, unitFolder, `${unit}.d`);
    for (const name of namesIn(folder).filter((one) => one.endsWith('.conf'))) {
      const file = join(folder, name);
      for (const { key, value, line } of settingsOf(readFileSync(file, 'utf8'))) {
        if (key !== 'ExecStart' || value === '') continue;
        const [program = ''] = wordsOf(value);
        const text = `starts ${program} in place of what our ${unit} starts: remove the setting`;
        yield { fate: 'decide', file, line, text };
      }
    }
  }
}

/** Whether a hook of libvirt is the one that the Python installation brings. */
function isPythonHook(text: string): boolean {
  return (
    /^#!.*sh/.test(text) &&
    text.includes('instance-upload') &&
    /\/etc\/default\/mdserver|qemu-hook/.test(text)
  );
}

/** The hooks of the Python installation. */
function* pythonHooks({ prefix }: PythonHost): Generator<MigrationFinding> {
  const hooks = join(prefix || '/', 'etc/libvirt/hooks');
  const more = join(hooks, 'qemu.d');
  for (const file of [join(hooks, 'qemu'), ...namesIn(more).map((name) => join(more, name))]) {
    if (!statIfPresent(file)?.isFile() || !isPythonHook(readFileSync(file, 'utf8'))) continue;
    const isLink = realpathSync(dirname(file)) !== dirname(realpathSync(file));
    yield file.startsWith(more) || isLink
      ? {
          fate: 'decide',
          file,
          text: 'uploads every guest a second time, and what it prints can stop a migration: remove it',
        }
      : {
          fate: 'replaced',
          file,
          text: `uploads guests to the Python md_server: kept as ${basename(file)}.md_server`,
        };
  }
}

/** The programs of the Python installation that are found in place of ours. */
function* pythonPrograms({ prefix }: PythonHost): Generator<MigrationFinding> {
  for (const folder of ['/usr/local/bin', '/usr/bin']) {
    const file = join(prefix, folder, 'mdserver');
    const python = pythonOf(file);
    if (python === undefined) continue;
    yield {
      fate: 'differs',
      file,
      text: `is the Python md_server, and is in the way of ours in ${folder}: ${operand(python)} -m pip uninstall mdserver. The unit starts ours by its own path`,
    };
  }
}

/** What there is of the Python installation: its units, hooks and programs. */
export function* pythonFiles(host: PythonHost): Generator<MigrationFinding> {
  yield* pythonUnits(host);
  yield* startingDropIns(host);
  yield* pythonHooks(host);
  yield* pythonPrograms(host);
}
