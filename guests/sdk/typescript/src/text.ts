// Encodes and decodes UTF-8 (RFC 3629), because QuickJS has no TextEncoder. Unpaired surrogates and
// invalid bytes become U+FFFD, as the Encoding Standard requires.

/** Encodes a string as UTF-8. */
export function encode(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length * 3);
  let at = 0;
  for (let i = 0; i < text.length; i++) {
    let code = text.charCodeAt(i);
    if (code < 0x80) {
      bytes[at++] = code;
      continue;
    }
    if (code >= 0xd800 && code <= 0xdfff) {
      const low = code < 0xdc00 ? text.charCodeAt(i + 1) : NaN;
      if (low >= 0xdc00 && low <= 0xdfff) {
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        i++;
      } else {
        code = 0xfffd;
      }
    }
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
  }
  return bytes.slice(0, at);
}

/** Makes a body: text is encoded as UTF-8, bytes stay, any other value is encoded as JSON. */
export function encodeBody(body: unknown): Uint8Array {
  if (body instanceof Uint8Array) return body;
  return encode(typeof body === "string" ? body : JSON.stringify(body));
}

/** Decodes UTF-8. A byte order mark is kept. */
export function decode(bytes: Uint8Array): string {
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
    if (used !== length) code = 0xfffd;
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

/** The length of a multi-byte sequence by its first byte; 0 if no sequence begins with that byte. */
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
