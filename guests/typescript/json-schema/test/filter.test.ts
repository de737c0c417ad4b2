import { fake } from "@witgate/filter/testing";
import { expect, test } from "vitest";
import { onRequest } from "../src/filter.ts";

const SCHEMA = {
  type: "object",
  required: ["item"],
  properties: { item: { type: "string", minLength: 1 }, count: { type: "integer", minimum: 1 } },
  additionalProperties: false,
};

function send(body: string, { method = "POST", type = "application/json", schema = SCHEMA as unknown } = {}) {
  const config = { schema: JSON.stringify(schema) };
  return onRequest(fake({ method, body, headers: { "content-type": type }, config }).request);
}

const told = (answer: ReturnType<typeof send>) => JSON.parse(new TextDecoder().decode(answer?.body));

test("a body that fits passes", () => {
  expect(send('{"item": "a", "count": 2}')).toBeUndefined();
  expect(send('{"item": "a"}', { type: "application/vnd.api+json; charset=utf-8" })).toBeUndefined();
  expect(send("no JSON", { method: "GET" })).toBeUndefined();
});

test("the client learns where its body does not fit", () => {
  const answer = send('{"count": 0}');
  expect(answer?.status).toBe(422);
  const places = told(answer).mistakes.map((mistake: { at: string }) => mistake.at);
  expect(places).toEqual(["#", "#/count"]);
  expect(send('{"item": "a", "other": true}')?.status).toBe(422);
  const anyOf = Array.from({ length: 50 }, () => ({ type: "string" }));
  expect(told(send("1", { schema: { anyOf } })).mistakes.length).toBe(10);
});

test("another content type and broken JSON are refused", () => {
  expect(send("item=a", { type: "application/x-www-form-urlencoded" })?.status).toBe(415);
  for (const body of ["", "{", '{"item": }']) expect(send(body)?.status).toBe(400);
});

test("a filter without a schema fails", () => {
  expect(() => onRequest(fake({ method: "POST", body: "{}", headers: { "content-type": "application/json" } }).request)).toThrow(
    "config schema",
  );
});
