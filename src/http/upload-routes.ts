import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Boots } from '../boots/boots.js';
import { recordFromInstance } from '../instances/database-file.js';
import { DomainXmlError } from '../instances/domain.js';
import { describeInstance } from '../instances/instance.js';
import { instanceOf, NoAddressError } from '../instances/instances.js';
import { type Registry, StoreError } from '../instances/registry.js';
import type { Logger } from '../log.js';
import type { Metrics } from '../metrics.js';
import { jsonText } from '../text.js';
import type { PeerLog } from './peer-log.js';

/** The largest domain XML; libvirt's own have about 10 KB. */
export const maxDomainXmlBytes = 1024 * 1024;

/** What the upload route depends on. */
export interface UploadOptions {
  readonly registry: Pick<Registry, 'instances' | 'register'>;
  /** The libvirt network whose interface identifies an instance. */
  readonly network: string;
  /** Why the request may not upload; undefined if it may. */
  readonly refusal: (request: FastifyRequest) => string | undefined | Promise<string | undefined>;
  readonly boots: Boots;
  readonly metrics: Pick<Metrics, 'upload'>;
  readonly log: Logger;
  readonly peerLog: PeerLog;
}

/** The header in which the hook names libvirt's operation. */
const operationHeader = 'x-libvirt-operation';
const bootOperations = ['prepare', 'restore', 'reconnect', 'migrate', 'attach'] as const;

/** What a domain keeps as long as it runs. */
const identity = ['name', 'uuid', 'mac'] as const;

/** The status for an error that refuses a domain XML; undefined for any other error. */
export function domainErrorStatus(error: unknown): number | undefined {
  if (error instanceof DomainXmlError) return error.code === 'NO_INTERFACE' ? 422 : 400;
  if (error instanceof NoAddressError) return 503;
  return error instanceof StoreError ? 500 : undefined;
}

/**
 * `POST /instance-upload`: registers the domain of a libvirt domain XML. 200 means that the instance
 * is on disk and dnsmasq has been notified. The body is empty unless the client accepts JSON: old hooks
 * print it, and during a migration libvirt uses a hook's output as the domain's XML.
 */
export function uploadRoutes(app: FastifyInstance, options: UploadOptions): void {
  const { registry, network, refusal, boots, metrics, log, peerLog } = options;
  app.post('/instance-upload', {
    bodyLimit: maxDomainXmlBytes,
    // Before the body is read, so that nobody else can make mdserver read a megabyte.
    onRequest: async (request, reply) => {
      const reason = await refusal(request);
      if (reason === undefined) {
        // Fastify refuses a type that is not a media type ("xml"); any type or none is accepted here.
        request.raw.headers['content-type'] = 'application/xml';
        return;
      }
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
      const started = performance.now();
      try {
        const body = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0);
        const { parseDomain } = await import('../instances/domain-xml.js');
        const domain = parseDomain(body, network);
        const before = instanceOf(registry.instances, domain);
        // To be asked before: the boots of a uuid that goes are forgotten.
        const runs = before !== undefined && boots.of(before)[0]?.ended === null;
        const instance = await registry.register(domain);
        if (runs && identity.some((field) => before[field] !== instance[field])) {
          log.warn(
            `an upload changed an instance whose guest runs: ${describeInstance(before)} is now ${describeInstance(instance)}`,
          );
        }
        metrics.upload('200', (performance.now() - started) / 1000);
        const operation = bootOperations.find((word) => word === request.headers[operationHeader]);
        if (operation !== undefined) boots.begin(instance, operation);
        log.info(`${instance.name} (${instance.mac}) has the address ${instance.ipv4}`);
        if (!request.headers.accept?.includes('application/json')) return '';
        const record = jsonText(recordFromInstance(instance), 4);
        return reply.type('application/json').send(`${record}\n`);
      } catch (error) {
        const status = domainErrorStatus(error);
        if (status === undefined) throw error;
        metrics.upload(String(status), 0);
        const { message } = error as Error;
        if (status === 422) log.debug(`refused an upload: ${message}`);
        else peerLog('warn', request.socket.remoteAddress, () => `refused an upload: ${message}`);
        return reply.code(status).type('text/plain').send(`${message}\n`);
      }
    },
  });
}
