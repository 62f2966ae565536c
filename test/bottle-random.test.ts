import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { renderWithBottle } from '../src/ctl/bottle.js';
import { bottleTemplate, chanceOf, templateHosts } from './support/bottle-templates.js';
import { temporaryFolder } from './support/cleanup.js';
import { converting } from './support/converted.js';
import { missing } from './support/parts.js';

/** How many templates, and which ones: others with SEED=2 in the environment. */
const count = Number(process.env['COUNT'] ?? 20_000);
const seed = Number(process.env['SEED'] ?? 14);

test('converts no template at random to other text than what Bottle gives', {
  skip: missing('bottle'),
}, async (t) => {
  const folder = temporaryFolder(t);
  const { files } = templateHosts[0];
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  const hosts = templateHosts.map((host) => converting(host));
  const chance = chanceOf(seed);
  const cases = Array.from({ length: count }, (_, index) => {
    const rendering = index % hosts.length;
    // Converted with the names of one host, and rendered with those of another.
    const converting = hosts[(index + 1) % hosts.length];
    const template = bottleTemplate(chance);
    return {
      template,
      names: rendering,
      outcome: converting?.outcomeOf(template, hosts[rendering]),
    };
  });
  const names = hosts.map((host) => host.names);
  const bottle = await renderWithBottle({ folders: [folder], names, renderings: cases }, 600);

  const others: object[] = [];
  let served = 0;
  let converted = 0;
  for (const [index, { template, outcome }] of cases.entries()) {
    const answer = bottle?.answers[index] ?? { error: 'no answer' };
    if ('output' in answer) served += 1;
    if (outcome === undefined || 'refused' in outcome) continue;
    // Bottle's search for the end of a tag can take for ever.
    if ('error' in answer && answer.error.startsWith('TimeoutError')) continue;
    converted += 1;
    const text = 'text' in outcome ? outcome.text : undefined;
    const expected = 'output' in answer ? answer.output : undefined;
    if (text !== expected) others.push({ template, ...answer, ...outcome });
  }
  t.diagnostic(
    `seed ${seed}: of ${count} templates, Bottle rendered ${served}, and ${converted} were converted`,
  );
  const shortest = others.sort((a, b) => JSON.stringify(a).length - JSON.stringify(b).length);
  assert.deepEqual(shortest.slice(0, 5), [], `${others.length} differ`);
  // Else the generator makes templates that prove nothing.
  assert.ok(served > count / 2 && converted > count / 4, `${served}, ${converted}`);
});
