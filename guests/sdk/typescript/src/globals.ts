// What an author expects to be there and QuickJS lacks, or gets wrong in a sandbox: imported by the entry before the author's module.
//
// A filter's memory is a snapshot made when it was built: `Math.random` would begin from the same seed in every instance, and `Date.now`
// has no clock. Both go to the gateway. While the snapshot is made there is no gateway, so a value asked for then would be the same for ever: it throws.
import * as clock from "witgate:gateway/clock@0.1.0";
import * as log from "witgate:gateway/log@0.1.0";
import * as random from "witgate:gateway/random@0.1.0";
import { decode, encode } from "./text.ts";

let running = false;

/** From here on there is a gateway. */
export function run(): void {
  running = true;
}

function needsGateway(what: string): void {
  if (!running) throw new Error(`${what} is not there while the filter is built: call it inside onRequest or onResponse`);
}

function now(): number {
  needsGateway("the clock");
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

/** 53 random bits, as the language wants them. */
function uniform(): number {
  needsGateway("Math.random");
  return ((random.number() >>> 5) * 67108864 + (random.number() >>> 6)) / 9007199254740992;
}

function write(level: "debug" | "info" | "warn" | "error", args: unknown[]): void {
  if (!running) return;
  log.write(level, args.map((arg) => (typeof arg === "string" ? arg : shown(arg))).join(" "));
}

function shown(value: unknown): string {
  if (value instanceof Error) return `${value.name}: ${value.message}`;
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return String(value);
  }
}

function randomUUID(): string {
  needsGateway("crypto.randomUUID");
  const bytes = random.bytes(16);
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

function getRandomValues<T extends ArrayBufferView>(view: T): T {
  needsGateway("crypto.getRandomValues");
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
  performance: { now: () => (needsGateway("performance.now"), clock.ticks() / 1000) },
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
Math.random = uniform;
