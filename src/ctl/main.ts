#!/usr/bin/env node
import { writeError } from '../systemd.js';
import { printable, printableLines } from '../text.js';
import { readArguments } from './arguments.js';
import { CommandError, exitCodes } from './errors.js';
import { print } from './output.js';

// The reader of the output may stop early (head, less), and a terminal may close.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE' && error.code !== 'EIO') throw error;
  process.exit(exitCodes.failed);
});

// A function, since a bundle in CommonJS has no await outside of one.
async function main(): Promise<void> {
  try {
    const invocation = readArguments(process.argv.slice(2));
    if ('print' in invocation) {
      print(invocation.print);
    } else {
      const { command, operands, options } = invocation;
      process.exitCode = await command.run(operands, options);
    }
  } catch (error) {
    if (error instanceof CommandError) {
      writeError(3, `mdserverctl: ${printable(error.message)}\n`);
      process.exitCode = error.exitCode;
    } else {
      writeError(3, `mdserverctl: ${printableLines(String((error as Error).stack ?? error))}\n`);
      process.exitCode = exitCodes.failed;
    }
  }
}

void main();
