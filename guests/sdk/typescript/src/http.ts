// Calls of other services: `import { fetch, http } from "@witgate/filter/http"`.
//
// It is a module of its own because a component may import only what its manifest asks for. A call
// waits in the gateway, so a promise of `fetch` is settled when `fetch` returns, and calls of one
// handler run one after the other.
import * as raw from "witgate:gateway/http@0.1.0";
import { checkedBody, checkedFields, checkedString, shown, type TextValue, viewedBytes } from "./check.ts";
import { decodeBody } from "./text.ts";
import { Headers } from "./web/headers.ts";

/** Why a call has no response. `kind` tells what to do; the message says it. */
export class HttpError extends Error {
  /**
   * - `denied`: the operator did not grant the origin, or its host has a forbidden address.
   * - `invalid`: the method, the URL or a header field is not valid.
   * - `limit`: the number of calls, or the size of the request or the response.
   * - `timeout`: the time is up.
   * - `unavailable`: the service cannot be reached, or closed the connection early.
   */
  readonly kind: raw.Error["tag"];

  constructor(kind: raw.Error["tag"], message: string) {
    super(message);
    this.name = "HttpError";
    this.kind = kind;
  }
}

/** The optional parts of a call. */
export interface CallInit {
  /** `GET` if it is left out. */
  method?: string;
  /** Header fields: a record, pairs, or `Headers`. */
  headers?: Record<string, TextValue> | Iterable<readonly [string, TextValue]>;
  /** Text, bytes or `URLSearchParams`. Use `JSON.stringify` for other values. */
  body?: string | ArrayBuffer | ArrayBufferView | URLSearchParams | null;
  /** The longest wait in milliseconds. The operator's bound (`http.wait`) holds as well. */
  timeoutMs?: number;
}

/** A response. A status such as 404 or 500 is a response and not an error. */
export interface HttpResponse {
  /** The status code. A redirect is a response like any other: it is never followed. */
  readonly status: number;
  /** Whether the status is 200 to 299. */
  readonly ok: boolean;
  /** The header fields. */
  readonly headers: Headers;
  /** The body as bytes. */
  bytes(): Uint8Array;
  /** The body as text. Bytes that are not UTF-8 become U+FFFD. */
  text(): string;
  /** The body as the value that its JSON stands for. Throws a SyntaxError if it is not JSON. */
  json(): unknown;
}

/**
 * Calls other services. Requires `services = ["http"]` in filter.toml, and `capabilities: [http]`
 * with the origins under `http:` in gateway.yaml.
 *
 * Each function waits for the whole response. The wait holds no thread of the gateway and does not
 * count against the filter's timeout. Throws an {@link HttpError} if there is no response.
 */
export const http = {
  /** Sends a GET. */
  get(url: string | URL, init?: Omit<CallInit, "method" | "body">): HttpResponse {
    return http.send(url, init);
  },
  /**
   * Sends a POST. Text, bytes and `URLSearchParams` are sent as they are, any other value as JSON
   * with its `content-type`.
   */
  post(url: string | URL, body?: unknown, init?: Omit<CallInit, "method" | "body">): HttpResponse {
    const isPlain = typeof body === "string" || body instanceof URLSearchParams || viewedBytes(body) !== undefined;
    if (body === undefined || isPlain) return http.send(url, { ...init, method: "POST", body: body as string });
    const headers = new Headers(init?.headers as Iterable<readonly [string, unknown]>);
    if (!headers.has("content-type")) headers.set("content-type", "application/json");
    return http.send(url, { ...init, method: "POST", headers, body: JSON.stringify(body) });
  },
  /** Sends a request with any method. */
  send(url: string | URL, init: CallInit = {}): HttpResponse {
    const request = {
      method: checkedString("the method", init.method ?? "GET"),
      url: checkedUrl(url),
      headers: checkedFields(init.headers),
      body: requestBody(init.body),
      timeoutMs: checkedTimeout(init.timeoutMs),
    };
    if (init.body instanceof URLSearchParams && !request.headers.some(([name]) => isContentType(name))) {
      request.headers.push(["content-type", "application/x-www-form-urlencoded;charset=UTF-8"]);
    }
    return responseOf(call(request));
  },
};

/** What `fetch` takes beyond the URL. */
export interface FetchInit extends CallInit {
  /**
   * What a redirect does: it is returned (`manual`, the default), or rejects (`error`). It is never
   * followed, because the operator grants origins and not what they refer to.
   */
  redirect?: "manual" | "error";
}

/** A response by the Fetch Standard. */
export interface FetchResponse extends Omit<HttpResponse, "bytes" | "text" | "json"> {
  /** Empty: HTTP/2 has no such text. */
  readonly statusText: string;
  /** The URL of the request. */
  readonly url: string;
  /** False: redirects are not followed. */
  readonly redirected: false;
  arrayBuffer(): Promise<ArrayBuffer>;
  bytes(): Promise<Uint8Array>;
  text(): Promise<string>;
  json(): Promise<unknown>;
}

/**
 * Calls another service as the Fetch Standard says, in the part that a filter needs. See
 * {@link http} for what it requires. Rejects with an {@link HttpError} if there is no response.
 */
export function fetch(url: string | URL, init: FetchInit = {}): Promise<FetchResponse> {
  // A promise executor runs immediately, and an exception in it rejects the promise.
  return new Promise((resolve) => {
    const redirect = init.redirect ?? "manual";
    if (redirect !== "manual" && redirect !== "error") {
      throw new TypeError(`redirect is ${shown(redirect)}, but a filter never follows redirects: write "manual"`);
    }
    const response = http.send(url, init);
    if (redirect === "error" && response.status >= 300 && response.status < 400) {
      throw new HttpError("unavailable", `${checkedUrl(url)}: the response is a redirect, status ${response.status}`);
    }
    resolve(fetched(checkedUrl(url), response));
  });
}

function fetched(url: string, response: HttpResponse): FetchResponse {
  const { status, ok, headers } = response;
  const later = <T>(read: () => T): Promise<T> => new Promise((resolve) => resolve(read()));
  return {
    ...{ status, ok, headers, url, statusText: "", redirected: false },
    arrayBuffer: () => later(() => response.bytes().slice().buffer as ArrayBuffer),
    bytes: () => later(() => response.bytes()),
    text: () => later(() => response.text()),
    json: () => later(() => response.json()),
  };
}

function call(request: raw.Request): raw.Response {
  try {
    return raw.send(request);
  } catch (refusal) {
    const error = ((refusal as { payload?: raw.Error }).payload ?? refusal) as raw.Error;
    if (typeof error === "object" && error !== null && "tag" in error) {
      throw new HttpError(error.tag, `${request.method} ${request.url}: ${error.tag}: ${error.val}`);
    }
    throw refusal;
  }
}

function responseOf({ status, headers, body }: raw.Response): HttpResponse {
  return {
    status,
    ok: status >= 200 && status < 300,
    headers: new Headers(headers),
    bytes: () => body,
    text: () => decodeBody(body),
    json: () => JSON.parse(decodeBody(body)),
  };
}

function checkedUrl(url: unknown): string {
  return url instanceof URL ? url.href : checkedString("the URL", url);
}

function isContentType(name: string): boolean {
  return name.toLowerCase() === "content-type";
}

function requestBody(body: unknown): Uint8Array {
  if (body === undefined || body === null) return new Uint8Array();
  if (body instanceof URLSearchParams) return checkedBody(String(body));
  if (typeof body === "string" || viewedBytes(body) !== undefined) return checkedBody(body);
  throw new TypeError(`the body must be text or bytes, not ${shown(body)}: use JSON.stringify, or http.post`);
}

function checkedTimeout(timeoutMs: unknown): number {
  if (timeoutMs === undefined || timeoutMs === Infinity) return 0;
  if (typeof timeoutMs === "number" && timeoutMs >= 1 && timeoutMs <= 0xffff_ffff) return Math.floor(timeoutMs);
  throw new RangeError(`timeoutMs must be from 1 to 4294967295 milliseconds, not ${shown(timeoutMs)}`);
}
