import { fake } from "@witgate/filter/testing";
import { expect, test } from "vitest";
import { onRequest } from "../src/filter.ts";

test("a request without a key is answered with 401", () => {
  const { request } = fake();
  expect(onRequest(request)).toMatchObject({ status: 401, headers: [["content-type", "application/json"]] });
});

test("a request with a wrong key is answered with 401", () => {
  const { request } = fake({ headers: { "x-api-key": "a" }, config: { key: "b" } });
  expect(onRequest(request)).toMatchObject({ status: 401 });
});

test("a request with the key passes and its credentials are hidden from the upstream", () => {
  const { request } = fake({ headers: { "X-Api-Key": "b", cookie: "id=1" }, config: { key: "b" } });
  expect(onRequest(request)).toBeUndefined();
  expect(request.header("x-user")).toBe("alice");
  expect(request.header("cookie")).toBe("REDACTED");
  expect(request.header("authorization")).toBeUndefined();
});
