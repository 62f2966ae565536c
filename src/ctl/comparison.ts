import { resolve } from 'node:path';
import type { LoadedConfig } from '../config/load.js';
import { DatabaseError } from '../instances/database-file.js';
import { namingOf } from '../instances/host-names.js';
import { instancesFrom } from '../instances/instances.js';
import { jsonFile } from '../instances/json-file.js';
import {
  compileTemplate,
  type Part,
  TemplateError,
  type TemplateInstance,
  templateData,
} from '../userdata/template.js';
import { partsIn } from '../userdata/userdata.js';
import { type BottleAnswer, renderWithBottle } from './bottle.js';
import { pythonNames } from './python-names.js';

/** Finds what a template includes. */
type FindPart = (name: string) => Part;

/** A template in Bottle's form, and what it was converted to. */
export interface ConvertedTemplate {
  readonly file: string;
  readonly before: string;
  readonly after: string;
}

/** How the texts of one template compare. */
export interface Comparison {
  readonly file: string;
  /** The version of the host's Bottle. */
  readonly bottle: string;
  /** The number of instances whose texts were compared, and of those whose differ. */
  readonly instances: number;
  readonly different: number;
  /** The first of those that differ. */
  readonly first?: {
    readonly name: string;
    readonly bottle: BottleAnswer;
    readonly own: BottleAnswer;
  };
}

/** An instance to compare with where the database has none. */
const exampleInstance: TemplateInstance = {
  name: 'example',
  uuid: '00000000-0000-4000-8000-000000000000',
  mac: '52:54:00:00:00:01',
  ipv4: '10.122.0.2',
  ipv6: undefined,
  location: undefined,
  metadata: {},
};

/** Instances for one run of Bottle, so that the texts of many fit into memory. */
const batchSize = 200;
/** Seconds, for one batch. */
const timeLimit = 120;

async function instancesOf({ config }: LoadedConfig): Promise<readonly TemplateInstance[]> {
  const { records } = await jsonFile(config.mdserver.db_file).load();
  const { draft } = instancesFrom(records, namingOf(config));
  const instances = [...draft.byName.values()];
  return instances.length === 0 ? [exampleInstance] : instances;
}

/** What our own template gives, as Bottle's answers are written. */
function ownAnswer(
  { file, after }: ConvertedTemplate,
  { config }: LoadedConfig,
  instance: TemplateInstance,
  part: FindPart,
): BottleAnswer {
  const { publicKeys, templateData: values, mdserver } = config;
  const { password } = mdserver;
  const data = templateData({ publicKeys, templateData: values, password }, instance);
  try {
    return { output: compileTemplate(after, file, { part })(Object.create(data)) };
  } catch (error) {
    if (error instanceof TemplateError) return { error: error.message };
    throw error;
  }
}

/** Whether the guest gets the same; errors are the same to it, whatever they say. */
function isSame(bottle: BottleAnswer, own: BottleAnswer): boolean {
  if ('error' in bottle || 'error' in own) return 'error' in bottle && 'error' in own;
  return bottle.output === own.output;
}

/**
 * Renders a template before and after its conversion for all instances of the database, in Bottle (without the
 * escaping of HTML) and here. Undefined if the host has no Bottle. Templates are code: root must not run this.
 * Throws DatabaseError, and an error if Bottle comes to no end.
 */
async function compareTemplate(
  template: ConvertedTemplate,
  loaded: LoadedConfig,
  instances: readonly TemplateInstance[],
  part: FindPart,
): Promise<Comparison | undefined> {
  let different = 0;
  let first: Comparison['first'];
  let version = '';
  for (let start = 0; start < instances.length; start += batchSize) {
    const batch = instances.slice(start, start + batchSize);
    const result = await renderWithBottle(
      {
        folders: ['/', '/views', loaded.config.mdserver.userdata_dir],
        names: batch.map(({ name }) => pythonNames(loaded, name)),
        renderings: batch.map((_, names) => ({ template: template.before, names })),
      },
      timeLimit,
    );
    if (result === undefined) return undefined;
    version = result.version;
    for (const [index, instance] of batch.entries()) {
      const bottle = result.answers[index] ?? { error: 'no answer' };
      const own = ownAnswer(template, loaded, instance, part);
      if (isSame(bottle, own)) continue;
      different += 1;
      first ??= { name: instance.name, bottle, own };
    }
  }
  const { file } = template;
  return {
    file,
    bottle: version,
    instances: instances.length,
    different,
    ...(first !== undefined && { first }),
  };
}

/** What comparing says: nothing if the host has no Bottle. */
export type Compared =
  | { readonly comparisons: readonly Comparison[] }
  | { readonly problem: string };

/** Compares templates one after the other. Templates are code: root must not run this. */
export async function compareTemplates(
  templates: readonly ConvertedTemplate[],
  loaded: LoadedConfig,
): Promise<Compared> {
  const comparisons: Comparison[] = [];
  const partOnDisk = partsIn(loaded.config.mdserver.userdata_dir);
  // What they include is converted with them.
  const converted = new Map(templates.map(({ file, after }) => [resolve(file), after]));
  const part: FindPart = (name) => {
    const found = partOnDisk(name);
    if ('problem' in found) return found;
    return { ...found, source: converted.get(found.path) ?? found.source };
  };
  try {
    const instances = await instancesOf(loaded);
    for (const template of templates) {
      const comparison = await compareTemplate(template, loaded, instances, part);
      if (comparison === undefined) {
        return { problem: 'the host has no Bottle: install python3-bottle to compare the texts' };
      }
      comparisons.push(comparison);
    }
    return { comparisons };
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    if (error instanceof DatabaseError || code !== undefined) return { problem: message };
    throw error;
  }
}
