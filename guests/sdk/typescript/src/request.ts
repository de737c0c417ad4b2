// The request as an object. Its state is in the gateway: each method calls one function of wit/.
//
// This module does not know the response.
import * as raw from "witgate:gateway/request@0.1.0";
import {
  checkedBody,
  checkedEdit,
  checkedName,
  checkedPath,
  checkedQuery,
  checkedReadName,
  countEdit,
  missingBody,
  type TextValue,
} from "./check.ts";
import { decodeBody } from "./text.ts";

/** The request, for reading. In `onResponse` it is the request as all filters left it. */
export class ReadonlyRequest {
  /** The method, such as `GET`. */
  get method(): string {
    return raw.method();
  }
  /** `https` if the client reached the gateway over TLS, otherwise `http`. */
  get scheme(): string {
    return raw.scheme();
  }
  /** The host, and the port if the client gave one, in lower case. Empty if there is no host. */
  get authority(): string {
    return raw.authority();
  }
  /** The path without the query, percent-encoded. It begins with `/`. */
  get path(): string {
    return raw.path();
  }
  /** The query without the `?`. Undefined if there is no `?`. */
  get query(): string | undefined {
    return raw.query() ?? undefined;
  }
  /**
   * Returns the value of a header field, or undefined if the field is absent. The case of the name
   * does not matter. Several lines are joined with `, ` (those of `cookie` with `; `).
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
}

/**
 * The functions that change the request. The entry passes them in, because only filters with a
 * request phase may import them.
 */
export interface RequestEdit {
  setHeader(name: string, value: string): void;
  appendHeader(name: string, value: string): void;
  removeHeader(name: string): void;
  setPath(path: string): void;
  setQuery(query: string | undefined): void;
  setBody(body: Uint8Array): void;
}

/**
 * The request, for reading and changing.
 *
 * A getter returns the new value as soon as it is set. The gateway applies the edits when
 * `onRequest` returns nothing; it discards them if the handler returns a reply or throws.
 *
 * The setters throw a TypeError for a name or value that HTTP forbids and for a field that only the
 * gateway writes, such as `host` or `content-length` (wit/request.wit has the list). They throw a
 * RangeError for more than 256 edits or 256 KiB of names, values, paths and queries in one call.
 * Finite numbers, bigints and booleans are converted to text.
 */
export class Request extends ReadonlyRequest {
  readonly #edit: RequestEdit;
  readonly #hasBody: boolean;

  /** Called by the entry, not by filters. */
  constructor(edit: RequestEdit, hasBody = true) {
    super();
    this.#edit = edit;
    this.#hasBody = hasBody;
  }
  /** Sets a header field. Replaces all lines of the field. */
  setHeader(name: string, value: TextValue): void {
    this.#edit.setHeader(name, checkedEdit(name, value));
  }
  /** Adds a line to a header field. Keeps the lines that the field already has. */
  appendHeader(name: string, value: TextValue): void {
    this.#edit.appendHeader(name, checkedEdit(name, value));
  }
  /** Removes all lines of a header field. Does nothing if the field is absent. */
  removeHeader(name: string): void {
    const checked = checkedName(name);
    countEdit(checked);
    this.#edit.removeHeader(checked);
  }
  /** Sets the path for the upstream: percent-encoded, begins with `/`, without the query. */
  setPath(path: string): void {
    const checked = checkedPath(path);
    countEdit("", checked);
    this.#edit.setPath(checked);
  }
  /** Sets the query that the upstream receives, without the `?`. Undefined removes the query. */
  setQuery(query: string | undefined): void {
    const checked = checkedQuery(query);
    countEdit("", checked);
    this.#edit.setQuery(checked);
  }
  /** Returns the whole body. Requires `body = "buffer"` under `[request]` in filter.toml. */
  bytes(): Uint8Array {
    if (!this.#hasBody) throw missingBody("request");
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
    this.#edit.setBody(bytes);
  }
}
