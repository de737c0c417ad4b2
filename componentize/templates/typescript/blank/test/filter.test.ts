import { fake } from "@witgate/filter/testing";
import { expect, test } from "vitest";
import { onRequest } from "../src/filter.ts";

test("a caller without a name is refused", () => {
  const { request } = fake();
  expect(onRequest(request)).toMatchObject({ status: 400 });
});

test("a caller is greeted", () => {
  const { request } = fake({ headers: { "x-name": "Ann" }, config: { greeting: "good morning" } });
  expect(onRequest(request)).toBeUndefined();
  expect(request.header("x-greeting")).toBe("good morning, Ann");
});
