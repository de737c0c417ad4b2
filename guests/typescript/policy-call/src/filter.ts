// Asks a policy service whether a request may pass, in the form of Open Policy Agent: a POST of
// {"input": …}, answered by {"result": true} or {"result": {"allow": true, "headers": {…}}}.
//
// If there is no answer, the request is refused: a policy that cannot be asked allows nothing.
import { client, config, log, reply, type Reply, type Request, route } from "@witgate/filter";
import { fetch } from "@witgate/filter/http";

type Decision = boolean | { allow?: unknown; headers?: Record<string, string> };

export async function onRequest(request: Request): Promise<Reply | void> {
  let decision: Decision | undefined;
  try {
    decision = await ask(request);
  } catch (error) {
    log.error(`the policy cannot be asked: ${String(error)}`);
    return reply(503, { error: "the policy cannot be asked at the moment" });
  }
  const { allow, headers = {} } = typeof decision === "object" && decision !== null ? decision : { allow: decision };
  if (allow !== true) return reply(403, { error: "the policy does not allow this request" });
  for (const [name, value] of Object.entries(headers)) request.setHeader(name, value);
}

async function ask(request: Request): Promise<Decision | undefined> {
  const url = config.get("url");
  if (url === undefined) throw new Error("config: url is missing");
  const names = (config.get("headers") ?? "authorization,x-user").split(",").map((name) => name.trim());
  const input = {
    method: request.method,
    path: request.path.split("/").filter((segment) => segment !== ""),
    query: Object.fromEntries(new URLSearchParams(request.query ?? "")),
    headers: Object.fromEntries(names.map((name) => [name, request.header(name)])),
    client: client().ip,
    route: route(),
  };
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ input }),
  });
  if (!response.ok) throw new Error(`${url} answered with status ${response.status}`);
  return ((await response.json()) as { result?: Decision }).result;
}
