import { isUtf8 } from 'node:buffer';
import { parseDocument } from 'yaml';
import type { Finding } from './finding.js';

/** What is wrong with a user-data, a line. */
export type Problem = Pick<Finding, 'level' | 'text'>;

/**
 * What user-data begins with that cloud-init knows (INCLUSION_TYPES_MAP of its handlers), and what
 * Ignition and cloudbase-init take.
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

/** Whether it is cloud-config to be read as YAML at once: not a template, archive or patch of it. */
export function isCloudConfig(text: string): boolean {
  return /^\s*#cloud-config(?![-\w])/i.test(text);
}

/** What a client would make nothing of: the first line, and for cloud-config the YAML (1.1, as PyYAML). */
export function userdataProblems(body: string | Buffer): Problem[] {
  const bytes = Buffer.from(body);
  // A compressed or otherwise binary one is the client's business.
  if (bytes.length === 0 || !isUtf8(bytes)) return [];
  const text = bytes.toString();
  const [firstLine = ''] = text.trimStart().split('\n', 1);
  if (!knownBeginnings.some((known) => firstLine.toLowerCase().startsWith(known))) {
    return [
      {
        level: 'warning',
        text: `the first line is ${JSON.stringify(firstLine.slice(0, 60))}: cloud-init takes it for nothing it knows (cloud-config begins with "#cloud-config")`,
      },
    ];
  }
  return isCloudConfig(text) ? yamlProblems(text) : [];
}

/** The first thing that is wrong: what follows it is often its consequence. */
function yamlProblems(text: string): Problem[] {
  const document = parseDocument(text, { version: '1.1' });
  const problems: Problem[] = [...document.errors, ...document.warnings].map((error) => ({
    // PyYAML takes the last of several.
    level: error.code === 'DUPLICATE_KEY' || error.name === 'YAMLWarning' ? 'warning' : 'failure',
    text: `YAML, line ${error.linePos?.[0].line ?? '?'} of the result: ${error.message.split(/ at line |\n/)[0]}`,
  }));
  const [problem] = [...problems.filter(({ level }) => level === 'failure'), ...problems];
  if (problem !== undefined) return [problem];
  let value: unknown;
  try {
    // Aliases are looked up now: there may be none of a name, or more than can be meant.
    value = document.toJS();
  } catch (error) {
    return [{ level: 'failure', text: `YAML: ${(error as Error).message}` }];
  }
  if (value === null || (typeof value === 'object' && !Array.isArray(value))) return [];
  return [{ level: 'failure', text: 'YAML: cloud-config has to be a mapping (key: value)' }];
}
