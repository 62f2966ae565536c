import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { recordFromInstance } from '../instances/database-file.js';
import { JoinedWordsError, NoInterfaceError } from '../instances/domain.js';
import { settingProblems } from '../instances/settings.js';
import { datasourceOf } from '../instances/smbios.js';
import { jsonText } from '../text.js';
import {
  bootOperations,
  maxXmlBytes,
  takeDomain,
  type UploadParts,
  uploadErrorStatus,
} from '../uploads.js';
import { closeBehindBody } from './large-bodies.js';
import type { PeerLog } from './peer-log.js';

/** What the upload route depends on. */
export interface UploadOptions extends UploadParts {
  /** Why the request may not upload; undefined if it may. */
  readonly refusal: (request: FastifyRequest) => string | undefined | Promise<string | undefined>;
  readonly peerLog: PeerLog;
}

/** The header in which the hook names libvirt's operation. */
export const operationHeader = 'x-libvirt-operation';

/** What curl -d does to a file, and forms that it sends have no line breaks. */
const curlHint = ' (curl -d removes newlines and so joins words; --data-binary keeps them)';

/** Why an upload was refused. */
function reasonOf(error: Error, { raw }: FastifyRequest): string {
  const isForm = raw.headers['content-type']?.startsWith('application/x-www-form-urlencoded');
  return isForm && error instanceof JoinedWordsError ? error.message + curlHint : error.message;
}

/** Makes a route take a body of any content type, even one that Fastify does not know for one ("xml"). */
export async function takeAnyContentType(request: FastifyRequest): Promise<void> {
  request.headers = { 'content-type': 'application/xml' };
}

/**
 * Answers that what libvirt tells is refused, with the reason. Throws the error again if the fault is
 * not known.
 */
export function refuseUpload(
  { log, peerLog }: Pick<UploadOptions, 'log' | 'peerLog'>,
  request: FastifyRequest,
  reply: FastifyReply,
  error: unknown,
): FastifyReply {
  const status = uploadErrorStatus(error);
  if (status === undefined) throw error;
  const message = reasonOf(error as Error, request);
  if (error instanceof NoInterfaceError) log.debug(`refused an upload: ${message}`);
  else peerLog('warn', request.socket.remoteAddress, () => `refused an upload: ${message}`);
  return reply.code(status).type('text/plain').send(`${message}\n`);
}

/**
 * `POST /instance-upload`: registers the domain of a libvirt domain XML. 200 means that the instance
 * is on disk and dnsmasq has been notified. The body is empty unless the client accepts JSON: old hooks
 * print it, and during a migration libvirt uses a hook's output as the domain's XML.
 */
export function uploadRoutes(app: FastifyInstance, options: UploadOptions): void {
  const { refusal, metrics, peerLog } = options;
  app.post('/instance-upload', {
    bodyLimit: maxXmlBytes,
    // Before the body is read, so that nobody else can make mdserver read a megabyte.
    onRequest: async (request, reply) => {
      closeBehindBody(request);
      await takeAnyContentType(request);
      const reason = await refusal(request);
      if (reason === undefined) return;
      const { remoteAddress } = request.socket;
      peerLog('warn', remoteAddress, () => `refused an upload from ${remoteAddress}: ${reason}`);
      metrics.upload('401', 0);
      await reply.code(401).type('text/plain').send(`${reason}\n`);
    },
    // Errors that the handler does not answer: a body that is too long, an internal error.
    onError: async (_request, _reply, error) => {
      metrics.upload(String(error.statusCode ?? 500), 0);
    },
    handler: async (request, reply) => {
      const xml = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0);
      const operation = bootOperations.find((word) => word === request.headers[operationHeader]);
      try {
        const instance = await takeDomain(options, { xml, operation });
        if (!request.headers.accept?.includes('application/json')) return '';
        const datasource = datasourceOf(instance) ?? null;
        const warnings = settingProblems(instance, options.config().publicKeys);
        const answer = { ...recordFromInstance(instance), datasource, warnings };
        return reply.type('application/json').send(`${jsonText(answer, 4)}\n`);
      } catch (error) {
        return refuseUpload(options, request, reply, error);
      }
    },
  });
}
