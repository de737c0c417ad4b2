// What a filter imports: `import { config, log, reply, type Request } from "@witgate/filter"`.
//
// A filter is a module that exports `onRequest`, `onResponse` or both. The objects hold no state:
// each method calls one function of the gateway (wit/), so a filter pays only for what it asks.
import * as rawConfig from "witgate:gateway/config@0.1.0";
import * as exchange from "witgate:gateway/exchange@0.1.0";
import * as rawLog from "witgate:gateway/log@0.1.0";
import { checkedNoteName, checkedNoteValue, checkedString, type TextValue } from "./check.ts";
import { logText } from "./failure.ts";
import type { Reply } from "./reply.ts";

export type { TextValue } from "./check.ts";
export { reply, type Reply, type ReplyInit } from "./reply.ts";
export type { Request, ReadonlyRequest } from "./request.ts";
export type { Response } from "./response.ts";
import type { ReadonlyRequest, Request } from "./request.ts";
import type { Response } from "./response.ts";

/**
 * The handler of the request phase.
 *
 * Return nothing to let the request continue with your edits. Return a {@link Reply} to answer the
 * client here; the upstream then does not see the request, and your edits are discarded.
 *
 * If the handler throws, your edits are discarded too and the client receives status 502. The
 * gateway logs the message with your file and line.
 *
 * The handler may be `async`. Everything that needs no time runs before the call ends: `await`,
 * `.then` and `queueMicrotask`. There are no timers, so a promise that is then still pending is an
 * error, and so is a rejection that nothing handles.
 */
export type OnRequest = (request: Request) => Reply | void | Promise<Reply | void>;

/**
 * The handler of the response phase.
 *
 * Return nothing to let the response continue with your edits. Return a {@link Reply} to replace
 * the whole response. Exceptions have the same effect as in {@link OnRequest}.
 */
export type OnResponse = (
  response: Response,
  request: ReadonlyRequest,
) => Reply | void | Promise<Reply | void>;

/** The configuration of the filter: the values under `config:` in gateway.yaml. */
export const config = {
  /**
   * Returns the value of a key as text, or undefined if the key is not set. A value that is not a
   * string is returned as JSON text.
   */
  get(key: string): string | undefined {
    const isText = typeof key === "string" && key.isWellFormed();
    return rawConfig.get(isText ? key : checkedString("the key", key)) ?? undefined;
  },

  /**
   * Returns the value of a key as a number, or `fallback` if the key is not set.
   *
   * @throws TypeError if the value is not a finite number.
   */
  number(key: string, fallback: number): number {
    const text = config.get(key);
    if (text === undefined) return fallback;
    const number = text.trim() === "" ? NaN : Number(text);
    if (Number.isFinite(number)) return number;
    throw new TypeError(`config ${key}: ${JSON.stringify(text)} is not a number: correct it in gateway.yaml`);
  },

  /** Returns all keys that are set, sorted. */
  keys(): string[] {
    return rawConfig.keys();
  },
};

/**
 * Writes lines to the gateway's log, which adds the name of the filter and the id of the exchange.
 * `console` writes there too.
 *
 * A line is cut after 4 KiB. Lines after the 64th of a call are dropped.
 */
export const log = {
  /** Writes a detail of a single step. */
  trace: (message: string): void => rawLog.write("trace", logText(message)),
  /** Writes information for the author of the filter. */
  debug: (message: string): void => rawLog.write("debug", logText(message)),
  /** Writes an event of normal operation. */
  info: (message: string): void => rawLog.write("info", logText(message)),
  /** Writes a condition that an operator should look at. */
  warn: (message: string): void => rawLog.write("warn", logText(message)),
  /** Writes a failure. */
  error: (message: string): void => rawLog.write("error", logText(message)),
};

/** Returns the client that sent the request: its address and, if encrypted, its TLS connection. */
export function client(): exchange.ClientInfo {
  return exchange.client();
}

/**
 * Returns the id of the exchange: 32 lower-case hexadecimal digits. The gateway's log lines carry
 * it, and the upstream receives it as `x-request-id`.
 */
export function exchangeId(): string {
  return exchange.id();
}

/** Returns the name of the route in gateway.yaml. */
export function route(): string {
  return exchange.route();
}

/**
 * Notes: named strings that are attached to the exchange. Use them to pass data from `onRequest` to
 * `onResponse`, or to a later filter. Neither the client nor the upstream sees them.
 *
 * A filter may add 32 notes to an exchange; one more ends the call. A name has 1 to 64 bytes, a
 * value at most 4 KiB: otherwise `set` throws a RangeError. Begin a name with the name of your
 * filter: `limiter.remaining`.
 */
export const notes = {
  /** Returns the value of a note, or undefined if no filter has set it. */
  get(name: string): string | undefined {
    return exchange.note(checkedString("the name of a note", name)) ?? undefined;
  },
  /** Sets a note. It is discarded if the handler throws. */
  set(name: string, value: TextValue): void {
    const checked = checkedNoteName(name);
    exchange.setNote(checked, checkedNoteValue(checked, value));
  },
};
