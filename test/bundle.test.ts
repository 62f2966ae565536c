import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { before, describe, it, type TestContext, test } from 'node:test';
import { bundle } from '../tools/bundle.js';
import { bundledPackage, licencesText } from '../tools/licences.js';
import { suiteScope, temporaryFolder } from './support/cleanup.js';
import { startWithControl } from './support/control-socket.js';
import { type Host, hostOf, run, program as unbundled } from './support/ctl.js';
import { eventually, mainFile } from './support/daemon.js';
import { missing } from './support/parts.js';
import { domainXml, mac } from './support/samples.js';

describe('the bundled programs', () => {
  // No node_modules are above it. Other users can run what is there.
  const folder = temporaryFolder(suiteScope());
  const mdserver = join(folder, 'mdserver.js');
  const mdserverctl = join(folder, 'mdserverctl.js');

  before(async () => {
    chmodSync(folder, 0o755);
    await bundle(folder, '/usr/bin/node');
  });

  /** What a program printed, and its status, whenever that was. */
  const ageless = (ended: unknown) =>
    JSON.stringify(ended).replace(/\d+ seconds?|"[a-zA-Z]*_?[sS]econds\\?":\s*[\d.]+/g, 'a while');

  /** Starts the bundled daemon of a host, with the folder of a unit if there is one. */
  function start(t: TestContext, host: Host, stateFolder?: string) {
    const configuration = readFileSync(host.file, 'utf8').replace(/^port = .*/m, 'port = {port}');
    return startWithControl(t, host.folder, configuration, '127.0.0.1', (command, args) =>
      spawn(command, [...args.map((argument) => (argument === mainFile ? mdserver : argument))], {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { ...process.env, ...(stateFolder && { STATE_DIRECTORY: stateFolder }) },
      }),
    );
  }

  it('are run by the node that the packager names', () => {
    for (const file of [mdserver, mdserverctl]) {
      assert.ok(readFileSync(file, 'utf8').startsWith('#!/usr/bin/node\n'), file);
      assert.equal(statSync(file).mode & 0o777, 0o755);
    }
  });

  it('are the same bytes when they are made again', async (t) => {
    const again = temporaryFolder(t);
    await bundle(again, '/usr/bin/node');
    assert.deepEqual(readdirSync(again), readdirSync(folder));
    for (const file of readdirSync(folder)) {
      assert.ok(readFileSync(join(again, file)).equals(readFileSync(join(folder, file))), file);
    }
  });

  it('load what a start does without later: cryptography, HTTPS, other programs', async (t) => {
    const list = "process.on('exit', () => console.log(process.moduleLoadList.join('\\n')))";
    const recorder = join(temporaryFolder(t, { 'list.cjs': list }), 'list.cjs');
    const { stdout } = await run(process.execPath, ['--require', recorder, mdserver, '--version']);
    const loaded = stdout.split('\n').map((line) => line.replace('NativeModule ', ''));
    assert.ok(loaded.includes('http'));
    const late = ['assert', 'child_process', 'crypto', 'http2', 'https'];
    assert.deepEqual(
      late.filter((name) => loaded.includes(name)),
      [],
    );
  });

  it('answer guests and operators as the unbundled ones do', async (t) => {
    const host = hostOf(t, 'upload_over_tcp = yes\nmetrics = yes');
    host.write('userdata/vm1', '#cloud-config\nhostname: {{yaml(hostname)}}\n');
    const template = host.write('userdata/old.yaml', "#cloud-config\nfqdn: {{hostname + '.x'}}\n");
    const daemon = await start(t, host);
    const uploaded = await daemon.upload(domainXml(1), { accept: 'application/json' });
    assert.equal(uploaded.status, 200, uploaded.text);
    const from = (uploaded.json().body as { mds_ipv4: string }).mds_ipv4;
    const token = await daemon.ask('/latest/api/token', {
      from,
      method: 'PUT',
      headers: { 'x-aws-ec2-metadata-token-ttl-seconds': '60' },
    });
    const { status, text } = await daemon.ask('/latest/user-data', {
      from,
      headers: { 'x-aws-ec2-metadata-token': token.text },
    });
    assert.deepEqual([status, text], [200, '#cloud-config\nhostname: "vm1"\n']);
    assert.match((await daemon.ask('/metrics', { from: '127.0.0.1' })).text, /^mdserver_/m);

    for (const line of [
      [],
      ['--version'],
      ['--help'],
      ['explain', '--help'],
      ['list', '--json'],
      ['show', 'vm1'],
      ['explain', mac(1)],
      ['render', 'vm1', 'user-data'],
      ['render', 'vm1', 'tree'],
      ['known-hosts', 'vm1'],
      ['config'],
      ['migrate', host.file],
      ['convert', '--json', template],
      ['wait'],
      ['remove', '--yes', 'vm1'],
      ['frobnicate'],
    ]) {
      const ask = (file: string) =>
        run(process.execPath, [file, '--config', host.file, ...line], '', host.env);
      // One after the other: both write the converted template.
      const [ours, theirs] = [await ask(mdserverctl), await ask(unbundled)];
      // Both cannot remove it.
      if (line[0] !== 'remove') assert.deepEqual(ageless(ours), ageless(theirs), line.join(' '));
      assert.doesNotMatch(ours.stderr, /not in the bundle|Cannot find/, line.join(' '));
    }
    assert.equal(await daemon.stop(), 0);
  });

  it('check, and compare templates, as the user of the daemon when root runs them', {
    skip: missing('root', 'bottle'),
  }, async (t) => {
    const host = hostOf(t);
    chmodSync(host.folder, 0o755);
    const configuration = readFileSync(host.file, 'utf8').replace('user = root', 'user = nobody');
    writeFileSync(host.file, configuration);
    const template = host.write('userdata/old.yaml', '#cloud-config\nfqdn: {{hostname}}-x\n');
    mkdirSync(join(host.folder, 'data'));
    const { uid, gid } = statSync(host.folder);
    chownSync(join(host.folder, 'data'), uid, gid);
    const ctl = (...args: string[]) =>
      run(process.execPath, [mdserverctl, '--config', host.file, ...args], '', host.env);
    const checked = await ctl('check', '--json');
    assert.doesNotMatch(checked.stdout, /could not be checked/);
    assert.match(checked.stdout, /"check": ?"database"/);
    const converted = await ctl('convert', '--json', template);
    assert.doesNotMatch(`${converted.stdout}${converted.stderr}`, /as user \d+:/);
    assert.equal(converted.status, 0, converted.stderr);
  });

  it('keep the compiled code of the daemon, and use only what is whole and their own', async (t) => {
    const host = hostOf(t);
    const state = join(host.folder, 'state');
    const kept = join(state, 'compiled-code');
    mkdirSync(state);
    const inode = () => statSync(kept, { throwIfNoEntry: false })?.ino;
    /** Whether a start keeps the code anew. Throws if it does not serve. */
    const keepsAnew = async () => {
      const old = inode();
      const daemon = await start(t, host, state);
      const isAnew = async () => {
        await eventually('the file is written, or is not', () => {
          return inode() !== old || process.uptime() > until;
        });
        return inode() !== old;
      };
      const until = process.uptime() + 4;
      const anew = await isAnew();
      assert.equal(await daemon.stop(), 0);
      assert.doesNotMatch(daemon.output(), /compiled code/);
      return anew;
    };
    assert.ok(await keepsAnew());
    assert.equal(statSync(kept).mode & 0o777, 0o600);
    assert.ok(!(await keepsAnew()), 'it is used by the next start');

    const whole = readFileSync(kept);
    const changes: Record<string, () => void> = {
      'a byte is another one': () => {
        const broken = Buffer.from(whole);
        broken[whole.length - 1000] = 255 - (broken[whole.length - 1000] ?? 0);
        writeFileSync(kept, broken);
      },
      'its end is missing': () => writeFileSync(kept, whole.subarray(0, whole.length / 2)),
      'it is empty': () => writeFileSync(kept, ''),
      'others may write it': () => chmodSync(kept, 0o622),
      'it is a link': () => {
        renameSync(kept, `${kept}.old`);
        symlinkSync(`${kept}.old`, kept);
      },
    };
    for (const [what, change] of Object.entries(changes)) {
      change();
      assert.ok(await keepsAnew(), what);
    }
    // A file of this name is no folder that a start fails with.
    assert.ok(!(await keepsAnew()));

    const code = join(folder, 'mdserver-code.js');
    copyFileSync(code, `${code}.old`);
    appendFileSync(code, '\n');
    try {
      assert.ok(await keepsAnew(), 'it is of other code');
    } finally {
      renameSync(`${code}.old`, code);
    }
  });
});

test('a package is bundled only with a licence that allows it, and its text', (t) => {
  const root = temporaryFolder(t);
  const packageOf = (fields: object, texts: Record<string, string> = {}) => {
    const folder = join(root, String(readdirSync(root).length));
    mkdirSync(folder);
    const all = { name: 'x', version: '1.2.3', ...fields };
    writeFileSync(join(folder, 'package.json'), JSON.stringify(all));
    for (const [name, text] of Object.entries(texts)) writeFileSync(join(folder, name), text);
    return folder;
  };
  const text = 'Permission to use …\n';
  const known = bundledPackage(packageOf({ license: 'ISC' }, { LICENSE: text, NOTICE: 'Of X.\n' }));
  assert.deepEqual(known, {
    name: 'x',
    version: '1.2.3',
    licence: 'ISC',
    text: 'Permission to use …\n\nOf X.\n',
  });
  assert.ok(licencesText([known]).includes(`x 1.2.3 (ISC)\n\n${known.text}`));
  const refused: [object, Record<string, string>, string][] = [
    [{ license: 'GPL-3.0' }, { LICENSE: text }, 'its licence is "GPL-3.0", not one of '],
    [{}, { LICENSE: text }, 'its licence is undefined, not one of '],
    [{ license: 'MIT', author: 'A' }, {}, 'it has no file with the text of its licence'],
  ];
  for (const [fields, texts, reason] of refused) {
    assert.throws(
      () => bundledPackage(packageOf(fields, texts)),
      ({ message }: Error) => message.startsWith(`x 1.2.3 cannot be in the programs: ${reason}`),
    );
  }
  const author = bundledPackage(
    packageOf({ name: 'abstract-logging', license: 'MIT', author: 'A. Author' }),
  );
  assert.match(author.text, /^Copyright \(c\) A\. Author\n\nPermission is hereby granted/);
});
