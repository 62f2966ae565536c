import { Agent, request } from 'node:http';
import type { Health } from '../control/api.js';
import { exitCodes } from './commands.js';
import { CommandError } from './failure.js';

/** The control socket of the mdserver that runs. What it answers is described in control/api.ts. */
export interface Control {
  /** The JSON of the answer. Throws CommandError, with the reason that the socket gives. */
  readonly get: <T>(path: string) => Promise<T>;
  readonly remove: <T>(path: string) => Promise<T>;
  readonly post: <T>(path: string, body: Buffer) => Promise<T>;
}

/** An answer with an error status. */
export class AnswerError extends CommandError {
  constructor(
    message: string,
    readonly status: number,
    /** The answer's text. */
    readonly text: string,
  ) {
    super(message, status === 404 ? exitCodes.unknownInstance : exitCodes.failed);
  }
}

/** In milliseconds; a database round on a slow disk is done by then. */
const answerLimit = 60_000;
/** Several at a time, as `sync` and `known-hosts` ask for many. */
const mostConnections = 8;

const mends = new Map([
  ['ENOENT', (path: string) => `mdserver does not run (${path}): systemctl start mdserver`],
  ['ECONNREFUSED', (path: string) => `mdserver does not run (${path}): systemctl start mdserver`],
  [
    'EACCES',
    (path: string) => `only root and the group mdserver may use ${path}: run this with sudo`,
  ],
]);

function unreachable(path: string, error: NodeJS.ErrnoException): CommandError {
  const message = mends.get(error.code ?? '')?.(path) ?? `${path}: ${error.message}`;
  return new CommandError(message, exitCodes.unreachable);
}

/** The one line of an error: `{"error": …}`, or a text from before the routes. */
function reasonOf(text: string, status: number): string {
  try {
    const answer: unknown = JSON.parse(text);
    if (typeof answer === 'object' && answer !== null) {
      // Fastify's own answers have the reason in "message".
      if ('message' in answer) return String(answer.message);
      if ('error' in answer) return String(answer.error);
    }
  } catch {
    // Not JSON: the text is the reason.
  }
  return text.trim().split('\n')[0] || `mdserver answered with status ${status}`;
}

/** Opens nothing yet: the first question does. */
export function controlAt(socketPath: string): Control {
  const agent = new Agent({ keepAlive: true, maxSockets: mostConnections });

  function ask<T>(method: string, path: string, body?: Buffer): Promise<T> {
    return new Promise((resolve, reject) => {
      const asked = request(
        {
          socketPath,
          agent,
          method,
          path,
          timeout: answerLimit,
          headers: {
            accept: 'application/json',
            ...(body && { 'content-type': 'application/xml', 'content-length': body.length }),
          },
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('error', (error) => reject(unreachable(socketPath, error)));
          response.on('end', () => {
            const text = Buffer.concat(chunks).toString();
            const status = response.statusCode ?? 0;
            if (status >= 400) {
              reject(new AnswerError(reasonOf(text, status), status, text));
              return;
            }
            try {
              // From the same release: what it holds is checked where it is made.
              resolve(JSON.parse(text) as T);
            } catch {
              const message = `${socketPath} answered ${path} with something else than JSON: is it mdserver's?`;
              reject(new CommandError(message, exitCodes.failed));
            }
          });
        },
      );
      asked.on('timeout', () => {
        asked.destroy(new Error(`no answer after ${answerLimit / 1000} seconds`));
      });
      asked.on('error', (error) => reject(unreachable(socketPath, error)));
      asked.end(body);
    });
  }

  return {
    get: (path) => ask('GET', path),
    remove: (path) => ask('DELETE', path),
    post: (path, body) => ask('POST', path, body),
  };
}

/** The path of an instance, whatever characters its name has. */
export function instancePath(name: string, ...more: string[]): string {
  return ['/instances', ...[name, ...more].map(encodeURIComponent)].join('/');
}

/** How the daemon is. A degraded one answers with an error status, and the same JSON. */
export async function healthOf(control: Control): Promise<Health> {
  try {
    return await control.get<Health>('/health');
  } catch (error) {
    if (error instanceof AnswerError && error.status === 503) return JSON.parse(error.text);
    throw error;
  }
}
