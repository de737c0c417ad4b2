// Accepts a request only if its body fits the JSON Schema of the configuration.
//
// The package interprets the schema. One that compiles it to code would do so in each call, because
// an instance lives for one call.
import { type OutputUnit, type Schema, Validator } from "@cfworker/json-schema";
import { config, reply, type Reply, type Request } from "@witgate/filter";

/** A client learns at most so many mistakes at once. */
const MISTAKES_MAX = 10;

export function onRequest(request: Request): Reply | void {
  const methods = (config.get("methods") ?? "POST,PUT,PATCH").split(",").map((name) => name.trim());
  if (!methods.includes(request.method)) return;
  const type = (request.header("content-type") ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
  if (type !== "application/json" && !type.endsWith("+json")) {
    return reply(415, { error: "the body must be application/json" });
  }
  let body: unknown;
  try {
    body = request.json();
  } catch {
    return reply(400, { error: "the body is not valid JSON" });
  }
  const { valid, errors } = new Validator(schema(), "2020-12").validate(body);
  if (!valid) return reply(422, { error: "the body does not fit the schema", mistakes: mistakes(errors) });
}

function schema(): Schema {
  const text = config.get("schema");
  if (text === undefined) throw new TypeError("config schema: write a JSON Schema");
  return JSON.parse(text) as Schema;
}

/** The innermost mistakes: the others only say that something below them is wrong. */
function mistakes(errors: OutputUnit[]): Array<{ at: string; error: string }> {
  const inner = errors.filter((one) => !errors.some((other) => other.keywordLocation.startsWith(`${one.keywordLocation}/`)));
  return inner.slice(0, MISTAKES_MAX).map(({ instanceLocation, error }) => ({ at: instanceLocation, error }));
}
