// An answer made by a filter. Must not know: phases.
import { encode } from "./text.ts";

/** An answer: made by `reply`. */
export interface Reply {
  status: number;
  headers: Array<[string, string]>;
  body: Uint8Array;
}

/** What an answer has beside its status. */
export interface ReplyInit {
  headers?: Record<string, string>;
}

const NOTHING = new Uint8Array();

/** An answer with a text, bytes or, for anything else, JSON as its body. `status` is 200 to 599. */
export function reply(status: number, body?: unknown, init?: ReplyInit): Reply {
  const headers: Array<[string, string]> = init?.headers === undefined ? [] : Object.entries(init.headers);
  const typed = headers.some(([name]) => name.toLowerCase() === "content-type");
  if (body === undefined) return { status, headers, body: NOTHING };
  if (body instanceof Uint8Array) return { status, headers, body };
  const text = typeof body === "string" ? body : JSON.stringify(body);
  if (!typed) headers.push(["content-type", typeof body === "string" ? "text/plain; charset=utf-8" : "application/json"]);
  return { status, headers, body: encode(text) };
}
