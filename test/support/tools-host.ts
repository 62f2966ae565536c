import assert from 'node:assert/strict';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { InstanceSummary } from '../../src/control/api.js';
import { type Scope, temporaryFolder } from './cleanup.js';
import { startWithControl } from './control-socket.js';
import { program } from './ctl.js';
import { repository } from './daemon.js';
import { type LibvirtHost, startLibvirt } from './libvirt.js';
import type { Ended } from './netns.js';
import { hostConfiguration } from './samples.js';

/** The first block of code that has the text, under a heading of a page in docs/. Throws if there is none. */
export function codeWith(page: string, heading: string, text: string): string {
  const whole = readFileSync(join(repository, 'docs', page), 'utf8');
  const [, behind = ''] = whole.split(new RegExp(`^## ${heading}.*$`, 'm'));
  const section = behind.replace(/^## [\s\S]*/m, '');
  const blocks = [...section.matchAll(/^( *)```\w*\n([\s\S]*?)^ *```$/gm)];
  const found = blocks
    .map(([, indent = '', code = '']) => code.replaceAll(new RegExp(`^${indent}`, 'gm'), ''))
    .find((code) => code.includes(text));
  assert.ok(found !== undefined, `docs/${page}, ${heading}: no code with ${text}`);
  return found;
}

/** A host with libvirt, mdserver and mdserverctl, for commands as the documentation shows them. */
export interface ToolsHost {
  readonly libvirt: LibvirtHost;
  /** Where scripts run. */
  readonly folder: string;
  /** Runs a script to its end, in bash. */
  readonly attempt: (script: string) => Promise<Ended>;
  /** The output of a script. Throws if it fails. */
  readonly shell: (script: string) => Promise<string>;
  /** Uploads every domain, as the hook does when they start; gives their datasources by their names. */
  readonly datasources: () => Promise<Record<string, string | null>>;
}

/** Starts one, with libvirt's network mds. */
export async function startToolsHost(scope: Scope): Promise<ToolsHost> {
  const folder = temporaryFolder(scope, { 'userdata/': '' });
  const file = join(folder, 'mdserverctl');
  const command = [process.execPath, program, '--config', `${folder}/mdserver.conf`];
  writeFileSync(file, `#!/bin/sh\nexec ${command.join(' ')} "$@"\n`);
  chmodSync(file, 0o755);
  const libvirt = await startLibvirt(scope);
  const configuration = hostConfiguration(folder, { sections: '[service]\nlocation = rack-1' });
  await startWithControl(scope, folder, configuration, '169.254.169.254', libvirt.start);

  const attempt: ToolsHost['attempt'] = (script) =>
    libvirt.run('bash', ['-euc', `cd ${folder}; ${script}`], {
      ...process.env,
      HOME: folder,
      PATH: `${folder}:${process.env['PATH']}`,
    });
  async function shell(script: string): Promise<string> {
    const { status, stdout, stderr } = await attempt(script);
    assert.equal(status, 0, `${script}: ${stdout}${stderr}`);
    return stdout;
  }
  async function datasources(): Promise<Record<string, string | null>> {
    await shell('mdserverctl sync');
    const list = JSON.parse(await shell('mdserverctl list --json')) as InstanceSummary[];
    return Object.fromEntries(list.map(({ name, datasource }) => [name, datasource]));
  }
  return { libvirt, folder, attempt, shell, datasources };
}
