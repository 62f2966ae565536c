import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { compileTemplate, TemplateError, templateData } from '../src/userdata/template.js';
import { repository } from './support/daemon.js';
import { rowName } from './support/rows.js';

/** What Bottle made of templates, with these names. `null`: Bottle 0.13 gives an error. */
interface Forms {
  readonly names: {
    readonly hostname: string;
    readonly public_keys: Readonly<Record<string, string>>;
    readonly mdserver_password: string;
    readonly 'template-data': Readonly<Record<string, string>>;
    readonly 'unset options through _config_items_': Readonly<Record<string, false>>;
  };
  readonly forms: readonly {
    readonly id: string;
    readonly template: string;
    readonly output?: string;
    readonly output_bottle_0_13?: string | null;
  }[];
}

const { names, forms }: Forms = JSON.parse(
  readFileSync(join(repository, 'test/golden/bottle-forms.json'), 'utf8'),
);

const data = Object.assign(
  Object.create(
    templateData(
      {
        publicKeys: Object.entries(names.public_keys).map(([name, key]) => ({ name, key })),
        templateData: new Map(Object.entries(names['template-data'])),
        password: names.mdserver_password,
      },
      {
        name: names.hostname,
        uuid: undefined,
        mac: undefined,
        ipv4: undefined,
        ipv6: undefined,
        location: undefined,
        metadata: {},
      },
    ),
  ),
  { _config_items_: 'dnsmasq.prefix,dnsmasq.domain' },
  names['unset options through _config_items_'],
);

/** Bottle escapes for HTML, which user-data is not. */
function unescaped(text: string): string {
  return text
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&quot;', '"')
    .replaceAll('&#039;', "'")
    .replaceAll('&amp;', '&');
}

/** What a message says that helps: the new form, or what to do. */
const usefulMessage = /: .*(?:write|is [^ ]*[|&!?.(]|takes? |add|set it|raw|has to be|\\%)/;

for (const { id, template, output, output_bottle_0_13: later } of forms) {
  if (output === undefined) continue;
  test(`${id}: what Bottle served is served alike, or refused: ${rowName(template)}`, () => {
    let text: string;
    try {
      text = compileTemplate(template, 'web1')(Object.create(data));
    } catch (error) {
      assert.ok(error instanceof TemplateError, String(error));
      assert.match(error.message, usefulMessage);
      assert.doesNotMatch(error.message, /"(?:len|str|int|get|range|sorted|True)".*set it in/);
      return;
    }
    const served = [output, later ?? output].map(unescaped);
    assert.ok(served.includes(text) || text === output, `${JSON.stringify(text)}, not ${served}`);
  });
}
