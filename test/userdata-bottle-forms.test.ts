import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compileTemplate, TemplateError, templateData } from '../src/userdata/template.js';
import { forms, names, unescaped } from './support/bottle-forms.js';
import { rowName } from './support/rows.js';

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
