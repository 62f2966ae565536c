import type { Socket } from 'node:net';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';

import fastify = require('fastify');

import type { Boots } from '../boots/boots.js';
import type { Config } from '../config/options.js';
import type { Health } from '../health.js';
import type { Registry } from '../instances/registry.js';
import type { Logger } from '../log.js';
import type { Metrics } from '../metrics.js';
import type { NeighbourMac } from '../neighbours.js';
import { peerAddress } from '../network.js';
import { peerUid } from '../peers.js';
import { quoted, truncate } from '../text.js';
import type { Userdata } from '../userdata/userdata.js';
import { internalError, isThisHost, notFound, sendAnswer } from './caller.js';
import { logTooLarge, tooLarge } from './large-bodies.js';
import { metadataRoutes } from './metadata-routes.js';
import { monitoringRoutes } from './monitoring-routes.js';
import { maxLogged, type PeerLog } from './peer-log.js';
import { phoneHomeRoutes } from './phone-home-routes.js';
import { uploadRoutes } from './upload-routes.js';
import { webPageRefusal } from './web-pages.js';

/** What the app is built from. */
export interface AppParts {
  /** The configuration in force; a reload replaces it. */
  readonly config: () => Config;
  readonly registry: Registry;
  readonly userdata: Userdata;
  readonly tokenKey: () => Buffer;
  readonly boots: Boots;
  readonly metrics: Metrics;
  readonly neighbourMac: NeighbourMac;
  /** The state of the daemon and its surroundings. */
  readonly health: () => Health;
  readonly log: Logger;
  /** For lines that a peer can cause. */
  readonly peerLog: PeerLog;
}

/** Milliseconds that a client may take for its headers. */
export const headersTimeout = 10_000;
/** Milliseconds that it may take for the whole request. */
export const requestTimeout = 30_000;

/**
 * Bytes of a body where a route does not set its own limit: no request for metadata has one, and what
 * a guest sends is kept in memory until it is complete.
 */
const bodyLimit = 1024;

function refuseSchemas(): never {
  throw new Error('mdserver uses no schemas: check the values in the route');
}

/** Keeps Fastify from loading compilers of schemas, which took a third of the time of a start. */
export const noSchemas = {
  compilersFactory: { buildValidator: refuseSchemas, buildSerializer: refuseSchemas },
};

/** The path of a request-target in absolute form, which every server must accept (RFC 9112 3.2.2). */
function originForm(url: string): string {
  return url.replace(/^https?:\/\/[^/?#]*\/?/i, '/');
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Why the request was refused before its route; undefined if it was not. */
    refusedBecause: string | undefined;
  }
}

/** Refuses the requests of web pages, whatever they ask for. */
function refuseWebPages(app: FastifyInstance, config: () => Config) {
  app.decorateRequest('refusedBecause', undefined);
  app.addHook('onRequest', (request, reply, done) => {
    const { rawHeaders, socket } = request.raw;
    const { listen_address, host_names } = config().mdserver;
    const isOwn = (host: string) =>
      listen_address.some((own) => own === host) ||
      host_names?.includes(host) === true ||
      host === peerAddress(socket.localAddress);
    const refusal = webPageRefusal({ rawHeaders, target: request.originalUrl }, isOwn);
    if (refusal === undefined) {
      done();
      return;
    }
    request.refusedBecause = refusal.reason;
    sendAnswer(reply, { status: refusal.status, body: `${refusal.reason}\n` });
  });
}

/** Why a process of this host may not upload over TCP; undefined if it may. */
async function uploadRefusal(
  { upload_over_tcp, upload_from }: Config['mdserver'],
  socket: Socket,
): Promise<string | undefined> {
  if (!upload_over_tcp) {
    return 'uploads are accepted on the control socket only (mdserver.upload_over_tcp = no)';
  }
  if (upload_from === 'host') return undefined;
  const uid = await peerUid(socket);
  if (uid === 0 || (uid !== undefined && uid === process.getuid?.())) return undefined;
  const who = uid === undefined ? 'an unknown user' : `uid ${uid}`;
  return `uploads over TCP are accepted from root only, not from ${who}: use sudo curl, or mdserverctl upload (as root or in the group mdserver), or set mdserver.upload_from = host`;
}

/**
 * The line of the request log: who asked for what, and the status of the answer. A user agent and a
 * name with a blank or a quote are in quotes, so that they cannot pass for other fields.
 */
function requestLine({ raw, guestRecord }: FastifyRequest, { statusCode }: FastifyReply): string {
  const { socket, method, url = '', headers } = raw;
  const caller = guestRecord?.caller;
  const name = typeof caller === 'object' ? caller.name : '-';
  const agent = headers['user-agent'];
  return [
    socket.remoteAddress,
    /[\s"]/.test(name) ? quoted(name) : name,
    method,
    truncate(url, maxLogged),
    statusCode,
    agent === undefined ? '-' : quoted(agent, maxLogged),
  ].join(' ');
}

/** Records a request in the log and the metrics, and an instance's request in its boot record. */
function record(
  { boots, metrics, peerLog }: AppParts,
  request: FastifyRequest,
  reply: FastifyReply,
): void {
  const { guestRecord, url, headers, socket } = request;
  const { statusCode: status } = reply;
  const line = () => requestLine(request, reply);
  if (request.refusedBecause !== undefined) {
    peerLog('warn', socket.remoteAddress, () => `${line()}: ${request.refusedBecause}`);
    return;
  }
  if (guestRecord?.caller === 'stranger') {
    const address = peerAddress(socket.remoteAddress) ?? '';
    const whose = `no instance has this address (whose is it? mdserverctl explain ${address})`;
    peerLog('warn', socket.remoteAddress, () => `${line()}: ${whose}`);
    metrics.unknownCaller();
    boots.refused(address);
    return;
  }
  const failedFile = guestRecord?.failedFile;
  const about = failedFile === undefined ? line : () => `${line()}: cannot render ${failedFile}`;
  peerLog('info', socket.remoteAddress, about);
  if (guestRecord === undefined || guestRecord.caller === 'impostor') return;
  const { caller, kind, token, userdata } = guestRecord;
  metrics.request(kind, status);
  if (kind === 'phone-home') {
    if (status === 200) boots.phonedHome(caller);
    return;
  }
  if (kind === 'ec2' && token === undefined) metrics.requestWithoutToken();
  const userAgent = headers['user-agent'];
  boots.request(caller, {
    path: url,
    status,
    userAgent,
    datasource: kind,
    token,
    userdata,
    failedFile,
  });
}

/** The app that guests talk to over HTTP. It does not listen yet. */
export function buildApp(parts: AppParts): FastifyInstance {
  const { config, registry, peerLog } = parts;
  const app = fastify({
    schemaController: noSchemas,
    bodyLimit,
    // Not Fastify's own logger, which makes a child for each request and waits for the end of each
    // response: `record` writes the one line of a request.
    routerOptions: {
      ignoreTrailingSlash: true,
      ignoreDuplicateSlashes: true,
      maxParamLength: 65536,
    },
    rewriteUrl: ({ url = '/' }) => (url.startsWith('/') ? url : originForm(url)),
    // Fastify's own error bodies are JSON.
    frameworkErrors: (error, _request, reply) => {
      void (reply as FastifyReply)
        .code(error.statusCode ?? 400)
        .type('text/plain')
        .send('bad request\n');
    },
  });

  const isLocal = (remote: string | undefined) => isThisHost(config().mdserver, remote);

  // curl and old hooks send a domain XML under any content type.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => {
    done(null, body);
  });

  app.setErrorHandler((error: FastifyError, request, reply) => {
    const status = error.statusCode ?? 500;
    if (status >= 500) {
      const failed = () => `${request.method} ${truncate(request.url, maxLogged)} failed:`;
      peerLog('error', request.socket.remoteAddress, failed, error);
      return sendAnswer(reply, internalError);
    }
    return sendAnswer(reply, { status, body: `${tooLarge(error, request) ?? error.message}\n` });
  });
  app.addHook('onError', async (request, _reply, error) => logTooLarge(peerLog, request, error));
  app.setNotFoundHandler((_request, reply) => sendAnswer(reply, notFound));
  app.decorateRequest('guestRecord', undefined);
  app.addHook('onSend', (request, reply, _payload, done) => {
    record(parts, request, reply);
    done();
  });

  const callerOptions = {
    instances: () => registry.instances,
    checkMac: () => config().mdserver.check_mac,
    neighbourMac: parts.neighbourMac,
    peerLog,
  };
  refuseWebPages(app, config);
  metadataRoutes(app, { ...parts, ...callerOptions, isThisHost: isLocal });
  phoneHomeRoutes(app, registry, callerOptions);
  uploadRoutes(app, {
    ...parts,
    refusal: ({ socket }) => {
      if (!isLocal(socket.remoteAddress)) return 'uploads are accepted from this host only';
      return uploadRefusal(config().mdserver, socket);
    },
  });
  monitoringRoutes(app, parts, ({ socket }) => {
    return config().mdserver.metrics && isLocal(socket.remoteAddress);
  });
  return app;
}
