import type { Command } from '../command.js';
import { check } from './check.js';
import { config } from './config.js';
import { convert } from './convert.js';
import { explain } from './explain.js';
import { integrate } from './integrate.js';
import { knownHosts } from './known-hosts.js';
import { list } from './list.js';
import { migrate } from './migrate.js';
import { password } from './password.js';
import { remove } from './remove.js';
import { render } from './render.js';
import { show } from './show.js';
import { sync } from './sync.js';
import { upload } from './upload.js';
import { wait } from './wait.js';

/** Every command, in the order of `--help`, mdserverctl(1) and the completion. */
export const commands: readonly Command[] = [
  list,
  show,
  remove,
  upload,
  sync,
  render,
  explain,
  check,
  config,
  integrate,
  migrate,
  convert,
  knownHosts,
  password,
  wait,
];
