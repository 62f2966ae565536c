import { convertTemplate } from '../../src/bottle/convert.js';
import { configFrom } from '../../src/config/load.js';
import type { PythonNames } from '../../src/ctl/bottle.js';
import { pythonNames } from '../../src/ctl/python-names.js';
import {
  compileTemplate,
  type Part,
  type TemplateData,
  TemplateError,
} from '../../src/userdata/template.js';
import { dataOf } from '../../src/userdata/userdata.js';

/** A host whose templates come from Python's server: its configuration, an instance, and the files in userdata_dir. */
export interface PythonHost {
  readonly config: string;
  readonly instance: string;
  readonly files: Readonly<Record<string, string>>;
}

/** What became of a template: its text, why it was not converted, or why ours does not render. */
export type Outcome =
  | { readonly text: string; readonly converted: string }
  | { readonly refused: string }
  | { readonly failed: string; readonly converted: string };

/** A host, as templates are converted and rendered there. */
export interface ConvertingHost {
  /** What its templates had from Python. */
  readonly names: PythonNames;
  readonly data: TemplateData;
  /** Converts a template for this host, and renders it with the data of one with the same names. */
  outcomeOf(template: string, rendering?: Pick<ConvertingHost, 'data'>): Outcome;
}

/** What converting templates on a host needs. */
export function converting({ config: text, instance: name, files }: PythonHost): ConvertingHost {
  const loaded = configFrom(text);
  const names = pythonNames(loaded, name);
  const part = (file: string) => {
    const source = Object.hasOwn(files, file) ? files[file] : undefined;
    return source === undefined ? undefined : { name: file, source };
  };
  // A part is converted, too, before what includes it is used.
  const ownPart = (file: string): Part => {
    const found = part(file);
    if (found === undefined) return { problem: 'no such file' };
    const conversion = convertTemplate(found.source, { names, part });
    if ('problems' in conversion) return { problem: 'is not converted' };
    return { path: file, source: conversion.text };
  };
  const data = dataOf(loaded.config, {
    name,
    uuid: '00000002-b581-4ecd-b60e-a9942ad18879',
    mac: '52:54:00:3a:cf:02',
    ipv4: '10.122.0.2',
    ipv6: undefined,
    location: 'lab',
    metadata: {},
  });
  return {
    names,
    data,
    outcomeOf(template, rendering = { data }) {
      const conversion = convertTemplate(template, { names, part });
      if ('problems' in conversion) {
        const lines = conversion.problems.map(({ line, problem }) => `${line}: ${problem}`);
        return { refused: lines.join('; ') };
      }
      const { text: converted } = conversion;
      try {
        const render = compileTemplate(converted, 'template', { part: ownPart });
        return { text: render(Object.create(rendering.data)), converted };
      } catch (error) {
        if (!(error instanceof TemplateError)) throw error;
        return { failed: error.message, converted };
      }
    },
  };
}
