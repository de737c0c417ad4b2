// Compares the SDK's UTF-8 with that of Node, which follows the Encoding Standard.
import { expect, test } from "vitest";
import { decode, encode } from "../src/text.ts";

const native = { encode: new TextEncoder(), decode: new TextDecoder("utf-8", { ignoreBOM: true }) };

test("strings are encoded as Node encodes them", () => {
  const bounds = "\u0000\u007f\u0080\u07ff\u0800\uffff";
  const unpaired = ["\ud800", "a\udc00b", "\ud83d\ude00\ud83d"];
  for (const text of ["", "plain", "é€😀", ...unpaired, bounds, "x".repeat(10000)]) {
    expect([...encode(text)]).toEqual([...native.encode.encode(text)]);
    expect(decode(encode(text))).toBe(native.decode.decode(native.encode.encode(text)));
  }
});

test("valid and invalid bytes are decoded as Node decodes them", () => {
  let state = 1;
  const next = (): number => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 16;
  for (let round = 0; round < 20000; round++) {
    // Errors are most likely at the bounds of the ranges that UTF-8 defines.
    const edges = [
      ...[0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0],
      ...[0xc1, 0xc2, 0xdf, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xff],
    ];
    const bytes = Uint8Array.from({ length: next() % 8 }, () => edges[next() % edges.length] as number);
    expect(decode(bytes), String(bytes)).toBe(native.decode.decode(bytes));
  }
});
