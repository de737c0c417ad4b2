// A fake of the exchange for unit tests with vitest, without Wasm: `import { fake } from "@witgate/filter/testing"`.
//
// In tests the gateway's functions (`witgate:gateway/…`) resolve to this module's `interfaces`, so the same objects that run in the gateway run here.
import { Request, ReadonlyRequest } from "./request.ts";
import { Response } from "./response.ts";
import { decode, encode } from "./text.ts";

/** What a test gives; all of it may be left out. */
export interface FakeInit {
  method?: string;
  path?: string;
  query?: string;
  headers?: Record<string, string>;
  body?: string;
  status?: number;
  responseHeaders?: Record<string, string>;
  responseBody?: string;
  config?: Record<string, string | number>;
  clientIp?: string;
  /** Milliseconds since 1970; the clock stands still. */
  now?: number;
}

type Fields = Array<[string, string]>;

/** The state behind the objects. The key-value store lives on until `fake.reset()`. */
class State {
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
  now = 1_700_000_000_000;
}

let state = new State();
const store = new Map<string, { value: Uint8Array; expires: number }>();

const fieldsOf = (headers: Record<string, string> | undefined): Fields =>
  Object.entries(headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]);
const valuesOf = (fields: Fields, name: string): string[] => fields.filter(([n]) => n === name.toLowerCase()).map(([, value]) => value);
const joined = (fields: Fields, name: string): string | undefined => {
  const values = valuesOf(fields, name);
  return values.length === 0 ? undefined : values.join(", ");
};
const without = (fields: Fields, name: string): Fields => fields.filter(([n]) => n !== name.toLowerCase());

const readers = (fields: () => Fields) => ({
  header: (name: string) => joined(fields(), name),
  headerValues: (name: string) => valuesOf(fields(), name),
  headerBytes: (name: string) => (joined(fields(), name) === undefined ? undefined : encode(joined(fields(), name) as string)),
  headers: () => fields(),
});

const live = (key: string) => {
  const entry = store.get(key);
  return entry !== undefined && entry.expires > state.now ? entry : undefined;
};
const expiry = (ttlMs: number) => (ttlMs === 0 ? Infinity : state.now + ttlMs);

/** The gateway's interfaces over the fake, by their names in wit/. */
export const interfaces = {
  request: {
    method: () => state.method,
    scheme: () => "http",
    authority: () => joined(state.request, "host") ?? "",
    path: () => state.path,
    query: () => state.query,
    body: () => state.body,
    ...readers(() => state.request),
  },
  "request-edit": {
    setHeader: (name: string, value: string) => void (state.request = [...without(state.request, name), [name.toLowerCase(), value]]),
    appendHeader: (name: string, value: string) => void state.request.push([name.toLowerCase(), value]),
    removeHeader: (name: string) => void (state.request = without(state.request, name)),
    setPath: (path: string) => void (state.path = path),
    setQuery: (query: string | undefined) => void (state.query = query),
    setBody: (body: Uint8Array) => void (state.body = body as Uint8Array<ArrayBuffer>),
  },
  response: {
    status: () => state.status,
    local: () => false,
    body: () => state.responseBody,
    setStatus: (status: number) => void (state.status = status),
    setHeader: (name: string, value: string) => void (state.response = [...without(state.response, name), [name.toLowerCase(), value]]),
    appendHeader: (name: string, value: string) => void state.response.push([name.toLowerCase(), value]),
    removeHeader: (name: string) => void (state.response = without(state.response, name)),
    setBody: (body: Uint8Array) => void (state.responseBody = body as Uint8Array<ArrayBuffer>),
    ...readers(() => state.response),
  },
  exchange: {
    client: () => ({ ip: state.clientIp, port: 12345 }),
    route: () => "test",
    id: () => "0".repeat(32),
    note: (name: string) => state.notes.get(name),
    setNote: (name: string, value: string) => void state.notes.set(name, value),
  },
  config: {
    get: (key: string) => state.config.get(key),
    keys: () => [...state.config.keys()].sort(),
  },
  log: { write: (level: string, message: string) => void state.log.push(`${level}: ${message}`) },
  clock: {
    now: () => ({ seconds: Math.floor(state.now / 1000), nanoseconds: (state.now % 1000) * 1e6 }),
    ticks: () => (state.now * 1000) >>> 0,
  },
  random: {
    bytes: (length: number) => Uint8Array.from({ length }, () => Math.floor(Math.random() * 256)),
    number: () => Math.floor(Math.random() * 2 ** 32),
  },
  keyvalue: {
    get: (key: string) => live(key)?.value,
    set: (key: string, value: Uint8Array, ttlMs: number) => void store.set(key, { value, expires: expiry(ttlMs) }),
    delete: (key: string) => live(key) !== undefined && store.delete(key),
    increment: (key: string, delta: number, ttlMs: number) => {
      const entry = live(key);
      const sum = Number(entry === undefined ? 0 : decode(entry.value)) + delta;
      store.set(key, { value: encode(String(sum)), expires: entry?.expires ?? expiry(ttlMs) });
      return sum;
    },
  },
};

/** Makes an exchange and gives its two sides, ready for `onRequest` and `onResponse`. */
export function fake(init: FakeInit = {}) {
  state = new State();
  state.method = init.method ?? state.method;
  state.path = init.path ?? state.path;
  state.query = init.query;
  state.request = fieldsOf(init.headers);
  state.body = encode(init.body ?? "") as Uint8Array<ArrayBuffer>;
  state.status = init.status ?? state.status;
  state.response = fieldsOf(init.responseHeaders);
  state.responseBody = encode(init.responseBody ?? "") as Uint8Array<ArrayBuffer>;
  state.config = new Map(Object.entries(init.config ?? {}).map(([key, value]) => [key, String(value)]));
  state.clientIp = init.clientIp ?? state.clientIp;
  state.now = init.now ?? state.now;
  const own = state;
  return {
    request: new Request(interfaces["request-edit"]),
    readonlyRequest: new ReadonlyRequest(),
    response: new Response(),
    /** Lines that the filter logged: `info: hello`. */
    log: own.log,
    notes: own.notes,
  };
}

/** Empties the key-value store. */
fake.reset = (): void => store.clear();
