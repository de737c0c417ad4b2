import { config, reply, type Reply, type Request } from "@witgate/filter";

/** Returning a reply answers the client. Returning nothing lets the request continue. */
export function onRequest(request: Request): Reply | void {
  const key = request.header("x-api-key");
  if (key === undefined || key !== config.get("key")) {
    return reply(401, { error: "missing or wrong API key" });
  }
  request.removeHeader("x-api-key");
  request.setHeader("x-authenticated", "yes");
}
