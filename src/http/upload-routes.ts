import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Boots } from '../boots/boots.js';
import { DomainXmlError, parseDomain } from '../instances/domain-xml.js';
import { recordFromInstance } from '../instances/instance.js';
import { NoAddressError } from '../instances/instances.js';
import { type Store, StoreError } from '../instances/store.js';
import type { Logger } from '../log.js';
import type { Metrics } from '../metrics.js';

/** A domain XML over this is refused; libvirt's own are some 10 KB. */
export const longestDomainXml = 1024 * 1024;

export interface UploadOptions {
  readonly store: Pick<Store, 'register'>;
  /** The libvirt network that counts. */
  readonly network: string;
  /** Why the request is none that may upload; undefined where it may. */
  readonly refusal: (request: FastifyRequest) => string | undefined;
  readonly boots: Boots;
  readonly metrics: Pick<Metrics, 'upload'>;
  readonly log: Logger;
}

/** The header in which our hook names libvirt's operation. */
const operationHeader = 'x-libvirt-operation';
const bootOperations = ['prepare', 'restore', 'reconnect', 'migrate', 'attach'] as const;

/** The status for what keeps a domain XML from being taken; undefined for any other error. */
export function domainErrorStatus(error: unknown): number | undefined {
  if (error instanceof DomainXmlError) return error.code === 'NO_INTERFACE' ? 422 : 400;
  if (error instanceof NoAddressError) return 503;
  return error instanceof StoreError ? 500 : undefined;
}

/**
 * `POST /instance-upload`: takes a libvirt domain XML from this host. 200 means that the instance
 * is on the disk and dnsmasq has been told. The body stays empty unless JSON is asked for, since
 * a hook of old prints it, and libvirt takes what a hook prints for the XML of a migration.
 */
export function uploadRoutes(app: FastifyInstance, options: UploadOptions): void {
  const { store, network, refusal, boots, metrics, log } = options;
  app.post('/instance-upload', {
    bodyLimit: longestDomainXml,
    // Before the body is read: nobody else may make us take a megabyte.
    onRequest: async (request, reply) => {
      const why = refusal(request);
      if (why === undefined) {
        // Fastify would refuse what is no media type ("xml"): any type or none is taken here.
        request.raw.headers['content-type'] = 'application/xml';
        return;
      }
      log.warn(`an upload from ${request.socket.remoteAddress} was refused: ${why}`);
      metrics.upload('401', 0);
      await reply.code(401).type('text/plain').send(`${why}\n`);
    },
    // What is not answered below: a body that is too long, a failure of our own.
    onError: async (_request, _reply, error) => {
      metrics.upload(String(error.statusCode ?? 500), 0);
    },
    handler: async (request, reply) => {
      const started = performance.now();
      try {
        const body = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0);
        const instance = await store.register(parseDomain(body, network));
        metrics.upload('200', (performance.now() - started) / 1000);
        const operation = bootOperations.find((word) => word === request.headers[operationHeader]);
        if (operation !== undefined) boots.begin(instance, operation);
        log.info(`${instance.name} (${instance.mac}) has the address ${instance.ipv4}`);
        if (!request.headers.accept?.includes('application/json')) return '';
        const record = JSON.stringify(recordFromInstance(instance), null, 4);
        return reply.type('application/json').send(`${record}\n`);
      } catch (error) {
        const status = domainErrorStatus(error);
        if (status === undefined) throw error;
        metrics.upload(String(status), 0);
        const { message } = error as Error;
        log[status === 422 ? 'debug' : 'warn'](`an upload was refused: ${message}`);
        return reply.code(status).type('text/plain').send(`${message}\n`);
      }
    },
  });
}
