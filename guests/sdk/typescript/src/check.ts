// Checks what a filter passes to the gateway, before it leaves JavaScript.
//
// The gateway checks all of this again, but there a mistake ends the call as a trap, which names no
// line of the author. An exception that is thrown here has the author's file and line, and the
// author can catch it. This module does not know which interface a value goes to.
import { encode } from "./text.ts";

/** What becomes the text of a header field, a note or a stored value. */
export type TextValue = string | number | bigint | boolean;

/** The largest body that a filter may make, in bytes. */
const BODY_BYTES_MAX = 8 << 20;
/** Bounds of one call's edits, of one response and of a note (wit/). */
const EDITS_MAX = 256;
const EDIT_BYTES_MAX = 256 << 10;
const REPLY_FIELDS_MAX = 128;
const REPLY_FIELD_BYTES_MAX = 64 << 10;
const NOTES_MAX = 32;
const NOTE_NAME_BYTES_MAX = 64;
const NOTE_VALUE_BYTES_MAX = 4 << 10;
const KEY_BYTES_MAX = 256;
const KEYS_MAX = 64;
const STORED_BYTES_MAX = 64 << 10;
const TTL_MS_MAX = 0xffff_ffff;

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const CONTROL = /[\0-\x08\x0a-\x1f\x7f]/;
const TARGET = /^[!"$-~]*$/;
/** Fields that only the gateway writes (wit/request.wit). */
const GATEWAY_FIELDS = new Set([
  ...["host", "content-length", "via", "connection", "http2-settings", "keep-alive", "proxy-connection"],
  ...["te", "trailer", "transfer-encoding", "upgrade"],
]);
/** By length, false if a name is short, not empty, and none of these fields. */
const GATEWAY_LENGTHS = Array.from(
  { length: 64 },
  (_, length) => length === 0 || [...GATEWAY_FIELDS].some((name) => name.length === length),
);
/** Fields that filters often write. Their names need no check, which costs more than a lookup. */
const COMMON_FIELDS: Readonly<Record<string, boolean>> = Object.assign(
  Object.create(null),
  Object.fromEntries(
    [
      ...["accept", "accept-encoding", "accept-language", "access-control-allow-origin", "allow", "authorization"],
      ...["cache-control", "content-language", "content-security-policy", "content-type", "cookie", "etag", "expires"],
      ...["forwarded", "last-modified", "link", "location", "origin", "referer", "referrer-policy", "retry-after"],
      ...["server", "set-cookie", "strict-transport-security", "traceparent", "user-agent", "vary"],
      ...["www-authenticate", "x-api-key", "x-cache", "x-content-type-options", "x-country", "x-forwarded-for"],
      ...["x-forwarded-host", "x-forwarded-proto", "x-frame-options", "x-ratelimit-limit", "x-ratelimit-remaining"],
      ...["x-ratelimit-reset", "x-real-ip", "x-request-id", "x-role", "x-tenant", "x-user", "x-user-email", "x-user-id"],
    ].map((name) => [name, true]),
  ),
);
/** A text that is shorter counts as ASCII when edits are counted. The gateway counts exactly. */
const EXACT_FROM = 256;

/** Shows a value in a message: short, and whatever its methods do. */
export function shown(value: unknown): string {
  if (typeof value === "string") return cut(JSON.stringify(value.toWellFormed()), 80);
  if (typeof value === "bigint") return `${cut(String(value), 80)}n`;
  if (typeof value === "symbol") return "a symbol";
  if (typeof value === "function") return "a function";
  if (typeof value !== "object" || value === null) return String(value);
  if (Array.isArray(value)) return "an array";
  return isThenable(value) ? "a promise, which needs `await`" : "an object";
}

function cut(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length)}…`;
}

/** Tells whether a value is a promise or behaves like one. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  if (typeof value !== "object" || value === null) return false;
  try {
    return typeof (value as { then?: unknown }).then === "function";
  } catch {
    return false;
  }
}

/** Returns text without unpaired surrogates: each becomes U+FFFD, as TextEncoder does it. */
export function wellFormed(text: string): string {
  return text.isWellFormed() ? text : text.toWellFormed();
}

/** Returns a string as it goes to the gateway. */
export function checkedString(what: string, value: unknown): string {
  if (typeof value === "string") return wellFormed(value);
  throw new TypeError(`${what} must be a string, not ${shown(value)}`);
}

/** Returns the text of a value. Finite numbers, bigints and booleans are converted. */
export function checkedText(what: string, value: unknown): string {
  if (typeof value === "string") return wellFormed(value);
  if (typeof value === "bigint" || typeof value === "boolean" || Number.isFinite(value)) return String(value);
  throw new TypeError(`${what} must be a string, a finite number or a boolean, not ${shown(value)}`);
}

/** Returns the name of a field to read. Any string is allowed: a field that cannot be is absent. */
export function checkedReadName(name: unknown): string {
  return checkedString("the name of a header field", name);
}

/**
 * Checks and counts an edit of a field. Returns the text of the value.
 *
 * A call runs each of these lines for the first time, so the common case is short: a lookup of the
 * name, and one native comparison of the value. Other names of plain characters cost one more
 * comparison, a fifth of the exact rules.
 */
export function checkedEdit(name: string, value: unknown): string {
  if (
    typeof name === "string" &&
    (COMMON_FIELDS[name] === true || isPlainName(name)) &&
    typeof value === "string" &&
    value.length < EXACT_FROM &&
    editCount < EDITS_MAX &&
    editBytes < EDIT_BYTES_MAX - 2 * EXACT_FROM &&
    isPlain(value)
  ) {
    editCount += 1;
    editBytes += name.length + value.length;
    return value;
  }
  const checked = checkedName(name);
  const text = checkedValue(checked, value);
  countEdit(checked, text);
  return text;
}

/** Tells whether a name is allowed for certain. False negatives are possible. */
function isPlainName(name: string): boolean {
  return GATEWAY_LENGTHS[name.length] === false && isPlain(name) && name.indexOf("(") < 0 && name.indexOf(")") < 0;
}

/**
 * Tells whether URI encoding keeps all characters. Values may have these, and names but for
 * parentheses.
 */
function isPlain(text: string): boolean {
  try {
    return encodeURIComponent(text) === text;
  } catch {
    return false;
  }
}

/** Returns the name of a field to write. */
export function checkedName(name: unknown): string {
  if (typeof name !== "string" || !TOKEN.test(name)) {
    const rule = "a token such as x-user (RFC 9110, section 5.6.2)";
    throw new TypeError(`the name of a header field must be ${rule}, not ${shown(name)}`);
  }
  if (GATEWAY_FIELDS.has(name.toLowerCase())) {
    throw new TypeError(`header ${name}: only the gateway writes this field: remove the call`);
  }
  return name;
}

/** Returns the value of the field `name`. */
export function checkedValue(name: string, value: unknown): string {
  const text = checkedText(`header ${name}: the value`, value);
  if (CONTROL.test(text)) {
    throw new TypeError(`header ${name}: the value ${shown(text)} has a control character, such as a line break`);
  }
  return text;
}

/** Returns a status code. */
export function checkedStatus(status: unknown): number {
  if (typeof status !== "number") throw new TypeError(`the status must be a number, not ${shown(status)}`);
  if (Number.isInteger(status) && status >= 200 && status <= 599) return status;
  throw new RangeError(`the status must be a whole number from 200 to 599, not ${status}`);
}

/** Returns a path for the upstream. */
export function checkedPath(path: unknown): string {
  const text = checkedString("the path", path);
  if (text.startsWith("/") && TARGET.test(text) && !text.includes("?")) return text;
  const rule = "begin with / and be percent-encoded, without ?, # and spaces";
  throw new TypeError(`the path must ${rule}, not ${shown(text)}: use encodeURI, and setQuery for the query`);
}

/** Returns a query for the upstream, or undefined to remove it. */
export function checkedQuery(query: unknown): string | undefined {
  if (query === undefined || query === null) return undefined;
  const text = checkedString("the query", query);
  if (TARGET.test(text)) return text;
  throw new TypeError(`the query must be percent-encoded, without # and spaces, not ${shown(text)}`);
}

/** Makes a body: text becomes UTF-8, bytes stay, any other value becomes JSON. */
export function checkedBody(body: unknown): Uint8Array {
  const bytes = bodyBytes(body);
  if ((bytes.buffer as { detached?: boolean }).detached === true) {
    throw new TypeError("the bytes of the body are gone: their buffer was transferred");
  }
  if (bytes.length <= BODY_BYTES_MAX) return bytes;
  throw new RangeError(`a body has at most ${BODY_BYTES_MAX} bytes, not ${bytes.length}`);
}

function bodyBytes(body: unknown): Uint8Array {
  if (typeof body === "string") return encode(body);
  const bytes = viewedBytes(body);
  if (bytes !== undefined) return bytes;
  if (isThenable(body)) throw new TypeError("the body is a promise: write `await` before it");
  const json = JSON.stringify(body) as string | undefined;
  if (json !== undefined) return encode(json);
  throw new TypeError(`the body must be text, bytes or a value that JSON can hold, not ${shown(body)}`);
}

/** The error for a body that the gateway does not read. */
export function missingBody(phase: string): TypeError {
  return new TypeError(`the ${phase} has no body here: set \`body = "buffer"\` under [${phase}] in filter.toml`);
}

/** The bytes of a buffer or of a view of one. Undefined for any other value. */
export function viewedBytes(value: unknown): Uint8Array | undefined {
  if (value instanceof Uint8Array) return value;
  if (value instanceof ArrayBuffer || value instanceof SharedArrayBuffer) return new Uint8Array(value);
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  return undefined;
}

/** Returns the fields of a response. `headers` is a record, a list of pairs, or `Headers`. */
export function checkedFields(headers: unknown): Array<[string, string]> {
  if (headers === undefined || headers === null) return [];
  if (typeof headers !== "object") throw new TypeError(`headers must be an object, not ${shown(headers)}`);
  const pairs: unknown[] = Symbol.iterator in headers ? [...(headers as Iterable<unknown>)] : Object.entries(headers);
  const fields = pairs.map((pair): [string, string] => {
    if (!Array.isArray(pair) || pair.length !== 2) {
      throw new TypeError(`headers must hold pairs of name and value, not ${shown(pair)}`);
    }
    const name = checkedName(pair[0]);
    const value = checkedValue(name, pair[1]);
    return [name, value];
  });
  const bytes = fields.reduce((sum, [name, value]) => sum + name.length + utf8Length(value), 0);
  if (fields.length > REPLY_FIELDS_MAX || bytes > REPLY_FIELD_BYTES_MAX) {
    const bounds = `${REPLY_FIELDS_MAX} fields and ${REPLY_FIELD_BYTES_MAX} bytes of fields`;
    throw new RangeError(`a response has at most ${bounds}, not ${fields.length} and ${bytes}`);
  }
  return fields;
}

/** Checks that a response of this status may have this body. */
export function checkBodyAllowed(status: number, body: Uint8Array): void {
  if (body.length === 0 || (status !== 204 && status !== 304)) return;
  throw new TypeError(`a response with status ${status} has no body: leave the body out`);
}

/** The edits of one call: their number, and the bytes of their texts. */
let editCount = 0;
let editBytes = 0;

/** The notes that the call has set. */
const noteNames = new Set<string>();

/** Begins to count the edits and notes of a call. */
export function resetEdits(): void {
  editCount = editBytes = 0;
  if (noteNames.size > 0) noteNames.clear();
}

/** Counts one edit with these texts, and refuses what exceeds the bounds of a call. */
export function countEdit(first = "", second = ""): void {
  editCount += 1;
  editBytes += first.length + utf8Length(second);
  if (editCount <= EDITS_MAX && editBytes <= EDIT_BYTES_MAX) return;
  const bounds = `${EDITS_MAX} edits with ${EDIT_BYTES_MAX} bytes of names, values, paths and queries`;
  throw new RangeError(`one call makes at most ${bounds}`);
}

function utf8Length(text: string): number {
  return text.length < EXACT_FROM ? text.length : encode(text).length;
}

/** Returns the name of a note to set. Notes of other filters count too, but are not known here. */
export function checkedNoteName(name: unknown): string {
  const text = checkedBytes("the name of a note", checkedString("the name of a note", name), 1, NOTE_NAME_BYTES_MAX);
  if (noteNames.add(text).size <= NOTES_MAX) return text;
  throw new RangeError(`an exchange has at most ${NOTES_MAX} notes`);
}

/** Returns the value of a note. */
export function checkedNoteValue(name: string, value: unknown): string {
  const what = `note ${name}: the value`;
  return checkedBytes(what, checkedText(what, value), 0, NOTE_VALUE_BYTES_MAX);
}

/** Returns a key of the store. */
export function checkedKey(key: unknown): string {
  return checkedBytes("a key", checkedString("a key", key), 1, KEY_BYTES_MAX);
}

/** Returns a value for the store. */
export function checkedStored(key: string, value: unknown): Uint8Array {
  const bytes = viewedBytes(value) ?? encode(checkedText(`the value of key ${shown(key)}`, value));
  if (bytes.length <= STORED_BYTES_MAX) return bytes;
  throw new RangeError(`the value of key ${shown(key)} has ${bytes.length} bytes, and at most ${STORED_BYTES_MAX} fit`);
}

function checkedBytes(what: string, text: string, min: number, max: number): string {
  if (text.length >= min && text.length * 3 <= max) return text;
  const length = encode(text).length;
  if (length >= min && length <= max) return text;
  throw new RangeError(`${what} has ${min} to ${max} bytes, not ${length}`);
}

/** Returns a time to live as the gateway wants it: 0 means that the key does not expire. */
export function checkedTtl(ttlMs: unknown): number {
  if (ttlMs === undefined || ttlMs === Infinity) return 0;
  if (typeof ttlMs !== "number") throw new TypeError(`ttlMs must be a number, not ${shown(ttlMs)}`);
  if (ttlMs >= 1 && ttlMs <= TTL_MS_MAX) return Math.floor(ttlMs);
  const advice = "leave it out for a key that does not expire";
  throw new RangeError(`ttlMs must be from 1 to ${TTL_MS_MAX} milliseconds, not ${ttlMs}: ${advice}`);
}

/** Returns what to add to a counter. */
export function checkedDelta(delta: unknown): number {
  if (typeof delta !== "number") throw new TypeError(`delta must be a number, not ${shown(delta)}`);
  if (Number.isInteger(delta) && delta >= -(2 ** 31) && delta < 2 ** 31) return delta;
  throw new RangeError(`delta must be a whole number of 32 bits, not ${delta}`);
}

/** Returns a whole number for the limiter. */
export function checkedUnits(name: string, value: unknown, min: number, max: number): number {
  if (typeof value !== "number") throw new TypeError(`${name} must be a number, not ${shown(value)}`);
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw new RangeError(`${name} must be a whole number from ${min} to ${max}, not ${value}`);
}

/** Returns the keys of one read. */
export function checkedKeys(keys: unknown): string[] {
  if (!Array.isArray(keys)) throw new TypeError(`keys must be an array, not ${shown(keys)}`);
  if (keys.length > KEYS_MAX) throw new RangeError(`one call reads at most ${KEYS_MAX} keys, not ${keys.length}`);
  return keys.map(checkedKey);
}
