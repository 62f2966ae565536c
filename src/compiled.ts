#!/usr/bin/env node
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Script } from 'node:vm';
import { crc32 } from 'node:zlib';
import { unitStateFolder } from './config/unit.js';
import { setMemoryFlags } from './memory.js';

/*
 * The program mdserver in its bundle (tools/bundle.ts): it runs mdserver-code.js, which is main.ts and all
 * that it needs. Half of a start is spent on compiling that. So the code is kept, compiled, in the folder that
 * systemd keeps for the unit, and the next start takes it from there.
 */

/** What names the text of mdserver-code.js: another text has another one. */
declare const codeId: string;

/** Milliseconds from the start until the code is kept: what a start needs is compiled by then, and not much more. */
const keepDelay = 900;

const codeFile = join(__dirname, 'mdserver-code.js');

/** The beginning of the kept file: what was compiled, and a checksum of all that follows. V8 checks neither. */
function headerOf(compiled: Buffer): Buffer {
  return Buffer.from(`${codeId} ${crc32(compiled).toString(16).padStart(8, '0')}\n`);
}

/** The compiled code that is kept; undefined if there is none, or it is not what this user has kept. */
function readCompiled(file: string): Buffer | undefined {
  let descriptor: number;
  try {
    descriptor = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch {
    // The first start, or one that cannot read it: it is made anew.
    return undefined;
  }
  try {
    const stats = fstatSync(descriptor);
    const isOurs =
      stats.isFile() && stats.uid === process.geteuid?.() && (stats.mode & 0o022) === 0;
    if (!isOurs) return undefined;
    const content = readFileSync(descriptor);
    const { length } = headerOf(Buffer.alloc(0));
    const compiled = content.subarray(length);
    return headerOf(compiled).equals(content.subarray(0, length)) ? compiled : undefined;
  } finally {
    closeSync(descriptor);
  }
}

/** Keeps the compiled code, readable by its owner only. Without it, starts take longer. */
async function keepCompiled(file: string, script: Script): Promise<void> {
  try {
    const { replaceFiles } = await import('./files.js');
    const compiled = script.createCachedData();
    await replaceFiles([{ path: file, content: [headerOf(compiled), compiled], mode: 0o600 }]);
  } catch (error) {
    const reason = (error as Error).message;
    process.stderr.write(
      `mdserver: the next start takes longer, because compiled code cannot be kept: ${reason}\n`,
    );
  }
}

// Before the code is compiled: that counts for the flags of then.
setMemoryFlags();
const folder = unitStateFolder();
const kept = folder === undefined ? undefined : join(folder, 'compiled-code');
const cachedData = kept === undefined ? undefined : readCompiled(kept);
const script = new Script(readFileSync(codeFile, 'latin1'), {
  filename: codeFile,
  ...(cachedData && { cachedData }),
});
script.runInThisContext()(require, codeFile);
// One of another version of Node is rejected.
if (kept !== undefined && (cachedData === undefined || script.cachedDataRejected === true)) {
  setTimeout(() => void keepCompiled(kept, script), keepDelay).unref();
}
