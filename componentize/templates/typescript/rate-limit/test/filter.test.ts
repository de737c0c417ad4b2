import { fake } from "@witgate/filter/testing";
import { beforeEach, expect, test } from "vitest";
import { onRequest } from "../src/filter.ts";

beforeEach(() => fake.reset());

function send(clientIp: string): number {
  const { request } = fake({ clientIp, config: { limit: 2 } });
  return onRequest(request)?.status ?? 200;
}

test("a request above the limit is answered with 429", () => {
  expect([send("192.0.2.1"), send("192.0.2.1"), send("192.0.2.1")]).toEqual([200, 200, 429]);
});

test("clients are counted separately", () => {
  expect([send("192.0.2.1"), send("192.0.2.1"), send("192.0.2.2")]).toEqual([200, 200, 200]);
});
