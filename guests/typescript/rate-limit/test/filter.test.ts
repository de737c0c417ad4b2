import { fake, type FakeInit } from "@witgate/filter/testing";
import { beforeEach, expect, test, vi } from "vitest";
import { onRequest } from "../src/filter.ts";

const WINDOW = 60_000;
const START = 1_700_000_040_000 - (1_700_000_040_000 % WINDOW);

function send(at: number, init: FakeInit = {}): number {
  vi.setSystemTime(START + at);
  const { request } = fake({ config: { limit: 2, window_ms: WINDOW }, now: START + at, ...init });
  return onRequest(request)?.status ?? 200;
}

beforeEach(() => {
  fake.reset();
  vi.useFakeTimers();
});

test("a request above the limit is answered with 429 and retry-after", () => {
  expect([send(0), send(1), send(2)]).toEqual([200, 200, 429]);
  vi.setSystemTime(START + 30_000);
  const { request } = fake({ config: { limit: 2 }, now: START + 30_000 });
  expect(onRequest(request)).toMatchObject({
    status: 429,
    headers: [["retry-after", "30"], ["content-type", "text/plain; charset=utf-8"]],
  });
});

test("in the middle of a window half of the previous window still counts", () => {
  expect([send(0), send(1)]).toEqual([200, 200]);
  expect(send(WINDOW)).toBe(429);
  expect([send(WINDOW * 1.5), send(WINDOW * 1.5 + 1)]).toEqual([200, 200]);
  expect(send(WINDOW * 1.5 + 2)).toBe(429);
});

test("clients are counted separately, by address or by header field", () => {
  expect([send(0), send(0), send(0)]).toEqual([200, 200, 429]);
  expect(send(0, { clientIp: "192.0.2.2" })).toBe(200);
  const config = { limit: 1, key: "header:x-api-key" };
  expect(send(0, { config, headers: { "x-api-key": "a" } })).toBe(200);
  expect(send(0, { config, headers: { "x-api-key": "a" } })).toBe(429);
  expect(send(0, { config, headers: { "x-api-key": "b" } })).toBe(200);
});

test("an IPv6 network counts as one client", () => {
  const from = (clientIp: string) => send(0, { clientIp });
  expect([from("2001:db8:0:1::1"), from("2001:db8:0:1:ffff::2"), from("2001:db8::1:9:8:7:6")]).toEqual([200, 200, 429]);
  expect([from("2001:db8:0:2::1"), from("::1"), from("fe80::1")]).toEqual([200, 200, 200]);
});
