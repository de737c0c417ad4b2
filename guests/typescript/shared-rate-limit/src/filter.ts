// A sliding-window rate limit for each client, with the gateway's limiter.
//
// The limiter counts atomically. With a store in Redis, all gateways share the counts. If the store
// fails, the operator decides what happens (`on_failure` of the store), and an error that reaches
// this filter fails the request: a limit that nobody counts is no limit.
import { client, config, reply, type Reply, type Request } from "@witgate/filter";
import { limiter } from "@witgate/filter/limiter";

export function onRequest(request: Request): Reply | void {
  const policy = { limit: config.number("limit", 100), windowMs: config.number("window_ms", 60_000) };
  const decision = limiter.take(clientId(request), policy);
  if (decision.allowed) return;
  const headers = {
    "retry-after": String(Math.ceil(decision.retryAfterMs / 1000)),
    "ratelimit-policy": `"default";q=${policy.limit};w=${Math.ceil(policy.windowMs / 1000)}`,
    ratelimit: `"default";r=${decision.remaining};t=${Math.ceil(decision.resetMs / 1000)}`,
  };
  return reply(429, "Rate limit exceeded\n", { headers });
}

/** What identifies the client, as the configuration says: its address or a header field. */
function clientId(request: Request): string {
  const key = config.get("key") ?? "client-ip";
  if (key === "client-ip") return client().ip;
  // A key of the limiter has at most 256 bytes, so a long value is cut.
  return `=${(request.header(key.replace(/^header:/, "")) ?? "").slice(0, 64)}`;
}
