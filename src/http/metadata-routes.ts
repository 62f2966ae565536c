import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { TokenUse, UserdataAnswer } from '../boots/boots.js';
import type { Config } from '../config/options.js';
import {
  isEncryptedPassword,
  maxPasswordBytes,
  PasswordSetError,
  withPassword,
} from '../instances/details.js';
import { type Instance, machineKey } from '../instances/instance.js';
import type { Registry } from '../instances/registry.js';
import { fromMetadata } from '../instances/settings.js';
import { type MetadataSource, metadataContext } from '../metadata/context.js';
import { type Datasource, datasourceOf, mediaType } from '../metadata/datasources.js';
import { takesPassword } from '../metadata/openstack.js';
import { serviceTree } from '../metadata/service.js';
import { isValidToken, makeToken, maxTokenLife, tokenLife } from '../metadata/tokens.js';
import { bodyOf, lookUp, pathSegments } from '../metadata/tree.js';
import { UserdataError } from '../userdata/find.js';
import { TemplateError } from '../userdata/template.js';
import {
  answerGuest,
  type CallerOptions,
  type GuestAnswer,
  internalError,
  notFound,
  refuseStrangers,
  sendAnswer,
} from './caller.js';

/** What the metadata routes depend on. */
export interface MetadataOptions extends MetadataSource, CallerOptions {
  readonly registry: Pick<Registry, 'changeDetails'>;
  /** The key that session tokens are made with now. */
  readonly tokenKey: () => Buffer;
  readonly isThisHost: (remote: string | undefined) => boolean;
}

const tokenHeader = 'x-aws-ec2-metadata-token';
const lifeHeader = 'x-aws-ec2-metadata-token-ttl-seconds';

/** Whether the instance must send a token. An unknown word counts as "required". */
function needsToken(instance: Instance, config: Config): boolean {
  const own = fromMetadata(instance, 'imds-tokens');
  return (own ?? config.mdserver.imds_tokens) !== 'optional';
}

/**
 * Whether Ignition (Fedora CoreOS, Flatcar) may take the user-data: its configuration is a JSON object,
 * and with an empty text it goes on.
 */
function mayBeIgnition(body: string | Buffer): boolean {
  const begin = typeof body === 'string' ? body : body.toString('latin1', 0, 1000);
  return /^\s*(?:\{|$)/.test(begin);
}

const tokenRefusal: GuestAnswer = {
  status: 401,
  body: 'this needs a session token of this instance\n',
  token: 'refused',
};

const nowSeconds = () => Math.floor(Date.now() / 1000);

/** The routes of metadata and user-data, of `/service/`, and of session tokens. */
export function metadataRoutes(app: FastifyInstance, options: MetadataOptions): void {
  const { registry, tokenKey } = options;

  /** Checks the request's token; undefined if it has none and needs none. */
  function checkToken(
    token: string | string[] | undefined,
    instance: Instance,
    config: Config,
  ): TokenUse | undefined {
    // tiny-cloud sends an empty token if it has none.
    if (token === undefined || token === '') {
      return needsToken(instance, config) ? 'refused' : undefined;
    }
    const text = typeof token === 'string' ? token : '';
    const valid = isValidToken(tokenKey(), machineKey(instance), text, nowSeconds());
    return valid ? 'used' : 'refused';
  }

  /** A datasource's answer to an instance for a path. */
  function datasourceAnswer(
    datasource: Datasource,
    version: string,
    path: readonly string[],
    instance: Instance,
    token: TokenUse | undefined,
  ): GuestAnswer {
    const { tree, isUserdata } = datasource;
    const answer = (
      { status, body, type }: Pick<GuestAnswer, 'status' | 'body' | 'type'>,
      userdata: UserdataAnswer,
    ): GuestAnswer => ({
      status,
      body,
      type,
      token,
      userdata: isUserdata(path) ? userdata : undefined,
    });
    try {
      const leaf = lookUp(tree, path, metadataContext(options, instance, version));
      if (leaf === undefined) return answer(notFound, { status: 404, file: null, bytes: 0 });
      const type = mediaType(datasource, path);
      // In NoCloud, an empty answer means that the instance has no user-data.
      if (typeof leaf === 'string') {
        return answer({ status: 200, body: leaf, type }, { status: 404, file: null, bytes: 0 });
      }
      const { body, file, problem } = leaf;
      const got = { status: 200, file, bytes: Buffer.byteLength(body) };
      return answer(
        { status: 200, body, type },
        problem === undefined ? got : { ...got, earlier: true },
      );
    } catch (error) {
      if (!(error instanceof TemplateError || error instanceof UserdataError)) throw error;
      const { status } = internalError;
      // The error is already in the log, once for each version of the file.
      const { file } = error;
      return { ...answer(internalError, { status, file, bytes: 0 }), failedFile: file };
    }
  }

  /** The answer, noted and logged if it is user-data with which Ignition ends the boot of its guest. */
  function forIgnition(
    { headers, socket }: FastifyRequest,
    instance: Instance,
    answer: GuestAnswer,
  ): GuestAnswer {
    const { userdata, body } = answer;
    const isIgnition = userdata?.status === 200 && headers['user-agent']?.startsWith('Ignition/');
    if (!isIgnition || mayBeIgnition(body)) return answer;
    options.peerLog(
      'warn',
      socket.remoteAddress,
      () =>
        `${instance.name}: its client is Ignition, and its user-data from ${userdata.file ?? 'the built-in template'} is no configuration of Ignition: give it one, or userdata = none in the metadata of its domain`,
    );
    return { ...answer, userdata: { ...userdata, not_ignition: true } };
  }

  app.get('/*', (request, reply) => {
    const segments = pathSegments(request.url);
    const [first, ...below] = segments;
    const config = options.config();
    if (first === undefined) {
      // Without slashes, as EC2 and Nova list them: Chef's ohai takes the lines for versions as they are.
      return sendAnswer(reply, { status: 200, body: config.service.ec2_versions.join('\n') });
    }
    if (first === 'service') {
      const local = options.isThisHost(request.socket.remoteAddress);
      const leaf = lookUp(serviceTree, below, { config, local });
      return sendAnswer(reply, leaf === undefined ? notFound : { status: 200, body: bodyOf(leaf) });
    }
    const found = datasourceOf(segments, config);
    if (found === undefined) return sendAnswer(reply, notFound);
    const { datasource, version, path } = found;
    return answerGuest(request, reply, options, datasource.name, (instance) => {
      const token = checkToken(request.headers[tokenHeader], instance, config);
      if (token === 'refused') return tokenRefusal;
      const answer = datasourceAnswer(datasource, version, path, instance, token);
      return forIgnition(request, instance, answer);
    });
  });

  // Nova's API for a password that the guest sets and encrypts (nova/api/metadata/password.py).
  app.post<{ Params: { version: string } }>('/openstack/:version/password', {
    bodyLimit: maxPasswordBytes,
    onRequest: refuseStrangers(options, 'openstack'),
    handler: (request, reply) =>
      answerGuest(request, reply, options, 'openstack', async (instance) => {
        const token = checkToken(request.headers[tokenHeader], instance, options.config());
        if (token === 'refused') return tokenRefusal;
        if (!takesPassword(request.params.version)) return { ...notFound, token };
        const text = Buffer.isBuffer(request.body) ? request.body.toString('latin1').trim() : '';
        if (!isEncryptedPassword(text)) {
          return { status: 400, body: 'this is not an encrypted password in base64\n', token };
        }
        try {
          await registry.changeDetails(instance.name, (details) => withPassword(details, text));
        } catch (error) {
          if (!(error instanceof PasswordSetError)) throw error;
          return { status: 409, body: `${error.message}\n`, token };
        }
        return { status: 200, body: '', token };
      }),
  });

  // IMDSv2 ("Use IMDSv2" of the EC2 User Guide). Served whatever ec2_versions is: cloud-init on a
  // guest that looks like AWS gives up at once if this answers 400 or more.
  app.put('/latest/api/token', (request, reply) =>
    answerGuest(request, reply, options, 'ec2', (instance) => {
      if (request.headers['x-forwarded-for'] !== undefined) {
        return { status: 403, body: 'no tokens are issued through a proxy\n' };
      }
      const life = tokenLife(request.headers[lifeHeader]);
      if (life === undefined) {
        const body = `${lifeHeader} must be from 1 to ${maxTokenLife}\n`;
        return { status: 400, body };
      }
      return {
        status: 200,
        body: makeToken(tokenKey(), machineKey(instance), nowSeconds() + life),
        headers: { [lifeHeader]: String(life) },
        token: 'given',
      };
    }),
  );
}
