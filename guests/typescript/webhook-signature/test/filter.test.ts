import { fake, type FakeInit } from "@witgate/filter/testing";
import { crypto, hex } from "@witgate/filter/crypto";
import { afterEach, expect, test, vi } from "vitest";
import { onRequest } from "../src/filter.ts";

const KEY = "It's a Secret to Everybody";
// The example of GitHub's documentation.
const SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

afterEach(() => vi.useRealTimers());

function send(headers: Record<string, string>, init: FakeInit = {}) {
  vi.setSystemTime(init.now ?? 0);
  const { request } = fake({ body: "Hello, World!", headers, secrets: { webhook: KEY }, ...init });
  return { answer: onRequest(request), request };
}

test("the signature of the documentation passes", () => {
  const { answer, request } = send({ "x-hub-signature-256": SIGNATURE });
  expect(answer).toBeUndefined();
  expect(request.header("x-webhook-verified")).toBe("true");
});

test("another body, key or form is refused", () => {
  const headers = { "x-hub-signature-256": SIGNATURE };
  for (const [sent, init] of [
    [headers, { body: "hello" }],
    [headers, { secrets: { webhook: "other" } }],
    [{ "x-hub-signature-256": "sha256=00" }, {}],
    [{}, {}],
  ] as const) {
    expect(send(sent, init).answer?.status).toBe(401);
  }
});

test("with a time, an old request is refused", () => {
  const config = { timestamp_header: "x-time" };
  const now = 1_700_000_000_000;
  fake({ secrets: { webhook: KEY } });
  const code = hex.encode(crypto.hmac("SHA-256", { secret: "webhook" }, "1700000000.Hello, World!"));
  const headers = { "x-hub-signature-256": code, "x-time": "1700000000" };
  expect(send(headers, { config, now }).answer).toBeUndefined();
  expect(send(headers, { config, now: now + 301_000 }).answer?.status).toBe(401);
  expect(send({ ...headers, "x-time": "1700000001" }, { config, now }).answer?.status).toBe(401);
  expect(send({ ...headers, "x-time": "NaN" }, { config, now }).answer?.status).toBe(401);
});
