// Defines the globals that an author expects and that QuickJS lacks or implements without a system:
// the clock, randomness, `console`, `TextEncoder` and `TextDecoder`. The entry imports this module
// before the author's module.
//
// The memory of a filter is a snapshot that is taken at build time. `Math.random` would start from
// the same seed in every instance, and `Date.now` would have no clock, so both call the gateway.
// There is no gateway at build time, and a value read then would be the same in every call.
// Therefore these functions throw until the first call.
import * as clock from "witgate:gateway/clock@0.1.0";
import * as log from "witgate:gateway/log@0.1.0";
import * as random from "witgate:gateway/random@0.1.0";
import { decode, encode } from "./text.ts";

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
  requireGateway("the clock");
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
NativeDate.prototype.constructor = GatewayDate;
GatewayDate.now = now;

/** A random number in [0, 1) with 53 bits, as `Math.random` requires. */
function randomFraction(): number {
  requireGateway("Math.random");
  return ((random.number() >>> 5) * 67108864 + (random.number() >>> 6)) / 9007199254740992;
}

function write(level: "debug" | "info" | "warn" | "error", args: unknown[]): void {
  if (!running) return;
  log.write(level, args.map((arg) => (typeof arg === "string" ? arg : formatValue(arg))).join(" "));
}

function formatValue(value: unknown): string {
  if (value instanceof Error) return `${value.name}: ${value.message}`;
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return String(value);
  }
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
  requireGateway("crypto.getRandomValues");
  new Uint8Array(view.buffer, view.byteOffset, view.byteLength).set(random.bytes(view.byteLength));
  return view;
}

Object.assign(globalThis, {
  Date: GatewayDate,
  console: {
    debug: (...args: unknown[]) => write("debug", args),
    log: (...args: unknown[]) => write("info", args),
    info: (...args: unknown[]) => write("info", args),
    warn: (...args: unknown[]) => write("warn", args),
    error: (...args: unknown[]) => write("error", args),
  },
  crypto: { randomUUID, getRandomValues },
  performance: { now: () => (requireGateway("performance.now"), clock.ticks() / 1000) },
  TextEncoder: class {
    readonly encoding = "utf-8";
    encode(text = ""): Uint8Array {
      return encode(text);
    }
  },
  TextDecoder: class {
    readonly encoding = "utf-8";
    decode(bytes: Uint8Array | ArrayBuffer = new Uint8Array()): string {
      return decode(bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes));
    }
  },
});
Math.random = randomFraction;
