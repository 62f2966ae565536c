import type { FastifyInstance } from 'fastify';
import { PhoneHomeError, parsePhoneHome } from '../boots/phone-home.js';
import { type HostKeys, HostKeysError, knowsHostKeys, withHostKeys } from '../instances/details.js';
import type { Registry } from '../instances/registry.js';
import { answerGuest, type CallerOptions, refuseStrangers } from './caller.js';

/** cloud-init sends a handful of keys: less than 3 KB with an RSA key of 4096 bits. */
const maxFormBytes = 8 * 1024;

/**
 * `POST /phone-home`: an instance reports that its boot is complete, and its SSH host keys. The
 * peer's address identifies it, not the form, so it can only report for itself.
 */
export function phoneHomeRoutes(
  app: FastifyInstance,
  registry: Registry,
  callerOptions: CallerOptions,
): void {
  app.post('/phone-home', {
    bodyLimit: maxFormBytes,
    onRequest: refuseStrangers(callerOptions, 'phone-home'),
    handler: (request, reply) =>
      answerGuest(request, reply, callerOptions, 'phone-home', async (instance) => {
        let hostKeys: HostKeys;
        try {
          const body = Buffer.isBuffer(request.body) ? request.body.toString('latin1') : '';
          hostKeys = parsePhoneHome(body, Date.now() / 1000);
        } catch (error) {
          if (!(error instanceof PhoneHomeError)) throw error;
          return { status: 400, body: `${error.message}\n` };
        }
        if (hostKeys.keys.length > 0 && !knowsHostKeys(instance.details, hostKeys)) {
          try {
            await registry.changeDetails(instance.name, (details) =>
              withHostKeys(details, hostKeys),
            );
          } catch (error) {
            if (!(error instanceof HostKeysError)) throw error;
            // cloud-init tries again every 3 seconds, 10 times by default (its module's "tries").
            const headers = { 'retry-after': String(error.seconds) };
            return { status: 429, headers, body: `${error.message}\n` };
          }
          if (instance.details.hostKeys.length > 0) {
            callerOptions.peerLog(
              'warn',
              request.socket.remoteAddress,
              () => `${instance.name} phoned home with different SSH host keys than before`,
            );
          }
        }
        return { status: 200, body: '' };
      }),
  });
}
