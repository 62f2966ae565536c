import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { renderWithBottle } from '../src/ctl/bottle.js';
import { type Form, files, forms, names, unescaped } from './support/bottle-forms.js';
import { temporaryFolder } from './support/cleanup.js';
import { converting } from './support/converted.js';
import { missing } from './support/parts.js';

function section(name: string, entries: Readonly<Record<string, string>>): string {
  const lines = Object.entries(entries).map(([key, value]) => `${key} = ${value}\n`);
  return `[${name}]\n${lines.join('')}`;
}

const host = {
  config: [
    section('mdserver', { password: names.mdserver_password }),
    section('public-keys', names.public_keys),
    section('template-data', {
      ...names['template-data'],
      _config_items_: 'dnsmasq.prefix,dnsmasq.domain',
    }),
  ].join(''),
  instance: names.hostname,
  files,
};

const { names: pythonNames, outcomeOf } = converting(host);
const served = forms.filter(({ output }) => output !== undefined);

/** The form's text, if Bottle 0.12 and 0.13 agree about it. What 0.13 refuses has one, too. */
function agreedText({ output = '', output_bottle_0_13: later }: Form): string | undefined {
  return (later ?? output) === output ? unescaped(output) : undefined;
}

test('converts no form to other text than what Bottle gives, whichever release it is', () => {
  const others = served.flatMap((form) => {
    const outcome = outcomeOf(form.template);
    const isRight =
      'refused' in outcome || ('text' in outcome && outcome.text === agreedText(form));
    return isRight ? [] : [{ ...form, ...outcome }];
  });
  assert.deepEqual(others, []);
});

test('converts at least 70 % of the forms that Python served', () => {
  const refused = served.flatMap(({ template }) => {
    const outcome = outcomeOf(template);
    return 'refused' in outcome ? [`${JSON.stringify(template)}: ${outcome.refused}`] : [];
  });
  const share = 1 - refused.length / served.length;
  assert.ok(share >= 0.7, `${share}:\n${refused.join('\n')}`);
});

test("the host's Bottle gives the forms' texts, with the names that a configuration gives to Python", {
  skip: missing('bottle'),
}, async (t) => {
  const folder = temporaryFolder(t);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  const renderings = served.map(({ template }) => ({ template, names: 0 }));
  const result = await renderWithBottle(
    { folders: [folder], names: [pythonNames], renderings },
    60,
  );
  const is013 = result?.version.startsWith('0.13') === true;
  const others = served.flatMap((form, index) => {
    const { output, output_bottle_0_13: later = output } = form;
    const expected = is013 ? later : output;
    const answer = result?.answers[index] ?? { error: 'no answer' };
    const text = 'output' in answer ? answer.output : null;
    // What is the host's own.
    const differs = expected == null ? text !== null : text !== unescaped(expected);
    return differs && !form.template.includes('socket') ? [{ ...form, ...answer }] : [];
  });
  assert.deepEqual(others, []);
});
