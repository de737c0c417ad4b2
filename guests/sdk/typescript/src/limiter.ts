// Rate limits: `import { limiter } from "@witgate/filter/limiter"`.
//
// It is a module of its own because a component may import only what its manifest asks for.
import * as raw from "witgate:gateway/limiter@0.1.0";
import { checkedKey, checkedUnits, shown } from "./check.ts";

/** A limit. A sliding window allows `limit` units in `windowMs`. */
export type Policy = {
  /** Units in a window, 1 to 1,000,000. */
  limit: number;
  /** The length of the window in milliseconds, 1 to 2,678,400,000 (31 days). */
  windowMs: number;
  /**
   * `sliding-window` if it is left out. A `token-bucket` holds `burst` units and gains `limit`
   * units in `windowMs`.
   */
  algorithm?: "sliding-window" | "token-bucket";
  /** The units that a token bucket holds, 1 to 1,000,000; `limit` if it is left out. */
  burst?: number;
};

/** The decision of the limiter. */
export type Decision = {
  /** Whether the units were taken. If not, nothing was taken. */
  allowed: boolean;
  /** The units that can be taken at this moment. */
  remaining: number;
  /** Milliseconds until the current window ends, or until the bucket is full again. */
  resetMs: number;
  /** Milliseconds until the same request can succeed. 0 if it was allowed. */
  retryAfterMs: number;
};

/**
 * Limits rates. Requires `services = ["limiter"]` in filter.toml and `capabilities: [limiter]` in
 * gateway.yaml.
 *
 * All instances of the filter share the counts; other filters cannot see them.
 */
export const limiter = {
  /**
   * Takes `cost` units of a key if the policy allows it. A cost of 0 takes nothing and shows what
   * remains.
   *
   * The function is atomic: of simultaneous calls exactly as many succeed as the policy allows. A
   * key has 1 to 256 bytes; each combination of key and policy has a count of its own.
   *
   * Throws an Error if the store cannot be reached, a TypeError for a value of a wrong type, and a
   * RangeError for a value out of range.
   */
  take(key: string, policy: Policy, cost = 1): Decision {
    const checked = checkedKey(key);
    const wanted = {
      algorithm: checkedAlgorithm(policy.algorithm ?? "sliding-window"),
      limit: checkedUnits("limit", policy.limit, 1, 1_000_000),
      windowMs: checkedUnits("windowMs", policy.windowMs, 1, 2_678_400_000),
      burst: policy.burst === undefined ? 0 : checkedUnits("burst", policy.burst, 1, 1_000_000),
    };
    const units = checkedUnits("cost", cost, 0, 1_000_000);
    try {
      return raw.take(checked, units, wanted);
    } catch (refusal) {
      const error = ((refusal as { payload?: raw.Error }).payload ?? refusal) as raw.Error;
      if (typeof error === "object" && error !== null && "tag" in error) {
        const reason = error.tag === "too-large" ? "a key has 1 to 256 bytes" : error.val;
        throw new Error(`limiter.take of key ${JSON.stringify(key)}: ${error.tag}: ${reason}`);
      }
      throw refusal;
    }
  },
};

function checkedAlgorithm(value: unknown): raw.Algorithm {
  if (value === "sliding-window" || value === "token-bucket") return value;
  throw new TypeError(`algorithm must be "sliding-window" or "token-bucket", not ${shown(value)}`);
}
