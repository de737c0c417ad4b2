import { fake } from "@witgate/filter/testing";
import { expect, test } from "vitest";
import { onRequest } from "../src/filter.ts";

test("without a key the answer is 401", () => {
  const { request } = fake();
  expect(onRequest(request)).toMatchObject({ status: 401, headers: [["content-type", "application/json"]] });
});

test("a wrong key is none", () => {
  const { request } = fake({ headers: { "x-api-key": "a" }, config: { key: "b" } });
  expect(onRequest(request)).toMatchObject({ status: 401 });
});

test("with a key credentials stay here", () => {
  const { request } = fake({ headers: { "X-Api-Key": "b", cookie: "id=1" }, config: { key: "b" } });
  expect(onRequest(request)).toBeUndefined();
  expect(request.header("x-user")).toBe("alice");
  expect(request.header("cookie")).toBe("REDACTED");
  expect(request.header("authorization")).toBeUndefined();
});
