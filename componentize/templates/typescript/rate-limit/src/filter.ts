import { client, config, reply, type Reply, type Request } from "@witgate/filter";
import { limiter } from "@witgate/filter/limiter";

/** The gateway's limiter counts, because variables of a filter do not outlive a call. */
export function onRequest(_request: Request): Reply | void {
  const decision = limiter.take(client().ip, { limit: config.number("limit", 100), windowMs: 60_000 });
  if (decision.allowed) return;
  const seconds = Math.ceil(decision.retryAfterMs / 1000);
  return reply(429, { error: "too many requests" }, { headers: { "retry-after": String(seconds) } });
}
