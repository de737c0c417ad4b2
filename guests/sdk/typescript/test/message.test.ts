// The objects and functions that filters use, on the fake of the gateway.
import { expect, test, vi } from "vitest";
import { config, log, notes, reply } from "../src/index.ts";
import { failureMessage } from "../src/failure.ts";
import { interfaces } from "../src/fake.ts";
import { keyvalue } from "../src/keyvalue.ts";
import { limiter } from "../src/limiter.ts";
import { fake } from "../src/testing.ts";

test("the type of the body sets content-type unless the filter sets it", () => {
  expect(reply(204)).toEqual({ status: 204, headers: [], body: new Uint8Array() });
  expect(reply(200, "é").headers).toEqual([["content-type", "text/plain; charset=utf-8"]]);
  expect(reply(200, { a: 1 }).headers).toEqual([["content-type", "application/json"]]);
  const html = reply(200, "<p>", { headers: { "Content-Type": "text/html" } });
  expect(html.headers).toEqual([["Content-Type", "text/html"]]);
  expect(reply(200, new Uint8Array([1])).body).toEqual(new Uint8Array([1]));
});

test("a request can be read and edited", () => {
  const { request } = fake({ method: "POST", path: "/a", query: "b=1", headers: { "X-A": "1" }, body: '{"c":2}' });
  expect([request.method, request.path, request.query]).toEqual(["POST", "/a", "b=1"]);
  expect([request.header("x-a"), request.header("x-b")]).toEqual(["1", undefined]);
  expect(request.json()).toEqual({ c: 2 });
  request.appendHeader("x-a", "2");
  expect([request.header("X-A"), request.headerValues("x-a")]).toEqual(["1, 2", ["1", "2"]]);
  request.appendHeader("cookie", "a=1");
  request.appendHeader("Cookie", "b=2");
  expect(request.header("cookie")).toBe("a=1; b=2");
  for (const name of ["Via", "http2-settings"]) expect(() => request.setHeader(name, "x")).toThrow(TypeError);
  request.removeHeader("x-a");
  request.setBody({ d: 3 });
  request.setQuery(undefined);
  expect([request.header("x-a"), request.text(), request.query]).toEqual([undefined, '{"d":3}', undefined]);
});

test("a response can be read and edited", () => {
  const { response } = fake({ status: 404, responseHeaders: { server: "x" }, responseBody: "no" });
  response.status = 200;
  response.removeHeader("server");
  response.setHeader("x-a", "1");
  response.setBody("yes");
  expect([response.status, response.headers, response.text()]).toEqual([200, [["x-a", "1"]], "yes"]);
});

test("a filter can use configuration, notes, log and key-value store", () => {
  const exchange = fake({ config: { limit: 5, name: "n" } });
  expect([config.get("name"), config.get("none"), config.keys()]).toEqual(["n", undefined, ["limit", "name"]]);
  expect([config.number("limit", 1), config.number("none", 1)]).toEqual([5, 1]);
  expect(() => config.number("name", 1)).toThrow('config name: "n" is not a number');
  notes.set("a", "1");
  log.warn("careful");
  expect([notes.get("a"), notes.get("b"), exchange.log]).toEqual(["1", undefined, ["warn: careful"]]);
  expect([keyvalue.increment("k"), keyvalue.increment("k", 2), keyvalue.get("k")]).toEqual([1, 3, "3"]);
  expect([keyvalue.delete("k"), keyvalue.get("k")]).toEqual([true, undefined]);
});

test("several keys are read at once", () => {
  fake.reset();
  keyvalue.set("a", 1);
  expect(keyvalue.getMany(["a", "b", "a"])).toEqual(["1", undefined, "1"]);
  expect(keyvalue.getMany([])).toEqual([]);
  expect(() => keyvalue.getMany(Array(65).fill("a"))).toThrow("at most 64 keys");
});

test("a swap needs the expected value", () => {
  fake.reset();
  expect([keyvalue.compareAndSwap("k", undefined, "a"), keyvalue.compareAndSwap("k", undefined, "b")]).toEqual([true, false]);
  expect([keyvalue.compareAndSwap("k", "a", "b"), keyvalue.get("k")]).toEqual([true, "b"]);
  keyvalue.increment("n", 7);
  expect(keyvalue.compareAndSwap("n", 7, "x")).toBe(true);
});

test("a limiter takes units until the limit", () => {
  fake.reset();
  fake({ now: 100_000 });
  const window = { limit: 2, windowMs: 1000 };
  expect([1, 2, 3].map(() => limiter.take("k", window).allowed)).toEqual([true, true, false]);
  expect(limiter.take("k", window)).toEqual({ allowed: false, remaining: 0, resetMs: 1000, retryAfterMs: 1000 });
  const bucket = { limit: 10, windowMs: 1000, algorithm: "token-bucket", burst: 20 } as const;
  expect([limiter.take("k", bucket, 20).remaining, limiter.take("k", bucket).retryAfterMs]).toEqual([0, 100]);
  fake({ now: 101_000 });
  expect([limiter.take("k", window).allowed, limiter.take("k", bucket, 0).remaining]).toEqual([true, 10]);
  expect(() => limiter.take("k", window, 3)).toThrow('limiter.take of key "k": invalid: a cost of 3');
  expect(() => limiter.take("k", { limit: 0, windowMs: 1 })).toThrow("limit must be a whole number");
});

test("anything that is thrown has a failure message", () => {
  const messages = [new TypeError("x"), "text", { a: 1 }].map((failure) => failureMessage(failure));
  expect(messages).toEqual(["TypeError: x", "text", 'thrown: {"a":1}']);
});

test("a failure without a line names the handler, and its causes follow", () => {
  const cause = new Error("outer", { cause: new RangeError("inner") });
  expect(failureMessage(cause, "onRequest, src/filter.ts:3")).toBe(
    "Error: outer (onRequest, src/filter.ts:3); caused by RangeError: inner",
  );
  expect(failureMessage(7, "onRequest")).toBe("thrown: 7 (onRequest: throw an Error, which knows its line)");
  expect(failureMessage(new ReferenceError("fetch is not defined"))).toContain("add services = ");
});

test("values of wrong types and out of range are refused before they reach the gateway", () => {
  const { request, response } = fake();
  const any = (value: unknown): never => value as never;
  for (const call of [
    () => request.setHeader("x a", "1"),
    () => request.setHeader("x-(a)", "1"),
    () => request.setHeader("", "1"),
    () => request.setHeader("Host", "1"),
    () => request.setHeader("x-a", any({})),
    () => request.setHeader("x-a", "a\nb"),
    () => request.header(any(1)),
    () => request.setPath("a"),
    () => request.setQuery("a b"),
    () => request.setBody(undefined),
    () => reply(200, Promise.resolve(1)),
    () => reply(any("200")),
  ]) {
    expect(call).toThrow(TypeError);
  }
  for (const call of [
    () => (response.status = 65736),
    () => reply(200.5),
    () => keyvalue.set("k", "v", -1),
    () => keyvalue.set("k", "v", NaN),
    () => keyvalue.set("k", "v", 0.5),
    () => keyvalue.increment("k", 1, 0),
    () => notes.set("n".repeat(65), ""),
  ]) {
    expect(call).toThrow(RangeError);
  }
  request.setHeader("x-a", 42);
  request.appendHeader("x-b", "\ud800");
  expect([request.header("x-a"), request.header("x-b")]).toEqual(["42", "\ufffd"]);
});

test("one call makes at most 256 edits", () => {
  const { request } = fake();
  for (let i = 0; i < 256; i++) request.setHeader("x-a", "1");
  expect(() => request.setHeader("x-a", "1")).toThrow(RangeError);
});

test("a body is bytes, text or JSON, and a byte order mark is dropped", () => {
  const { request } = fake({ body: "\ufeff{}" });
  expect([request.text(), request.json()]).toEqual(["{}", {}]);
  expect(reply(200, new DataView(new ArrayBuffer(4), 1, 2)).body).toEqual(new Uint8Array(2));
  const form = reply(200, new URLSearchParams({ a: "b c" }));
  expect([form.headers[0]?.[1], new TextDecoder().decode(form.body)]).toEqual([
    "application/x-www-form-urlencoded;charset=UTF-8",
    "a=b+c",
  ]);
});

test("a refusal of the store becomes an Error that says what to do", () => {
  fake();
  const { keyvalue: store } = interfaces;
  vi.spyOn(store, "increment").mockImplementation(() => {
    throw { payload: { tag: "not-a-number" } };
  });
  const message = 'keyvalue.increment of key "k": not-a-number: the value is not a counter';
  expect(() => keyvalue.increment("k")).toThrow(message);
  vi.restoreAllMocks();
});
