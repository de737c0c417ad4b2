// A sliding-window rate limit for each client.
//
// Two counters: this window's and the last one's, the latter weighted by how much of it the sliding window still covers. An instance lives for
// one call, so the counters are in the gateway's key-value store; the increment is atomic, so of limit + 1 requests at once exactly one is too many.
// A rejected request is taken back: a client that keeps trying is let in again when its window has passed.
import { client, config, reply, type Reply, type Request } from "@witgate/filter";
import { keyvalue } from "@witgate/filter/keyvalue";

export function onRequest(request: Request): Reply | void {
  const limit = config.number("limit", 100);
  const windowMs = config.number("window_ms", 60_000);
  const now = Date.now();
  const window = Math.floor(now / windowMs);
  const who = identity(request);
  const used = keyvalue.increment(`${who} ${window}`, 1, 2 * windowMs);
  const before = Number(keyvalue.get(`${who} ${window - 1}`) ?? 0);
  const remainingMs = windowMs - (now % windowMs);
  if (used + Math.floor((before * remainingMs) / windowMs) > limit) {
    keyvalue.increment(`${who} ${window}`, -1, 2 * windowMs);
    return reply(429, "rate limit exceeded\n", { headers: { "retry-after": String(Math.ceil(remainingMs / 1000)) } });
  }
}

function identity(request: Request): string {
  const key = config.get("key") ?? "client-ip";
  if (key === "client-ip") return client().ip;
  // The store's keys are short: a long header is cut.
  return (request.header(key.replace(/^header:/, "")) ?? "-").slice(0, 64);
}
