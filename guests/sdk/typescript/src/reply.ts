// The response that a filter makes itself.
//
// This module does not know in which phase the reply is used.
import { checkBodyAllowed, checkedBody, checkedFields, checkedStatus, shown, type TextValue } from "./check.ts";

/** A complete response. Make one with {@link reply}. */
export interface Reply {
  /** The status code, 200 to 599. */
  status: number;
  /** Names and values; a name may appear several times. The gateway adds `content-length`. */
  headers: Array<[string, string]>;
  /** The body, at most 8 MiB. Empty with status 204 and 304. */
  body: Uint8Array;
}

/** The optional parts of a reply. */
export interface ReplyInit {
  /**
   * Header fields to send: a record, or pairs if a name appears several times (`set-cookie`).
   * Finite numbers and booleans are converted to text.
   */
  headers?: Record<string, TextValue> | Iterable<readonly [string, TextValue]>;
}

const EMPTY = new Uint8Array();

/**
 * Makes a response for the handler to return: `return reply(401, { error: "no key" })`.
 *
 * @param status 200 to 599.
 * @param body Text and bytes are sent as they are, any other value as JSON. Undefined: no body.
 * @param init Further header fields. Without `content-type` among them, text is sent as
 *   `text/plain; charset=utf-8`, `URLSearchParams` as a form and JSON as `application/json`; bytes
 *   have no default.
 * @throws TypeError or RangeError for a part that HTTP or the gateway does not allow.
 */
export function reply(status: number, body?: unknown, init?: ReplyInit): Reply {
  const checked = checkedStatus(status);
  const headers = checkedFields(init?.headers);
  if (body === undefined) return { status: checked, headers, body: EMPTY };
  const isForm = body instanceof URLSearchParams;
  const bytes = checkedBody(isForm ? String(body) : body);
  checkBodyAllowed(checked, bytes);
  const isBinary = body instanceof ArrayBuffer || ArrayBuffer.isView(body);
  if (!isBinary && !headers.some(([name]) => name.toLowerCase() === "content-type")) {
    headers.push(["content-type", contentType(body, isForm)]);
  }
  return { status: checked, headers, body: bytes };
}

function contentType(body: unknown, isForm: boolean): string {
  if (isForm) return "application/x-www-form-urlencoded;charset=UTF-8";
  return typeof body === "string" ? "text/plain; charset=utf-8" : "application/json";
}

/** Checks what a handler returned. Returns undefined if it returned nothing. */
export function checkedReply(result: unknown): Reply | undefined {
  if (result === undefined || result === null) return undefined;
  const { status, headers, body } = result as Partial<Reply>;
  if (typeof result !== "object" || !Array.isArray(headers) || !(body instanceof Uint8Array)) {
    throw new TypeError(`the handler must return reply(…) or nothing, not ${shown(result)}`);
  }
  const checked = { status: checkedStatus(status), headers: checkedFields(headers), body: checkedBody(body) };
  checkBodyAllowed(checked.status, checked.body);
  return checked;
}
