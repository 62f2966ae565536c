import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type Scope, temporaryFolder } from './cleanup.js';
import { startWithControl } from './control-socket.js';
import { type Answer, ask, type Daemon, type RequestOptions, type Start } from './daemon.js';
import type { Host } from './netns.js';
import { hostConfiguration, loopbackConfiguration, type Settings } from './samples.js';

/** What there is when mdserver starts. In texts, `@DIR@` stands for the folder of all its state. */
export interface Setup extends Settings {
  /** The length of the network's prefix, on loopback. */
  readonly prefix?: number;
  /** The database. */
  readonly records?: readonly object[];
  /** What is kept of the instances beside the database, by their uuids. */
  readonly details?: object;
  /** Files of the user-data folder. */
  readonly userdata?: Readonly<Record<string, string | Buffer>>;
  /** Where the control socket is, if not in the run folder. */
  readonly socket?: string;
  /** Its folder, if the test has made it: `records`, `details` and `userdata` do not count then. */
  readonly folder?: string;
  readonly start?: Start;
}

/** An mdserver that runs, with all of its state in a folder of its own. */
export interface Site {
  readonly daemon: Daemon;
  readonly folder: string;
  readonly database: string;
  readonly socket: string;
  /** A request on the control socket. */
  readonly ask: (path: string, options?: RequestOptions) => Promise<Answer>;
  /** The same, with the JSON of the answer. */
  readonly json: (
    path: string,
    options?: RequestOptions,
  ) => Promise<{ status: number; body: unknown }>;
  /** Stops it in order, and starts it with the same state: with these lines of `[mdserver]`, if any. */
  readonly restart: (mdserver?: string) => Promise<Site>;
}

/**
 * Starts mdserver on a loopback address, or on 169.254.169.254 of a host of virtual machines, and
 * waits until it serves guests and its control socket. At the end of the scope it is killed.
 */
export async function startSite(
  scope: Scope,
  where: string | Host,
  setup: Setup = {},
): Promise<Site> {
  const { records, details, userdata = {}, folder: own, ...others } = setup;
  if (own !== undefined) return startIn(own, scope, where, others);
  const folder = temporaryFolder(scope, {
    ...(records && { 'db.json': JSON.stringify(records) }),
    ...(details && { 'db.details.json': JSON.stringify(details) }),
    'userdata/': '',
    ...Object.fromEntries(
      Object.entries(userdata).map(([name, content]) => [`userdata/${name}`, content]),
    ),
  });
  return startIn(folder, scope, where, others);
}

async function startIn(
  folder: string,
  scope: Scope,
  where: string | Host,
  setup: Setup,
): Promise<Site> {
  const { socket = join(folder, 'run', 'control.sock'), mdserver = '', prefix = 16 } = setup;
  const settings = {
    ...setup,
    mdserver: setup.socket === undefined ? mdserver : `control_socket = ${socket}\n${mdserver}`,
  };
  const isLoopback = typeof where === 'string';
  const configuration = isLoopback
    ? loopbackConfiguration(where, folder, { ...settings, prefix })
    : hostConfiguration(folder, settings);
  const daemon = await startWithControl(
    scope,
    folder,
    configuration.replaceAll('@DIR@', folder),
    isLoopback ? where : '169.254.169.254',
    setup.start ?? (isLoopback ? undefined : where.start),
  );
  const askControl = (path: string, options?: RequestOptions) =>
    ask({ socketPath: socket }, path, options);
  return {
    daemon,
    folder,
    database: join(folder, 'db.json'),
    socket,
    ask: askControl,
    json: async (path, options) => (await askControl(path, options)).json(),
    restart: async (lines = mdserver) => {
      assert.equal(await daemon.stop(), 0);
      return startIn(folder, scope, where, { ...setup, mdserver: lines });
    },
  };
}
