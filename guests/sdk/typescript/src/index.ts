// What a filter's author imports: `import { config, log, reply, type Request } from "@witgate/filter"`.
//
// Everything here is thin: an object's method is one call of the gateway (the functions of wit/), nothing is copied that nobody asked for.
// A filter is a module that exports `onRequest`, `onResponse` or both; returning nothing lets the exchange go on.
import * as rawConfig from "witgate:gateway/config@0.1.0";
import * as exchange from "witgate:gateway/exchange@0.1.0";
import * as rawLog from "witgate:gateway/log@0.1.0";
import type { Reply } from "./reply.ts";

export { reply, type Reply, type ReplyInit } from "./reply.ts";
export type { Request, ReadonlyRequest } from "./request.ts";
export type { Response } from "./response.ts";
import type { ReadonlyRequest, Request } from "./request.ts";
import type { Response } from "./response.ts";

/** The request phase: return nothing to let the request go on with your edits, or a reply to answer here. */
export type OnRequest = (request: Request) => Reply | void;
/** The response phase: return nothing to let the response go on with your edits, or a reply to put in its place. */
export type OnResponse = (response: Response, request: ReadonlyRequest) => Reply | void;

/** The filter's configuration: what stands under `config:` in gateway.yaml. */
export const config = {
  /** The value of a key as text; undefined where it is not set. Lists and mappings come as JSON text. */
  get(key: string): string | undefined {
    return rawConfig.get(key) ?? undefined;
  },
  /** The value of a key as a number; throws where it is none. */
  number(key: string, fallback: number): number {
    const text = rawConfig.get(key) ?? undefined;
    if (text === undefined) return fallback;
    const number = Number(text);
    if (!Number.isFinite(number)) throw new TypeError(`config ${key}: ${JSON.stringify(text)} is not a number`);
    return number;
  },
  /** All keys that are set. */
  keys(): string[] {
    return rawConfig.keys();
  },
};

/** Lines for the gateway's log. `console` goes here too. */
export const log = {
  trace: (message: string): void => rawLog.write("trace", message),
  debug: (message: string): void => rawLog.write("debug", message),
  info: (message: string): void => rawLog.write("info", message),
  warn: (message: string): void => rawLog.write("warn", message),
  error: (message: string): void => rawLog.write("error", message),
};

/** Who sent the request. */
export function client(): exchange.ClientInfo {
  return exchange.client();
}

/** The name of the route in gateway.yaml. */
export function route(): string {
  return exchange.route();
}

/** Strings attached to the exchange: how a filter's two phases, and filters among each other, speak. */
export const notes = {
  get(name: string): string | undefined {
    return exchange.note(name) ?? undefined;
  },
  set(name: string, value: string): void {
    exchange.setNote(name, value);
  },
};
