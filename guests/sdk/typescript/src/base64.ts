// Bytes as base64 and as hexadecimal digits. QuickJS has native functions for both; the versions of
// Node.js that run unit tests may not.
//
// This module does not know what the bytes mean.
import { binaryString } from "./text.ts";

interface NativeBytes {
  toBase64?(): string;
  toHex?(): string;
}
interface NativeDecoders {
  fromBase64?(text: string): Uint8Array;
  fromHex?(text: string): Uint8Array;
}

const native = Uint8Array as unknown as NativeDecoders;

/** Encodes bytes as base64 with padding. */
export function toBase64(bytes: Uint8Array): string {
  return (bytes as NativeBytes).toBase64?.() ?? btoa(binaryString(bytes));
}

/** Encodes bytes as base64 with the alphabet of URLs, without padding. */
export function toBase64Url(bytes: Uint8Array): string {
  return toBase64(bytes).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** Decodes base64 with the alphabet of URLs. Padding is optional. */
export function fromBase64Url(text: string): Uint8Array {
  if (!/^[\w-]*={0,2}$/.test(text)) throw new SyntaxError("the text is not base64url");
  const plain = text.replace(/=+$/, "").replaceAll("-", "+").replaceAll("_", "/");
  if (plain.length % 4 === 1) throw new SyntaxError("the text is not base64url: it is cut off");
  const padded = plain.padEnd(Math.ceil(plain.length / 4) * 4, "=");
  return native.fromBase64?.(padded) ?? Uint8Array.from(atob(padded), (character) => character.charCodeAt(0));
}

/** Encodes bytes as hexadecimal digits in lower case. */
export function toHex(bytes: Uint8Array): string {
  return (
    (bytes as NativeBytes).toHex?.() ?? Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")
  );
}

/** Decodes hexadecimal digits. */
export function fromHex(text: string): Uint8Array {
  if (!/^(?:[0-9a-f]{2})*$/i.test(text)) throw new SyntaxError("the text is not pairs of hexadecimal digits");
  return native.fromHex?.(text) ?? Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}
