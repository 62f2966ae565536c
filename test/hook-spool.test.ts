import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer as createSocketServer } from 'node:net';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import {
  begin,
  call,
  complaint,
  domain,
  listen,
  type Outcome,
  ownerXml,
  portXml,
  receiver,
  silent,
} from './fixtures/hook/as-libvirt.js';
import { installedHook, layPackage, nowhere } from './fixtures/hook/installed.js';
import { suiteScope, temporaryFolder } from './support/cleanup.js';
import { missing } from './support/parts.js';
import { accountOf } from './support/processes.js';
import { domainXml } from './support/samples.js';

const folder = temporaryFolder(suiteScope());
/** The hook as system-integration.sh installs it; each test fills in its own socket and spool folder. */
let installed = '';

before(() => {
  chmodSync(folder, 0o755);
  installed = installedHook(layPackage(folder), join(folder, 'root'));
});

/** A hook with a spool folder of its own. Nobody listens on its socket. */
interface Site {
  readonly hook: string;
  readonly socket: string;
  readonly spool: string;
}

let count = 0;
function site(change = (text: string): string => text): Site {
  count += 1;
  const place = join(folder, `site-${count}`);
  mkdirSync(place, { mode: 0o755 });
  const socket = join(place, 'control.sock');
  const spool = join(place, 'spool');
  const text = installed
    .replace(`'${nowhere.socket}'`, `'${socket}'`)
    .replace(`'${nowhere.spool}'`, `'${spool}'`);
  assert.ok(text.includes(`'${socket}'`) && text.includes(`'${spool}'`));
  const hook = join(place, 'hook');
  writeFileSync(hook, change(text), { mode: 0o755 });
  chmodSync(hook, 0o755);
  mkdirSync(spool, { mode: 0o700 });
  return { hook, socket, spool };
}

function hashOf(name: string): string {
  return createHash('sha256').update(name).digest('hex').slice(0, 32);
}

/** The file of a domain, or of its interfaces on a network. */
function fileOf(name: string, network?: string): string {
  return network === undefined
    ? `${hashOf(name)}.domain`
    : `${hashOf(name)}.${hashOf(network)}.port`;
}

/** What a file of the spool folder keeps. */
function keptIn(path: string) {
  const bytes = readFileSync(path);
  const end = bytes.indexOf('\n');
  const { at, ...about } = JSON.parse(bytes.toString('utf8', 0, end));
  return { at: at as number, about, xml: bytes.subarray(end + 1) };
}

/** The outcome of a hook with the spool folder, called with `begin`, that found nobody to upload to. */
function unheard(spool: string, what: string): Outcome {
  const socket = join(spool, '..', 'control.sock');
  return complaint(socket, `connect ENOENT ${socket}; ${what}`);
}

function kept(spool: string, name = 'web'): string {
  return `kept in ${spool}/${fileOf(name)} until mdserver takes it`;
}

const portCreated = ['mds', 'port-created', 'begin', '-'];

const names = ['web', '', '../../etc/cron.d/x', '.', '-x', 'wéb 日本 🦆', '"\\\n', 'x'.repeat(255)];

describe('what mdserver does not take', { concurrency: 4 }, () => {
  for (const operation of ['prepare', 'migrate', 'restore', 'reconnect', 'attach']) {
    it(`is kept at "${operation}", byte for byte, with the time, for its owner alone`, async () => {
      const { hook, spool } = site();
      const earliest = Date.now() / 1000;
      const { code, stdout, stderr } = await call([hook, 'web', operation, 'begin', '-'], domain);
      assert.deepEqual([code, stdout], [0, '']);
      assert.equal(stderr, unheard(spool, kept(spool)).stderr.replace('prepare', operation));
      assert.deepEqual(readdirSync(spool), [fileOf('web')]);
      const path = join(spool, fileOf('web'));
      const { at, about, xml } = keptIn(path);
      assert.deepEqual(about, { operation, name: 'web' });
      assert.ok(at >= earliest && at <= Date.now() / 1000, String(at));
      assert.deepEqual(xml, domain);
      assert.equal(lstatSync(path).mode & 0o7777, 0o600);
    });
  }

  it('is kept in a file for each domain, whatever its name is', async () => {
    const { hook, spool } = site();
    for (const name of names) {
      const { code, stdout } = await call([hook, name, 'prepare', 'begin', '-'], domain);
      assert.deepEqual([code, stdout], [0, '']);
      assert.deepEqual(keptIn(join(spool, fileOf(name))).about, { operation: 'prepare', name });
    }
    assert.deepEqual(readdirSync(spool).sort(), names.map((name) => fileOf(name)).sort());
  });

  it('replaces what was kept of the same domain before', async () => {
    const { hook, spool } = site();
    await call([hook, 'web', 'reconnect', 'begin', '-'], 'a longer one than the newer');
    assert.deepEqual(await call([hook, ...begin], 'newer'), unheard(spool, kept(spool)));
    const { about, xml } = keptIn(join(spool, fileOf('web')));
    assert.deepEqual([about.operation, xml.toString()], ['prepare', 'newer']);
    assert.deepEqual(readdirSync(spool), [fileOf('web')]);
  });

  for (const status of [500, 503, 404, 401]) {
    it(`is kept after a ${status}, since it may be taken another time`, async (t) => {
      const { hook, spool, socket } = site();
      await receiver(t, socket, (response) => response.writeHead(status).end('why\n'));
      assert.deepEqual(
        await call([hook, ...begin], domain),
        complaint(socket, `mdserver answered ${status} why; ${kept(spool)}`),
      );
      assert.deepEqual(keptIn(join(spool, fileOf('web'))).xml, domain);
    });
  }

  for (const status of [400, 413, 422, 200]) {
    it(`is not kept after a ${status}, which is final`, async (t) => {
      const { hook, spool, socket } = site();
      await receiver(t, socket, (response) => response.writeHead(status).end('why\n'));
      assert.deepEqual(
        await call([hook, ...begin], domain),
        status === 400 || status === 413
          ? complaint(socket, `mdserver answered ${status} why`)
          : silent,
      );
      assert.deepEqual(readdirSync(spool), []);
    });
  }

  it('is kept when mdserver does not answer in time', async (t) => {
    const { hook, spool, socket } = site();
    await listen(
      t,
      createSocketServer(() => undefined),
      socket,
    );
    assert.deepEqual(
      await call([hook, ...begin], domain),
      complaint(socket, `not finished after 3500 ms; ${kept(spool)}`),
    );
    const { at, xml } = keptIn(join(spool, fileOf('web')));
    assert.deepEqual(xml, domain);
    // It has the time of the call, in case mdserver takes the upload after all.
    assert.ok(at < Date.now() / 1000 - 3);
  });

  // ---- bounds ----

  it('is kept up to 1 MiB', async () => {
    const { hook, spool } = site();
    const large = Buffer.alloc(1024 * 1024, 'x');
    assert.deepEqual(await call([hook, ...begin], large), unheard(spool, kept(spool)));
    const larger = Buffer.concat([large, Buffer.from('x')]);
    assert.deepEqual(
      await call([hook, 'web', 'prepare', 'begin', '-'], larger),
      unheard(spool, 'not kept: the XML has more than 1048576 bytes'),
    );
    assert.deepEqual(keptIn(join(spool, fileOf('web'))).xml, large);
  });

  it('is not kept in a folder of 4,096 files, except in place of one of them', async () => {
    const { hook, spool } = site();
    for (let number = 1; number < 4096; number += 1) {
      writeFileSync(join(spool, `${number}.domain`), '');
    }
    assert.deepEqual(await call([hook, ...begin], domain), unheard(spool, kept(spool)));
    assert.deepEqual(await call([hook, ...begin], 'newer'), unheard(spool, kept(spool)));
    const other = await call([hook, 'other', 'prepare', 'begin', '-'], domain);
    assert.match(other.stderr, /; not kept: \S+\/spool has 4096 files\n$/);
    assert.equal(readdirSync(spool).length, 4096);
    assert.equal(keptIn(join(spool, fileOf('web'))).xml.toString(), 'newer');
  });

  it('is not kept beyond 64 MiB in all', async () => {
    const { hook, spool } = site();
    const other = join(spool, 'other.domain');
    writeFileSync(other, '');
    truncateSync(other, 64 * 1024 * 1024 - 100);
    assert.deepEqual(
      await call([hook, ...begin], domain.toString().repeat(9)),
      unheard(spool, `not kept: ${spool} has 67108864 bytes`),
    );
    assert.deepEqual(readdirSync(spool), ['other.domain']);
    truncateSync(other, 63 * 1024 * 1024);
    assert.deepEqual(await call([hook, ...begin], domain), unheard(spool, kept(spool)));
  });

  it('holds libvirt up for a limited time when the disk hangs', async () => {
    // A file that never opens stands for the disk: it blocks the same thread of Node.
    const { hook, spool } = site((text) => {
      const hanging = text.replace('await handle.sync()', "await node_fs_1.promises.open('never')");
      assert.notEqual(hanging, text);
      return hanging;
    });
    assert.equal(spawnSync('mkfifo', [join(spool, 'never')]).status, 0);
    const { code, stdout, stderr } = await call([hook, ...begin], domain);
    assert.deepEqual([code, stdout], [0, '']);
    assert.match(stderr, /; not kept: not finished after 4300 ms\n/);
  });
});

// ---- interfaces ----

describe('an interface on the network', { concurrency: 4 }, () => {
  it('is posted to /ports on the control socket, byte for byte', async (t) => {
    const { hook, socket, spool } = site();
    const received = await receiver(t, socket);
    const xml = portXml(1, ownerXml('web', 1));
    assert.deepEqual(await call([hook, ...portCreated], xml), silent);
    assert.deepEqual(received, [
      {
        line: 'POST /ports',
        headers: {
          'content-type': 'application/xml',
          'content-length': String(xml.length),
          connection: 'close',
        },
        body: Buffer.from(xml),
      },
    ]);
    assert.deepEqual(readdirSync(spool), []);
  });

  for (const [name, written, network] of [
    ['web', 'web', ''],
    [`<a> & 'b' "c"`, '&lt;a&gt; &amp; &apos;b&apos; &quot;c&quot;', ''],
    ['&lt;', '&amp;lt;', ''],
    ['wéb 日本 🦆', 'wéb 日本 🦆', ''],
    [
      'web',
      'web',
      `<metadata><networkport>${ownerXml('of the metadata', 1)}</networkport></metadata>`,
    ],
  ] as const) {
    it(`of ${JSON.stringify(name)}${network && ' with misleading metadata'} is kept under the names of its owner and its network`, async () => {
      const { hook, socket, spool } = site();
      const xml = portXml(1, ownerXml(written, 1), network);
      const { code, stdout, stderr } = await call([hook, ...portCreated], xml);
      assert.deepEqual([code, stdout], [0, '']);
      const path = join(spool, fileOf(name, 'mds'));
      assert.equal(
        stderr,
        `mdserver-hook: ${name} (port-created) was not uploaded to ${socket}: connect ENOENT ${socket}; kept in ${path} until mdserver takes it\n`,
      );
      const { about, xml: keptXml } = keptIn(path);
      assert.deepEqual(about, { operation: 'port-created', name });
      assert.equal(keptXml.toString(), xml);
    });
  }

  it('does not replace what is kept of another network: mdserver knows which is its own', async () => {
    const { hook, spool } = site();
    const xml = portXml(1, ownerXml('web', 1));
    for (const network of ['mds', 'default']) {
      await call([hook, network, 'port-created', 'begin', '-'], xml);
    }
    const both = [fileOf('web', 'mds'), fileOf('web', 'default')];
    assert.deepEqual(readdirSync(spool).sort(), both.sort());
  });

  it('that belongs to no domain is not kept', async () => {
    const { hook, socket, spool } = site();
    assert.deepEqual(await call([hook, ...portCreated], portXml(1, '')), {
      ...silent,
      stderr: `mdserver-hook: mds (port-created) was not uploaded to ${socket}: connect ENOENT ${socket}; not kept: the port belongs to no domain\n`,
    });
    assert.deepEqual(readdirSync(spool), []);
  });

  for (const [status, stderr] of [
    [422, ''],
    [400, 'web (port-created) was not uploaded to SOCKET: mdserver answered 400 why'],
  ] as const) {
    it(`is not kept after a ${status}, which is final`, async (t) => {
      const { hook, socket, spool } = site();
      await receiver(t, socket, (response) => response.writeHead(status).end('why\n'));
      assert.deepEqual(await call([hook, ...portCreated], portXml(1, ownerXml('web', 1))), {
        ...silent,
        stderr: stderr && `mdserver-hook: ${stderr.replace('SOCKET', socket)}\n`,
      });
      assert.deepEqual(readdirSync(spool), []);
    });
  }
});

// ---- starts that fail ----

describe('a start that failed', { concurrency: 4 }, () => {
  const failed = ['web', 'release', 'end', 'failed'];

  /** A hook that has kept the domain and its interface, and another domain. */
  async function withKept(): Promise<Site> {
    const made = site();
    await call([made.hook, ...begin], domain);
    await call([made.hook, 'other', 'prepare', 'begin', '-'], domain);
    await call([made.hook, ...portCreated], portXml(1, ownerXml('web', 1)));
    return made;
  }
  const all = [fileOf('other'), fileOf('web'), fileOf('web', 'mds')].sort();

  it('leaves nothing kept of the domain if mdserver cannot be told', async () => {
    const { hook, spool } = await withKept();
    assert.deepEqual(await call([hook, ...failed], domainXml(1)), silent);
    assert.deepEqual(readdirSync(spool), [fileOf('other')]);
  });

  it('leaves nothing kept that mdserver, which has been told, could not take in', async (t) => {
    const { hook, socket, spool } = await withKept();
    const keptWhenTold: string[][] = [];
    await receiver(t, socket, (response) => {
      keptWhenTold.push(readdirSync(spool).sort());
      response.end();
    });
    assert.deepEqual(await call([hook, ...failed], domainXml(1)), silent);
    assert.deepEqual(keptWhenTold, [all]);
    assert.deepEqual(readdirSync(spool), [fileOf('other')]);
  });

  it('is another than the end of a guest, of which everything stays', async () => {
    const { hook, spool } = await withKept();
    for (const reason of ['-', 'shutdown', 'destroyed', 'crashed']) {
      assert.deepEqual(await call([hook, 'web', 'release', 'end', reason], domainXml(1)), silent);
    }
    assert.deepEqual(readdirSync(spool).sort(), all);
  });

  it('is silent without a spool folder, and reports one that it cannot use', async () => {
    const { hook, spool } = site();
    rmSync(spool, { recursive: true });
    assert.deepEqual(await call([hook, ...failed], domainXml(1)), silent);
    writeFileSync(spool, '');
    assert.deepEqual(await call([hook, ...failed], domainXml(1)), {
      ...silent,
      stderr: `mdserver-hook: web did not start, but what is kept of it stays: ${spool} is not a folder\n`,
    });
  });
});

// ---- a hostile folder: it belongs to mdserver's user, and the hook is root ----

describe('a spool folder', { concurrency: 4 }, () => {
  const target = fileOf('web');
  const temporary = `.${target}.new`;

  it('that is missing, a link, a file, or open to others is not used', async () => {
    const elsewhere = join(folder, 'elsewhere');
    mkdirSync(elsewhere, { mode: 0o700 });
    const { hook, spool } = site();
    const unusable: [() => void, string][] = [
      [() => undefined, `ENOENT: no such file or directory, lstat '${spool}'`],
      [() => symlinkSync(elsewhere, spool), `${spool} is not a folder`],
      [() => symlinkSync('/nonexistent', spool), `${spool} is not a folder`],
      [() => writeFileSync(spool, ''), `${spool} is not a folder`],
      [() => spawnSync('mkfifo', [spool]), `${spool} is not a folder`],
      [() => mkdirSync(spool, { mode: 0o755 }), `${spool} does not have the mode 0700`],
    ];
    for (const [make, reason] of unusable) {
      rmSync(spool, { recursive: true, force: true });
      make();
      assert.deepEqual(await call([hook, ...begin], domain), unheard(spool, `not kept: ${reason}`));
    }
    assert.deepEqual(readdirSync(elsewhere), []);
    assert.deepEqual(readdirSync(spool), []);
  });

  const { uid: nobody, gid: nogroup } = accountOf('nobody');

  for (const owner of ['root', 'nobody'] as const) {
    const isNobody = owner === 'nobody';
    const skip = isNobody && missing('root');

    /** A hook whose spool folder belongs to the owner, with a file that only root may touch. */
    function ownedSite() {
      const made = site();
      if (isNobody) chownSync(made.spool, nobody, nogroup);
      const secret = join(made.spool, '..', 'secret');
      writeFileSync(secret, 'of root', { mode: 0o600 });
      const before = lstatSync(secret);
      const untouched = () => {
        const { uid, gid, mode, mtimeMs, ctimeMs, ino } = lstatSync(secret);
        assert.equal(readFileSync(secret, 'utf8'), 'of root');
        assert.deepEqual(
          [uid, gid, mode, mtimeMs, ino],
          [before.uid, before.gid, before.mode, before.mtimeMs, before.ino],
        );
        return ctimeMs;
      };
      return { ...made, secret, untouched };
    }

    for (const at of [target, temporary]) {
      const where = at === target ? 'in place of the file' : 'in place of its temporary file';
      const planted: [string, (path: string, secret: string) => void][] = [
        ['a link', (path, secret) => symlinkSync(secret, path)],
        ['a link to nothing', (path) => symlinkSync('/nonexistent/new', path)],
        ['a hard link', (path, secret) => linkSync(secret, path)],
        ['a FIFO', (path) => spawnSync('mkfifo', [path])],
        ['a file that nobody may write', (path) => writeFileSync(path, 'x', { mode: 0o400 })],
      ];
      for (const [what, plant] of planted) {
        it(`of ${owner} with ${what} ${where}: what it leads to stays as it is`, {
          skip,
        }, async () => {
          const { hook, spool, secret, untouched } = ownedSite();
          const path = join(spool, at);
          plant(path, secret);
          if (isNobody && lstatSync(path).nlink === 1) {
            spawnSync('chown', ['-h', 'nobody', path]);
          }
          assert.deepEqual(await call([hook, ...begin], domain), unheard(spool, kept(spool)));
          untouched();
          assert.deepEqual(readdirSync(spool), [target]);
          const stats = lstatSync(join(spool, target));
          assert.deepEqual(
            [stats.isFile(), stats.mode & 0o7777, stats.nlink, stats.uid],
            [true, 0o600, 1, isNobody ? nobody : (process.getuid?.() ?? 0)],
          );
          assert.deepEqual(keptIn(join(spool, target)).xml, domain);
        });
      }
      it(`of ${owner} with a folder ${where}: nothing is kept`, { skip }, async () => {
        const { hook, spool } = ownedSite();
        mkdirSync(join(spool, at));
        const { code, stdout, stderr } = await call([hook, ...begin], domain);
        assert.deepEqual([code, stdout], [0, '']);
        assert.match(stderr, /; not kept: (EISDIR|ERR_FS_EISDIR|Path is a directory)/);
        assert.deepEqual(readdirSync(spool), [at]);
      });
    }

    it(`of ${owner} with links in place of what is kept: a failed start removes the links alone`, {
      skip,
    }, async () => {
      const { hook, spool, secret, untouched } = ownedSite();
      symlinkSync(secret, join(spool, target));
      linkSync(secret, join(spool, fileOf('web', 'mds')));
      const failed = await call([hook, 'web', 'release', 'end', 'failed'], domainXml(1));
      assert.deepEqual(failed, silent);
      assert.deepEqual(readdirSync(spool), []);
      untouched();
    });
  }

  it('of another user is used as that user, who cannot lead root anywhere', {
    skip: missing('root', 'setpriv'),
  }, async () => {
    const { hook, spool } = site();
    const bin = join(spool, '..', 'bin');
    const log = join(spool, '..', 'log');
    mkdirSync(bin);
    writeFileSync(log, '');
    chmodSync(log, 0o666);
    const script = `#!/bin/sh\n{ id -u; id -ru; id -g; id -rg; id -G; } >>${log}\n`;
    writeFileSync(join(bin, 'logger'), script, { mode: 0o755 });
    chownSync(spool, nobody, nogroup);
    const withGroups = ['setpriv', '--groups', '0,4,42', 'env', `PATH=${bin}:/usr/bin:/bin`];
    assert.deepEqual(
      await call([hook, ...begin], domain, ...withGroups),
      unheard(spool, kept(spool)),
    );
    assert.equal(
      readFileSync(log, 'utf8'),
      [nobody, nobody, nogroup, nogroup, nogroup, ''].join('\n'),
    );
    // Root could write here, but not the user.
    chmodSync(spool, 0o500);
    const { code, stdout, stderr } = await call([hook, ...begin], 'newer');
    assert.deepEqual([code, stdout], [0, '']);
    assert.match(stderr, /; not kept: EACCES: permission denied, open /);
    assert.deepEqual(keptIn(join(spool, target)).xml, domain);
    // Nor can that user go where only root may.
    chmodSync(spool, 0o700);
    chmodSync(join(spool, '..'), 0o700);
    const closed = await call([hook, ...begin], 'newer', 'sh', '-c', 'exec "$@"', 'sh');
    assert.match(closed.stderr, /; not kept: EACCES: permission denied, chdir /);
    assert.deepEqual(keptIn(join(spool, target)).xml, domain);
  });

  it('of another user is used through a process of that user where Node refuses to become it, as in Debian 13', {
    skip: missing('root'),
  }, async () => {
    const { hook, spool } = site((text) => {
      const refusing = text.replace(
        'process.setgroups?.([])',
        "(() => { throw new Error('io_uring may be enabled'); })()",
      );
      assert.notEqual(refusing, text);
      return refusing;
    });
    chownSync(spool, nobody, nogroup);
    assert.deepEqual(await call([hook, ...begin], domain), unheard(spool, kept(spool)));
    const path = join(spool, target);
    assert.deepEqual(keptIn(path).xml, domain);
    const { uid, gid, mode } = lstatSync(path);
    assert.deepEqual([uid, gid, mode & 0o7777], [nobody, nogroup, 0o600]);
    // What that user may not do is not done, and said.
    chmodSync(spool, 0o500);
    const { stderr } = await call([hook, ...begin], 'newer');
    assert.match(stderr, /; not kept: EACCES: permission denied, open /);
    assert.deepEqual(keptIn(path).xml, domain);
    chmodSync(spool, 0o700);
    await call([hook, 'mds', 'port-created', 'begin', '-'], portXml(1, ownerXml('web', 1)));
    assert.equal(readdirSync(spool).length, 2);
    const failed = await call([hook, 'web', 'release', 'end', 'failed'], domainXml(1));
    assert.deepEqual(failed, silent);
    assert.deepEqual(readdirSync(spool), []);
  });

  it('of another user leads to no hang: libvirt goes on when that user stops the hook', {
    skip: missing('root'),
  }, async () => {
    const { hook, spool } = site();
    const bin = join(spool, '..', 'bin');
    mkdirSync(bin);
    // It is started by the hook, as the user that the hook has become.
    writeFileSync(join(bin, 'logger'), '#!/bin/sh\nkill -STOP $PPID\n', { mode: 0o755 });
    chownSync(spool, nobody, nogroup);
    const { code, stdout, stderr } = await call(
      [hook, ...begin],
      domain,
      ...['env', `PATH=${bin}:/usr/bin:/bin`],
    );
    assert.deepEqual([code, stdout], [0, '']);
    assert.ok(stderr.startsWith(unheard(spool, kept(spool)).stderr), stderr);
    // What the shell says of a program that it had to kill.
    assert.match(stderr, /Killed/);
  });

  it('that is replaced by a link at the last moment is not used', {
    skip: missing('root'),
  }, async () => {
    const { hook, spool } = site((text) => {
      const late = text.replace(
        'process.chdir(spoolFolder)',
        "require('fs').renameSync(spoolFolder, spoolFolder + '.away'); require('fs').symlinkSync('elsewhere', spoolFolder); process.chdir(spoolFolder)",
      );
      assert.notEqual(late, text);
      return late;
    });
    const elsewhere = join(spool, '..', 'elsewhere');
    mkdirSync(elsewhere, { mode: 0o700 });
    assert.deepEqual(
      await call([hook, ...begin], domain),
      unheard(spool, `not kept: ${spool} has just been replaced`),
    );
    assert.equal(readlinkSync(spool), 'elsewhere');
    assert.deepEqual([readdirSync(elsewhere), readdirSync(`${spool}.away`)], [[], []]);
  });

  for (const [what, options, reason] of [
    ['on a full disk', 'size=16k', /ENOSPC: no space left on device, (write|open)/],
    ['without room for another file', 'nr_inodes=2', /ENOSPC: no space left on device, open/],
    ['on a disk that is read-only', 'ro', /EROFS: read-only file system, (open|unlink|rm|lstat)/],
  ] as const) {
    it(`${what} keeps what it has`, { skip: missing('netns') }, async () => {
      const { hook, spool } = site();
      const list = join(spool, '..', 'list');
      const mounted = `mount -t tmpfs -o mode=700,nr_inodes=100 tmpfs "$1"
        printf 'older' >"$1/${target}"; chmod 700 "$1"; mount -o "remount,$2" "$1"
        shift 2; "$@"; status=$?; { ls -A ${spool}; cat ${spool}/*; } >${list}; exit $status`;
      const way = ['unshare', '--mount', 'sh', '-c', mounted, 'sh', spool, options];
      const { code, stdout, stderr } = await call(
        [hook, ...begin],
        Buffer.alloc(100_000, 'x'),
        ...way,
      );
      assert.deepEqual([code, stdout], [0, '']);
      assert.match(stderr, new RegExp(`; not kept: ${reason.source}`));
      assert.equal(readFileSync(list, 'utf8'), `${target}\nolder`);
      assert.equal(existsSync(join(spool, target)), false);
    });
  }
});
