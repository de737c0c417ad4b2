// The globals that `globals.ts` puts in place, for the compiler: there is no DOM and no Node in a filter.
declare var console: Record<"debug" | "log" | "info" | "warn" | "error", (...args: unknown[]) => void>;
declare var crypto: { randomUUID(): string; getRandomValues<T extends ArrayBufferView>(view: T): T };
declare var performance: { now(): number };
declare class TextEncoder {
  readonly encoding: "utf-8";
  encode(text?: string): Uint8Array;
}
declare class TextDecoder {
  readonly encoding: "utf-8";
  decode(bytes?: Uint8Array | ArrayBuffer): string;
}
