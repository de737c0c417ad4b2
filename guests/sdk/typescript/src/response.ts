// The response as an object. Its state is in the gateway: each method is one call. Must not know: the request.
import * as raw from "witgate:gateway/response@0.1.0";
import { decode, encode } from "./text.ts";

/** The response, to read and to change. Changes happen when the handler has ended well. */
export class Response {
  /** 200 to 599. */
  get status(): number {
    return raw.status();
  }
  set status(status: number) {
    raw.setStatus(status);
  }
  /** True where a filter or the gateway made the response. */
  get local(): boolean {
    return raw.local();
  }
  /** One field, lines joined; undefined where it is absent. */
  header(name: string): string | undefined {
    return raw.header(name) ?? undefined;
  }
  /** Each line of one field. */
  headerValues(name: string): string[] {
    return raw.headerValues(name);
  }
  /** All fields. */
  get headers(): Array<[string, string]> {
    return raw.headers();
  }
  /** This one value in the place of all. */
  setHeader(name: string, value: string): void {
    raw.setHeader(name, value);
  }
  /** One more line. */
  appendHeader(name: string, value: string): void {
    raw.appendHeader(name, value);
  }
  /** No line. */
  removeHeader(name: string): void {
    raw.removeHeader(name);
  }
  /** The whole body; needs `body = "buffer"` under [response] in filter.toml. */
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
    raw.setBody(body instanceof Uint8Array ? body : encode(typeof body === "string" ? body : JSON.stringify(body)));
  }
}
