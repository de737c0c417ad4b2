// The key-value store: `import { keyvalue } from "@witgate/filter/keyvalue"`.
//
// It is a module of its own because a component may import only what its manifest asks for.
import * as raw from "witgate:gateway/keyvalue@0.1.0";
import { decode, encode } from "./text.ts";

/**
 * Values that outlive a call. Requires `services = ["keyvalue"]` in filter.toml and
 * `capabilities: [keyvalue]` in gateway.yaml.
 *
 * All instances of the filter share one store; other filters cannot see it. Each function is
 * atomic. A key has 1 to 256 bytes, a value at most 64 KiB. Each function throws an Error if the
 * store refuses, for example because it is full.
 */
export const keyvalue = {
  /** Returns the value of a key, or undefined if the key is absent or has expired. */
  get(key: string): string | undefined {
    const value = callStore("get", key, () => raw.get(key)) ?? undefined;
    return value === undefined ? undefined : decode(value);
  },
  /** Sets a key. It expires after `ttlMs` milliseconds; with 0 it does not expire. */
  set(key: string, value: string, ttlMs = 0): void {
    callStore("set", key, () => raw.set(key, encode(value), ttlMs));
  },
  /** Removes a key. Returns true if the key was there and had not expired. */
  delete(key: string): boolean {
    return callStore("delete", key, () => raw.delete(key));
  },
  /**
   * Adds `delta` to a counter and returns the sum, which must fit into 32 bits.
   *
   * A new counter starts at 0 and expires after `ttlMs` milliseconds (0: does not expire). Later
   * increments do not prolong its life.
   */
  increment(key: string, delta = 1, ttlMs = 0): number {
    return callStore("increment", key, () => raw.increment(key, delta, ttlMs));
  },
};

const REASONS = {
  "too-large": "a key has 1 to 256 bytes and a value at most 64 KiB",
  full: "raise filters.NAME.keyvalue in gateway.yaml, or let keys expire",
  "not-a-number": "the value is not a counter, or the sum does not fit into 32 bits",
};

/** Calls the store. Errors of the gateway are plain objects: throws an Error with a message. */
function callStore<T>(operation: string, key: string, call: () => T): T {
  try {
    return call();
  } catch (refusal) {
    const error = ((refusal as { payload?: raw.Error }).payload ?? refusal) as raw.Error;
    if (typeof error === "object" && error !== null && "tag" in error) {
      const reason = error.tag === "unavailable" ? error.val : REASONS[error.tag];
      throw new Error(`keyvalue.${operation} of key ${JSON.stringify(key)}: ${error.tag}: ${reason}`);
    }
    throw refusal;
  }
}
