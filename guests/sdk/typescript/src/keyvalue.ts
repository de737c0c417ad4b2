// The key-value store: `import { keyvalue } from "@witgate/filter/keyvalue"`.
//
// It is a module of its own because a component may import only what its manifest asks for.
import * as raw from "witgate:gateway/keyvalue@0.1.0";
import { checkedDelta, checkedKey, checkedKeys, checkedStored, checkedTtl, type TextValue } from "./check.ts";
import { decode } from "./text.ts";

/**
 * Values that outlive a call. Requires `services = ["keyvalue"]` in filter.toml and
 * `capabilities: [keyvalue]` in gateway.yaml.
 *
 * All instances of the filter share one store; other filters cannot see it. Each function is
 * atomic. A key has 1 to 256 bytes, a value at most 64 KiB. Each function throws an Error if the
 * store refuses, for example because it is full, a TypeError for a value of a wrong type, and a
 * RangeError for a value out of range.
 *
 * `ttlMs` is from 1 to 4,294,967,295 milliseconds; a fraction is cut off. A key without `ttlMs` (or
 * with `Infinity`) does not expire.
 */
export const keyvalue = {
  /** Returns the value of a key as text, or undefined if the key is absent or has expired. */
  get(key: string): string | undefined {
    const value = keyvalue.getBytes(key);
    return value === undefined ? undefined : decode(value);
  },
  /** Returns the value of a key as bytes, or undefined if the key is absent or has expired. */
  getBytes(key: string): Uint8Array | undefined {
    const checked = checkedKey(key);
    return callStore("get", checked, () => raw.get(checked)) ?? undefined;
  },
  /**
   * Returns the values of at most 64 keys as text, in the order of `keys`. An absent or expired key
   * gives undefined.
   */
  getMany(keys: readonly string[]): Array<string | undefined> {
    return keyvalue.getManyBytes(keys).map((value) => (value === undefined ? undefined : decode(value)));
  },
  /** Like `getMany`, with the values as bytes. */
  getManyBytes(keys: readonly string[]): Array<Uint8Array | undefined> {
    const checked = checkedKeys(keys);
    return callStore("getMany", checked[0] ?? "", () => raw.getMany(checked)).map((value) => value ?? undefined);
  },
  /** Sets a key to a text, a number, a boolean or bytes. */
  set(key: string, value: TextValue | Uint8Array, ttlMs?: number): void {
    const checked = checkedKey(key);
    const bytes = checkedStored(checked, value);
    const ttl = checkedTtl(ttlMs);
    callStore("set", checked, () => raw.set(checked, bytes, ttl));
  },
  /** Removes a key. Returns true if the key was there and had not expired. */
  delete(key: string): boolean {
    const checked = checkedKey(key);
    return callStore("delete", checked, () => raw.delete(checked));
  },
  /**
   * Adds `delta` to a counter and returns the sum, which must fit into 32 bits.
   *
   * A new counter starts at 0 and expires after `ttlMs` milliseconds. Later increments do not
   * prolong its life.
   */
  increment(key: string, delta = 1, ttlMs?: number): number {
    const checked = checkedKey(key);
    const added = checkedDelta(delta);
    const ttl = checkedTtl(ttlMs);
    return callStore("increment", checked, () => raw.increment(checked, added, ttl));
  },
  /**
   * Sets a key if its value is `expected`, or if the key is absent and `expected` is undefined.
   * Returns true if it did; on false read the value again and decide anew.
   *
   * A counter has its decimal text as the value. The new value is not a counter.
   */
  compareAndSwap(
    key: string,
    expected: TextValue | Uint8Array | undefined,
    value: TextValue | Uint8Array,
    ttlMs?: number,
  ): boolean {
    const checked = checkedKey(key);
    const before = expected === undefined ? undefined : checkedStored(checked, expected);
    const bytes = checkedStored(checked, value);
    const ttl = checkedTtl(ttlMs);
    return callStore("compareAndSwap", checked, () => raw.compareAndSwap(checked, before, bytes, ttl));
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
