import { isUtf8 } from 'node:buffer';

import yaml = require('yaml');

import { quoted } from '../../text.js';
import type { Finding } from './finding.js';

/** A problem in rendered user-data. */
export type UserdataProblem = Pick<Finding, 'level' | 'text'>;

/**
 * The beginnings of user-data that cloud-init (INCLUSION_TYPES_MAP of its handlers), Ignition or
 * cloudbase-init recognises.
 */
const knownBeginnings = [
  '#include',
  '#!',
  '#cloud-config',
  '#part-handler',
  '#cloud-boothook',
  '## template: jinja',
  'content-type:',
  'mime-version:',
  'from ',
  '{',
  '#ps1',
  'rem cmd',
  '<script>',
  '<powershell>',
];

/** Whether the text is cloud-config in YAML, and not a template, an archive or a patch of it. */
export function isCloudConfig(text: string): boolean {
  return /^\s*#cloud-config(?![-\w])/i.test(text);
}

/** Problems in the first line and, for cloud-config, in the YAML (1.1, as PyYAML reads it). */
export function userdataProblems(body: string | Buffer): UserdataProblem[] {
  const bytes = Buffer.from(body);
  // Binary user-data, such as compressed user-data, is not checked.
  if (bytes.length === 0 || !isUtf8(bytes)) return [];
  const text = bytes.toString();
  const [firstLine = ''] = text.trimStart().split('\n', 1);
  if (!knownBeginnings.some((known) => firstLine.toLowerCase().startsWith(known))) {
    return [
      {
        level: 'warning',
        text: `cloud-init does not recognise the first line, ${quoted(firstLine.slice(0, 60))} (cloud-config begins with "#cloud-config")`,
      },
    ];
  }
  return isCloudConfig(text) ? yamlProblems(text) : [];
}

/** The first problem; later ones are often consequences of it. */
function yamlProblems(text: string): UserdataProblem[] {
  const document = yaml.parseDocument(text, { version: '1.1' });
  const problems: UserdataProblem[] = [...document.errors, ...document.warnings].map((error) => ({
    // PyYAML accepts a duplicate key and uses the last one.
    level: error.code === 'DUPLICATE_KEY' || error.name === 'YAMLWarning' ? 'warning' : 'failure',
    text: `YAML, line ${error.linePos?.[0].line ?? '?'} of the rendered text: ${error.message.split(/ at line |\n/)[0]}`,
  }));
  const [problem] = [...problems.filter(({ level }) => level === 'failure'), ...problems];
  if (problem !== undefined) return [problem];
  let value: unknown;
  try {
    // This resolves aliases: one may be undefined, or they may expand without bound.
    value = document.toJS();
  } catch (error) {
    return [{ level: 'failure', text: `YAML: ${(error as Error).message}` }];
  }
  if (value === null || (typeof value === 'object' && !Array.isArray(value))) return [];
  return [{ level: 'failure', text: 'YAML: cloud-config must be a mapping (key: value)' }];
}
