// The objects that authors use, over the fake.
import { expect, test } from "vitest";
import { config, log, notes, reply } from "../src/index.ts";
import { describe as said } from "../src/failure.ts";
import { keyvalue } from "../src/keyvalue.ts";
import { fake } from "../src/testing.ts";

test("a reply's body decides its type, unless a header does", () => {
  expect(reply(204)).toEqual({ status: 204, headers: [], body: new Uint8Array() });
  expect(reply(200, "é").headers).toEqual([["content-type", "text/plain; charset=utf-8"]]);
  expect(reply(200, { a: 1 }).headers).toEqual([["content-type", "application/json"]]);
  expect(reply(200, "<p>", { headers: { "Content-Type": "text/html" } }).headers).toEqual([["Content-Type", "text/html"]]);
  expect(reply(200, new Uint8Array([1])).body).toEqual(new Uint8Array([1]));
});

test("a request reads and edits its fields, path and body", () => {
  const { request } = fake({ method: "POST", path: "/a", query: "b=1", headers: { "X-A": "1" }, body: '{"c":2}' });
  expect([request.method, request.path, request.query, request.header("x-a"), request.header("x-b")]).toEqual(["POST", "/a", "b=1", "1", undefined]);
  expect(request.json()).toEqual({ c: 2 });
  request.appendHeader("x-a", "2");
  expect([request.header("X-A"), request.headerValues("x-a")]).toEqual(["1, 2", ["1", "2"]]);
  request.removeHeader("x-a");
  request.setBody({ d: 3 });
  request.setQuery(undefined);
  expect([request.header("x-a"), request.text(), request.query]).toEqual([undefined, '{"d":3}', undefined]);
});

test("a response reads and edits its status, fields and body", () => {
  const { response } = fake({ status: 404, responseHeaders: { server: "x" }, responseBody: "no" });
  response.status = 200;
  response.removeHeader("server");
  response.setHeader("x-a", "1");
  response.setBody("yes");
  expect([response.status, response.headers, response.text()]).toEqual([200, [["x-a", "1"]], "yes"]);
});

test("configuration, notes, log and store", () => {
  const exchange = fake({ config: { limit: 5, name: "n" } });
  expect([config.get("name"), config.get("none"), config.number("limit", 1), config.number("none", 1), config.keys()]).toEqual(["n", undefined, 5, 1, ["limit", "name"]]);
  expect(() => config.number("name", 1)).toThrow('config name: "n" is not a number');
  notes.set("a", "1");
  log.warn("careful");
  expect([notes.get("a"), notes.get("b"), exchange.log]).toEqual(["1", undefined, ["warn: careful"]]);
  expect([keyvalue.increment("k"), keyvalue.increment("k", 2), keyvalue.get("k"), keyvalue.delete("k"), keyvalue.get("k")]).toEqual([1, 3, "3", true, undefined]);
});

test("whatever is thrown has a sentence", () => {
  expect([said(new TypeError("x")), said("text"), said({ a: 1 })]).toEqual(["TypeError: x", "text", 'thrown: {"a":1}']);
});
