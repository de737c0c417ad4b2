import type { Request } from "@witgate/filter";

const SECRETS = ["password", "token", "secret"];

export function onRequest(request: Request): void {
  if (!(request.header("content-type") ?? "").startsWith("application/json")) return;
  let body: unknown;
  try {
    body = request.json();
  } catch {
    return; // this is not JSON: the upstream will say so
  }
  request.setBody(JSON.stringify(redacted(body)));
}

/** A copy of a JSON value in which secrets are replaced at any depth. */
export function redacted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(redacted);
  if (typeof value !== "object" || value === null) return value;
  const hide = ([key, inner]: [string, unknown]) => [key, SECRETS.includes(key) ? "REDACTED" : redacted(inner)];
  return Object.fromEntries(Object.entries(value).map(hide));
}
