// A sliding-window rate limit for each client.
//
// Each client has two counters: one for the current window and one for the previous window. The
// previous counter is weighted by the share of its window that the sliding window still covers.
//
// An instance lives for one call, so the counters are in the gateway's key-value store. The
// increment is atomic: of limit + 1 simultaneous requests exactly one is rejected. A rejected
// request is subtracted again, so a client that keeps trying is accepted as soon as its window has
// passed.
import { client, config, reply, type Reply, type Request } from "@witgate/filter";
import { keyvalue } from "@witgate/filter/keyvalue";

export function onRequest(request: Request): Reply | void {
  const limit = config.number("limit", 100);
  const windowMs = config.number("window_ms", 60_000);
  const now = Date.now();
  const window = Math.floor(now / windowMs);
  const id = clientId(request);
  const used = keyvalue.increment(`${id} ${window}`, 1, 2 * windowMs);
  const previous = Number(keyvalue.get(`${id} ${window - 1}`) ?? 0);
  const remainingMs = windowMs - (now % windowMs);
  if (used + Math.floor((previous * remainingMs) / windowMs) > limit) {
    keyvalue.increment(`${id} ${window}`, -1, 2 * windowMs);
    return reply(429, "rate limit exceeded\n", { headers: { "retry-after": String(Math.ceil(remainingMs / 1000)) } });
  }
}

/** What identifies the client, as the configuration says: its address or a header field. */
function clientId(request: Request): string {
  const key = config.get("key") ?? "client-ip";
  if (key === "client-ip") return network(client().ip);
  // A key of the store has at most 256 bytes, so a long value is cut.
  return (request.header(key.replace(/^header:/, "")) ?? "-").slice(0, 64);
}

/**
 * The network that belongs to one client: an IPv4 address, or the first 64 bits of an IPv6 address.
 * A client with an IPv6 network has 2^64 addresses. Counted one by one, each would have the full
 * limit, and together they would fill the store.
 */
function network(ip: string): string {
  if (!ip.includes(":")) return ip;
  const [head = "", tail] = ip.split("::");
  const first = head === "" ? [] : head.split(":");
  const last = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = tail === undefined ? 0 : 8 - first.length - last.length;
  return [...first, ...Array<string>(zeros).fill("0"), ...last].slice(0, 4).join(":");
}
