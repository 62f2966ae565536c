import { bashCompletion } from './completion.js';
import { exampleConfig } from './example-config.js';
import { configManual, controlManual, daemonManual } from './manual.js';

/** The files that are generated from the tables in the code, by their path in the repository. */
export const generatedFiles: ReadonlyMap<string, () => string> = new Map([
  ['etc/mdserver/mdserver.conf', exampleConfig],
  ['etc/man/mdserver.8', daemonManual],
  ['etc/man/mdserver.conf.5', configManual],
  ['etc/man/mdserverctl.1', controlManual],
  ['etc/bash-completion/mdserverctl', bashCompletion],
]);
