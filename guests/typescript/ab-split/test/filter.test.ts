import { fake } from "@witgate/filter/testing";
import { expect, test } from "vitest";
import { onRequest, onResponse, pick } from "../src/filter.ts";

const config = { variants: '{"a": 90, "b": 10}' };

function visit(cookie?: string, shares = config) {
  const exchange = fake({ config: shares, headers: cookie === undefined ? {} : { cookie } });
  onRequest(exchange.request);
  onResponse(exchange.response);
  return [exchange.request.header("x-variant"), exchange.response.header("set-cookie")];
}

test("a client without a cookie gets a variant and keeps it", () => {
  const [variant, set] = visit();
  expect(["a", "b"]).toContain(variant);
  expect(set).toBe(`variant=${variant}; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax`);
  expect(visit("x=1; variant=b; y=2")).toEqual(["b", undefined]);
  expect(visit("variant=unknown")[1]).toBeDefined();
});

test("clients are divided by the shares", () => {
  const shares = new Map([["a", 90], ["b", 10]]);
  const counts: Record<string, number> = { a: 0, b: 0 };
  for (let n = 0; n < 1000; n++) counts[pick(shares, n / 1000)]! += 1;
  expect(counts).toEqual({ a: 900, b: 100 });
  expect(pick(new Map([["a", 0], ["b", 1]]), 0)).toBe("b");
});

test("shares that make no sense are refused", () => {
  for (const variants of ["{}", '{"a b": 1}', '{"a": -1}', '{"a": "x"}']) {
    expect(() => visit(undefined, { variants })).toThrow("config variants");
  }
});
