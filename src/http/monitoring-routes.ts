import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Health } from '../health.js';
import type { Metrics } from '../metrics.js';

/** `/metrics` for Prometheus and `/health`; a caller who may not ask gets a 404. */
export function monitoringRoutes(
  app: FastifyInstance,
  { metrics, health }: { readonly metrics: Metrics; readonly health: () => Health },
  mayAsk: (request: FastifyRequest) => boolean,
): void {
  app.get('/metrics', async (request, reply) => {
    if (!mayAsk(request)) return reply.callNotFound();
    return reply.type(metrics.contentType).send(await metrics.text());
  });
  app.get('/health', async (request, reply) => {
    if (!mayAsk(request)) return reply.callNotFound();
    const state = health();
    return reply.code(state.status === 'ok' ? 200 : 503).send(state);
  });
}
