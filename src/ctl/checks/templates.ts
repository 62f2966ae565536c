import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Config } from '../../config/options.js';
import type { Instance } from '../../instances/instance.js';
import { settingProblems } from '../../instances/settings.js';
import { operand, truncate } from '../../text.js';
import { linkProblems, missingDefault, UserdataError } from '../../userdata/find.js';
import { keptTemplates } from '../../userdata/kept.js';
import { lastInForce } from '../../userdata/refused.js';
import { TemplateError } from '../../userdata/template.js';
import { createUserdata, dataOf, partsIn } from '../../userdata/userdata.js';
import { mapConcurrently } from '../concurrency.js';
import { counted } from '../output.js';
import { firstLine, runProgram } from '../programs.js';
import { type BareValue, bareValues } from './bare-values.js';
import { isCloudConfig, userdataProblems } from './cloud-config.js';
import { type Finding, findingsOf, isDenied } from './finding.js';

/**
 * Limits, so that checking thousands of instances takes seconds. The texts of one template differ
 * only in their values.
 */
const maxParsedTexts = 100;
const maxSchemaRuns = 50;

/** The texts rendered from one template. */
interface TemplateTexts {
  /** Null for the built-in template. */
  readonly file: string | null;
  /** The hashes of the texts that were parsed. */
  readonly hashes: Set<string>;
  /** The first cloud-config that is YAML, and the name of its instance. */
  sample?: { readonly name: string; readonly text: string };
}

/** Counts the instances that share a problem, and remembers the first one. */
function problemCounter() {
  type Counted = Pick<Finding, 'level'> & { count: number; first: string; shownBy: string };
  const problems = new Map<string, Counted>();
  return {
    problems,
    /** `shownBy` is the command of mdserverctl that shows it. */
    add(level: Finding['level'], text: string, name: string, shownBy = 'render') {
      const known = problems.get(text);
      if (known === undefined) problems.set(text, { level, count: 1, first: name, shownBy });
      else known.count += 1;
    },
  };
}

/**
 * Renders the user-data and vendor-data of every instance and checks the results. `access` is defined
 * if this runs as mdserver's user, which has to read the templates.
 */
export async function* checkTemplates(
  config: Config,
  instances: Iterable<Instance>,
  access: string | undefined,
): AsyncGenerator<Finding> {
  const { ok, warning, failure } = findingsOf('user-data');
  const { problems, add } = problemCounter();
  const templates = new Map<string | null, TemplateTexts>();
  let current = '';
  const renderer = createUserdata({
    config: () => config,
    // Errors are thrown as well; warnings are only logged.
    log: { error: () => {}, warn: (text) => add('warning', text, current) },
    // Nothing is written: no guest gets these.
    kept: { ...keptTemplates(config.mdserver.db_file, { warn: () => {} }), keep: () => {} },
  });
  const part = partsIn(config.mdserver.userdata_dir);
  const sources = new Map<string, string>();
  let total = 0;

  function bareIn(file: string, instance: Instance): BareValue[] {
    const source = sources.get(file) ?? readFileSync(file, 'utf8');
    sources.set(file, source);
    return bareValues(source, file, dataOf(config, instance), instance, part);
  }

  function checkInstance(instance: Instance): void {
    for (const text of settingProblems(instance, config.publicKeys)) {
      add('warning', text, current, 'show');
    }
    const rendered = renderer.userdata(instance)?.();
    const vendorData = renderer.vendorData(instance);
    const all = [rendered, vendorData].filter((one) => one !== undefined);
    for (const { problem } of all) {
      if (problem !== undefined) add('failure', `${problem}; ${lastInForce}`, current);
    }
    const none = renderer.whyNone(instance);
    if (none !== undefined) {
      const { reason, onPurpose } = none;
      add(onPurpose ? 'ok' : 'warning', `no user-data (404): ${reason}`, current, 'show');
    }
    if (rendered !== undefined && rendered.problem === undefined) {
      const { file, body } = rendered;
      const texts: TemplateTexts = templates.get(file) ?? { file, hashes: new Set() };
      templates.set(file, texts);
      const hash = createHash('sha256').update(body).digest('base64');
      if (!texts.hashes.has(hash) && texts.hashes.size < maxParsedTexts) {
        texts.hashes.add(hash);
        const found = userdataProblems(body);
        for (const { level, text } of found) {
          add(level, `${file ?? 'the built-in template'}: ${text}`, current);
        }
        const text = body.toString();
        const isGood = found.every(({ level }) => level !== 'failure');
        if (isGood && isCloudConfig(text)) texts.sample ??= { name: current, text };
      }
    }
    for (const { file, body, problem } of all) {
      // The built-in template quotes what it prints.
      if (file === null || problem !== undefined || !isCloudConfig(body.toString())) continue;
      for (const { file: by, line, code } of bareIn(file, instance)) {
        add(
          'warning',
          `${by}:${line}: {{${truncate(code, 60)}}} prints a value bare that YAML reads as something else: quote it with yaml()`,
          current,
        );
      }
    }
  }

  for (const instance of instances) {
    current = instance.name;
    total += 1;
    try {
      checkInstance(instance);
    } catch (error) {
      if (!(error instanceof TemplateError || error instanceof UserdataError)) throw error;
      if (access === undefined && error instanceof UserdataError && isDenied(error.cause)) {
        total -= 1;
        add('warning', `not checked: this user may not read ${error.file}`, current);
      } else add('failure', error.message, current);
    }
  }
  // A link that no instance needs now may be the template of one to come.
  for (const { message } of linkProblems(config.mdserver.userdata_dir)) {
    if (!problems.has(message)) yield failure(message);
  }
  const missing = missingDefault(config.mdserver.default_template);
  if (missing !== undefined && !problems.has(missing)) yield warning(missing);
  for (const [text, { level, count, first, shownBy }] of problems) {
    const whose = count === 1 ? first : `${counted(count, 'instance')}, such as ${first}`;
    const finding = { ok, warning, failure }[level];
    yield finding(`${text} (${whose})`, `mdserverctl ${shownBy} ${operand(first)} shows it`);
  }
  yield ok(`${counted(total, 'instance')} rendered from ${counted(templates.size, 'template')}`);
  yield* checkSchema([...templates.values()]);
}

/**
 * Runs "cloud-init schema" on one text of each template. What it refuses is only a warning: the guest's
 * cloud-init decides, which may be older or newer than the host's.
 */
async function* checkSchema(templates: readonly TemplateTexts[]): AsyncGenerator<Finding> {
  const { ok, warning } = findingsOf('cloud-config');
  const all = templates.flatMap(({ file, sample }) =>
    sample === undefined ? [] : [{ file, ...sample }],
  );
  if (all.length === 0) return;
  const samples = all.slice(0, maxSchemaRuns);
  // mkdtemp makes a folder that only this user can open: user-data can contain secrets.
  const folder = mkdtempSync(join(tmpdir(), 'mdserverctl-'));
  try {
    const results = await mapConcurrently([...samples.entries()], 2, async ([index, { text }]) => {
      const path = join(folder, `${index}.yaml`);
      writeFileSync(path, text, { mode: 0o600 });
      return runProgram('cloud-init', ['schema', '--config-file', path]);
    });
    if (results.includes(undefined)) {
      yield ok(
        `${counted(all.length, 'template')} checked as YAML only: cloud-init is not installed`,
      );
      return;
    }
    // "/usr/bin/cloud-init 22.4.2"
    const named = await runProgram('cloud-init', ['--version']);
    const version = firstLine(named?.stdout ?? '')
      .split(' ')
      .at(-1);
    let good = 0;
    for (const [index, { file, name }] of samples.entries()) {
      const { status = -1, stdout = '', stderr = '' } = results[index] ?? {};
      if (status === 0) {
        good += 1;
        continue;
      }
      const outputLines = `${stdout}\n${stderr}`
        .split('\n')
        .map((line) => line.trim().replace(join(folder, `${index}.yaml`), name))
        .filter((line) => line !== '' && line !== 'Error:');
      // Deprecations come before errors.
      const problem = outputLines.find((line) => line.includes('errors:')) ?? outputLines[0];
      yield warning(
        `${file ?? 'the built-in template'}: ${problem ?? `cloud-init schema ended with ${status}`} (says the host's cloud-init ${version}; the guest's may be of another version)`,
        `mdserverctl render ${operand(name)} | cloud-init schema --annotate --config-file /dev/stdin`,
      );
    }
    if (good > 0) yield ok(`cloud-init schema accepts ${counted(good, 'template')}`);
    if (all.length > samples.length) {
      yield warning(
        `cloud-init schema was run for ${samples.length} of ${counted(all.length, 'template')}; the others were checked as YAML`,
      );
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
