import { expect, test } from "vitest";
import { redacted } from "../src/filter.ts";

test("secrets are replaced at any depth", () => {
  expect(redacted({ a: [{ token: "x" }], b: 1 })).toEqual({ a: [{ token: "REDACTED" }], b: 1 });
});
