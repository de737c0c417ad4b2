// For unit tests with vitest, without Wasm: `import { fake } from "@witgate/filter/testing"`.
import { clearStore, enter, FakeExchange, type FakeService, type Fields, interfaces, setSecrets } from "./fake.ts";
import { resetEdits } from "./check.ts";
import { ReadonlyRequest, Request } from "./request.ts";
import { Response } from "./response.ts";
import { encode } from "./text.ts";

/** The exchange of a test. Everything is optional. */
export interface FakeInit {
  /** The method of the request. Default: `GET`. */
  method?: string;
  /** The path without the query. Default: `/`. */
  path?: string;
  /** The query without the `?`. Default: no query. */
  query?: string;
  /** The header fields of the request. */
  headers?: Record<string, string>;
  /** The body of the request. */
  body?: string;
  /** The status of the response. Default: 200. */
  status?: number;
  /** The header fields of the response. */
  responseHeaders?: Record<string, string>;
  /** The body of the response. */
  responseBody?: string;
  /** The configuration of the filter. */
  config?: Record<string, string | number>;
  /** The IP address of the client. Default: `192.0.2.1`. */
  clientIp?: string;
  /** The time that the gateway's clock shows, in milliseconds since 1970. It does not advance. */
  now?: number;
  /**
   * Responds to the calls of other services: `http: ({ url }) => ({ status: 200, body: url })`.
   * Without it, each call is denied.
   */
  http?: FakeService;
  /** The keys that the operator gives to the filter, by name. */
  secrets?: Record<string, string | Uint8Array>;
}

export type { FakeCall, FakeService } from "./fake.ts";

/**
 * Makes an exchange and returns the objects that `onRequest` and `onResponse` take. Each call
 * starts a new exchange; the key-value store is kept until `fake.reset()`.
 *
 * Unlike in the gateway, edits take effect immediately.
 */
export function fake(init: FakeInit = {}) {
  const exchange = new FakeExchange();
  exchange.method = init.method ?? exchange.method;
  exchange.path = init.path ?? exchange.path;
  exchange.query = init.query;
  exchange.request = fieldsOf(init.headers);
  exchange.body = encode(init.body ?? "") as Uint8Array<ArrayBuffer>;
  exchange.status = init.status ?? exchange.status;
  exchange.response = fieldsOf(init.responseHeaders);
  exchange.responseBody = encode(init.responseBody ?? "") as Uint8Array<ArrayBuffer>;
  exchange.config = new Map(Object.entries(init.config ?? {}).map(([key, value]) => [key, String(value)]));
  exchange.clientIp = init.clientIp ?? exchange.clientIp;
  exchange.now = init.now ?? exchange.now;
  exchange.http = init.http;
  setSecrets(init.secrets ?? {});
  enter(exchange);
  resetEdits();
  return {
    /** For `onRequest`. */
    request: new Request(interfaces["request-edit"]),
    /** For `onResponse`. */
    readonlyRequest: new ReadonlyRequest(),
    /** For `onResponse`. */
    response: new Response(),
    /** The lines that the filter has logged, such as `info: hello`. */
    log: exchange.log,
    /** The notes that the filter has set. */
    notes: exchange.notes,
  };
}

/** Empties the key-value store and the limiter. */
fake.reset = clearStore;

function fieldsOf(headers: Record<string, string> | undefined): Fields {
  return Object.entries(headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]);
}
