// TextEncoder and TextDecoder by the Encoding Standard, for UTF-8, UTF-16 and windows-1252.
//
// This module does not know filters.
import { viewedBytes } from "../check.ts";
import { binaryString, decode, encode, encodeInto, incompleteTail } from "../text.ts";

const LABELS: Record<string, string[]> = {
  "utf-8": ["unicode-1-1-utf-8", "unicode11utf8", "unicode20utf8", "utf-8", "utf8", "x-unicode20utf8"],
  "utf-16le": ["csunicode", "iso-10646-ucs-2", "ucs-2", "unicode", "unicodefeff", "utf-16", "utf-16le"],
  "utf-16be": ["unicodefffe", "utf-16be"],
  "windows-1252": [
    ...["ansi_x3.4-1968", "ascii", "cp1252", "cp819", "csisolatin1", "ibm819", "iso-8859-1", "iso-ir-100"],
    ...["iso8859-1", "iso88591", "iso_8859-1", "iso_8859-1:1987", "l1", "latin1", "us-ascii"],
    ...["windows-1252", "x-cp1252"],
  ],
};
const ENCODINGS = new Map(Object.entries(LABELS).flatMap(([name, labels]) => labels.map((label) => [label, name])));

/** The characters of the bytes 0x80 to 0x9f in windows-1252. */
const WINDOWS_1252 =
  "\u20ac\x81\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\x8d\u017d\x8f" +
  "\x90\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\x9d\u017e\u0178";

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
  #streams = false;
  #bomSeen = false;

  constructor(label: unknown = "utf-8", options: { fatal?: boolean; ignoreBOM?: boolean } = {}) {
    const key = `${label as string}`.replace(/^[\t\n\f\r ]+|[\t\n\f\r ]+$/g, "").toLowerCase();
    const encoding = ENCODINGS.get(key);
    if (encoding === undefined) {
      const known = Object.keys(LABELS).join(", ");
      throw new RangeError(`TextDecoder: a filter has no encoding ${JSON.stringify(key)}, only ${known}`);
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
    if (this.encoding === "windows-1252") return 0;
    const odd = bytes.length % 2;
    const last = unit(bytes, bytes.length - odd - 2, this.encoding === "utf-16be");
    return odd + (last >= 0xd800 && last < 0xdc00 ? 2 : 0);
  }

  #decode(bytes: Uint8Array): string {
    if (this.encoding === "utf-8") return decode(bytes, this.fatal);
    if (this.encoding === "windows-1252") {
      return binaryString(bytes).replace(/[\x80-\x9f]/g, (byte) => WINDOWS_1252.charAt(byte.charCodeAt(0) - 0x80));
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
