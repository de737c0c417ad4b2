import { fake, type FakeInit } from "@witgate/filter/testing";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { onRequest, onResponse } from "../src/filter.ts";

const START = 1_700_000_000_000;

beforeEach(() => {
  fake.reset();
  vi.useFakeTimers();
});
afterEach(() => vi.useRealTimers());

/** Sends a request; the upstream answers if the cache does not. Returns what the client gets. */
function send(init: FakeInit = {}) {
  vi.setSystemTime(init.now ?? START);
  const { request, response } = fake({
    path: "/a",
    responseHeaders: { "cache-control": "max-age=10", "content-type": "text/plain", "x-request-id": "1" },
    responseBody: "hello",
    now: START,
    ...init,
  });
  const hit = onRequest(request);
  if (hit !== undefined) return { cache: "hit", text: new TextDecoder().decode(hit.body), headers: hit.headers };
  onResponse(response);
  return { cache: response.header("x-cache") ?? "passed", text: response.text(), headers: response.headers };
}

test("a response is kept as long as it says, and says its age", () => {
  expect(send().cache).toBe("miss");
  const hit = send({ now: START + 4000, responseBody: "changed" });
  expect([hit.cache, hit.text]).toEqual(["hit", "hello"]);
  expect(Object.fromEntries(hit.headers)).toEqual({
    "cache-control": "max-age=10",
    "content-type": "text/plain",
    age: "4",
    "x-cache": "hit",
  });
  expect(send({ now: START + 10_000 }).cache).toBe("miss");
});

test("the operator bounds the time", () => {
  const init = { config: { max_seconds: 5 } };
  expect(send(init).cache).toBe("miss");
  expect(send({ ...init, now: START + 4000 }).cache).toBe("hit");
  expect(send({ ...init, now: START + 5000 }).cache).toBe("miss");
});

test("another query, host or coding is another response", () => {
  expect(send().cache).toBe("miss");
  expect(send({ query: "a=1" }).cache).toBe("miss");
  expect(send({ headers: { host: "other.test" } }).cache).toBe("miss");
  expect(send({ headers: { "accept-encoding": "gzip" } }).cache).toBe("miss");
});

test("what may be personal is not kept", () => {
  for (const headers of [
    {},
    { "cache-control": "no-store, max-age=10" },
    { "cache-control": "private, max-age=10" },
    { "cache-control": "no-cache" },
    { "cache-control": "max-age=10", "set-cookie": "a=1" },
    { "cache-control": "max-age=10", vary: "accept-encoding, origin" },
    { "cache-control": "max-age=10", vary: "*" },
    { "cache-control": "max-age=10", age: "10" },
    { "cache-control": "max-age=never" },
  ]) {
    send({ responseHeaders: headers as Record<string, string> });
    expect(send({ responseHeaders: headers as Record<string, string> }).cache).toBe("miss");
  }
  send({ status: 404 });
  expect(send().cache).toBe("miss");
});

test("requests that the cache cannot answer are passed on", () => {
  send();
  for (const headers of [
    { authorization: "Bearer t" },
    { cookie: "a=1" },
    { range: "bytes=0-1" },
    { "if-none-match": '"a"' },
    { "cache-control": "no-store" },
  ]) {
    expect(send({ headers: headers as unknown as Record<string, string> }).cache).toBe("passed");
  }
  expect(send({ method: "POST" }).cache).toBe("passed");
  expect(send({ query: "x".repeat(300) }).cache).toBe("passed");
  expect(send({ headers: { "cache-control": "no-cache" } }).cache).toBe("miss");
});

test("a body that the store has no room for is not kept", () => {
  const responseBody = "x".repeat(64 << 10);
  expect(send({ responseBody }).cache).toBe("miss");
  expect(send({ responseBody }).cache).toBe("miss");
});
