// The response as an object. Its state is in the gateway: each method calls one function of wit/.
//
// This module does not know the request.
import * as raw from "witgate:gateway/response@0.1.0";
import {
  checkedBody,
  checkedEdit,
  checkedName,
  checkedReadName,
  checkedStatus,
  countEdit,
  missingBody,
  type TextValue,
} from "./check.ts";
import { decodeBody } from "./text.ts";

/**
 * The response, for reading and changing.
 *
 * A getter returns the new value as soon as it is set. The gateway applies the edits when
 * `onResponse` returns nothing; it discards them if the handler returns a reply or throws.
 *
 * The setters throw a TypeError or RangeError for a status, name or value that HTTP forbids and for
 * a field that only the gateway writes, such as `content-length` (wit/request.wit has the list).
 * They throw a RangeError for more than 256 edits or 256 KiB of names and values in one call.
 * Finite numbers, bigints and booleans are converted to text.
 */
export class Response {
  readonly #hasBody: boolean;

  /** Called by the entry, not by filters. */
  constructor(hasBody = true) {
    this.#hasBody = hasBody;
  }
  /** The status code, 200 to 599. */
  get status(): number {
    return raw.status();
  }
  set status(status: number) {
    const checked = checkedStatus(status);
    countEdit();
    raw.setStatus(checked);
  }
  /** True if a filter or the gateway made the response, false if the upstream sent it. */
  get local(): boolean {
    return raw.local();
  }
  /**
   * Returns the value of a header field, or undefined if the field is absent. The case of the name
   * does not matter. Several lines are joined with `, `; use `headerValues` for `set-cookie`.
   */
  header(name: string): string | undefined {
    return raw.header(typeof name === "string" && name.isWellFormed() ? name : checkedReadName(name)) ?? undefined;
  }
  /** Returns the value of each line of a header field, in order. Empty if the field is absent. */
  headerValues(name: string): string[] {
    return raw.headerValues(checkedReadName(name));
  }
  /**
   * Like `header`, but returns the bytes as they were received: for values that are not UTF-8,
   * whose invalid bytes `header` shows as U+FFFD.
   */
  headerBytes(name: string): Uint8Array | undefined {
    return raw.headerBytes(checkedReadName(name)) ?? undefined;
  }
  /** All header fields in order, names in lower case. `header(name)` costs less. */
  get headers(): Array<[string, string]> {
    return raw.headers();
  }
  /** Sets a header field. Replaces all lines of the field. */
  setHeader(name: string, value: TextValue): void {
    raw.setHeader(name, checkedEdit(name, value));
  }
  /** Adds a line to a header field. Keeps the lines that the field already has. */
  appendHeader(name: string, value: TextValue): void {
    raw.appendHeader(name, checkedEdit(name, value));
  }
  /** Removes all lines of a header field. Does nothing if the field is absent. */
  removeHeader(name: string): void {
    const checked = checkedName(name);
    countEdit(checked);
    raw.removeHeader(checked);
  }
  /**
   * Returns the whole body as the upstream sent it, still encoded if `content-encoding` is set.
   * Requires `body = "buffer"` under `[response]` in filter.toml.
   */
  bytes(): Uint8Array {
    if (!this.#hasBody) throw missingBody("response");
    return raw.body();
  }
  /**
   * Returns the whole body as text. Invalid UTF-8 becomes U+FFFD, and a byte order mark at the
   * beginning is dropped. Requires what `bytes` does.
   */
  text(): string {
    return decodeBody(this.bytes());
  }
  /**
   * Returns the whole body, parsed as JSON. Requires what `bytes` does.
   *
   * @throws SyntaxError if the body is not valid JSON, an empty body included.
   */
  json(): unknown {
    return JSON.parse(this.text());
  }
  /**
   * Replaces the body, with at most 8 MiB. Bytes and text are sent as they are, any other value as
   * JSON.
   */
  setBody(body: unknown): void {
    const bytes = checkedBody(body);
    countEdit();
    raw.setBody(bytes);
  }
}
