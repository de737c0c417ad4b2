// Defines the globals that an author expects and that QuickJS lacks or implements without a system:
// the clock, randomness, `console`, promises and Web APIs. The entry imports this module before the
// author's module.
//
// The memory of a filter is a snapshot that is taken at build time, when there is no gateway. The
// clock then stands still at BUILD_TIME and `Math.random` gives a fixed sequence, so that the same
// source makes the same filter. From the first call on, both ask the gateway. Random bytes and
// UUIDs may be secrets, which must not be the same in every call, so they are refused then.
import * as clock from "witgate:gateway/clock@0.1.0";
import * as log from "witgate:gateway/log@0.1.0";
import * as random from "witgate:gateway/random@0.1.0";
import { shown } from "./check.ts";
import { makeConsole } from "./console.ts";
import { consoleText } from "./failure.ts";
import { installLocale } from "./locale.ts";
import { installStack } from "./stack.ts";
import { structuredClone } from "./web/clone.ts";
import { TextDecoder, TextEncoder } from "./web/encoding.ts";
import { Headers } from "./web/headers.ts";
import { arrayFromAsync, FilterPromise, queueJob } from "./web/promise.ts";
import { URL, URLSearchParams } from "./web/url.ts";

/** 2020-01-01T00:00:00Z, in milliseconds. */
const BUILD_TIME = 1_577_836_800_000;
/** How many bytes one call of `crypto.getRandomValues` returns (Web Cryptography API). */
const RANDOM_BYTES_MAX = 65536;

let running = false;

/** Records that the gateway has called a handler: from then on its functions can be used. */
export function markRunning(): void {
  running = true;
}

function requireGateway(what: string): void {
  if (running) return;
  throw new Error(`${what} cannot be used while the filter is built: call it inside onRequest or onResponse`);
}

function now(): number {
  if (!running) return BUILD_TIME;
  const { seconds, nanoseconds } = clock.now();
  return seconds * 1000 + Math.floor(nanoseconds / 1e6);
}

const NativeDate = Date;
const GatewayDate = function (this: unknown, ...args: unknown[]): unknown {
  if (new.target === undefined) return new NativeDate(now()).toString();
  const date: Date = args.length === 0 ? new NativeDate(now()) : Reflect.construct(NativeDate, args);
  return Object.setPrototypeOf(date, new.target.prototype);
} as unknown as DateConstructor;
Object.setPrototypeOf(GatewayDate, NativeDate);
Object.defineProperty(GatewayDate, "prototype", { value: NativeDate.prototype });
Object.defineProperty(GatewayDate, "name", { value: "Date" });
Object.defineProperty(GatewayDate, "length", { value: 7 });
NativeDate.prototype.constructor = GatewayDate;
GatewayDate.now = now;

// QuickJS returns NaN from a setter that got one, and keeps the old date.
type Setter = (this: Date, ...parts: number[]) => number;
const setters = Object.getOwnPropertyNames(NativeDate.prototype).filter((name) => /^set/.test(name) && name !== "setTime");
for (const name of setters) {
  const native = Reflect.get(NativeDate.prototype, name) as Setter;
  const value = {
    [name](this: Date, ...parts: number[]): number {
      const time = native.apply(this, parts);
      return Number.isNaN(time) ? this.setTime(NaN) : time;
    },
  }[name];
  Object.defineProperty(value, "length", { value: native.length });
  Object.defineProperty(NativeDate.prototype, name, { value, writable: true, configurable: true });
}

let seed = 0x9e3779b9;

/** The next number of the fixed sequence (xorshift32). */
function buildNumber(): number {
  seed ^= seed << 13;
  seed ^= seed >>> 17;
  seed ^= seed << 5;
  return seed >>> 0;
}

/** A random number in [0, 1) with 53 bits, as `Math.random` requires. */
function randomFraction(): number {
  const number = running ? random.number : buildNumber;
  return ((number() >>> 5) * 67108864 + (number() >>> 6)) / 9007199254740992;
}

function writeLine(level: "debug" | "info" | "warn" | "error", args: unknown[]): void {
  if (running) log.write(level, consoleText(args));
}

function milliseconds(): number {
  return running ? clock.ticks() / 1000 : 0;
}

function randomUUID(): string {
  requireGateway("crypto.randomUUID");
  const bytes = random.bytes(16);
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

function getRandomValues<T extends ArrayBufferView>(view: T): T {
  if (!ArrayBuffer.isView(view) || view instanceof DataView || /Float/.test(view.constructor.name)) {
    const text = `crypto.getRandomValues needs an array of integers, not ${shown(view)}`;
    throw new DOMException(text, "TypeMismatchError");
  }
  if (view.byteLength > RANDOM_BYTES_MAX) {
    const bound = `at most ${RANDOM_BYTES_MAX} bytes, not ${view.byteLength}`;
    throw new DOMException(`crypto.getRandomValues gives ${bound}: call it several times`, "QuotaExceededError");
  }
  requireGateway("crypto.getRandomValues");
  new Uint8Array(view.buffer, view.byteOffset, view.byteLength).set(random.bytes(view.byteLength));
  return view;
}

/** QuickJS frees a target immediately if nothing else refers to it; the standard keeps it. */
class StrongRef {
  readonly #target: unknown;
  constructor(target: unknown) {
    if ((typeof target !== "object" || target === null) && typeof target !== "function" && typeof target !== "symbol") {
      throw new TypeError(`WeakRef needs an object, not ${shown(target)}`);
    }
    this.#target = target;
  }
  deref(): unknown {
    return this.#target;
  }
  get [Symbol.toStringTag](): string {
    return "WeakRef";
  }
}
Object.defineProperty(StrongRef, "name", { value: "WeakRef" });

installLocale();
installStack();

const globals = {
  Date: GatewayDate,
  Promise: FilterPromise,
  WeakRef: StrongRef,
  queueMicrotask: queueJob,
  console: makeConsole(writeLine, milliseconds),
  crypto: { randomUUID, getRandomValues },
  performance: { now: milliseconds },
  ...{ structuredClone, Headers, TextDecoder, TextEncoder, URL, URLSearchParams },
};
for (const [name, value] of Object.entries(globals)) {
  Object.defineProperty(globalThis, name, { value, writable: true, configurable: true });
}
Reflect.deleteProperty(globalThis, "AsyncDisposableStack");
Object.defineProperty(Array, "fromAsync", { value: arrayFromAsync, writable: true, configurable: true });
Math.random = randomFraction;
// The frames of a package may hide the author's: the default is 10.
(Error as { stackTraceLimit?: number }).stackTraceLimit = 50;
