import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Config } from '../config/options.js';
import type { Instance } from '../instances/instance.js';
import { UserdataError } from '../userdata/find.js';
import { TemplateError } from '../userdata/template.js';
import { createUserdata } from '../userdata/userdata.js';
import { isCloudConfig, userdataProblems } from './cloud-config.js';
import { type Finding, finder } from './finding.js';
import { counted } from './output.js';
import { eachOf, run } from './run.js';

/** Bounds, so that thousands of instances take seconds: texts of one template differ in values only. */
const mostParsed = 100;
const mostSchemaRuns = 50;

/** The texts that came of one template. */
interface TemplateTexts {
  /** Null for the built-in one. */
  readonly file: string | null;
  /** Those seen, by what they hash to. */
  readonly seen: Set<string>;
  /** The first cloud-config, and whose it is. */
  sample?: { readonly name: string; readonly text: string };
}

/** Problems that several instances share: how many, and one of them. */
function grouped() {
  const problems = new Map<string, { level: Finding['level']; count: number; first: string }>();
  return {
    problems,
    add(level: Finding['level'], text: string, name: string) {
      const known = problems.get(text);
      if (known === undefined) problems.set(text, { level, count: 1, first: name });
      else known.count += 1;
    },
  };
}

/** Renders user-data and vendor data of every instance, and looks at what comes out. */
export async function* checkTemplates(
  config: Config,
  instances: Iterable<Instance>,
): AsyncGenerator<Finding> {
  const { ok, warning, failure } = finder('user-data');
  const { problems, add } = grouped();
  const templates = new Map<string | null, TemplateTexts>();
  let current = '';
  const maker = createUserdata({
    config: () => config,
    // Errors are thrown, too; what is passed over is only told here.
    log: { error: () => {}, warn: (text) => add('warning', text, current) },
  });
  let total = 0;

  function look(instance: Instance): void {
    const made = maker.userdata(instance)?.();
    if (made === undefined) {
      add('warning', 'its userdata_prefix names no file: it gets no user-data (404)', current);
    } else {
      const { file, body } = made;
      const texts: TemplateTexts = templates.get(file) ?? { file, seen: new Set() };
      templates.set(file, texts);
      const hash = createHash('sha256').update(body).digest('base64');
      if (!texts.seen.has(hash) && texts.seen.size < mostParsed) {
        texts.seen.add(hash);
        for (const { level, text } of userdataProblems(body)) {
          add(level, `${file ?? 'the built-in template'}: ${text}`, current);
        }
        const text = body.toString();
        if (isCloudConfig(text)) texts.sample ??= { name: current, text };
      }
    }
    maker.vendorData(instance);
  }

  for (const instance of instances) {
    current = instance.name;
    total += 1;
    try {
      look(instance);
    } catch (error) {
      if (!(error instanceof TemplateError || error instanceof UserdataError)) throw error;
      add('failure', error.message, current);
    }
  }
  for (const [text, { level, count, first }] of problems) {
    const whose = count === 1 ? first : `${counted(count, 'instance')}, ${first} is one`;
    yield (level === 'failure' ? failure : warning)(
      `${text} (${whose})`,
      `mdserverctl render ${first} shows it`,
    );
  }
  yield ok(`${counted(total, 'instance')} rendered from ${counted(templates.size, 'template')}`);
  yield* checkSchema([...templates.values()]);
}

/** Has cloud-init look at one text of each template. */
async function* checkSchema(templates: readonly TemplateTexts[]): AsyncGenerator<Finding> {
  const { ok, warning, failure } = finder('cloud-config');
  const all = templates.flatMap(({ file, sample }) =>
    sample === undefined ? [] : [{ file, ...sample }],
  );
  if (all.length === 0) return;
  const samples = all.slice(0, mostSchemaRuns);
  // User-data can hold secrets: the folder is the caller's alone.
  const folder = mkdtempSync(join(tmpdir(), 'mdserverctl-'));
  try {
    const ended = await eachOf([...samples.entries()], 2, async ([index, { text }]) => {
      const path = join(folder, `${index}.yaml`);
      writeFileSync(path, text, { mode: 0o600 });
      return run('cloud-init', ['schema', '--config-file', path]);
    });
    if (ended.includes(undefined)) {
      yield ok(`${counted(all.length, 'template')} checked as YAML only: no cloud-init here`);
      return;
    }
    let good = 0;
    for (const [index, { file, name }] of samples.entries()) {
      const { status = -1, stdout = '', stderr = '' } = ended[index] ?? {};
      if (status === 0) {
        good += 1;
        continue;
      }
      const said = `${stdout}\n${stderr}`
        .split('\n')
        .map((line) => line.trim().replace(join(folder, `${index}.yaml`), name))
        .filter((line) => line !== '' && line !== 'Error:');
      // Deprecations are told first.
      const what = said.find((line) => line.includes('errors:')) ?? said[0];
      yield failure(
        `${file ?? 'the built-in template'}: ${what ?? `cloud-init schema ended with ${status}`}`,
        `mdserverctl render ${name} > /tmp/user-data && cloud-init schema --annotate --config-file /tmp/user-data`,
      );
    }
    if (good > 0) yield ok(`cloud-init schema takes ${counted(good, 'template')}`);
    if (all.length > samples.length) {
      yield warning(
        `cloud-init schema was asked for ${samples.length} of ${counted(all.length, 'template')}; the rest was checked as YAML`,
      );
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
