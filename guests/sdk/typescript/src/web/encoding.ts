// TextEncoder and TextDecoder by the Encoding Standard, for UTF-8, UTF-16 and all encodings of one
// byte. The encodings of East Asia need tables of 200 KiB, so they are refused by name.
//
// `encodings.json` has the labels of all encodings, and the characters of the bytes 0x80 to 0xff of
// those of one byte (the indexes of the standard). This module does not know filters.
import { viewedBytes } from "../check.ts";
import { binaryString, decode, encode, encodeInto, incompleteTail } from "../text.ts";
import DATA from "./encodings.json" with { type: "json" };

const ENCODINGS = new Map(Object.entries(DATA.labels).flatMap(([name, labels]) => labels.map((label) => [label, name])));
const UPPER_HALVES: Record<string, string> = {
  ...DATA.upperHalves,
  "iso-8859-8-i": DATA.upperHalves["iso-8859-8"],
  "x-user-defined": Array.from({ length: 128 }, (_, index) => String.fromCharCode(0xf780 + index)).join(""),
};

export class TextEncoder {
  get [Symbol.toStringTag](): string {
    return "TextEncoder";
  }
  get encoding(): "utf-8" {
    return "utf-8";
  }
  encode(text: unknown = ""): Uint8Array {
    return encode(`${text as string}`);
  }
  encodeInto(text: unknown, destination: Uint8Array): { read: number; written: number } {
    if (!(destination instanceof Uint8Array)) throw new TypeError("encodeInto needs a Uint8Array to write to");
    return encodeInto(`${text as string}`, destination);
  }
}

export class TextDecoder {
  get [Symbol.toStringTag](): string {
    return "TextDecoder";
  }
  readonly encoding: string;
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;
  /** Bytes of an incomplete character, kept for the next call. */
  #pending = new Uint8Array();
  /** The characters of the bytes 0x80 to 0xff, if the encoding has one byte for each character. */
  readonly #upperHalf: string | undefined;
  #streams = false;
  #bomSeen = false;

  constructor(label: unknown = "utf-8", options: { fatal?: boolean; ignoreBOM?: boolean } = {}) {
    const key = `${label as string}`.replace(/^[\t\n\f\r ]+|[\t\n\f\r ]+$/g, "").toLowerCase();
    const encoding = ENCODINGS.get(key);
    if (encoding === undefined || encoding === "replacement") {
      throw new RangeError(`TextDecoder: ${JSON.stringify(key)} is no label of the Encoding Standard`);
    }
    this.#upperHalf = UPPER_HALVES[encoding];
    if (this.#upperHalf === undefined && !encoding.startsWith("utf-")) {
      throw new RangeError(
        `TextDecoder: a filter does not have ${encoding}, only UTF-8, UTF-16 and encodings of one byte: ` +
          "use an npm package that brings its tables, such as iconv-lite",
      );
    }
    this.encoding = encoding;
    this.fatal = Boolean(options?.fatal);
    this.ignoreBOM = Boolean(options?.ignoreBOM);
  }

  decode(input?: unknown, options: { stream?: boolean } = {}): string {
    const given = input === undefined ? new Uint8Array() : viewedBytes(input);
    if (given === undefined) throw new TypeError("TextDecoder.decode needs an ArrayBuffer or a view of one");
    if (!this.#streams) {
      this.#pending = new Uint8Array();
      this.#bomSeen = false;
    }
    this.#streams = Boolean(options?.stream);
    let bytes = given;
    if (this.#pending.length > 0) {
      bytes = new Uint8Array(this.#pending.length + given.length);
      bytes.set(this.#pending);
      bytes.set(given, this.#pending.length);
    }
    const kept = this.#streams ? this.#tail(bytes) : 0;
    this.#pending = bytes.slice(bytes.length - kept) as Uint8Array<ArrayBuffer>;
    const text = this.#decode(kept === 0 ? bytes : bytes.subarray(0, bytes.length - kept));
    if (text === "" || this.#bomSeen) return text;
    this.#bomSeen = true;
    const dropsBom = !this.ignoreBOM && this.encoding.startsWith("utf-") && text.charCodeAt(0) === 0xfeff;
    return dropsBom ? text.slice(1) : text;
  }

  #tail(bytes: Uint8Array): number {
    if (this.encoding === "utf-8") return incompleteTail(bytes);
    if (this.#upperHalf !== undefined) return 0;
    const odd = bytes.length % 2;
    const last = unit(bytes, bytes.length - odd - 2, this.encoding === "utf-16be");
    return odd + (last >= 0xd800 && last < 0xdc00 ? 2 : 0);
  }

  #decode(bytes: Uint8Array): string {
    if (this.encoding === "utf-8") return decode(bytes, this.fatal);
    const upperHalf = this.#upperHalf;
    if (upperHalf !== undefined) {
      const text = binaryString(bytes).replace(/[\x80-\xff]/g, (byte) => upperHalf.charAt(byte.charCodeAt(0) - 0x80));
      if (this.fatal && text.includes("\ufffd")) throw new TypeError(`the data is not valid ${this.encoding}`);
      return text;
    }
    let text = "";
    let units: number[] = [];
    for (let at = 0; at + 1 < bytes.length; at += 2) {
      units.push(unit(bytes, at, this.encoding === "utf-16be"));
      if (units.length < 4096) continue;
      text += String.fromCharCode(...units);
      units = [];
    }
    text += String.fromCharCode(...units);
    if (this.fatal && (bytes.length % 2 !== 0 || !text.isWellFormed())) {
      throw new TypeError(`the data is not valid ${this.encoding}`);
    }
    if (bytes.length % 2 === 0) return text.toWellFormed();
    // An odd byte at the end is one error, together with half of a pair before it.
    return `${text.replace(/[\ud800-\udbff]$/, "").toWellFormed()}\ufffd`;
  }
}

function unit(bytes: Uint8Array, at: number, bigEndian: boolean): number {
  const [low, high] = bigEndian ? [bytes[at + 1], bytes[at]] : [bytes[at], bytes[at + 1]];
  return ((high ?? 0) << 8) | (low ?? 0);
}
