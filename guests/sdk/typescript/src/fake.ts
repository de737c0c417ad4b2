// A fake of the gateway for unit tests: its interfaces over an exchange in memory.
//
// In tests, imports of `witgate:gateway/…` resolve to `interfaces`, so the objects of the SDK run
// as they do in a component. This module does not know these objects (testing.ts does): they
// import it.
import { cryptoInterface, secrets } from "./fake-crypto.ts";
import { decode, encode } from "./text.ts";

export type Fields = Array<[string, string]>;

/** The exchange that the functions below read and change. */
export class FakeExchange {
  method = "GET";
  path = "/";
  query: string | undefined = undefined;
  request: Fields = [];
  response: Fields = [];
  body = new Uint8Array();
  responseBody = new Uint8Array();
  status = 200;
  config = new Map<string, string>();
  notes = new Map<string, string>();
  log: string[] = [];
  clientIp = "192.0.2.1";
  /** Milliseconds since 1970. */
  now = 1_700_000_000_000;
  /** Responds to the calls of other services. */
  http: FakeService | undefined = undefined;
}

/** A request that a filter sends. */
export interface FakeCall {
  method: string;
  url: string;
  headers: Fields;
  body: Uint8Array;
  timeoutMs: number;
}

/** Responds to a call; to refuse it, throws `{ tag, val }` as the gateway does. */
export type FakeService = (call: FakeCall) => { status: number; headers?: Record<string, string>; body?: string };

let current = new FakeExchange();
/** Outlives an exchange, as the store of the gateway does. */
const store = new Map<string, { value: Uint8Array; expires: number }>();
/** Units taken, by key and policy, and when the window or the bucket began. */
const counts = new Map<string, { since: number; used: number }>();

/** Replaces the secret keys of the filter. */
export function setSecrets(given: Record<string, string | Uint8Array>): void {
  secrets.clear();
  for (const [name, secret] of Object.entries(given)) secrets.set(name, secret);
}

/** Sends a request of a filter to the service of the test. */
function send(call: FakeCall) {
  if (current.http === undefined) throw { tag: "denied", val: "give the fake an `http` function that returns a response" };
  const { status, headers = {}, body = "" } = current.http(call);
  return { status, headers: Object.entries(headers), body: encode(body) };
}

/** Makes this the exchange that the functions below use. */
export function enter(exchange: FakeExchange): void {
  current = exchange;
}

/** Empties the key-value store and the limiter. */
export function clearStore(): void {
  store.clear();
  counts.clear();
}

const valuesOf = (fields: Fields, name: string): string[] =>
  fields.filter(([own]) => own === name.toLowerCase()).map(([, value]) => value);
const joinedValue = (fields: Fields, name: string): string | undefined => {
  const values = valuesOf(fields, name);
  return values.length === 0 ? undefined : values.join(name.toLowerCase() === "cookie" ? "; " : ", ");
};
const withoutField = (fields: Fields, name: string): Fields => fields.filter(([own]) => own !== name.toLowerCase());
const withField = (fields: Fields, name: string, value: string): Fields => [
  ...withoutField(fields, name),
  [name.toLowerCase(), value],
];

const readers = (fields: () => Fields) => ({
  header: (name: string) => joinedValue(fields(), name),
  headerValues: (name: string) => valuesOf(fields(), name),
  headerBytes: (name: string) => {
    const value = joinedValue(fields(), name);
    return value === undefined ? undefined : encode(value);
  },
  headers: () => fields(),
});

const unexpired = (key: string) => {
  const entry = store.get(key);
  return entry !== undefined && entry.expires > current.now ? entry : undefined;
};
const expiry = (ttlMs: number) => (ttlMs === 0 ? Infinity : current.now + ttlMs);

const sameBytes = (a: Uint8Array, b: Uint8Array) => a.length === b.length && a.every((byte, index) => byte === b[index]);

type FakePolicy = { algorithm: string; limit: number; windowMs: number; burst: number };

/**
 * Takes units from a fixed window or a token bucket. Unlike the gateway's, the window does not
 * slide.
 */
function take(key: string, cost: number, policy: FakePolicy) {
  const { limit, windowMs } = policy;
  const isBucket = policy.algorithm === "token-bucket";
  const most = isBucket && policy.burst > 0 ? policy.burst : limit;
  if (cost > most) throw { tag: "invalid", val: `a cost of ${cost} is more than the ${most} units that the policy ever allows` };
  const id = `${key} ${JSON.stringify(policy)}`;
  const count = counts.get(id) ?? { since: current.now, used: 0 };
  const elapsed = current.now - count.since;
  let used = elapsed < windowMs ? count.used : 0;
  if (isBucket) used = Math.max(0, count.used - (elapsed * limit) / windowMs);
  const allowed = used + cost <= most;
  if (allowed) used += cost;
  counts.set(id, { since: isBucket || elapsed >= windowMs ? current.now : count.since, used });
  const windowEnd = elapsed < windowMs ? windowMs - elapsed : windowMs;
  const resetMs = Math.ceil(isBucket ? (used * windowMs) / limit : windowEnd);
  const retryAfterMs = isBucket ? Math.ceil(((used + cost - most) * windowMs) / limit) : windowEnd;
  return { allowed, remaining: Math.floor(most - used), resetMs, retryAfterMs: allowed ? 0 : retryAfterMs };
}

/** The interfaces of the gateway, by their names in wit/. */
export const interfaces = {
  request: {
    method: () => current.method,
    scheme: () => "http",
    authority: () => joinedValue(current.request, "host") ?? "",
    path: () => current.path,
    query: () => current.query,
    body: () => current.body,
    ...readers(() => current.request),
  },
  "request-edit": {
    setHeader: (name: string, value: string) => void (current.request = withField(current.request, name, value)),
    appendHeader: (name: string, value: string) => void current.request.push([name.toLowerCase(), value]),
    removeHeader: (name: string) => void (current.request = withoutField(current.request, name)),
    setPath: (path: string) => void (current.path = path),
    setQuery: (query: string | undefined) => void (current.query = query),
    setBody: (body: Uint8Array) => void (current.body = body as Uint8Array<ArrayBuffer>),
  },
  response: {
    status: () => current.status,
    local: () => false,
    body: () => current.responseBody,
    setStatus: (status: number) => void (current.status = status),
    setHeader: (name: string, value: string) => void (current.response = withField(current.response, name, value)),
    appendHeader: (name: string, value: string) => void current.response.push([name.toLowerCase(), value]),
    removeHeader: (name: string) => void (current.response = withoutField(current.response, name)),
    setBody: (body: Uint8Array) => void (current.responseBody = body as Uint8Array<ArrayBuffer>),
    ...readers(() => current.response),
  },
  exchange: {
    client: () => ({ ip: current.clientIp, port: 12345 }),
    route: () => "test",
    id: () => "0".repeat(32),
    note: (name: string) => current.notes.get(name),
    setNote: (name: string, value: string) => void current.notes.set(name, value),
  },
  config: {
    get: (key: string) => current.config.get(key),
    keys: () => [...current.config.keys()].sort(),
  },
  log: { write: (level: string, message: string) => void current.log.push(`${level}: ${message}`) },
  clock: {
    now: () => ({ seconds: Math.floor(current.now / 1000), nanoseconds: (current.now % 1000) * 1e6 }),
    ticks: () => (current.now * 1000) >>> 0,
  },
  random: {
    bytes: (length: number) => Uint8Array.from({ length }, () => Math.floor(Math.random() * 256)),
    number: () => Math.floor(Math.random() * 2 ** 32),
  },
  keyvalue: {
    get: (key: string) => unexpired(key)?.value,
    set: (key: string, value: Uint8Array, ttlMs: number) => void store.set(key, { value, expires: expiry(ttlMs) }),
    delete: (key: string) => unexpired(key) !== undefined && store.delete(key),
    increment: (key: string, delta: number, ttlMs: number) => {
      const entry = unexpired(key);
      const sum = Number(entry === undefined ? 0 : decode(entry.value)) + delta;
      store.set(key, { value: encode(String(sum)), expires: entry?.expires ?? expiry(ttlMs) });
      return sum;
    },
    getMany: (keys: string[]) => keys.map((key) => unexpired(key)?.value),
    compareAndSwap: (key: string, expected: Uint8Array | undefined, value: Uint8Array, ttlMs: number) => {
      const before = unexpired(key)?.value;
      const isEqual = before === undefined ? expected === undefined : expected !== undefined && sameBytes(before, expected);
      if (isEqual) store.set(key, { value, expires: expiry(ttlMs) });
      return isEqual;
    },
  },
  limiter: { take },
  http: { send },
  crypto: cryptoInterface,
};
