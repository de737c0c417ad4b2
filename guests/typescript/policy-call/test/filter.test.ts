import { fake, type FakeInit } from "@witgate/filter/testing";
import { expect, test } from "vitest";
import { onRequest } from "../src/filter.ts";

const URL = "http://opa/v1/data/authz";

async function send(answer: unknown, init: FakeInit = {}) {
  const asked: unknown[] = [];
  const { request, log } = fake({
    path: "/orders/7",
    query: "a=1",
    headers: { authorization: "Bearer t" },
    config: { url: URL },
    http: ({ method, url, body }) => {
      asked.push([method, url, JSON.parse(new TextDecoder().decode(body))]);
      return { status: 200, body: JSON.stringify({ result: answer }) };
    },
    ...init,
  });
  return { answer: await onRequest(request), request, asked, log };
}

test("the policy sees the request and decides", async () => {
  const { answer, asked } = await send(true);
  expect(answer).toBeUndefined();
  const input = { method: "GET", path: ["orders", "7"], query: { a: "1" }, client: "192.0.2.1", route: "test" };
  expect(asked).toEqual([["POST", URL, { input: { ...input, headers: { authorization: "Bearer t" } } }]]);
  const withFields = await send({ allow: true, headers: { "x-tenant": "t1" } });
  expect([withFields.answer, withFields.request.header("x-tenant")]).toEqual([undefined, "t1"]);
});

test("anything but a clear yes refuses the request", async () => {
  for (const decision of [false, undefined, null, "true", 1, {}, { allow: "true" }]) {
    expect((await send(decision)).answer?.status).toBe(403);
  }
});

test("a policy that cannot be asked allows nothing", async () => {
  const unreachable = () => {
    throw { tag: "unavailable", val: "no connection" };
  };
  for (const http of [unreachable, () => ({ status: 500 }), () => ({ status: 200, body: "{" })]) {
    const { answer, log } = await send(true, { http });
    expect(answer?.status).toBe(503);
    expect(log[0]).toContain("the policy cannot be asked");
  }
});
