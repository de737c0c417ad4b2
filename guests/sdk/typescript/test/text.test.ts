// The SDK's UTF-8 against Node's: the Encoding Standard decides.
import { expect, test } from "vitest";
import { decode, encode } from "../src/text.ts";

const native = { encode: new TextEncoder(), decode: new TextDecoder("utf-8", { ignoreBOM: true }) };

test("strings become the same bytes", () => {
  for (const text of ["", "plain", "é€😀", "\ud800", "a\udc00b", "\ud83d\ude00\ud83d", "\u0000\u007f\u0080\u07ff\u0800\uffff", "x".repeat(10000)]) {
    expect([...encode(text)]).toEqual([...native.encode.encode(text)]);
    expect(decode(encode(text))).toBe(native.decode.decode(native.encode.encode(text)));
  }
});

test("bytes become the same string, good or bad", () => {
  let state = 1;
  const next = (): number => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 16;
  for (let round = 0; round < 20000; round++) {
    // Bytes near the edges of UTF-8's forms are the ones that go wrong.
    const edges = [0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xff];
    const bytes = Uint8Array.from({ length: next() % 8 }, () => edges[next() % edges.length] as number);
    expect(decode(bytes), String(bytes)).toBe(native.decode.decode(bytes));
  }
});
