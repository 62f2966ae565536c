import { Agent, request } from 'node:http';
import type { Health } from '../control/api.js';
import { CommandError, exitCodes } from './errors.js';

/** A client of mdserver's control socket. control/api.ts describes the paths and the answers. */
export interface ControlClient {
  /** Returns the JSON of the answer. Throws CommandError, with the reason from mdserver. */
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

/** Milliseconds: enough to write the database to a slow disk. */
const answerTimeout = 60_000;
/** `sync` and `known-hosts` send several requests at a time. */
const maxConnections = 8;

const notRunning = (path: string) =>
  `mdserver is not running (no answer on ${path}): systemctl start mdserver`;

const connectionErrors = new Map([
  ['ENOENT', notRunning],
  ['ECONNREFUSED', notRunning],
  [
    'EACCES',
    (path: string) => `only root and the group mdserver may use ${path}: run this with sudo`,
  ],
]);

function unreachable(path: string, error: NodeJS.ErrnoException): CommandError {
  const message = connectionErrors.get(error.code ?? '')?.(path) ?? `${path}: ${error.message}`;
  return new CommandError(message, exitCodes.unreachable);
}

/** The reason in an error answer: `{"error": …}` from mdserver's routes, or Fastify's own text. */
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

/** A client for a socket; it connects at the first request. */
export function controlClient(socketPath: string): ControlClient {
  const agent = new Agent({ keepAlive: true, maxSockets: maxConnections });

  function send<T>(method: string, path: string, body?: Buffer): Promise<T> {
    return new Promise((resolve, reject) => {
      const sent = request(
        {
          socketPath,
          agent,
          method,
          path,
          timeout: answerTimeout,
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
              // Not checked: mdserver and mdserverctl are of the same release.
              resolve(JSON.parse(text) as T);
            } catch {
              const message = `${socketPath} answered ${path} with something other than JSON: is it mdserver's socket?`;
              reject(new CommandError(message, exitCodes.failed));
            }
          });
        },
      );
      sent.on('timeout', () => {
        sent.destroy(new Error(`no answer after ${answerTimeout / 1000} seconds`));
      });
      sent.on('error', (error) => reject(unreachable(socketPath, error)));
      sent.end(body);
    });
  }

  return {
    get: (path) => send('GET', path),
    remove: (path) => send('DELETE', path),
    post: (path, body) => send('POST', path, body),
  };
}

/** The path of an instance on the control socket, with its name escaped. */
export function instancePath(name: string, ...more: string[]): string {
  return ['/instances', ...[name, ...more].map(encodeURIComponent)].join('/');
}

/** mdserver's health. A degraded one answers with status 503 and the same JSON. */
export async function fetchHealth(control: ControlClient): Promise<Health> {
  try {
    return await control.get<Health>('/health');
  } catch (error) {
    if (error instanceof AnswerError && error.status === 503) return JSON.parse(error.text);
    throw error;
  }
}
