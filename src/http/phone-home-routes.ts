import type { FastifyInstance } from 'fastify';
import { PhoneHomeError, parsePhoneHome } from '../boots/phone-home.js';
import { type HostKeys, knowsHostKeys } from '../instances/details.js';
import type { Store } from '../instances/store.js';
import { type Callers, seeCaller } from './caller.js';

/** cloud-init sends at most a handful of keys: this is plenty, in bytes. */
const longestMessage = 32 * 1024;

/**
 * `POST /phone-home`: an instance says that its boot is done, and which ssh host keys it has. It
 * can only speak for itself: the address of the peer says who it is, not what the form says.
 */
export function phoneHomeRoutes(app: FastifyInstance, store: Store, callers: Callers): void {
  app.post('/phone-home', { bodyLimit: longestMessage }, async (request, reply) => {
    reply.type('text/plain');
    const { instance } = seeCaller(request, callers, 'phone-home');
    if (instance === null) return reply.code(404).send('not found\n');
    let said: HostKeys;
    try {
      const body = Buffer.isBuffer(request.body) ? request.body.toString('latin1') : '';
      said = parsePhoneHome(body, Date.now() / 1000);
    } catch (error) {
      if (!(error instanceof PhoneHomeError)) throw error;
      return reply.code(400).send(`${error.message}\n`);
    }
    if (said.keys.length > 0 && !knowsHostKeys(instance.details, said)) {
      if (instance.details.hostKeys.length > 0) {
        callers.log.warn(`${instance.name} phoned home with other ssh host keys than before`);
      }
      await store.rememberHostKeys(instance.name, said);
    }
    return '';
  });
}
