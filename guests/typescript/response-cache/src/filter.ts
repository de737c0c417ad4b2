// Keeps responses in the key-value store and answers with them, as a shared cache (RFC 9111).
//
// It is careful rather than complete. It keeps a response to GET with status 200 whose
// cache-control names a lifetime, and passes on whatever else it meets: requests with
// authorization, cookies, conditions or ranges, responses with set-cookie or a vary other than
// accept-encoding, and bodies that the store has no room for.
import { config, log, notes, reply, type Reply, type Request, type Response } from "@witgate/filter";
import { keyvalue } from "@witgate/filter/keyvalue";

/** What is kept of a response, before its body. */
interface Head {
  /** When it was kept, in milliseconds since 1970. */
  at: number;
  headers: Array<[string, string]>;
}

const KEY = "response-cache.key";
const KEY_BYTES_MAX = 256;
/** A value of the store has at most 64 KiB. */
const ENTRY_BYTES_MAX = 64 << 10;
/** Fields that make a request personal, conditional or partial. */
const PASSED_ON = ["authorization", "cookie", "range", "if-match", "if-none-match", "if-modified-since", "if-range"];
/** Fields of the exchange that brought the response, which another client must not get. */
const LEFT_OUT = ["age", "connection", "content-length", "date", "keep-alive", "server-timing", "x-request-id"];

export function onRequest(request: Request): Reply | void {
  const directives = cacheControl(request.header("cache-control"));
  const isPassedOn = PASSED_ON.some((name) => request.header(name) !== undefined);
  if (request.method !== "GET" || isPassedOn || directives.has("no-store")) return;
  const key = [request.authority, request.path, request.query ?? "", request.header("accept-encoding") ?? ""].join(" ");
  if (new TextEncoder().encode(key).length > KEY_BYTES_MAX) return;
  notes.set(KEY, key);
  if (directives.has("no-cache") || directives.get("max-age") === "0") return;
  const entry = keyvalue.getBytes(key);
  if (entry === undefined) return;
  const end = entry.indexOf(0x0a);
  const { at, headers } = JSON.parse(new TextDecoder().decode(entry.subarray(0, end))) as Head;
  const age = Math.max(0, Math.floor((Date.now() - at) / 1000));
  return reply(200, entry.subarray(end + 1), { headers: [...headers, ["age", String(age)], ["x-cache", "hit"]] });
}

export function onResponse(response: Response): void {
  const key = notes.get(KEY);
  if (key === undefined) return;
  response.setHeader("x-cache", "miss");
  const seconds = lifetime(response);
  if (seconds <= 0) return;
  const headers = response.headers.filter(([name]) => !LEFT_OUT.includes(name) && name !== "x-cache");
  const head = new TextEncoder().encode(`${JSON.stringify({ at: Date.now(), headers } satisfies Head)}\n`);
  const body = response.bytes();
  if (head.length + body.length > ENTRY_BYTES_MAX) return;
  const entry = new Uint8Array(head.length + body.length);
  entry.set(head);
  entry.set(body, head.length);
  try {
    keyvalue.set(key, entry, seconds * 1000);
  } catch (error) {
    // The response is as good without the cache.
    log.warn(String(error));
  }
}

/** The seconds that a response may be kept; 0 if it must not be. */
function lifetime(response: Response): number {
  const varies = (response.header("vary") ?? "").split(",").map((name) => name.trim().toLowerCase());
  const isPlain = varies.every((name) => name === "" || name === "accept-encoding");
  if (response.status !== 200 || response.local || !isPlain || response.header("set-cookie") !== undefined) return 0;
  const directives = cacheControl(response.header("cache-control"));
  if (["no-store", "no-cache", "private"].some((name) => directives.has(name))) return 0;
  const said = Number(directives.get("s-maxage") ?? directives.get("max-age") ?? 0);
  const left = said - Number(response.header("age") ?? 0);
  return Number.isFinite(left) ? Math.min(Math.floor(left), config.number("max_seconds", 60)) : 0;
}

/** The directives of a cache-control field, by name. */
function cacheControl(field: string | undefined): Map<string, string> {
  const directives = new Map<string, string>();
  for (const part of (field ?? "").split(",")) {
    const [name = "", value = ""] = part.trim().toLowerCase().split("=");
    if (name !== "") directives.set(name, value.replaceAll('"', ""));
  }
  return directives;
}
