// Values that outlive a call: `import { keyvalue } from "@witgate/filter/keyvalue"`, with `services = ["keyvalue"]` in filter.toml
// and `capabilities: [keyvalue]` in gateway.yaml. A module of its own, so that a filter that does not want it does not import it.
import * as raw from "witgate:gateway/keyvalue@0.1.0";
import { decode, encode } from "./text.ts";

/** One store for all instances of this filter; each function is atomic. They throw an Error where the store says no. */
export const keyvalue = {
  /** The value of a key; undefined where it is absent or expired. */
  get(key: string): string | undefined {
    const value = told(() => raw.get(key)) ?? undefined;
    return value === undefined ? undefined : decode(value);
  },
  /** Sets a key, for `ttlMs` milliseconds or, with 0, for good. */
  set(key: string, value: string, ttlMs = 0): void {
    told(() => raw.set(key, encode(value), ttlMs));
  },
  /** Removes a key; true where it was there. */
  delete(key: string): boolean {
    return told(() => raw.delete(key));
  },
  /** Adds to a counter and gives the sum. Only a new counter gets the `ttlMs`. */
  increment(key: string, delta = 1, ttlMs = 0): number {
    return told(() => raw.increment(key, delta, ttlMs));
  },
};

/** The gateway's refusals are plain objects: an author expects an Error. */
function told<T>(call: () => T): T {
  try {
    return call();
  } catch (refusal) {
    const error = ((refusal as { payload?: raw.Error }).payload ?? refusal) as raw.Error;
    if (typeof error === "object" && error !== null && "tag" in error) {
      throw new Error(`keyvalue: ${error.tag}${error.tag === "unavailable" ? `: ${error.val}` : ""}`);
    }
    throw refusal;
  }
}
