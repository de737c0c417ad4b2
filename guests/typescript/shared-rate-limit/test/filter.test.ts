import { fake, type FakeInit } from "@witgate/filter/testing";
import { beforeEach, expect, test } from "vitest";
import { onRequest } from "../src/filter.ts";

const WINDOW = 60_000;
const START = 1_700_000_000_000;

function send(at: number, init: FakeInit = {}) {
  const { request } = fake({ config: { limit: 2, window_ms: WINDOW }, now: START + at, ...init });
  return onRequest(request);
}

beforeEach(() => fake.reset());

test("a request above the limit is answered with 429, and the fields say when to come back", () => {
  expect([send(0), send(1)]).toEqual([undefined, undefined]);
  expect(send(30_000)).toMatchObject({
    status: 429,
    headers: [
      ["retry-after", "30"],
      ["ratelimit-policy", '"default";q=2;w=60'],
      ["ratelimit", '"default";r=0;t=30'],
      ["content-type", "text/plain; charset=utf-8"],
    ],
  });
  expect(send(WINDOW)).toBeUndefined();
});

test("clients are counted separately, by address or by header field", () => {
  const config = { limit: 1, key: "header:x-api-key" };
  expect([send(0), send(0), send(0, { clientIp: "192.0.2.2" })]).toEqual([undefined, undefined, undefined]);
  expect(send(0)?.status).toBe(429);
  expect(send(0, { config, headers: { "x-api-key": "a" } })).toBeUndefined();
  expect(send(0, { config, headers: { "x-api-key": "a" } })?.status).toBe(429);
  expect(send(0, { config, headers: { "x-api-key": "b" } })).toBeUndefined();
});
