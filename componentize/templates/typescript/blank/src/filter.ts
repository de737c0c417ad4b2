import { config, log, reply, type Reply, type Request } from "@witgate/filter";

/** Returning a reply answers the client. Returning nothing lets the request continue. */
export function onRequest(request: Request): Reply | void {
  const name = request.header("x-name");
  if (name === undefined) return reply(400, { error: "send your name in x-name" });
  log.info(`greeting ${name}`);
  request.setHeader("x-greeting", `${config.get("greeting") ?? "hello"}, ${name}`);
}
