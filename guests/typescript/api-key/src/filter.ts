// Accepts a request only with an API key, and hides credentials from the upstream.
//
// The same filter exists in Python and Rust; the benchmarks compare the three.
import { config, reply, type Reply, type Request } from "@witgate/filter";

export function onRequest(request: Request): Reply | void {
  const key = request.header("x-api-key");
  const expected = config.get("key");
  if (key === undefined || (expected !== undefined && key !== expected)) {
    return reply(401, { error: "missing or wrong api key" });
  }
  request.setHeader("x-user", "alice");
  for (const name of ["authorization", "cookie"]) {
    if (request.header(name) !== undefined) request.setHeader(name, "REDACTED");
  }
}
