// Encodes and decodes UTF-8 (RFC 3629), because QuickJS has no TextEncoder. Unpaired surrogates and
// invalid bytes become U+FFFD, as the Encoding Standard requires.
//
// A loop over bytes takes 0.5 µs a byte in QuickJS. Long texts therefore go through native
// functions (base64, URI encoding), which take a tenth of that. Short texts do not gain from it.

/** The length in bytes or characters from which the native functions are faster. */
const NATIVE_FROM = 48;
/** Bytes that one step encodes as base64; a multiple of 3, so that there is no padding between. */
const BASE64_CHUNK = 49152;

interface Base64Bytes {
  toBase64?(): string;
}
const fromBase64 = (Uint8Array as unknown as { fromBase64?(text: string): Uint8Array }).fromBase64;

/** Encodes a string as UTF-8. */
export function encode(text: string): Uint8Array {
  if (text.length < NATIVE_FROM || fromBase64 === undefined) return encodeInScript(text);
  return fromBase64.call(Uint8Array, btoa(unescape(encodeURI(text.isWellFormed() ? text : text.toWellFormed()))));
}

function encodeInScript(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length * 3);
  return bytes.slice(0, encodeInto(text, bytes).written);
}

/** Encodes as many whole characters as fit into `bytes`. Returns the code units and bytes used. */
export function encodeInto(text: string, bytes: Uint8Array): { read: number; written: number } {
  let at = 0;
  let i = 0;
  for (; i < text.length; i++) {
    let code = text.charCodeAt(i);
    if (code < 0x80) {
      if (at >= bytes.length) break;
      bytes[at++] = code;
      continue;
    }
    let units = 1;
    if (code >= 0xd800 && code <= 0xdfff) {
      const low = code < 0xdc00 ? text.charCodeAt(i + 1) : NaN;
      if (low >= 0xdc00 && low <= 0xdfff) {
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        units = 2;
      } else {
        code = 0xfffd;
      }
    }
    if (at + (code < 0x800 ? 2 : code < 0x10000 ? 3 : 4) > bytes.length) break;
    if (code < 0x800) {
      bytes[at++] = 0xc0 | (code >> 6);
    } else {
      if (code < 0x10000) {
        bytes[at++] = 0xe0 | (code >> 12);
      } else {
        bytes[at++] = 0xf0 | (code >> 18);
        bytes[at++] = 0x80 | ((code >> 12) & 0x3f);
      }
      bytes[at++] = 0x80 | ((code >> 6) & 0x3f);
    }
    bytes[at++] = 0x80 | (code & 0x3f);
    i += units - 1;
  }
  return { read: i, written: at };
}

/** Decodes UTF-8 as the Fetch Standard does with a body: a byte order mark is dropped. */
export function decodeBody(bytes: Uint8Array): string {
  const text = decode(bytes);
  return text.charCodeAt(0) === 0xfeff ? text.slice(1) : text;
}

/**
 * Decodes UTF-8. A byte order mark is kept.
 *
 * @throws TypeError for invalid bytes, if `fatal` is set.
 */
export function decode(bytes: Uint8Array, fatal = false): string {
  if (bytes.length < NATIVE_FROM || (bytes as Base64Bytes).toBase64 === undefined) return decodeInScript(bytes, fatal);
  // ASCII bytes are characters of their own, so only the runs between them need decoding.
  return binaryString(bytes).replace(/[\x80-\xff]+/g, (run) => decodeRun(run, fatal));
}

/** Bytes as a string whose characters have the values of the bytes. */
export function binaryString(bytes: Uint8Array): string {
  let text = "";
  if ((bytes as Base64Bytes).toBase64 === undefined) {
    for (let at = 0; at < bytes.length; at += 4096) text += String.fromCharCode(...bytes.subarray(at, at + 4096));
    return text;
  }
  for (let at = 0; at < bytes.length; at += BASE64_CHUNK) {
    text += atob((bytes.subarray(at, at + BASE64_CHUNK) as Required<Base64Bytes>).toBase64());
  }
  return text;
}

function decodeRun(run: string, fatal: boolean): string {
  try {
    return decodeURIComponent(escape(run));
  } catch {
    return decodeInScript(Uint8Array.from(run, (character) => character.charCodeAt(0)), fatal);
  }
}

function decodeInScript(bytes: Uint8Array, fatal: boolean): string {
  let text = "";
  let units: number[] = [];
  for (let i = 0; i < bytes.length; ) {
    const first = bytes[i] as number;
    const length = first < 0x80 ? 1 : sequenceLength(first);
    let code = length === 1 ? first : first & (0x7f >> length);
    let used = 1;
    for (; used < length; used++) {
      const byte = bytes[i + used] ?? 0;
      if ((byte & 0xc0) !== 0x80 || !mayFollow(first, used, byte)) break;
      code = (code << 6) | (byte & 0x3f);
    }
    if (used !== length) {
      if (fatal) throw new TypeError(`byte ${i} of the data is not valid UTF-8`);
      code = 0xfffd;
    }
    i += used;
    if (code < 0x10000) units.push(code);
    else units.push(0xd800 + ((code - 0x10000) >> 10), 0xdc00 + ((code - 0x10000) & 0x3ff));
    if (units.length > 4096) {
      text += String.fromCharCode(...units);
      units = [];
    }
  }
  return text + String.fromCharCode(...units);
}

/** The number of bytes at the end that begin a sequence which more bytes could complete. */
export function incompleteTail(bytes: Uint8Array): number {
  for (let back = 1; back <= 3 && back <= bytes.length; back++) {
    const first = bytes[bytes.length - back] as number;
    if ((first & 0xc0) === 0x80) continue;
    const length = first < 0x80 ? 1 : sequenceLength(first);
    if (length <= back) return 0;
    const second = bytes[bytes.length - back + 1];
    return second === undefined || back === 1 || mayFollow(first, 1, second) ? back : 0;
  }
  return 0;
}

/** The length of a multi-byte sequence by its first byte; 0 if none begins with that byte. */
function sequenceLength(first: number): number {
  if (first >= 0xc2 && first < 0xe0) return 2;
  if (first >= 0xe0 && first < 0xf0) return 3;
  return first >= 0xf0 && first < 0xf5 ? 4 : 0;
}

/**
 * Tells whether a continuation byte may follow `first`. The second byte rules out overlong forms,
 * surrogates and code points above U+10FFFF.
 */
function mayFollow(first: number, at: number, byte: number): boolean {
  if (at !== 1) return true;
  if (first === 0xe0) return byte >= 0xa0;
  if (first === 0xed) return byte < 0xa0;
  if (first === 0xf0) return byte >= 0x90;
  if (first === 0xf4) return byte < 0x90;
  return true;
}
