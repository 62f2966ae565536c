import { lstatSync, readdirSync, realpathSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { isGuestTemplate, languageLine } from '../../bottle/language.js';
import { ConfigError } from '../../config/dialect.js';
import { type LoadedConfig, loadConfig } from '../../config/load.js';
import { DatabaseError } from '../../instances/database-file.js';
import { namingOf } from '../../instances/host-names.js';
import { instancesFrom } from '../../instances/instances.js';
import { jsonFile } from '../../instances/json-file.js';
import { operand, quoted } from '../../text.js';
import { linkProblems } from '../../userdata/find.js';
import { TemplateError } from '../../userdata/source.js';
import { compileTemplate } from '../../userdata/template.js';
import { partsIn } from '../../userdata/userdata.js';
import { exists, statIfPresent } from '../checks/files.js';
import type { ConvertedTemplate } from '../comparison.js';
import {
  type ConvertedFile,
  compareAsDaemon,
  convertFile,
  leftovers,
  replaceTemplate,
} from '../conversion.js';
import { CommandError } from '../errors.js';
import { counted } from '../output.js';
import type { MigrationFinding } from './finding.js';
import { pythonFiles } from './python-host.js';

/** A message of the configuration, which begins with its file and line, or not. */
function located(fate: MigrationFinding['fate'], file: string, message: string): MigrationFinding {
  const [, named, line, text] = /^(\/[^:]*)(?::(\d+))?: (.*)$/s.exec(message) ?? [];
  if (named === undefined || text === undefined) return { fate, file, text: message };
  return { fate, file: named, ...(line !== undefined && { line: Number(line) }), text };
}

/** What becomes of the database: what is left out, and the instances that get another name. */
async function* databaseFindings(
  { config }: LoadedConfig,
  prefix: string,
): AsyncGenerator<MigrationFinding> {
  const file = join(prefix, config.mdserver.db_file);
  if (!exists(file)) return;
  try {
    const { records, warnings } = await jsonFile(file).load();
    for (const text of warnings) yield { fate: 'differs', file, text };
    const { draft, superseded } = instancesFrom(records, namingOf(config));
    for (const { name, mac } of superseded) {
      const text = `the record of ${quoted(name)} (${mac}) is left out: another one has its MAC address, name, uuid or address`;
      yield { fate: 'differs', file, text };
    }
    for (const [name, hostName] of draft.hostNames.entries()) {
      if (name === hostName) continue;
      yield { fate: 'differs', file, text: `${quoted(name)} is ${hostName} in DHCP and DNS` };
    }
    const { size } = draft.byName;
    yield {
      fate: 'stays',
      file,
      text: `${counted(size, 'instance')}: Python can read it later, too`,
    };
  } catch (error) {
    if (!(error instanceof DatabaseError)) throw error;
    yield { fate: 'decide', file, text: error.message.replace(`${file}: `, '') };
  }
}

/**
 * The files that can be templates: not hidden ones, and not what a conversion or an editor leaves there. Where a
 * link in the folder leads is converted once, under its own name.
 */
function templateFiles({ config }: LoadedConfig, folder: string, prefix: string): string[] {
  const { default_template } = config.mdserver;
  const names = statIfPresent(folder)?.isDirectory()
    ? readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort()
    : [];
  const inFolder = names
    .filter((name) => !/(?:^|\/)\./.test(name) && !leftovers.test(name))
    .map((name) => join(folder, name))
    .filter((file) => lstatSync(file).isFile());
  const other = default_template === undefined ? folder : join(prefix, default_template);
  if (!statIfPresent(other)?.isFile()) return inFolder;
  return [...new Set([...inFolder, realpathSync(other)])];
}

/** Why our own program would not take a template that the conversion leaves as it is; undefined if it does. */
function ownProblem({ file, after }: ConvertedTemplate, folder: string): TemplateError | undefined {
  if (isGuestTemplate(after) || languageLine(after).language === 'none') return undefined;
  try {
    compileTemplate(after, file, { part: partsIn(folder) });
    return undefined;
  } catch (error) {
    if (error instanceof TemplateError) return error;
    throw error;
  }
}

/** What becomes of the templates. With `write`, those that can be converted are. */
async function* templateFindings(
  loaded: LoadedConfig,
  { prefix, write }: MigrationOptions,
  configFile: string,
): AsyncGenerator<MigrationFinding> {
  const { config } = loaded;
  const folder = join(prefix, config.mdserver.userdata_dir);
  const mdserver = { ...config.mdserver, userdata_dir: folder };
  const placed: LoadedConfig = { ...loaded, config: { ...config, mdserver } };
  for (const { file, message } of linkProblems(folder)) {
    yield { fate: 'decide', file, text: message.slice(file.length + 2) };
  }
  const converted: ConvertedTemplate[] = [];
  for (const file of templateFiles(loaded, folder, prefix)) {
    let one: ConvertedFile;
    try {
      one = convertFile(file, placed);
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      yield { fate: 'decide', file, text: error.message };
      continue;
    }
    if (one.result === 'refused') {
      for (const { line, problem } of one.problems) {
        yield { fate: 'decide', file, line, text: problem };
      }
    } else if (one.result === 'binary' || one.after === one.before) {
      const problem = one.result === 'binary' ? undefined : ownProblem(one, folder);
      yield problem === undefined
        ? { fate: 'stays', file, text: 'gives the same text' }
        : { fate: 'decide', file, line: problem.line, text: problem.problem };
    } else {
      converted.push(one);
    }
  }
  const compared = await compareAsDaemon(converted, placed, configFile);
  const comparisons = new Map(
    'problem' in compared ? [] : compared.comparisons.map((one) => [one.file, one]),
  );
  for (const { file, after } of converted) {
    const { different = 0, bottle, instances = 0 } = comparisons.get(file) ?? {};
    if (different > 0) {
      const text = `converted, it gives another text than in Bottle: mdserverctl convert ${operand(file)} shows it`;
      yield { fate: 'decide', file, text };
      continue;
    }
    const problem = 'problem' in compared ? `, not compared with Bottle: ${compared.problem}` : '';
    const same =
      bottle === undefined
        ? problem
        : `: the same text as Bottle ${bottle} for ${counted(instances, 'instance')}`;
    if (!write) {
      yield { fate: 'convert', file, text: `mdserverctl migrate --write converts it${same}` };
      continue;
    }
    try {
      const kept = await replaceTemplate(file, after);
      yield { fate: 'converted', file, text: `the old one is ${basename(kept)}${same}` };
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      const isKept = code === 'EEXIST' && message.includes(`${file}.bottle`);
      const text = isKept
        ? `${basename(file)}.bottle is there from an earlier conversion: remove it, or move it away`
        : `cannot be converted: ${message}`;
      yield { fate: 'decide', file, text };
    }
  }
}

/** How a migration is looked at. */
interface MigrationOptions {
  /** Put before all paths but that of the configuration, as in system-integration.sh. */
  readonly prefix: string;
  /** Whether to convert the templates. */
  readonly write: boolean;
}

/**
 * What becomes of the Python installation that a configuration belongs to. It writes nothing but, with `write`,
 * the converted templates.
 */
export async function* migration(
  file: string,
  options: MigrationOptions,
): AsyncGenerator<MigrationFinding> {
  const configFile = resolve(file);
  const { prefix } = options;
  let loaded: ReturnType<typeof loadConfig>;
  try {
    loaded = loadConfig(configFile, prefix);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    for (const message of [error.message, ...error.others]) {
      yield located('decide', configFile, message);
    }
    return;
  }
  for (const message of loaded.warnings) yield located('differs', configFile, message);
  for (const path of loaded.files) yield { fate: 'stays', file: path, text: 'is read as it is' };
  yield* databaseFindings(loaded, prefix);
  yield* templateFindings(loaded, options, configFile);
  yield* pythonFiles({ config: loaded.config, configFile, prefix });
}
