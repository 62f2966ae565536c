import { isUtf8 } from 'node:buffer';

import yaml = require('yaml');

import { quoted } from '../../text.js';
import type { Finding } from './finding.js';

/** A problem in rendered user-data. */
export type UserdataProblem = Pick<Finding, 'level' | 'text'>;

/**
 * Keys of cloud-config with which a text may begin whose author forgot the first line. No other kind
 * of user-data begins with one: Talos, Butane and EC2Launch have YAML with other keys, Bottlerocket
 * has TOML, NixOS its own language.
 */
const cloudConfigKeys = new Set(
  [
    'apt bootcmd ca_certs chpasswd disable_root disk_setup final_message fqdn fs_setup groups growpart',
    'hostname keyboard locale manage_etc_hosts mounts ntp package_reboot_if_required package_update',
    'package_upgrade packages password phone_home power_state preserve_hostname resize_rootfs',
    'resolv_conf runcmd snap ssh ssh_authorized_keys ssh_deletekeys ssh_import_id ssh_keys ssh_pwauth',
    'swap timezone user users write_files yum_repos zypper',
  ].flatMap((line) => line.split(' ')),
);

/** Whether the text is cloud-config in YAML, and not a template, an archive or a patch of it. */
export function isCloudConfig(text: string): boolean {
  // cloud-init skips white space in front, but not a byte-order mark.
  return /^[^\S\uFEFF]*#cloud-config(?![-\w])/i.test(text);
}

/**
 * Why cloud-init does not take the text for what it is meant to be; undefined if it does, and for
 * everything that is meant for another client: there are more kinds of user-data than anybody knows.
 */
function beginningProblem(text: string): string | undefined {
  if (/^\uFEFF\s*#/.test(text)) {
    return 'cloud-init does not recognise what begins with a byte-order mark: save the file without it';
  }
  if (/^\s+(?:mime-version:|content-type: *multipart)/i.test(text)) {
    return 'cloud-init does not recognise MIME that begins with a blank line or a space';
  }
  const lines = text.trimStart().split('\n');
  const [firstLine = ''] = lines;
  if (/^(?:#!|## template:|#cloud-config)/i.test(firstLine)) return undefined;
  const begin = lines.findIndex((line) => !/^\s*(?:#|---|$)/.test(line));
  const comments = begin === -1 ? lines : lines.slice(0, begin);
  const [, key = ''] = /^(\w+):(?:\s|$)/.exec(lines[begin] ?? '') ?? [];
  if (
    cloudConfigKeys.has(key) ||
    [firstLine, ...comments].some((line) => /^#*\s*cloud[-_ ]?config\b/i.test(line))
  ) {
    return `cloud-init does not recognise the first line, ${quoted(firstLine.slice(0, 60))} (cloud-config begins with "#cloud-config")`;
  }
  return undefined;
}

/** Problems in the first line and, for cloud-config, in the YAML (1.1, as PyYAML reads it). */
export function userdataProblems(body: string | Buffer): UserdataProblem[] {
  const bytes = Buffer.from(body);
  // Binary user-data, such as compressed user-data, is not checked.
  if (bytes.length === 0 || !isUtf8(bytes)) return [];
  const text = bytes.toString();
  if (isCloudConfig(text)) return yamlProblems(text);
  const problem = beginningProblem(text);
  return problem === undefined ? [] : [{ level: 'warning', text: problem }];
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
