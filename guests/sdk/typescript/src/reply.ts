// The response that a filter makes itself.
//
// This module does not know in which phase the reply is used.
import { encode } from "./text.ts";

/** A complete response. Make one with {@link reply}. */
export interface Reply {
  /** The status code, 200 to 599. */
  status: number;
  /** Names and values; a name may appear several times. The gateway adds `content-length`. */
  headers: Array<[string, string]>;
  /** The body, at most 8 MiB (4 MiB without `body = "buffer"`). Empty with status 204 and 304. */
  body: Uint8Array;
}

/** The optional parts of a reply. */
export interface ReplyInit {
  /** Header fields to send. */
  headers?: Record<string, string>;
}

const EMPTY = new Uint8Array();

/**
 * Makes a response for the handler to return: `return reply(401, { error: "no key" })`.
 *
 * @param status 200 to 599.
 * @param body Text and bytes are sent as they are, any other value as JSON. Undefined: no body.
 * @param init Further header fields. Without `content-type` among them, text is sent as
 *   `text/plain; charset=utf-8` and JSON as `application/json`; bytes have no default.
 */
export function reply(status: number, body?: unknown, init?: ReplyInit): Reply {
  const headers: Array<[string, string]> = init?.headers === undefined ? [] : Object.entries(init.headers);
  if (body === undefined) return { status, headers, body: EMPTY };
  if (body instanceof Uint8Array) return { status, headers, body };
  const isText = typeof body === "string";
  if (!headers.some(([name]) => name.toLowerCase() === "content-type")) {
    headers.push(["content-type", isText ? "text/plain; charset=utf-8" : "application/json"]);
  }
  return { status, headers, body: encode(isText ? body : JSON.stringify(body)) };
}
