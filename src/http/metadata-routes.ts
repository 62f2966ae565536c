import type { FastifyInstance, FastifyReply } from 'fastify';
import type { Config } from '../config/options.js';
import { type Instance, machineKey } from '../instances/instance.js';
import { type MetadataContext, type MetadataSource, metadataContext } from '../metadata/context.js';
import { ec2Tree } from '../metadata/ec2.js';
import { nocloudTree } from '../metadata/nocloud.js';
import { openstackTree } from '../metadata/openstack.js';
import { serviceTree } from '../metadata/service.js';
import { isGoodToken, longestTokenLife, makeToken, tokenLife } from '../metadata/tokens.js';
import { type Body, type Folder, lookUp, pathSegments } from '../metadata/tree.js';
import { fromMetadata } from '../metadata/values.js';
import { type Callers, type Seen, seeCaller } from './caller.js';

export interface MetadataOptions extends MetadataSource, Callers {
  /** What session tokens are made with. */
  readonly tokenKey: Buffer;
  readonly isThisHost: (remote: string | undefined) => boolean;
}

const tokenHeader = 'x-aws-ec2-metadata-token';
const lifeHeader = 'x-aws-ec2-metadata-token-ttl-seconds';

type Kind = Exclude<Seen['kind'], 'phone-home'>;

const trees: Record<Kind, Folder<MetadataContext>> = {
  ec2: ec2Tree,
  nocloud: nocloudTree,
  openstack: openstackTree,
};

/** The tree that a path's first segment leads into. */
function kindOf(segment: string, { service }: Config): Kind | undefined {
  if (segment === 'nocloud' || segment === 'openstack') return segment;
  return service.ec2_versions.includes(segment) ? 'ec2' : undefined;
}

/** Sends what the tree has at the path: 404 where that is nothing. */
function answer<Context>(
  reply: FastifyReply,
  tree: Folder<Context>,
  path: readonly string[],
  context: Context,
): void {
  const body = lookUp(tree, path, context);
  if (body === undefined) refuse(reply, 404, 'not found');
  else sendText(reply, body);
}

/** Returns nothing: Fastify waits for a reply that a handler returns, at a cost. */
function sendText(reply: FastifyReply, body: Body): void {
  void reply.type('text/plain').send(body);
}

function refuse(reply: FastifyReply, status: number, why: string): void {
  sendText(reply.code(status), `${why}\n`);
}

/** Whether the instance gets nothing without a token. What is no known word is taken for "required". */
function needsToken(instance: Instance, config: Config): boolean {
  const own = fromMetadata(instance, 'imds-tokens');
  return (own ?? config.mdserver.imds_tokens) !== 'optional';
}

const nowSeconds = () => Math.floor(Date.now() / 1000);

/** All that instances ask for, and `/service/`: each answered from its tree. */
export function metadataRoutes(app: FastifyInstance, options: MetadataOptions): void {
  const { tokenKey } = options;

  /** What becomes of the request's token: undefined where there is none and none is needed. */
  function checkToken(
    token: string | string[] | undefined,
    instance: Instance,
    config: Config,
  ): Seen['token'] {
    // tiny-cloud sends an empty one when it got none.
    if (token === undefined || token === '') {
      return needsToken(instance, config) ? 'refused' : undefined;
    }
    const text = typeof token === 'string' ? token : '';
    const good = isGoodToken(tokenKey, machineKey(instance), text, nowSeconds());
    return good ? 'used' : 'refused';
  }

  /** The context of a request, which notes what user-data it got. */
  function contextOf(seen: Seen, instance: Instance, version: string): MetadataContext {
    const context = metadataContext(options, instance, version);
    const userdata = () => {
      const make = context.userdata();
      if (make === undefined) return undefined;
      return () => {
        seen.userdataFile = null;
        const rendered = make();
        seen.userdataFile = rendered.file;
        seen.userdataBytes = Buffer.byteLength(rendered.body);
        return rendered;
      };
    };
    return { ...context, userdata };
  }

  app.get('/*', (request, reply) => {
    const [first, ...path] = pathSegments(request.url);
    const config = options.config();
    if (first === undefined) {
      const lines = config.service.ec2_versions.map((version) => `${version}/`);
      return sendText(reply, lines.join('\n'));
    }
    if (first === 'service') {
      const local = options.isThisHost(request.socket.remoteAddress);
      return answer(reply, serviceTree, path, { config, local });
    }
    const kind = kindOf(first, config);
    if (kind === undefined) return refuse(reply, 404, 'not found');
    const seen = seeCaller(request, options, kind);
    if (seen.instance === null) return refuse(reply, 404, 'not found');
    seen.token = checkToken(request.headers[tokenHeader], seen.instance, config);
    if (seen.token === 'refused') {
      return refuse(reply, 401, 'a session token of this instance is needed');
    }
    const version = kind === 'ec2' ? first : 'latest';
    return answer(reply, trees[kind], path, contextOf(seen, seen.instance, version));
  });

  // IMDSv2 ("Use IMDSv2" of the EC2 User Guide). Offered whatever versions are served: cloud-init
  // that finds itself on AWS gives up at once where this answers 400 or more.
  app.put('/latest/api/token', (request, reply) => {
    const seen = seeCaller(request, options, 'ec2');
    if (seen.instance === null) return refuse(reply, 404, 'not found');
    if (request.headers['x-forwarded-for'] !== undefined) {
      return refuse(reply, 403, 'tokens are not given through a proxy');
    }
    const life = tokenLife(request.headers[lifeHeader]);
    if (life === undefined) {
      return refuse(reply, 400, `${lifeHeader} has to be from 1 to ${longestTokenLife}`);
    }
    seen.token = 'given';
    reply.header(lifeHeader, String(life));
    return sendText(reply, makeToken(tokenKey, machineKey(seen.instance), nowSeconds() + life));
  });
}
