import { isUtf8 } from 'node:buffer';
import { randomBytes, randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import type { FastifyBaseLogger, FastifyError, FastifyInstance, FastifyReply } from 'fastify';

import fastify = require('fastify');

import { type AppParts, headersTimeout, noSchemas, requestTimeout } from '../http/app.js';
import { closeBehindBody, logTooLarge, tooLarge } from '../http/large-bodies.js';
import { monitoringRoutes } from '../http/monitoring-routes.js';
import { maxLogged } from '../http/peer-log.js';
import {
  operationHeader,
  refuseUpload,
  takeAnyContentType,
  uploadRoutes,
} from '../http/upload-routes.js';
import { dnsNames } from '../instances/host-names.js';
import { describeInstance, type Instance } from '../instances/instance.js';
import {
  type AddressPlan,
  type Instances,
  type NamedMachine,
  NoAddressError,
  register,
} from '../instances/instances.js';
import { keysOf, settingProblems } from '../instances/settings.js';
import { datasourceOf } from '../instances/smbios.js';
import { parseUuid, type Uuid } from '../instances/uuid.js';
import { type MetadataContext, metadataContext } from '../metadata/context.js';
import { ec2 } from '../metadata/ec2.js';
import { nocloud } from '../metadata/nocloud.js';
import { bodyOf, type Leaf, leaves, lookUp } from '../metadata/tree.js';
import { instanceId, localHostname } from '../metadata/values.js';
import { type Mac, parseIp } from '../network.js';
import { truncate } from '../text.js';
import { shortTurns } from '../turns.js';
import { maxXmlBytes, takePort, uploadErrorStatus } from '../uploads.js';
import { UserdataError } from '../userdata/find.js';
import { TemplateError } from '../userdata/template.js';
import type { Userdata } from '../userdata/userdata.js';
import {
  type AddressReport,
  type DocumentName,
  documentNames,
  type GuestEvent,
  type InstanceDetails,
  type InstanceSummary,
  type RenderedDocument,
} from './api.js';
import type { Spool } from './spool.js';

/** What the control socket's app is built from. */
export interface ControlParts extends AppParts {
  readonly plan: AddressPlan;
  readonly spool: Spool;
}

/** No instance has the name. */
class UnknownInstanceError extends Error {}

/** The request is none that its route knows; the message says what it expects. */
class BadRequestError extends Error {
  readonly statusCode = 400;
}

function statusOf(error: FastifyError): number {
  if (error instanceof UnknownInstanceError) return 404;
  if (error instanceof TemplateError || error instanceof UserdataError) return 422;
  return uploadErrorStatus(error) ?? error.statusCode ?? 500;
}

/** The document of this name. Throws BadRequestError. */
function documentOf(name: string): DocumentName {
  const known = documentNames.find((document) => document === name);
  if (known !== undefined) return known;
  throw new BadRequestError(`there is no document ${name}, only ${documentNames.join(', ')}`);
}

/** The event that a body in JSON reports. Throws BadRequestError. */
function eventOf(body: unknown): GuestEvent {
  const { kind, name, uuid, failed } = (body ?? {}) as {
    readonly [key in keyof GuestEvent]?: unknown;
  };
  if (kind === 'released' && typeof name === 'string') {
    return {
      kind,
      name,
      uuid: typeof uuid === 'string' ? uuid : undefined,
      failed: failed === true,
    };
  }
  throw new BadRequestError('expected JSON such as {"kind": "released", "name": "web1"}');
}

/** Whether the caller says that the guest of an instance does not run. Throws BadRequestError. */
function isGuestGone(guest: unknown): boolean {
  if (guest === undefined || guest === 'gone') return guest === 'gone';
  throw new BadRequestError('guest can only be "gone"');
}

/** In place of what libvirt makes for a domain whose XML has none. */
function madeUpIdentity() {
  const mac = `52:54:00${randomBytes(3).toString('hex').replace(/../g, ':$&')}`;
  return { uuid: randomUUID() as Uuid, mac: mac as Mac };
}

/** libvirt has released a machine: it is gone, or could not be started. */
async function release(
  { registry, boots, log }: ControlParts,
  machine: NamedMachine,
  failed: boolean,
): Promise<void> {
  // The hook reports every guest, including those that mdserver does not know.
  const instance = instanceOfMachine(registry.instances, machine);
  const started = instance && boots.release(instance, failed);
  await registry.machineGone(machine);
  // Only if the upload that began the boot made the record.
  if (!failed || started === undefined || started !== instance?.firstSeen) return;
  await registry.remove(instance.name, true);
  log.info(`removed ${describeInstance(instance)} again: libvirt could not start it`);
}

/** The instance that a machine is: another one may have its name by now. */
function instanceOfMachine({ byUuid, byName }: Instances, { name, uuid }: NamedMachine) {
  const known = uuid && byUuid.get(uuid);
  if (known !== undefined) return known;
  const named = byName.get(name);
  return uuid === undefined || named?.uuid === undefined ? named : undefined;
}

/** Characters of a long answer that are made at a time. */
const pieceLength = 32 * 1024;

/** Milliseconds that requests in flight get when the daemon stops, as on TCP. */
const closeTimeout = 5000;

type NameParams = { readonly name: string };
type DocumentParams = { readonly document: string };

/** The app of the control socket (see api.ts). Whoever can open the socket may use all of it. */
export function buildControl(parts: ControlParts): FastifyInstance {
  const { registry, boots, config, log, peerLog, plan, spool } = parts;
  const source = { ...parts, instances: () => registry.instances };
  const app = fastify({
    schemaController: noSchemas,
    logController: new fastify.LogController({ disableRequestLogging: true }),
    childLoggerFactory: () => log as FastifyBaseLogger,
    bodyLimit: maxXmlBytes,
    requestTimeout,
    http: { headersTimeout, connectionsCheckingInterval: 5000 },
    // A name may have 255 bytes, each of them three characters in a URL.
    routerOptions: { maxParamLength: 65536 },
    frameworkErrors: (error, _request, reply) => {
      void (reply as FastifyReply).code(error.statusCode ?? 400).send({ error: error.message });
    },
  });
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => {
    done(null, body);
  });
  app.addHook('onRequest', async (request) => closeBehindBody(request));
  app.addHook('onError', async (request, _reply, error) => logTooLarge(peerLog, request, error));
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const status = statusOf(error);
    if (status >= 500 && !(error instanceof NoAddressError)) {
      const what = () =>
        `${request.method} ${truncate(request.url, maxLogged)} on the control socket failed:`;
      peerLog('error', undefined, what, error);
    }
    const reason = tooLarge(error, request) ?? error.message.split('\n')[0];
    return reply.code(status).send({ error: reason });
  });
  app.setNotFoundHandler((request, reply) => {
    return reply.code(404).send({ error: `unknown request: ${request.method} ${request.url}` });
  });

  let closing = false;
  app.addHook('preClose', (done) => {
    closing = true;
    // Fastify waits for clients that keep their connection open or never finish their request.
    setTimeout(() => app.server.closeAllConnections(), closeTimeout).unref();
    done();
  });
  app.addHook('onSend', (_request, reply, _payload, done) => {
    if (closing) reply.header('connection', 'close');
    done();
  });

  const unknown = (name: string) => new UnknownInstanceError(`there is no instance ${name}`);

  function find(name: string): Instance {
    const instance = registry.instances.byName.get(name);
    if (instance === undefined) throw unknown(name);
    return instance;
  }

  function summary(instance: Instance): InstanceSummary {
    const context = metadataContext(source, instance, 'latest');
    const [boot] = boots.of(instance);
    return {
      name: instance.name,
      uuid: instance.uuid ?? null,
      mac: instance.mac ?? null,
      ipv4: instance.ipv4 ?? null,
      ipv6: instance.ipv6 ?? null,
      location: instance.location ?? null,
      hostname: localHostname(context),
      metadata: instance.metadata,
      first_seen: instance.firstSeen ?? null,
      last_update: instance.lastUpdate ?? null,
      last_boot:
        boot === undefined
          ? null
          : { started: boot.started, ended: boot.ended, outcome: boot.outcome },
      left_network: instance.details.leftNetwork ?? null,
      datasource: datasourceOf(instance) ?? null,
    };
  }

  function details(instance: Instance): InstanceDetails {
    const context = metadataContext(source, instance, 'latest');
    const { vcpus, memoryKib, architecture } = instance.details.hardware;
    const { publicKeys } = config();
    return {
      ...summary(instance),
      public_keys: keysOf(instance, publicKeys).map(({ name }) => name),
      warnings: settingProblems(instance, publicKeys),
      no_userdata: parts.userdata.whyNone(instance)?.reason ?? null,
      hardware: {
        vcpus: vcpus ?? null,
        memory_kib: memoryKib ?? null,
        architecture: architecture ?? null,
      },
      smbios: instance.details.smbios ?? null,
      instance_id: instanceId(context),
      dns_names: dnsNames(config().dnsmasq, context.hostName()),
      boots: boots.of(instance),
      host_keys: instance.details.hostKeys,
      password: instance.details.password ?? null,
    };
  }

  app.get('/instances', (_request, reply) => {
    const pieces = jsonList(registry.instances.byName.values(), summary);
    return reply.type('application/json').send(Readable.from(pieces, { objectMode: false }));
  });

  app.get<{ Params: NameParams }>('/instances/:name', (request) => {
    return details(find(request.params.name));
  });

  type Removal = { Params: NameParams; Querystring: { readonly guest?: unknown } };
  app.delete<Removal>('/instances/:name', async (request) => {
    const before = summary(find(request.params.name));
    const gone = await registry.remove(before.name, isGuestGone(request.query.guest));
    if (gone === undefined) throw unknown(before.name);
    log.info(`removed ${before.name} (${before.mac}, ${before.ipv4})`);
    return before;
  });

  app.get<{ Params: NameParams & DocumentParams }>('/instances/:name/:document', ({ params }) => {
    const document = documentOf(params.document);
    return renderDocument(
      parts.userdata,
      document,
      metadataContext(source, find(params.name), 'latest'),
    );
  });

  app.post<{ Params: DocumentParams }>(
    '/documents/:document',
    { onRequest: takeAnyContentType },
    async ({ params, body }) => {
      const document = documentOf(params.document);
      const xml = Buffer.isBuffer(body) ? body : Buffer.alloc(0);
      const { parseDomain } = await import('../instances/domain-xml.js');
      const madeUp = madeUpIdentity();
      const domain = parseDomain(xml, config().dnsmasq, madeUp);
      // On a copy: this shows the result of an upload and stores nothing.
      const draft = registry.draft();
      const about = { location: config().service.location, now: Date.now() / 1000 };
      const { instance } = register(draft, domain, plan, about);
      const context = metadataContext({ ...source, instances: () => draft }, instance, 'latest');
      const made = (['uuid', 'mac'] as const).filter((field) => domain[field] === madeUp[field]);
      return {
        ...renderDocument(parts.userdata, document, context),
        ...(made.length > 0 && { made_up: made }),
      };
    },
  );

  app.get<{ Params: { readonly address: string } }>(
    '/addresses/:address',
    async (request, reply) => {
      const address = parseIp(request.params.address);
      if (address === undefined) return reply.code(400).send({ error: 'not an IP address' });
      const mac = await parts.neighbourMac(address).catch((error: Error) => {
        log.warn(`cannot look up the neighbour ${address}: ${error.message}`);
        return undefined;
      });
      const report: AddressReport = {
        address,
        instance: registry.instances.byAddress.get(address)?.name ?? null,
        mac: mac ?? null,
        mac_instance: (mac && registry.instances.byMac.get(mac)?.name) ?? null,
        last_refused: boots.lastRefused(address) ?? null,
      };
      return reply.send(report);
    },
  );

  app.post('/events', async (request) => {
    const { name, uuid, failed } = eventOf(request.body);
    // What it ended may still wait.
    await spool.takeIn();
    const machine = { name, uuid: uuid === undefined ? undefined : parseUuid(uuid) };
    await release(parts, machine, failed === true);
    return {};
  });

  app.post('/ports', { onRequest: takeAnyContentType }, async (request, reply) => {
    const xml = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0);
    try {
      await takePort(parts, { xml });
      return reply.send('');
    } catch (error) {
      return refuseUpload(parts, request, reply, error);
    }
  });

  // What the hook could not deliver before waits in the spool.
  app.addHook('onResponse', ({ routeOptions, headers }, _reply, done) => {
    if (routeOptions.url === '/ports' || headers[operationHeader] !== undefined) {
      void spool.takeIn();
    }
    done();
  });

  uploadRoutes(app, { ...parts, refusal: () => undefined });
  monitoringRoutes(app, parts, () => true);
  return app;
}

/** A JSON array of many items, in pieces: guests are answered while it is made. */
async function* jsonList<T>(items: Iterable<T>, describe: (item: T) => object) {
  const turn = shortTurns();
  let text = '[';
  let separator = '';
  for (const item of items) {
    text += separator + JSON.stringify(describe(item));
    separator = ',';
    if (text.length < pieceLength) continue;
    yield text;
    text = '';
    await turn();
  }
  yield `${text}]`;
}

/** A document as the guest would get it now. Throws TemplateError and UserdataError. */
function renderDocument(
  { whyNone }: Userdata,
  document: DocumentName,
  context: MetadataContext,
): RenderedDocument {
  // Not from NoCloud, which has an empty answer if an instance has no user-data.
  if (document === 'user-data') {
    return {
      ...rendered(context.userdata()?.()),
      reason: whyNone(context.instance)?.reason ?? null,
    };
  }
  if (document === 'tree') return rendered(treeText(context));
  return rendered(lookUp(nocloud.tree, [document], context));
}

function rendered(leaf: Leaf | undefined): RenderedDocument {
  const bytes = Buffer.from(leaf === undefined ? '' : bodyOf(leaf));
  const encoding = isUtf8(bytes) ? 'utf-8' : 'base64';
  return {
    file: typeof leaf === 'object' ? leaf.file : null,
    found: leaf !== undefined,
    reason: null,
    encoding,
    body: bytes.toString(encoding === 'utf-8' ? 'utf8' : 'base64'),
    problem: (typeof leaf === 'object' && leaf.problem) || null,
  };
}

/** What EC2 clients see, one line per leaf; for user-data, only its length. */
function treeText(context: MetadataContext): string {
  const lines: string[] = [];
  for (const [path, leaf] of leaves(ec2.tree, context)) {
    const body = bodyOf(leaf);
    const text = path === 'user-data' ? `(${Buffer.byteLength(body)} bytes)` : body.toString();
    lines.push(`${path}: ${text.replaceAll('\n', '\n    ')}\n`);
  }
  return lines.join('');
}
