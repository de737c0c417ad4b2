// The objects and functions that filters use, on the fake of the gateway.
import { expect, test, vi } from "vitest";
import { config, log, notes, reply } from "../src/index.ts";
import { failureMessage } from "../src/failure.ts";
import { interfaces } from "../src/fake.ts";
import { keyvalue } from "../src/keyvalue.ts";
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

test("anything that is thrown has a failure message", () => {
  const messages = [new TypeError("x"), "text", { a: 1 }].map(failureMessage);
  expect(messages).toEqual(["TypeError: x", "text", 'thrown: {"a":1}']);
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
