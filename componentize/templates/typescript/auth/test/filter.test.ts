import { fake } from "@witgate/filter/testing";
import { expect, test } from "vitest";
import { onRequest } from "../src/filter.ts";

const config = { key: "s3cret" };

test("a request without the key or with a wrong key is answered with 401", () => {
  for (const headers of [{}, { "x-api-key": "wrong" }]) {
    const { request } = fake({ headers, config });
    expect(onRequest(request)).toMatchObject({ status: 401 });
  }
});

test("without a configured key nobody is let in", () => {
  const { request } = fake({ headers: { "x-api-key": "any" } });
  expect(onRequest(request)).toMatchObject({ status: 401 });
});

test("the key is hidden from the upstream", () => {
  const { request } = fake({ headers: { "x-api-key": "s3cret" }, config });
  expect(onRequest(request)).toBeUndefined();
  expect(request.header("x-api-key")).toBeUndefined();
});
