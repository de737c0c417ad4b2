// The request as an object. Its state is in the gateway: each method is one call. Must not know: the response.
import * as raw from "witgate:gateway/request@0.1.0";
import { decode, encode } from "./text.ts";

/** The request, to read. */
export class ReadonlyRequest {
  /** `GET`, `POST`, … */
  get method(): string {
    return raw.method();
  }
  /** `http` or `https`. */
  get scheme(): string {
    return raw.scheme();
  }
  /** Host and port. */
  get authority(): string {
    return raw.authority();
  }
  /** The path, percent-encoded. */
  get path(): string {
    return raw.path();
  }
  /** What follows the `?`, undefined where there is none. */
  get query(): string | undefined {
    return raw.query() ?? undefined;
  }
  /** One field, lines joined; undefined where it is absent. Case does not matter. */
  header(name: string): string | undefined {
    return raw.header(name) ?? undefined;
  }
  /** Each line of one field. */
  headerValues(name: string): string[] {
    return raw.headerValues(name);
  }
  /** All fields. One `header(name)` costs less. */
  get headers(): Array<[string, string]> {
    return raw.headers();
  }
}

/** The setters' functions; given by the entry, since only filters with a request phase import them. */
export interface RequestEdit {
  setHeader(name: string, value: string): void;
  appendHeader(name: string, value: string): void;
  removeHeader(name: string): void;
  setPath(path: string): void;
  setQuery(query: string | undefined): void;
  setBody(body: Uint8Array): void;
}

/** The request, to read and to change. Changes happen when the handler has ended well. */
export class Request extends ReadonlyRequest {
  readonly #edit: RequestEdit;

  constructor(edit: RequestEdit) {
    super();
    this.#edit = edit;
  }
  /** This one value in the place of all. */
  setHeader(name: string, value: string): void {
    this.#edit.setHeader(name, value);
  }
  /** One more line. */
  appendHeader(name: string, value: string): void {
    this.#edit.appendHeader(name, value);
  }
  /** No line. */
  removeHeader(name: string): void {
    this.#edit.removeHeader(name);
  }
  /** Another path for the upstream. */
  setPath(path: string): void {
    this.#edit.setPath(path);
  }
  /** Another query for the upstream; undefined for none. */
  setQuery(query: string | undefined): void {
    this.#edit.setQuery(query);
  }
  /** The whole body; needs `body = "buffer"` under [request] in filter.toml. */
  bytes(): Uint8Array {
    return raw.body();
  }
  /** The whole body as text. */
  text(): string {
    return decode(raw.body());
  }
  /** The whole body as JSON; throws where it is none. */
  json(): unknown {
    return JSON.parse(this.text());
  }
  /** Another body: bytes, text, or anything else as JSON. */
  setBody(body: unknown): void {
    this.#edit.setBody(body instanceof Uint8Array ? body : encode(typeof body === "string" ? body : JSON.stringify(body)));
  }
}
