// The types of the globals that globals.ts defines. A filter has neither the DOM nor Node.

/** Writes to the gateway's log. `log` writes at level info. */
declare var console: Record<"debug" | "log" | "info" | "warn" | "error", (...args: unknown[]) => void>;
/** Random values from the gateway. Works only inside a handler. */
declare var crypto: { randomUUID(): string; getRandomValues<T extends ArrayBufferView>(view: T): T };
/** Milliseconds since an arbitrary moment, for measuring durations. Works only inside a handler. */
declare var performance: { now(): number };
/** Encodes text as UTF-8. */
declare class TextEncoder {
  readonly encoding: "utf-8";
  encode(text?: string): Uint8Array;
}
/** Decodes UTF-8. Invalid bytes become U+FFFD. */
declare class TextDecoder {
  readonly encoding: "utf-8";
  decode(bytes?: Uint8Array | ArrayBuffer): string;
}
