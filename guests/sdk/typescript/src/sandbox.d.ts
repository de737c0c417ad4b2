// The types of the globals that globals.ts and QuickJS define. A filter has neither the DOM nor
// Node. absent.json says what to use in place of a global that is missing here.

type Console = Record<
  "debug" | "trace" | "log" | "info" | "warn" | "error" | "table" | "dir" | "group" | "groupCollapsed" | "groupEnd",
  (...args: unknown[]) => void
> &
  Record<"count" | "countReset" | "time" | "timeEnd", (label?: string) => void>;
/** Writes to the gateway's log. `log` writes at level info. Nothing is written at build time. */
declare var console: Console & { assert(condition?: unknown, ...args: unknown[]): void };
/**
 * Random values from the gateway. Works only inside a handler. For `subtle`, add
 * `services = ["crypto"]` to filter.toml, and import it from `@witgate/filter/crypto`.
 */
declare var crypto: { randomUUID(): string; getRandomValues<T extends ArrayBufferView>(view: T): T };
/** Milliseconds since an arbitrary moment, for measuring durations. 0 at build time. */
declare var performance: { now(): number };

/** Runs a function after the code that runs at present, before the call ends. */
declare function queueMicrotask(job: () => void): void;
/** Copies a value deeply. */
declare function structuredClone<T>(value: T, options?: { transfer?: ArrayBuffer[] }): T;
/** Encodes a string, whose characters stand for bytes, as base64. */
declare function btoa(binary: string): string;
/** Decodes base64 to a string whose characters stand for bytes. */
declare function atob(base64: string): string;

/** Encodes text as UTF-8. */
declare class TextEncoder {
  readonly encoding: "utf-8";
  encode(text?: string): Uint8Array<ArrayBuffer>;
  encodeInto(text: string, destination: Uint8Array): { read: number; written: number };
}
/**
 * Decodes UTF-8, UTF-16 and the encodings of one byte (`latin1`, `windows-1251`, `koi8-r`). A label
 * of another encoding, such as `shift_jis`, is a RangeError.
 */
declare class TextDecoder {
  constructor(label?: string, options?: { fatal?: boolean; ignoreBOM?: boolean });
  readonly encoding: string;
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;
  decode(bytes?: ArrayBuffer | SharedArrayBuffer | ArrayBufferView, options?: { stream?: boolean }): string;
}

/** An error with a name such as `DataCloneError`. */
declare class DOMException extends Error {
  constructor(message?: string, name?: string);
  readonly code: number;
}

/** A URL by the URL Standard. Host names must be ASCII; write others in their `xn--` form. */
declare class URL {
  constructor(url: string | URL, base?: string | URL);
  static canParse(url: string | URL, base?: string | URL): boolean;
  static parse(url: string | URL, base?: string | URL): URL | null;
  href: string;
  readonly origin: string;
  protocol: string;
  username: string;
  password: string;
  host: string;
  hostname: string;
  port: string;
  pathname: string;
  search: string;
  readonly searchParams: URLSearchParams;
  hash: string;
  toString(): string;
  toJSON(): string;
}
/** The parameters of a query. */
declare class URLSearchParams {
  constructor(init?: string | Iterable<readonly [string, string]> | Record<string, string>);
  readonly size: number;
  append(name: string, value: string): void;
  delete(name: string, value?: string): void;
  get(name: string): string | null;
  getAll(name: string): string[];
  has(name: string, value?: string): boolean;
  set(name: string, value: string): void;
  sort(): void;
  forEach(call: (value: string, name: string, parameters: URLSearchParams) => void, thisArg?: unknown): void;
  entries(): IterableIterator<[string, string]>;
  keys(): IterableIterator<string>;
  values(): IterableIterator<string>;
  [Symbol.iterator](): IterableIterator<[string, string]>;
  toString(): string;
}
/** Header fields by the Fetch Standard, for use inside a filter and for `reply`. */
declare class Headers {
  constructor(init?: Iterable<readonly [string, string]> | Record<string, string>);
  append(name: string, value: string): void;
  delete(name: string): void;
  get(name: string): string | null;
  getSetCookie(): string[];
  has(name: string): boolean;
  set(name: string, value: string): void;
  forEach(call: (value: string, name: string, headers: Headers) => void, thisArg?: unknown): void;
  entries(): IterableIterator<[string, string]>;
  keys(): IterableIterator<string>;
  values(): IterableIterator<string>;
  [Symbol.iterator](): IterableIterator<[string, string]>;
}
